from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from twinray.report.tables import (
    ArmRow,
    Table,
    arms_csv,
    arms_table,
    as_html,
    difference_table,
    froc_table,
    map50_table,
    per_class_table,
)

Make = Callable[..., dict[str, Any]]


def printed(table: Table) -> str:
    console = Console(width=160, file=io.StringIO(), color_system=None)
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


def test_the_csv_keeps_all_digits_and_leaves_gaps_empty(figure: Make) -> None:
    rows = list(
        csv.DictReader(
            io.StringIO(
                arms_csv([("a,b", {"map50": figure(1 / 3, 0.1, 0.5), "map": figure(None)})], ("map50", "map", "auc"))
            )
        )
    )
    assert float(rows[0]["value"]) == 1 / 3 and rows[0]["run"] == "a,b" and rows[0]["low"] == "0.1"
    assert [rows[1]["value"], rows[1]["low"], rows[2]["value"], rows[2]["n"]] == ["", "", "", ""]


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
