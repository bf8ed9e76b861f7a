"""The gain in patients: how many labelled patients other initial weights are worth.

Two arms are trained on rising numbers of labelled patients. The *gain* is the horizontal distance of their two label
curves: the baseline needs n labelled patients for a figure that the candidate reaches with fewer. Papers state such
distances at one level (REMEDIS, Nature Biomedical Engineering 2023) or as effective data transferred (Hernandez et al.,
arXiv 2102.01293). No published standard for this form was found; ``benchmarks/gain_coverage.py`` measures how
often its intervals hold a known gain.

Conventions

- The level is named before looking: the baseline's figure at ``at`` patients, all of them unless said otherwise. The gain
  depends on the level, so ``gains`` gives it at every measured number.
- Curves are means over seeds, made monotone (``label_curves``). Nothing is extrapolated: outside the measured range the gain is a bound.
- The interval holds patients and seeds at once. Each draw takes one resample of the test patients, the same for both
  arms and all fractions, and adds to every mean what seeds alone would vary it by: a normal deviate whose
  variance is that between seeds, less what patients add to it, over the number of seeds. With few
  seeds a variance of one fraction is hardly known, so it is moved half-way to the arm's mean over fractions. Both
  curves are fitted to each draw. The ends are the 2.5th and 97.5th percentile of the draws; unbounded draws are infinite in them.
- One seed a point has no variance between seeds: the interval then is over patients alone, and says so.
- Seeds of both arms are taken as independent. Where they share the draw of labelled patients the interval is too wide rather than
  too narrow.
- What is counted is labelled *training* patients. Whoever chooses epochs or thresholds on further labelled patients adds those to both arms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.worth.label_curves import figure_at, isotonic, patients_for
from twinray.records import FloatArray

Way: TypeAlias = Literal["saves", "replaces"]
Better: TypeAlias = Literal["higher", "lower"]
_Array: TypeAlias = npt.NDArray[np.float64]
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, eq=False)
class LabelCurve:
    """One arm's runs at rising numbers of labelled patients.

    Attributes:
        name: name of the arm.
        patients: (f,) labelled training patients, rising, above 0.
        values: (f, s) the figure of each run, the mean over folds where there are several.
        samples: (f, s, b) the same on resamples of the test patients; resample b is the same in all runs of all arms.

    Raises:
        InputError: fewer than two numbers of patients, numbers that do not rise, figures that do not exist, or
            shapes that disagree.
    """

    name: str
    patients: tuple[float, ...]
    values: FloatArray
    samples: FloatArray

    def __post_init__(self) -> None:
        n = len(self.patients)
        rises = all(a < b for a, b in zip(self.patients, self.patients[1:], strict=False))
        if n < 2 or not rises or self.patients[0] <= 0:
            raise InputError(
                f"label curve {self.name}: expected two rising numbers of labelled patients or more, got {list(self.patients)}"
            )
        if self.values.ndim != 2 or len(self.values) != n:
            raise InputError(
                f"label curve {self.name}: expected figures of {n} numbers of patients by seed, got {self.values.shape}"
            )
        if self.samples.shape[:2] != self.values.shape or self.samples.ndim != 3:
            raise InputError(
                f"label curve {self.name}: expected resamples for each of {self.values.shape} runs, got {self.samples.shape}"
            )
        if not np.isfinite(self.values).all():
            raise InputError(
                f"label curve {self.name}: a run's figure does not exist; leave that measure or class out"
            )

    @property
    def means(self) -> _Array:
        """(f,) means over seeds."""
        return np.asarray(self.values.mean(axis=1), dtype=np.float64)

    def fitted(self, better: Better = "higher") -> _Array:
        """(f,) the monotone curve, rising or, where lower is better, falling."""
        sign = 1.0 if better == "higher" else -1.0
        return sign * isotonic(sign * self.means)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number with its 95 % interval; infinite where only a bound is known.

    Attributes:
        value: infinity: above ``most``; minus infinity: below ``least``.
        low, high: 95 % interval, the same way; NaN without resamples.
        least, most: what could be measured.
    """

    value: float
    low: float
    high: float
    least: float
    most: float

    def told(self, digits: int = 0) -> str:
        """``420 (180 to more than 800)``."""
        if math.isnan(self.low):
            return f"{self._one(self.value, digits)} (no interval)"
        if math.isinf(self.value) and self.low == self.high == self.value:
            return f"{self._one(self.value, digits)} (in 95 % of draws and more)"
        ends = f"{self._one(self.low, digits)} to {self._one(self.high, digits)}"
        return f"{self._one(self.value, digits)} ({ends})"

    def _one(self, value: float, digits: int) -> str:
        if value == math.inf:
            return f"more than {self.most:,.{digits}f}"
        if value == -math.inf:
            return f"less than {self.least:,.{digits}f}"
        return f"{value:,.{digits}f}"

    def scaled(self, factor: float) -> Bounded:
        """The same in another unit, ``factor`` (above 0) of which one makes."""
        return Bounded(
            *(factor * x for x in (self.value, self.low, self.high, self.least, self.most))
        )

    def as_json(self) -> dict[str, Any]:
        """Numbers, null where there is a bound only, and the words."""

        def known(x: float) -> float | None:
            return x if math.isfinite(x) else None

        return {
            "value": known(self.value),
            "ci95": None if math.isnan(self.low) else [known(self.low), known(self.high)],
            "measurable": [self.least, self.most],
            "words": self.told(),
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """What a candidate is worth against a baseline, at one level.

    Attributes:
        way: ``saves``: the level is the baseline's at ``at`` patients, and the candidate reaches it with
            ``needed``. ``replaces``: the level is the candidate's at ``at``, and the baseline needs ``needed``.
        baseline, candidate: names of the arms.
        at: labelled patients where the level is read.
        level: the figure there.
        needed: labelled patients with which the other arm reaches it.
        patients: labelled patients that the candidate is worth: the difference, above 0 where it helps.
        times: how many times as many labels the baseline takes, above 1 where the candidate helps.
        unbounded: share of the draws in which the level lies outside the other arm's curve.
        over: things that the interval holds: ``patients and seeds`` or ``patients``.
        hours: reader hours for ``patients``; None without minutes per image.
    """

    way: Way
    baseline: str
    candidate: str
    at: float
    level: float
    needed: Bounded
    patients: Bounded
    times: Bounded
    unbounded: float
    over: str
    hours: Bounded | None = None

    def told(self) -> str:
        """One or two sentences for a report."""
        ends = f"95 % interval over {self.over}"
        text = (
            f"{self.candidate} is worth {self.patients.told()} labelled patients against {self.baseline} "
            f"({ends}), at {self.baseline}'s figure with {self.at:,.0f}."
        )
        if self.way == "replaces":
            text = (
                f"{self.candidate} with {self.at:,.0f} labelled patients is worth {self.patients.told()} more of "
                f"{self.baseline} ({ends})."
            )
        other = self.candidate if self.way == "saves" else self.baseline
        if self.needed.value == math.inf:
            text += f" {other} never reaches that figure within the measured range."
        elif self.needed.value == -math.inf:
            text += f" {other} reaches that figure with the fewest labels measured already."
        if self.hours is not None:
            text += f" That is {self.hours.told(1)} reader hours."
        return text

    def as_json(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "way": self.way,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "at_patients": self.at,
            "level": self.level,
            "needed_patients": self.needed.as_json(),
            "worth_patients": self.patients.as_json(),
            "times": {**self.times.as_json(), "words": self.times.told(2)},
            "unbounded_share": self.unbounded,
            "over": self.over,
            "reader_hours": None if self.hours is None else self.hours.as_json(),
            "words": self.told(),
        }


def gain(
    baseline: LabelCurve,
    candidate: LabelCurve,
    *,
    at: float | None = None,
    way: Way = "saves",
    better: Better = "higher",
    minutes_per_image: float | None = None,
    images_per_patient: float = 1.0,
    seed: int = 0,
) -> Gain:
    """The horizontal distance of two label curves at one level.

    Args:
        baseline, candidate: arms on the same resamples of the same test patients.
        at: labelled patients where the level is read, on the baseline's curve (``saves``) or the candidate's
            (``replaces``); the largest measured if None.
        way: which arm's figure is the level.
        better: direction of a better figure.
        minutes_per_image: what labelling an image takes a reader; None for no hours.
        images_per_patient: images to label of a patient.
        seed: seed of the draws over training seeds.

    Raises:
        InputError: resamples that do not belong together, or a number of patients outside the measured range.
    """
    if baseline.samples.shape[2] != candidate.samples.shape[2]:
        raise InputError(
            f"gain: expected the same resamples of both arms, found {baseline.samples.shape[2]} of {baseline.name} and "
            f"{candidate.samples.shape[2]} of {candidate.name}"
        )
    if minutes_per_image is not None and not minutes_per_image > 0:
        raise InputError(f"gain: expected minutes per image above 0, got {minutes_per_image}")
    # a resample on which a figure does not exist would else count as a level that is never reached
    there = [~np.isnan(arm.samples).any(axis=(0, 1)) for arm in (baseline, candidate)]
    baseline, candidate = (
        replace(arm, samples=arm.samples[..., there[0] & there[1]]) for arm in (baseline, candidate)
    )
    sign = 1.0 if better == "higher" else -1.0
    generator = np.random.default_rng(seed)
    drawn = {
        arm.name: isotonic(_drawn(arm, sign, generator))
        for arm in sorted((baseline, candidate), key=lambda arm: arm is candidate)
    }
    asked, other = (baseline, candidate) if way == "saves" else (candidate, baseline)
    n = float(asked.patients[-1] if at is None else at)
    known = np.array(asked.patients), np.array(other.patients)
    level = figure_at(n, known[0], isotonic(sign * asked.means))
    needed = float(patients_for(level, known[1], isotonic(sign * other.means)))
    samples = patients_for(figure_at(n, known[0], drawn[asked.name]), known[1], drawn[other.name])
    least, most = float(known[1][0]), float(known[1][-1])
    low, high = _ends(samples)
    worth = [n - x if way == "saves" else x - n for x in (needed, low, high, least, most)]
    with np.errstate(divide="ignore"):
        times = [_times(n, x, way) for x in (needed, low, high, least, most)]
    if way == "saves":  # fewer needed is worth more: the ends change places
        worth = [worth[i] for i in (0, 2, 1, 4, 3)]
        times = [times[i] for i in (0, 2, 1, 4, 3)]
    patients = Bounded(*worth)
    seeds = min(baseline.values.shape[1], candidate.values.shape[1])
    hours = None
    if minutes_per_image is not None:
        hours = patients.scaled(images_per_patient * minutes_per_image / 60)
    return Gain(
        way,
        baseline.name,
        candidate.name,
        n,
        float(sign * level),
        Bounded(needed, low, high, least, most),
        patients,
        Bounded(*times),
        float(np.mean(~np.isfinite(samples))) if len(samples) else math.nan,
        "patients and seeds" if seeds > 1 else "patients",
        hours,
    )


def gains(
    baseline: LabelCurve,
    candidate: LabelCurve,
    *,
    way: Way = "replaces",
    better: Better = "higher",
    seed: int = 0,
) -> tuple[Gain, ...]:
    """The gain at every measured number of labelled patients of the arm whose figure is the level."""
    asked = baseline if way == "saves" else candidate
    return tuple(
        gain(baseline, candidate, at=n, way=way, better=better, seed=seed) for n in asked.patients
    )


def seed_variance(values: FloatArray, samples: FloatArray) -> _Array:
    """(f,) what training seeds alone add to the variance of one run's figure, by fraction.

    The variance between seeds on one test set holds a part that other patients would change; what resamples of
    single runs spread by more than those of their mean says how large it is.

    Args:
        values: (f, s) figures.
        samples: (f, s, b) the same on resamples of the test patients.

    Returns:
        Zeros where there is one seed. Each is moved half-way to the mean over fractions.
    """
    n_seeds = values.shape[1]
    if n_seeds < 2:
        return np.zeros(len(values))
    shared = np.zeros(len(values))
    if samples.shape[2] > 1:
        apart = samples.var(axis=2).mean(axis=1) - samples.mean(axis=1).var(axis=1)
        shared = np.maximum(apart, 0.0) * n_seeds / (n_seeds - 1)
    own = values.var(axis=1, ddof=1) - shared
    return np.asarray((np.maximum(own, 0.0) + max(float(own.mean()), 0.0)) / 2)


def _drawn(arm: LabelCurve, sign: float, generator: np.random.Generator) -> _Array:
    """(b, f) means over seeds on resamples of patients, with the seeds' chance added."""
    of_patients = sign * arm.samples.mean(axis=1).T
    spread = np.sqrt(seed_variance(arm.values, arm.samples) / arm.values.shape[1])
    return np.asarray(of_patients + generator.normal(size=of_patients.shape) * spread)


def _ends(samples: FloatArray) -> tuple[float, float]:
    """Percentiles of draws that may be infinite, so without interpolation between two."""
    if len(samples) < 2:
        return math.nan, math.nan
    ranked = np.sort(samples)
    last = len(ranked) - 1
    return float(ranked[round(_TAILS[0] * last)]), float(ranked[round(_TAILS[1] * last)])


def _times(n: float, needed: float, way: Way) -> float:
    """The baseline's labels over the candidate's; infinite the same way as the difference."""
    if math.isinf(needed):
        return -needed if way == "saves" else needed
    return n / needed if way == "saves" else needed / n
