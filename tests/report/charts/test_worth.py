"""Label curves with their distance, and FROC with readers as points."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from twinray.evaluation.readers.ceiling import ALL_READERS, ReaderFigures
from twinray.evaluation.record import Figure
from twinray.evaluation.worth.gain import LabelCurve, gain
from twinray.report.charts.curves import froc_curves
from twinray.report.charts.worth import froc_with_readers, label_curves

Make = Callable[..., Any]


def curve(name, means, seeds=3):
    rng = np.random.default_rng(len(name))
    values = np.array(means)[:, None] + 0.004 * rng.normal(size=(len(means), seeds))
    return LabelCurve(
        name,
        (100.0, 200.0, 400.0, 800.0),
        values,
        values[:, :, None] + 0.01 * rng.normal(size=(1, 1, 60)),
    )


def reader(name, x, y, ends=(0.1, 0.6)):
    return ReaderFigures(
        name, 10, 9, 8, Figure(y, (max(y - 0.1, 0), y + 0.1), 10), Figure(x, ends, 10), None
    )


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.decode("utf-8"))


@pytest.mark.parametrize(
    ("means", "told"),
    [
        ((0.62, 0.68, 0.72, 0.80), "patients"),
        ((0.90, 0.91, 0.92, 0.93), "more than 700"),
        ((0.30, 0.31, 0.32, 0.33), "less than 0"),
    ],
)
def test_the_distance_is_written_on_the_chart(means, told):
    base, other = curve("scratch", (0.60, 0.66, 0.65, 0.72)), curve("ours", means)
    found = gain(base, other)
    svg = label_curves(base, other, found, "map50")
    assert svg == label_curves(base, other, found, "map50")
    text = svg.decode("utf-8")
    drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text.split("</style>", 1)[1]))
    adapted = set(re.findall(r'\[style\*="(?:fill|stroke): (#[0-9a-f]{6})"\]', text))
    assert drawn and drawn <= adapted
    shown = texts(svg)
    assert "scratch" in shown and "ours" in shown
    assert any(told in text and found.patients.told() in text for text in shown)


def test_curves_without_an_interval_are_drawn():
    base = LabelCurve("a", (1.0, 2.0), np.array([[0.1], [0.2]]), np.zeros((2, 1, 0)))
    assert b"no interval" in label_curves(base, base, gain(base, base), "map50")


def test_a_measure_that_falls():
    base, other = (
        curve("scratch", (0.40, 0.34, 0.35, 0.28)),
        curve("ours", (0.38, 0.32, 0.28, 0.20)),
    )
    found = gain(base, other, better="lower")
    assert 100 < found.needed.value < 800
    assert label_curves(base, other, found, "brier").startswith(b"<?xml")


def test_readers_are_points_beside_the_curves(split_figures: Make, evaluation: Make) -> None:
    result = evaluation({"random": split_figures(), "ours": split_figures(0.1)})
    readers = [reader(ALL_READERS, 0.35, 0.36), reader("R1", 0.3, 0.4), reader("R2", 0.6, 0.5)]
    svg = froc_with_readers(result, readers)
    shown = texts(svg)
    assert ALL_READERS in shown and shown.count("a reader against the others") == 1
    assert svg == froc_with_readers(result, readers) and svg != froc_curves(result)
    # a reader without a false positive has no place on a logarithmic axis
    silent = froc_with_readers(result, [reader("R3", 0.0, 0.4, (0.0, 0.1))])
    assert "a reader against the others" not in texts(silent)
