"""What a reader study found: figures by reader and arm, their paired differences, RJafroc's workbook, readings and marks as tables.

Rules and truth are those that were fixed before the first reading. Readings that are not final are not read.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from twinray.about import DISCLAIMER
from twinray.errors import InputError
from twinray.evaluation.readers.mrmc import Analysis, ArmEffect
from twinray.evaluation.readers.reader_study import MEASURES, Reading, StudyFigures, study_figures
from twinray.evaluation.record import Figure, figure_as_json
from twinray.files import write_json, write_text
from twinray.records import Boxes
from twinray.report.jafroc_file import write_jafroc
from twinray.report.tables import with_interval
from twinray.serving.readings.design import ARMS, PRACTICE, Design, design_of
from twinray.serving.store.models import Slot
from twinray.serving.store.readings import Whole
from twinray.serving.store.store import Store

FIGURES, TABLE, READINGS, MARKS, WORKBOOK = (
    "figures.json",
    "figures.csv",
    "readings.csv",
    "marks.csv",
    "study.xlsx",
)
_PLACES: Final = ("study", "cases", "images", "practice", "practice_images")
_NAMES: Final = {
    "sensitivity": "sensitivity",
    "false_positives": "false positives an image",
    "area": "area",
}


@dataclass(frozen=True)
class Found:
    """What was written, and what is said of it.

    Attributes:
        figures: figures. lines: words for the operator. files: files that were written.
    """

    figures: StudyFigures
    lines: tuple[str, ...]
    files: tuple[Path, ...]


def write_study(store: Store, name: str, out: Path, who: str) -> Found:
    """Work out a study's figures and write them into a folder; the audit notes that somebody looked.

    Args:
        store: open store.
        name: name of the study.
        out: folder, which is made.
        who: who asks.

    Raises:
        InputError: there is no such study, or nobody has submitted a reading.
        TwinrayError: the disk refuses.
    """
    study = store.studies.get(name)
    if study is None:
        known = ", ".join(one.name for one in store.studies.all()) or "none"
        raise InputError(f"expected a reader study of this store, there is no {name!r} (known: {known})")  # fmt: skip
    design = design_of(study.design)
    slots = [slot for slot in store.studies.slots(name) if slot.session != PRACTICE]
    final = [one for one in store.studies.submitted(name) if one[0].session != PRACTICE]
    if not final:
        raise InputError(f"nobody has submitted a reading of the study {name} yet")
    here = {slot.image for slot in slots}
    cases = [case for case in design.cases if case.image in here]
    figures = study_figures(
        [_reading(design, slot, whole) for slot, whole in final],
        {case.image: case.truth() for case in cases},
        design.classes,
        ARMS,
        {case.image: f"p{case.patient}" for case in cases},
        rule=design.rule,
        highest=float(design.file.highest_rating),
    )
    left = len(slots) - len(final)
    notes = [
        *([f"WARNING: {left:,} of {len(slots):,} readings are still to come; who looks before the end and then changes something has another study"] if left else []),
        *([f"WARNING: {len(design.cases) - len(cases):,} cases were forgotten since the study was fixed"] if len(cases) < len(design.cases) else []),
        *figures.notes,
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FIGURES, _as_json(design, figures, notes), "figures of a reader study")
    write_text(out / TABLE, _csv(_figure_rows(figures)), "figures of a reader study")
    write_text(out / READINGS, _csv(_reading_rows(final)), "readings of a study")
    write_text(out / MARKS, _csv(_mark_rows(final)), "marks of a study")
    files = [out / one for one in (FIGURES, TABLE, READINGS, MARKS)]
    if figures.table is not None:
        try:
            files += write_jafroc(figures.table, out / WORKBOOK)
        except InputError as error:  # a package that is not installed takes no figure away
            notes.append(f"WARNING: {WORKBOOK} was not written: {error}")
    store.audit.add(who, "study figures", details={"study": name, "readings": len(final)})
    return Found(figures, (*_lines(design, figures), *notes, f"{DISCLAIMER}."), tuple(files))


def _reading(design: Design, slot: Slot, whole: Whole) -> Reading:
    marks = whole.marks
    boxes = Boxes(
        np.array([(m.x0, m.y0, m.x1, m.y1) for m in marks], dtype=np.float64).reshape(-1, 4),
        np.array([design.classes.index(m.label) for m in marks], dtype=np.int64),
        np.array([(m.rating or 0) / design.file.highest_rating for m in marks], dtype=np.float64),
    )
    seconds = whole.reading.seconds
    return Reading(
        slot.reader, slot.arm, slot.image, boxes, math.nan if seconds is None else seconds
    )


def _as_json(design: Design, figures: StudyFigures, notes: Sequence[str]) -> dict[str, Any]:
    file = dataclasses.asdict(design.file)
    return {
        "study": design.file.study,
        "design": design.fingerprint(),
        "arms": [*figures.arms],
        "area": figures.merit,
        "rule": design.rule.told(),
        "options": {key: file[key] for key in file if key not in _PLACES},
        "model": design.model,
        "cases": len(design.cases),
        "practice_cases": len(design.practice),
        "by_reader": [
            {
                "reader": one.reader,
                "arm": one.arm,
                "cases": one.n_cases,
                "lesions": one.n_lesions,
                "marks": one.n_marks,
                **{key: figure_as_json(own) for key, own in one.figures.items()},
                "seconds": figure_as_json(one.seconds),
            }
            for one in figures.by_reader
        ],
        "differences": [
            {
                "reader": one.reader,
                "cases": one.n_cases,
                **{key: figure_as_json(own) for key, own in one.figures.items()},
                "time_ratio": figure_as_json(one.time_ratio),
            }
            for one in figures.differences
        ],
        "over_readers": {
            "effects": figures.effects,
            "readers": [*figures.complete],
            **{key: _analysis(own) for key, own in figures.crossed.items()},
        },
        "notes": [*notes],
        "disclaimer": DISCLAIMER,
    }


def difference_of(analysis: Analysis) -> ArmEffect:
    """With minus without, the mean over readers."""
    own = analysis.differences[0, 1]
    return dataclasses.replace(own, value=-own.value, low=-own.high, high=-own.low)


def _analysis(analysis: Analysis) -> dict[str, Any]:
    return {
        "statistic": _plain(analysis.statistic),
        "freedom": [_plain(one) for one in analysis.freedom],
        "p": _plain(analysis.p),
        "arms": {arm: _effect(one) for arm, one in zip(ARMS, analysis.arms, strict=True)},
        "difference": _effect(difference_of(analysis)),
    }


def _effect(effect: ArmEffect) -> dict[str, Any]:
    return {key: _plain(value) for key, value in dataclasses.asdict(effect).items()}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _figure_rows(figures: StudyFigures) -> list[list[Any]]:
    rows: list[list[Any]] = [["reader", "what", "measure", "value", "low", "high", "p"]]

    def add(reader: str, what: str, measure: str, figure: Figure) -> None:
        low, high = figure.ci95 or (None, None)
        rows.append([reader, what, measure, figure.value, low, high, None])

    for one in figures.by_reader:
        for measure, figure in one.figures.items():
            add(one.reader, one.arm, measure, figure)
        add(one.reader, one.arm, "seconds", one.seconds)
    for own in figures.differences:
        for measure, figure in own.figures.items():
            add(own.reader, f"{ARMS[1]} - {ARMS[0]}", measure, figure)
        add(own.reader, f"{ARMS[1]} / {ARMS[0]}", "seconds", own.time_ratio)
    for measure, analysis in figures.crossed.items():
        for arm, effect in zip(ARMS, analysis.arms, strict=True):
            rows.append(["all", arm, measure, effect.value, _plain(effect.low), _plain(effect.high), None])  # fmt: skip
        effect = difference_of(analysis)
        rows.append(
            ["all", f"{ARMS[1]} - {ARMS[0]}", measure, effect.value, _plain(effect.low), _plain(effect.high), _plain(effect.p)]
        )  # fmt: skip
    return rows


def _reading_rows(final: Sequence[tuple[Slot, Whole]]) -> list[list[Any]]:
    head: list[Any] = [
        "reader", "session", "position", "arm", "case", "opened", "submitted", "seconds", "seconds_with_boxes", "marks"
    ]  # fmt: skip
    return [
        head,
        *(
            [
                slot.reader, slot.session, slot.position, slot.arm, slot.image, slot.opened, slot.submitted,
                whole.reading.seconds, whole.reading.shown.get("boxes_seconds"), len(whole.marks),
            ]
            for slot, whole in final
        ),
    ]  # fmt: skip


def _mark_rows(final: Sequence[tuple[Slot, Whole]]) -> list[list[Any]]:
    head: list[Any] = [
        "reader", "session", "arm", "case", "class", "rating", "x0", "y0", "x1", "y1", "verdict", "prediction"
    ]  # fmt: skip
    return [
        head,
        *(
            [slot.reader, slot.session, slot.arm, slot.image, m.label, m.rating, m.x0, m.y0, m.x1, m.y1, m.verdict, m.prediction]
            for slot, whole in final
            for m in whole.marks
        ),
    ]  # fmt: skip


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _lines(design: Design, figures: StudyFigures) -> list[str]:
    lines = [
        f"{design.file.study}: {len(design.cases):,} cases, {len(design.file.readers)} readers; a hit: {design.rule.told()}",
        f"the area is that under the {figures.merit} curve; 95 % intervals over patients by reader, and over readers and patients for all",
    ]
    for one in figures.by_reader:
        own = ", ".join(
            f"{_NAMES[m]} {with_interval(one.figures[m], digits=2 if m == 'false_positives' else 3)}"
            for m in MEASURES
        )
        lines.append(f"{one.reader} {one.arm}: {own}, median {with_interval(one.seconds, digits=1)} s, {one.n_cases:,} cases")  # fmt: skip
    for own_difference in figures.differences:
        words = ", ".join(
            f"{_NAMES[m]} {with_interval(own_difference.figures[m], digits=2 if m == 'false_positives' else 3, sign=True)}"
            for m in MEASURES
        )
        lines.append(f"{own_difference.reader} {ARMS[1]} - {ARMS[0]}: {words}, time x {with_interval(own_difference.time_ratio, digits=2)}")  # fmt: skip
    for measure, analysis in figures.crossed.items():
        effect = difference_of(analysis)
        lines.append(
            f"all readers {ARMS[1]} - {ARMS[0]}: {_NAMES[measure]} {effect.value:+.3f} ({effect.low:.3f} to {effect.high:.3f}), "
            f"p {analysis.p:.3f} ({figures.effects})"
        )
    return lines
