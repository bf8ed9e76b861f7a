"""What a test set can show: the smallest difference that so many patients, folds and seeds would detect.

Conventions

- The difference of two arms is paired: the same test patients, and run s of both arms with the same seed. Its variance has
  two parts. That of *patients* shrinks with more of them. That of *seeds*, the luck of training, shrinks with more
  runs only. Both are estimated from stored predictions: resamples of the patients of every run, and the runs' own figures.
- What other patients would change of one run, and not of all, is in the spread of the resamples and in that between
  seeds. It is counted once: with the patients (``gain.seed_variance``).
- The test is of the mean over seeds over its standard error, against Student's t. Its degrees of
  freedom are Satterthwaite's (Biometrics Bulletin 1946): patients have one less than their number, seeds one less than theirs.
  With ``over="patients"`` the trained models are held fixed, as intervals over patients do.
- Power is that of the noncentral t law. The *detectable* difference is the smallest that 80 of 100 such studies would show:
  2.80 standard errors where degrees of freedom are many (the same as ``levels`` prints beside a difference).
- Folds: figures and resamples are means over folds, whose patients are disjoint. Seeds are compared by their means over folds.
- How many patients would settle it is answered for a difference that is asked for, above all the smallest that matters. For
  the difference that was observed it is answered too, with an interval that is honest and wide: an
  observed difference near 0 needs no finite number. Power "at the observed difference" says nothing that p does not.
- Its interval draws both variances (chi-square), and the observed difference (normal) where that is what is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtrit

from twinray.errors import InputError
from twinray.evaluation.intervals import LEVEL
from twinray.evaluation.worth.gain import seed_variance
from twinray.records import FloatArray

Over: TypeAlias = Literal["patients and seeds", "patients"]
POWER = 0.8
_DRAWS = 2000
_MANY = 1e6
"""Degrees of freedom above which Student's t is the normal law."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What a paired difference of two arms varies by.

    Attributes:
        difference: candidate minus baseline, the mean over folds and seeds.
        patients: number of test patients, over all folds.
        seeds: number of runs of each arm (per fold).
        of_patients: variance of the difference from patients, at this number of them.
        of_seed: variance of one run's difference from its seed alone.
    """

    difference: float
    patients: int
    seeds: int
    of_patients: float
    of_seed: float

    def error(self, patients: float | None = None, seeds: int | None = None) -> float:
        """Standard error of the difference with other numbers of patients or seeds."""
        n, s = patients or self.patients, seeds or self.seeds
        return math.sqrt(self.of_patients * self.patients / n + self.of_seed / s)

    def freedom(self, patients: float | None = None, seeds: int | None = None) -> float:
        """Satterthwaite's degrees of freedom of the squared error."""
        n, s = patients or self.patients, seeds or self.seeds
        parts = ((self.of_patients * self.patients / n, n - 1), (self.of_seed / s, s - 1))
        bottom = sum(v * v / f for v, f in parts if v > 0 and f > 0)
        return sum(v for v, _ in parts) ** 2 / bottom if bottom > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Patients:
    """How many test patients would settle a difference.

    Attributes:
        difference: the difference asked about.
        total: test patients in all; infinite where no number is enough.
        low, high: 95 % interval of that number.
        more: patients beyond those there are.
        seeds: runs of each arm for which this holds.
        observed: whether the difference asked about is the observed one.
    """

    difference: float
    total: float
    low: float
    high: float
    more: float
    seeds: int
    observed: bool

    def told(self) -> str:
        """A sentence for a report."""
        what = (
            "the observed difference" if self.observed else f"a difference of {self.difference:.3f}"
        )
        if math.isinf(self.total):
            return (
                f"No number of further patients would show {what} with {self.seeds} runs of each arm: "
                "the luck of training alone hides it; more runs are needed."
            )
        if self.more <= 0:
            text = f"These patients are enough for {what}"
        else:
            text = f"About {self.more:,.0f} more test patients ({self.total:,.0f} in all) would show {what}"
        return f"{text} in {POWER:.0%} of studies; 95 % interval {_count(self.low)} to {_count(self.high)} in all."

    def as_json(self) -> dict[str, Any]:
        """The same as JSON holds it; null for no finite number."""
        return {
            "difference": self.difference,
            "observed": self.observed,
            "patients": _finite(self.total),
            "ci95": [_finite(self.low), _finite(self.high)],
            "more_patients": _finite(self.more),
            "seeds": self.seeds,
            "power": POWER,
            "words": self.told(),
        }


def spread_of(
    baseline: FloatArray,
    candidate: FloatArray,
    baseline_samples: FloatArray,
    candidate_samples: FloatArray,
    patients: int,
    *,
    over: Over = "patients and seeds",
) -> Spread:
    """The parts of a paired difference's variance, from what runs kept.

    Args:
        baseline, candidate: (s,) figures of the runs, the mean over folds where there are several.
        baseline_samples, candidate_samples: (s, b) the same on the same resamples of the test patients.
        patients: test patients, over all folds.
        over: ``patients`` holds the trained models fixed.

    Raises:
        InputError: shapes that disagree, fewer than two patients or resamples, or a figure that does not exist.
    """
    shapes = {a.shape for a in (baseline_samples, candidate_samples)}
    if (
        len(shapes) != 1
        or baseline.shape != candidate.shape
        or next(iter(shapes))[:1] != baseline.shape
    ):
        raise InputError(
            f"power: expected figures and resamples of as many runs of both arms, got {baseline.shape} and "
            f"{candidate.shape}, {baseline_samples.shape} and {candidate_samples.shape}"
        )
    apart, samples = candidate - baseline, candidate_samples - baseline_samples
    samples = samples[:, ~np.isnan(samples).any(axis=0)]
    if not np.isfinite(apart).all() or samples.shape[1] < 2 or patients < 2:
        raise InputError(
            "power: expected figures that exist, two resamples and two patients or more; "
            "leave this measure or class out"
        )
    # a bootstrap of n spreads by (n - 1) / n of the truth
    whole = float(samples.mean(axis=0).var(ddof=1)) * patients / (patients - 1)
    of_seed = 0.0
    if over == "patients and seeds":
        of_seed = float(seed_variance(apart[None], samples[None])[0])
    return Spread(float(apart.mean()), patients, len(apart), whole, of_seed)


def power(
    spread: Spread, difference: float, *, patients: float | None = None, seeds: int | None = None
) -> float:
    """Share of studies (0..1) that would show a true difference, two-sided at 5 %.

    Args:
        spread: what the difference varies by.
        difference: the true one.
        patients, seeds: other numbers of test patients and runs; those of ``spread`` if None.
    """
    error, freedom = spread.error(patients, seeds), spread.freedom(patients, seeds)
    if error <= 0:
        return 1.0 if difference else 0.0
    return _power(abs(difference) / error, freedom)


def detectable(
    spread: Spread,
    *,
    patients: float | None = None,
    seeds: int | None = None,
    share: float = POWER,
) -> float:
    """The smallest true difference that a share of such studies would show; NaN where nothing varies.

    Args:
        spread, patients, seeds: arguments as in ``power``.
        share: wanted power, 0.05 to 1, ends excluded.
    """
    if not 1 - LEVEL < share < 1:
        raise InputError(f"power: expected a share of studies between 0.05 and 1, got {share}")
    error, freedom = spread.error(patients, seeds), spread.freedom(patients, seeds)
    if error <= 0:
        return math.nan
    top = 2.0
    while _power(top, freedom) < share:
        top *= 2
    return error * float(brentq(lambda x: _power(x, freedom) - share, 0.0, top, xtol=1e-6))


def patients_to_settle(
    spread: Spread, difference: float | None = None, *, seeds: int | None = None, seed: int = 0
) -> Patients:
    """Test patients with which 80 of 100 studies would show a difference, with a 95 % interval of that number.

    Args:
        spread: what the difference varies by.
        difference: the smallest difference that matters; the observed one if None.
        seeds: another number of runs of each arm.
        seed: seed of the draws.

    Raises:
        InputError: a difference of 0, or one that varies neither with patients nor with seeds.
    """
    asked = spread.difference if difference is None else difference
    if not asked:
        raise InputError(
            "power: expected a difference other than 0; no number of patients shows it"
        )
    if spread.error() <= 0:
        raise InputError(
            "power: the difference is the same on every resample and of every seed, so nothing says how many patients settle it"
        )
    runs = seeds or spread.seeds
    total = _needed(spread, asked, runs)
    draw = np.random.default_rng(seed)
    of_patients = (
        spread.of_patients * draw.chisquare(spread.patients - 1, _DRAWS) / (spread.patients - 1)
    )
    of_seed = np.full(_DRAWS, spread.of_seed)
    if spread.seeds > 1:
        of_seed = spread.of_seed * (spread.seeds - 1) / draw.chisquare(spread.seeds - 1, _DRAWS)
    true = np.full(_DRAWS, asked)
    if difference is None:
        true = draw.normal(asked, spread.error(), _DRAWS)
    z = detectable(spread) / spread.error()
    # of each draw by the plain formula, with the multiple of the error that holds at this study's degrees of freedom
    room = (true / z) ** 2 - of_seed / runs
    drawn = np.full(_DRAWS, np.inf)
    np.divide(of_patients * spread.patients, room, out=drawn, where=room > 0)
    drawn = np.sort(drawn)
    low, high = (float(drawn[round(t * (_DRAWS - 1))]) for t in (0.025, 0.975))
    return Patients(
        asked,
        total,
        min(low, total),
        max(high, total),
        total - spread.patients,
        runs,
        difference is None,
    )


def _needed(spread: Spread, difference: float, seeds: int) -> float:
    """Patients with which the detectable difference is this one; infinite where seeds alone hide it."""
    wanted = abs(difference)

    def lacks(log_n: float) -> float:
        return detectable(spread, patients=math.exp(log_n), seeds=seeds) - wanted

    if spread.of_patients <= 0:
        return 2.0 if spread.error(seeds=seeds) <= 0 or lacks(math.log(2)) <= 0 else math.inf
    least, most = math.log(2), math.log(1e9)
    if lacks(most) > 0:
        return math.inf
    if lacks(least) <= 0:
        return 2.0
    return float(math.ceil(math.exp(float(brentq(lacks, least, most, xtol=1e-6)))))


def _power(shift: float, freedom: float) -> float:
    """Two-sided power of a t test whose noncentrality is ``shift``.

    Of T = (Z + shift) / s, Z's law is averaged over that of s; SciPy's noncentral t law is NaN at some values.
    """
    limit, errors = _law(min(freedom, _MANY))
    return float(np.mean(ndtr(shift - limit * errors) + ndtr(-shift - limit * errors)))


@lru_cache(maxsize=256)
def _law(freedom: float) -> tuple[float, FloatArray]:
    """The limit of the test, and the estimated error over the true one at 400 equal steps of its law."""
    steps = (np.arange(400) + 0.5) / 400
    errors: FloatArray = np.sqrt(gammaincinv(freedom / 2, steps) * 2 / freedom)
    return float(stdtrit(freedom, 0.5 + LEVEL / 2)), errors


def shown(spread: Spread) -> bool:
    """Whether the test that ``power`` is the power of finds a difference, two-sided at 5 %."""
    limit = float(stdtrit(min(spread.freedom(), _MANY), 0.5 + LEVEL / 2))
    return abs(spread.difference) > limit * spread.error()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "no finite number"
