from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.errors import InputError
from twinray.evaluation.accumulate import FROC_RATES, froc, froc_rows
from twinray.evaluation.matching import flatten, image_order, match
from twinray.geometry import box_iou
from twinray.records import Boxes


def scored(xyxy, scores, labels=None):
    return Boxes(
        np.array(xyxy, dtype=float).reshape(-1, 4),
        np.array(labels or [0] * len(scores)),
        np.array(scores),
    )


def true(xyxy, labels=None):
    boxes = np.array(xyxy, dtype=float).reshape(-1, 4)
    return Boxes(boxes, np.array(labels or [0] * len(boxes)))


def test_iou_by_hand():
    got = box_iou(
        np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [3, 3, 0, 0]]),
        np.array([[0.0, 0, 10, 10], [50, 50, 1, 1]]),
    )
    np.testing.assert_allclose(got, [[1, 0], [1 / 3, 0], [0, 0]])


def test_the_higher_score_takes_the_box_and_the_double_is_false():
    flat = flatten(
        [true([0, 0, 10, 10])], [scored([[0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8])], ("a",)
    )
    assert match(flat, (0.5, 0.95)).hit.tolist() == [[True, False], [False, True]]


def test_an_iou_at_the_threshold_is_a_hit():
    flat = flatten([true([0, 0, 10, 10])], [scored([0, 0, 10, 5], [0.9])], ("a",))
    assert match(flat, (0.5,)).hit.all()
    assert match(
        flatten([true([0, 0, 10, 10])], [scored([0, 0, 10, 10], [0.9])], ("a",)), (1.0,)
    ).hit.all()


def test_other_classes_and_other_images_are_never_hit():
    truth = {"a": true([0, 0, 10, 10], [0]), "b": Boxes.empty()}
    predictions = {"a": scored([0, 0, 10, 10], [0.9], [1]), "b": scored([0, 0, 10, 10], [0.9], [0])}
    assert not match(flatten(truth, predictions, ("x", "y")), (0.5,)).hit.any()


def test_centre_rule_needs_no_overlap_but_the_centre_inside():
    predictions = [scored([[4, 4, 6, 6], [9, 9, 13, 13], [3, 3, 7, 7]], [0.9, 0.8, 0.7])]
    matches = match(flatten([true([0, 0, 10, 10])], predictions, ("a",)), "centre")
    assert matches.hit.tolist() == [[True, False, False]]
    assert matches.row("centre") == 0


def test_an_unmatched_threshold_is_named():
    matches = match(flatten([true([0, 0, 1, 1])], {}, ("a",)), (0.5,))
    with pytest.raises(KeyError, match=r"not matched at 0\.75"):
        matches.row(0.75)
    with pytest.raises(InputError, match="IoU threshold"):
        match(flatten([true([0, 0, 1, 1])], {}, ("a",)), (0.0,))


def test_order_of_ids():
    ids = ["b", 10, "a", 9]
    assert [ids[i] for i in image_order(ids)] == [9, 10, "a", "b"]


def spelled_out_froc(matches, label, n_images, rate):
    """The best sensitivity of any threshold with at most ``rate`` false positives an image."""
    chosen = np.ones(len(matches.score), bool) if label is None else matches.label == label
    hit, score = matches.hit[0][chosen], matches.score[chosen]
    n_true = matches.truth_counts.sum() if label is None else matches.truth_counts[:, label].sum()
    if n_true == 0:
        return np.nan
    best = 0.0
    for threshold in np.unique(score):
        passed = score >= threshold
        if np.sum(passed & ~hit) <= rate * n_images:
            best = max(best, np.sum(passed & hit) / n_true)
    return best


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([None, 1]), st.sampled_from(["iou", "centre"]))
def test_froc_is_the_spelled_out_one(simulate, seed, decimals, rule):
    truth, predictions = simulate(seed, n_images=10, n_classes=3, n_false=12, decimals=decimals)
    flat = flatten(truth, predictions, ("a", "b", "c"))
    matches = match(flat, "centre" if rule == "centre" else (0.5,))
    for label in (None, 0, 1, 2):
        rows = froc_rows(matches, matches.thresholds[0], np.arange(10), label)
        got = froc(rows, np.ones((10, 1)))[:, 0]
        expected = [spelled_out_froc(matches, label, 10, rate) for rate in FROC_RATES]
        np.testing.assert_allclose(got, expected, atol=1e-12)
