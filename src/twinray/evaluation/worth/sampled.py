"""Figures of every run on the same resamples of the test patients: what the gain in patients and power are made of.

``folds`` averages over seeds inside each resample; here seeds stay apart. Resamples are the same as there: fold number f draws from the
stream ``seed * 1009 + f``, for all arms and seeds alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import BOX_RULES, BoxRules, Key
from twinray.evaluation.folds import (
    FoldRun,
    LabelRun,
    Measured,
    MeasuredBoxes,
    check_apart,
    check_truth,
    grid,
)
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Resampling,
    bootstrap_groups,
    group_index,
)
from twinray.evaluation.labels.report import MeasuredLabels
from twinray.evaluation.matching import FlatBoxes, Images, flatten
from twinray.evaluation.worth.gain import LabelCurve
from twinray.evaluation.worth.power import Over, Spread, spread_of
from twinray.records import FloatArray, IntArray, Task


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """All arms' runs, measured alike.

    Attributes:
        seeds: seeds that every arm has.
        patients: number of test patients over all folds.
        values: arm -> figure -> (s,) means over folds.
        samples: arm -> figure -> (s, b) the same on resamples of the patients.
    """

    seeds: tuple[Hashable, ...]
    patients: int
    values: Mapping[str, Mapping[Key, FloatArray]]
    samples: Mapping[str, Mapping[Key, FloatArray]]

    def curve(self, name: str, arms: Mapping[float, str], key: Key) -> LabelCurve:
        """A label curve.

        Args:
            name: name of the curve.
            arms: labelled training patients -> name of the arm that was trained on them.
            key: figure, such as ``(None, "map50")``.

        Raises:
            InputError: an arm or figure that is not there, and as ``LabelCurve``.
        """
        patients = tuple(sorted(arms))
        for arm in arms.values():
            self._check(arm, key)
        return LabelCurve(
            name,
            patients,
            np.stack([self.values[arms[n]][key] for n in patients]),
            np.stack([self.samples[arms[n]][key] for n in patients]),
        )

    def spread(
        self, baseline: str, candidate: str, key: Key, *, over: Over = "patients and seeds"
    ) -> Spread:
        """What the difference of two arms varies by.

        Raises:
            InputError: an arm or figure that is not there, and as ``power.spread_of``.
        """
        for arm in (baseline, candidate):
            self._check(arm, key)
        return spread_of(
            self.values[baseline][key],
            self.values[candidate][key],
            self.samples[baseline][key],
            self.samples[candidate][key],
            self.patients,
            over=over,
        )

    def _check(self, arm: str, key: Key) -> None:
        if arm not in self.values:
            raise InputError(f"expected one of the arms {', '.join(self.values)}, got {arm!r}")
        if key not in self.values[arm]:
            raise InputError(f"arm {arm} has no figure {key[1]!r}")


def mean_of(parts: Sequence[Sampled]) -> Sampled:
    """Figures and resamples averaged over several sets of runs that were measured on the same resamples.

    Args:
        parts: sets with the same arms, seeds and test patients, one or more; a figure that one of them lacks is left out.

    Raises:
        InputError: sets of other arms, seeds or numbers of patients.
    """
    first = parts[0]
    if any(
        (tuple(p.values), p.seeds, p.patients) != (tuple(first.values), first.seeds, first.patients)
        for p in parts
    ):
        raise InputError("expected runs of the same arms, seeds and test patients in every set")

    def mean(of: Sequence[Mapping[Key, FloatArray]]) -> dict[Key, FloatArray]:
        return {
            key: np.mean([one[key] for one in of], axis=0)
            for key in of[0]
            if all(key in one for one in of)
        }

    return Sampled(
        first.seeds,
        first.patients,
        {arm: mean([p.values[arm] for p in parts]) for arm in first.values},
        {arm: mean([p.samples[arm] for p in parts]) for arm in first.values},
    )


def sampled_boxes(
    arms: Mapping[str, Sequence[FoldRun]],
    box_classes: Sequence[str],
    *,
    images: Images = "all",
    resampling: Resampling = PLAIN_RESAMPLING,
    rules: BoxRules = BOX_RULES,
) -> Sampled:
    """Of detectors that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        box_classes, images, resampling, rules: arguments as in ``folds.crossed_boxes``.

    Raises:
        InputError: as ``folds.crossed_boxes``.
    """
    folds, seeds = grid(arms)
    likes: dict[Hashable, FlatBoxes] = {}
    groups: dict[Hashable, IntArray] = {}
    tested: dict[Hashable, list[tuple[str | int, str | None]]] = {}
    measured: dict[tuple[str, Hashable, Hashable], Measured] = {}
    for name, runs in arms.items():
        for run in runs:
            flat = flatten(run.truth, run.predictions, box_classes).select(images)
            if run.fold not in likes:
                if not flat.ids:
                    raise InputError(
                        f"runs: expected at least one image ({images}) in fold {run.fold}, found none"
                    )
                likes[run.fold] = flat
                tested[run.fold] = [(i, run.patients.get(i)) for i in run.truth]
                groups[run.fold] = group_index(
                    [run.patients.get(i) for i in flat.ids], list(flat.ids)
                )
            check_truth(likes[run.fold], flat, f"arm {name}, fold {run.fold}, seed {run.seed}")
            measured[name, run.fold, run.seed] = MeasuredBoxes(flat, groups[run.fold], rules)
    check_apart(tested)
    return _sampled(tuple(arms), folds, seeds, measured, groups, resampling)


def sampled_labels(
    arms: Mapping[str, Sequence[LabelRun]],
    label_classes: Sequence[str],
    task: Task,
    *,
    resampling: Resampling = PLAIN_RESAMPLING,
) -> Sampled:
    """Of classifiers that were run once for every fold and seed.

    Args:
        arms: name -> its runs; every arm has the same folds and seeds, each pair once.
        label_classes, task, resampling: arguments as in ``folds.crossed_labels``.

    Raises:
        InputError: as ``folds.crossed_labels``.
    """
    folds, seeds = grid(arms)
    likes: dict[Hashable, LabelRun] = {}
    groups: dict[Hashable, IntArray] = {}
    measured: dict[tuple[str, Hashable, Hashable], Measured] = {}
    for name, runs in arms.items():
        for run in runs:
            like = likes.setdefault(run.fold, run)
            at = {image: i for i, image in enumerate(run.images)}
            order = [at.get(image, -1) for image in like.images]
            same = len(at) == len(like.images) and -1 not in order
            if not same or not np.array_equal(run.truth[order], like.truth, equal_nan=True):
                raise InputError(
                    f"runs: arm {name}, fold {run.fold}, seed {run.seed} was tested on other images or labels than the "
                    "first run of its fold"
                )
            one = MeasuredLabels(
                like.truth,
                run.scores[order],
                label_classes,
                task,
                like.patients,
                run.thresholds,
                run.unlearned,
            )
            groups.setdefault(run.fold, one.groups)
            measured[name, run.fold, run.seed] = one
    check_apart(
        {fold: list(zip(one.images, one.patients, strict=True)) for fold, one in likes.items()}
    )
    return _sampled(tuple(arms), folds, seeds, measured, groups, resampling)


def _sampled(
    names: Sequence[str],
    folds: Sequence[Hashable],
    seeds: Sequence[Hashable],
    measured: Mapping[tuple[str, Hashable, Hashable], Measured],
    groups: Mapping[Hashable, IntArray],
    resampling: Resampling,
) -> Sampled:
    draws = {
        fold: list(bootstrap_groups(groups[fold], resampling.n, resampling.seed * 1009 + number))
        for number, fold in enumerate(folds)
    }
    values: dict[str, dict[Key, FloatArray]] = {}
    samples: dict[str, dict[Key, FloatArray]] = {}
    for name in names:
        plain = {(f, s): measured[name, f, s].plain() for f in folds for s in seeds}
        keys = [
            key for key in plain[folds[0], seeds[0]] if all(key in one for one in plain.values())
        ]
        values[name] = {
            key: np.array([_mean(np.array([plain[f, s][key][0] for f in folds])) for s in seeds])
            for key in keys
        }
        drawn = {
            (f, s): [measured[name, f, s].figures(weights) for weights in draws[f]]
            for f in folds
            for s in seeds
        }
        samples[name] = {
            key: np.stack(
                [
                    _mean(
                        np.stack(
                            [
                                np.concatenate([np.zeros(0), *(one[key] for one in drawn[f, s])])
                                for f in folds
                            ]
                        )
                    )
                    for s in seeds
                ]
            )
            for key in keys
        }
    n = sum(int(g.max()) + 1 for g in groups.values())
    return Sampled(tuple(seeds), n, values, samples)


def _mean(values: FloatArray) -> FloatArray:
    """Over the first axis, without what does not exist, as ``folds`` has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the mean does not exist either
        return np.asarray(np.nanmean(values, axis=0))
