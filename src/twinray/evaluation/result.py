"""What an evaluation came to: arms and their figures, the runs behind them, what its reader must know. One shape for all.

``metrics.json`` of ``evaluate`` holds it; terminal, CSV files, charts and page are drawn from it and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twinray.evaluation.measures import Kind, main_measure
from twinray.evaluation.record import FORMAT, Figure, SplitFigures, split_as_json


@dataclass(frozen=True)
class RunResult:
    """One tested model.

    Attributes:
        path: folder of its run.
        arm: name of its arm.
        fold: number of the test images, from 0.
        seed, draw: numbers of its training, and of its labelled images; None where all were used or
            none is kept apart.
        pretraining: its initial weights as asked for.
        seen: knowledge of what its initial weights saw (``recorded``, ``nothing``, ``unknown``).
        notes: notes of its training and of this evaluation.
        predictions: name of the file of its predictions, where one was written.
        training_images: number of images it learned from; None where not recorded.
        diagnostics: calibration, confusion, as JSON holds them.
    """

    path: str
    arm: str
    fold: int
    seed: int
    draw: int | None
    pretraining: str
    seen: str
    notes: tuple[str, ...] = ()
    predictions: str = ""
    training_images: int | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmResult:
    """Runs that are alike but for chance, measured together.

    Attributes:
        figures: means over folds and seeds, with intervals.
        runs: names of its runs.
        seen: the least that is known of what the initial weights of its runs saw.
        options: those in which arms differ.
        family: name of the arm whatever its share of labels; arms of one family are points of one curve.
        fraction: share of the training images that it used, 0..1.
        minus: name of the arm that it is compared with; empty for arms that others are compared with.
        difference: this arm minus that one; None without one.
        differing: differences of arms of one run each: option -> its ``kind`` and its values in
            that arm (``first``) and in this one (``this``).
    """

    figures: SplitFigures
    runs: tuple[str, ...]
    seen: str
    options: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    fraction: float = 1.0
    minus: str = ""
    difference: SplitFigures | None = None
    differing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Everything that came out.

    Attributes:
        kind: kind of the models.
        task: ``multiclass`` or ``multilabel`` for classifiers; empty for detectors.
        split: split that was tested.
        data: pack that was tested on; empty where the runs' own test images were taken as they kept them.
        classes: names.
        folds: number of sets of test images. seeds: of the runs, as they are paired between arms.
        rule: rule by which FROC counts, in words; empty for classifiers.
        arms, runs: arms and runs by name, in the order given.
        notes: facts that a reader must know, each stated once.
        warnings: reasons that make a comparison unfair.
        repeated: differences by chance between the runs of an arm, in words (``5 label draws``);
            empty for single runs.
    """

    kind: Kind
    task: str
    split: str
    data: str
    classes: tuple[str, ...]
    folds: int
    seeds: tuple[Any, ...]
    rule: str
    arms: Mapping[str, ArmResult]
    runs: Mapping[str, RunResult]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    repeated: str = ""

    def __repr__(self) -> str:
        main = main_measure(self.kind)
        lines = [f"Evaluation of {self.kind}s, split {self.split}, {main}:"]
        for name, arm in self.arms.items():
            own = {"": arm.figures.get(main)}
            if arm.difference is not None:
                own[f", minus {arm.minus} "] = arm.difference.get(main)
            lines.append(
                f"  {name} " + "".join(f"{what}{_words(figure)}" for what, figure in own.items())
            )
        return "\n".join(lines)

    @property
    def several(self) -> bool:
        """Whether arms were run more than once on the same images."""
        return len(self.seeds) > 1

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the training images that arms used, ascending."""
        return tuple(sorted({arm.fraction for arm in self.arms.values()}))

    @property
    def families(self) -> dict[str, dict[float, str]]:
        """Family -> share of labels -> name of the arm, by ascending share."""
        found: dict[str, dict[float, str]] = {}
        for name, arm in sorted(self.arms.items(), key=lambda item: item[1].fraction):
            found.setdefault(arm.family, {})[arm.fraction] = name
        order = dict.fromkeys(arm.family for arm in self.arms.values())
        return {family: found[family] for family in order}

    def figure(self, arm: str, measure: str, class_name: str | None = None) -> Figure | None:
        """An arm's figure; None where there is none."""
        return self.arms[arm].figures.get(measure, class_name)

    def training_images(self, arm: str) -> int | None:
        """Mean number of images that the arm's runs learned from; None where some run does not say."""
        counts = [self.runs[name].training_images for name in self.arms[arm].runs]
        known = [n for n in counts if n is not None]
        return round(sum(known) / len(known)) if known and len(known) == len(counts) else None


def _words(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "not defined"
    ends = "" if figure.ci95 is None else f" ({figure.ci95[0]:.3f} to {figure.ci95[1]:.3f})"
    return f"{figure.value:.3f}{ends}"


def renamed(result: Evaluation, names: Mapping[str, str]) -> Evaluation:
    """The same with other names of arms, for readers who know them by these."""
    arms = {
        names.get(name, name): replace(
            arm, family=names.get(arm.family, arm.family), minus=names.get(arm.minus, arm.minus)
        )
        for name, arm in result.arms.items()
    }
    runs = {
        name: replace(run, arm=names.get(run.arm, run.arm)) for name, run in result.runs.items()
    }
    return replace(result, arms=arms, runs=runs)


def evaluation_as_json(result: Evaluation) -> dict[str, Any]:
    """As ``metrics.json`` of ``evaluate`` holds it."""
    return {
        "format": FORMAT,
        "kind": result.kind,
        "task": result.task,
        "split": result.split,
        "data": result.data,
        "classes": list(result.classes),
        "folds": result.folds,
        "seeds": list(result.seeds),
        "repeated": result.repeated,
        "froc_rule": result.rule,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "arms": {
            name: {
                result.split: split_as_json(arm.figures),
                "runs": list(arm.runs),
                "seen": arm.seen,
                "options": dict(arm.options),
                "family": arm.family,
                "fraction": arm.fraction,
                "minus": arm.minus,
                **({} if arm.difference is None else {"difference": split_as_json(arm.difference)}),
                "differences_in_options": {
                    name: dict(values) for name, values in arm.differing.items()
                },
            }
            for name, arm in result.arms.items()
        },
        "runs": {
            name: {
                "path": run.path,
                "arm": run.arm,
                "fold": run.fold,
                "seed": run.seed,
                "draw": run.draw,
                "pretraining": run.pretraining,
                "seen": run.seen,
                "notes": list(run.notes),
                "predictions": run.predictions,
                "training_images": run.training_images,
                "diagnostics": dict(run.diagnostics),
            }
            for name, run in result.runs.items()
        },
    }
