"""Areas under AFROC curves: the published toy example, their definition word by word, and the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from twinray.errors import InputError
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.readers.afroc import (
    MERITS,
    Ratings,
    curve,
    figure_of_merit,
    leave_one_out,
    ratings_of,
    usual_merit,
)
from twinray.records import Boxes

NONE = -np.inf

# RJafroc's book, chapter on empirical plots: four images without lesions, five with nine lesions in all.
TOY = Ratings(
    np.array([NONE, 0.5, 0.7, -0.3, 1.5, NONE, NONE, NONE, NONE]),
    np.array([4, 5, 6, 6, 7, 7, 8, 8, 8]),
    np.array([0.9, -0.2, 1.6, NONE, 3, 2, 1, 2.5, 1]),
    np.array([1, 1, 0.1, 0.9, 0.9, 0.1, 0.3, 0.4, 0.3]),
)
TOY_AREAS = {
    "afroc": 0.8472222,  # printed in the book
    "wafroc": 0.7425,  # printed in the book
    "afroc1": 0.8456790,
    "wafroc1": 0.7677778,
    "hr_auc": 0.9,
}


def by_definition(ratings: Ratings, merit: str) -> float:
    """The double sum as it is printed, with loops."""
    diseased = sorted(set(ratings.lesion_image.tolist()))
    others = [i for i in range(len(ratings.false)) if merit.endswith("1") or i not in diseased]
    total = mass = 0.0
    for image in diseased:
        own = np.flatnonzero(ratings.lesion_image == image)
        lesions = [(ratings.lesion[i], ratings.weights()[i]) for i in own]
        if merit.startswith("afroc"):
            lesions = [(ratings.lesion[i], 1.0) for i in own]
        if merit == "hr_auc":
            lesions = [(max(ratings.false[image], *(ratings.lesion[i] for i in own)), 1.0)]
        for rating, weight in lesions:
            mass += weight
            for other in others:
                false = ratings.false[other]
                total += weight * (1.0 if rating > false else 0.5 if rating == false else 0.0)
    return total / (mass * len(others)) if mass and others else float("nan")


@st.composite
def any_ratings(draw) -> Ratings:
    n = draw(st.integers(2, 9))
    rating = st.sampled_from([NONE, 0.0, 0.25, 0.5, 1.0])
    false = np.array(draw(st.lists(rating, min_size=n, max_size=n)))
    counts = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    image = np.repeat(np.arange(n), counts)
    lesion = np.array(draw(st.lists(rating, min_size=len(image), max_size=len(image))), dtype=float)
    raw = np.array(
        draw(st.lists(st.integers(1, 5), min_size=len(image), max_size=len(image))), dtype=float
    )
    weight = raw / np.bincount(image, raw, n)[image] if len(image) else raw
    return Ratings(false, image.astype(np.int64), lesion, weight)


@pytest.mark.parametrize("merit", MERITS)
def test_the_published_example(merit):
    assert figure_of_merit(TOY, merit) == pytest.approx([TOY_AREAS[merit]], abs=5e-8)


def test_equal_weights_are_the_default():
    plain = Ratings(TOY.false, TOY.lesion_image, TOY.lesion)
    assert figure_of_merit(plain, "wafroc") == pytest.approx([0.8125])


@settings(max_examples=60, deadline=None)
@given(any_ratings(), st.sampled_from(MERITS))
def test_areas_follow_their_definition(ratings, merit):
    assert figure_of_merit(ratings, merit)[0] == pytest.approx(
        by_definition(ratings, merit), nan_ok=True
    )


@settings(max_examples=40, deadline=None)
@given(any_ratings(), st.sampled_from(MERITS))
def test_leaving_one_out_is_the_area_without_that_image(ratings, merit):
    n = len(ratings.false)
    without = figure_of_merit(ratings, merit, np.ones((n, n)) - np.eye(n))
    np.testing.assert_allclose(leave_one_out(ratings, merit), without, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(any_ratings(), st.sampled_from(MERITS), st.integers(0, 3))
def test_weights_are_copies_of_images(ratings, merit, seed):
    if merit.endswith("1"):
        return  # an image's copies are compared with each other, which weights say as well
    times = np.random.default_rng(seed).integers(0, 3, len(ratings.false))
    image = np.repeat(np.arange(len(times)), times)
    rows = [np.flatnonzero(ratings.lesion_image == i) for i in image]
    copied = Ratings(
        ratings.false[image],
        np.repeat(np.arange(len(image)), [len(r) for r in rows]),
        np.concatenate([np.zeros(0), *(ratings.lesion[r] for r in rows)]),
        np.concatenate([np.zeros(0), *(ratings.weight[r] for r in rows)]),
    )
    weighted = figure_of_merit(ratings, merit, times[:, None].astype(float))
    assert weighted[0] == pytest.approx(figure_of_merit(copied, merit)[0], nan_ok=True)


@pytest.mark.parametrize("merit", MERITS)
def test_the_area_is_that_under_the_curve(merit):
    x, y = curve(TOY, merit)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all() and x[-1] == y[-1] == 1
    assert np.trapezoid(y, x) == pytest.approx(TOY_AREAS[merit], abs=5e-8)


def test_the_highest_rating_is_the_roc_curve():
    rng = np.random.default_rng(0)
    false = rng.normal(size=60)
    ratings = Ratings(false, np.arange(30), rng.normal(0.8, 1, 30))
    truth = np.arange(60) < 30
    assert figure_of_merit(ratings, "hr_auc")[0] == pytest.approx(
        roc_auc_score(truth, ratings.highest)
    )


def test_who_marks_nothing_has_one_half_and_who_marks_wrongly_has_nothing():
    image = np.array([0, 1])
    silent = Ratings(np.full(4, NONE), image, np.full(2, NONE))
    wrong = Ratings(np.full(4, 1.0), image, np.full(2, NONE))
    assert figure_of_merit(silent)[0] == 0.5 and figure_of_merit(wrong)[0] == 0


def test_without_a_kind_of_image_there_is_no_figure():
    all_ill = Ratings(np.zeros(3), np.arange(3), np.ones(3))
    assert np.isnan(figure_of_merit(all_ill)[0]) and figure_of_merit(all_ill, "wafroc1")[0] == 1
    assert usual_merit([all_ill]) == "wafroc1"
    with pytest.raises(InputError, match="wafroc1"):
        curve(all_ill)


def test_bad_ratings_are_refused():
    with pytest.raises(InputError, match="rating 1 is nan"):
        Ratings(np.array([0.0, np.nan]), np.array([0]), np.ones(1))
    with pytest.raises(InputError, match=r"sum to 1, image 0 has 0\.5"):
        Ratings(np.zeros(2), np.array([0]), np.ones(1), np.array([0.5]))
    with pytest.raises(InputError, match="expected one of wafroc"):
        figure_of_merit(TOY, "froc")  # type: ignore[arg-type]


def boxes(*rows, scores=None, **more):
    xyxy = np.array([[x, x, x + 10, x + 10] for x, _ in rows], dtype=float).reshape(-1, 4)
    return Boxes(
        xyxy,
        np.array([c for _, c in rows], dtype=np.int64),
        None if scores is None else np.array(scores, dtype=float),
        **more,
    )


def test_boxes_become_ratings():
    truth = {
        "a": boxes((0, 0), (50, 1)),
        "b": Boxes.empty(),
        "c": boxes((0, 0), (90, 0), crowd=np.array([False, True])),
    }
    predictions = {
        "a": boxes((0, 0), (1, 0), (50, 0), scores=[0.9, 0.8, 0.7]),  # hit, repeat, wrong class
        "b": boxes((5, 1), (30, 0), scores=[0.2, 0.4]),
        "c": boxes((90, 0), scores=[0.6]),  # in the region: nothing
    }
    flat = flatten(truth, predictions, ["x", "y"])
    found = ratings_of(flat, match(flat, [0.5]))
    np.testing.assert_array_equal(found.false, [0.8, 0.4, NONE])
    np.testing.assert_array_equal(found.lesion_image, [0, 0, 2])
    np.testing.assert_array_equal(found.lesion, [0.9, NONE, NONE])
    ignoring = ratings_of(flat, match(flat, [0.5]), ignore_repeats=True)
    np.testing.assert_array_equal(ignoring.false, [0.7, 0.4, NONE])
