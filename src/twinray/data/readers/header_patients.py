"""Patients from DICOM headers, for every reader that meets DICOM files and knows no patients of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from twinray.data.decoding.dicom.header import dicom_attributes, is_dicom
from twinray.data.decoding.images import IMAGE_SUFFIXES
from twinray.data.patients import NO_PATIENTS, PATIENT_DATA
from twinray.data.readers.disk import FileLoader
from twinray.errors import InputError
from twinray.progress import progress
from twinray.records import Collection
from twinray.words import counted

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_OTHER_PICTURES = IMAGE_SUFFIXES - DICOM_SUFFIXES


def may_be_dicom(name: str) -> bool:
    """Whether a file of this name can be DICOM: exports often have no ending, or digits of a UID."""
    return PurePosixPath(name).suffix.lower() not in _OTHER_PICTURES


def header_patients(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Patient ID (0010,0020) of those files that are DICOM; empty text where the header has none.

    Files that cannot be read are left out: the decoder says why.
    """
    found: dict[str, str] = {}
    asked = [name for name in names if may_be_dicom(name)]
    if not asked:
        return found
    with progress("reading DICOM headers", len(asked), unit="files") as meter:
        for name in asked:
            try:
                if is_dicom(root / name):
                    found[name] = dicom_attributes(root / name).patient_id
            except InputError:
                pass
            meter.advance()
    return found


def with_header_patients(collection: Collection) -> Collection:
    """The collection with patients from headers where none is known and the files are DICOM."""
    if not isinstance(collection.load, FileLoader):
        return collection
    bare = [sample.source for sample in collection.samples if sample.patient is None]
    found = {
        name: patient
        for name, patient in header_patients(collection.load.root, bare).items()
        if patient
    }
    if not found:
        return collection
    samples = tuple(
        replace(sample, patient=found[sample.source])
        if sample.patient is None and sample.source in found
        else sample
        for sample in collection.samples
    )
    notes = [
        note
        for note in collection.notes
        if not note.startswith(NO_PATIENTS.partition(":")[0])  # no longer true
    ]
    notes.append(header_note(len(found)))
    return replace(collection, samples=samples, notes=tuple(notes))


def header_note(n: int) -> str:
    """What is said where patients came from headers."""
    return f"patients of {counted(n, 'image')} are those of their DICOM headers: {PATIENT_DATA}"
