from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from twinray.errors import InputError
from twinray.evaluation.accumulate import FROC_RATES, froc, froc_rows
from twinray.evaluation.diagnostics import (
    calibration,
    confusion_with_background,
    froc_curve,
    precision_recall,
)
from twinray.evaluation.matching import flatten, match
from twinray.records import Boxes

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("label", [None, 0, 2])
def test_precision_equals_scikit_learn_and_recall_counts_missed_boxes(simulate, label):
    truth, predictions = simulate(0, decimals=1)
    matches = match(flatten(truth, predictions, NAMES), (0.5,))
    curve = precision_recall(matches, 0.5, label)
    chosen = matches.label == label if label is not None else np.ones(len(matches.label), bool)
    precision, recall, score = precision_recall_curve(matches.hit[0][chosen], matches.score[chosen])
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1], atol=1e-12)
    np.testing.assert_allclose(curve.score[::-1], score)
    found = matches.hit[0][chosen].sum()
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1] * found / curve.n_boxes, atol=1e-12)


def test_froc_curve_passes_through_the_operating_points(simulate):
    truth, predictions = simulate(1, n_false=30)
    matches = match(flatten(truth, predictions, NAMES), (0.5,))
    curve = froc_curve(matches)
    points = froc(froc_rows(matches, 0.5, np.arange(25)), np.ones((25, 1)))[:, 0]
    for rate, sensitivity in zip(FROC_RATES, points, strict=True):
        assert sensitivity == pytest.approx(
            curve.sensitivity[curve.false_positives_per_image <= rate].max(initial=0)
        )


def test_curves_without_predictions_or_truth():
    matches = match(flatten([Boxes.empty()], {}, ("a",)), (0.5,))
    assert len(precision_recall(matches).score) == 0
    assert np.isnan(calibration(matches).expected_error)
    predicted = [Boxes(np.array([[0.0, 0, 1, 1]]), np.array([0]), np.array([0.5]))]
    curve = precision_recall(match(flatten([Boxes.empty()], predicted, ("a",)), (0.5,)))
    assert curve.precision.tolist() == [0.0]
    assert np.isnan(curve.recall).all()


def test_calibration_of_the_boxes_that_are_shown():
    """Each class by its own threshold; a crowd of low scores does not hide what the others are worth."""
    truth = {"a": Boxes(np.array([[0.0, 0, 10, 10]]), np.array([0]))}
    xyxy = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [70, 70, 80, 80], [90, 90, 99, 99]])
    found = {"a": Boxes(xyxy, np.array([0, 0, 1, 1]), np.array([0.9, 0.35, 0.95, 0.05]))}
    matches = match(flatten(truth, found, ("a", "b")), (0.5,))
    shown = calibration(matches, least=np.array([0.3, 0.5]))
    assert shown.count.sum() == 3
    assert shown.expected_error == pytest.approx((abs(1 - 0.9 - 0.95 + 0.0) + 0.35) / 3)
    assert calibration(matches).expected_error < shown.expected_error
    assert calibration(matches, label=1, least=np.array([0.3, 0.5])).count.sum() == 1
    assert calibration(matches, least=np.array([2.0, 2.0])).count.sum() == 0


def test_calibration_by_hand():
    truth = [Boxes(np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.array([0, 0]))]
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [70, 70, 80, 80]])
    predicted = [Boxes(boxes, np.zeros(4, int), np.array([1.0, 0.52, 0.58, 0.1]))]
    result = calibration(match(flatten(truth, predicted, ("a",)), (0.5,)))
    assert result.count.tolist() == [0, 1, 0, 0, 0, 2, 0, 0, 0, 1]
    assert result.precision[[1, 5, 9]].tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(result.precision[0])
    assert result.mean_score[5] == pytest.approx(0.55)
    assert result.expected_error == pytest.approx((0.1 + 2 * 0.05 + 0.0) / 4)
    with pytest.raises(InputError, match="at least 1 bin"):
        calibration(match(flatten(truth, predicted, ("a",)), (0.5,)), bins=0)


def test_confusion_by_hand():
    here, there, far = [0.0, 0, 10, 10], [20.0, 20, 30, 30], [50.0, 50, 60, 60]
    truth = [Boxes(np.array([here, here, there]), np.array([0, 1, 1])), Boxes.empty()]
    predicted = [
        Boxes(
            np.array([here, here, there, far, far]),
            np.array([1, 0, 0, 1, 1]),
            np.array([0.9, 0.8, 0.7, 0.6, 0.2]),
        ),
        Boxes(np.array([here]), np.array([0]), np.array([0.9])),
    ]
    table = confusion_with_background(flatten(truth, predicted, ("a", "b")))
    # Both overlapping findings are right; the far one of class b is taken for a; two are invented, one is below 0.5.
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    nothing = confusion_with_background(flatten(truth, {}, ("a", "b")))
    assert nothing.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
    with pytest.raises(InputError, match="score threshold"):
        confusion_with_background(flatten(truth, {}, ("a", "b")), score_threshold=-0.1)


def test_confusion_counts_every_box_once(simulate):
    truth, predictions = simulate(2)
    table = confusion_with_background(flatten(truth, predictions, NAMES), score_threshold=0.3)
    assert table[:-1].sum() == sum(map(len, truth.values()))
    assert table[:, :-1].sum() == sum((b.scores >= 0.3).sum() for b in predictions.values())
    matches = match(flatten(truth, predictions, NAMES), (0.5,))
    right = [
        (matches.hit[0] & (matches.label == c) & (matches.score >= 0.3)).sum() for c in range(4)
    ]
    assert np.diag(table)[:-1].tolist() == right
