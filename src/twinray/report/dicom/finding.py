"""What both DICOM objects of a result are made of."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from twinray.about import DISCLAIMER
from twinray.records import Boxes
from twinray.report.dicom.source import DicomSource

MAKER = "twinray"


CHARACTER_SET = "ISO_IR 192"


_NAMESPACE = uuid.UUID("5d3a7c0e-9b1f-4e59-8f43-1f6b6f0e9a27")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made the boxes.

    Attributes:
        version: version of twinray.
        model: SHA-256 of the weights, hexadecimal.
        shown: rule of which boxes are shown, in words (``score >= 0.3``).
    """

    version: str
    model: str
    shown: str

    def as_text(self) -> tuple[str, ...]:
        """The notice, version and model, and the rule."""
        return (
            f"{DISCLAIMER}.",
            f"{MAKER} {self.version}, model {self.model[:12]}.",
            f"Boxes shown: {self.shown}.",
        )


@dataclass(frozen=True, slots=True)
class Review:
    """What one reader made of the boxes that a model drew.

    Attributes:
        reader: name under which the reader signed in.
        verdicts: verdict of each box, ``accepted``, ``moved`` or ``added``; rejected boxes are no findings.
        normal: flag, true of an image that the reader called normal; None where nothing was said.
        labels: classes of the whole image that the reader stated, each with true (present) or false (absent).
    """

    reader: str
    verdicts: tuple[str, ...]
    normal: bool | None = None
    labels: tuple[tuple[str, bool], ...] = ()

    @property
    def person_name(self) -> str:
        """The name as DICOM writes a person's: the caret says that it is a family name and no more."""
        plain = "".join(c if c.isprintable() and c not in "\\^=" else " " for c in self.reader)
        return f"{' '.join(plain.split())[:60]}^"

    def as_text(self) -> tuple[str, ...]:
        """What the reader said of the whole image, for people; nothing where nothing was said."""
        said = ["called normal"] if self.normal else []
        said += [f"{name} {'present' if there else 'absent'}" for name, there in self.labels]
        return (f"Whole image, by the reader: {', '.join(said)}.",) if said else ()


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """All that one image's objects are made of.

    Attributes:
        source: identity of the source image.
        image: its (h, w) or (h, w, 3) uint8 display pixels.
        boxes: the boxes to show, with scores, in pixels of the source image. The score of a box that
            no model gave one is NaN.
        classes: names that labels of boxes index.
        algorithm: algorithm that made them.
        made: date and time of creation.
        review: reader's verdict on them; None where nobody has looked.
    """

    source: DicomSource
    image: npt.NDArray[np.uint8]
    boxes: Boxes
    classes: Sequence[str]
    algorithm: Algorithm
    made: datetime
    review: Review | None = None

    def as_text(self) -> tuple[str, ...]:
        """What stands in every object and, for people, in the picture's stamp."""
        return self.algorithm.as_text() + (() if self.review is None else self.review.as_text())

    def uid(self, kind: str) -> str:
        """A unique identifier for an object of this image, from everything but ``made``."""
        boxes = [self.boxes.xyxy.tolist(), [self.classes[int(i)] for i in self.boxes.labels]]
        scores = None if self.boxes.scores is None else self.boxes.scores.tolist()
        pixels = hashlib.sha256(self.image.tobytes()).hexdigest()
        return derived_uid(
            kind, self.source.sop, self._setting(), self.image.shape, pixels, boxes, scores
        )

    def series_uid(self, kind: str) -> str:
        """The series of such objects of the source's series."""
        algorithm = self.algorithm
        by = [] if self.review is None else [self.review.reader]
        setting = [algorithm.version, algorithm.model, algorithm.shown, *by]
        return derived_uid(kind, self.source.study, self.source.series, setting)

    def _setting(self) -> list[Any]:
        made_by: list[Any] = [self.algorithm.version, self.algorithm.model, self.algorithm.shown]
        review = self.review
        if review is not None:
            labels = [list(review.labels)] if review.labels else []
            made_by.append([review.reader, *review.verdicts, review.normal, *labels])
        return made_by


def derived_uid(*content: Any) -> str:
    """A UID from JSON-like content: the same content gives the same one (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(content)).int}"


def identity(source: DicomSource) -> Dataset:
    """The source's identity as a dataset: what the new objects copy, and what they refer to."""
    header = Dataset()
    header.SpecificCharacterSet = CHARACTER_SET
    header.SOPClassUID, header.SOPInstanceUID = source.sop_class, source.sop
    header.StudyInstanceUID, header.SeriesInstanceUID = source.study, source.series
    header.PatientID = source.patient_id
    for keyword, value in source.study_attributes:
        if value or keyword != "IssuerOfPatientID":  # the others may be empty, but not absent
            setattr(header, keyword, value)
    if source.deidentified:
        header.PatientIdentityRemoved = "YES"
        header.DeidentificationMethod = list(source.deidentification)
    return header


def device(finding: Finding) -> dict[str, Any]:
    """highdicom's arguments for the equipment that made an object, and for its texts."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": finding.algorithm.version,
        "device_serial_number": finding.algorithm.model,
        "specific_character_set": CHARACTER_SET,
    }
