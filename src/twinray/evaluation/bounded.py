"""Intervals of figures that end at 0 and 1, also where cases are few or all alike.

A percentile bootstrap of ``3 of 3`` has width 0, and near 1 it is too narrow. What is given instead:

- AUC: logit(A) plus or minus t times the bootstrap's standard error / (A (1 - A)). Student's t has
  the degrees of freedom of that error (``labels.delong``): at most one less than patients of the
  rarer kind, and fewer near 1, where a few patients make the error. In simulated studies with several
  images a patient it holds the truth more often than percentiles do
  (``benchmarks/interval_coverage.py``).
- Shares: Wilson's score interval with the effective sample size v (1 - v) / variance, as of detectors' figures
  (``levels``). The variance is that of the resamples times m / (m - 1) of m patients.
- Average precision, F1, Brier scores and means of shares: the same between the measure's own ends, with Student's t
  of m - 1 degrees of freedom (Korn and Graubard, Survey Methodology 1998). m is the number of patients of the rarer kind. Unlike
  a share's, their variance does not follow from their value.
- Balanced accuracy and Youden's index, which are made of shares: put together from the intervals of these
  (``labels.joined_shares``).
- Differences: expanded percentiles (Hesterberg, The American Statistician 2015).
  Instead of 2.5 and 97.5 those are taken that make a mean of m values have Student's interval.
- AUC of fewer than ``FEW`` patients of a kind, or of 0 or 1: Newcombe's fifth method (Statistics in Medicine 2006), which
  needs no resample.
- Calibration errors, which are 0 or above and which chance makes larger: the (expanded) 97.5th percentile, and below the value as far and
  by the resamples' excess over it more, 0 at least.
  Resamples have the excess of a small sample twice, so plain percentiles lie above the truth: of 60 simulated patients 8 in 100 held it.
- Shares of fewer than ``FEW`` patients, or where no resample differs: exact (Clopper and Pearson,
  Biometrika 1934). The sample size is the number of patients, however many images they have; that
  is on the safe side.
- Other figures of fewer than ``FEW`` patients: none, ``too few to say``.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

from twinray.records import FloatArray

FEW = 10
"""Patients of a kind below which resampling is not trusted. A choice, not from a source."""

TOO_FEW = f"too few to say: fewer than {FEW} patients of a kind"
ALL_ALIKE = "too even to say: no resample differs"
EXACT = "exact (Clopper-Pearson), patients as sample size"
NEWCOMBE = "Newcombe's fifth method, patients as sample size"


def exact_share(value: float, n: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a share of ``n``; the count may be broken where cases have several images."""
    hits = value * n
    low = 0.0 if hits <= 0 else float(betaincinv(hits, n - hits + 1, 0.025))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 0.975))
    return low, high


def score_interval(value: float, size: float, freedom: float = np.inf) -> tuple[float, float]:
    """95 % interval of Wilson of a share, from its value and the (effective, not whole) sample size.

    ``freedom``: degrees of freedom of the variance that the effective size comes from. Student's t takes the place of 1.96, which is
    the same as the smaller size of Korn and Graubard (Survey Methodology 1998).
    """
    z2 = float(ndtri(0.975) if np.isinf(freedom) else stdtrit(freedom, 0.975)) ** 2
    middle = (value + z2 / (2 * size)) / (1 + z2 / size)
    half = float(np.sqrt(z2 * (max(value * (1 - value), 0.0) / size + z2 / (4 * size**2)))) / (
        1 + z2 / size
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe_auc(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """95 % interval of an AUC from its value and the numbers of cases: |A - theta| = z sqrt(V(theta)) solved for theta."""
    z, spread = float(ndtri(0.975)), (positives + negatives) / 2 - 1

    def beyond(theta: float) -> float:
        odd = 1 + spread * (1 - theta) / (2 - theta) + spread * theta / (1 + theta)
        variance = theta * (1 - theta) * odd / (positives * negatives)
        return float((value - theta) ** 2 - z * z * variance)

    # The squared distance is 0 at theta = A and the variance is 0 at 0 and 1, so each side has one root;
    # at A = 1 both vanish in theta = 1, so the search for the lower end stops just short of it.
    low = 0.0 if value <= 0 else float(brentq(beyond, 0.0, min(value, 1 - 1e-12)))
    high = 1.0 if value >= 1 else float(brentq(beyond, max(value, 1e-12), 1.0))
    return low, high


def logit_interval(value: float, samples: FloatArray, freedom: float) -> tuple[float, float] | None:
    """95 % interval on the logit scale from the spread of resamples; None where the value is 0 or 1 or nothing spreads.

    Args:
        value: the figure, 0..1.
        samples: (resamples,) the figure on each resample, NaN left out.
        freedom: degrees of freedom of Student's t.
    """
    if not 0 < value < 1 or len(samples) < 2 or freedom < 1:
        return None
    error = float(samples.std(ddof=1))
    if error <= 0:
        return None
    middle, half = logit(value), float(stdtrit(freedom, 0.975)) * error / (value * (1 - value))
    return float(expit(middle - half)), float(expit(middle + half))


def excess_interval(
    value: float, samples: FloatArray, tails: tuple[float, float] = (2.5, 97.5)
) -> tuple[float, float]:
    """95 % interval of an error of 0..1 that chance makes larger: as far away as the farther percentile, below once more the excess.

    The excess is the mean of the resamples less the value. The value itself has more of it than its resamples show: a gap that is
    all chance, |N(0, s)|, has 0.80 s on average, and resamples of it 0.33 s more.
    """
    low, high = np.nanpercentile(samples, tails)
    reach = max(float(high) - value, value - float(low))
    excess = max(0.0, float(np.nanmean(samples)) - value)
    return max(0.0, value - reach - excess), min(1.0, value + reach)
