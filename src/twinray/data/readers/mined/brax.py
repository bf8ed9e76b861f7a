"""BRAX -> Collection.

Data sheet
    What: 40,967 chest radiographs, frontal and lateral, of 24,959 studies of one large general hospital in Brazil, as DICOM
        and as PNG. Images were checked by radiologists for burned-in text.
    Labels: the 14 observations of CheXpert's labeller, adapted to Brazilian Portuguese: 1 (present), 0 (absent), -1 (uncertain)
        or blank (not mentioned).
    Splits: none.
    Patients: ``PatientID``, drawn at random when the data were made anonymous.
    Label noise: labels were mined from reports by rules, so they say what was written, not what is seen.
    Views: ``ViewPosition``; AP and PA are frontal. About a quarter of the images have none: they are kept and counted.
    Damage: 12 images are thin strips (19:1 and beyond, by TorchXRayVision's count): what is beyond 10:1 is set aside.
    Get it: https://physionet.org/content/brax/. Licence: PhysioNet Credentialed Health Data License 1.5.0.
    Cite: Reis et al., BRAX, Brazilian labeled chest x-ray dataset, Scientific Data 9:487, 2022.

Layout (the CSV may be gzipped)::

    master_spreadsheet_update.csv or master_spreadsheet.csv     DicomPath,PngPath,PatientID,PatientSex,PatientAge,
                                                                AccessionNumber,StudyDate, the 14 labels,
                                                                ViewPosition,Rows,Columns,Manufacturer
    images/id_<PatientID>/Study_<UID>/Series_<UID>/image-<UID>.png
    Anonymized_DICOMs/id_<PatientID>/.../image-<UID>.dcm        where the PNG is not there
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from twinray.data.readers.chexpert import LABELS
from twinray.data.readers.label_readings import LabelReading, LabelTable
from twinray.data.readers.mined.observations import Found, observations, source_folder
from twinray.data.readers.tabular import Row, find_table, number, read_rows
from twinray.errors import InputError
from twinray.records import Collection, Sample, Skipped

NAME = "brax"
FRONTAL = frozenset({"AP", "PA"})

_KEPT = {
    "ViewPosition": "view", "PatientSex": "sex", "PatientAge": "age", "StudyDate": "study_date", "Manufacturer": "device",
    "AccessionNumber": "study",
}  # fmt: skip
_THINNEST = 10
"""Longer side by shorter side beyond which an image is a strip of one."""


def read_brax(
    root: Path, *, frontal_only: bool = True, reading: LabelReading | None = None
) -> Collection:
    """Describe the images that the spreadsheet lists and that are there; ids are paths of PNG files.

    Args:
        root: the folder with the spreadsheet.
        frontal_only: flag to leave out views that are known not to be frontal; how many is noted.
        reading: way in which uncertain, blank and "No Finding" are read.

    Raises:
        InputError: no such folder, no spreadsheet, one without a needed column, no image left.
    """
    folder = source_folder(root, "BRAX")
    path = find_table((folder,), ("master_spreadsheet_update", "master_spreadsheet"))
    if path is None:
        raise InputError(
            f"expected master_spreadsheet_update.csv (or .csv.gz) in {folder}, found none; add it"
        )
    found = Found()
    table = observations(reading or LabelReading())
    needed = (("PngPath", "DicomPath"), "PatientID", *LABELS)
    for row in read_rows(path, needed, notes=found.notes):
        fault = _take(row, folder, frontal_only, table, found)
        if fault:
            found.skipped.append(Skipped(row.where, fault))
    found.notes += table.notes([sample.labels for sample in found.samples])
    return found.collection(NAME, folder, path.name, LABELS)


def _take(row: Row, folder: Path, frontal_only: bool, table: LabelTable, found: Found) -> str:
    """Add one row to ``found``; why it is set aside, or nothing."""
    paths = [row[name].replace("\\", "/") for name in ("PngPath", "DicomPath") if row[name]]
    if not paths or any(
        path.startswith("/") or ".." in PurePosixPath(path).parts for path in paths
    ):
        told = paths[0][:80] if paths else "nothing"
        return f"expected a PngPath such as images/id_1/Study_1/Series_1/image-1.png, got {told!r}; correct the row"
    key = paths[0]
    if key in found.ids:
        return f"{key[:120]} already has a row further up; keep one of them"
    if not row["PatientID"]:
        return (
            "expected a 'PatientID', found nothing; without it splits could not keep patients apart"
        )
    stated = tuple(row[name] for name in LABELS)
    if fault := table.fault(stated):
        return fault
    found.ids.add(key)
    view = row["ViewPosition"].upper()
    if frontal_only and view and view not in FRONTAL:
        found.other_views += 1
        return ""
    source = next((path for path in paths if os.path.isfile(os.path.join(folder, path))), None)
    if source is None:
        found.missing.append(key)
        return ""
    rows, columns = number(row["Rows"]), number(row["Columns"])
    if rows and columns and max(rows, columns) > _THINNEST * min(rows, columns):
        return f"the table says {columns:g} x {rows:g} pixels: a strip of an image, no radiograph; leave it out"
    found.unknown_views += frontal_only and not view
    attributes = {name: row[column] for column, name in _KEPT.items() if row[column]}
    labels = table.vector(stated)
    found.samples.append(Sample(key, source, row["PatientID"], None, labels, attributes=attributes))
    return ""
