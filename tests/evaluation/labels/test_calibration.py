from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.calibration import bin_of
from twinray.evaluation.labels.report import evaluate_labels


def multilabel(seed, n=400, k=3):
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.6, 1.2, (n, k))
    return (rng.random((n, k)) < scores**1.4).astype(float), scores


def exclusive(seed, n=400, k=4):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(k, 0.5), n)
    return np.eye(k)[[rng.choice(k, p=row) for row in 0.6 * scores + 0.4 / k]], scores


@pytest.mark.parametrize("seed", range(3))
def test_error_equals_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip(
        "torchmetrics.functional.classification", reason="torchmetrics is not installed"
    )
    truth, scores = multilabel(seed)
    report = evaluate_labels(truth, scores, "abc", "multilabel", resampling=Resampling(0))
    expected = [
        float(
            metrics.binary_calibration_error(
                torch.tensor(scores[:, c]), torch.tensor(truth[:, c]).long(), n_bins=15
            )
        )
        for c in range(3)
    ]
    assert [report.per_class[c]["ece"].value for c in "abc"] == pytest.approx(expected, abs=1e-6)
    assert report.metrics["ece"].value == pytest.approx(np.mean(expected), abs=1e-6)
    truth, scores = exclusive(seed)
    report = evaluate_labels(truth, scores, "abcd", "multiclass", resampling=Resampling(0))
    top = metrics.multiclass_calibration_error(
        torch.tensor(scores), torch.tensor(truth.argmax(1)), num_classes=4, n_bins=15
    )
    assert report.metrics["ece"].value == pytest.approx(float(top), abs=1e-6)
    assert report.reliability[""].expected_error == pytest.approx(float(top), abs=1e-6)
    truth, scores = exclusive(seed, k=2)
    two = evaluate_labels(truth, scores, ("no", "yes"), "multiclass", resampling=Resampling(0))
    of_second = metrics.binary_calibration_error(
        torch.tensor(scores[:, 1]), torch.tensor(truth[:, 1]).long(), n_bins=15
    )
    assert two.metrics["ece"].value == pytest.approx(float(of_second), abs=1e-6)


def test_curve_equals_scikit_learn():
    truth, scores = multilabel(5)
    report = evaluate_labels(truth, scores, "abc", "multilabel", resampling=Resampling(100))
    curve = report.reliability["b"]
    frequency, mean = calibration_curve(truth[:, 1], scores[:, 1], n_bins=15)
    used = curve.count > 0
    np.testing.assert_allclose(curve.frequency[used], frequency)
    np.testing.assert_allclose(curve.mean_score[used], mean)
    wide = used & ~np.isnan(curve.low)
    assert wide.any() and (curve.low[wide] <= curve.frequency[wide]).all()
    assert "" not in report.reliability and curve.definition == "per class"


def test_bins_are_closed_on_the_left_and_the_last_on_both_sides():
    assert bin_of(np.array([0, 1 / 15 - 1e-9, 1 / 15, 1])).tolist() == [0, 0, 1, 14]


def test_probabilities_that_are_right_have_an_error_near_zero_within_their_interval():
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 1))
    truth = (rng.random((20_000, 1)) < scores).astype(float)
    error = evaluate_labels(truth, scores, "a", "multilabel", resampling=Resampling(200)).metrics[
        "ece"
    ]
    assert error.value < 0.015 and error.low <= error.value <= error.high
