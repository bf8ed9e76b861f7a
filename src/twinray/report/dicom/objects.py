"""Boxes of a DICOM image as DICOM objects: a Secondary Capture, a Structured Report, a presentation state.

The capture is to look at, the report to read in, the presentation state (GSPS) for viewers that know no reports.
highdicom (extra ``dicom``) builds them. What is decided here:

- Unique identifiers are "2.25." and a UUID (PS3.5 B.2), derived from the content. The content is
  source image, its pixels, model, version, thresholds and boxes. A repeated job gives the same
  identifiers, so an archive that has the objects already does not get them twice. Other boxes or
  thresholds give other identifiers. Repeated objects differ in their dates and times alone; with
  the same ``made`` they are the same bytes.
- Objects of one source series, model and setting form one series of captures and one of reports.
- Texts are written in UTF-8 (ISO_IR 192), whatever the source's character set: class names may need it.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime

from pydicom.dataset import Dataset

from twinray.data.decoding.bounded_file import one_line
from twinray.errors import InputError
from twinray.report.dicom.finding import Finding

KINDS = ("sc", "sr", "gsps")
"""What can be built: Secondary Capture, Structured Report, Grayscale Softcopy Presentation State."""


def objects_available() -> bool:
    """Whether highdicom, which builds the objects, is installed."""
    return importlib.util.find_spec("highdicom") is not None


def dicom_objects(
    finding: Finding,
    *,
    compressed: bool = True,
    kinds: Sequence[str] = ("sc", "sr"),
    display: Dataset | None = None,
) -> dict[str, bytes]:
    """Build objects.

    Args:
        finding: what they are made of.
        compressed: flag to compress the capture's pixels, without loss (JPEG 2000).
        kinds: those to build, of :data:`KINDS`.
        display: how the source is displayed, of :func:`twinray.report.dicom.source.read_display`; ``gsps`` needs it.

    Returns:
        The bytes of a DICOM file under ``sc`` (Secondary Capture), ``sr`` (Structured Report, TID 1500) and ``gsps``
        (Grayscale Softcopy Presentation State).

    Raises:
        InputError: the source's values do not allow it; one line.
    """
    # they import highdicom, for a second or two
    from twinray.report.dicom.presentation_state import presentation_state
    from twinray.report.dicom.secondary_capture import secondary_capture
    from twinray.report.dicom.structured_report import structured_report

    built = {}
    builders: dict[str, Callable[[Finding], Dataset]] = {
        "sc": functools.partial(secondary_capture, compressed=compressed),
        "sr": structured_report,
        "gsps": functools.partial(presentation_state, display=display),
    }
    for kind, build in ((kind, builders[kind]) for kind in kinds):
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


def _file(dataset: Dataset, made: datetime) -> bytes:
    """The dataset as a file, with ``made`` in place of the clock that highdicom reads."""
    date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    for keyword in ("InstanceCreation", "Content"):
        setattr(dataset, f"{keyword}Date", date)
        setattr(dataset, f"{keyword}Time", time)
    if "PresentationCreationDate" in dataset:
        dataset.PresentationCreationDate, dataset.PresentationCreationTime = date, time
        for keyword in ("ContentDate", "ContentTime"):  # not of this module
            delattr(dataset, keyword)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = date, time
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        equipment.ContributionDateTime = date + time
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
