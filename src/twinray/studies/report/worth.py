"""What a study is worth: the gain in labelled patients, the smallest difference that its test images show, how many would settle it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.folds import FoldRun, LabelRun
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.measures import measure, title
from twinray.evaluation.worth.gain import Gain, LabelCurve, Way, gain
from twinray.evaluation.worth.power import detectable, patients_to_settle
from twinray.evaluation.worth.sampled import Sampled, mean_of, sampled_boxes, sampled_labels
from twinray.jobs.evaluate.arms import DRAWS, PACKS, PRETRAININGS, TRAINING_SEEDS, Place, places
from twinray.jobs.evaluate.measure import Measured
from twinray.jobs.evaluate.tested import BoxData, Tested
from twinray.records import Task as Labels
from twinray.report.charts.worth import label_curves
from twinray.report.numbers import count, number, signed
from twinray.report.page.document import Block, Picture, Points, Words
from twinray.report.study_result import Task
from twinray.report.tables import Table
from twinray.report.verdict import WHOLE
from twinray.studies.report.gather import Gathered

RESAMPLING = Resampling(400, 0)
"""Resamples of patients for the gain and the power; each measures every run once."""


def worth(
    study: Gathered, minutes_per_image: float | None = None
) -> tuple[tuple[Block, ...], tuple[Block, ...], str, dict[str, list[Gain]]]:
    """Blocks on the gain and on the smallest difference, a sentence on the gain for the answer, and the gains by task.

    The sentence is at the figure of the first arm with all its labels, the one level that is named before looking.

    Args:
        study: opened, or nothing is said.
        minutes_per_image: what labelling an image takes a reader; None for no reader hours.
    """
    gains: list[Block] = []
    known: dict[str, list[Gain]] = {}
    power: list[tuple[str, ...]] = []
    told = ""
    untold: list[str] = []
    averaged: list[str] = []
    for key, measured in study.measured.items():
        task = study.task(key)
        if len(task.arms) < 2:
            continue
        sampled, pretrainings = _sampled(measured)
        if sampled is None:
            untold.append(task.title)
            continue
        if pretrainings > 1:
            averaged.append(task.title)
        curves = _curves(measured, sampled, task)
        found = _gains(curves, task, minutes_per_image, _images_per_patient(measured))
        asked = [one for one in found if one.candidate == task.arms[-1] and one.way == "saves"]
        if asked:
            last = asked[-1]
            data = label_curves(curves[last.baseline], curves[last.candidate], last, task.measure)
            gains.append(Picture(data, "svg", last.told(), f"{task.title}. {last.told()}"))
            told = told or f"{task.title}: {last.told()}"
        if found:
            known[task.name] = found
            gains += _gain_tables(task, found)
        power += _power(measured, sampled, task)
    if gains:
        gains.insert(0, Points((("How it is read.", "The horizontal distance of two label curves, made monotone: how many labelled patients fewer, or more, give the same figure. Nothing is extrapolated: beyond what was measured there is a bound."),)))  # fmt: skip
    if untold:
        gains.append(
            f"Not worked out for {', '.join(untold)}: gain and smallest difference need the same folds and seeds in every arm. "
            "Arms of which runs are missing do not have them, nor do arms of different numbers of pre-training seeds."
        )
    if averaged:
        gains.append(
            f"{', '.join(averaged)}: figures of arms with several pre-training seeds are means over these, beside arms without any. "
            "What another pre-training would bring is therefore not in their intervals."
        )
    smallest: tuple[Block, ...] = ()
    if power:
        table = Table(
                "What these test images can show",
                ("task", "labels", "arm", "difference", "smallest difference shown in 80 % of studies", "test patients to settle the measured one"),
                tuple(power),
                "The smallest difference counts patients and, where there are several, seeds; none: no difference would be shown, however large. The number of patients to settle a difference that was measured near 0 is large or has no end, and its interval is wide.",
        )  # fmt: skip
        smallest = (Words(table, numbers=True),)
    return tuple(gains), smallest, told, known


def _sampled(measured: Measured) -> tuple[Sampled | None, int]:
    """All arms' runs on one set of resamples, and the number of pre-trainings that some arms are a mean over (1: of none).

    Arms of several pre-training seeds beside arms of none have no common seeds. Each pre-training is set beside the
    arms of none, and figures are the means over pre-trainings, so what another pre-training would bring is not in them.
    None where arms do not have the same folds and seeds.
    """
    folds: dict[tuple[str, ...], int] = {}
    for arm in measured.arms.values():
        for one in arm.tested:
            folds.setdefault(one.images, len(folds))
    try:
        where, lucks = places(measured.arms, folds)
        starts = {name: len(set(luck[PRETRAININGS].values())) for name, luck in lucks.items()}
        most = max(starts.values())
        if len(set(starts.values())) == 1:
            return _on_resamples(measured, where), 1
        if set(starts.values()) != {1, most}:
            return None, 1
        parts = []
        for start in range(most):
            own: dict[str, list[Place | None]] = {}
            for name, found in where.items():
                levels = lucks[name]
                kept = start if starts[name] > 1 else 0
                own[name] = [
                    Place(p.fold, tuple(levels[kind][p.seed] for kind in (PACKS, TRAINING_SEEDS, DRAWS)))
                    if levels[PRETRAININGS][p.seed] == kept
                    else None
                    for p in found
                ]  # fmt: skip
            parts.append(_on_resamples(measured, own))
        return mean_of(parts), most
    except InputError:  # runs are missing, or one arm has several for one of another
        return None, 1


def _on_resamples(measured: Measured, where: Mapping[str, Sequence[Place | None]]) -> Sampled:
    """Those runs that have a place, on the resamples of the test patients."""
    run = next(iter(measured.arms.values())).tested[0].run
    boxes: dict[str, list[FoldRun]] = {}
    labels: dict[str, list[LabelRun]] = {}
    for name, arm in measured.arms.items():
        for one, place in zip(arm.tested, where[name], strict=True):
            if place is None:
                continue
            data = one.data
            if isinstance(data, BoxData):
                own = FoldRun(place.fold, place.seed, data.truth, data.found, data.patients)
                boxes.setdefault(name, []).append(own)
            else:
                labels.setdefault(name, []).append(
                    LabelRun(place.fold, place.seed, data.images, data.truth, data.scores, data.patients, data.thresholds, data.unlearned)
                )  # fmt: skip
    if boxes:
        return sampled_boxes(boxes, run.classes, resampling=RESAMPLING)
    return sampled_labels(labels, run.classes, cast(Labels, run.task), resampling=RESAMPLING)


def _labelled(tested: Sequence[Tested]) -> float:
    """Labelled training patients, the mean over runs; NaN where some run does not say."""
    counts = []
    for one in tested:
        known = one.run.metrics.get("training_patients")
        draws = one.run.metrics.get("seeds")
        if isinstance(known, list):
            at = draws.index(one.draw) if isinstance(draws, list) and one.draw in draws else 0
            known = known[at] if at < len(known) else None
        if not isinstance(known, int):
            return float("nan")
        counts.append(known)
    return float(np.mean(counts))


def _curves(measured: Measured, sampled: Sampled, task: Task) -> dict[str, LabelCurve]:
    """The label curve of each arm that was trained on several numbers of labelled patients."""
    found: dict[str, LabelCurve] = {}
    for family in task.arms:
        own = {
            _labelled(arm.tested): name
            for name, arm in measured.arms.items()
            if arm.family == family
        }
        if len(own) < 2 or any(np.isnan(n) for n in own):
            continue
        try:
            found[family] = sampled.curve(family, own, (None, task.measure))
        except InputError:  # a figure that some run does not have
            continue
    return found


def _images_per_patient(measured: Measured) -> float:
    """Labelled training images of a patient, the mean over the runs that say both numbers; 1 where none does."""
    images = patients = 0
    for arm in measured.arms.values():
        for one in arm.tested:
            counts = [one.run.metrics.get(f"training_{what}") for what in ("images", "patients")]
            own = [c if isinstance(c, list) else [c] for c in counts]
            for few, many in zip(own[1], own[0], strict=False):
                if isinstance(few, int) and isinstance(many, int) and few > 0:
                    images, patients = images + many, patients + few
    return images / patients if patients else 1.0


def _gains(
    curves: Mapping[str, LabelCurve],
    task: Task,
    minutes_per_image: float | None = None,
    images_per_patient: float = 1.0,
) -> list[Gain]:
    """Every other arm against the first one: at each number of patients of the one that leaves room on the other's curve.

    With the fewest patients of the first arm nothing can be saved, with the most of another nothing more be measured.
    """
    base = curves.get(task.arms[0])
    if base is None:
        return []
    better = measure(task.measure).better
    others = [curves[arm] for arm in task.arms[1:] if arm in curves]
    asked: list[tuple[LabelCurve, float, Way]] = [
        *((other, at, "saves") for other in others for at in base.patients[1:]),
        *((other, at, "replaces") for other in others for at in other.patients[:-1]),
    ]
    return [
        gain(
            base, other, at=at, way=way, better=better,
            minutes_per_image=minutes_per_image, images_per_patient=images_per_patient,
        )
        for other, at, way in asked
    ]  # fmt: skip


def _gain_tables(task: Task, found: Sequence[Gain]) -> list[Block]:
    base, hours = task.arms[0], any(one.hours is not None for one in found)
    tables: list[Block] = []
    for way, caption, head, worth_head in (
        ("saves", f"labelled patients that other initial weights save, against {base}", f"figure of {base} with", "saves (95 % interval)"),
        ("replaces", f"how many more labelled patients {base} would take", "with labelled patients", f"{base} would take more (95 % interval)"),
    ):  # fmt: skip
        own = [one for one in found if one.way == way]
        if not own:
            continue
        rows = tuple(
            (
                one.candidate, count(one.at), number(one.level), one.patients.told(), one.times.told(2),
                *(("" if one.hours is None else one.hours.told(0),) if hours else ()),
            )
            for one in own
        )  # fmt: skip
        heads = ("arm", head, title(task.measure), worth_head, f"labels that {base} takes, times the arm's", *(("reader hours",) if hours else ()))  # fmt: skip
        over = " or ".join(dict.fromkeys(one.over for one in own))
        tables.append(Words(Table(f"{task.title}: {caption}", heads, rows, f"Intervals over {over}."), numbers=True))  # fmt: skip
    return tables


def _power(measured: Measured, sampled: Sampled, task: Task) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    names = {(arm.family, arm.fraction): name for name, arm in measured.arms.items()}
    for share in task.shares:
        for arm in task.arms[1:]:
            base, own = names.get((task.arms[0], share)), names.get((arm, share))
            if base is None or own is None:
                continue
            try:
                spread = sampled.spread(base, own, (None, task.measure))
            except InputError:  # a figure that some run does not have
                continue
            settle = "no number of patients shows a difference of 0"
            if spread.difference and spread.error() <= 0:
                settle = "nothing varies on these images"
            elif spread.difference:
                settle = patients_to_settle(spread).told()
            least = detectable(spread)
            rows.append(
                (task.title, f"{100 * share:g} %", f"{arm} minus {task.arms[0]}", signed(spread.difference), number(least) if least < WHOLE else "none", settle)
            )  # fmt: skip
    return rows
