"""The store of ``twinray serve`` -> Collection: what readers said of images, as boxes and labels to learn from.

Only the store's files are read, never its server: tables by plain SQL, and image files by the hash of their bytes. A store in a
folder is SQLite; one in PostgreSQL is named by ``--database`` beside its folder of files.

What counts
    The newest finished reading of each reader and image. One that was begun and not finished is set aside.
    Boxes that were accepted, moved or added are findings, under the reader's name. Rejected ones are none; they are recorded
    in the attribute ``rejected`` (JSON: box, class, score, how many readers rejected it), so that hard negatives can be found.
    A box that was shown and that no reader judged is no finding and no negative: it becomes a region that evaluation leaves
    out, and its image is not learnt from until the box is judged. Shown are the boxes of the reading's model from the threshold that the page
    had (``shown.threshold``); where none is known, from 0.05. A reader who calls an image normal has judged
    all of its boxes.
    Of a reader study the readings without the model's boxes count, those with them and practice do not. What a reader submitted is all that
    the reader saw; an image that was submitted without a mark is a negative.
    An image that somebody called normal, or on which all boxes were rejected, is kept as a negative. One that was read and
    about whose boxes nothing was said has labels alone.
    A reading that calls an image normal and holds a finding contradicts itself and is set aside, as does one with a box of a
    class whose label it denies.

Labels
    A class of boxes is present where at least ``min_readers`` readers drew one, absent where no reader did, uncertain
    between, and not stated where a box of the class was left unjudged. A label of the whole image, and ``normal``, is present or
    absent where readers agree and uncertain where they do not. What a classifier said of an image is no label: only what a
    reader accepted (present), rejected (absent) or named counts, and a class that nobody judged is not stated.

Splits
    A patient's side (an image's, where the patient is not known) is a hash of the patient's keyed code and ``--seed``,
    set against ``--val`` and ``--test``. It depends on nothing else, so a store that grows never moves a patient to another
    side. The three options are kept in the store's folder at the first pack (``sides.json``), and others are refused later.
    Shares are met on average: a small store may have no test patient yet.

Free text of readers, names of files and dates of studies are not read: they may name people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from twinray.data.annotations import REPEATED, BoxAudit
from twinray.data.fusion import fuse_collection
from twinray.data.patients import NO_PATIENTS
from twinray.data.readers.disk import FileLoader
from twinray.data.readers.feedback.tables import (
    IMAGES,
    Judged,
    MarkedBox,
    PredictedBox,
    StoredImage,
    StoreRows,
    connected,
)
from twinray.errors import InputError, TwinrayError
from twinray.files import read_json, write_json
from twinray.geometry import corner_iou
from twinray.records import (
    ABSENT,
    FEEDBACK,
    PRESENT,
    UNCERTAIN,
    UNKNOWN,
    Boxes,
    Collection,
    FloatArray,
    Sample,
    Skipped,
    Split,
)
from twinray.words import counted

SIDES: Final = "sides.json"
NORMAL: Final = "normal"
"""Label of the whole image: nothing was found."""
FINDINGS: Final = ("accepted", "moved", "added")
_SHOWN_FROM: Final = 0.05
"""Score from which a box counts as shown where the reading does not say; detectors give hundreds of fainter ones."""
_SAME_PX: Final = 0.5
_SAME_FINDING: Final = 0.5
"""Overlap from which an unjudged box and a finding of its class are the same thing."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What decides on which side a patient is.

    Attributes:
        seed: seed of the hash.
        val, test: shares, 0 or more and below 1 together.
    """

    seed: int = 0
    val: float = 0.1
    test: float = 0.2

    def of(self, who: str) -> Split:
        """The side of a patient, or of an image whose patient is not known."""
        digest = hashlib.sha256(f"twinray side {self.seed} {who}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.test:
            return "test"
        return "val" if place < self.test + self.val else "train"


def read_feedback(
    source: Path,
    *,
    database: str | None = None,
    fusion_iou: float = 0.5,
    min_readers: int = 1,
    sides: Sides | None = None,
) -> Collection:
    """Describe the images of a store that were read; a sample's id is the image's id in the store.

    Args:
        source: the store's folder.
        database: URL of its PostgreSQL database; None for SQLite in the folder.
        fusion_iou: threshold at which several readers' boxes are fused, in (0, 1); 0 keeps them as they are, with names.
        min_readers: number of distinct readers that must agree on a label and on a fused box.
        sides: what decides on sides; None leaves the images without splits.

    Raises:
        InputError: no store, one of another version, options out of range, other sides than those of an earlier pack, no reading.
    """
    if not 0 <= fusion_iou < 1:
        raise InputError(
            f"expected --fusion-iou in 0..1 (0: keep every reader's boxes), got {fusion_iou}"
        )
    if min_readers < 1:
        raise InputError(f"expected --min-readers of 1 or more, got {min_readers}")
    if min_readers > 1 and fusion_iou == 0:
        raise InputError(
            "--min-readers needs fused boxes, --fusion-iou 0 keeps them raw; change one of them"
        )
    notes: list[str] = []
    with connected(source, database) as connection:
        store = StoreRows.of(connection)
    if sides is not None:
        _keep_sides(source, sides, notes)
    raw = _collection(source, store, min_readers, sides, notes)
    several = any(s.boxes is not None and len(set(s.boxes.readers or ())) > 1 for s in raw.samples)
    # one reader's boxes stay as drawn: two that overlap are two findings
    return fuse_collection(raw, fusion_iou, min_readers) if fusion_iou and (several or min_readers > 1) else raw  # fmt: skip


def _keep_sides(source: Path, sides: Sides, notes: list[str]) -> None:
    """Refuse other sides than those of the first pack of the store; keep them at the first."""
    path = source / SIDES
    told = {"seed": sides.seed, "val": sides.val, "test": sides.test}
    if path.is_file():
        kept = read_json(path, "sides of a store")
        if kept != told:
            known = kept if isinstance(kept, dict) else {}
            flags = " ".join(f"--{name} {known.get(name)}" for name in told)
            raise InputError(
                f"the patients of {source} are on the sides that {flags} made, and must not move; give these options"
            )
        return
    try:
        write_json(path, told, "sides of a store")
    except TwinrayError:
        notes.append(
            f"WARNING: the sides could not be kept in {source}, which cannot be written; give the same --seed, --val and "
            "--test next time, or patients move to other sides"
        )


def _collection(
    source: Path, store: StoreRows, min_readers: int, sides: Sides | None, notes: list[str]
) -> Collection:
    skipped = [
        Skipped(
            f"image {image}", "a reading of it was begun and not finished; finish it in the viewer"
        )
        for image in store.unfinished
    ]
    skipped += [
        Skipped(f"image {image}", "it was read and could never be decoded")
        for image in sorted(store.readings.keys() - store.images.keys())
    ]
    kept = {image: _consistent(image, store.readings[image], skipped) for image in store.images if image in store.readings}  # fmt: skip
    kept = {image: judged for image, judged in kept.items() if judged}
    if not kept:
        first = f"; first set aside: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"no finished reading in the store {source}{first}; read images in the viewer first"
        )
    drawn = {m.label for judged in kept.values() for j in judged for m in j.marks if m.verdict in FINDINGS}  # fmt: skip
    drawn |= {box.label for image in kept for box in store.predictions.get(image, ())}
    box_classes = (*store.classes, *sorted(drawn - set(store.classes)))
    told = {name for judged in kept.values() for j in judged for name in j.labels}
    # classes of classifiers in their own order, also where nobody named one: a classifier that is trained further has them
    of_images = dict.fromkeys([*store.labels, *sorted(told - {*store.labels})])
    label_classes = (
        *box_classes,
        *(n for n in of_images if n not in {*box_classes, NORMAL}),
        NORMAL,
    )
    audit = BoxAudit(str(source), form="corners")
    made = [
        _sample(store.images[image], judged, store.predictions.get(image, []), _Classes(box_classes, label_classes, min_readers), sides, audit, skipped)
        for image, judged in kept.items()
    ]  # fmt: skip
    notes += audit.conclude(lambda image: store.images[image].size)
    notes += _told(made, kept, sides)
    return Collection(
        name=FEEDBACK,
        label_classes=label_classes,
        box_classes=box_classes,
        task="multilabel",
        samples=tuple(made),
        load=FileLoader(source),
        skipped=tuple(skipped),
        notes=tuple(notes),
        settled=sides is not None,
    )


def _consistent(image: str, judged: Sequence[Judged], skipped: list[Skipped]) -> list[Judged]:
    kept = []
    for one in judged:
        found = [mark for mark in one.marks if mark.verdict in FINDINGS]
        denied = sorted({mark.label for mark in found if one.labels.get(mark.label) is False})
        if denied:
            skipped.append(
                Skipped(
                    f"image {image}, reader {one.reader}",
                    f"a box of {denied[0]} on an image that is said to have none; correct one of the two in the viewer",
                )
            )
        elif one.normal and found:
            skipped.append(
                Skipped(
                    f"image {image}, reader {one.reader}",
                    f"called normal with {len(found)} findings; correct one of the two in the viewer",
                )
            )
        else:
            kept.append(one)
    return kept


@dataclass(frozen=True, slots=True)
class _Classes:
    box: tuple[str, ...]
    label: tuple[str, ...]
    min_readers: int


def _sample(
    image: StoredImage,
    judged: Sequence[Judged],
    predicted: Sequence[PredictedBox],
    classes: _Classes,
    sides: Sides | None,
    audit: BoxAudit,
    skipped: list[Skipped],
) -> Sample:
    found: list[tuple[FloatArray, int, str]] = []
    rejected: dict[tuple[tuple[float, float, float, float], str], list[str]] = {}
    lost = False
    for one in judged:
        for number, mark in enumerate(one.marks):
            if mark.verdict == "rejected":
                rejected.setdefault((mark.xyxy, mark.label), []).append(one.reader)
                continue
            if mark.verdict not in FINDINGS:
                continue
            where = f"image {image.id}, reader {one.reader}, box {number + 1}"
            label = classes.box.index(mark.label)
            box = audit.judge(image.id, label, mark.xyxy, image.size, where, reader=one.reader)
            if isinstance(box, str):
                if box != REPEATED:
                    skipped.append(Skipped(where, box))
                    lost = True
                continue
            found.append((box, label, one.reader))
    open_boxes = _unjudged(judged, predicted, found, classes)
    said_boxes = any(one.normal or one.marks for one in judged)
    boxes = None
    if found:
        boxes = Boxes(
            np.array([box for box, _, _ in found]),
            np.array([label for _, label, _ in found], dtype=np.int64),
            readers=tuple(reader for _, _, reader in found),
        )
    elif said_boxes and not lost and classes.box:  # a classifier's store knows no boxes
        boxes = Boxes.empty()
    regions = None
    if open_boxes and boxes is not None:
        regions = Boxes(
            np.array([one.xyxy for one in open_boxes]),
            np.array([classes.box.index(one.label) for one in open_boxes], dtype=np.int64),
        )
    attributes = {"readers": ", ".join(sorted({one.reader for one in judged}))}
    if image.view:
        attributes["view"] = image.view
    if rejected:
        attributes["rejected"] = json.dumps(
            [
                {
                    "box": list(corners),
                    "class": label,
                    "score": _score(predicted, corners, label),
                    "readers": len(set(readers)),
                }
                for (corners, label), readers in rejected.items()
            ]
        )
    return Sample(
        id=image.id,
        source=f"{IMAGES}/{image.sha256[:2]}/{image.sha256}",
        patient=image.patient,
        split=None if sides is None else sides.of(image.patient or f"image {image.id}"),
        labels=_labels(judged, found, open_boxes, boxes is not None, classes),
        boxes=boxes,
        size=image.size,
        attributes=attributes,
        regions=regions,
    )


def _unjudged(
    judged: Sequence[Judged],
    predicted: Sequence[PredictedBox],
    found: Sequence[tuple[FloatArray, int, str]],
    classes: _Classes,
) -> list[PredictedBox]:
    """Boxes that were shown, that nobody judged, and that are no finding under another corner."""
    if any(one.normal for one in judged):
        return []
    answered = {id(box) for one in judged for mark in one.marks for box in _about(mark, predicted)}
    shown = {
        id(box)
        for one in judged
        for box in predicted
        if box.model in {one.model, *(mark.model for mark in one.marks)}
        and box.score >= (_SHOWN_FROM if one.threshold is None else one.threshold)
    }
    if not any(one.model or any(mark.model for mark in one.marks) for one in judged):
        shown = {id(box) for box in predicted if box.score >= _SHOWN_FROM}  # no model is named
    return [
        box
        for box in predicted
        if id(box) in shown
        and id(box) not in answered
        and not any(
            classes.box.index(box.label) == label
            and corner_iou(np.array(box.xyxy), own) >= _SAME_FINDING
            for own, label, _ in found
        )
    ]


def _about(mark: MarkedBox, predicted: Sequence[PredictedBox]) -> list[PredictedBox]:
    """The predicted boxes that a mark judges: the one it names, else those at its place."""
    if mark.verdict == "added":
        return []
    if mark.prediction is not None:
        return [
            box
            for box in predicted
            if box.position == mark.prediction and mark.model in (None, box.model)
        ]
    same_model = [box for box in predicted if mark.model in (None, box.model)]
    if mark.verdict == "moved":  # where it was is not told: the one that it overlaps most
        own = np.array(mark.xyxy)
        overlaps = [corner_iou(own, np.array(box.xyxy)) for box in same_model]
        best = int(np.argmax(overlaps)) if overlaps else -1
        return [same_model[best]] if best >= 0 and overlaps[best] > 0 else []
    return [
        box
        for box in same_model
        if box.label == mark.label
        and np.abs(np.array(box.xyxy) - np.array(mark.xyxy)).max() <= _SAME_PX
    ]


def _score(
    predicted: Sequence[PredictedBox], corners: tuple[float, float, float, float], label: str
) -> float | None:
    """Score of the predicted box at a place; None where there is none."""
    mark = MarkedBox(corners, label, "rejected", None, None)
    return max((box.score for box in _about(mark, predicted)), default=None)


def _labels(
    judged: Sequence[Judged],
    found: Sequence[tuple[FloatArray, int, str]],
    open_boxes: Sequence[PredictedBox],
    annotated: bool,
    classes: _Classes,
) -> FloatArray:
    """(k,) float32 over the label classes."""
    labels = np.full(len(classes.label), UNKNOWN, dtype=np.float32)
    if annotated:
        labels[: len(classes.box)] = ABSENT
        for box in open_boxes:
            labels[classes.box.index(box.label)] = UNKNOWN
        for label in {label for _, label, _ in found}:
            n = len({reader for _, own, reader in found if own == label})
            labels[label] = PRESENT if n >= classes.min_readers else UNCERTAIN
    for name in classes.label:
        votes = [one.labels[name] for one in judged if name in one.labels]
        if name == NORMAL:
            votes += [one.normal for one in judged if one.normal is not None]
            # a finding says that the image is not normal, whether or not the reader said so too
            votes += [False for one in judged if any(m.verdict in FINDINGS for m in one.marks)]
        if votes:
            value = PRESENT if all(votes) else UNCERTAIN if any(votes) else ABSENT
            labels[classes.label.index(name)] = value
    return labels


def _told(
    samples: Sequence[Sample], kept: Mapping[str, Sequence[Judged]], sides: Sides | None
) -> list[str]:
    readers = {one.reader for judged in kept.values() for one in judged}
    n_readings = sum(len(judged) for judged in kept.values())
    several = sum(len(judged) > 1 for judged in kept.values())
    negatives = sum(s.boxes is not None and not len(s.boxes) for s in samples)
    unjudged = sum(s.regions is not None for s in samples)
    regions = sum(len(s.regions) for s in samples if s.regions is not None)
    rejected = sum(len(json.loads(s.attributes["rejected"])) for s in samples if "rejected" in s.attributes)  # fmt: skip
    notes = [
        f"{counted(n_readings, 'finished reading')} by {counted(len(readers), 'reader')}; {counted(several, 'image was', 'images were')} read by several",
        f"{counted(negatives, 'image without a finding is a negative', 'images without a finding are negatives')}; {counted(rejected, 'rejected box is', 'rejected boxes are')} in the attribute rejected",
    ]
    if sides is not None:
        notes.append(
            f"sides by a hash of the patient (seed {sides.seed}, val {sides.val:g}, test {sides.test:g}): they stay as the "
            "store grows"
        )
    if regions:
        notes.append(
            f"{counted(regions, 'box', 'boxes')} on {counted(unjudged, 'image')} shown and not judged: figures leave them out, and such images of the "
            "training side teach detectors nothing until they are judged in the viewer"
        )
    bare = sum(s.boxes is None for s in samples)
    if bare:
        notes.append(
            f"{counted(bare, 'image was read and nothing was said of boxes: it has', 'images were read and nothing was said of boxes: they have')} labels alone"
        )
    if all(s.patient is None for s in samples):
        notes.append(NO_PATIENTS)
    return notes
