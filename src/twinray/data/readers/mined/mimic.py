"""MIMIC-CXR-JPG -> Collection.

Data sheet
    What: 377,110 chest radiographs, frontal and lateral, of 227,827 studies, from one hospital (Beth Israel Deaconess Medical
        Center, emergency department, 2011 to 2016); JPEG files made from MIMIC-CXR's DICOM files.
    Labels: the 14 observations of CheXpert's labeller, run on the reports: 1 (present), 0 (absent), -1 (uncertain) or blank
        (not mentioned). They are one a study, so all images of a study carry the same, also where a finding is seen on
        one of them only. Studies without a row have no labels. Where NegBio's labels alone are there, they are read.
    Splits: the official ones, by patient: ``train``, ``validate`` (-> val), ``test``.
    Patients: ``subject_id``.
    Label noise: labels were mined from reports by rules, so they say what was written, not what is seen.
    Views: ``ViewPosition``; AP and PA are frontal. An empty one is unknown: such images are kept and counted.
    Get it: https://physionet.org/content/mimic-cxr-jpg/. Licence: credentialed access under PhysioNet's data use agreement.
    Cite: Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, arXiv
        1901.07042, 2019; Johnson et al., Scientific Data 6:317, 2019.

Layout (CSV files may be gzipped; any version in place of 2.0.0)::

    mimic-cxr-2.0.0-metadata.csv    needed: dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,StudyDate,...
    mimic-cxr-2.0.0-chexpert.csv    optional: subject_id,study_id and the 14 labels (else mimic-cxr-2.0.0-negbio.csv)
    mimic-cxr-2.0.0-split.csv       optional: dicom_id,study_id,subject_id,split
    files/p10/p10000032/s50414267/<dicom_id>.jpg

Rows are set aside one by one. Causes are ids of another form, a label or split of another word, a table that disagrees with
``metadata`` on whose image it is, and an image named twice. ``mimic-cxr-2.1.0-test-set-labeled.csv`` is not read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from twinray.data.readers.chexpert import LABELS
from twinray.data.readers.label_readings import LabelReading, LabelTable
from twinray.data.readers.mined.observations import Found, observations, source_folder
from twinray.data.readers.tabular import Row, read_rows
from twinray.errors import InputError
from twinray.records import Collection, FloatArray, Sample, Skipped, Split, Task, split_of
from twinray.words import counted

NAME = "mimic-cxr-jpg"
FRONTAL = frozenset({"AP", "PA"})

_DICOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_NUMBER = re.compile(r"\d{8}")
_KEPT = {"ViewPosition": "view", "StudyDate": "study_date", "PerformedProcedureStepDescription": "procedure"}  # fmt: skip
_FEW_UNKNOWN = 0.01


def read_mimic(
    root: Path,
    *,
    frontal_only: bool = True,
    reading: LabelReading | None = None,
) -> Collection:
    """Describe the images that ``metadata`` lists and that are there; ids are paths below ``files``.

    Args:
        root: the folder with the tables and ``files``.
        frontal_only: flag to leave out views that are known not to be frontal; how many is noted.
        reading: way in which uncertain, blank and "No Finding" are read.

    Raises:
        InputError: no such folder, no ``metadata``, a table without a needed column, many unknown splits, no image left.
    """
    folder = source_folder(root, "MIMIC-CXR-JPG")
    metadata = _table(folder, "metadata")
    if metadata is None:
        raise InputError(
            f"expected mimic-cxr-2.0.0-metadata.csv (or .csv.gz) in {folder}, found none; add it"
        )
    found = Found()
    table = observations(reading or LabelReading())
    labels = _labels(folder, table, found)
    splits = _splits(folder, found)
    for row in read_rows(metadata, ("dicom_id", "subject_id", "study_id"), notes=found.notes):
        fault = _take(row, folder, frontal_only, labels, splits, found)
        if fault:
            found.skipped.append(Skipped(row.where, fault))
    unlabelled = sum(sample.labels is None for sample in found.samples)
    if labels and unlabelled:
        found.notes.append(
            f"{counted(unlabelled, 'image is of a study', 'images are of studies')} without labels"
        )
    if labels:
        found.notes += table.notes([sample.labels for sample in found.samples])
    task: Task = "multilabel" if labels else "none"
    classes = LABELS if labels else ()
    return found.collection(NAME, folder, metadata.name, classes, task)


def _table(folder: Path, what: str) -> Path | None:
    """The newest table of this name."""
    found = sorted(folder.glob(f"mimic-cxr-*-{what}.csv")) or sorted(
        folder.glob(f"mimic-cxr-*-{what}.csv.gz")
    )
    return found[-1] if found else None


def _labels(folder: Path, table: LabelTable, found: Found) -> dict[str, tuple[str, FloatArray]]:
    """Study -> patient and labels."""
    path = _table(folder, "chexpert") or _table(folder, "negbio")
    if path is None:
        found.notes.append("no table of labels (mimic-cxr-2.0.0-chexpert.csv): no image has labels")
        return {}
    if not path.name.removesuffix(".gz").endswith("-chexpert.csv"):
        found.notes.append(f"labels are NegBio's, of {path.name}: there is no table of CheXpert's")
    labels: dict[str, tuple[str, FloatArray]] = {}
    for row in read_rows(path, ("subject_id", "study_id", *LABELS), notes=found.notes):
        study, stated = row["study_id"], tuple(row[name] for name in LABELS)
        fault = table.fault(stated)
        if not _NUMBER.fullmatch(study):
            fault = f"expected a 'study_id' of 8 digits, got {study[:40]!r}; correct the row"
        elif study in labels:
            fault = f"study {study} already has a row further up; keep one of them"
        if fault:
            found.skipped.append(Skipped(row.where, fault))
        else:
            labels[study] = row["subject_id"], table.vector(stated)
    if not labels:
        found.notes.append(f"WARNING: no row of {path.name} can be read: no image has labels")
    return labels


def _splits(folder: Path, found: Found) -> dict[str, tuple[str, Split]]:
    """Image -> patient and split."""
    path = _table(folder, "split")
    if path is None:
        found.notes.append("no mimic-cxr-2.0.0-split.csv: no image has an official split")
        return {}
    splits: dict[str, tuple[str, Split]] = {}
    wrong: list[Skipped] = []
    for row in read_rows(path, ("dicom_id", "subject_id", "split"), notes=found.notes):
        key, split = row["dicom_id"], split_of(row["split"])
        if split is None:
            told = row["split"][:40]
            wrong.append(
                Skipped(
                    row.where, f"expected train, validate or test, got {told!r}; correct the row"
                )
            )
        elif key in splits:
            wrong.append(
                Skipped(row.where, f"{key[:60]} already has a row further up; keep one of them")
            )
        else:
            splits[key] = row["subject_id"], split
    if len(wrong) > max(1, _FEW_UNKNOWN * (len(splits) + len(wrong))):
        raise InputError(
            f"{wrong[0].where}: {wrong[0].reason} (the first of {len(wrong):,}); nothing was cut in their place"
        )
    found.skipped += wrong
    return splits


def _take(
    row: Row,
    folder: Path,
    frontal_only: bool,
    labels: dict[str, tuple[str, FloatArray]],
    splits: dict[str, tuple[str, Split]],
    found: Found,
) -> str:
    """Add one row to ``found``; why it is set aside, or nothing."""
    key, patient, study = row["dicom_id"], row["subject_id"], row["study_id"]
    if not _DICOM_ID.fullmatch(key):
        return f"expected a 'dicom_id' of five groups of 8 hexadecimal digits, got {key[:60]!r}; correct the row"
    if not _NUMBER.fullmatch(patient) or not _NUMBER.fullmatch(study):
        return f"expected a 'subject_id' and a 'study_id' of 8 digits, got {patient[:20]!r} and {study[:20]!r}; correct the row"
    if key in found.ids:
        return f"{key} already has a row further up; keep one of them"
    whose, vector = labels.get(study, (patient, None))
    if whose != patient:
        return f"expected study {study} of patient {patient}, the table of labels says patient {whose[:20]}; correct one of them"
    whose, split = splits.get(key, (patient, None))
    if whose != patient:
        return f"expected patient {patient}, the table of splits says {whose[:20]}; correct one of them"
    found.ids.add(key)
    view = row["ViewPosition"].upper()
    if frontal_only and view and view not in FRONTAL:
        found.other_views += 1
        return ""
    place = f"p{patient[:2]}/p{patient}/s{study}/{key}.jpg"
    source = next(
        (s for s in (f"files/{place}", place) if os.path.isfile(os.path.join(folder, s))), None
    )
    if source is None:
        found.missing.append(f"files/{place}")
        return ""
    found.unknown_views += frontal_only and not view
    attributes = {name: row[column] for column, name in _KEPT.items() if row[column]}
    found.samples.append(
        Sample(
            place, source, patient, split, vector, attributes=attributes | {"study": f"s{study}"}
        )
    )
    return ""
