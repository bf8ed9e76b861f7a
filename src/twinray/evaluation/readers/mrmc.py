"""Multi-reader multi-case analysis: are arms different, for readers and images like these?

Every reader reads every image in every arm (fully crossed). The model is that of Obuchowski and Rockette
(Communications in Statistics 1995) with covariances from the jackknife, and the degrees of freedom of Hillis
(Statistics in Medicine 2007). The analysis of Dorfman, Berbaum and Metz (Investigative Radiology 1992) on
jackknife pseudovalues has the same F.

Conventions

- Figures of merit theta are of I arms, J readers. Covariances of the leave-one-out values are (K - 1) / K times
  the sum of products over the K images, and averaged over pairs. ``cov1``: same
  reader, other arm. ``cov2``: same arm, other reader. ``cov3``: both differ.
- Variance components may be negative; they are reported so and cut at 0 inside error terms only.
- Random readers and images: F = MS(T) / (MS(TR) + J max(cov2 - cov3, 0)); results hold for readers and
  images like these. Fixed readers: chi-square, these readers only. Fixed images: F = MS(T) / MS(TR), these images only.
- Where readers differ between arms by nothing, MS(TR) is 0 and the degrees of freedom are infinite: the
  normal law is used.

The same serves arms with several training seeds: initial weights are arms, seeds are readers.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import ndtri, stdtrit
from scipy.stats import chi2
from scipy.stats import f as f_law

from twinray.errors import InputError
from twinray.records import FloatArray

Effects: TypeAlias = Literal["random-readers", "fixed-readers", "fixed-images"]


@dataclass(frozen=True, slots=True)
class Components:
    """What the observed figures vary by.

    Attributes:
        var, cov1, cov2, cov3: error variance and covariances, averaged over pairs.
        arms, arms_by_readers: mean squares MS(T) and MS(TR); MS(TR) is NaN of one reader.
        readers, readers_by_arms: variance components of the readers and of their interplay with arms; NaN where
            they cannot be told.
    """

    var: float
    cov1: float
    cov2: float
    cov3: float
    arms: float
    arms_by_readers: float
    readers: float
    readers_by_arms: float


@dataclass(frozen=True, slots=True)
class ArmEffect:
    """A difference of two arms, or one arm's mean over readers.

    Attributes:
        value: mean over readers.
        error: standard error.
        freedom: degrees of freedom; infinite under the normal law.
        low, high: 95 % interval.
        p: two-sided p of no difference; NaN of a single arm.
    """

    value: float
    error: float
    freedom: float
    low: float
    high: float
    p: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One analysis of a crossed reader study.

    Attributes:
        effects: which of readers and images are taken as a sample of more.
        statistic: F, or chi-square of fixed readers.
        freedom: degrees of freedom of numerator and denominator (infinite for chi-square).
        p: probability of as large a statistic where all arms are alike.
        differences: (first arm, other arm) -> first minus other.
        arms: by arm, from that arm's figures alone.
    """

    effects: Effects
    statistic: float
    freedom: tuple[float, float]
    p: float
    differences: dict[tuple[int, int], ArmEffect]
    arms: tuple[ArmEffect, ...]


def jackknife_covariance(left_out: FloatArray) -> FloatArray:
    """Covariances of figures from their leave-one-out values.

    Args:
        left_out: (figures, images) each figure without each image.

    Returns:
        (figures, figures).
    """
    n = left_out.shape[1]
    centred = left_out - left_out.mean(axis=1, keepdims=True)
    covariance: FloatArray = (n - 1) / n * (centred @ centred.T)
    return covariance


def components(theta: FloatArray, left_out: FloatArray) -> Components:
    """Mean squares and variance components.

    Args:
        theta: (arms, readers) figures of merit.
        left_out: (arms, readers, images) figures without each image.

    Raises:
        InputError: fewer than two arms or images, a figure that does not exist, or shapes that disagree.
    """
    arms, readers = _checked(theta, left_out)
    table = jackknife_covariance(left_out.reshape(arms * readers, -1)).reshape(
        arms, readers, arms, readers
    )
    a, r = range(arms), range(readers)
    pairs = list(itertools.permutations(a, 2))
    others = list(itertools.permutations(r, 2))
    var = float(np.mean([table[i, j, i, j] for i in a for j in r]))
    cov1 = float(np.mean([table[i, j, k, j] for i, k in pairs for j in r]))
    cov2 = float(np.mean([table[i, j, i, k] for i in a for j, k in others])) if others else 0.0
    cov3 = (
        float(np.mean([table[i, j, k, m] for i, k in pairs for j, m in others])) if others else 0.0
    )
    of_arm, of_reader = theta.mean(axis=1), theta.mean(axis=0)
    apart = theta - of_arm[:, None] - of_reader[None, :] + theta.mean()
    ms_t = readers * float(of_arm.var(ddof=1))
    if readers < 2:
        return Components(var, cov1, cov2, cov3, ms_t, math.nan, math.nan, math.nan)
    ms_tr = float((apart**2).sum() / ((arms - 1) * (readers - 1)))
    ms_r = arms * float(of_reader.var(ddof=1))
    return Components(
        var,
        cov1,
        cov2,
        cov3,
        ms_t,
        ms_tr,
        (ms_r - ms_tr) / arms - cov1 + cov3,
        ms_tr - var + cov1 + max(cov2 - cov3, 0.0),
    )


def analyse(
    theta: FloatArray, left_out: FloatArray, effects: Effects = "random-readers"
) -> Analysis:
    """Test whether arms differ, with 95 % intervals of all differences.

    Args:
        theta: (arms, readers) figures of merit, such as ``afroc.figure_of_merit`` gives.
        left_out: (arms, readers, images) the same without each image (``afroc.leave_one_out``).
        effects: what the result should hold for.

    Raises:
        InputError: see ``components``; or random readers where there is one.
    """
    arms, readers = _checked(theta, left_out)
    if readers < 2 and effects != "fixed-readers":
        raise InputError(
            f"reader study: expected two readers or more for {effects}, found 1; take fixed-readers"
        )
    parts = components(theta, left_out)
    table = jackknife_covariance(left_out.reshape(arms * readers, -1)).reshape(
        arms, readers, arms, readers
    )
    gap = max(parts.cov2 - parts.cov3, 0.0)
    freedom = math.inf
    if effects == "random-readers":
        error = parts.arms_by_readers + readers * gap
        own = parts.arms_by_readers**2 / ((arms - 1) * (readers - 1))
        freedom = error**2 / own if own > 0 else math.inf
    elif effects == "fixed-readers":
        error = parts.var - parts.cov1 + (readers - 1) * gap
    else:
        error, freedom = parts.arms_by_readers, float((arms - 1) * (readers - 1))
    statistic, p = _overall(parts.arms, max(error, 0.0), arms, freedom, effects)
    means = theta.mean(axis=1)
    spread = math.sqrt(2 * max(error, 0.0) / readers)
    differences = {
        (i, k): _effect(float(means[i] - means[k]), spread, freedom, tested=True)
        for i, k in itertools.combinations(range(arms), 2)
    }
    singles = tuple(_single(theta[i], table[i, :, i, :], effects) for i in range(arms))
    return Analysis(effects, statistic, (float(arms - 1), freedom), p, differences, singles)


def _overall(
    ms_t: float, error: float, arms: int, freedom: float, effects: Effects
) -> tuple[float, float]:
    """The statistic over all arms and its p."""
    if error <= 0:
        return math.nan, math.nan
    if effects == "fixed-readers":
        value = (arms - 1) * ms_t / error
        return value, float(chi2.sf(value, arms - 1))
    value = ms_t / error
    if math.isinf(freedom):
        return value, float(chi2.sf(value * (arms - 1), arms - 1))
    return value, float(f_law.sf(value, arms - 1, freedom))


def _single(theta: FloatArray, covariance: FloatArray, effects: Effects) -> ArmEffect:
    """One arm's mean over readers, from its own figures."""
    n = len(theta)
    own = float(np.mean(np.diag(covariance)))
    shared = float((covariance.sum() - np.trace(covariance)) / (n * (n - 1))) if n > 1 else 0.0
    between = float(theta.var(ddof=1)) if n > 1 else 0.0
    if effects == "random-readers":
        error = between + n * max(shared, 0.0)
        freedom = error**2 / (between**2 / (n - 1)) if between > 0 else math.inf
    elif effects == "fixed-readers":
        error, freedom = own + (n - 1) * max(shared, 0.0), math.inf
    else:
        error, freedom = between, float(n - 1)
    return _effect(float(theta.mean()), math.sqrt(error / n), freedom)


def _effect(value: float, error: float, freedom: float, *, tested: bool = False) -> ArmEffect:
    normal = math.isinf(freedom)
    reach = float(ndtri(0.975) if normal else stdtrit(freedom, 0.975)) * error
    p = math.nan
    if tested and error > 0:
        square = (value / error) ** 2
        p = float(chi2.sf(square, 1) if normal else f_law.sf(square, 1, freedom))
    return ArmEffect(value, error, freedom, value - reach, value + reach, p)


def _checked(theta: FloatArray, left_out: FloatArray) -> tuple[int, int]:
    if theta.ndim != 2 or left_out.shape[:2] != theta.shape or left_out.ndim != 3:
        raise InputError(
            f"reader study: expected (arms, readers) figures and (arms, readers, images) without each image, "
            f"got {theta.shape} and {left_out.shape}"
        )
    arms, readers = theta.shape
    if arms < 2 or readers < 1 or left_out.shape[2] < 2:
        raise InputError(
            f"reader study: expected two arms, a reader and two images or more, got {left_out.shape}"
        )
    if not (np.isfinite(theta).all() and np.isfinite(left_out).all()):
        raise InputError(
            "reader study: a figure does not exist, or not without one of the images; "
            "more images with and without lesions are needed"
        )
    return arms, readers
