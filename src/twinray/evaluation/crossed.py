"""Arms that were run several times, over seeds and over folds of a cross-validation: one figure an arm, with its intervals.

Conventions

- The figure of an arm is the mean over folds of the mean over seeds: every measure is worked out on the test images
  of one run at a time, since scores of different runs are on different scales and cannot be pooled.
- The interval over patients holds the trained runs fixed: patients are resampled inside their fold, every measure of
  every run is made again on the same resample, and averaged the same way. A fold without any true box in a resample is left
  out of that resample's mean.
- The interval over seeds holds the images fixed: Student's t over the seeds' means over folds. It tells how much of a
  difference is luck of initial weights and order.
- Neither interval holds the other's variation; a difference to be trusted has both clear of zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import FROC_HIT, BoxCache, Figures, FrocHit, plain_figures
from twinray.evaluation.intervals import (
    Difference,
    bootstrap_groups,
    group_index,
    mean_over_seeds,
    paired_difference,
    paired_over_seeds,
    percentile_interval,
)
from twinray.evaluation.matching import FlatBoxes, flatten
from twinray.records import Boxes, FloatArray, IntArray, Interval


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
    """Figures of one arm: measure -> value and interval over patients; the same over seeds; the runs' own values.

    ``runs`` holds measure -> (folds, seeds) values, NaN where a run has none.
    """

    over_patients: Mapping[str, Interval]
    over_seeds: Mapping[str, Interval]
    runs: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class CrossedReport:
    """All arms, and each later arm's paired differences to the first, over patients and over seeds.

    Attributes:
        folds, seeds: in the order of ``CrossedArm.runs``.
        arms: by name, in the order given.
        differences: arm -> (measure -> over patients, measure -> over seeds).
    """

    folds: tuple[Hashable, ...]
    seeds: tuple[int, ...]
    arms: Mapping[str, CrossedArm]
    differences: Mapping[str, tuple[Mapping[str, Difference], Mapping[str, Difference]]]


def crossed_boxes(
    arms: Mapping[str, Sequence[FoldRun]],
    box_classes: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    froc_hit: FrocHit = FROC_HIT,
) -> CrossedReport:
    """Figures of arms that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        box_classes: names that labels index.
        bootstrap: resamples of patients; 0 for no interval over them.
        seed: of the resamples.
        froc_hit: what FROC takes for a hit, an IoU or ``"centre"``.

    Raises:
        InputError: an arm that lacks a run or has it twice, folds whose true boxes differ between runs, a patient or an
            image that is tested in two folds, or boxes that ``matching.flatten`` refuses.
    """
    folds, seeds = _grid(arms)
    by_place = {(name, run.fold, run.seed): run for name, runs in arms.items() for run in runs}
    flats = {place: flatten(run.truth, run.predictions, box_classes) for place, run in by_place.items()}
    first = next(iter(arms))
    groups: list[IntArray] = []
    for fold in folds:
        like = by_place[first, fold, seeds[0]]
        for name in arms:
            for s in seeds:
                _check_truth(flats[first, fold, seeds[0]], flats[name, fold, s], f"arm {name}, fold {fold}, seed {s}")
        ids = flats[first, fold, seeds[0]].ids
        groups.append(group_index([like.patients.get(i) for i in ids], list(ids)))
    _check_apart({fold: by_place[first, fold, seeds[0]] for fold in folds})
    caches = {
        place: BoxCache(flat, groups[folds.index(place[1])], froc_hit, classes=False) for place, flat in flats.items()
    }
    plain = {place: _overall(plain_figures(flat, caches[place])) for place, flat in flats.items()}
    samples = _samples(caches, list(arms), folds, seeds, groups, bootstrap, seed)
    n_patients = sum(int(g.max()) + 1 for g in groups)
    measures = list(next(iter(plain.values())))
    reports = {name: _arm(name, plain, samples[name], measures, folds, seeds, n_patients) for name in arms}
    differences = {
        name: _differences(reports[first], reports[name], samples[first], samples[name], n_patients)
        for name in list(arms)[1:]
    }
    return CrossedReport(folds, seeds, reports, differences)


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
    caches: Mapping[tuple[str, Hashable, int], BoxCache],
    names: Sequence[str],
    folds: Sequence[Hashable],
    seeds: Sequence[int],
    groups: Sequence[IntArray],
    bootstrap: int,
    seed: int,
) -> dict[str, dict[str, FloatArray]]:
    """Arm -> measure -> (bootstrap,) means over folds and seeds on the same resamples for all arms."""
    parts: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in names}
    for number, fold in enumerate(folds):
        # every fold draws from a stream of its own
        draws = list(bootstrap_groups(groups[number], bootstrap, seed * 1009 + number))
        for name in names:
            runs = [[_overall(caches[name, fold, s].figures(weights)) for weights in draws] for s in seeds]
            measures = list(runs[0][0]) if runs[0] else []
            parts[name].append(
                {m: _mean(np.stack([np.concatenate([piece[m] for piece in run]) for run in runs])) for m in measures}
            )
    return {
        name: {m: _mean(np.stack([fold[m] for fold in of_fold])) for m in of_fold[0]} for name, of_fold in parts.items()
    }


def _overall(figures: Figures) -> dict[str, FloatArray]:
    return {name: value for (label, name), value in figures.items() if label is None}


def _mean(values: FloatArray) -> FloatArray:
    """Over the first axis, without what does not exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the mean does not exist either
        return np.asarray(np.nanmean(values, axis=0))


def _arm(
    name: str,
    plain: Mapping[tuple[str, Hashable, int], Mapping[str, FloatArray]],
    samples: Mapping[str, FloatArray],
    measures: Sequence[str],
    folds: Sequence[Hashable],
    seeds: Sequence[int],
    n_patients: int,
) -> CrossedArm:
    runs = {m: np.array([[plain[name, fold, s][m][0] for s in seeds] for fold in folds]) for m in measures}
    of_seed = {m: _mean(values) for m, values in runs.items()}
    nothing = np.zeros(0)
    return CrossedArm(
        {m: percentile_interval(float(of_seed[m].mean()), samples.get(m, nothing), n_patients) for m in measures},
        {m: mean_over_seeds(of_seed[m]) for m in measures},
        runs,
    )


def _differences(
    first: CrossedArm,
    other: CrossedArm,
    first_samples: Mapping[str, FloatArray],
    other_samples: Mapping[str, FloatArray],
    n_patients: int,
) -> tuple[dict[str, Difference], dict[str, Difference]]:
    nothing = np.zeros(0)
    patients = {
        m: paired_difference(
            first.over_patients[m].value,
            other.over_patients[m].value,
            first_samples.get(m, nothing),
            other_samples.get(m, nothing),
            n_patients,
        )
        for m in first.runs
    }
    seeds = {m: paired_over_seeds(_mean(first.runs[m]), _mean(other.runs[m])) for m in first.runs}
    return patients, seeds
