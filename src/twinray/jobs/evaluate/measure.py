"""The one measure behind ``evaluate``: tested models by arm, wherever they come from -> what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import BoxRules, compare_boxes, evaluate_boxes
from twinray.evaluation.folds import (
    FoldRun,
    LabelRun,
    Luck,
    crossed_boxes,
    crossed_labels,
)
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.data import Labelled
from twinray.evaluation.labels.report import compare_labelled, evaluate_labels
from twinray.evaluation.matching import Images, flatten
from twinray.evaluation.record import SplitFigures
from twinray.evaluation.result import ArmResult, Evaluation, RunResult
from twinray.jobs.evaluate.arms import Arm, Place, baselines, places
from twinray.jobs.evaluate.diagnose import Detected, Ranked, diagnose, diagnose_labels
from twinray.jobs.evaluate.groups import Grouping, with_groups
from twinray.jobs.evaluate.options import differences_in_options
from twinray.jobs.evaluate.shared import Placed, on_shared_folds
from twinray.jobs.evaluate.tested import BoxData, LabelData, RunInfo
from twinray.records import FloatArray, Task


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        split: that was tested. data: pack; empty where runs kept their predictions.
        resampling: resampling of patients. rules: how boxes are counted.
        by: groups of images that are measured on their own too.
    """

    split: str
    data: str
    resampling: Resampling
    rules: BoxRules
    by: Grouping = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """What came out, and the curves of the single models, which stay with their run.

    Attributes:
        result: figures, runs and notes.
        curves: by name of the model.
        arms: arms with those of their runs that were measured.
    """

    result: Evaluation
    curves: Mapping[str, Detected | Ranked]
    arms: Mapping[str, Arm]


_Pair = tuple[SplitFigures, SplitFigures | None]
"""Figures of an arm, and its differences to the arm that it is compared with."""


def measure(arms: Mapping[str, Arm], settings: Settings) -> Measured:
    """Figures of every arm, differences to the arm that it is compared with, curves of every model.

    Where every arm is one model and there is one set of images, the figures are those that the plain evaluation gives.
    Arms that were not run equally often are compared on what they share (``shared``), and ``result.notes`` say so.

    Raises:
        InputError: arms that share no fold or no seed, or were tested on other images or labels than the first.
    """
    against = baselines(arms)
    run = next(iter(arms.values())).tested[0].run
    found: dict[str, _Pair] = {}
    where: dict[str, list[Place]] = {}
    folds = {
        images: i
        for i, images in enumerate(
            dict.fromkeys(one.images for arm in arms.values() for one in arm.tested)
        )
    }
    # points of a curve over shares of labels need not be run equally often: each share is measured on its own
    curves_over_shares = len({arm.family for arm in arms.values()}) < len(arms)
    shares = dict.fromkeys(arm.fraction for arm in arms.values()) if curves_over_shares else (None,)
    notes: list[str] = []
    counted: dict[str, Arm] = {}
    for share in shares:
        group = {name: arm for name, arm in arms.items() if share is None or arm.fraction == share}
        placed, lost = on_shared_folds(Placed(group, *places(group, folds)))
        here = {name: base for name, base in against.items() if name in group}
        of_group = _Group(placed, here, run, settings, _unlearned(placed.arms, run))
        figures = of_group.measured()
        if settings.by:
            figures = with_groups(
                placed.arms,
                figures,
                settings.by,
                of_group.of,
                (settings.resampling, settings.rules.froc),
            )
        notes += [*lost, *of_group.told("" if share is None else f"share {100 * share:g} %: ")]
        counted |= placed.arms
        where |= {name: list(own) for name, own in placed.where.items()}
        found |= figures
    arms = {name: counted[name] for name in arms}
    curves = _curves(arms, settings)
    results = {
        name: _arm_result(arm, *found[name], against.get(name, "")) for name, arm in arms.items()
    }
    if all(len({one.run.path for one in arm.tested}) == 1 for arm in arms.values()):
        for name, base in against.items():
            differing = differences_in_options(arms[base].tested[0].run, arms[name].tested[0].run)
            results[name] = replace(results[name], differing=differing)
    runs = {
        one.name: RunResult(
            path=str(one.run.path),
            arm=name,
            fold=place.fold,
            seed=one.run.seed,
            draw=one.draw,
            pretraining=one.run.init,
            seen=one.status,
            notes=one.notes,
            predictions=one.file,
            training_images=_trained_on(
                one.run.metrics.get("training_images"), one.run.metrics.get("seeds"), one.draw
            ),
            diagnostics=curves[one.name].as_json(),
        )
        for name, arm in arms.items()
        for one, place in zip(arm.tested, where[name], strict=True)
    }
    seeds = dict.fromkeys(place.seed for own in where.values() for place in own)
    result = Evaluation(
        kind=run.kind,
        task=run.task,
        split=settings.split,
        data=settings.data,
        classes=run.classes,
        folds=len({place.fold for own in where.values() for place in own}),
        seeds=tuple(seeds),
        rule=settings.rules.froc.told() if run.kind == "detector" else "",
        arms=results,
        runs=runs,
        notes=tuple(notes),
    )
    return Measured(result, curves, arms)


def _trained_on(counts: object, draws: object, draw: int | None) -> int | None:
    """Of a detector its number; of a classifier that of its draw."""
    if isinstance(counts, int):
        return counts
    if (
        isinstance(counts, list)
        and isinstance(draws, list)
        and draw in draws
        and len(counts) == len(draws)
    ):
        own = counts[draws.index(draw)]
        return own if isinstance(own, int) else None
    return None


def _arm_result(
    arm: Arm, figures: SplitFigures, difference: SplitFigures | None, minus: str
) -> ArmResult:
    marks = [one.seen for one in arm.tested if one.seen]
    if marks:
        total = sum(len(one.images) for one in arm.tested)
        figures = replace(figures, seen=(sum(mark[0] for mark in marks), total))
    known = {one.status for one in arm.tested}
    return ArmResult(
        figures=figures,
        runs=tuple(one.name for one in arm.tested),
        seen=next(status for status in ("unknown", "recorded", "nothing") if status in known),
        options=dict(arm.differing),
        family=arm.family,
        fraction=arm.fraction,
        minus=minus,
        difference=difference,
    )


def _curves(arms: Mapping[str, Arm], settings: Settings) -> dict[str, Detected | Ranked]:
    found: dict[str, Detected | Ranked] = {}
    for arm in arms.values():
        for one in arm.tested:
            if isinstance(one.data, BoxData):
                found[one.name] = diagnose(
                    one.data,
                    one.run.classes,
                    one.run.description.thresholds,
                    one.name,
                    settings.rules.froc,
                )
            else:
                found[one.name] = diagnose_labels(
                    one.data, one.run.classes, cast(Task, one.run.task), settings.resampling
                )
    return found


@dataclass(frozen=True, eq=False)
class _Group:
    """Arms that are compared with each other, all on the same folds.

    Attributes:
        placed: the arms, and where their runs stand. against: arm -> the arm that it is compared with.
        run: one of theirs, for kind, classes and task.
        unlearned: classes that some run never saw. They are out of the means of all arms, or these
            would be over other classes.
    """

    placed: Placed
    against: Mapping[str, str]
    run: RunInfo
    settings: Settings
    unlearned: tuple[str, ...]

    @property
    def arms(self) -> Mapping[str, Arm]:
        """By name."""
        return self.placed.arms

    @property
    def where(self) -> Mapping[str, Sequence[Place]]:
        """Places of the arms' models."""
        return self.placed.where

    @property
    def luck(self) -> Mapping[str, Luck]:
        """How the models of an arm differ by chance."""
        return self.placed.luck

    def told(self, where: str) -> list[str]:
        """What a reader must know of the comparison: pairs that are not complete, classes that means leave out."""
        notes = [
            told for name, base in self.against.items() if (told := self.placed.told(base, name))
        ]
        if self.unlearned:
            notes.append(
                f"means over classes leave out {', '.join(self.unlearned)}, which no training image of some run shows"
            )
        return [f"{where}{note}" for note in notes]

    def of(self, arms: Mapping[str, Arm]) -> dict[str, _Pair]:
        """The same of other images."""
        return replace(self, placed=replace(self.placed, arms=arms)).measured()

    def measured(self) -> dict[str, _Pair]:
        """Figures and differences by arm: an arm's own over all of its runs, differences over what two arms share."""
        if self.placed.alike:
            return self._together(self.placed, self.against)
        found: dict[str, _Pair] = {}
        for name in self.arms:
            figures, difference = self._together(self.placed.of([name]), {})[name][0], None
            if name in self.against:
                base = self.against[name]
                pair = self.placed.pair(base, name)
                difference = self._together(pair, {name: base})[name][1]
            found[name] = figures, difference
        return found

    def _together(self, placed: Placed, against: Mapping[str, str]) -> dict[str, _Pair]:
        return replace(self, placed=placed, against=against)._measured()

    def _measured(self) -> dict[str, _Pair]:
        plain = all(len(arm.tested) == 1 for arm in self.arms.values())
        plain = plain and len({place.fold for own in self.where.values() for place in own}) == 1
        if self.run.kind == "detector":
            return self._plain_boxes() if plain else self._crossed_boxes()
        return self._plain_labels() if plain else self._crossed_labels()

    def _plain_boxes(self) -> dict[str, _Pair]:
        datas = {name: cast(BoxData, arm.tested[0].data) for name, arm in self.arms.items()}
        like_name, like = next(iter(datas.items()))
        classes, rs, rules = self.run.classes, self.settings.resampling, self.settings.rules
        for name, data in datas.items():
            _check_truth(
                like, data, classes, f"{name} was tested on other true boxes than {like_name}"
            )
        patients = [like.patients.get(image) for image in like.truth]
        sets: tuple[Images, ...] = (
            ("all", "with_boxes") if any(map(len, like.truth.values())) else ("all",)
        )
        found: dict[str, _Pair] = {}
        for name, data in datas.items():
            report = evaluate_boxes(
                like.truth,
                data.found,
                classes,
                patients,
                resampling=rs,
                rules=rules,
            )
            difference = None
            if name in self.against:
                base = datas[self.against[name]].found
                parts = [
                    compare_boxes(
                        like.truth,
                        base,
                        data.found,
                        classes,
                        patients,
                        images=images,
                        resampling=rs,
                        rules=rules,
                    ).record()
                    for images in sets
                ]
                difference = _joined(parts)
            found[name] = report.record(), difference
        return found

    def _crossed_boxes(self) -> dict[str, _Pair]:
        runs: dict[str, list[FoldRun]] = {}
        for name, arm in self.arms.items():
            datas = [cast(BoxData, one.data) for one in arm.tested]
            runs[name] = [
                FoldRun(place.fold, place.seed, data.truth, data.found, data.patients)
                for data, place in zip(datas, self.where[name], strict=True)
            ]
        some = all(any(map(len, one.truth.values())) for own in runs.values() for one in own)
        sets: tuple[Images, ...] = ("all", "with_boxes") if some else ("all",)
        reports = [
            crossed_boxes(
                runs,
                self.run.classes,
                images=images,
                resampling=self.settings.resampling,
                rules=self.settings.rules,
                baselines=self.against,
                luck=self.luck,
            )
            for images in sets
        ]
        return {
            name: (
                _joined([report.arm(name) for report in reports]),
                _joined([report.difference(name) for report in reports])
                if name in self.against
                else None,
            )
            for name in self.arms
        }

    def _plain_labels(self) -> dict[str, _Pair]:
        datas = {name: cast(LabelData, arm.tested[0].data) for name, arm in self.arms.items()}
        like_name, like = next(iter(datas.items()))
        scores = {
            name: _aligned(
                like, data, f"{name} was tested on other images or labels than {like_name}"
            )
            for name, data in datas.items()
        }
        classes, task, rs = self.run.classes, cast(Task, self.run.task), self.settings.resampling
        cuts = {name: data.thresholds for name, data in datas.items()}
        found: dict[str, _Pair] = {}
        for name in datas:
            report = evaluate_labels(
                like.truth,
                scores[name],
                classes,
                task,
                like.patients,
                thresholds=cuts[name],
                resampling=rs,
                unlearned=self.unlearned,
            )
            difference = None
            if name in self.against:
                base = self.against[name]
                first, second = (
                    Labelled.of(
                        like.truth,
                        scores[one],
                        classes,
                        task,
                        like.patients,
                        cuts[one],
                        self.unlearned,
                    )
                    for one in (base, name)
                )
                difference = compare_labelled(first, second, rs).record()
            found[name] = report.record(), difference
        return found

    def _crossed_labels(self) -> dict[str, _Pair]:
        datas = {
            name: [cast(LabelData, one.data) for one in arm.tested]
            for name, arm in self.arms.items()
        }
        # means over runs need the same measures of all: thresholds of every run, or of none
        cut = all(data.thresholds is not None for own in datas.values() for data in own)
        runs = {
            name: [
                LabelRun(
                    place.fold,
                    place.seed,
                    data.images,
                    data.truth,
                    data.scores,
                    data.patients,
                    data.thresholds if cut else None,
                    self.unlearned,
                )
                for data, place in zip(own, self.where[name], strict=True)
            ]
            for name, own in datas.items()
        }
        report = crossed_labels(
            runs,
            self.run.classes,
            cast(Task, self.run.task),
            resampling=self.settings.resampling,
            baselines=self.against,
            luck=self.luck,
        )
        return {
            name: (report.arm(name), report.difference(name) if name in self.against else None)
            for name in self.arms
        }


def _unlearned(arms: Mapping[str, Arm], run: RunInfo) -> tuple[str, ...]:
    """Classes that some run of the arms never saw."""
    datas = [one.data for arm in arms.values() for one in arm.tested]
    named = {c for data in datas if isinstance(data, LabelData) for c in data.unlearned}
    return tuple(name for name in run.classes if name in named)


def _check_truth(like: BoxData, data: BoxData, classes: Sequence[str], told: str) -> None:
    first, other = flatten(like.truth, {}, classes), flatten(data.truth, {}, classes)
    same = first.ids == other.ids and all(
        np.array_equal(getattr(first, part), getattr(other, part))
        for part in ("truth_image", "truth_label", "truth_xywh")
    )
    if not same:
        raise InputError(f"{told}; compare runs of one pack")


def _joined(parts: Sequence[SplitFigures]) -> SplitFigures:
    return replace(parts[0], with_boxes=parts[1] if len(parts) > 1 else None)


def _aligned(like: LabelData, data: LabelData, told: str) -> FloatArray:
    """Scores in the order of ``like``'s images."""
    at = {image: i for i, image in enumerate(data.images)}
    order = [at.get(image, -1) for image in like.images]
    if (
        -1 in order
        or len(at) != len(order)
        or not np.array_equal(data.truth[order], like.truth, equal_nan=True)
    ):
        raise InputError(f"{told}; compare runs of one pack")
    return data.scores[order]
