"""Sums of two shares against closed forms and against resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from twinray.evaluation.bounded import exact_share, score_interval
from twinray.evaluation.labels.data import Labelled
from twinray.evaluation.labels.two_shares import TwoShares, mean_over_folds, two_shares


def at_half(data: Labelled):
    """Sensitivity and specificity at a score of one half."""
    t = data.tallies
    return (t["right_positive"], t["positive"]), (t["right_negative"], t["negative"])


def labelled(hits: int, positives: int, right: int, negatives: int, groups=None) -> Labelled:
    """One class, one image a patient unless told otherwise."""
    truth = np.repeat([1.0, 0.0], [positives, negatives])[:, None]
    called = np.repeat(
        [True, False, False, True], [hits, positives - hits, right, negatives - right]
    )
    scores = np.where(called, 0.9, 0.1)[:, None]
    groups = np.arange(len(truth)) if groups is None else groups
    return Labelled(truth, scores, ("a",), "multilabel", groups, int(groups.max()) + 1)


def test_of_independent_images_it_is_newcombes_square_and_add():
    """Two independent shares, each with Wilson's interval; sizes within the m / (m - 1) that ratio estimates have."""
    (found,) = {two_shares([labelled(8, 40, 110, 120)], at_half)[0]}
    assert found.values == (0.2, pytest.approx(110 / 120))
    assert found.variances == pytest.approx((0.2 * 0.8 / 39, 110 / 120 * 10 / 120 / 119))
    assert found.covariance == 0 and found.cases == (40, 120)
    own = [stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((8, 40), (110, 120))]
    values = (0.2, 110 / 120)
    low, high = (
        sum(values)
        + sign * np.hypot(*(v - getattr(ci, end) for v, ci in zip(values, own, strict=True)))
        for sign, end in ((-1, "low"), (1, "high"))
    )
    assert found.interval() == pytest.approx((low, high), abs=4e-3)
    assert found.interval()[0] <= low and found.interval()[1] >= high


def test_a_share_at_its_end_is_exact():
    found = two_shares([labelled(0, 12, 118, 120)], at_half)[0]
    (_, up), (first, last) = exact_share(0.0, 12), score_interval(118 / 120, 119)
    v = 118 / 120
    assert found.interval()[1] == pytest.approx(v + np.hypot(up, last - v))
    assert found.interval()[0] == pytest.approx(first)


def test_copies_of_images_under_one_patient_tell_nothing_new():
    one = labelled(8, 40, 110, 120)
    twice = np.repeat(np.arange(160), 2)
    order = np.repeat(np.arange(160), 2)
    double = Labelled(one.truth[order], one.scores[order], ("a",), "multilabel", twice, 160)
    assert two_shares([double], at_half)[0] == two_shares([one], at_half)[0]


def test_variance_and_correlation_are_those_of_resampled_patients():
    rng = np.random.default_rng(0)
    n = 150
    groups = np.repeat(np.arange(n), 3)
    truth = (rng.random((3 * n, 2)) < 0.3).astype(float)
    habit = rng.normal(size=n)[groups]
    scores = 1 / (1 + np.exp(-(truth + 1.2 * habit[:, None] + rng.normal(size=truth.shape))))
    data = Labelled(truth, scores, ("a", "b"), "multilabel", groups, n)
    told = two_shares([data], at_half)
    weights = rng.multinomial(n, np.full(n, 1 / n), 20_000).T.astype(float)
    pair = [(part.T @ weights) / (whole.T @ weights) for part, whole in at_half(data)]
    for key in (0, 1, None):
        drawn = [one.mean(axis=0) if key is None else one[key] for one in pair]
        assert told[key].variances == pytest.approx([d.var() for d in drawn], rel=0.06)
        covariance = float(np.cov(*drawn)[0, 1])
        assert told[key].covariance == pytest.approx(covariance, rel=0.06)
        assert told[key].covariance < 0  # who is called often is called wrongly often


def test_means_over_models_and_folds():
    a, b = labelled(8, 40, 110, 120), labelled(20, 40, 90, 120)
    both = two_shares([a, b], at_half)[0]
    assert both.values == pytest.approx((14 / 40, 100 / 120))
    apart = [two_shares([one], at_half)[0] for one in (a, b)]
    folds = mean_over_folds(apart)
    assert folds.values == both.values and folds.cases == (80, 240)
    assert folds.variances == pytest.approx(
        [sum(one.variances[i] for one in apart) / 4 for i in (0, 1)]
    )
    nan = float("nan")
    empty = TwoShares((nan, 0.5), (nan, 0.1), nan, (0, 9))
    assert mean_over_folds([apart[0], empty]) == apart[0]
    assert np.isnan(empty.interval()).all() and np.isnan(mean_over_folds([empty]).values[0])
