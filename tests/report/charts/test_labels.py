from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.curves import label_curves
from twinray.evaluation.labels.report import evaluate_labels
from twinray.evaluation.record import Figure
from twinray.report.charts.labels import (
    confusion_of_labels,
    precision_recall_of_labels,
    reliability_plot,
    roc_curves,
    subgroup_plot,
)


@pytest.fixture(scope="module")
def reports():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 5)) < [0.3, 0.1, 0.5, 0.05, 0.0]).astype(float)
    names = ("Effusion", "$x_1$ & <b>", "No finding", "Nodule", "never")
    runs = {}
    for name, share in (
        ("random", 0.2),
        ("runs/a very long name of a run, longer than a legend", 0.4),
    ):
        scores = np.clip(share * truth + (1 - share) * rng.random(truth.shape), 0, 1)
        report = evaluate_labels(truth, scores, names, "multilabel", resampling=Resampling(20))
        runs[name] = (report, label_curves(truth, scores, names))
    return runs


def drawn(reports):
    curves = {name: own for name, (_, own) in reports.items()}
    areas = {
        name: {c: report.record().get("auc", c) for c in own}
        for name, (report, own) in reports.items()
    }
    groups = {
        "F": (Figure(0.8, (0.7, 0.9), 50), 60),
        "M": (Figure(0.7, None, 3), 3),
        "unknown": (None, 0),
    }
    return [
        roc_curves(curves, areas),
        precision_recall_of_labels(curves),
        reliability_plot(
            {name: report.reliability["Effusion"] for name, (report, _) in reports.items()}
        ),
        confusion_of_labels(np.array([[5, 1], [0, 0]]), ("a", "b"), "run"),
        subgroup_plot(dict.fromkeys(reports, groups), "AUC by sex"),
    ]


def test_charts_are_svg_and_the_same_twice(reports):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = drawn(reports), drawn(reports)
    assert first == second
    for svg in first:
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert b"prefers-color-scheme: dark" in svg
    assert first[0] != first[1]


def test_charts_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for svg in (
            roc_curves({}),
            precision_recall_of_labels({}),
            reliability_plot({}),
            subgroup_plot({}, "x"),
        ):
            assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_charts_of_dozens_of_runs_keep_their_height(reports):
    """A study's task has dozens of runs: their names must not leave the curves no room, which Matplotlib warns of."""
    (report, own), *_ = reports.values()
    runs = {f"Barlow Twins on adults, pre-training {i}, 10 % of the labels, seed {i}": own for i in range(54)}  # fmt: skip
    curve = report.reliability["Effusion"]
    groups = {"F": (Figure(0.8, (0.7, 0.9), 50), 60), "M": (Figure(0.7, None, 3), 3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        roc_curves(runs, {name: {} for name in runs})
        precision_recall_of_labels(runs)
        reliability_plot(dict.fromkeys(runs, curve))
        subgroup_plot(dict.fromkeys(runs, groups), "AUC by sex")


def test_names_of_many_runs_leave_charts_their_width_and_are_whole(reports):
    """Twelve names of 40 letters stand below: beside each other they took two thirds of a chart, and were cut off themselves."""
    report, curves = next(iter(reports.values()))
    names = [f"ImageNet and Barlow Twins on adults, {i:2} %" for i in range(12)]
    charts = [
        roc_curves({key: {"Effusion": curves["Effusion"]} for key in names}, None),
        reliability_plot(dict.fromkeys(names, report.reliability["Effusion"])),
        subgroup_plot(
            {key: {"F": (Figure(0.8, (0.7, 0.9), 50), 60)} for key in names}, "AUC by sex"
        ),
    ]
    for chart in charts:
        sheet = chart.sheet
        assert min(axes.get_position().width for axes in sheet.axes if axes.get_visible()) > 0.6
        (legend,) = sheet.legends
        drawn = legend.get_window_extent(FigureCanvasAgg(sheet).get_renderer())
        assert drawn.x1 <= sheet.bbox.x1 and drawn.y0 >= -1
        lowest = min(axes.get_tightbbox().y0 for axes in sheet.axes if axes.get_visible())
        assert drawn.y1 <= lowest + 4  # pixels; the frame that is not drawn has a margin
