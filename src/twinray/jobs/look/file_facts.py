"""What one file of an archive gives: its measures, and what a DICOM header says of device, year, view and patient.

A module of its own, so that a worker starts without what only the parent needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twinray.data.decoding.images import file_kind, load_image
from twinray.data.look.measure import Measures, measured


@dataclass(frozen=True, slots=True, eq=False)
class FileFacts:
    """One file.

    Attributes:
        measures: what was measured of its pixels, as they are displayed.
        how: way in which stored values became pixels (``dicom window 1 LINEAR inverted``).
        device, year, view: facts of a DICOM header; empty where it is silent, and of other files.
        bits: Bits Stored of a DICOM file; 0 of others.
        patient: Patient ID of a DICOM file; None where unknown.
        lateral: flag, true where the header says that the view is not frontal.
    """

    measures: Measures
    how: str
    device: str = ""
    year: str = ""
    view: str = ""
    bits: int = 0
    patient: str | None = None
    lateral: bool = False


def file_facts(path: Path) -> FileFacts:
    """Decode and measure one file.

    Raises:
        InputError: the file is refused, as by ``pack``.
    """
    pixels = load_image(path)
    measures = measured(pixels.array)
    if file_kind(path) != "dicom":
        return FileFacts(measures, pixels.how)
    from twinray.data.decoding.dicom.header import dicom_attributes

    header = dicom_attributes(path)
    return FileFacts(
        measures,
        pixels.how,
        device=header.device,
        year=header.study_date[:4] if header.study_date[:4].isdigit() else "",
        view=header.view_position,
        bits=header.bits_stored,
        patient=header.patient_id or None,
        lateral=header.lateral,
    )
