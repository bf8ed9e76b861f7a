from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from twinray.evaluation.labels.curves import MOST_POINTS, label_curves


def made(n, decimals=None):
    rng = np.random.default_rng(0)
    truth = (rng.random((n, 2)) < 0.2).astype(float)
    scores = 0.3 * truth + 0.7 * rng.random((n, 2))
    return truth, scores if decimals is None else scores.round(decimals)


@pytest.mark.parametrize("decimals", [None, 2])
def test_points_equal_scikit_learns(decimals):
    truth, scores = made(300, decimals)
    truth[:20, 0] = np.nan
    curve = label_curves(truth, scores, "ab")["a"]
    y, s = truth[20:, 0], scores[20:, 0]
    rate, recall, score = roc_curve(y, s, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, rate)
    np.testing.assert_allclose(curve.recall, recall)
    np.testing.assert_allclose(curve.score, score)
    precision, recall, _ = precision_recall_curve(y, s)
    np.testing.assert_allclose(curve.precision[1:], precision[-2::-1])
    assert (curve.n_positive, curve.n_negative) == (y.sum(), len(y) - y.sum())


def test_long_curves_keep_their_area_and_ends():
    truth, scores = made(20_000)
    curve = label_curves(truth, scores, "ab")["b"]
    assert len(curve.score) <= MOST_POINTS
    area = np.trapezoid(curve.recall, curve.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(truth[:, 1], scores[:, 1]), abs=2e-4)
    assert (curve.recall[0], curve.recall[-1], curve.false_positive_rate[-1]) == (0, 1, 1)


def test_a_class_of_one_kind_has_none():
    truth, scores = made(50)
    truth[:, 1] = 1
    assert list(label_curves(truth, scores, "ab")) == ["a"]
