from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twinray.evaluation.record import ClassFigures, Figure, SplitFigures
from twinray.report.figures_csv import differences_csv, figures_csv, fractions_csv

Make = Callable[..., Any]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_all_digits_are_kept_and_gaps_are_empty(figure: Make) -> None:
    split = SplitFigures(
        {"map50": figure(1 / 3, 0.1, 0.5), "map": figure(None)}, details={"left_out": ["x"]}
    )
    rows = read(figures_csv([("a,b", split)]))
    assert float(rows[0]["value"]) == 1 / 3 and rows[0]["run"] == "a,b" and rows[0]["low"] == "0.1"
    assert [rows[1]["value"], rows[1]["low"], rows[1]["n"], rows[1]["over"]] == [
        "",
        "",
        "40",
        "patients",
    ]
    assert len(rows) == 2 and "seeds" not in rows[0]


def test_a_zero_has_no_sign_and_a_loss_keeps_its_own(figure: Make) -> None:
    split = SplitFigures({"map50": figure(-0.0, -0.0, 0.5), "map": figure(-1e-9, -0.5, -0.0)})
    values = [
        [row[name] for name in ("difference", "low", "high")]
        for row in read(differences_csv([("b", "a", split)]))
    ]
    assert values == [["0.0", "0.0", "0.5"], ["-1e-09", "-0.5", "0.0"]]


def test_every_measure_class_count_and_choice_of_images_has_its_row(
    split_figures: Make, classes: tuple[str, ...]
) -> None:
    group = {"sex": {"F": split_figures(0.2)}}
    split = replace(split_figures(), with_boxes=split_figures(0.1), subgroups=group, seen=(2, 80))
    rows = read(figures_csv([("random", split)]))
    found = {(r["images"], r["class"], r["measure"]): r["value"] for r in rows}
    assert len(found) == len(rows)
    overall = {m for images, c, m in found if (images, c) == ("all", "")}
    assert {
        "map50",
        "map",
        "froc",
        "froc@0.125",
        "froc@8",
        "n_images",
        "n_boxes",
        "seen_in_pretraining",
    } <= overall
    assert found["all", classes[0], "n_boxes"] == "45"
    assert float(found["all", classes[0], "ap50"]) == 0.4
    assert found["all", classes[1], "ap50"] == ""
    assert float(found["with_boxes", classes[0], "ap50"]) == 0.5
    assert float(found["with_boxes", "", "map50"]) == 0.35
    assert float(found["sex=F", "", "map50"]) == 0.45


def test_differences_name_what_is_subtracted_and_both_intervals(figure: Make) -> None:
    over = Figure(0.1, (-0.3, 0.5), 3, "label draws", share_above_zero=2 / 3)
    one = replace(
        figure(0.1, -0.02, 0.2), share_above_zero=0.931, over_seeds=over, tests={"holm_p": 0.25}
    )
    split = SplitFigures(
        {"map50": one}, {"blob": ClassFigures({"ap50": replace(one, tests={})})}, {"n_images": 8}
    )
    rows = read(differences_csv([("other", "random", split)]))
    assert [(r["run"], r["minus"], r["class"], r["measure"]) for r in rows] == [
        ("other", "random", "", "map50"), ("other", "random", "blob", "ap50"),
    ]  # fmt: skip
    assert (rows[0]["difference"], rows[0]["low"], rows[0]["share_above_zero"]) == (
        "0.1",
        "-0.02",
        "0.931",
    )
    assert (rows[0]["seeds_low"], rows[0]["seeds"], float(rows[0]["seeds_share_above_zero"])) == (
        "-0.3",
        "3",
        2 / 3,
    )
    assert (rows[0]["seeds_over"], [row["holm_p"] for row in rows]) == ("label draws", ["0.25", ""])


def test_points_of_a_curve_have_their_share_of_labels(
    split_figures: Make, evaluation: Make
) -> None:
    result = evaluation({"a, fraction 0.1": split_figures(), "a, fraction 1.0": split_figures(0.1)})
    arms = {
        name: replace(arm, family="a", fraction=float(name.split()[-1]))
        for name, arm in result.arms.items()
    }
    rows = [
        r
        for r in read(fractions_csv(replace(result, arms=arms)))
        if (r["class"], r["measure"]) == ("", "map50")
    ]
    assert [(r["arm"], r["fraction"], float(r["value"])) for r in rows] == [
        ("a", "0.1", 0.25),
        ("a", "1.0", 0.35),
    ]
