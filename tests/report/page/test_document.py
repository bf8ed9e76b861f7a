from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from twinray.errors import TwinrayError
from twinray.evaluation.record import ClassFigures, SplitFigures
from twinray.report.page.comparison import content
from twinray.report.page.document import (
    Caution,
    Code,
    Content,
    Details,
    Facts,
    Heading,
    Key,
    Keys,
    Panels,
    Picture,
    Points,
    Section,
    Steps,
    Words,
    as_page,
    join_words,
    write_report,
)
from twinray.report.tables import Table
from twinray.report.verdict import Verdict

Make = Callable[..., Any]
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('1')</script> & \"quotes\""


class Checked(HTMLParser):
    """Fails on tags that do not nest; keeps what a page must and must not have."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_self_contained(page: str) -> Checked:
    parsed = Checked(page)
    assert "http://" not in page and "https://" not in page and "//cdn" not in page
    assert not parsed.named("script") and not parsed.named("link") and "@import" not in page
    assert all(
        (image["src"] or "").startswith("data:image/") and image["alt"]
        for image in parsed.named("img")
    )
    assert all(
        not any(name.startswith("on") for name in attributes) for _, attributes in parsed.tags
    )
    inside = {
        link["href"] for link in parsed.named("a") if not (link["href"] or "").endswith(".csv")
    }
    assert all((href or "").startswith("#") for href in inside)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and inside <= {f"#{i}" for i in ids}
    assert all(head.get("scope") for head in parsed.named("th"))
    return parsed


def test_every_block_is_escaped(figure: Make, split_figures: Make, evaluation: Make) -> None:
    table = Table(HOSTILE, (HOSTILE, HOSTILE), ((HOSTILE, HOSTILE),), HOSTILE)
    picture = Picture(b"\x89PNG", "png", HOSTILE, HOSTILE)
    blocks = (
        HOSTILE,
        Heading(HOSTILE),
        Points(((HOSTILE, HOSTILE), ("", HOSTILE))),
        Steps(((HOSTILE, HOSTILE, HOSTILE),)),
        Keys((Key(HOSTILE, HOSTILE, HOSTILE, HOSTILE),)),
        Verdict("open", HOSTILE, HOSTILE, HOSTILE),
        table,
        Words(table),
        picture,
        Panels((picture,), HOSTILE),
        Code(HOSTILE),
        Facts(((HOSTILE, HOSTILE),)),
        Caution((HOSTILE,)),
        Details(HOSTILE, (HOSTILE,)),
    )
    page = as_page(
        Content(
            HOSTILE,
            HOSTILE,
            HOSTILE,
            (Section(HOSTILE, HOSTILE, blocks, HOSTILE),),
            HOSTILE,
            (HOSTILE,),
        )
    )
    parsed = assert_self_contained(page)
    assert "".join(parsed.text).count(HOSTILE) >= 34
    assert parsed.named("html")[0]["lang"] == "en"
    one = SplitFigures(
        {"map50": figure(0.1, -0.02, 0.2)}, {HOSTILE: ClassFigures({"ap50": figure(0.1)})}
    )
    split = SplitFigures(
        {"map50": figure(0.2)}, {HOSTILE: ClassFigures({"ap50": figure(0.1)}, {"n_boxes": 99})}
    )
    result = evaluation(
        {HOSTILE: split, HOSTILE + "2": split}, {HOSTILE + "2": one}, notes=(HOSTILE,), rule=HOSTILE
    )
    assert_self_contained(as_page(content(result)))


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TwinrayError, match="could not write report"):
        write_report(tmp_path / "absent" / "report.html", Content("t", "o", "l", (), "f"))


def test_words_are_joined() -> None:
    assert [join_words(w) for w in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
