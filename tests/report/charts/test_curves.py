from __future__ import annotations

import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from twinray.evaluation.diagnostics import Calibration, PrecisionRecall
from twinray.evaluation.record import Figure, SplitFigures
from twinray.report.charts.curves import (
    ArmCurve,
    class_bars,
    detector_curves,
    fraction_curves,
    froc_curves,
    interval_plot,
    pretraining_curves,
)
from twinray.report.charts.diagnostics import (
    calibration_plot,
    confusion_plot,
    precision_recall_curves,
    run_dots,
)

Make = Callable[..., Any]
Lines = list[dict[str, Any]]


def is_svg(data: bytes) -> bool:
    return ElementTree.fromstring(data).tag.endswith("svg")


def all_figures(
    figure: Make, split_figures: Make, evaluation: Make, pre: Lines, det: Lines
) -> list[bytes]:
    arms = {
        "random": split_figures(),
        "Barlow Twins": split_figures(0.1),
        "ImageNet $1 & $2 <v1>": SplitFigures({}),
    }
    result = evaluation(arms, {"Barlow Twins": SplitFigures({"map50": figure(0.1, -0.02, 0.3)})})
    return [
        pretraining_curves(pre),
        detector_curves(
            [ArmCurve("random", det, 2), ArmCurve("Barlow Twins", det[:3]), ArmCurve("none", [], 3)]
        ),
        interval_plot(result, "map50"),
        class_bars(result, "ap50"),
        froc_curves(result),
        fraction_curves(result, "map50"),
    ]


def test_every_chart_is_svg_and_the_same_twice(
    figure: Make,
    split_figures: Make,
    evaluation: Make,
    pretraining_lines: Lines,
    detector_lines: Lines,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = all_figures(figure, split_figures, evaluation, pretraining_lines, detector_lines)
        second = all_figures(figure, split_figures, evaluation, pretraining_lines, detector_lines)
    assert all(is_svg(data) for data in first)
    assert first == second


def test_charts_of_nothing_say_so(figure: Make, evaluation: Make) -> None:
    nothing = evaluation(
        {"a": SplitFigures({}), "b": SplitFigures({"map50": figure(None)})}, {"b": SplitFigures({})}
    )
    empty = [
        pretraining_curves([]),
        pretraining_curves([{"step": 1, "loss": None}]),
        detector_curves([]),
        detector_curves([ArmCurve("a", [], None)]),
        interval_plot(nothing, "map50"),
        class_bars(nothing, "ap50"),
        froc_curves(nothing),
        fraction_curves(nothing, "map50"),
        run_dots(nothing, "map50"),
    ]
    assert all(is_svg(data) for data in empty)


def test_titles_say_whether_differences_are_shown(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    arms = {name: split_figures() for name in "abc"}
    clear, open_ = (
        SplitFigures({"map50": figure(0.1, 0.02, 0.3)}),
        SplitFigures({"map50": figure(0.1, -0.02, 0.3)}),
    )
    assert b"Paired difference: not shown" in interval_plot(
        evaluation(dict(list(arms.items())[:2]), {"b": open_}), "map50"
    )
    assert b"Paired difference: 1 of 2 shown" in interval_plot(
        evaluation(arms, {"b": clear, "c": open_}), "map50"
    )


def test_figures_have_a_ground_real_text_and_colours_for_the_dark(
    split_figures: Make, evaluation: Make
) -> None:
    text = froc_curves(evaluation({"random": split_figures()})).decode()
    assert "<text" in text and "false positives per image" in text
    assert re.search(r'id="patch_1">\s*<path[^>]*style="fill: #ffffff', text)
    assert "prefers-color-scheme: dark" in text
    drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text.split("</style>", 1)[1]))
    adapted = set(re.findall(r'\[style\*="(?:fill|stroke): (#[0-9a-f]{6})"\]', text))
    assert drawn and drawn <= adapted


@pytest.mark.parametrize(
    "module",
    [
        "charts.curves",
        "pictures.panels",
        "tables",
        "page.document",
        "page.comparison",
        "page.study",
    ],
)
def test_no_global_state_of_matplotlib_and_no_torch(module: str) -> None:
    code = f"import sys, twinray.report.{module}; assert not {{'matplotlib.pyplot', 'torch'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_charts_of_finished_runs_are_svg_with_and_without_figures(evaluation: Make) -> None:
    runs = ((0.1, 0.2), (0.3, None)), ((0.5, 0.5), (0.5, 0.5))
    arms = {
        n: SplitFigures({"map50": Figure(0.2, runs=own)}) for n, own in zip("ab", runs, strict=True)
    }
    result = evaluation(arms, folds=2, seeds=(0, 1))
    nothing = np.zeros(0)
    curve = PrecisionRecall(np.array([0.9, 0.5]), np.array([1.0, 0.5]), np.array([0.2, 0.4]), 5)
    none = PrecisionRecall(nothing, nothing, nothing, 0)
    edges, nan = np.linspace(0, 1, 3), np.full(2, np.nan)
    known = Calibration(
        edges, np.array([3, 0]), np.array([0.2, np.nan]), np.array([0.4, np.nan]), 0.2
    )
    unknown = Calibration(edges, np.zeros(2, dtype=np.int64), nan, nan, float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [
            precision_recall_curves({"a": curve, "b $x$": none}),
            precision_recall_curves({"b": none}),
            calibration_plot({"a": (known, 0.3), "b": (unknown, float("nan"))}),
            confusion_plot(np.array([[3, 1], [2, 0]]), ["a <b>"], "run"),
            confusion_plot(
                np.zeros((41, 41), dtype=np.int64), [f"class {i}" for i in range(40)], "run"
            ),
            run_dots(result, "map50"),
        ]
    assert all(is_svg(data) for data in drawn)


def test_long_names_of_arms_stand_whole_beside_their_rows(split_figures, evaluation):
    name = "barlow-twins-kermany-from-imagenet, fraction 0.01"
    svg = interval_plot(evaluation({"random": split_figures(), name: split_figures()}), "map50")
    assert b"barlow-twins-kermany-from-" in svg and b"imagenet, fraction 0.01" in svg
    assert "\N{HORIZONTAL ELLIPSIS}".encode() not in svg
