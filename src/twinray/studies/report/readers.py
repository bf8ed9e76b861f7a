"""The human ceiling: what one reader finds of what the others marked, and the detectors at that reader's false positives."""

from __future__ import annotations

from collections.abc import Mapping

from twinray.data.fusion import fuse_by_image
from twinray.errors import InputError
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.readers.ceiling import (
    AgainstReader,
    Readings,
    detector_at_readers,
    reader_figures,
    readings_of,
)
from twinray.jobs.evaluate.tested import BoxData
from twinray.records import Boxes
from twinray.report.numbers import count, number
from twinray.report.page.document import Block
from twinray.report.tables import Table, with_interval
from twinray.studies.report.gather import Gathered, Key

_RESAMPLING = Resampling(400, 0)


def ceiling(study: Gathered) -> tuple[tuple[Block, ...], str]:
    """Blocks on readers, and a sentence for the answer; nothing where no pack keeps its readers' boxes apart."""
    blocks: list[Block] = []
    told = ""
    for key, measured in study.measured.items():
        readings = _readings(study, key)
        if readings is None:
            continue
        readers, patients = readings
        task = study.task(key)
        classes = measured.result.classes
        figures = reader_figures(readers, classes, patients, resampling=_RESAMPLING)
        blocks.append(
            Table(
                f"{task.title}: each reader against the fused boxes of the others",
                ("reader", "readings", "sensitivity (95 % interval)", "false positives an image", "weighted AFROC area"),
                tuple(
                    (one.name, count(one.n_readings), with_interval(one.sensitivity), with_interval(one.false_positives),
                     with_interval(one.area) if one.area is not None else "empty readings are not known")
                    for one in figures
                ),
                "A box counts from an IoU of 0.5. Readers who drew nothing are known only where the source lists who read each image.",
            )
        )  # fmt: skip
        rows: list[tuple[str, ...]] = []
        for arm in measured.arms.values():
            data = arm.tested[0].data
            if isinstance(data, BoxData) and arm.fraction == max(task.shares):
                predictions = {str(image): boxes for image, boxes in data.found.items()}
                found = detector_at_readers(readers, predictions, classes, patients, resampling=_RESAMPLING)  # fmt: skip
                rows += [_row(arm.family, one) for one in found]
                if arm.family == task.arms[-1] and found and not told:
                    told = _told(arm.family, found[0])
        blocks.append(
            Table(
                f"{task.title}: detectors at the readers' false positives, first run of each arm",
                ("arm", "against", "false positives an image", "reader", "detector", "detector minus reader"),
                tuple(rows),
            )
        )  # fmt: skip
    return tuple(blocks), told


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


def _readings(study: Gathered, key: Key) -> tuple[Readings, Mapping[str, str | None]] | None:
    """Readers' boxes of the test images; None where the pack does not keep them apart."""
    pack = study.packs[key]
    if pack is None or study.task(key).kind != "detector":
        return None
    boxes: dict[str, Boxes] = {}
    patients: dict[str, str | None] = {}
    for row in pack.where("test"):
        own = pack.boxes(int(row))
        if own is not None and (own.readers is not None or not len(own)):
            boxes[str(pack.ids[row])] = own
            patients[str(pack.ids[row])] = pack.patients[row] or None
    if not any(own.readers for own in boxes.values()):
        return None
    try:
        return readings_of(boxes, fuse_by_image), patients
    except InputError:  # no image that two readers read
        return None
