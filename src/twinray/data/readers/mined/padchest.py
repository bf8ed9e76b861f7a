"""PadChest -> Collection.

Data sheet
    What: 160,861 chest radiographs of 67,625 patients of one hospital (San Juan, Alicante, Spain), 2009 to 2017; PNG files
        of 16 bits. The numbers are those of the published table.
    Labels: findings, differential diagnoses, devices and remarks on the image, as text. 39,053 images were labelled by physicians,
        121,808 by a recurrent network that read the reports (attribute ``method``). Names are those of the table without
        blanks around them: they are not gathered along the published tree, so "pneumonia" does not hold
        "atypical pneumonia". What a row does not name is absent.
        ``normal`` is a label as any other. ``unchanged`` refers to an earlier study: alone it states nothing, and beside
        others it is left out. ``exclude`` marks images that the authors leave out: they are set aside. ``suboptimal study`` is
        kept as the attribute ``quality``.
    Splits: none.
    Patients: ``PatientID``.
    Label noise: three of four labels are a network's reading of a report.
    Views: ``Projection``: PA, AP and AP_horizontal are frontal, L is lateral, COSTAL shows ribs, UNK is unknown.
    Get it: https://bimcv.cipf.es/bimcv-projects/padchest/. Licence: unknown here; read the terms of the download.
    Cite: Bustos et al., PadChest: A large chest x-ray image dataset with multi-label annotated reports, Medical Image
        Analysis 66:101797, 2020.

Layout (the CSV may be gzipped)::

    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv    ImageID,ImageDir,StudyID,PatientID,Projection,Labels,...
    <ImageDir>/<ImageID>, or <ImageID> in any folder; converted files of the same stem too
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from twinray.data.readers.disk import index_images
from twinray.data.readers.mined.observations import Found, source_folder
from twinray.data.readers.tabular import Row, read_rows
from twinray.errors import InputError
from twinray.records import ABSENT, PRESENT, Collection, FloatArray, Sample, Skipped
from twinray.words import counted

NAME = "padchest"
FRONTAL = frozenset({"PA", "AP", "AP_horizontal"})
OTHER_VIEWS = frozenset({"L", "COSTAL"})
UNCHANGED, EXCLUDE, SUBOPTIMAL = "unchanged", "exclude", "suboptimal study"

_KEPT = {
    "Projection": "view", "PatientSex_DICOM": "sex", "PatientBirth": "birth_year", "StudyDate_DICOM": "study_date",
    "MethodLabel": "method", "Manufacturer_DICOM": "device", "StudyID": "study",
}  # fmt: skip
_LONGEST = 10_000
"""Characters of a cell of labels; the longest published one has some hundreds."""


def read_padchest(
    root: Path, *, images_root: Path | None = None, frontal_only: bool = True
) -> Collection:
    """Describe the images that the table lists and that are there; a sample's id is its ``ImageID``.

    Args:
        root: the folder with the table, or the table itself.
        images_root: folder where the images are, at any depth; by default the table's.
        frontal_only: flag to leave out views that are known not to be frontal; how many is noted.

    Returns:
        A multi-label collection; classes are the labels of all rows that are read, in alphabetical order.

    Raises:
        InputError: no table, or more than one; one without a needed column; no image left.
    """
    path = root if root.is_file() else _table(source_folder(root, "PadChest"))
    found = Found()
    index = index_images(images_root or path.parent, found.skipped)
    found.notes += index.own_notes
    stated: dict[str, tuple[str, ...] | None] = {}
    rows: list[Sample] = []
    for row in read_rows(path, ("ImageID", "PatientID", "Projection", "Labels"), notes=found.notes):
        fault = _take(row, frontal_only, index.find(row["ImageID"]), stated, rows, found)
        if fault:
            found.skipped.append(Skipped(row.where, fault))
    classes = sorted({label for labels in stated.values() for label in labels or ()})
    number = {name: k for k, name in enumerate(classes)}
    vectors: dict[tuple[str, ...], FloatArray] = {}
    for sample in rows:
        labels = _vector(stated[sample.id], number, vectors)
        found.samples.append(
            Sample(
                sample.id, sample.source, sample.patient, None, labels, attributes=sample.attributes
            )
        )
    found.notes += _notes(found.samples, classes)
    return found.collection(
        NAME, index.root, path.name, classes, "multilabel" if classes else "none"
    )


def _table(folder: Path) -> Path:
    found = sorted(folder.glob("PADCHEST*.csv")) + sorted(folder.glob("PADCHEST*.csv.gz"))
    if len(found) != 1:
        what = (
            f"found {', '.join(path.name for path in found[:4])}; give one"
            if found
            else "found none; add it"
        )
        raise InputError(
            f"expected PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or .csv.gz) in {folder}, {what}"
        )
    return found[0]


def _take(
    row: Row,
    frontal_only: bool,
    source: str | None,
    stated: dict[str, tuple[str, ...] | None],
    rows: list[Sample],
    found: Found,
) -> str:
    """Add one row; why it is set aside, or nothing."""
    key, view = row["ImageID"], row["Projection"]
    if not key or "/" in key:
        return f"expected the name of a file in column 'ImageID', got {key[:80]!r}; correct the row"
    if key in found.ids:
        return f"{key} already has a row further up; keep one of them"
    if not row["PatientID"]:
        return (
            "expected a 'PatientID', found nothing; without it splits could not keep patients apart"
        )
    labels = _labels(row["Labels"])
    if isinstance(labels, str):
        return labels
    found.ids.add(key)
    if EXCLUDE in labels or view == "EXCLUDE":
        return "its authors mark this image as one to leave out (exclude)"
    if view not in FRONTAL | OTHER_VIEWS | {"UNK", ""}:
        return f"expected a 'Projection' PA, AP, AP_horizontal, L or COSTAL, got {view[:40]!r}; correct the row"
    if frontal_only and view in OTHER_VIEWS:
        found.other_views += 1
        return ""
    if source is None:
        found.missing.append(key)
        return ""
    found.unknown_views += frontal_only and view not in FRONTAL
    findings = tuple(sorted(set(labels) - {UNCHANGED, SUBOPTIMAL}))
    said = bool(findings)
    stated[key] = findings if said else None
    attributes = {name: row[column] for column, name in _KEPT.items() if row[column]}
    if SUBOPTIMAL in labels:
        attributes["quality"] = "suboptimal"
    rows.append(Sample(key, source, row["PatientID"], attributes=attributes))
    return ""


def _labels(cell: str) -> list[str] | str:
    """The labels of a cell such as ``['pneumonia', ' nodule']``; or why it cannot be read. An empty cell has none."""
    if not cell:
        return []
    try:
        parsed = ast.literal_eval(cell) if len(cell) <= _LONGEST else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        parsed = None
    if not isinstance(parsed, list) or any(not isinstance(label, str) for label in parsed):
        return (
            f"expected labels such as ['pneumonia', 'nodule'], got {cell[:60]!r}; correct the row"
        )
    return [" ".join(label.split()) for label in parsed if label.strip()]


def _vector(
    labels: tuple[str, ...] | None,
    number: Mapping[str, int],
    known: dict[tuple[str, ...], FloatArray],
) -> FloatArray | None:
    if labels is None:
        return None
    if labels not in known:
        vector = np.full(len(number), ABSENT, dtype=np.float32)
        vector[[number[label] for label in labels]] = PRESENT
        vector.flags.writeable = False
        known[labels] = vector
    return known[labels]


def _notes(samples: Sequence[Sample], classes: Sequence[str]) -> list[str]:
    methods = Counter(sample.attributes.get("method", "not stated") for sample in samples)
    told = ", ".join(f"{name} {n:,}" for name, n in methods.most_common())
    notes = (
        [f"{len(classes):,} labels; who gave them (attribute method): {told}"] if samples else []
    )
    if bare := sum(sample.labels is None for sample in samples):
        notes.append(
            f"{counted(bare, 'image has no label that says what is seen: its labels', 'images have no label that says what is seen: their labels')} are unknown"
        )
    return notes
