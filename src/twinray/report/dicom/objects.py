"""Predicted boxes of a DICOM image as DICOM objects: a Secondary Capture to look at, a Structured Report to read in.

highdicom (extra ``dicom``) builds both. What is decided here:

- Unique identifiers are derived from the content (source image, its pixels, model, version, thresholds, boxes; PS3.5 B.2,
  "2.25." and a UUID): a repeated job gives the same identifiers, so an archive that has the objects already does not
  get them twice, and other boxes or thresholds give others. Repeated objects differ in their dates and times alone; with
  the same ``made`` they are the same bytes.
- Objects of one source series, model and setting form one series of captures and one of reports.
- Texts are written in UTF-8 (ISO_IR 192), whatever the source's character set: class names may need it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from twinray.data.decoding.bounded_file import one_line
from twinray.errors import InputError
from twinray.records import Boxes
from twinray.report.dicom.source import DicomSource
from twinray.report.page.document import DISCLAIMER

MAKER = "twinray"
CHARACTER_SET = "ISO_IR 192"
_NAMESPACE = uuid.UUID("5d3a7c0e-9b1f-4e59-8f43-1f6b6f0e9a27")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What made the boxes.

    Attributes:
        version: of twinray.
        model: SHA-256 of the weights, hexadecimal.
        shown: which boxes are shown, in words (``score >= 0.3``).
    """

    version: str
    model: str
    shown: str

    def as_text(self) -> tuple[str, ...]:
        """What stands in every object and, for people, in the picture's stamp."""
        return (f"{DISCLAIMER}.", f"{MAKER} {self.version}, model {self.model[:12]}.", f"Boxes shown: {self.shown}.")


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """All that one image's objects are made of.

    Attributes:
        source: identity of the source image.
        image: its (h, w) or (h, w, 3) uint8 display pixels.
        boxes: the boxes to show, with scores, in pixels of the source image.
        classes: names that labels of boxes index.
        algorithm: what made them.
        made: date and time of creation.
    """

    source: DicomSource
    image: npt.NDArray[np.uint8]
    boxes: Boxes
    classes: Sequence[str]
    algorithm: Algorithm
    made: datetime

    def uid(self, kind: str) -> str:
        """A unique identifier for an object of this image, from everything but ``made``."""
        boxes = [self.boxes.xyxy.tolist(), [self.classes[int(i)] for i in self.boxes.labels]]
        scores = None if self.boxes.scores is None else self.boxes.scores.tolist()
        pixels = hashlib.sha256(self.image.tobytes()).hexdigest()
        return derived_uid(kind, self.source.sop, self._setting(), self.image.shape, pixels, boxes, scores)

    def series_uid(self, kind: str) -> str:
        """The series of such objects of the source's series."""
        return derived_uid(kind, self.source.study, self.source.series, self._setting())

    def _setting(self) -> list[str]:
        return [self.algorithm.version, self.algorithm.model, self.algorithm.shown]


def derived_uid(*content: Any) -> str:
    """A UID from JSON-like content: the same content gives the same one (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(content)).int}"


def objects_available() -> bool:
    """Whether highdicom, which builds the objects, is installed."""
    return importlib.util.find_spec("highdicom") is not None


def dicom_objects(finding: Finding) -> dict[str, bytes]:
    """Build both objects.

    Returns:
        The bytes of a DICOM file under ``sc`` (Secondary Capture) and ``sr`` (Structured Report, TID 1500).

    Raises:
        InputError: the source's values do not allow it; one line.
    """
    from twinray.report.dicom.secondary_capture import secondary_capture  # both import highdicom, for a second or two
    from twinray.report.dicom.structured_report import structured_report

    built = {}
    for kind, build in (("sc", secondary_capture), ("sr", structured_report)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they print patients' names
                built[kind] = _file(build(finding), finding.made)
        except Exception as error:  # highdicom raises ValueError, TypeError, AttributeError, KeyError on odd sources
            raise InputError(
                f"expected patient and study data that a new DICOM object can take over, the {kind.upper()} object "
                f"could not be made ({type(error).__name__}: {one_line(error)}); the boxes are written all the same"
            ) from error
    return built


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


def _file(dataset: Dataset, made: datetime) -> bytes:
    """The dataset as a file, with ``made`` in place of the clock that highdicom reads."""
    date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    for keyword in ("InstanceCreation", "Content"):
        setattr(dataset, f"{keyword}Date", date)
        setattr(dataset, f"{keyword}Time", time)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = date, time
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        equipment.ContributionDateTime = date + time
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
