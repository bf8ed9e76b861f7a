"""Curves and tables to look at: precision-recall, FROC, confusion with background, calibration of scores.

Hits are those of ``matching``. Confusion follows its own rule, stated at ``confusion_with_background``, since a
confusion needs boxes of different classes to meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.matching import BoxMatches, FlatBoxes, greedy, ranked_by_image, share_inside
from twinray.geometry import box_iou
from twinray.records import FloatArray, IntArray

_Array: TypeAlias = FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecall:
    """One point a score threshold, by falling score; all three (points,) and empty without predictions.

    ``recall`` is NaN where the class has no true box (``n_boxes`` 0).
    """

    score: _Array
    precision: _Array
    recall: _Array
    n_boxes: int


@dataclass(frozen=True, slots=True, eq=False)
class FrocCurve:
    """One point a score threshold, by falling score: false positives per image against sensitivity."""

    score: _Array
    false_positives_per_image: _Array
    sensitivity: _Array
    n_boxes: int


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Do predictions of score s hit in a share s of the cases?

    Attributes:
        edges: (bins + 1,) of the score, 0..1.
        count: (bins,) predictions.
        mean_score: (bins,) NaN in an empty bin.
        precision: (bins,) share of hits; NaN in an empty bin.
        expected_error: ECE, the mean over predictions of |precision - mean score| of their bin, 0..1; NaN without any
            prediction (Naeini et al., AAAI 2015).
    """

    edges: _Array
    count: IntArray
    mean_score: _Array
    precision: _Array
    expected_error: float


def _thresholds(
    matches: BoxMatches, threshold: float | str, label: int | None, *, ignore_repeats: bool = False
) -> tuple[_Array, _Array, _Array, int]:
    """Scores of all distinct thresholds, hits and predictions at or above each, and the number of true boxes."""
    own = (
        slice(None)
        if label is None
        else slice(int(matches.starts[label]), int(matches.starts[label + 1]))
    )
    row = matches.row(threshold)
    counted = matches.counted(row, ignore_repeats=ignore_repeats)[own]
    score, hit = matches.score[own][counted], matches.hit[row, own][counted]
    order = np.argsort(-score, kind="stable")
    score, hit = score[order], hit[order]
    ends = (
        np.flatnonzero(np.append(np.diff(score) != 0, True))
        if len(score)
        else np.zeros(0, dtype=np.int64)
    )
    counts = matches.truth_counts if label is None else matches.truth_counts[:, label]
    return score[ends], np.cumsum(hit)[ends].astype(np.float64), ends + 1.0, int(counts.sum())


def precision_recall(
    matches: BoxMatches, threshold: float | str = 0.5, label: int | None = None
) -> PrecisionRecall:
    """Precision and recall at every score threshold.

    Args:
        matches: cached matches.
        threshold: the IoU (or ``"centre"``) of a hit, one that was matched.
        label: class id, or None for all classes pooled.
    """
    score, found, seen, n_boxes = _thresholds(matches, threshold, label)
    recall = found / n_boxes if n_boxes else np.full(len(found), np.nan)
    return PrecisionRecall(score, found / seen, recall, n_boxes)


def froc_curve(
    matches: BoxMatches,
    threshold: float | str = 0.5,
    label: int | None = None,
    *,
    ignore_repeats: bool = False,
) -> FrocCurve:
    """Sensitivity against false positives per image at every score threshold.

    Args:
        matches, threshold, label: arguments of ``precision_recall``.
        ignore_repeats: further predictions on a found box are neither hits nor false positives.
    """
    score, found, seen, n_boxes = _thresholds(
        matches, threshold, label, ignore_repeats=ignore_repeats
    )
    sensitivity = found / n_boxes if n_boxes else np.full(len(found), np.nan)
    return FrocCurve(score, (seen - found) / max(matches.n_images, 1), sensitivity, n_boxes)


def calibration(
    matches: BoxMatches,
    threshold: float | str = 0.5,
    label: int | None = None,
    bins: int = 10,
    least: FloatArray | None = None,
) -> Calibration:
    """Reliability of scores in bins of equal width.

    A detector rightly proposes many boxes of a low score. An expected error over all of them is
    small whatever the scores of the few shown boxes are worth. ``least`` restricts the error to
    those.

    Args:
        matches, threshold, label: arguments of ``precision_recall``.
        bins: number of bins of equal width.
        least: score by class id, (k,), that a box must reach to count; None counts all.

    Raises:
        InputError: fewer than one bin.
    """
    if bins < 1:
        raise InputError(f"calibration: expected at least 1 bin, got {bins}")
    own = (
        slice(None)
        if label is None
        else slice(int(matches.starts[label]), int(matches.starts[label + 1]))
    )
    row = matches.row(threshold)
    counted = matches.counted(row)[own]
    if least is not None:
        counted &= matches.score[own] >= np.repeat(least, np.diff(matches.starts))[own]
    score, hit = matches.score[own][counted], matches.hit[row, own][counted]
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(
        np.searchsorted(edges, score, side="right") - 1, 0, bins - 1
    )  # [a, b), the last [a, 1]
    count = np.bincount(which, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    mean_score = np.bincount(which, weights=score, minlength=bins) / filled
    precision = np.bincount(which, weights=hit, minlength=bins) / filled
    error = (
        float(np.nansum(count * np.abs(precision - mean_score)) / len(score))
        if len(score)
        else float("nan")
    )
    return Calibration(edges, count, mean_score, precision, error)


def confusion_with_background(
    flat: FlatBoxes, score_threshold: float | FloatArray = 0.5, iou: float = 0.5
) -> IntArray:
    """Which class was taken for which, and what was missed or invented.

    Per image, predictions at or above the score threshold first take true boxes of their own class.
    All classes are on their own, as in ``matching``. What is left over on both sides is then
    matched whatever the class. So a box that is right is never counted as a confusion with another
    class's box at the same place, as happens where findings overlap.

    Args:
        flat: checked boxes.
        score_threshold: 0 or more, one for all classes or (k,) by class id; above 1 no box of the class counts.
        iou: IoU that a match must reach, above 0.

    Returns:
        (k + 1, k + 1) counts: rows the true class, columns the predicted one. The last row holds
        predictions on background, the last column true boxes that were missed.

    Raises:
        InputError: a threshold out of range.
    """
    n_classes = len(flat.box_classes)
    least = np.broadcast_to(np.asarray(score_threshold, dtype=np.float64), (n_classes,))
    if not (least >= 0).all():
        raise InputError(
            f"confusion matrix: expected a score threshold of 0 or more, got {score_threshold}"
        )
    if not 0 < iou <= 1:
        raise InputError(
            f"confusion matrix: expected an IoU threshold above 0 and up to 1, got {iou}"
        )
    table = np.zeros((n_classes + 1, n_classes + 1), dtype=np.int64)
    kept = ranked_by_image(flat)
    kept = kept[flat.score[kept] >= least[flat.label[kept]]]
    kept = kept[np.lexsort((-flat.score[kept], flat.image[kept]))]
    true_order = np.argsort(flat.truth_image, kind="stable")
    bounds = np.arange(len(flat.ids) + 1)
    starts = np.searchsorted(flat.image[kept], bounds)
    true_starts = np.searchsorted(flat.truth_image[true_order], bounds)
    limit = min(iou, 1.0 - 1e-10)
    for i in range(len(flat.ids)):
        predicted = kept[starts[i] : starts[i + 1]]
        true = true_order[true_starts[i] : true_starts[i + 1]]
        regions, true = true[flat.truth_crowd[true]], true[~flat.truth_crowd[true]]
        inside = share_inside(flat.xywh[predicted], flat.truth_xywh[regions]) >= limit
        same = flat.label[predicted][:, None] == flat.truth_label[regions][None, :]
        _confuse(
            table,
            flat.label[predicted],
            flat.truth_label[true],
            box_iou(flat.xywh[predicted], flat.truth_xywh[true]),
            limit,
            (inside & same).any(axis=1),
        )
    return table


def _confuse(
    table: IntArray,
    label: IntArray,
    true_label: IntArray,
    overlap: FloatArray,
    limit: float,
    ignored: npt.NDArray[np.bool_],
) -> None:
    """Add one image to the table; predictions in a crowd region of their class are nobody's invention."""
    limits = np.array([limit])
    taken = greedy(np.where(label[:, None] == true_label[None, :], overlap, -1.0), limits)[0]
    left, free = np.flatnonzero(taken < 0), np.setdiff1d(np.arange(len(true_label)), taken)
    second = greedy(overlap[np.ix_(left, free)], limits)[0]
    taken[left[second >= 0]] = free[second[second >= 0]]
    matched = taken >= 0
    np.add.at(table, (true_label[taken[matched]], label[matched]), 1)
    np.add.at(table[-1], label[~matched & ~ignored], 1)
    np.add.at(table[:, -1], np.delete(true_label, taken[matched]), 1)
