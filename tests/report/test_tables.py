from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from twinray.report.tables import (
    ArmRow,
    Table,
    arms_table,
    as_html,
    class_tables,
    difference_table,
    froc_table,
    map50_table,
    per_class_table,
)

Make = Callable[..., dict[str, Any]]


def printed(table: Table, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_arm_table_shows_value_interval_and_seconds(figure: Make) -> None:
    table = map50_table(
        [ArmRow("random", figure(0.25, 0.2, 0.31), 61.7), ArmRow("Barlow Twins", figure(None), None)], "a note"
    )
    assert table.columns == ("arm", "mAP50", "95 % interval", "seconds")
    assert table.rows[0] == ("random", "0.250", "0.200 to 0.310", "62")
    assert table.rows[1] == ("Barlow Twins", "not defined", "not defined", "not defined")
    text = printed(table)
    assert "0.200 to 0.310" in text and "a note" in text


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="2 columns but a row of 1"):
        Table("x", ("a", "b"), (("1",),))


def test_names_are_text_on_the_terminal_and_on_the_page(split_figures: Make) -> None:
    table = arms_table([("[red]run[/red] <b>", split_figures())], ("map50", "froc"))
    assert "[red]run[/red] <b>" in printed(table)
    assert "<b>" not in as_html(table) and "&lt;b&gt;" in as_html(table)
    assert "0.250 (0.200 to 0.310)" in printed(table)


def test_classes_keep_their_order_and_their_counts(split_figures: Make, classes: tuple[str, ...]) -> None:
    table = per_class_table({"random": split_figures(), "other": split_figures(0.1)})
    assert [row[0] for row in table.rows] == list(classes)
    assert table.rows[0] == ("opacity", "21", "0.400", "0.300 to 0.500", "0.500", "0.300 to 0.500")
    assert table.rows[1][2] == "not defined"
    assert "<script>" not in as_html(table)


def test_froc_and_differences(figure: Make, split_figures: Make) -> None:
    table = froc_table({"random": split_figures()})
    assert table.rows[0] == ("random", "0.20", "0.25", "0.30", "0.35", "0.40", "0.45", "0.50", "0.350")
    assert set(froc_table({"empty": {}}).rows[0][1:]) == {"not defined"}
    shown = difference_table({"mAP50": {**figure(0.1, -0.02, 0.2), "share_above_zero": 0.931}, "none": None})
    assert shown.rows[0] == ("mAP50", "+0.100", "-0.020 to +0.200", "93 %")
    assert shown.rows[1] == ("none", "not defined", "not defined", "not defined")


def test_a_narrow_terminal_breaks_names_and_cuts_none(split_figures: Make) -> None:
    names = [f"runs/somewhere/barlow-twins-on-everything-fold0-seed{i}" for i in range(2)]
    text = printed(arms_table([(name, split_figures()) for name in names], ("map50", "map", "froc", "froc@1")), 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    first = "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert first == "".join(names)
    assert text.count("├") == 1  # a line between rows that are broken
    assert "├" not in printed(arms_table([("a", split_figures()), ("b", split_figures())], ("map50",)), 80)


def test_fourteen_classes_of_many_runs_stay_readable(figure: Make) -> None:
    classes = [f"Pleural thickening {i}" for i in range(14)]
    split = {"per_class": {c: {"ap50": figure(0.1, 0.05, 0.2), "n_boxes": 7 + i} for i, c in enumerate(classes)}}
    runs = [(f"barlow-twins-fold0-seed{i}", split) for i in range(5)]
    tables = class_tables(runs, "ap50", "n_boxes", 80, "true boxes")
    assert [name for table in tables for name in table.columns[2:]] == [name for name, _ in runs]
    assert len(class_tables(runs, "ap50", "n_boxes", 200, "true boxes")) == 1
    for table in tables:
        assert table.columns[:2] == ("class", "true boxes")
        assert [row[:2] for row in table.rows] == [(c, str(7 + i)) for i, c in enumerate(classes)]
        lines = printed(table, 80).splitlines()
        assert sum("0.100 (0.050 to 0.200)" in line for line in lines) == 14
        assert max(map(len, lines)) <= 80
    assert class_tables([("a", {})], "ap50", "n_boxes", 80, "true boxes") == []
