"""CheXpert -> Collection.

Data sheet
    Images: 224,316 chest radiographs, frontal and lateral, of 65,240 patients of one hospital (Stanford), 2002 to 2017.
        ``train.csv`` has 223,414 rows, ``valid.csv`` 234 (200 studies); a test set of 500 studies was kept apart.
        The "small" edition holds the same images as JPEGs of about 390 x 320 pixels.
    Labels: 14 observations, each 1 (present), 0 (absent), -1 (uncertain) or blank (not mentioned).
    Splits: the official ones: ``train.csv`` -> train, ``valid.csv`` -> val, ``test.csv`` -> test. Patients do not overlap.
    Label noise: training labels were mined from reports by rules, so they say what was written, not what is seen. In
        validation they are the majority of three radiologists, in test of five; there nothing is uncertain or blank.
    Readings: ``--uncertain ignore`` by default. Which of ignoring, zeros and ones is best differs between the observations (Irvin et
        al. compare them), so -1 stays uncertain, and training decides.
        ``--blank unknown`` by default. A finding that a report does not mention is not stated absent.
        ``--no-finding implies`` by default. The labeller gives "No Finding" where no other observation but Support Devices is
        positive or uncertain, so it means that the findings are absent; all 16,974 frontal rows keep to that. Read
        alone it has 16,974 positives and no negative among the 191,027 frontal rows, and every score is perfect on it.
        ``docs/pack-format.md`` has the counts of each reading.
    Citation: Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison,
        AAAI 2019.
    Licence: Stanford University Dataset Research Use Agreement; research, not commercial, not to be passed on.
    Layout: ``train.csv``, ``valid.csv`` (and ``test.csv``) have
        ``Path,Sex,Age,Frontal/Lateral,AP/PA`` and the 14 labels. ``Path`` is
        ``CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`` or the same without its
        first folder. Images lie beside the tables, or in folders of batches beside each other, as they are published
        now: ``CheXpert-v1.0 batch 1 (validate & csv)`` with the tables, ``CheXpert-v1.0 batch 2 (train 1)/patient00001``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinray.data.decoding.bounded_file import one_line
from twinray.data.readers.disk import FileLoader
from twinray.data.readers.label_readings import LabelReading, LabelTable
from twinray.data.readers.tabular import Row, read_rows
from twinray.errors import InputError
from twinray.records import Collection, Sample, Skipped, Split
from twinray.words import counted

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 observations, in the order of CheXpert's tables."""

NO_FINDING = "No Finding"
APART = ("Support Devices",)
"""Observations that are no findings: "No Finding" is given beside them."""
DEFAULT_READING = LabelReading()

_TABLES: tuple[tuple[str, Split], ...] = (
    ("train.csv", "train"),
    ("valid.csv", "val"),
    ("test.csv", "test"),
)
_EDITION = re.compile(r"chexpert-v1\.0", re.IGNORECASE)
_BATCH = re.compile(r"batch\s*\d", re.IGNORECASE)
_KEPT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_PATIENT = re.compile(r"patient\d+")


@dataclass(slots=True)
class _Found:
    """What the rows of all tables gave; equal labels and attributes are stored once.

    ``batches`` are the folders of images, each with ``/`` or empty; ``last`` is the one of the row before, with the number
    of folders that its Path lost.
    """

    batches: Sequence[str]
    table: LabelTable
    need_images: bool
    last: tuple[str, int] = ("", 0)
    samples: list[Sample] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    laterals: int = 0
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attributes: dict[tuple[tuple[str, str], ...], dict[str, str]] = field(default_factory=dict)


def read_chexpert(
    root: Path,
    *,
    frontal_only: bool = True,
    reading: LabelReading = DEFAULT_READING,
    need_images: bool = True,
) -> Collection:
    """Describe the images that CheXpert's tables list and that are there.

    Args:
        root: the folder with ``train.csv`` and ``valid.csv`` (one of them is enough), or the folder around it.
        frontal_only: flag to leave lateral views out; how many is noted.
        reading: way in which uncertain, blank and "No Finding" are read.
        need_images: flag to leave out images that are not on the disk; False keeps them all, for labels alone.

    Returns:
        A multi-label collection over :data:`LABELS`; ids are paths from the split's folder on, patients
        ``patientNNNNN``. Images that are not there are left out and counted in one note; rows that cannot be
        read are set aside.

    Raises:
        InputError: no such folder, no table, a table without a needed column, no image left.
    """
    root, tables, batches = _root(root)
    labels = LabelTable(LABELS, NO_FINDING, APART, reading)
    found = _Found(batches, labels, need_images)
    for table, split in tables:
        _read_table(table, split, root, frontal_only, found)
    found.notes += _without_table(root, tables)
    if not found.samples:
        raise InputError(_nothing_left(root, found))
    return Collection(
        name="chexpert",
        label_classes=LABELS,
        box_classes=(),
        task="multilabel",
        samples=tuple(found.samples),
        load=FileLoader(root),
        skipped=tuple(found.skipped),
        notes=_notes(found),
    )


def _root(root: Path) -> tuple[Path, list[tuple[Path, Split]], list[str]]:
    """The folder that sources are told relative to, the tables, and the folders of images in it."""
    if not root.is_dir():
        came = "is a file; give its folder" if root.exists() else "is not there; check the path"
        raise InputError(f"expected CheXpert's folder, {root} {came}")
    below = sorted(folder for folder in root.iterdir() if _EDITION.match(folder.name))
    for folder in (root, *(folder for folder in below if folder.is_dir())):
        tables = [(folder / name, split) for name, split in _TABLES if (folder / name).is_file()]
        if not tables:
            continue
        if not _BATCH.search(folder.resolve().name):
            return folder, tables, [""]
        around = folder.resolve().parent
        batches = sorted(
            f.name
            for f in around.iterdir()
            if f.is_dir() and _BATCH.search(f.name) and _EDITION.match(f.name)
        )
        return around, tables, [f"{name}/" for name in batches]
    raise InputError(
        f"expected CheXpert's train.csv or valid.csv in {root}, found neither; give the folder that has them"
    )


def _read_table(table: Path, split: Split, root: Path, frontal_only: bool, found: _Found) -> None:
    for row in read_rows(table, ("Path", *LABELS), notes=found.notes):
        reason = _take(row, split, root, frontal_only, found)
        if reason:
            found.skipped.append(Skipped(row.where, reason))


def _take(row: Row, split: Split, root: Path, frontal_only: bool, found: _Found) -> str:
    """Add one row to ``found``; why it is set aside, or nothing."""
    path = row["Path"].replace("\\", "/")
    parts = PurePosixPath(path).parts
    at = next((i for i, part in enumerate(parts) if _PATIENT.fullmatch(part)), None)
    if at is None or ".." in parts or path.startswith("/"):
        return f"expected a Path such as train/patient00001/study1/view1_frontal.jpg, got {_short(path)}"
    key = "/".join(parts[max(0, at - 1) :])
    if key in found.ids:
        return f"{_short(key)} already has a row further up; keep one of them"
    view = (row["Frontal/Lateral"] or parts[-1]).lower()
    lateral = "lateral" in view
    if not lateral and "frontal" not in view:
        return f"expected Frontal or Lateral, got {_short(row['Frontal/Lateral'])}; correct the row"
    stated = tuple(row[name] for name in LABELS)
    if fault := found.table.fault(stated):
        return fault
    found.ids.add(key)
    if lateral and frontal_only:
        found.laterals += 1
        return ""
    source = _find(root, parts, at, found) if found.need_images else "/".join(parts)
    if source is None:
        found.missing.append(key)
        return ""
    found.samples.append(
        Sample(
            id=key,
            source=source,
            patient=parts[at],
            split=split,
            labels=found.table.vector(stated),
            attributes=_attributes(row, parts[at + 1], found),
        )
    )
    return ""


def _find(root: Path, parts: Sequence[str], at: int, found: _Found) -> str | None:
    """The image's path below ``root``: as the row before, else without its first folders, in any folder of images.

    A patient of one batch is in no other, so the first file that is there is the one.
    """
    ways = [found.last, *((batch, depth) for batch in found.batches for depth in range(at + 1))]
    for batch, depth in ways:
        source = batch + "/".join(parts[depth:])
        if depth <= at and os.path.isfile(os.path.join(root, source)):
            found.last = batch, depth
            return source
    return None


def _attributes(row: Row, study: str, found: _Found) -> dict[str, str]:
    """The columns that are kept, and the folder that names the patient's study."""
    pairs = tuple((name, row[name]) for name in _KEPT if row[name])
    pairs += (("study", study),) if study.startswith("study") else ()
    return found.attributes.setdefault(pairs, dict(pairs))


def _without_table(root: Path, tables: Sequence[tuple[Path, Split]]) -> list[str]:
    """A note on each folder of images whose table is not there."""
    read = {table.name for table, _ in tables}
    return [
        f"the folder {name.removesuffix('.csv')} has no table {name}: left out"
        for name, _ in _TABLES
        if name not in read and (root / name.removesuffix(".csv")).is_dir()
    ]


def _notes(found: _Found) -> tuple[str, ...]:
    notes = list(found.notes)
    if found.missing:
        notes.append(
            f"{counted(len(found.missing), 'image that the tables list is not', 'images that the tables list are not')} there (first: {one_line(found.missing[0], 120)}); left out"
        )
    if found.laterals:
        notes.append(
            f"{counted(found.laterals, 'lateral view was', 'lateral views were')} left out"
        )
    notes += found.table.notes([sample.labels for sample in found.samples])
    return tuple(notes)


def _nothing_left(root: Path, found: _Found) -> str:
    if found.missing:
        return (
            f"none of the {len(found.missing):,} images that the tables in {root} list is there "
            f"(first: {_short(found.missing[0])}); put the images beside the tables"
        )
    if found.laterals:
        return (
            f"all {found.laterals:,} images in {root} are lateral views; allow laterals to use them"
        )
    first = f"; first: {found.skipped[0].where}: {found.skipped[0].reason}" if found.skipped else ""
    return f"expected rows in CheXpert's tables in {root}, found none that can be used{first}"


def _short(text: str) -> str:
    return repr(one_line(text, 80)) if text else "nothing"
