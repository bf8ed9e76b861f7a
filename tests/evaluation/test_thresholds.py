"""Thresholds for a number of false positives: against counting by hand, with ties, and where validation cannot tell."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.errors import InputError
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.thresholds import (
    FALLBACK_SCORE,
    MIN_IMAGES,
    OPERATING_POINTS,
    choose_thresholds,
    thresholds_from_json,
)
from twinray.records import Boxes

NAMES = ["a", "b", "c", "d"]


def one_class(scores: list[tuple[float, bool]], n_images: int = 100) -> tuple[dict, dict]:
    """One true box an image as far as there are hits; each prediction on an image of its own."""
    truth = {i: Boxes(np.array([[0.0, 0, 10, 10]]), np.array([0])) for i in range(n_images)}
    hit, miss = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    found = {
        i: Boxes(np.array([hit if good else miss]), np.array([0]), np.array([score]))
        for i, (score, good) in enumerate(scores)
    }
    return truth, found


def counts(truth: dict, found: dict, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hits, false positives) by class after dropping what scores less, matched anew: the definition itself."""
    kept = {}
    for image, boxes in found.items():
        shown = boxes.scores >= thresholds[boxes.labels]
        kept[image] = Boxes(boxes.xyxy[shown], boxes.labels[shown], boxes.scores[shown])
    matches = match(flatten(truth, kept, NAMES[: len(thresholds)]), (0.5,))
    k = len(thresholds)
    hits = np.bincount(matches.label[matches.hit[0]], minlength=k)
    return hits, np.bincount(matches.label[~matches.hit[0]], minlength=k)


def test_the_lowest_score_within_the_budget():
    truth, found = one_class(
        [(0.9, True), (0.8, False), (0.7, True), (0.6, False), (0.5, True), (0.4, False)]
    )
    chosen = choose_thresholds(truth, found, ["a"], default=0.02, rates=(0.01, 0.03))
    assert [point.per_class["a"].threshold for point in chosen.points] == [0.7, 0.5, 0.4]
    middle = chosen.at(None).per_class["a"]
    assert (middle.sensitivity, middle.fp_per_image, middle.n_boxes, middle.fallback) == (
        0.03,
        0.02,
        100,
        "",
    )


def test_predictions_of_one_score_pass_together():
    truth, found = one_class([(0.9, True), (0.8, False), (0.8, False), (0.8, True), (0.2, True)])
    chosen = choose_thresholds(truth, found, ["a"], default=0.01, rates=(0.02,))
    assert [point.per_class["a"].threshold for point in chosen.points] == [0.9, 0.2]


def test_where_even_the_best_score_has_too_many():
    truth, found = one_class([(1.0, False), (1.0, False), (0.5, True)])
    only = choose_thresholds(truth, found, ["a"], default=0.01, rates=()).at(None)
    assert only.per_class["a"].threshold > 1
    assert (only.measured, only.sensitivity) == (0.0, 0.0)


def test_rates_that_round_badly_keep_their_last_false_positive():
    truth, found = one_class([(0.9 - i / 100, False) for i in range(20)], n_images=30)
    assert choose_thresholds(truth, found, ["a"], default=0.1, rates=()).at(
        None
    ).measured == pytest.approx(0.1)


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("seed", range(4))
def test_counted_anew_the_total_stays_within_the_budget(simulate, seed, decimals):
    truth, found = simulate(seed, n_images=40, decimals=decimals)
    chosen = choose_thresholds(truth, found, NAMES)
    for point in chosen.points:
        hits, false = counts(truth, found, point.thresholds())
        assert false.sum() <= point.fp_per_image * len(truth)
        assert point.measured == pytest.approx(false.sum() / len(truth))
        assert point.sensitivity == pytest.approx(hits.sum() / sum(len(b) for b in truth.values()))
        for label, one in enumerate(point.per_class.values()):
            assert one.fp_per_image == pytest.approx(false[label] / len(truth))
            assert one.sensitivity == pytest.approx(hits[label] / one.n_boxes)


@pytest.mark.parametrize("seed", range(3))
def test_of_one_class_no_lower_score_would_do(simulate, seed):
    truth, found = simulate(seed, n_images=40, n_classes=1, decimals=2)
    for point in choose_thresholds(truth, found, ["a"]).points:
        threshold = point.thresholds()
        lower = [s for b in found.values() for s in b.scores if s < threshold[0]]
        if lower:
            _, false = counts(truth, found, np.array([max(lower)]))
            assert false[0] > point.fp_per_image * len(truth)


def test_more_false_positives_never_raise_a_threshold(simulate):
    truth, found = simulate(5, n_images=60)
    rows = np.array([point.thresholds() for point in choose_thresholds(truth, found, NAMES).points])
    assert (np.diff(rows, axis=0) <= 0).all()
    assert (rows[0] > rows[-1]).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.randoms())
def test_the_order_of_images_and_boxes_does_not_matter(simulate_seed, random):
    rng = np.random.default_rng(simulate_seed)
    truth, found = {}, {}
    for i in range(MIN_IMAGES):
        n = int(rng.integers(0, 3))
        corner = rng.integers(0, 40, (n, 2)).astype(float)
        truth[i] = Boxes(np.hstack([corner, corner + 20]), rng.integers(0, 2, n))
        m = int(rng.integers(0, 4))
        corner = rng.integers(0, 40, (m, 2)).astype(float)
        scores = rng.permutation(40)[:m] / 40
        found[i] = Boxes(np.hstack([corner, corner + 20]), rng.integers(0, 2, m), scores)
    order = list(truth)
    random.shuffle(order)
    shuffled = {}
    for i in order:
        rows = np.array(random.sample(range(len(found[i])), len(found[i])), dtype=int)
        shuffled[i] = Boxes(found[i].xyxy[rows], found[i].labels[rows], found[i].scores[rows])
    first = choose_thresholds(truth, found, ["a", "b"])
    second = choose_thresholds({i: truth[i] for i in order}, shuffled, ["a", "b"])
    assert json.dumps(first.as_json()) == json.dumps(second.as_json())


def test_a_class_without_true_boxes_gets_a_marked_fallback(simulate):
    truth, found = simulate(1, n_images=40, classes_with_truth=3)
    for point in choose_thresholds(truth, found, NAMES).points:
        marked = {name: one.fallback for name, one in point.per_class.items() if one.fallback}
        assert marked == {"d": "no true box of this class on validation"}
        assert point.per_class["d"].threshold >= FALLBACK_SCORE
        assert point.per_class["d"].sensitivity is None
        assert point.measured <= point.fp_per_image


def test_a_class_without_predictions_and_few_images_get_marked_fallbacks(simulate):
    truth, found = one_class([(0.9, True)])
    never = choose_thresholds(truth, found, ["a", "never"]).at(None).per_class["never"]
    assert (never.threshold, never.fallback) == (
        FALLBACK_SCORE,
        "no predicted box of this class on validation",
    )
    truth, found = simulate(0, n_images=MIN_IMAGES - 1)
    point = choose_thresholds(truth, found, NAMES).at(None)
    assert {one.threshold for one in point.per_class.values()} == {FALLBACK_SCORE}
    assert all("19 validation images" in one.fallback for one in point.per_class.values())
    assert choose_thresholds({}, {}, NAMES).at(None).measured is None


def test_one_loud_class_does_not_take_the_others_share():
    """Class a has high scores and only errors; b's single error is within its share all the same."""
    truth = {i: Boxes(np.array([[0.0, 0, 10, 10]] * 2), np.array([0, 1])) for i in range(20)}
    miss = [50.0, 50, 60, 60]
    found = {
        i: Boxes(np.array([miss]), np.array([0]), np.array([0.99 - i / 1000])) for i in range(18)
    }
    found[18] = Boxes(np.array([miss, [0.0, 0, 10, 10]]), np.array([1, 1]), np.array([0.2, 0.1]))
    point = choose_thresholds(truth, found, ["a", "b"], default=0.25, rates=()).at(None)
    assert point.per_class["b"].threshold == 0.1
    assert [one.fp_per_image for one in point.per_class.values()] == [4 / 20, 1 / 20]


def test_there_and_back_through_json(simulate):
    truth, found = simulate(3, n_images=40)
    chosen = choose_thresholds(truth, found, NAMES)
    text = json.dumps(chosen.as_json(), allow_nan=False)
    read = thresholds_from_json(json.loads(text), NAMES, "model.json")
    assert json.dumps(read.as_json(), allow_nan=False) == text
    assert [point.fp_per_image for point in read.points] == list(OPERATING_POINTS)
    assert read.at(None).fp_per_image == 0.25
    np.testing.assert_array_equal(read.at(2).thresholds(), chosen.at(2.0).thresholds())


def test_what_cannot_be_used_is_one_line(simulate):
    truth, found = simulate(3, n_images=40)
    chosen = choose_thresholds(truth, found, NAMES)
    with pytest.raises(InputError, match=r"0\.125, 0\.25, 0\.5, 1, 2, 4, 8\), got 3"):
        chosen.at(3)
    with pytest.raises(InputError, match="above 0"):
        choose_thresholds(truth, found, NAMES, rates=(0.0,))
    good = json.loads(json.dumps(chosen.as_json()))
    with pytest.raises(InputError, match=r"model\.json: the thresholds are for"):
        thresholds_from_json(good, ["a", "b", "d", "c"], "model.json")
    for broken in (
        [],
        {},
        {**good, "fp_per_image": 3},
        {**good, "operating_points": [{"per_class": []}]},
        None,
    ):
        with pytest.raises(InputError, match="cannot be read") as caught:
            thresholds_from_json(broken, NAMES, "model.json")
        assert "\n" not in str(caught.value)
