"""Arms that were run several times, over seeds and over folds of a cross-validation: one figure an arm, with its intervals.

Conventions

- The figure of an arm is the mean over folds of the mean over seeds. Every measure is computed on
  the test images of one run at a time. Scores of different runs are on different scales and cannot
  be pooled.
- The interval over patients holds the trained runs fixed. Patients are resampled inside their fold;
  every measure of every run is recomputed on the same resample and averaged the same way. A fold
  where a measure does not exist in a resample is left out of that resample's mean. The intervals of
  levels and differences are those of one run's figures, with the patients of all folds behind them:
  ``levels`` of detectors, ``labels.measures`` of classifiers.
- The interval over seeds holds the images fixed: Student's t over the runs' means over folds. It
  shows how much of a difference is luck of initial weights and order. Runs that all start from one
  pre-training share its luck, which no seed of theirs varies.
- Runs may differ in several kinds of luck at once: the pre-training, the training's seed, the draw
  of labelled images. Where these are crossed (two pre-trainings, each with five draws), ten runs
  are not ten independent ones. The interval is then over the kind with the fewest levels, whose
  luck more runs of the other kinds do not average out. Each kind's own interval stands beside it.
- Neither interval holds the other's variation; a difference to be trusted has both clear of zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import (
    BOX_RULES,
    BoxCache,
    BoxRules,
    Figures,
    Key,
    box_supports,
    lacking_by_size,
    plain_figures,
    size_of,
)
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    UNBOUNDED,
    Difference,
    Resampling,
    bootstrap_groups,
    group_index,
    mean_over_seeds,
)
from twinray.evaluation.labels.cutoffs import LabelThresholds
from twinray.evaluation.labels.data import Labelled
from twinray.evaluation.labels.measures import (
    MEASURES,
    LabelMeasure,
    Support,
    interval,
    label_difference,
)
from twinray.evaluation.labels.report import MeasuredLabels
from twinray.evaluation.levels import BoxSupport, difference, level, variance
from twinray.evaluation.matching import FlatBoxes, Images, flatten
from twinray.evaluation.measures import ends
from twinray.evaluation.multiplicity import comparisons, over_classes, tests_record
from twinray.evaluation.record import SEEDS, ClassFigures, Figure, SplitFigures, by_class, figure_of
from twinray.records import Boxes, FloatArray, IntArray, Interval, Task

_Place: TypeAlias = tuple[str, Hashable, Hashable]  # arm, fold, seed


@dataclass(frozen=True, eq=False)
class FoldRun:
    """One run on the test images of its fold.

    Attributes:
        fold, seed: place of the run among the crossed ones.
        truth: image id -> true boxes, the same for all runs of a fold.
        predictions: image id -> boxes with scores.
        patients: image id -> patient, None where unknown.
    """

    fold: Hashable
    seed: Hashable
    truth: Mapping[str | int, Boxes]
    predictions: Mapping[str | int, Boxes]
    patients: Mapping[str | int, str | None]


@dataclass(frozen=True, eq=False)
class LabelRun:
    """One classifier on the test images of its fold.

    Attributes:
        fold, seed: place of the run among the crossed ones.
        images: (n,) ids.
        truth: (n, k) labels, the same for all runs of a fold.
        scores: (n, k) in 0..1.
        patients: (n,) patients, None where unknown.
        thresholds: thresholds of decisions; of every run, or of none.
        unlearned: classes that no training image showed; the same of all runs that are compared.
    """

    fold: Hashable
    seed: Hashable
    images: tuple[str, ...]
    truth: FloatArray
    scores: FloatArray
    patients: tuple[str | None, ...]
    thresholds: LabelThresholds | None = None
    unlearned: tuple[str, ...] = ()


Luck: TypeAlias = Mapping[str, Mapping[Hashable, Hashable]]
"""Kind of luck (``label draws``) -> seed of a run -> its level of that kind."""


_Run: TypeAlias = FoldRun | LabelRun


class Measured(Protocol):
    """One run's results on one set of images, ready to be measured again on any resample of its patients."""

    def plain(self) -> Figures:
        """Every measure of the plain data: (class id or None, measure) -> (1,)."""

    def figures(self, weights: FloatArray) -> Figures:
        """Every measure for (groups, r) multiplicities: each (r,)."""


@dataclass(frozen=True, slots=True, eq=False)
class CrossedArm:
    """Figures of one arm, by (class id or None for all classes, measure).

    Attributes:
        over_patients: value and interval over patients.
        over_seeds: same value with its interval over seeds.
        runs: (folds, seeds) values, NaN where a run has none.
    """

    over_patients: Mapping[Key, Interval]
    over_seeds: Mapping[Key, Figure]
    runs: Mapping[Key, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedDifference:
    """One arm minus another, by (class id or None, measure): over patients and over seeds."""

    over_patients: Mapping[Key, Difference]
    over_seeds: Mapping[Key, Figure]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedReport:
    """All arms, and the paired differences of those that are compared with another.

    Attributes:
        folds, seeds: numbers in the order of ``CrossedArm.runs``.
        classes: (k,) names.
        counts: counts of images and boxes, over all folds.
        class_counts: (k,) the same of each class.
        arms: arms by name, in the order given.
        differences: differences by name.
    """

    folds: tuple[Hashable, ...]
    seeds: tuple[Hashable, ...]
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    class_counts: tuple[Mapping[str, int], ...]
    arms: Mapping[str, CrossedArm]
    differences: Mapping[str, CrossedDifference]

    def arm(self, name: str) -> SplitFigures:
        """What is kept and shown of an arm; each figure has ``over_seeds`` and ``runs``, by fold and seed."""
        arm = self.arms[name]
        figures = {
            key: replace(
                figure_of(interval),
                over_seeds=arm.over_seeds[key],
                runs=tuple(
                    tuple(None if np.isnan(v) else float(v) for v in row)
                    for row in arm.runs[key].tolist()
                ),
            )
            for key, interval in arm.over_patients.items()
        }
        overall, per_class = by_class(figures, self.classes)
        counted = zip(per_class.items(), self.class_counts, strict=True)
        return SplitFigures(
            overall, {name: ClassFigures(own, n) for (name, own), n in counted}, self.counts
        )

    def difference(self, name: str) -> SplitFigures:
        """The same of an arm's differences."""
        found = self.differences[name]
        figures = {
            key: replace(one.figure(), over_seeds=found.over_seeds[key])
            for key, one in found.over_patients.items()
        }
        overall, per_class = by_class(figures, self.classes)
        tested = {
            name: {m: d for (i, m), d in found.over_patients.items() if i == c}
            for c, name in enumerate(self.classes)
        }
        n = comparisons(tested)
        return SplitFigures(
            overall,
            {name: ClassFigures(own) for name, own in per_class.items()},
            {"n_images": self.counts["n_images"]},
            details=tests_record(n) if n else {},
        )


def crossed_boxes(
    arms: Mapping[str, Sequence[FoldRun]],
    box_classes: Sequence[str],
    *,
    images: Images = "all",
    resampling: Resampling = PLAIN_RESAMPLING,
    rules: BoxRules = BOX_RULES,
    baselines: Mapping[str, str] | None = None,
    luck: Mapping[str, Luck] | None = None,
) -> CrossedReport:
    """Figures of detectors that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        box_classes: names that labels index.
        images: ``all``, or ``with_boxes``: those with at least one true box of any class.
        resampling: resampling of patients.
        rules: rule of FROC and ranges of areas.
        baselines: arm -> the arm that it is compared with; None compares all with the first.
        luck: arm -> how its runs differ by chance; None: in their seed.

    Raises:
        InputError: an arm that lacks a run or has it twice, or folds whose true boxes differ
            between runs. Also a patient or an image that is tested in two folds, a fold without
            images, or boxes that ``matching.flatten`` refuses.
    """
    folds, seeds = grid(arms)
    by_place = {(name, run.fold, run.seed): run for name, runs in arms.items() for run in runs}
    flats = {
        place: flatten(run.truth, run.predictions, box_classes).select(images)
        for place, run in by_place.items()
    }
    first = next(iter(arms))
    likes = {fold: flats[first, fold, seeds[0]] for fold in folds}
    for (name, fold, s), flat in flats.items():
        check_truth(likes[fold], flat, f"arm {name}, fold {fold}, seed {s}")
    firsts = {fold: by_place[first, fold, seeds[0]] for fold in folds}
    check_apart(
        {fold: [(i, run.patients.get(i)) for i in run.truth] for fold, run in firsts.items()}
    )
    groups: dict[Hashable, IntArray] = {}
    for fold, like in likes.items():
        if not like.ids:
            raise InputError(
                f"crossed runs: expected at least one image ({images}) in fold {fold}, found none"
            )
        groups[fold] = group_index([firsts[fold].patients.get(i) for i in like.ids], list(like.ids))
    measured = {
        place: MeasuredBoxes(flat, groups[place[1]], rules) for place, flat in flats.items()
    }
    n_boxes = np.asarray(sum(like.truth_counts().sum(axis=0) for like in likes.values())).tolist()
    counts = {"n_images": sum(len(like.ids) for like in likes.values()), "n_boxes": sum(n_boxes)}
    supports = {fold: box_supports(like, groups[fold], rules.sizes) for fold, like in likes.items()}
    rule = _BoxRule([supports[fold] for fold in folds], tuple(box_classes))
    crossing = _Crossing(tuple(arms), folds, seeds, measured, groups, baselines, luck or {}, rule)
    return crossing.report(box_classes, counts, [{"n_boxes": n} for n in n_boxes], resampling)


class MeasuredBoxes:
    """A detector's boxes on one fold, matched once."""

    def __init__(self, flat: FlatBoxes, groups: IntArray, rules: BoxRules) -> None:
        self._flat, self._cache = flat, BoxCache(flat, groups, rules.froc, rules.sizes)

    def plain(self) -> Figures:
        """Average precision by the engine."""
        return plain_figures(self._flat, self._cache)

    def figures(self, weights: FloatArray) -> Figures:
        """From the cached matches."""
        return self._cache.figures(weights)


def crossed_labels(
    arms: Mapping[str, Sequence[LabelRun]],
    label_classes: Sequence[str],
    task: Task,
    *,
    resampling: Resampling = PLAIN_RESAMPLING,
    baselines: Mapping[str, str] | None = None,
    luck: Mapping[str, Luck] | None = None,
) -> CrossedReport:
    """Figures of classifiers that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        label_classes: k names.
        task: ``multiclass`` or ``multilabel``.
        resampling, baselines, luck: arguments as in ``crossed_boxes``.

    Raises:
        InputError: as ``crossed_boxes`` and ``labels.report.evaluate_labels``.
    """
    folds, seeds = grid(arms)
    by_place = {(name, run.fold, run.seed): run for name, runs in arms.items() for run in runs}
    first = next(iter(arms))
    likes = {fold: by_place[first, fold, seeds[0]] for fold in folds}
    orders: dict[_Place, list[int]] = {}
    for (name, fold, s), run in by_place.items():
        at = {image: i for i, image in enumerate(run.images)}
        like = likes[fold]
        order = [at.get(image, -1) for image in like.images]
        same = len(at) == len(like.images) and -1 not in order
        if not same or not np.array_equal(run.truth[order], like.truth, equal_nan=True):
            raise InputError(
                f"crossed runs: arm {name}, fold {fold}, seed {s} was tested on other images or labels than the first run of its fold"
            )
        orders[name, fold, s] = order
    check_apart(
        {fold: list(zip(run.images, run.patients, strict=True)) for fold, run in likes.items()}
    )
    measured = {}
    for place, run in by_place.items():
        like, scores = likes[place[1]], run.scores[orders[place]]
        measured[place] = MeasuredLabels(
            like.truth, scores, label_classes, task, like.patients, run.thresholds, run.unlearned
        )
    of_fold = {fold: measured[first, fold, seeds[0]] for fold in folds}
    groups = {fold: one.groups for fold, one in of_fold.items()}
    counted = [one.counts() for one in of_fold.values()]
    positive, negative = (np.sum([c[i] for c in counted], axis=0).tolist() for i in (0, 1))
    class_counts = [
        {"n_positive": p, "n_negative": n} for p, n in zip(positive, negative, strict=True)
    ]
    counts = {"n_images": sum(len(one.groups) for one in of_fold.values())}
    supports = {
        name: Support.over_folds(
            [Support.of(*(measured[name, fold, s].data for s in seeds)) for fold in folds]
        )
        for name in arms
    }
    rule = _LabelRule(supports, of_fold[folds[0]].data)
    crossing = _Crossing(tuple(arms), folds, seeds, measured, groups, baselines, luck or {}, rule)
    return crossing.report(label_classes, counts, class_counts, resampling)


def grid(arms: Mapping[str, Sequence[_Run]]) -> tuple[tuple[Hashable, ...], tuple[Hashable, ...]]:
    """The folds and seeds that every arm has, each pair once.

    Raises:
        InputError: an arm that lacks a pair, or has one twice.
    """
    if not arms or not all(arms.values()):
        raise InputError(
            "crossed runs: expected arms with at least one run each; check which runs were selected"
        )
    name, runs = next(iter(arms.items()))
    folds, seeds = (
        tuple(dict.fromkeys(r.fold for r in runs)),
        tuple(dict.fromkeys(r.seed for r in runs)),
    )
    wanted = {(fold, seed) for fold in folds for seed in seeds}
    for other, its in arms.items():
        places = [(run.fold, run.seed) for run in its]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise InputError(
                f"crossed runs: arm {other} has several runs of fold {twice[0]}, seed {twice[1]}; leave all but one out"
            )
        if set(places) != wanted:
            fold, seed = min(wanted ^ set(places), key=str)
            raise InputError(
                f"crossed runs: arms {name} and {other} do not have the same folds and seeds: fold {fold}, seed {seed} is "
                "not in all; finish the missing run, or leave its fellows out"
            )
    return folds, seeds


def check_truth(first: FlatBoxes, other: FlatBoxes, where: str) -> None:
    """Refuse a run that was tested on other images or true boxes than the first of its fold."""
    same = first.ids == other.ids and all(
        np.array_equal(getattr(first, part), getattr(other, part))
        for part in ("truth_image", "truth_label", "truth_xywh")
    )
    if not same:
        raise InputError(
            f"crossed runs: {where} was tested on other images or true boxes than the first run of its fold"
        )


def check_apart(folds: Mapping[Hashable, Sequence[tuple[str | int, str | None]]]) -> None:
    """Refuse an image or a patient that is tested in two folds; by fold (image, patient)."""
    place: dict[tuple[str, object], Hashable] = {}
    for fold, tested in folds.items():
        for image, patient in tested:
            for what, key in (("image", image), ("patient", patient)):
                if key is not None and place.setdefault((what, key), fold) != fold:
                    raise InputError(
                        f"crossed runs: {what} {key} is tested in folds {place[what, key]} and {fold}; folds must be "
                        "cut by patient with one seed (pack --folds)"
                    )


class _Rule(Protocol):
    """How intervals over patients are made of values and their resamples."""

    def levels(
        self, arm: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Interval]:
        """Of an arm's figures.

        Args:
            arm: name.
            values: figures on the plain data.
            folds: by fold, figure -> (resamples,).
        """

    def differences(
        self, baseline: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Difference]:
        """The same of a candidate's figures less the baseline's, p corrected over classes."""


@dataclass(frozen=True, eq=False)
class _BoxRule:
    """``levels``: standard errors, corrected for what resamples of few patients lack.

    Attributes:
        folds: supports by size of boxes, of each fold.
        classes: names.
    """

    folds: Sequence[Mapping[str, BoxSupport]]
    classes: tuple[str, ...]

    def levels(
        self, arm: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Interval]:
        """Key -> interval of a mean over folds, with what each fold's own spread lacks."""
        lacks, whole = lacking_by_size(folds, self.folds), self._whole()
        return {
            k: level(
                k, v, variance(_over_folds(folds, k)) + lacks.get(k, 0.0), whole[size_of(k[1])]
            )
            for k, v in values.items()
        }

    def differences(
        self, baseline: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Difference]:
        """Key -> paired difference, p corrected over classes."""
        lacks, whole = lacking_by_size(folds, self.folds), self._whole()
        made = {
            k: difference(k, v, _over_folds(folds, k), lacks.get(k, 0.0), whole[size_of(k[1])])
            for k, v in values.items()
        }
        return _corrected(made, self.classes)

    def _whole(self) -> dict[str, BoxSupport]:
        return {size: BoxSupport.sum([one[size] for one in self.folds]) for size in self.folds[0]}


@dataclass(frozen=True, eq=False)
class _LabelRule:
    """``labels.measures``: made as each measure's kind and the number of its cases ask for.

    Attributes:
        supports: supports by arm, over all folds.
        data: data of one run.
    """

    supports: Mapping[str, Support]
    data: Labelled

    def levels(
        self, arm: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Interval]:
        """Key -> interval by the rule of its measure."""
        rules, drawn = self._rules(), {k: _over_folds(folds, k) for k in values}
        return {
            k: interval(k, rules[k[1]], v, drawn, self.supports[arm]) for k, v in values.items()
        }

    def differences(
        self, baseline: str, values: Mapping[Key, float], folds: Sequence[Figures]
    ) -> dict[Key, Difference]:
        """Key -> paired difference by the rule of its measure, p corrected over the classes of its mean."""
        rules, drawn = self._rules(), {k: _over_folds(folds, k) for k in values}
        made = {
            k: label_difference(k, rules[k[1]], v, drawn, self.supports[baseline])
            for k, v in values.items()
        }
        return _corrected(made, self.data.names, self.data.in_mean.tolist())

    def _rules(self) -> dict[str, LabelMeasure]:
        # of all measures: another arm may have thresholds where this one has none
        return {one.name: one for one in MEASURES if one.task in (None, self.data.task)}


def _corrected(
    made: dict[Key, Difference], classes: Sequence[str], counted: Sequence[bool] | None = None
) -> dict[Key, Difference]:
    """With Holm's p over the classes of each measure."""
    by_name = {
        name: {measure: one for (i, measure), one in made.items() if i == c}
        for c, name in enumerate(classes)
    }
    corrected = over_classes(by_name, counted)
    of_classes: dict[Key, Difference] = {
        (c, measure): one
        for c, name in enumerate(classes)
        for measure, one in corrected[name].items()
    }
    return {**made, **of_classes}


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Checked runs of all arms, folds and seeds."""

    names: tuple[str, ...]
    folds: tuple[Hashable, ...]
    seeds: tuple[Hashable, ...]
    measured: Mapping[_Place, Measured]
    groups: Mapping[Hashable, IntArray]
    baselines: Mapping[str, str] | None
    luck: Mapping[str, Luck]
    rule: _Rule

    def report(
        self,
        classes: Sequence[str],
        counts: Mapping[str, int],
        class_counts: Sequence[Mapping[str, int]],
        resampling: Resampling,
    ) -> CrossedReport:
        """Every arm and every difference."""
        plain = {place: one.plain() for place, one in self.measured.items()}
        samples = self._samples(resampling)
        arms = {name: self._arm(name, plain, samples[name]) for name in self.names}
        against = self.baselines
        if against is None:
            against = dict.fromkeys(self.names[1:], self.names[0])
        differences = {
            name: self._difference(
                (base, name), (arms[base], arms[name]), (samples[base], samples[name])
            )
            for name, base in against.items()
        }
        return CrossedReport(
            self.folds,
            self.seeds,
            tuple(classes),
            counts,
            tuple(class_counts),
            arms,
            differences,
        )

    def _samples(self, resampling: Resampling) -> dict[str, list[Figures]]:
        """Arm -> by fold, measure -> (resamples,) means over seeds on the same resamples for all arms."""
        parts: dict[str, list[Figures]] = {name: [] for name in self.names}
        for number, fold in enumerate(self.folds):
            # every fold draws from a stream of its own
            draws = list(
                bootstrap_groups(self.groups[fold], resampling.n, resampling.seed * 1009 + number)
            )
            for name in self.names:
                runs = [
                    [self.measured[name, fold, s].figures(weights) for weights in draws]
                    for s in self.seeds
                ]
                keys = list(runs[0][0]) if runs[0] else []
                of_fold = {
                    k: _mean(
                        np.stack([np.concatenate([piece[k] for piece in run]) for run in runs])
                    )
                    for k in keys
                }
                parts[name].append(of_fold)
        return parts

    def _arm(
        self, name: str, plain: Mapping[_Place, Figures], samples: Sequence[Figures]
    ) -> CrossedArm:
        keys = list(plain[name, self.folds[0], self.seeds[0]])
        runs = {
            key: np.array([[plain[name, f, s][key][0] for s in self.seeds] for f in self.folds])
            for key in keys
        }
        of_seed = {key: _mean(values) for key, values in runs.items()}
        means = {key: float(of_seed[key].mean()) for key in keys}
        patients = self.rule.levels(name, means, samples)
        levels = self._levels(name)
        over_seeds = {k: over_runs(of_seed[k], levels, ends(k[1])) for k in keys}
        return CrossedArm(patients, over_seeds, runs)

    def _difference(
        self,
        names: tuple[str, str],
        arms: tuple[CrossedArm, CrossedArm],
        samples: tuple[Sequence[Figures], Sequence[Figures]],
    ) -> CrossedDifference:
        first, other = arms
        shared = [key for key in first.runs if key in other.runs]
        values = {
            key: other.over_patients[key].value - first.over_patients[key].value for key in shared
        }
        apart: list[Figures] = [
            {k: b[k] - a[k] for k in a if k in b} for a, b in zip(*samples, strict=True)
        ]
        patients = self.rule.differences(names[0], values, apart)
        # a pair of runs shares a level of luck where both runs do
        of_first, of_other = (self._levels(name) for name in names)
        levels = {
            kind: tuple(zip(of_first[kind], of_other[kind], strict=True))
            for kind in of_first
            if kind in of_other
        }
        seeds = {}
        for key in shared:
            by_run = _mean(other.runs[key]) - _mean(first.runs[key])
            share = None if np.isnan(by_run).any() else float(np.mean(by_run > 0))
            furthest = ends(key[1], difference=True)
            seeds[key] = replace(over_runs(by_run, levels, furthest), share_above_zero=share)
        return CrossedDifference(patients, seeds)

    def _levels(self, name: str) -> dict[str, tuple[Hashable, ...]]:
        return {
            kind: tuple(of_seed[s] for s in self.seeds)
            for kind, of_seed in self.luck.get(name, {}).items()
        }


def _over_folds(samples: Sequence[Mapping[Key, FloatArray]], key: Key) -> FloatArray:
    """(resamples,) means over folds; of none if there is none."""
    if not samples or key not in samples[0]:
        return np.zeros(0)
    return _mean(np.stack([fold[key] for fold in samples]))


def over_runs(
    values: FloatArray,
    levels: Mapping[str, Sequence[Hashable]],
    ends: tuple[float, float] = UNBOUNDED,
) -> Figure:
    """Mean over runs that differ by chance alone, with Student's t interval.

    Args:
        values: (runs,) one figure a run.
        levels: kind of luck -> (runs,) levels. Each of several crossed kinds has its own interval
            under ``by``, over the means of its levels. The figure's interval is that of the kind
            with the fewest levels.
        ends: least and greatest possible value.
    """
    plain = figure_of(mean_over_seeds(values, ends), SEEDS)
    n = len(values)
    by: dict[str, Figure] = {}
    for kind, of_run in levels.items():
        rows = {
            level: [i for i, own in enumerate(of_run) if own == level]
            for level in dict.fromkeys(of_run)
        }
        if 1 < len(rows) < n and len({len(own) for own in rows.values()}) == 1:
            by[kind] = figure_of(
                mean_over_seeds([float(values[own].mean()) for own in rows.values()], ends), kind
            )
        elif 1 < len(rows) == n:
            by[kind] = replace(plain, over=kind)
    if all(figure.n == n for figure in by.values()):
        return plain  # one kind of luck, or several that go together
    fewest = min(by.values(), key=lambda figure: figure.n)
    return replace(fewest, value=plain.value, by=by)


def _mean(values: FloatArray) -> FloatArray:
    """Over the first axis, without what does not exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the mean does not exist either
        return np.asarray(np.nanmean(values, axis=0))
