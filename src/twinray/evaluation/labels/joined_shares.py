"""The interval of a mean of several shares, such as sensitivity and specificity: put together from those of the shares.

Conventions

- Near its end a share's interval leans, and so must that of a mean in which a share of few positives stands beside one of many
  negatives. One symmetric reach of the mean held the truth in 88 of 100 simulated studies there
  (``benchmarks/interval_coverage.py``). A class none of whose few positives is found has no spread at all in resamples.
- The variance of a share over patients is that of a ratio estimate, and the effective sample size is share (1 - share) / variance
  (Rao and Scott, A simple method for the analysis of clustered binary data, Biometrics 1992).
- Each share has Wilson's score interval with that size; the exact one (Clopper and Pearson), patients as sample size, where
  the share is 0 or 1 or no patient differs.
- They are put together by squaring and adding: the lower end lies sqrt(d' R d) below the mean, with d the weighted distances to the
  shares' own lower ends and R the correlations of the shares; the upper one likewise. The sources are Newcombe, Statistics in
  Medicine 1998, and with correlations Zou and Donner, Statistics in Medicine 2008 (MOVER).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.evaluation.bounded import exact_share, score_interval
from twinray.evaluation.labels.data import Labelled, share
from twinray.records import FloatArray, IntArray

Counts: TypeAlias = Sequence[tuple[FloatArray, FloatArray]]
"""Of each share the part and the whole, both (groups, k) counts by patient and class."""


@dataclass(frozen=True, slots=True, eq=False)
class JoinedShares:
    """s shares of each of k classes on the same images; NaN of nobody.

    Attributes:
        values: (s, k), 0..1.
        covariance: (s * k, s * k) over patients, the shares of the first kind first.
        cases: (s, k) patients that each is a share of.
        averaged: (k,) classes that means are over.
    """

    values: FloatArray
    covariance: FloatArray
    cases: IntArray
    averaged: npt.NDArray[np.bool_]

    @staticmethod
    def of(models: Sequence[Labelled], counts: Callable[[Labelled], Counts]) -> JoinedShares:
        """Of one model, or means over several on the same images.

        Args:
            models: models.
            counts: data of one model -> counts of its shares.
        """
        of_models = [counts(model) for model in models]
        wholes = [whole for _, whole in of_models[0]]
        values = [
            np.stack([share(part.sum(axis=0), whole.sum(axis=0)) for part, whole in one])
            for one in of_models
        ]
        # what each patient adds to a share's deviation from the truth
        moved = [
            np.concatenate(
                [(part - v * whole) / whole.sum(axis=0).clip(1) for (part, whole), v in zip(one, own, strict=True)],
                axis=1,
            )
            for one, own in zip(of_models, values, strict=True)
        ]  # fmt: skip
        cases = np.stack([(whole > 0).sum(axis=0) for whole in wholes])
        m = cases.ravel()
        # m patients' own mean takes one of m degrees of freedom
        grown = np.where(m > 1, m / np.maximum(m - 1, 1), 1.0)
        mean = np.nan_to_num(np.mean(moved, axis=0))
        covariance = mean.T @ mean * np.sqrt(np.outer(grown, grown))
        return JoinedShares(np.mean(values, axis=0), covariance, cases, models[0].in_mean.copy())

    @staticmethod
    def over_folds(folds: Sequence[JoinedShares]) -> JoinedShares:
        """Means over folds, which have no patient in common; a share that a fold lacks is that of the others."""
        known = np.stack([~np.isnan(one.values) for one in folds])
        n = known.sum(axis=0)
        values = np.stack([np.nan_to_num(one.values) for one in folds]).sum(axis=0)
        covariance = np.sum([one.covariance for one in folds], axis=0)
        return JoinedShares(
            share(values, n.astype(np.float64)),
            covariance / np.outer(n.clip(1), n.clip(1)),
            np.sum([one.cases for one in folds], axis=0),
            np.any([one.averaged for one in folds], axis=0),
        )

    def interval(self, label: int | None) -> tuple[float, float]:
        """95 % interval of the mean of a class's shares, or of those of all classes for None, 0..1; NaN where one is of nobody."""
        wanted, (below, above) = self._wanted(label), self.reach(label)
        if not wanted.any():
            return below, above
        middle = float(self.values[:, wanted].mean())
        return max(0.0, middle - below), min(1.0, middle + above)

    def reach(self, label: int | None) -> tuple[float, float]:
        """How far the interval goes below the mean and above it; NaN where one share is of nobody."""
        wanted = self._wanted(label)
        if not wanted.any():
            return float("nan"), float("nan")
        at = np.flatnonzero(np.tile(wanted, len(self.values)))
        values, cases = self.values.ravel()[at], self.cases.ravel()[at]
        covariance = self.covariance[np.ix_(at, at)]
        variances = np.diag(covariance)
        ends = np.array(
            [_ends(float(v), float(s), int(m)) for v, s, m in zip(values, variances, cases, strict=True)]
        )  # fmt: skip
        scale = np.sqrt(np.outer(variances, variances))
        r = np.divide(covariance, scale, out=np.eye(len(at)), where=scale > 0).clip(-1, 1)
        below, above = (np.abs(ends[:, side] - values) / len(at) for side in (0, 1))
        low, high = (float(np.sqrt(max(d @ r @ d, 0.0))) for d in (below, above))
        return low, high

    def _wanted(self, label: int | None) -> npt.NDArray[np.bool_]:
        """(k,) classes whose shares are all of somebody."""
        measured = ~np.isnan(self.values).any(axis=0)
        asked = self.averaged if label is None else np.arange(self.values.shape[1]) == label
        return np.asarray(np.logical_and(measured, asked), dtype=np.bool_)


def _ends(value: float, variance: float, cases: int) -> tuple[float, float]:
    """Of one share."""
    if variance <= 0 or not 0 < value < 1:
        return exact_share(value, cases)
    return score_interval(value, value * (1 - value) / variance)
