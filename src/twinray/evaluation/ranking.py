"""ROC AUC and average precision of one class under any weights, many resamples at a time.

Conventions (scikit-learn's)

- AUC is the area under the ROC curve by trapezoids, so a tie between a positive and a negative counts one half:
  the weighted Mann-Whitney statistic.
- Average precision is the sum over score thresholds of (recall gained) x (precision), without interpolation.
- All images of one score pass a threshold together.
- AUC is NaN unless both kinds have weight, average precision unless positives have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twinray.records import FloatArray, IntArray

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The labelled images of one class by falling score.

    Attributes:
        group: (n,) group number of each image.
        positive: (n,) 1.0 or 0.0.
        ends: (m,) last position of each distinct score.
    """

    group: IntArray
    positive: _Array
    ends: IntArray


def rank(scores: FloatArray, positive: npt.NDArray[np.bool_], groups: IntArray) -> Ranking:
    """Sort once.

    Args:
        scores: (n,) finite.
        positive: (n,) whether the class is present.
        groups: (n,) group numbers from 0.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(order) else np.zeros(0, dtype=np.int64)
    return Ranking(groups[order], positive[order].astype(np.float64), ends)


def auc_and_average_precision(ranking: Ranking, weights: FloatArray) -> tuple[_Array, _Array]:
    """Both measures for (groups, r) multiplicities: two of (r,) in 0..1 or NaN."""
    nothing = np.full(weights.shape[1], np.nan)
    if not len(ranking.ends):
        return nothing, nothing
    own = weights[ranking.group]
    seen = np.cumsum(own, axis=0)
    own *= ranking.positive[:, None]
    found = np.cumsum(own, axis=0, out=own)
    if len(ranking.ends) < len(found):
        seen, found = seen[ranking.ends], found[ranking.ends]
    positives, negatives = found[-1], seen[-1] - found[-1]
    gained = np.diff(found, axis=0, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Positives gained at a score beat all negatives below it and tie with those at it.
        false = seen - found
        beaten = negatives - false
        beaten[0] += 0.5 * false[0]
        beaten[1:] += 0.5 * (false[1:] - false[:-1])
        auc = np.einsum("mr,mr->r", gained, beaten) / (positives * negatives)
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        average = np.einsum("mr,mr->r", gained, precision) / positives
    return np.where((positives > 0) & (negatives > 0), auc, np.nan), np.where(positives > 0, average, np.nan)
