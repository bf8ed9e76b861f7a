"""The record between measures and their readers: what goes into JSON comes back; the registry knows what is measured."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.report import evaluate_labels
from twinray.evaluation.measures import KINDS, main_measure, measure, shown_by_class, shown_overall
from twinray.evaluation.record import (
    ClassFigures,
    Figure,
    SplitFigures,
    figure_of,
    read_split,
    split_as_json,
)
from twinray.records import Boxes, Interval

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
figures = st.builds(
    Figure,
    st.none() | finite,
    st.none() | st.tuples(finite, finite),
    st.integers(0, 9999),
    st.sampled_from(["patients", "seeds"]),
    st.none() | st.builds(Figure, finite, st.none(), st.integers(0, 9), st.just("seeds")),
    st.lists(st.tuples(st.none() | finite, finite), max_size=2).map(tuple),
    st.dictionaries(
        words, st.builds(Figure, finite, st.none(), st.integers(0, 9), words), max_size=2
    ),
    st.none() | st.floats(0, 1),
    st.dictionaries(words, st.none() | finite, max_size=2),
    words | st.just(""),
)
named = st.dictionaries(
    st.sampled_from(["map50", "froc@0.125", "auc", "made up"]), figures, max_size=3
)
splits = st.builds(
    SplitFigures,
    named,
    st.dictionaries(words, st.builds(ClassFigures, named, st.just({"n_boxes": 4})), max_size=3),
    st.just({"n_images": 7, "n_boxes": 3}),
    st.none() | st.builds(SplitFigures, named, st.just({}), st.just({"n_images": 2})),
    st.dictionaries(
        words, st.dictionaries(words, st.builds(SplitFigures, named), max_size=2), max_size=2
    ),
    st.none() | st.tuples(st.integers(0, 5), st.integers(5, 9)),
    st.just({"left_out": ["x"], "confusion": None}),
)


@given(splits)
def test_what_goes_into_json_comes_back(split):
    assert read_split(json.loads(json.dumps(split_as_json(split))), "here") == split


def test_what_does_not_exist_is_null():
    figure = figure_of(Interval(float("nan"), None, None, 3))
    assert (figure.value, figure.ci95, figure.n, figure.excludes_zero) == (None, None, 3, None)
    assert json.dumps(split_as_json(SplitFigures({"auc": figure})), allow_nan=False)
    assert Figure(0.1, (0.0, 0.2)).excludes_zero is False
    assert Figure(0.1, (0.05, 0.2)).excludes_zero is True
    assert Figure(-0.1, (-0.2, -0.05)).excludes_zero is True


def test_every_measure_of_both_kinds_is_in_the_registry():
    boxes = {0: Boxes(np.array([[0.0, 0, 9, 9]]), np.array([0]))}
    found = {0: Boxes(np.array([[0.0, 0, 9, 9]]), np.array([0]), np.array([0.5]))}
    detector = evaluate_boxes(boxes, found, ("a",), resampling=Resampling(0)).record()
    truth = np.eye(2)[[0, 1, 0, 1]]
    labels = [
        evaluate_labels(
            truth, truth * 0.5 + 0.2, ("a", "b"), task, resampling=Resampling(0)
        ).record()
        for task in ("multiclass", "multilabel")
    ]
    for kind, records in (("detector", [detector]), ("classifier", labels)):
        for record in records:
            names = {
                *record.figures,
                *(m for own in record.per_class.values() for m in own.figures),
            }
            for name in names:
                assert kind in measure(name).kinds and measure(name).what, name
            assert set(shown_overall(kind)) <= set(record.figures)
            assert set(shown_by_class(kind)) <= set(next(iter(record.per_class.values())).figures)
    assert [main_measure(kind) for kind in KINDS] == ["map50", "auc"]
    assert measure("made_up").title == "made up"
    assert math.isclose(detector.get("map50").value, 1.0)
