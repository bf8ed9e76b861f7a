"""95 % intervals of detectors' figures and of their differences, also where boxes are few.

What is estimated

- The expected figure of a test set of this size from the same source, the trained detectors held
  fixed. That is what a paper with such a test set prints. Average precision on few images lies
  above that on many, because its precision is a running maximum. The expected figure of this size
  contains that excess, the figure of an endless test set does not. Two figures of test sets of
  different sizes therefore do not estimate the same thing.
- A printed figure is unbiased for its own expectation, so no correction moves it. A resample has
  fewer different images than the data and shows the excess once more. Percentiles of resamples lie
  too high by it. In a mean over classes or folds the excess adds up while chance cancels. Only the
  *spread* of the resamples is used here.

Conventions

- The variance of a figure is that of its resamples times m / (m - 1). The number m counts patients
  with a true box of the class. A bootstrap of m independent contributions spreads by (m - 1) / m of
  the truth. A class of one patient, whose resamples hardly spread, gets the mean spread a patient
  of the other classes. What a class lacks is added to the variance of every mean that holds the
  class.
- A level has Wilson's score interval with the effective sample size v (1 - v) / variance, as
  surveys use it. The sources are Korn and Graubard, Survey Methodology 1998, and Brown, Cai and
  DasGupta, Statistical Science 2001. The interval stays inside 0..1 and leans to the middle. Of one
  class the effective size is at most the number of its true boxes, but for FROC's mean over rates.
- Where no resample differs, or the value is 0 or 1: exact (Clopper-Pearson), the patients with a true box as sample size.
- A class with true boxes in fewer than ``FEW`` patients has an effective size of at most that
  number. A note states that they are too few to say.
- A difference has value plus or minus 1.96 standard errors, and p from the same normal law. It has
  the smallest difference that would have been shown in 80 of 100 studies of this size, about 2.8
  standard errors. No interval is given where boxes of the class are in fewer than ``FEW`` patients,
  or where too few distinguish the two. Too few means that fewer than ``FEW`` boxes are found by one
  alone, by the variance of a sensitivity's difference. Too few also means that one in five
  resamples shows no difference at all.
- A sensitivity's difference whose two runs fewer than ``ENOUGH_APART`` boxes tell apart is noted as
  rough. How many do is an outcome, and its interval is as wide as that outcome. Studies that just
  reach a number have come out wide by luck, so no smaller number leaves 92 to 98 % in every design.

``benchmarks/interval_coverage.py`` measures how often these intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri

from twinray.evaluation.bounded import ALL_ALIKE, EXACT, FEW, exact_share, score_interval
from twinray.evaluation.intervals import LEVEL, Difference, detectable
from twinray.records import FloatArray, IntArray, Interval

Key: TypeAlias = tuple[int | None, str]  # class id (None: over all classes), name of the measure
Samples: TypeAlias = Mapping[Key, FloatArray]  # each (resamples,)

_REACH = float(ndtri(0.5 + LEVEL / 2))
_TIES = 0.2
"""Share of resamples without any difference above which too few patients distinguish two runs."""

FEW_APART = "too few to say: hardly a patient tells the two apart"
ENOUGH_APART = 50
"""Boxes found by one run alone from which a sensitivity's difference is given without a note; chosen by simulation."""


def too_few(patients: int) -> str:
    """What stands beside a figure of a class with boxes in few patients."""
    return f"too few to say: true boxes in {patients} patient{'s' if patients != 1 else ''}, fewer than {FEW}"


def too_few_apart(boxes: float) -> str:
    """What stands beside the difference of two sensitivities that a moderate number of boxes tells apart."""
    return f"too few apart to be exact: one run alone finds about {boxes:.0f} boxes, fewer than {ENOUGH_APART}"


@dataclass(frozen=True, slots=True, eq=False)
class BoxSupport:
    """What the figures of one set of images rest on.

    Attributes:
        n: patients, with and without boxes (an image of unknown patient counts as one).
        patients: (k,) with a true box of the class.
        boxes: (k,) true boxes.
        patients_any: patients with a true box of any class.
    """

    n: int
    patients: IntArray
    boxes: IntArray
    patients_any: int

    @staticmethod
    def of(truth_counts: IntArray, groups: IntArray) -> BoxSupport:
        """Count.

        Args:
            truth_counts: (images, k) true boxes.
            groups: (images,) group numbers from 0 without gaps.
        """
        n = int(groups.max()) + 1 if len(groups) else 0
        table = np.zeros((n, truth_counts.shape[1]), dtype=np.int64)
        np.add.at(table, groups, truth_counts)
        return BoxSupport(
            n, (table > 0).sum(axis=0), table.sum(axis=0), int((table.sum(axis=1) > 0).sum())
        )

    @staticmethod
    def sum(parts: list[BoxSupport]) -> BoxSupport:
        """Of several sets of images without a patient in common."""
        return BoxSupport(
            sum(p.n for p in parts),
            np.sum([p.patients for p in parts], axis=0),
            np.sum([p.boxes for p in parts], axis=0),
            sum(p.patients_any for p in parts),
        )

    def patients_of(self, label: int | None) -> int:
        """Patients with a true box of a class, or of any for None."""
        return self.patients_any if label is None else int(self.patients[label])


def variance(samples: FloatArray) -> float:
    """Of the resamples where the figure exists; NaN where fewer than two do."""
    known = samples[~np.isnan(samples)]
    return float(known.var(ddof=1)) if len(known) > 1 else float("nan")


def lacking(samples: Samples, support: BoxSupport, means: Mapping[str, str]) -> dict[Key, float]:
    """What the variance of each figure's resamples lacks, on one set of images; 0 where it does not exist.

    Args:
        samples: figure -> (resamples,).
        support: support of the images.
        means: measure over all classes -> the measure by class that it is the mean of. Others count all boxes alike.
    """
    lacks: dict[Key, float] = {}
    classes = range(len(support.patients))
    for measure in dict.fromkeys(name for label, name in samples if label is not None):
        measured = [c for c in classes if (c, measure) in samples]
        spreads = {c: variance(samples[c, measure]) for c in measured if support.patients[c] > 0}
        present = {c: (v, int(support.patients[c])) for c, v in spreads.items() if not np.isnan(v)}
        # variance of one patient's contribution, where it can be told
        usual = [v * m * m / (m - 1) for v, m in present.values() if m > 1]
        for c in measured:
            v, m = present.get(c, (0.0, 0))
            alone = max(0.0, float(np.mean(usual)) - v) if m == 1 and usual else 0.0
            lacks[c, measure] = v / (m - 1) if m > 1 else alone
    overall = [name for label, name in samples if label is None]
    n_present = max(1, int((support.patients > 0).sum()))
    for name in overall:
        if name in means:
            lacks[None, name] = sum(lacks[c, means[name]] for c in classes) / n_present**2
        else:
            v, m = variance(samples[None, name]), support.patients_any
            lacks[None, name] = v / (m - 1) if m > 1 and not np.isnan(v) else 0.0
    return lacks


def lacking_over_folds(
    parts: Sequence[Samples], supports: Sequence[BoxSupport], means: Mapping[str, str]
) -> dict[Key, float]:
    """The same of means over folds, which have no patient in common.

    Args:
        parts: parts of each fold, figure -> (resamples,); NaN throughout where the fold has no true
            box of the class.
        supports: supports of each fold.
        means: argument as in ``lacking``.
    """
    of_folds = [
        lacking(part, support, means) for part, support in zip(parts, supports, strict=True)
    ]
    found: dict[Key, float] = {}
    for key in of_folds[0] if of_folds else ():
        n = sum(not bool(np.isnan(part[key]).all()) for part in parts)
        found[key] = sum(own[key] for own in of_folds) / max(n, 1) ** 2
    return found


def level(key: Key, value: float, spread: float, support: BoxSupport) -> Interval:
    """The 95 % interval of a figure in 0..1.

    Args:
        key: figure.
        value: value on the plain data, NaN where it does not exist.
        spread: its variance, corrected; NaN without resamples.
        support: support of the images.
    """
    label, n = key[0], support.n
    present = np.flatnonzero(support.boxes)
    # of detectors' figures alone: what measures of heat maps share out is no count of boxes
    if label is None and len(present) == 1 and key[1].startswith(("map", "froc", "ar")):
        label = int(present[0])  # the mean over one class is that class's figure
    cases = support.patients_of(label)
    if np.isnan(value) or np.isnan(spread) or n < 2 or cases == 0:
        return Interval(value, None, None, n)
    note = too_few(cases) if cases < FEW else ""
    if spread <= 0 or not 0 < value < 1:
        return Interval(value, *exact_share(value, cases), n, note or EXACT)
    # A mean over seven rates is steadier than one share of the boxes: the cap would make it too wide.
    free = label is None or key[1] == "froc"
    most = float("inf") if free else float(support.boxes[label])
    size = min(value * (1 - value) / spread, most, cases if cases < FEW else most)
    return Interval(value, *score_interval(value, size), n, note)


def difference(
    key: Key, value: float, samples: FloatArray, lacks: float, support: BoxSupport
) -> Difference:
    """A paired difference with its 95 % interval, p and the smallest difference that would have been shown.

    Args:
        key: figure.
        value: candidate minus baseline on the plain data.
        samples: (resamples,) of it.
        lacks: amount that their variance lacks.
        support: support of the images.
    """
    label, n = key[0], support.n
    known, cases = samples[~np.isnan(samples)], support.patients_of(label)
    if np.isnan(value) or len(known) < 2 or n < 2:
        return Difference(Interval(value, None, None, n), None)
    if cases < FEW:
        return Difference(Interval(value, None, None, n, too_few(cases)), None)
    boxes = int(support.boxes.sum() if label is None else support.boxes[label])
    # A box that one run alone finds moves a sensitivity by 1 / boxes; so many of them make this variance.
    apart = variance(known) * boxes**2 if key[1].startswith("froc@") else np.inf
    if np.mean(np.abs(known) <= 1e-12) > _TIES or apart < FEW:
        return Difference(
            Interval(value, None, None, n, FEW_APART if known.any() else ALL_ALIKE), None
        )
    error = float(np.sqrt(variance(known) + lacks))
    if error <= 1e-12:
        return Difference(Interval(value, None, None, n, ALL_ALIKE), None)
    p = float(2 * ndtr(-abs(value) / error))
    note = too_few_apart(apart) if apart < ENOUGH_APART else ""
    interval = Interval(value, value - _REACH * error, value + _REACH * error, n, note)
    return Difference(
        interval, float(np.mean(known > 0)), {"p": p, "detectable": detectable(error)}
    )
