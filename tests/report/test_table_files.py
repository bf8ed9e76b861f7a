"""Tables as files: what a Markdown parser reads back is what stood in the cells; LaTeX's letters are escaped."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.report.table_files import latex, markdown
from twinray.report.tables import Table

markdown_it = pytest.importorskip("markdown_it")
CELL = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


def parsed(text: str) -> list[list[str]]:
    """Rows of the first table, as CommonMark with GitHub's tables has them."""
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4))
def test_a_parser_reads_back_what_stood_in_the_cells(rows: list[tuple[str, str, str]]) -> None:
    table = Table("A caption", ("arm", "value", "n"), tuple(rows))
    assert parsed(markdown(table)) == [["arm", "value", "n"], *map(list, rows)]


@given(CELL)
def test_no_letter_of_latex_stays_bare(cell: str) -> None:
    line = next(
        one for one in latex(Table("c", ("a", "b"), ((cell, "x"),))).splitlines() if "& x" in one
    )
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater)\{\}", "", line)  # fmt: skip
    bare = re.sub(r"\\[&%$#_{}]", "", bare).removesuffix(r" & x \\").replace("$-$", "")
    assert not re.search(r"[&%$#_{}\\~^<>]", bare)


def test_negative_numbers_have_a_minus_sign_and_hyphens_stay() -> None:
    text = latex(Table("c", ("arm", "d"), (("BT-1", "-0.010 (-0.020 to +0.001)"),), "A note_"))
    assert r"BT-1 & $-$0.010 ($-$0.020 to +0.001) \\" in text and r"A note\_" in text
