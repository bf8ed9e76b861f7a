"""Arms that were run several times, over seeds and over folds of a cross-validation: one figure an arm, with its intervals.

Conventions

- The figure of an arm is the mean over folds of the mean over seeds: every measure is worked out on the test images
  of one run at a time, since scores of different runs are on different scales and cannot be pooled.
- The interval over patients holds the trained runs fixed: patients are resampled inside their fold, every measure of
  every run is made again on the same resample, and averaged the same way. A fold without any true box in a resample is left
  out of that resample's mean. The percentiles of an arm's figure over several folds are bias-corrected: average
  precision on few images is too high, in a resample once more so, and a mean over folds hides less of that behind chance
  (``benchmarks/coverage.py`` tells how often the intervals hold the truth). Those of differences are plain.
- The interval over seeds holds the images fixed: Student's t over the seeds' means over folds. It tells how much of a
  difference is luck of initial weights and order. Runs that all start from one pre-training share its luck, which
  no seed of theirs varies.
- Neither interval holds the other's variation; a difference to be trusted has both clear of zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import FROC_HIT, BoxCache, Figures, FrocHit, Key, plain_figures
from twinray.evaluation.intervals import (
    Difference,
    bootstrap_groups,
    group_index,
    mean_over_seeds,
    paired_difference,
    paired_over_seeds,
    percentile_interval,
)
from twinray.evaluation.matching import FlatBoxes, Images, flatten
from twinray.records import Boxes, FloatArray, IntArray, Interval

_Place: TypeAlias = tuple[str, Hashable, int]  # arm, fold, seed


@dataclass(frozen=True, eq=False)
class FoldRun:
    """One run on the test images of its fold.

    Attributes:
        fold, seed: which of the crossed runs it is.
        truth: image id -> true boxes, the same for all runs of a fold.
        predictions: image id -> boxes with scores.
        patients: image id -> patient, None where unknown.
    """

    fold: Hashable
    seed: int
    truth: Mapping[str | int, Boxes]
    predictions: Mapping[str | int, Boxes]
    patients: Mapping[str | int, str | None]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedArm:
    """Figures of one arm, by (class id or None for all classes, measure).

    Attributes:
        over_patients: value and interval over patients.
        over_seeds: the same value with its interval over seeds.
        runs: (folds, seeds) values, NaN where a run has none.
    """

    over_patients: Mapping[Key, Interval]
    over_seeds: Mapping[Key, Interval]
    runs: Mapping[Key, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedDifference:
    """One arm minus the first, by (class id or None, measure): over patients and over seeds."""

    over_patients: Mapping[Key, Difference]
    over_seeds: Mapping[Key, Difference]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedReport:
    """All arms, and each later arm's paired differences to the first.

    Attributes:
        folds, seeds: in the order of ``CrossedArm.runs``.
        box_classes: (k,) names.
        n_images: tested over all folds. n_boxes: (k,) true boxes in them.
        arms: by name, in the order given.
        differences: by name, of all arms but the first.
    """

    folds: tuple[Hashable, ...]
    seeds: tuple[int, ...]
    box_classes: tuple[str, ...]
    n_images: int
    n_boxes: tuple[int, ...]
    arms: Mapping[str, CrossedArm]
    differences: Mapping[str, CrossedDifference]

    def arm_as_json(self, name: str) -> dict[str, Any]:
        """As ``metrics.json`` holds figures of a split; each also has ``over_seeds`` and ``runs``, by fold and seed."""
        arm = self.arms[name]
        figures = {
            key: {
                **interval.as_json(),
                "over_seeds": arm.over_seeds[key].as_json(),
                "runs": [[None if np.isnan(v) else v for v in row] for row in arm.runs[key].tolist()],
            }
            for key, interval in arm.over_patients.items()
        }
        return {**self._by_class(figures, counts=True), "n_images": self.n_images, "n_boxes": sum(self.n_boxes)}

    def difference_as_json(self, name: str) -> dict[str, Any]:
        """The same of an arm's differences to the first."""
        found = self.differences[name]
        figures = {
            key: {**one.as_json(), "over_seeds": found.over_seeds[key].as_json()}
            for key, one in found.over_patients.items()
        }
        return self._by_class(figures, counts=False)

    def _by_class(self, figures: Mapping[Key, dict[str, Any]], *, counts: bool) -> dict[str, Any]:
        per_class: dict[str, dict[str, Any]] = {
            name: {measure: figure for (label, measure), figure in figures.items() if label == i}
            | ({"n_boxes": self.n_boxes[i]} if counts else {})
            for i, name in enumerate(self.box_classes)
        }
        return {measure: f for (label, measure), f in figures.items() if label is None} | {"per_class": per_class}


def crossed_boxes(
    arms: Mapping[str, Sequence[FoldRun]],
    box_classes: Sequence[str],
    *,
    images: Images = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    froc_hit: FrocHit = FROC_HIT,
) -> CrossedReport:
    """Figures of arms that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        box_classes: names that labels index.
        images: ``all``, or ``with_boxes``: those with at least one true box of any class.
        bootstrap: resamples of patients; 0 for no interval over them.
        seed: of the resamples.
        froc_hit: what FROC takes for a hit, an IoU or ``"centre"``.

    Raises:
        InputError: an arm that lacks a run or has it twice, folds whose true boxes differ between runs, a patient or an
            image that is tested in two folds, a fold without images, or boxes that ``matching.flatten`` refuses.
    """
    folds, seeds = _grid(arms)
    by_place = {(name, run.fold, run.seed): run for name, runs in arms.items() for run in runs}
    flats = {place: flatten(run.truth, run.predictions, box_classes).select(images) for place, run in by_place.items()}
    first = next(iter(arms))
    likes = {fold: flats[first, fold, seeds[0]] for fold in folds}
    for (name, fold, s), flat in flats.items():
        _check_truth(likes[fold], flat, f"arm {name}, fold {fold}, seed {s}")
    _check_apart({fold: by_place[first, fold, seeds[0]] for fold in folds})
    groups: dict[Hashable, IntArray] = {}
    for fold, like in likes.items():
        if not like.ids:
            raise InputError(f"crossed runs: expected at least one image ({images}) in fold {fold}, found none")
        patients = by_place[first, fold, seeds[0]].patients
        groups[fold] = group_index([patients.get(i) for i in like.ids], list(like.ids))
    caches = {place: BoxCache(flat, groups[place[1]], froc_hit) for place, flat in flats.items()}
    plain = {place: plain_figures(flat, caches[place]) for place, flat in flats.items()}
    samples = _samples(caches, list(arms), folds, seeds, groups, bootstrap, seed)
    n_patients = sum(int(g.max()) + 1 for g in groups.values())
    reports = {name: _arm(name, plain, samples[name], folds, seeds, n_patients) for name in arms}
    differences = {
        name: _difference(reports[first], reports[name], samples[first], samples[name], n_patients)
        for name in list(arms)[1:]
    }
    counts = sum(like.truth_counts().sum(axis=0) for like in likes.values())
    n_boxes = tuple(np.asarray(counts).tolist())
    n_images = sum(len(like.ids) for like in likes.values())
    return CrossedReport(folds, seeds, tuple(box_classes), n_images, n_boxes, reports, differences)


def _grid(arms: Mapping[str, Sequence[FoldRun]]) -> tuple[tuple[Hashable, ...], tuple[int, ...]]:
    """The folds and seeds that every arm has, each pair once."""
    if not arms or not all(arms.values()):
        raise InputError("crossed runs: expected arms with at least one run each; check which runs were selected")
    name, runs = next(iter(arms.items()))
    folds, seeds = tuple(dict.fromkeys(r.fold for r in runs)), tuple(dict.fromkeys(r.seed for r in runs))
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


def _check_truth(first: FlatBoxes, other: FlatBoxes, where: str) -> None:
    same = first.ids == other.ids and all(
        np.array_equal(getattr(first, part), getattr(other, part))
        for part in ("truth_image", "truth_label", "truth_xywh")
    )
    if not same:
        raise InputError(
            f"crossed runs: {where} was tested on other images or true boxes than the first run of its fold"
        )


def _check_apart(folds: Mapping[Hashable, FoldRun]) -> None:
    place: dict[tuple[str, object], Hashable] = {}
    for fold, run in folds.items():
        for image in run.truth:
            patient = run.patients.get(image)
            for what, key in (("image", image), ("patient", patient)):
                if key is not None and place.setdefault((what, key), fold) != fold:
                    raise InputError(
                        f"crossed runs: {what} {key} is tested in folds {place[what, key]} and {fold}; folds must be "
                        "cut by patient with one seed (pack --folds)"
                    )


def _samples(
    caches: Mapping[_Place, BoxCache],
    names: Sequence[str],
    folds: Sequence[Hashable],
    seeds: Sequence[int],
    groups: Mapping[Hashable, IntArray],
    bootstrap: int,
    seed: int,
) -> dict[str, dict[Key, FloatArray]]:
    """Arm -> measure -> (bootstrap,) means over folds and seeds on the same resamples for all arms."""
    parts: dict[str, list[Figures]] = {name: [] for name in names}
    for number, fold in enumerate(folds):
        # every fold draws from a stream of its own
        draws = list(bootstrap_groups(groups[fold], bootstrap, seed * 1009 + number))
        for name in names:
            runs = [[caches[name, fold, s].figures(weights) for weights in draws] for s in seeds]
            keys = list(runs[0][0]) if runs[0] else []
            parts[name].append(
                {key: _mean(np.stack([np.concatenate([piece[key] for piece in run]) for run in runs])) for key in keys}
            )
    return {
        name: {key: _mean(np.stack([fold[key] for fold in of_fold])) for key in of_fold[0]}
        for name, of_fold in parts.items()
    }


def _mean(values: FloatArray) -> FloatArray:
    """Over the first axis, without what does not exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the mean does not exist either
        return np.asarray(np.nanmean(values, axis=0))


def _arm(
    name: str,
    plain: Mapping[_Place, Figures],
    samples: Mapping[Key, FloatArray],
    folds: Sequence[Hashable],
    seeds: Sequence[int],
    n_patients: int,
) -> CrossedArm:
    keys = list(plain[name, folds[0], seeds[0]])
    runs = {key: np.array([[plain[name, fold, s][key][0] for s in seeds] for fold in folds]) for key in keys}
    of_seed = {key: _mean(values) for key, values in runs.items()}
    nothing = np.zeros(0)
    return CrossedArm(
        {
            k: percentile_interval(
                float(of_seed[k].mean()), samples.get(k, nothing), n_patients, bias_corrected=len(folds) > 1
            )
            for k in keys
        },
        {k: mean_over_seeds(of_seed[k]) for k in keys},
        runs,
    )


def _difference(
    first: CrossedArm,
    other: CrossedArm,
    first_samples: Mapping[Key, FloatArray],
    other_samples: Mapping[Key, FloatArray],
    n_patients: int,
) -> CrossedDifference:
    nothing = np.zeros(0)
    patients = {
        key: paired_difference(
            first.over_patients[key].value,
            other.over_patients[key].value,
            first_samples.get(key, nothing),
            other_samples.get(key, nothing),
            n_patients,
        )
        for key in first.runs
    }
    seeds = {key: paired_over_seeds(_mean(first.runs[key]), _mean(other.runs[key])) for key in first.runs}
    return CrossedDifference(patients, seeds)
