from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from twinray.evaluation.record import ClassFigures, Figure, SplitFigures
from twinray.report.tables import Table, arms_table, class_tables, difference_table

Make = Callable[..., Any]


def printed(table: Table, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="2 columns but a row of 1"):
        Table("x", ("a", "b"), (("1",),))


def test_names_are_text_on_the_terminal(split_figures: Make) -> None:
    table = arms_table([("[red]run[/red] <b>", split_figures())], ("map50", "froc"))
    assert "[red]run[/red] <b>" in printed(table)
    assert "0.250 (0.200 to 0.310)" in printed(table)


def test_differences_show_their_sign_and_what_they_are_over(figure: Make) -> None:
    seeds = Figure(0.1, (-0.3, 0.5), 3, "seeds", share_above_zero=1.0)
    one = replace(figure(0.1, -0.02, 0.2), share_above_zero=0.931, over_seeds=seeds)
    difference = SplitFigures({"map50": one})
    shown = difference_table(difference, ("map50", "none"))
    assert shown.rows[0] == ("mAP50", "+0.100", "-0.020 to +0.200", "93 %")
    assert shown.rows[1] == ("none", "not defined", "not defined", "not defined")
    shown = difference_table(difference, ("map50",), over_seeds=True)
    assert (shown.columns[-1], shown.rows[0]) == (
        "seeds above 0",
        ("mAP50", "+0.100", "-0.300 to +0.500", "100 %"),
    )


def test_a_narrow_terminal_breaks_names_and_cuts_none(split_figures: Make) -> None:
    names = [f"runs/somewhere/barlow-twins-on-everything-fold0-seed{i}" for i in range(2)]
    text = printed(
        arms_table([(name, split_figures()) for name in names], ("map50", "map", "froc", "froc@1")),
        80,
    )
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    first = "".join(
        line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")
    )
    assert first == "".join(names) * 2  # two tables of two measures: no interval is broken
    assert len(re.findall(r"\d \(\d\.\d+ to \d\.\d+\)", text)) == 6
    assert text.count("├") == 2  # a line between rows that are broken, in each
    assert "├" not in printed(
        arms_table([("a", split_figures()), ("b", split_figures())], ("map50",)), 80
    )


def test_fourteen_classes_of_many_runs_stay_readable(figure: Make) -> None:
    classes = [f"Pleural thickening {i}" for i in range(14)]
    own = {
        c: ClassFigures({"ap50": figure(0.1, 0.05, 0.2)}, {"n_boxes": 7 + i})
        for i, c in enumerate(classes)
    }
    split = SplitFigures({}, own)
    runs = [(f"barlow-twins-fold0-seed{i}", split) for i in range(5)]
    tables = class_tables(runs, "ap50", "n_boxes", 80)
    assert [name for table in tables for name in table.columns[2:]] == [name for name, _ in runs]
    assert len(class_tables(runs, "ap50", "n_boxes", 200)) == 1
    for table in tables:
        assert table.columns[:2] == ("class", "true boxes")
        assert [row[:2] for row in table.rows] == [(c, str(7 + i)) for i, c in enumerate(classes)]
        lines = printed(table, 80).splitlines()
        assert sum("0.100 (0.050 to 0.200)" in line for line in lines) == 14
        assert max(map(len, lines)) <= 80
    assert class_tables([("a", SplitFigures({}))], "ap50", "n_boxes", 80) == []


def test_title_and_note_are_not_broken_at_the_width_of_a_narrow_table() -> None:
    table = Table(
        "Only the 24 images with boxes: value (95 % interval)",
        ("run", "n"),
        (("a", "1"),),
        "a minus b; interval over patients.",
    )
    lines = printed(table, 80).splitlines()
    assert (lines[0].rstrip(), lines[-1].rstrip()) == (table.caption, table.note)
