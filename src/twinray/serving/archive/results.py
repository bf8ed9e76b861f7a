"""One image's boxes -> the objects that go back to its archive, made in the sandbox from the file as it came.

Patient, study and accession are read from that file, never from a table: what goes back can belong to no one else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from twinray.errors import InputError
from twinray.records import Boxes
from twinray.report.dicom.finding import Algorithm, Finding, Review


@dataclass(frozen=True)
class Shown:
    """A box that goes back: corners in original pixels, class name, score (None: no model gave one), reader's verdict."""

    corners: tuple[float, float, float, float]
    label: str
    score: float | None
    verdict: str = ""


@dataclass(frozen=True)
class Task:
    """What is to be made.

    Attributes:
        path: image file. kinds: objects, of ``sr``, ``sc``, ``gsps``. boxes: boxes.
        version, model, rule: what made the boxes. made: seconds since 1970, UTC.
        reader: who signed; empty where nobody did. normal, labels: what the reader said of the whole image.
        compressed: flag to compress captures.
    """

    path: str
    kinds: tuple[str, ...]
    boxes: tuple[Shown, ...]
    version: str
    model: str
    rule: str
    made: float
    reader: str = ""
    normal: bool | None = None
    labels: tuple[tuple[str, bool], ...] = ()
    compressed: bool = True


@dataclass(frozen=True)
class Made:
    """Objects by kind, and the study that they belong to."""

    study: str
    files: dict[str, bytes]


def make(task: Task) -> Made:
    """The objects; runs in the sandbox.

    Raises:
        InputError: the file does not allow it; one line.
    """
    from twinray.data.decoding.images import load_image
    from twinray.report.dicom.objects import dicom_objects
    from twinray.report.dicom.source import read_display, read_source

    path = Path(task.path)
    source = read_source(path)
    labels = [*dict.fromkeys(box.label for box in task.boxes)]
    scores = [np.nan if box.score is None else box.score for box in task.boxes]
    boxes = Boxes(
        np.array([box.corners for box in task.boxes], dtype=np.float64).reshape(-1, 4),
        np.array([labels.index(box.label) for box in task.boxes], dtype=np.int64),
        np.array(scores, dtype=np.float64),
    )
    review = None
    if task.reader:
        verdicts = tuple(box.verdict for box in task.boxes)
        review = Review(task.reader, verdicts, task.normal, task.labels)
    finding = Finding(
        source,
        load_image(path).array,
        boxes,
        labels,
        Algorithm(task.version, task.model or "none", task.rule),
        datetime(*time.gmtime(task.made)[:6]),
        review,
    )
    display = read_display(path) if "gsps" in task.kinds else None
    files = dicom_objects(finding, compressed=task.compressed, kinds=task.kinds, display=display)
    return Made(source.study, files)


def whose(path: str) -> tuple[str, str]:
    """Number of the patient and its issuer, as a DICOM file has them; runs in the sandbox.

    Raises:
        InputError: the header cannot be read.
    """
    from pydicom import dcmread

    from twinray.data.decoding.bounded_file import parser_faults_as_input_errors
    from twinray.data.decoding.dicom.header import text

    with parser_faults_as_input_errors(Path(path), "reading the patient", "leave it out"):
        tags = ["PatientID", "IssuerOfPatientID"]
        header = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        return text(header, "PatientID"), text(header, "IssuerOfPatientID")


def work(task: Task | str) -> Made | tuple[str, str]:
    """Either of both: one process serves for all."""
    if isinstance(task, Task):
        return make(task)
    if isinstance(task, str):
        return whose(task)
    raise InputError("expected a task")
