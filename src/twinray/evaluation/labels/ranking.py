"""Measures of one class's ranking under any weights, many resamples at a time: AUC, average precision, sensitivity.

Conventions (scikit-learn's)

- AUC is the area under the ROC curve by trapezoids, the weighted Mann-Whitney statistic. A tie
  between a positive and a negative therefore counts one half.
- Average precision is the sum over score thresholds of (recall gained) x (precision), without interpolation.
- The sensitivity at a specificity is the highest of any threshold whose specificity is at least that; no interpolation.
- All images of one score pass a threshold together.
- AUC and sensitivity are NaN unless both kinds have weight, average precision unless positives have.

All three need the running counts only where a positive stands; the negatives between are added up by one sparse product.
So the cost of many resamples falls with the share of positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from twinray.records import FloatArray, IntArray

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The labelled images of one class by falling score, boiled down to the scores at which a positive stands.

    Attributes:
        found: (rows, groups) sparse: positives at each of these scores.
        passed: (rows, groups) sparse: negatives above that score and below the one before.
        tied: (rows, groups) sparse: negatives at that score; None where there is none.
        negative: (groups,) negatives in all.
    """

    found: Any
    passed: Any
    tied: Any
    negative: _Array


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The ROC curve of every resample at the scores of its positives; all (rows, r) but the totals, (r,).

    Attributes:
        gained: positives at each score.
        found: positives at that score or above.
        false: negatives at that score or above.
        tied: negatives at that score; 0.0 where there is none.
        positives, negatives: numbers in all.
    """

    gained: _Array
    found: _Array
    false: _Array
    tied: _Array | float
    positives: _Array
    negatives: _Array


def rank(
    scores: FloatArray,
    positive: npt.NDArray[np.bool_],
    groups: IntArray,
    n_groups: int | None = None,
) -> Ranking:
    """Sort once.

    Args:
        scores: (n,) finite.
        positive: (n,) whether the class is present.
        groups: (n,) group numbers from 0.
        n_groups: number of groups there are, those without an image included; the highest number
            plus one if None.
    """
    n_groups = n_groups if n_groups is not None else int(groups.max()) + 1 if len(groups) else 0
    falling = -scores
    levels, row = np.unique(falling[positive], return_inverse=True)
    others = falling[~positive]
    place = np.searchsorted(levels, others, side="left")
    at = np.searchsorted(levels, others, side="right") > place
    own, shape = groups[~positive], (len(levels), n_groups)
    between = ~at & (place < len(levels))
    return Ranking(
        _counts(row, groups[positive], shape),
        _counts(place[between], own[between], shape),
        _counts(place[at], own[at], shape) if at.any() else None,
        np.bincount(own, minlength=n_groups).astype(np.float64),
    )


def _counts(row: IntArray, column: IntArray, shape: tuple[int, int]) -> Any:
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def curve(ranking: Ranking, weights: FloatArray) -> Curve:
    """Running counts for (groups, r) multiplicities."""
    gained = ranking.found @ weights
    found = np.cumsum(gained, axis=0)
    false = np.cumsum(ranking.passed @ weights, axis=0)
    tied: _Array | float = 0.0
    if ranking.tied is not None:
        tied = np.asarray(ranking.tied @ weights)
        false += np.cumsum(tied, axis=0)
    positives = found[-1] if len(found) else np.zeros(weights.shape[1])
    return Curve(gained, found, false, tied, positives, ranking.negative @ weights)


def auc(of: Curve) -> _Array:
    """(r,) areas under the ROC curve in 0..1; NaN where one kind has no weight."""
    # Positives gained at a score beat all negatives below it and tie with those at it.
    beaten = of.negatives - of.false + 0.5 * of.tied
    return _ratio(np.einsum("mr,mr->r", of.gained, beaten), of.positives * of.negatives)


def average_precision(of: Curve) -> _Array:
    """(r,) in 0..1; NaN without positives."""
    seen = of.found + of.false
    precision = np.divide(of.found, seen, out=np.zeros_like(seen), where=seen > 0)
    return _ratio(np.einsum("mr,mr->r", of.gained, precision), of.positives)


def sensitivity_at(of: Curve, specificity: float) -> _Array:
    """(r,) highest sensitivity of a threshold with at least this specificity; NaN where one kind has no weight."""
    if not len(of.found):
        return np.full(of.positives.shape, np.nan)
    budget = (1 - specificity) * of.negatives * (1 + 1e-12)  # 0.1 * 30 must let 3 pass
    within = np.count_nonzero(of.false <= budget, axis=0)  # false never falls
    found = np.where(within > 0, of.found[within - 1, np.arange(len(within))], 0.0)
    return np.where(of.negatives > 0, _ratio(found, of.positives), np.nan)


def auc_and_average_precision(ranking: Ranking, weights: FloatArray) -> tuple[_Array, _Array]:
    """Both measures for (groups, r) multiplicities: two of (r,) in 0..1 or NaN."""
    of = curve(ranking, weights)
    return auc(of), average_precision(of)


def _ratio(part: _Array, whole: _Array) -> _Array:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))
