"""One image file of a store -> pixels and what its header says, in the sandbox; nothing here sees the store's key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from twinray.data.decoding.images import file_kind
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.viewing import View, load_view
from twinray.data.patients import is_nobody


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose image it is, as a DICOM header says; empty texts where it is silent.

    Attributes:
        patient: issuer and number of the patient. acquired: date and time of the study. view: view position.
    """

    patient: str = ""
    acquired: str = ""
    view: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A decoded file and whose it is."""

    view: View
    identity: Identity


def open_file(task: tuple[str, Decoding]) -> Opened:
    """Decode one file; runs in the sandbox.

    Raises:
        InputError: it is no image that can be shown; one line.
    """
    path, decoding = Path(task[0]), task[1]
    view = load_view(path, decoding)
    identity = _identity(path) if file_kind(path) == "dicom" else Identity()
    return Opened(view, identity)


def pseudonym(key: bytes, identity: Identity) -> str | None:
    """Keyed hash of a patient; None where the header names none."""
    if not identity.patient:
        return None
    return hmac.new(key, identity.patient.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[
        :32
    ]


def _is_somebody(number: str) -> bool:
    """Whether a number is one patient's: images of "UNKNOWN" or "0" are of many, and not earlier images of each other."""
    return not (is_nobody(number) or not number.strip("0 .-^"))


def _identity(path: Path) -> Identity:
    from pydicom import dcmread

    from twinray.data.decoding.dicom.header import text

    tags = ("PatientID", "IssuerOfPatientID", "StudyDate", "StudyTime", "ViewPosition")
    with contextlib.suppress(Exception):  # a header that cannot be read names nobody
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(tags), force=True)
        number, issuer, date, time, view = (text(header, tag) for tag in tags)
        acquired = date[:8] + time.partition(".")[0][:6]
        return Identity(
            f"{issuer}\n{number}" if _is_somebody(number) else "",
            acquired if acquired.isdecimal() else "",
            view[:16],
        )
    return Identity()
