"""In which order images should be labelled: entropies against SciPy, the greedy k-centre against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from twinray.errors import InputError
from twinray.inference.active import FLOOR, KEPT, SHORTLIST, active_order, compact, uncertainty


@given(st.lists(st.floats(0, 1), max_size=12))
def test_uncertainty_is_scipys_entropy_of_each_box(scores):
    expected = sum(entropy([s, 1 - s], base=2) for s in scores if s >= FLOOR)
    assert uncertainty(scores) == pytest.approx(expected, abs=1e-9)


def test_a_crowd_of_faint_boxes_is_no_doubt():
    assert uncertainty([0.049] * 500) == 0 < uncertainty([0.3])


@pytest.mark.parametrize("scores", [[1.1], [-0.1], [float("nan")]])
def test_bad_scores_are_refused(scores):
    with pytest.raises(InputError, match=r"0\.\.1"):
        uncertainty(scores)


def by_definition(features, doubt, labelled, n):
    """The greedy rule written out: the largest product of doubt and distance to what is covered."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    covered = [row / np.linalg.norm(row) for row in labelled]
    order = []
    for _ in range(n):
        worth = [
            -1.0
            if i in order
            else doubt[i] * (min(np.linalg.norm(x - c) for c in covered) if covered else 1.0)
            for i, x in enumerate(unit)
        ]
        order.append(int(np.argmax(worth)))
        covered.append(unit[order[-1]])
    return order


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(0, 4))
def test_the_greedy_order_is_its_definition(seed, n, m):
    rng = np.random.default_rng(seed)
    features, labelled = rng.normal(size=(n, 5)), rng.normal(size=(m, 5))
    doubt = rng.uniform(0.1, 1, n)
    found = active_order(features, doubt, labelled, first=n)
    assert found.tolist() == by_definition(features, doubt, labelled, n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(0, 70))
def test_every_image_stands_once_and_the_rest_falls(seed, n, first):
    rng = np.random.default_rng(seed)
    doubt = rng.choice([0.0, 0.5, 1.0, 2.0], n)
    found = active_order(rng.normal(size=(n, 3)), doubt, first=first)
    assert sorted(found.tolist()) == list(range(n))
    rest = doubt[found[min(first, n) :]]
    assert (np.diff(rest) <= 0).all()


def test_a_labelled_twin_is_not_asked_for():
    features = np.array([[1.0, 0], [0, 1.0]])
    assert active_order(features, np.array([5.0, 0.1]), features[:1]).tolist() == [1, 0]


def test_only_the_most_uncertain_are_candidates():
    n = 3 * SHORTLIST
    doubt = np.arange(n, 0, -1, dtype=float)
    features = np.random.default_rng(0).normal(size=(n, 4))
    assert set(active_order(features, doubt, first=2)[:2].tolist()) <= set(range(2 * SHORTLIST))


def test_images_without_doubt_are_ordered_by_distance():
    features = np.array([[1.0, 0], [1, 0.1], [0, 1]])
    assert active_order(features, np.zeros(3)).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("features", "doubt", "labelled"),
    [
        (np.ones((2, 2)), np.ones(3), None),
        (np.ones(2), np.ones(2), None),
        (np.full((2, 2), np.nan), np.ones(2), None),
        (np.ones((2, 2)), np.array([1.0, -1]), None),
        (np.ones((2, 2)), np.array([1.0, np.inf]), None),
        (np.ones((2, 2)), np.ones(2), np.ones((1, 3))),
    ],
)
def test_what_cannot_be_is_refused(features, doubt, labelled):
    with pytest.raises(InputError, match="active order"):
        active_order(features, doubt, labelled)


def test_what_is_read_counts_as_labelled_and_the_rest_of_a_choice_stays():
    rng = np.random.default_rng(3)
    features, doubt = rng.normal(size=(40, 6)), rng.uniform(0.1, 1, 40)
    whole = active_order(features, doubt, first=20)
    left = np.sort(whole[5:])
    again = active_order(features[left], doubt[left], features[whole[:5]], first=15)
    assert left[again[:15]].tolist() == whole[5:20].tolist()


def test_kept_features_keep_distances():
    """Johnson and Lindenstrauss: the squared distance is off by a standard deviation of sqrt(2 / KEPT)."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 700)) ** 2  # as pooled activations, never below 0
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    kept = compact(features)
    assert kept.shape == (60, KEPT)
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1)
    pairs = np.triu_indices(60, 1)
    before = np.linalg.norm(unit[pairs[0]] - unit[pairs[1]], axis=1) ** 2
    after = np.linalg.norm(kept[pairs[0]] - kept[pairs[1]], axis=1) ** 2
    spread = np.sqrt(2 / KEPT)
    assert np.std(after / before) < 1.5 * spread
    assert abs(np.mean(after / before) - 1) < 2 * spread


def test_kept_features_are_the_same_in_every_process_and_year():
    found = compact(np.eye(200)[:2])
    assert np.sign(found[0, :8]).tolist() == [1, 1, 1, 1, 1, 1, -1, -1]
    assert np.sign(found[1, -8:]).tolist() == [1, -1, -1, 1, 1, -1, -1, 1]


def test_few_features_are_kept_as_they_are_and_an_empty_image_is_no_fault():
    assert compact(np.array([[0.0, 2.0], [0, 0]])).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(InputError, match="finite"):
        compact(np.array([[np.inf, 1.0]]))
