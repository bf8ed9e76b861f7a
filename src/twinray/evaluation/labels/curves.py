"""ROC and precision-recall curves of image labels, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twinray.records import ABSENT, PRESENT, FloatArray, IntArray

MOST_POINTS = 500
"""Points kept of a curve; where there are more, those nearest to equal steps along both axes."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelCurve:
    """One class at every score threshold, by falling score; an image passes if its score is at or above.

    Attributes:
        score: (m,) thresholds; the first, infinity, lets nothing pass.
        false_positive_rate, recall: (m,) 0..1.
        precision: (m,) 0..1; NaN where nothing passes.
        n_positive, n_negative: images.
    """

    score: FloatArray
    false_positive_rate: FloatArray
    recall: FloatArray
    precision: FloatArray
    n_positive: int
    n_negative: int


def label_curves(
    truth: FloatArray, scores: FloatArray, label_classes: Sequence[str]
) -> dict[str, LabelCurve]:
    """Curves of the classes that have both kinds of label.

    Args:
        truth: (n, k) labels: 1, 0, -1 uncertain, NaN not stated; the last two are left out.
        scores: (n, k) finite.
        label_classes: k names.
    """
    found: dict[str, LabelCurve] = {}
    for i, name in enumerate(label_classes):
        known = (truth[:, i] == PRESENT) | (truth[:, i] == ABSENT)
        positive, own = truth[known, i] == PRESENT, np.asarray(scores[known, i], dtype=np.float64)
        n_positive, n_negative = int(positive.sum()), int((~positive).sum())
        if not n_positive or not n_negative:
            continue
        order = np.argsort(-own, kind="stable")
        last = np.flatnonzero(np.append(np.diff(own[order]) != 0, True))
        hits = np.append(0, np.cumsum(positive[order])[last])
        passed = np.append(0, last + 1)
        score = np.append(np.inf, own[order][last])
        precision = np.divide(hits, passed, out=np.full(len(hits), np.nan), where=passed > 0)
        rate, recall = (passed - hits) / n_negative, hits / n_positive
        kept = _spread(rate, recall)
        found[name] = LabelCurve(
            score[kept], rate[kept], recall[kept], precision[kept], n_positive, n_negative
        )
    return found


def _spread(rate: FloatArray, recall: FloatArray) -> IntArray:
    """Numbers of the points to keep, both ends among them."""
    if len(rate) <= MOST_POINTS:
        return np.arange(len(rate))
    along = (
        rate + recall
    )  # never falls, so equal steps of it lose no corner by more than their width
    steps = np.linspace(0, along[-1], MOST_POINTS)
    return np.unique(np.searchsorted(along, steps, side="left").clip(max=len(along) - 1))
