"""DeLong's test of AUCs, for images clustered in patients.

Conventions

- A positive's placement is the share of negatives that score lower, a tie counting one half. A
  negative's is the share of positives that score higher. Both average to the AUC (DeLong, DeLong
  and Clarke-Pearson, Biometrics 1988; computed from midranks as Sun and Xu, IEEE Signal Processing
  Letters 2014).
- Where patients have several images, placements are summed by patient, and a term for positives and
  negatives of one patient is added. The source is Obuchowski, Nonparametric analysis of clustered
  ROC curve data, Biometrics 1997. With one image a patient this is DeLong's variance, digit by
  digit.
- The test is two-sided and normal. Two runs with the same placements have z = 0 and p = 1.
- A variance needs two patients with a positive and two with a negative; there is no test otherwise.
- The normal law is for many. Of fewer than ``FEWEST`` patients of a kind ``known`` withholds z, p and the
  interval: near an AUC of 1, 88 of 100 intervals from 12 patients with the class held the truth, and
  92 from 30 (simulated as in ``benchmarks/interval_coverage.py``). The resamples' p stands beside it.
- Degrees of freedom of such a variance are those of Satterthwaite (Biometrics 1946). A variance of m
  values of kurtosis b spreads by (b - 1) / m of its square, as one of 2 m / (b - 1) degrees of freedom. Near an
  AUC of 1 most placements are equal and a few make the variance, so these are far fewer than m.
- The direction is fixed: higher scores speak for the class. An AUC below one half stays below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from twinray.records import FloatArray, IntArray

_Array: TypeAlias = FloatArray
FEWEST = 40
"""Patients of a kind below which DeLong's test is not given; chosen by simulation."""
METHODS = {False: "DeLong 1988", True: "Obuchowski 1997 (DeLong, images clustered in patients)"}


@dataclass(frozen=True, slots=True, eq=False)
class AucCovariance:
    """AUCs of several scores on the same images of one class.

    Attributes:
        auc: (s,) one a score.
        covariance: (s, s); NaN where there is none.
        clustered: True where a patient has several images.
    """

    auc: _Array
    covariance: _Array
    clustered: bool


@dataclass(frozen=True, slots=True)
class DeLong:
    """Candidate minus baseline.

    Attributes:
        difference: difference of the AUCs.
        standard_errors: standard errors of the baseline's AUC, of the candidate's, of the
            difference.
        z, p: two-sided; NaN where there is no variance, unless the AUCs are equal.
        low, high: 95 % interval of the difference, normal; NaN where there is no variance.
        method: whose variance it is.
        note: reason that there is no test; empty where there is one.
    """

    difference: float
    standard_errors: tuple[float, float, float]
    z: float
    p: float
    low: float
    high: float
    method: str
    note: str = ""

    def known(self, patients: int) -> DeLong:
        """The test, without z, p and interval where the rarer kind has fewer than ``FEWEST`` patients."""
        if patients >= FEWEST:
            return self
        nan = float("nan")
        note = (
            f"too few for a normal law: {patients} patients of the rarer kind, fewer than {FEWEST}"
        )
        return replace(self, z=nan, p=nan, low=nan, high=nan, note=note)

    def as_json(self) -> dict[str, object]:
        """Plain values; null where not defined."""
        known = not np.isnan(self.p)
        return {
            "difference": None if np.isnan(self.difference) else self.difference,
            "ci95": [self.low, self.high] if known else None,
            "z": self.z if known else None,
            "p": self.p if known else None,
            "standard_errors": dict(
                zip(("baseline", "candidate", "difference"), self.standard_errors, strict=True)
            )
            if known
            else None,
            "method": self.method,
            **({"note": self.note} if self.note else {}),
        }


def auc_covariance(
    scores: FloatArray, positive: npt.NDArray[np.bool_], groups: IntArray
) -> AucCovariance:
    """AUCs and their covariance over patients.

    Args:
        scores: (s, n) finite, higher for the class.
        positive: (n,) whether the class is present.
        groups: (n,) patient numbers from 0; gaps do no harm.
    """
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    size = len(scores)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    patients = np.unique(groups, return_inverse=True)[1]
    clustered = len(patients) > 0 and int(patients.max()) + 1 < len(patients)
    if not n_positive or not n_negative:
        return AucCovariance(np.full(size, np.nan), np.full((size, size), np.nan), clustered)
    of_positive, of_negative = _placements(scores, positive)
    auc = of_positive.mean(axis=1)
    n = int(patients.max()) + 1
    own = [patients[positive], patients[~positive]]
    sums = [
        np.stack([np.bincount(who, row, n) for row in table - auc[:, None]])
        for who, table in zip(own, (of_positive, of_negative), strict=True)
    ]  # each (s, patients): placements of a patient's images beyond their mean
    with_positive, with_negative = (len(np.unique(who)) for who in own)
    if with_positive < 2 or with_negative < 2:
        return AucCovariance(auc, np.full((size, size), np.nan), clustered)
    mixed = sums[0] @ sums[1].T * n / (n - 1)
    covariance = (
        sums[0] @ sums[0].T * with_positive / (with_positive - 1) / n_positive**2
        + sums[1] @ sums[1].T * with_negative / (with_negative - 1) / n_negative**2
        + (mixed + mixed.T) / (n_positive * n_negative)
    )
    return AucCovariance(auc, covariance, clustered)


def auc_freedom(scores: FloatArray, positive: npt.NDArray[np.bool_], groups: IntArray) -> float:
    """Degrees of freedom of the variance of one AUC: at most one less than the patients of the rarer kind.

    Args:
        scores: (n,) finite, higher for the class.
        positive: (n,) whether the class is present.
        groups: (n,) patient numbers from 0; gaps do no harm.

    Returns:
        1 or more; 0 where a kind has fewer than two patients or no placement differs.
    """
    if not 0 < positive.sum() < len(positive):
        return 0.0
    of_kind = zip(_placements(scores[None], positive), (positive, ~positive), strict=True)
    total = doubt = 0.0
    fewest = np.inf
    for (placements,), kind in of_kind:
        sums = np.bincount(groups[kind], placements - placements.mean())
        own = sums[np.bincount(groups[kind]) > 0] / kind.sum()
        squares, m = float((own**2).sum()), len(own)
        fewest = min(fewest, m - 1)
        if m > 1 and squares > 0:
            kurtosis = m * float((own**4).sum()) / squares**2
            freedom = min(m - 1.0, 2 * m / max(kurtosis - 1, 1e-9))
            total += squares
            doubt += squares**2 / max(freedom, 1.0)
    return 0.0 if fewest < 1 or total <= 0 else max(1.0, min(fewest, total**2 / doubt))


def _placements(scores: _Array, positive: npt.NDArray[np.bool_]) -> tuple[_Array, _Array]:
    """(s, positives) and (s, negatives) placements."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    every = rankdata(scores, axis=1)
    within_positive, within_negative = (
        rankdata(scores[:, positive], axis=1),
        rankdata(scores[:, ~positive], axis=1),
    )
    return (
        np.asarray((every[:, positive] - within_positive) / n_negative),
        np.asarray(1 - (every[:, ~positive] - within_negative) / n_positive),
    )


def delong_test(
    baseline: FloatArray,
    candidate: FloatArray,
    positive: npt.NDArray[np.bool_],
    groups: IntArray | None = None,
) -> DeLong:
    """Whether two runs' AUCs of one class differ on the same images.

    Args:
        baseline, candidate: (n,) finite scores.
        positive: (n,) whether the class is present.
        groups: (n,) patient numbers; None for independent images.
    """
    groups = np.arange(len(positive)) if groups is None else groups
    both = auc_covariance(np.stack([baseline, candidate]), positive, groups)
    difference = float(both.auc[1] - both.auc[0])
    own = both.covariance
    variance = float(own[0, 0] + own[1, 1] - 2 * own[0, 1])
    method = METHODS[both.clustered]
    if np.isnan(variance):
        nan = float("nan")
        return DeLong(difference, (nan, nan, nan), nan, nan, nan, nan, method)
    error = float(np.sqrt(max(variance, 0.0)))
    # Rounding leaves a variance of 1e-20 where placements are equal.
    alike = error <= 1e-9
    errors = (float(np.sqrt(max(own[0, 0], 0.0))), float(np.sqrt(max(own[1, 1], 0.0))), error)
    if alike and abs(difference) > 1e-9:
        # A perfect ranking beside one that ranks nothing: both placements are constant, and the test would be certain of few images.
        nan = float("nan")
        return DeLong(difference, errors, nan, nan, nan, nan, method)
    z = 0.0 if alike else difference / error
    half = float(ndtri(0.975)) * error
    return DeLong(
        difference,
        errors,
        z,
        float(2 * ndtr(-abs(z))),
        difference - half,
        difference + half,
        method,
    )
