"""95 % intervals: bootstrap over patients, Student's t over seeds, and paired differences of both kinds.

Conventions

- What is resampled is the *group*: a patient, or an image whose patient is unknown. Images of one
  patient are not independent, so resampling images would make intervals too narrow. A resample
  draws as many groups as there are, with replacement (Efron and Tibshirani, An Introduction to the
  Bootstrap, 1993). It is held as multiplicities: how often each group was drawn. Measures are
  recomputed with these weights; nothing is matched or sorted again.
- A bootstrap interval is the 2.5th to 97.5th percentile of the measure over the resamples. The
  value is that of the plain data, not the mean of the resamples. Resamples where the measure does
  not exist are left out of the percentiles. The measure is then NaN: a class without any true box,
  an AUC with one kind of label.
- An interval over seeds is the mean plus or minus Student's t with n - 1 degrees of freedom times the
  standard error, cut off where the measure ends: a value beyond cannot be the truth, so coverage is the same.
  Runs that are all alike give none, since they say nothing of chance.
- A paired difference is candidate minus baseline on the same resamples (or the same seeds). The share of
  resamples above zero is counted strictly; a tie is not above.
- With fewer than two groups or seeds there is no interval: ``low`` and ``high`` are None.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from twinray.errors import InputError
from twinray.evaluation.record import (
    PATIENTS,
    ClassFigures,
    Figure,
    SplitFigures,
    figure_as_json,
    figure_of,
)
from twinray.records import FloatArray, IntArray, Interval

LEVEL = 0.95
_TAILS = (50.0 * (1.0 - LEVEL), 100.0 - 50.0 * (1.0 - LEVEL))
_CHUNK_CELLS = 4_000_000
_MAX_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Resampling:
    """How resamples of patients are drawn.

    Attributes:
        n: number of resamples; 0 for no intervals.
        seed: seed of the draws; measures of one seed are measured on the same resamples.
    """

    n: int = 1000
    seed: int = 0


PLAIN_RESAMPLING = Resampling()


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus baseline, measured on the same resamples or seeds.

    Attributes:
        interval: the difference and its 95 % interval.
        share_above_zero: share (0..1) of the resamples or seeds where the candidate is strictly higher;
            None where there is none to count.
        tests: two-sided tests of no difference by name (``p``, ``holm_p``); empty where none was made.
    """

    interval: Interval
    share_above_zero: float | None
    tests: Mapping[str, float | None] = field(default_factory=dict)

    def figure(self, over: str = PATIENTS) -> Figure:
        """What is kept and shown; ``over`` says what was resampled."""
        return replace(
            figure_of(self.interval, over), share_above_zero=self.share_above_zero, tests=self.tests
        )

    def as_json(self) -> dict[str, Any]:
        """``{"value", "ci95", "n", "over", "share_above_zero"}``."""
        return {**figure_as_json(self.figure()), "share_above_zero": self.share_above_zero}


def differences_record(
    metrics: Mapping[str, Difference],
    per_class: Mapping[str, Mapping[str, Difference]],
    n_images: int,
) -> SplitFigures:
    """Paired differences over all classes and by class name, as they are kept and shown."""
    return SplitFigures(
        {name: difference.figure() for name, difference in metrics.items()},
        {
            name: ClassFigures({m: d.figure() for m, d in own.items()})
            for name, own in per_class.items()
        },
        {"n_images": n_images},
    )


def group_index(
    groups: Mapping[Hashable, object] | Sequence[object] | npt.NDArray[np.generic] | None,
    ids: Sequence[Hashable],
) -> IntArray:
    """Number the groups that images belong to, in an order that does not depend on the images' order.

    Args:
        groups: patient of each image: a mapping from image id, or a sequence aligned with ``ids``.
            None, NaN or an empty text means that the patient is unknown: the image is a group of its own.
            None instead of a mapping means that no patient is known.
        ids: image ids.

    Returns:
        (images,) int64, group numbers from 0 without gaps.

    Raises:
        InputError: an image has no entry, or the lengths differ.
    """
    if groups is None:
        patients: list[object] = [None] * len(ids)
    elif isinstance(groups, Mapping):
        absent = next((i for i in ids if i not in groups), None)
        if absent is not None:
            raise InputError(
                f"groups: expected a patient (or None) for every image, image {absent!r} has no entry; add it"
            )
        patients = [groups[i] for i in ids]
    else:
        patients = list(groups)
        if len(patients) != len(ids):
            raise InputError(
                f"groups: expected one entry for each of {len(ids)} images, found {len(patients)}; align them"
            )
    # A patient may be called what an image is called: the leading 0 or 1 keeps the two apart.
    names = [
        (1, _sort_text(image)) if _unknown(patient) else (0, _sort_text(patient))
        for patient, image in zip(patients, ids, strict=True)
    ]
    number = {name: position for position, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], dtype=np.int64)


def _unknown(patient: object) -> bool:
    return patient is None or patient == "" or (isinstance(patient, float) and np.isnan(patient))


def _sort_text(name: object) -> tuple[int, int, str]:
    """Integers by value, before texts in code point order."""
    if isinstance(name, int | np.integer):
        return (0, int(name), "")
    return (1, 0, str(name))


def bootstrap_groups(
    groups: IntArray, n: int, seed: int, chunk: int | None = None
) -> Iterator[npt.NDArray[np.float64]]:
    """Draw ``n`` resamples of the groups, a chunk at a time, so that memory does not grow with ``n``.

    Args:
        groups: (images,) group numbers from 0 without gaps (see ``group_index``).
        n: number of resamples.
        seed: number; same seed, same resamples, whatever the chunk.
        chunk: resamples in one piece; chosen by the number of groups if None.

    Yields:
        (groups, resamples in this chunk) float64: how often each group was drawn. Columns sum to the
        number of groups.

    Raises:
        InputError: ``n`` is negative.
    """
    if n < 0:
        raise InputError(f"bootstrap: expected a number of resamples of 0 or more, got {n}")
    size = int(groups.max()) + 1 if len(groups) else 0
    if size == 0:
        return
    chunk = chunk or max(1, min(_MAX_CHUNK, _CHUNK_CELLS // size))
    generator = np.random.default_rng(seed)
    for start in range(0, n, chunk):
        rows = min(chunk, n - start)
        drawn = generator.integers(0, size, size=(rows, size))
        drawn += np.arange(rows)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield np.ascontiguousarray(counts.T, dtype=np.float64)


def percentile_interval(
    value: float,
    samples: FloatArray,
    n: int,
    *,
    tails: tuple[float, float] = _TAILS,
) -> Interval:
    """The 95 % percentile interval of a bootstrapped measure.

    Args:
        value: the measure on the plain data.
        samples: (resamples,) the measure on each resample; NaN where it does not exist.
        n: number of groups that were resampled.
        tails: percentiles that are taken, expanded ones (``expanded_tails``) or the plain ones.
    """
    present = samples[~np.isnan(samples)]
    if n < 2 or len(present) == 0 or np.isnan(value):
        return Interval(float(value), None, None, n)
    low, high = np.percentile(present, tails)
    return Interval(float(value), float(low), float(high), n)


_ROUNDING = 1e-9


def expanded_tails(cases: float, lacking: float = 1) -> tuple[float, float]:
    """Percentiles whose interval of a mean of ``cases`` values is Student's; the plain ones below one degree of freedom.

    A bootstrap of m values spreads by (m - 1) / m of the truth, and is taken for normal. The tail is
    Phi(-sqrt(m / (m - 1)) t), t of m - 1 degrees of freedom (Hesterberg, What teachers should know
    about the bootstrap, The American Statistician 2015). Each of several folds, resampled apart, lacks one: ``lacking``.
    """
    freedom = cases - lacking
    if freedom < 1 - _ROUNDING:
        return _TAILS
    reach = math.sqrt(cases / freedom) * float(stdtrit(freedom, 0.5 + LEVEL / 2))
    tail = 100 * float(ndtr(-reach))
    return tail, 100 - tail


def expanded_p(p: float, cases: float, lacking: float = 1) -> float:
    """Two-sided p of a bootstrap, made to agree with an interval of expanded percentiles."""
    freedom = cases - lacking
    if freedom < 1 - _ROUNDING or p >= 1:
        return p
    reach = -float(ndtri(p / 2)) / math.sqrt(cases / freedom)
    return 2 * float(stdtr(freedom, -reach))


POWER = 0.8
"""Share of studies of one size that would show a detectable difference."""


def detectable(error: float, freedom: float = math.inf) -> float:
    """The smallest true difference that ``POWER`` of studies of this size would show.

    About 2.8 standard errors, more where the error is known from few patients.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom of that error.
    """
    levels = (0.5 + LEVEL / 2, POWER)
    reach = sum(float(ndtri(p) if math.isinf(freedom) else stdtrit(freedom, p)) for p in levels)
    return reach * error


def paired_difference(
    baseline: float,
    candidate: float,
    baseline_samples: FloatArray,
    candidate_samples: FloatArray,
    n: int,
) -> Difference:
    """Candidate minus baseline, bootstrapped: both samples come from the same resamples in the same order.

    Args:
        baseline: measure of the first run on the plain data.
        candidate: measure of the second run.
        baseline_samples: (resamples,) of the first run.
        candidate_samples: (resamples,) of the second run.
        n: number of groups that were resampled.

    Raises:
        ValueError: the two samples have different lengths.
    """
    if baseline_samples.shape != candidate_samples.shape:
        raise ValueError(
            f"expected as many resamples of both runs, got {baseline_samples.shape}, {candidate_samples.shape}"
        )
    samples = candidate_samples - baseline_samples
    present = samples[~np.isnan(samples)]
    share = float(np.mean(present > 0)) if len(present) and n >= 2 else None
    return Difference(percentile_interval(candidate - baseline, samples, n), share)


UNBOUNDED = (-math.inf, math.inf)
NO_LUCK = "all runs are alike: nothing to tell of chance"


def mean_over_seeds(
    values: Sequence[float] | FloatArray, ends: tuple[float, float] = UNBOUNDED
) -> Interval:
    """Mean over runs that differ in their seed, with Student's t interval.

    Args:
        values: one figure a seed. A NaN makes the mean NaN: a run without a figure is not left out silently.
        ends: least and greatest possible value (``measures.ends``); the interval is cut off there.

    Raises:
        InputError: no value at all.
    """
    figures = np.asarray(values, dtype=np.float64)
    n = len(figures)
    if n == 0:
        raise InputError(
            "mean over seeds: expected at least one run, found none; check which runs were selected"
        )
    mean = float(figures.mean())
    if n < 2 or np.isnan(mean):
        return Interval(mean, None, None, n)
    if np.ptp(figures) <= 1e-12:
        return Interval(mean, None, None, n, NO_LUCK)
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2) * figures.std(ddof=1) / np.sqrt(n))
    return Interval(mean, max(mean - half, ends[0]), min(mean + half, ends[1]), n)


def paired_over_seeds(
    baseline: Sequence[float] | FloatArray, candidate: Sequence[float] | FloatArray
) -> Difference:
    """Candidate minus baseline where run i of both used the same seed and the same data.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(
            f"paired difference over seeds: expected as many baseline as candidate runs, found {len(first)} and "
            f"{len(second)}; compare runs of the same seeds"
        )
    difference = second - first
    interval = mean_over_seeds(difference)
    share = float(np.mean(difference > 0)) if not np.isnan(difference).any() else None
    return Difference(interval, share)
