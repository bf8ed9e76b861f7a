"""The human ceiling: what one reader finds of what the others marked, and the detectors by the same truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from twinray.data.fusion import fuse_by_image
from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.readers.ceiling import (
    ALL_READERS,
    AgainstReader,
    ReaderFigures,
    Readings,
    detector_at_readers,
    detector_froc,
    reader_figures,
    readings_of,
)
from twinray.evaluation.record import SplitFigures
from twinray.jobs.evaluate.arms import Arm
from twinray.jobs.evaluate.measure import Measured
from twinray.jobs.evaluate.tested import BoxData
from twinray.records import READERS, Boxes
from twinray.report.charts.worth import froc_with_readers
from twinray.report.numbers import count, number
from twinray.report.page.document import Block, Picture, Points, Words
from twinray.report.study_result import Task
from twinray.report.tables import FROC_RATES, Table, with_interval
from twinray.studies.report.gather import Gathered, readers_packs

_RESAMPLING = Resampling(400, 0)


def ceiling(study: Gathered) -> tuple[tuple[Block, ...], str]:
    """Blocks on readers, and a sentence for the answer; nothing where no pack keeps its readers' boxes apart."""
    blocks: list[Block] = []
    told = ""
    for key, measured in study.measured.items():
        task = study.task(key)
        if task.kind != "detector":
            continue
        found = {arm.family: _found(arm) for arm in measured.arms.values() if arm.fraction == max(task.shares)}  # fmt: skip
        # after an early opening arms may have other folds; an image that an arm never saw is none without a box
        tested = set.intersection(*map(set, found.values())) if found else set()
        readings = _readings(readers_packs(study, key), tested)
        if readings is None:
            if key.task in study.state.plan.readers:
                blocks.append(
                    f"{task.title}: the pack of readers' boxes has no test image that two readers read."
                    if tested
                    else f"{task.title}: no image was tested by every arm with all labels, so readers have nothing beside them."
                )
            continue
        readers, patients = readings
        classes = measured.result.classes
        figures = reader_figures(readers, classes, patients, resampling=_RESAMPLING)
        blocks += [_reader_table(task.title, figures, whole=readers.whole)]
        rows: list[tuple[str, ...]] = []
        for arm, boxes in found.items():
            against = detector_at_readers(readers, boxes, classes, patients, resampling=_RESAMPLING)
            rows += [_row(arm, one) for one in against]
            if arm == task.arms[-1] and against and not told:
                told = _told(arm, against[0])
        blocks.append(_chart(task, measured, found, readings, figures))
        blocks.append(
            Words(
                Table(
                    f"{task.title}: detectors at the readers' false positives, first run of each arm",
                    ("arm", "against", "false positives an image", "reader", "detector", "detector minus reader"),
                    tuple(rows),
                ),
                numbers=True,
            )
        )  # fmt: skip
    if blocks and not isinstance(blocks[0], str):
        blocks.insert(0, Points((("By which truth.", "Each reader, and each detector beside them, is measured against the fused boxes of the image's other readers. These figures belong beside each other, not beside those of the other sections."),)))  # fmt: skip
    return tuple(blocks), told


def _reader_table(title: str, figures: Sequence[ReaderFigures], *, whole: bool) -> Words:
    unknown = "" if whole else " Who read an image and drew nothing is not recorded, so false positives are too high, and areas are not given."  # fmt: skip
    rows = tuple(
        (
            one.name, count(one.n_readings), with_interval(one.sensitivity), with_interval(one.false_positives),
            with_interval(one.area) if one.area is not None else "not known",
        )
        for one in figures
    )  # fmt: skip
    heads = ("reader", "readings", "sensitivity (95 % interval)", "false positives an image", "weighted AFROC area")  # fmt: skip
    return Words(Table(f"{title}: each reader against the fused boxes of the others", heads, rows, f"A box counts from an IoU of 0.5.{unknown}"))  # fmt: skip


def _chart(
    task: Task,
    measured: Measured,
    found: Mapping[str, Mapping[str, Boxes]],
    readings: tuple[Readings, Mapping[str, str | None]],
    figures: Sequence[ReaderFigures],
) -> Picture:
    """FROC curves of the arms against the readers' truth, and each reader as a point."""
    readers, patients = readings
    result = measured.result
    rates = [float(rate) for rate in FROC_RATES]
    arms = {}
    for arm in (one for one in task.arms if one in found):
        curve = detector_froc(readers, found[arm], result.classes, patients, rates=rates, resampling=_RESAMPLING)  # fmt: skip
        like = next(own for own in result.arms.values() if own.family == arm)
        named = {f"froc@{rate}": curve[float(rate)] for rate in FROC_RATES}
        arms[arm] = replace(like, figures=SplitFigures(named), minus="", difference=None)
    everybody = next(one for one in figures if one.name == ALL_READERS)
    told = (
        f"{task.title}: FROC by the readers' truth. All readers: sensitivity {with_interval(everybody.sensitivity)} at "
        f"{with_interval(everybody.false_positives)} false positives an image"
    )
    data = froc_with_readers(replace(result, arms=arms), figures)
    return Picture(data, "svg", f"{told}; {len(figures) - 1} readers as points.", f"{told}. First run of each arm.")  # fmt: skip


def _row(arm: str, one: AgainstReader) -> tuple[str, ...]:
    return (
        arm,
        one.name,
        number(one.rate, 2),
        with_interval(one.reader),
        with_interval(one.detector),
        with_interval(one.difference, sign=True),
    )


def _told(arm: str, one: AgainstReader) -> str:
    return (
        f"At the readers' {number(one.rate, 2)} false positives an image, {arm} finds {with_interval(one.detector)} of the others' boxes; "
        f"a reader finds {with_interval(one.reader)}."
    )


def _found(arm: Arm) -> dict[str, Boxes]:
    """Boxes of an arm on all test images: of each fold's first run."""
    found: dict[str, Boxes] = {}
    seen: set[tuple[str, ...]] = set()
    for one in arm.tested:
        if isinstance(one.data, BoxData) and one.images not in seen:
            seen.add(one.images)
            none = replace(Boxes.empty(), scores=np.zeros(0))
            found |= {str(image): one.data.found.get(image, none) for image in one.data.truth}
    return found


def _readings(
    packs: Sequence[Pack], tested: set[str]
) -> tuple[Readings, Mapping[str, str | None]] | None:
    """Readers' boxes of the test images; None where no pack keeps them apart."""
    boxes: dict[str, Boxes] = {}
    patients: dict[str, str | None] = {}
    who: dict[str, list[str]] = {}
    known = bool(packs) and all(READERS in pack.attributes for pack in packs)
    for pack in packs:
        stated = pack.attribute(READERS) if known else [""] * len(pack.ids)
        for row, image in enumerate(map(str, pack.ids)):
            if image not in tested or image in boxes:
                continue
            own = pack.boxes(row)
            if own is None or (len(own) and own.readers is None):
                continue
            boxes[image] = own
            patients[image] = pack.patients[row] or None
            who[image] = [name for name in str(stated[row] or "").split(";") if name]
    if not any(own.readers for own in boxes.values()):
        return None
    try:
        return readings_of(boxes, fuse_by_image, who if known else None), patients
    except InputError:  # no image that two readers read
        return None
