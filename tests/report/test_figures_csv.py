from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from twinray.report.figures_csv import differences_csv, figures_csv

Make = Callable[..., dict[str, Any]]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_all_digits_are_kept_and_gaps_are_empty(figure: Make) -> None:
    rows = read(figures_csv([("a,b", {"map50": figure(1 / 3, 0.1, 0.5), "map": figure(None), "left_out": ["x"]})]))
    assert float(rows[0]["value"]) == 1 / 3 and rows[0]["run"] == "a,b" and rows[0]["low"] == "0.1"
    assert [rows[1]["value"], rows[1]["low"], rows[1]["n"]] == ["", "", "40"]
    assert len(rows) == 2 and "seeds" not in rows[0]


def test_every_measure_class_count_and_choice_of_images_has_its_row(
    split_figures: Make, classes: tuple[str, ...]
) -> None:
    split = {**split_figures(), "with_boxes": split_figures(0.1)}
    rows = read(figures_csv([("random", split)]))
    found = {(r["images"], r["class"], r["measure"]): r["value"] for r in rows}
    assert len(found) == len(rows)
    overall = {m for images, c, m in found if (images, c) == ("all", "")}
    assert {"map50", "map", "froc", "froc@0.125", "froc@8", "n_images", "n_boxes"} <= overall
    assert found["all", classes[0], "n_boxes"] == "21"
    assert float(found["all", classes[0], "ap50"]) == 0.4
    assert found["all", classes[1], "ap50"] == ""
    assert float(found["with_boxes", classes[0], "ap50"]) == 0.5
    assert float(found["with_boxes", "", "map50"]) == 0.35


def test_differences_name_what_is_subtracted_and_both_intervals(figure: Make) -> None:
    over = {"value": 0.1, "ci95": [-0.3, 0.5], "n": 3, "share_above_zero": 2 / 3}
    one = {**figure(0.1, -0.02, 0.2), "share_above_zero": 0.931, "over_seeds": over}
    rows = read(
        differences_csv("random", [("other", {"map50": one, "per_class": {"blob": {"ap50": one}}, "n_images": 8})])
    )
    assert [(r["run"], r["minus"], r["class"], r["measure"]) for r in rows] == [
        ("other", "random", "", "map50"), ("other", "random", "blob", "ap50"),
    ]  # fmt: skip
    assert (rows[0]["difference"], rows[0]["low"], rows[0]["share_above_zero"]) == ("0.1", "-0.02", "0.931")
    assert (rows[0]["seeds_low"], rows[0]["seeds"], float(rows[0]["seeds_share_above_zero"])) == ("-0.3", "3", 2 / 3)
