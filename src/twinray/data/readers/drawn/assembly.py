"""What readers of drawn annotations share: boxes by the names of their classes, on images by name -> Collection.

A reader makes an :class:`Image` for every image that its source describes and hands each shape to :meth:`Assembly.draw`.
What happens to a box is the same in every format:

- a box that cannot be right is set aside with its place, and the image's label for its class is unknown, not absent;
- a repeated annotation is kept once and counted;
- an image of which every box was set aside counts as never annotated rather than as healthy;
- a region that evaluation leaves out (``difficult`` of Pascal VOC) is kept apart, and its class is unknown there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twinray.data.annotations import REPEATED, BoxAudit, Form, Size, file_size
from twinray.data.patients import NO_PATIENTS
from twinray.data.readers.disk import FileLoader
from twinray.errors import InputError
from twinray.records import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    Boxes,
    Collection,
    FloatArray,
    Sample,
    Skipped,
    Split,
)

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(slots=True)
class Image:
    """What a source says of one image.

    Attributes:
        id: id, unique in the source.
        source: path of its file relative to the root.
        annotated: flag, true where somebody looked at it.
        size: (width, height) that the source states for the file; None where it states none.
        frame: (width, height) that boxes are in where that is not the file's own.
        patient, split, attributes: facts as in :class:`twinray.records.Sample`.
        stated: names of classes that are stated present without a box.
        doubtful: flag, true where something was set aside that may be of any class.
        lost: names of classes of which something was set aside.
    """

    id: str
    source: str
    annotated: bool = True
    size: Size | None = None
    frame: Size | None = None
    patient: str | None = None
    split: Split | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    stated: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    doubtful: bool = False
    _boxes: list[tuple[str, FloatArray, str]] = field(default_factory=list)
    _regions: list[tuple[str, FloatArray]] = field(default_factory=list)

    @property
    def drawn(self) -> set[str]:
        """Names of the classes that it has a box or a region of."""
        return {one[0] for one in self._boxes} | {one[0] for one in self._regions}

    @property
    def classes(self) -> set[str]:
        """Names of the classes that it has a box or a region of, or that are stated or lost."""
        return self.drawn | self.stated | self.lost

    def sample(self, number: Mapping[str, int], boxed: Mapping[str, int], least: int) -> Sample:
        """The image over the classes of labels ``number`` and of boxes ``boxed``; a label needs ``least`` readers."""
        labels = boxes = None
        if self.annotated:
            labels = np.full(len(number), ABSENT, dtype=np.float32)
            if self.doubtful:
                labels[:] = UNKNOWN
            labels[[number[name] for name in self.lost | {n for n, _ in self._regions}]] = UNKNOWN
            for name in {name for name, *_ in self._boxes}:
                readers = {reader for other, _, reader in self._boxes if other == name}
                if len(readers) >= least or readers == {""}:
                    labels[number[name]] = PRESENT
            labels[[number[name] for name in self.stated]] = PRESENT
            if self._boxes or not (self.lost or self.doubtful):
                readers_of = tuple(reader for *_, reader in self._boxes)
                boxes = Boxes(
                    np.array([box for _, box, _ in self._boxes], dtype=np.float64).reshape(-1, 4),
                    np.array([boxed[name] for name, *_ in self._boxes], dtype=np.int64),
                    readers=readers_of if any(readers_of) else None,
                )
        regions = None
        if self._regions:
            regions = Boxes(
                np.array([box for _, box in self._regions], dtype=np.float64),
                np.array([boxed[name] for name, _ in self._regions], dtype=np.int64),
            )
        return Sample(
            id=self.id,
            source=self.source,
            patient=self.patient,
            split=self.split,
            labels=labels if number else None,
            boxes=boxes,
            boxes_frame=self.frame if boxes is not None else None,
            size=self.size,
            attributes=self.attributes,
            regions=regions,
        )


@dataclass(slots=True)
class Assembly:
    """A source of drawn annotations, image by image.

    Attributes:
        source: file or folder that is read, for messages.
        root: folder that sources of images are relative to.
        form: way in which the source writes a box, for messages.
        images: the images by id.
        skipped, notes: what was set aside, and what users must know.
    """

    source: Path
    root: Path
    form: Form = "corners"
    images: dict[str, Image] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _audits: dict[bool, BoxAudit] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)

    def add(self, image: Image, where: str) -> bool:
        """Take an image; False (and set aside) where its id or its file is there already."""
        if image.id in self.images:
            self.set_aside(where, f"{image.id[:120]} is there already; keep one of them")
            return False
        owner = self._sources.setdefault(image.source, image.id)
        if owner != image.id:
            self.set_aside(
                where,
                f"its image {image.source[:120]} is that of {owner[:120]} too; keep one of them",
            )
            return False
        self.images[image.id] = image
        return True

    def set_aside(self, where: str, reason: str) -> None:
        """Set something aside."""
        self.skipped.append(Skipped(where, reason))

    def nameless(self, image: Image, where: str, reason: str) -> None:
        """Set something aside that may be of any class: what is not stated for the image is unknown."""
        self.set_aside(where, reason)
        image.doubtful = True

    def draw(
        self,
        image: Image,
        name: str,
        box: Corners | str,
        where: str,
        *,
        reader: str = "",
        outline: FloatArray | None = None,
        left_out: bool = False,
    ) -> None:
        """Judge a box and keep it.

        Args:
            image: the image, taken before.
            name: class.
            box: corners in pixels of the image's frame; or why there are none.
            where: place of the annotation.
            reader: who drew it.
            outline: (4,) box around an outline that the source gives beside the box.
            left_out: flag of a region that evaluation leaves out.
        """
        audit = self._audits.setdefault(left_out, BoxAudit(str(self.source), form=self.form))
        judged: FloatArray | str = box if isinstance(box, str) else ""
        if not isinstance(box, str):
            number = self._numbers.setdefault(name, len(self._numbers))
            frame = image.frame or image.size
            judged = audit.judge(
                image.id, number, box, frame, where, reader=reader, outline=outline
            )
        if isinstance(judged, str):
            if judged != REPEATED:
                self.set_aside(where, f"{judged}; correct it")
                image.lost.add(name)
        elif left_out:
            image._regions.append((name, judged))
        else:
            image._boxes.append((name, judged, reader))

    def collection(
        self,
        name: str,
        *,
        label_classes: Sequence[str] | None = None,
        box_classes: Sequence[str] | None = None,
        min_readers: int = 1,
    ) -> Collection:
        """The collection; classes that are not given are those that occur, in alphabetical order.

        Raises:
            InputError: no image is left, or the boxes cannot be in pixels of the images.
        """
        if not self.images:
            first = (
                f"; first set aside: {self.skipped[0].where}: {self.skipped[0].reason}"
                if self.skipped
                else ""
            )
            raise InputError(
                f"expected images in {self.source}, found none that can be used{first}"
            )
        if True in self._audits:
            self._audits[True].conclude(self._size)
        if False in self._audits:
            self.notes += self._audits[False].conclude(self._size)
        occur = sorted({name for image in self.images.values() for name in image.classes})
        drawn = {name for image in self.images.values() for name in image.drawn | image.lost}
        boxed = [name for name in occur if name in drawn] if box_classes is None else box_classes
        labels = list(dict.fromkeys((*boxed, *occur))) if label_classes is None else label_classes
        if all(image.patient is None for image in self.images.values()):
            self.notes.append(NO_PATIENTS)
        if never := sum(not image.annotated for image in self.images.values()):
            self.notes.append(f"{never:,} of {len(self.images):,} images were never annotated")
        if regions := sum(len(image._regions) for image in self.images.values()):
            self.notes.append(
                f"{regions:,} regions are left out of evaluation (no prediction that lies in one counts); their class counts as "
                "unknown in those images"
            )
        number = {name: k for k, name in enumerate(labels)}
        box_number = {name: k for k, name in enumerate(boxed)}
        samples = tuple(
            image.sample(number, box_number, min_readers) for image in self.images.values()
        )
        return Collection(
            name=name,
            label_classes=tuple(labels),
            box_classes=tuple(boxed),
            task="multilabel" if labels else "none",
            samples=samples,
            load=FileLoader(self.root),
            skipped=tuple(self.skipped),
            notes=tuple(self.notes),
        )

    def _size(self, key: str) -> Size | None:
        return file_size(self.root / self.images[key].source)


def extent(points: Iterable[tuple[float, float]]) -> Corners | str:
    """The box around points; or why there is none."""
    values = np.array(list(points), dtype=np.float64).reshape(-1, 2)
    if len(values) < 2 or not np.isfinite(values).all():
        return "expected an outline of at least two points that are numbers"
    (left, top), (right, bottom) = values.min(axis=0), values.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def turned(box: Corners, degrees: float, about: tuple[float, float]) -> Corners:
    """The box around a box that is turned clockwise, as seen with y downward, about a point."""
    if degrees % 360 == 0:
        return box
    left, top, right, bottom = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    moved = (corners - about) @ np.array([[cos, sin], [-sin, cos]]) + about
    (x1, y1), (x2, y2) = moved.min(axis=0), moved.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def turned_ellipse(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float
) -> Corners:
    """The box around an ellipse of these radii that is turned about its centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.hypot(radii[0] * cos, radii[1] * sin)
    half_height = math.hypot(radii[0] * sin, radii[1] * cos)
    x, y = centre
    return x - half_width, y - half_height, x + half_width, y + half_height


def patients_from_names(images: Iterable[Image], expression: str | None) -> None:
    """Give images the patient that an expression finds in their file's name, else in its path.

    Raises:
        InputError: a bad expression, one without a group, or one that finds no patient in some name.
    """
    if expression is None:
        return
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"expected a regular expression for --patient-regex, got {expression!r}: {error}"
        ) from error
    if not pattern.groups:
        raise InputError(
            f"expected a group in --patient-regex '{expression}': what is in (...) is the patient"
        )
    for image in images:
        for text in (image.source.rpartition("/")[2], image.source):
            found = pattern.search(text)
            group = next((g for g in found.groups() if g), None) if found else None
            if group:
                break
        if not group:
            raise InputError(
                f"--patient-regex '{expression}' finds no patient in {image.source}; extend it"
            )
        image.patient = group
