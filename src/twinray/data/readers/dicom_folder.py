"""A folder of DICOM radiographs -> Collection.

Data sheet
    Images: every file below the folder that carries DICOM's mark at byte 128, whatever its name (exports often have
        none). Junk and ``DICOMDIR`` (:mod:`twinray.data.readers.disk`) are skipped. A file named
        ``.dcm`` or ``.dicom`` without the mark is set aside. Other files are counted in a note.
        Files other than one grey CR, DX or secondary capture frame for presentation are refused at
        decoding (:mod:`twinray.data.decoding.dicom.pixels`). They are set aside there.
    Ids: the SOP Instance UID, which stays the same wherever the file lies; the path where there is none or where
        different files share one. Byte-for-byte copies of a file are left out and counted.
    Patients: Patient ID (0010,0020), or the table's patient column. Images without one are their own groups.
    Splits and labels: a header has neither; they come from the table (:mod:`twinray.data.readers.folder_table`).
    Attributes: study, series and SOP instance UID, modality, body part, view position, laterality, orientation, sex, age.
    Standard: DICOM PS3.3 (general study, series, image and SOP common modules), PS3.10 (the mark).

Privacy
    Ids, patients, UIDs and paths are as the files have them. A pack of them is therefore patient data
    like the files themselves, unless they are replaced (:mod:`twinray.data.pseudonyms`). Names that
    are burnt into the pixels stay. Nothing here prints a patient id.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twinray.data.decoding.bounded_file import one_line
from twinray.data.decoding.dicom.header import DicomAttributes, dicom_attributes, is_dicom
from twinray.data.decoding.dicom.pixels import load_dicom
from twinray.data.decoding.options import Decoding
from twinray.data.patients import NO_PATIENTS, PATIENT_DATA
from twinray.data.readers.disk import Scan, scan
from twinray.data.readers.folder_table import TableRow, read_table
from twinray.errors import InputError
from twinray.progress import progress
from twinray.records import ABSENT, PRESENT, Collection, FloatArray, Pixels, Sample, Skipped, Task
from twinray.words import counted

_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_SUFFIXES = frozenset({".dcm", ".dicom"})
_KEPT = {
    "study_uid": "study_uid",
    "series_uid": "series_uid",
    "sop_uid": "sop_uid",
    "modality": "modality",
    "body_part": "body_part",
    "view_position": "view_position",
    "laterality": "laterality",
    "orientation": "orientation",
    "sex": "patient_sex",
    "age": "patient_age",
}


def read_dicom_folder(
    root: Path,
    *,
    table: Path | None = None,
    frontal_only: bool = False,
    patient_column: str | None = None,
) -> Collection:
    """Describe the DICOM files below ``root`` by their headers.

    Args:
        root: the folder.
        table: CSV with a column ``path`` (relative to ``root``, or a file name that occurs once).
            It may have any of ``patient``, ``split`` and ``label`` (several joined by ``|`` make
            the task multi-label). Further columns become attributes. Files that it does not name
            are set aside. If it states patients, all come from it.
        frontal_only: the decoder refuses files that say they are lateral or oblique, so that they are set aside.
        patient_column: column of the table that holds patients, where its name is none of the known ones.

    Raises:
        InputError: no such folder, no DICOM file in it, a table that cannot be used.
    """
    if not root.is_dir():
        came = "is a file; give its folder" if root.exists() else "is not there; check the path"
        raise InputError(f"expected a folder of DICOM files, {root} {came}")
    found = scan(root, _judge, leave_out=table)
    if not found.names:
        first = (
            f"; first: {found.skipped[0].where}: {found.skipped[0].reason}" if found.skipped else ""
        )
        raise InputError(
            f"expected DICOM files in {root}, found {_others(found) or 'none'}{first}; check the path"
        )
    if patient_column is not None and table is None:
        raise InputError("--patient-column names a column of --table; give both or none")
    told: list[str] = []
    rows = (
        None
        if table is None
        else read_table(table, found.names, found.skipped, told, patient_column=patient_column)
    )
    names = found.names if rows is None else [name for name in found.names if name in rows]
    found.skipped += [
        Skipped(name, f"no row of {table} names this file; add one to use it")
        for name in found.names
        if rows is not None and name not in rows
    ]
    notes = [*([f"{_others(found)}: skipped"] if found.others else []), *found.notes, *told]
    headers = _headers(root, names, found.skipped, notes)
    headers, shared = _without_copies(root, headers, notes)
    if not headers:
        first = (
            f"; first: {found.skipped[0].where}: {found.skipped[0].reason}" if found.skipped else ""
        )
        raise InputError(f"none of the {len(names)} DICOM files in {root} can be used{first}")
    classes, task, vectors = _labels(headers, rows)
    samples = _samples(headers, shared, rows, vectors)
    notes += _patient_notes(samples)
    return Collection(
        name=root.resolve().name or "dicom",
        label_classes=classes,
        box_classes=(),
        task=task,
        samples=samples,
        load=DicomLoader(root, frontal_only),
        skipped=tuple(found.skipped),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class DicomLoader:
    """Loads a sample whose ``source`` is a DICOM file under ``root``."""

    root: Path
    frontal_only: bool
    lenient: bool = False
    linear: bool = False

    def __call__(self, sample: Sample) -> Pixels:
        """Decode the file; raises InputError where it is refused."""
        return load_dicom(
            self.root / sample.source,
            frontal_only=self.frontal_only,
            lenient=self.lenient,
            linear=self.linear,
        )

    def decoding_as(self, decoding: Decoding) -> DicomLoader:
        """The same loader, keeping damaged files and linear values if told so; scale and orientation are the header's."""
        return replace(self, lenient=decoding.lenient, linear=decoding.linear)

    def spread(self, _: Sample) -> None:
        """A header has windows of its own, no scale is wanted."""


def _judge(path: Path) -> bool | str:
    """Whether a file carries DICOM's mark; why it is set aside where only its name says so."""
    try:
        marked, reason = (
            is_dicom(path),
            "expected 'DICM' at byte 128, or elements of an image; copy the file again or leave it out",
        )
    except InputError as error:
        marked, reason = False, str(error)
    return reason if not marked and path.suffix.lower() in _SUFFIXES else marked


def _others(found: Scan) -> str:
    """How many files are not DICOM, and of which kinds."""
    return (
        f"{counted(found.n_others, 'file that is', 'files that are')} not DICOM ({found.others_in_words})"
        if found.others
        else ""
    )


def _headers(
    root: Path, names: Sequence[str], skipped: list[Skipped], notes: list[str]
) -> dict[str, DicomAttributes]:
    """Headers by name; files whose header cannot be read are set aside."""
    headers: dict[str, DicomAttributes] = {}
    directories = 0
    with progress("reading DICOM headers", len(names), unit="files") as meter:
        for name in names:
            try:
                header = dicom_attributes(root / name)
            except InputError as error:
                skipped.append(Skipped(name, one_line(str(error), 2000)))
            else:
                if header.sop_class_uid == _MEDIA_DIRECTORY:
                    directories += 1
                else:
                    headers[name] = header
            meter.advance()
    if directories:
        notes.append(
            f"{counted(directories, 'DICOM directory', 'DICOM directories')} (DICOMDIR under another name): skipped"
        )
    return headers


def _without_copies(
    root: Path, headers: Mapping[str, DicomAttributes], notes: list[str]
) -> tuple[dict[str, DicomAttributes], set[str]]:
    """The headers without byte-for-byte copies, and the SOP instance UIDs that different files share."""
    by_uid: dict[str, list[str]] = defaultdict(list)
    for name, header in headers.items():
        by_uid[header.sop_uid].append(name)
    copies: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for uid, names in by_uid.items():
        if not uid or len(names) == 1:
            continue
        first: dict[str, str] = {}
        for name in names:
            original = first.setdefault(_digest(root / name), name)
            if original != name:
                copies[name] = original
        if len(first) > 1:
            shared[uid] = list(first.values())
    if copies:
        copy, original = next(iter(copies.items()))
        notes.append(
            f"{counted(len(copies), 'file is a copy of another and was', 'files are copies of another and were')} left out (first: {copy} of {original})"
        )
    if shared:
        n, (one, other, *_) = sum(map(len, shared.values())), next(iter(shared.values()))
        notes.append(
            f"{n:,} different files share a SOP instance UID with another (first: {one} and {other}); "
            "their ids are their paths"
        )
    return {name: header for name, header in headers.items() if name not in copies}, set(shared)


def _digest(path: Path) -> str:
    """SHA-256 of a file; the path itself where it cannot be read (the decoder will say why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(path)


def _labels(
    names: Mapping[str, object], rows: Mapping[str, TableRow] | None
) -> tuple[tuple[str, ...], Task, dict[tuple[str, ...], FloatArray]]:
    """Classes sorted by name, the task, and one vector for each distinct set of labels."""
    stated = (
        {rows[name].labels for name in names if rows[name].labels} if rows is not None else set()
    )
    classes = tuple(sorted({label for own in stated for label in own}))
    vectors: dict[tuple[str, ...], FloatArray] = {}
    for own in sorted(stated):
        vector = np.array(
            [PRESENT if name in own else ABSENT for name in classes], dtype=np.float32
        )
        vector.flags.writeable = False
        vectors[own] = vector
    several = any(len(own) > 1 for own in stated)
    return classes, "none" if not classes else "multilabel" if several else "multiclass", vectors


def _samples(
    headers: Mapping[str, DicomAttributes],
    shared: set[str],
    rows: Mapping[str, TableRow] | None,
    vectors: Mapping[tuple[str, ...], FloatArray],
) -> tuple[Sample, ...]:
    from_table = rows is not None and any(rows[name].patient is not None for name in headers)
    samples = []
    for name, header in headers.items():
        row = TableRow() if rows is None else rows[name]
        patient = row.patient if from_table else header.patient_id or None
        uid = "" if header.sop_uid in shared else header.sop_uid
        attributes = {to: value for to, its in _KEPT.items() if (value := getattr(header, its))}
        samples.append(
            Sample(
                id=uid or name,
                source=name,
                patient=patient,
                split=row.split,
                labels=vectors.get(row.labels),
                attributes=attributes | row.attributes,
            )
        )
    return tuple(samples)


def _patient_notes(samples: Sequence[Sample]) -> list[str]:
    """What users must know of the patients; never an id."""
    told = [sample.patient for sample in samples if sample.patient is not None]
    if not told:
        return [NO_PATIENTS]
    notes = []
    if len(told) < len(samples):
        notes.append(
            f"{counted(len(samples) - len(told), 'file has no patient id: its image is its own group', 'files have no patient id: each of their images is its own group')}"
        )
    if len(told) > 1 and len(set(told)) == 1:
        notes.append(
            "all files carry the same patient id (removed by an anonymiser?); give patients in a table"
        )
    notes.append(f"patient ids are kept as the files have them: {PATIENT_DATA}")
    return notes
