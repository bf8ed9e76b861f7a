"""Means of shares against closed forms and against resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from twinray.evaluation.bounded import exact_share, score_interval
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.cutoffs import choose_label_thresholds
from twinray.evaluation.labels.data import Labelled
from twinray.evaluation.labels.joined_shares import JoinedShares
from twinray.evaluation.labels.report import evaluate_labels


def at_half(data: Labelled):
    """Sensitivity and specificity at a score of one half."""
    t = data.tallies
    return [(t["right_positive"], t["positive"]), (t["right_negative"], t["negative"])]


def labelled(hits: int, positives: int, right: int, negatives: int, groups=None) -> Labelled:
    """One class, one image a patient unless told otherwise."""
    truth = np.repeat([1.0, 0.0], [positives, negatives])[:, None]
    called = np.repeat(
        [True, False, False, True], [hits, positives - hits, right, negatives - right]
    )
    scores = np.where(called, 0.9, 0.1)[:, None]
    groups = np.arange(len(truth)) if groups is None else groups
    return Labelled(truth, scores, ("a",), "multilabel", groups, int(groups.max()) + 1)


def joined(*models: Labelled) -> JoinedShares:
    return JoinedShares.of(models, at_half)


def test_of_independent_images_it_is_newcombes_square_and_add():
    """Two independent shares, each with Wilson's interval; sizes within the m / (m - 1) that ratio estimates have."""
    found = joined(labelled(8, 40, 110, 120))
    assert found.values[:, 0] == pytest.approx((0.2, 110 / 120))
    expected = np.diag([0.2 * 0.8 / 39, 110 / 120 * 10 / 120 / 119])
    np.testing.assert_allclose(found.covariance, expected, atol=1e-15)
    assert found.cases[:, 0].tolist() == [40, 120]
    own = [stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((8, 40), (110, 120))]
    values = (0.2, 110 / 120)
    low, high = (
        (sum(values) + sign * np.hypot(*(v - getattr(ci, end) for v, ci in zip(values, own, strict=True)))) / 2
        for sign, end in ((-1, "low"), (1, "high"))
    )  # fmt: skip
    ends = found.interval(0)
    assert ends == pytest.approx((low, high), abs=2e-3) and ends == found.interval(None)
    assert ends[0] <= low and ends[1] >= high


def test_a_share_at_its_end_is_exact():
    low, high = joined(labelled(0, 12, 118, 120)).interval(0)
    (_, up), (first, last), v = exact_share(0.0, 12), score_interval(118 / 120, 119), 118 / 120
    assert high == pytest.approx((v + np.hypot(up, last - v)) / 2)
    assert low == pytest.approx(first / 2, abs=1e-3)


def test_copies_of_images_under_one_patient_tell_nothing_new():
    one, order = labelled(8, 40, 110, 120), np.repeat(np.arange(160), 2)
    double = Labelled(one.truth[order], one.scores[order], ("a",), "multilabel", order, 160)
    assert joined(double).interval(0) == pytest.approx(joined(one).interval(0), abs=1e-12)


def test_covariance_is_that_of_resampled_patients():
    rng = np.random.default_rng(0)
    n = 150
    groups = np.repeat(np.arange(n), 3)
    truth = (rng.random((3 * n, 2)) < 0.3).astype(float)
    habit = rng.normal(size=n)[groups]
    scores = 1 / (1 + np.exp(-(truth + 1.2 * habit[:, None] + rng.normal(size=truth.shape))))
    data = Labelled(truth, scores, ("a", "b"), "multilabel", groups, n)
    weights = rng.multinomial(n, np.full(n, 1 / n), 20_000).T.astype(float)
    drawn = np.concatenate(
        [(part.T @ weights) / (whole.T @ weights) for part, whole in at_half(data)]
    )
    told, found = joined(data).covariance, np.cov(drawn)
    scale = np.sqrt(np.outer(np.diag(found), np.diag(found)))
    np.testing.assert_allclose(told / scale, found / scale, atol=0.05)
    assert told[0, 2] < 0  # who is called often is called wrongly often
    values = drawn.mean(axis=0)
    low, high = joined(data).interval(None)
    np.testing.assert_allclose([low, high], np.percentile(values, (2.5, 97.5)), atol=0.01)


def test_means_over_models_and_folds():
    a, b = labelled(8, 40, 110, 120), labelled(20, 40, 90, 120)
    both, apart = joined(a, b), [joined(one) for one in (a, b)]
    assert both.values[:, 0] == pytest.approx((14 / 40, 100 / 120))
    folds = JoinedShares.over_folds(apart)
    assert folds.values.tolist() == both.values.tolist()
    assert folds.cases[:, 0].tolist() == [80, 240]
    np.testing.assert_allclose(folds.covariance, sum(one.covariance for one in apart) / 4)
    without = joined(labelled(0, 0, 90, 120))
    assert np.isnan(without.interval(0)).all() and np.isnan(without.interval(None)).all()
    left = JoinedShares.over_folds([apart[0], without])
    assert left.values[0, 0] == 0.2 and left.covariance[0, 0] == apart[0].covariance[0, 0]


def test_a_class_without_a_threshold_moves_no_mean():
    """Youden's index of the two classes that have one: the third, of too few validation images, changes nothing."""
    rng = np.random.default_rng(2)
    truth = (rng.random((200, 3)) < (0.4, 0.3, 0.2)).astype(float)
    scores = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(size=truth.shape))))
    seen = truth.copy()
    seen[:, 2] = 0
    names = ("a", "b", "c")
    chosen = choose_label_thresholds(seen, scores, names)
    assert chosen.per_class["c"].missing
    found = evaluate_labels(
        truth, scores, names, "multilabel", thresholds=chosen, resampling=Resampling(50)
    )
    without = evaluate_labels(
        truth[:, :2], scores[:, :2], names[:2], "multilabel",
        thresholds=choose_label_thresholds(seen[:, :2], scores[:, :2], names[:2]), resampling=Resampling(50),
    )  # fmt: skip
    assert repr(found.metrics["youden"]) == repr(without.metrics["youden"])
    assert (
        found.metrics["youden"].low < found.metrics["youden"].value < found.metrics["youden"].high
    )
