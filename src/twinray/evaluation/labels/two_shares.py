"""The interval of a sum of two shares, such as sensitivity plus specificity: put together from those of the two.

Conventions

- Near its end a share's interval leans, and so must that of a sum in which one share of few positives stands beside one of many
  negatives. One symmetric reach of the sum held the truth in 88 of 100 simulated studies there
  (``benchmarks/interval_coverage.py``).
- The variance of a share over patients is that of a ratio estimate, and the effective sample size is share (1 - share) / variance
  (Rao and Scott, A simple method for the analysis of clustered binary data, Biometrics 1992).
- Each share has Wilson's score interval with that size; the exact one (Clopper and Pearson), patients as sample size, where
  the share is 0 or 1 or no patient differs.
- Both are put together by squaring and adding: the lower end of a + b is a + b - sqrt(la^2 + lb^2 + 2 r la lb), with la and lb the
  distances to the shares' own lower ends and r their correlation; the upper one likewise. The sources are Newcombe, Statistics in
  Medicine 1998, and with correlation Zou and Donner, Statistics in Medicine 2008 (MOVER).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.evaluation.bounded import exact_share, score_interval
from twinray.evaluation.labels.data import Labelled, share
from twinray.records import FloatArray

Pair: TypeAlias = tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""Of two shares the part and the whole, each (groups, k) counts by patient and class."""


@dataclass(frozen=True, slots=True)
class TwoShares:
    """Two shares of the same images.

    Attributes:
        values: shares, 0..1.
        variances: variances over patients.
        covariance: covariance of the two.
        cases: patients that each is a share of.
    """

    values: tuple[float, float]
    variances: tuple[float, float]
    covariance: float
    cases: tuple[int, int]

    def interval(self) -> tuple[float, float]:
        """95 % interval of their sum, 0..2; a share of nobody gives NaN."""
        if np.isnan(self.values).any():
            return float("nan"), float("nan")
        ends = [
            _share_interval(*one)
            for one in zip(self.values, self.variances, self.cases, strict=True)
        ]
        below, above = (
            [abs(end[side] - value) for value, end in zip(self.values, ends, strict=True)]
            for side in (0, 1)
        )
        spread = float(np.sqrt(self.variances[0] * self.variances[1]))
        r = float(np.clip(self.covariance / spread, -1, 1)) if spread > 0 else 0.0
        total = sum(self.values)
        return total - _together(below, r), total + _together(above, r)


def _share_interval(value: float, variance: float, cases: int) -> tuple[float, float]:
    if variance <= 0 or not 0 < value < 1:
        return exact_share(value, cases)
    return score_interval(value, value * (1 - value) / variance)


def _together(distances: Sequence[float], r: float) -> float:
    a, b = distances
    return float(np.sqrt(max(a * a + b * b + 2 * r * a * b, 0.0)))


def two_shares(
    models: Sequence[Labelled], tables: Callable[[Labelled], Pair]
) -> dict[int | None, TwoShares]:
    """Both shares of each class, and under None their means over classes; over several models the mean of theirs.

    Args:
        models: models on the same images.
        tables: data of one model -> counts of both shares.
    """
    data = models[0]
    pairs = [tables(model) for model in models]
    first, second = (_Share.of([pair[i] for pair in pairs]) for i in (0, 1))
    averaged = data.in_mean & ~np.isnan(first.value + second.value)
    told: dict[int | None, TwoShares] = {
        i: _both(first.over(one), second.over(one))
        for i, one in enumerate(np.eye(len(data.names), dtype=bool))
    }
    told[None] = _both(first.over(averaged), second.over(averaged))
    return told


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """One share of some classes.

    Attributes:
        value: (k,) shares, NaN of nobody.
        moved: (groups, k) what each patient adds to their deviation from the truth.
        among: (groups, k) whether a share is one of this patient's images.
    """

    value: FloatArray
    moved: FloatArray
    among: npt.NDArray[np.bool_]

    @staticmethod
    def of(models: Sequence[tuple[FloatArray, FloatArray]]) -> _Share:
        """Mean over models, from the part and the whole of each."""
        values, moved = [], []
        for part, whole in models:
            total = whole.sum(axis=0)
            values.append(share(part.sum(axis=0), total))
            moved.append(share(part - values[-1] * whole, np.broadcast_to(total, whole.shape)))
        return _Share(np.mean(values, axis=0), np.mean(moved, axis=0), models[0][1] > 0)

    def over(self, classes: npt.NDArray[np.bool_]) -> tuple[float, FloatArray, int]:
        """The mean over some classes, what each patient adds to it (groups,), and how many patients it is of."""
        if not classes.any():
            return float("nan"), np.zeros(len(self.moved)), 0
        return (
            float(self.value[classes].mean()),
            np.asarray(self.moved[:, classes].mean(axis=1)),
            int(self.among[:, classes].any(axis=1).sum()),
        )


def _both(first: tuple[float, FloatArray, int], second: tuple[float, FloatArray, int]) -> TwoShares:
    (a, of_a, m), (b, of_b, n) = first, second
    # m patients' own mean takes one of m degrees of freedom
    grown = [cases / (cases - 1) if cases > 1 else 1.0 for cases in (m, n)]
    variances = float((of_a**2).sum()) * grown[0], float((of_b**2).sum()) * grown[1]
    covariance = float((of_a * of_b).sum()) * float(np.sqrt(grown[0] * grown[1]))
    return TwoShares((a, b), variances, covariance, (m, n))


def mean_over_folds(folds: Sequence[TwoShares]) -> TwoShares:
    """Of folds without a patient in common; those where one of the shares does not exist are left out."""
    known = [one for one in folds if not np.isnan(one.values).any()]
    n = len(known)
    if not n:
        return folds[0]
    values, variances, cases = (
        [sum(getattr(one, name)[i] for one in known) for i in (0, 1)]
        for name in ("values", "variances", "cases")
    )
    return TwoShares(
        (values[0] / n, values[1] / n),
        (variances[0] / n**2, variances[1] / n**2),
        sum(one.covariance for one in known) / n**2,
        (cases[0], cases[1]),
    )
