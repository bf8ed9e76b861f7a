"""A folder of images -> Collection.

Layouts, told apart by looking (``layout="auto"``):

- flat: images in the folder itself; no labels;
- one folder per class: ``<class>/x.png``, at any depth below the class folder;
- official splits: ``train|val|test/x.png`` or ``train|val|test/<class>/x.png``; ``training``, ``valid``,
  ``validation``, ``testing`` count as the same, in any case.

One folder around all of these (``chest_xray/train/...``) is taken as nesting, not as a class, and said so.
Images beside class folders, or folders beside split folders, could mean two things: that is refused,
with what to do. ``layout="flat"`` ignores folder names (images in numbered parts, a folder a patient).

Junk (:data:`twinray.data.readers.disk.JUNK` and names that begin with a dot) is left out without a word. Other
files that are no images are counted in a note. A file without an image's name is taken for DICOM if it
carries DICOM's mark at byte 128.

Patients come from a table, from a regular expression, or from the headers of DICOM files. DICOM files in folders of one
patient each are refused, since such folders are no classes (``--format dicom`` reads them). For the paediatric chest X-rays of Kermany et al.
(Cell 2018; ``person123_bacteria_456.jpeg``, ``NORMAL2-IM-0123-0001.jpeg``, ``IM-0123-0001.jpeg``) it is
``(person\\d+)_|(IM-\\d+)-``: of several groups the first that is not empty counts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from twinray.data.classes import vanished
from twinray.data.patients import NO_PATIENTS
from twinray.data.readers.disk import FileLoader, scan_images
from twinray.data.readers.folder_table import TableRow, read_table
from twinray.data.readers.header_patients import header_note, header_patients
from twinray.errors import InputError
from twinray.records import (
    ABSENT,
    PRESENT,
    Collection,
    FloatArray,
    Sample,
    Skipped,
    Split,
    Task,
    split_of,
)
from twinray.words import counted

Layout = Literal["auto", "flat"]

_MANY_CLASSES = 200
_SOME_CLASSES, _FEW_IMAGES = 10, 5


@dataclass(frozen=True, slots=True)
class _Place:
    """What a file's folders say: its split and class, where they say so."""

    split: Split | None = None
    label: str | None = None


def read_folder(
    root: Path,
    *,
    patient_regex: str | None = None,
    table: Path | None = None,
    layout: Layout = "auto",
    patient_column: str | None = None,
) -> Collection:
    """Describe the images under ``root``; ids are paths relative to it, with ``/``.

    Args:
        root: the folder.
        patient_regex: expression searched in each file's name and, if not found there, in its path
            relative to ``root``. The first group that is not empty is the patient. A file without a
            match is set aside.
        table: CSV with a column ``path`` (relative to ``root``, or a file name that occurs once).
            It may have any of ``patient``, ``split`` and ``label`` (several joined by ``|`` make
            the task multi-label). Further columns are kept as attributes. What it states takes
            precedence over what folders say. Files that it does not name are set aside.
        layout: ``auto`` or ``flat``, see above.
        patient_column: column of the table that holds patients, where its name is none of the known ones.

    Returns:
        A collection whose task is ``multiclass`` with classes sorted by name where there are class folders.

    Raises:
        InputError: no such folder, no image in it, an ambiguous layout, a bad expression or table.
    """
    skipped: list[Skipped] = []
    notes: list[str] = []
    names = _image_names(root, table, skipped, notes)
    if patient_column is not None and table is None:
        raise InputError("--patient-column names a column of --table; give both or none")
    rows = (
        None
        if table is None
        else read_table(table, names, skipped, notes, patient_column=patient_column)
    )
    if rows is not None:
        names = _named_by(rows, names, table, skipped)
    has_labels = rows is not None and any(row.labels for row in rows.values())
    places = _places(names, root, "flat" if has_labels and layout == "auto" else layout, notes)
    patients = _patients(names, patient_regex, rows, skipped)
    labels = _Labels.of(names, places, rows)
    if len(patients) < len(names):
        notes += _lost(labels, patients, names, patient_regex)
    elif patient_regex is None and not any(patients.values()):
        patients |= _from_headers(root, names, places, rows, layout, notes)
    samples = tuple(_samples(names, places, patients, rows, labels))
    if not samples:
        raise InputError(
            f"none of the images in {root} is left; first: {skipped[0].where}: {skipped[0].reason}"
        )
    if _too_many_classes(labels, rows):
        notes.append(
            f"WARNING: {len(labels.classes)} folders were taken for classes of {len(labels.by_name):,} images; if they are "
            "patients, use --layout flat, and --patient-regex '([^/]+)/' for patients by folder"
        )
    if all(sample.patient is None for sample in samples):
        notes.append(NO_PATIENTS)
    return Collection(
        name=root.resolve().name or "folder",
        label_classes=labels.classes,
        box_classes=(),
        task=labels.task,
        samples=samples,
        load=FileLoader(root),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _too_many_classes(labels: _Labels, rows: Mapping[str, TableRow] | None) -> bool:
    """Whether class folders are so many, or hold so few images, that they are most likely patients."""
    n = len(labels.classes)
    few = n > _SOME_CLASSES and len(labels.by_name) < _FEW_IMAGES * n
    return rows is None and (n > _MANY_CLASSES or few)


def _image_names(
    root: Path, table: Path | None, skipped: list[Skipped], notes: list[str]
) -> list[str]:
    """The images below the folder, or an error where there is none."""
    if not root.exists():
        raise InputError(f"expected a folder of images, {root} is not there; check the path")
    if not root.is_dir():
        raise InputError(
            f"expected a folder of images, {root} is a file; give its folder, or another --format"
        )
    found = scan_images(root, leave_out=table)
    skipped += found.skipped
    notes += found.notes
    if not found.names:
        seen = (
            f"{found.n_others} other files ({found.others_in_words})" if found.others else "nothing"
        )
        raise InputError(
            f"expected images in {root} (PNG, JPEG, TIFF, DICOM), found {seen}; check the path"
        )
    if found.others:
        notes.append(
            f"{counted(found.n_others, 'file that is no image was skipped', 'files that are no images were skipped')} ({found.others_in_words})"
        )
    return found.names


def _named_by(
    rows: dict[str, TableRow], names: list[str], table: Path | None, skipped: list[Skipped]
) -> list[str]:
    skipped += [
        Skipped(name, f"no row of {table} names this file; add one to use it")
        for name in names
        if name not in rows
    ]
    return [name for name in names if name in rows]


def _places(
    names: Sequence[str], root: Path, layout: Layout, notes: list[str]
) -> dict[str, _Place]:
    """Split and class by folder, for each image."""
    parts = {name: PurePosixPath(name).parts[:-1] for name in names}
    if layout == "flat":
        return _by_split_only(parts)
    depth = 0
    tops = _tops(parts, depth)
    while len(tops) == 1 and (top := next(iter(tops))) and split_of(top) is None:
        depth += 1
        tops = _tops(parts, depth)
    if depth:
        around = "/".join(parts[names[0]][:depth])
        notes.append(f"all images lie in the folder {around}: taken as nesting, not as a class")
    splits = sorted(top for top in tops if split_of(top))
    if not splits:
        _refuse_mixed(tops, root, names)
        return {name: _Place(label=_at(parts[name], depth) or None) for name in names}
    rest = sorted(top for top in tops if top not in splits)
    if rest:
        what = (
            f"images such as {_first(names, parts, depth, '')}"
            if rest[0] == ""
            else f"the folder {rest[0]}"
        )
        raise InputError(
            f"expected only {', '.join(splits)} in {root}, found {what} beside them; move it away, or use --layout flat"
        )
    for split in splits:
        inside = {n: p for n, p in parts.items() if p[depth] == split}
        _refuse_mixed(_tops(inside, depth + 1), root / split, list(inside))
    return {
        name: _Place(split_of(own[depth]), _at(own, depth + 1) or None)
        for name, own in parts.items()
    }


def _by_split_only(parts: dict[str, tuple[str, ...]]) -> dict[str, _Place]:
    """Folder names mean nothing, but for official splits at the very top."""
    official = all(own and split_of(own[0]) for own in parts.values())
    return {
        name: _Place(split=split_of(own[0]) if official else None) for name, own in parts.items()
    }


def _at(parts: tuple[str, ...], depth: int) -> str:
    return parts[depth] if len(parts) > depth else ""


def _tops(parts: dict[str, tuple[str, ...]], depth: int) -> set[str]:
    return {_at(own, depth) for own in parts.values()}


def _first(names: Sequence[str], parts: dict[str, tuple[str, ...]], depth: int, top: str) -> str:
    return next(name for name in names if _at(parts[name], depth) == top)


def _refuse_mixed(tops: set[str], where: Path, names: Sequence[str]) -> None:
    if "" in tops and len(tops) > 1:
        loose = min(names, key=lambda name: (name.count("/"), name))
        folders = ", ".join(sorted(tops - {""})[:3])
        raise InputError(
            f"expected images either in {where} or in class folders below it, found both ({loose} beside {folders}); "
            "move the loose images, or use --layout flat to ignore folder names"
        )


def _patients(
    names: Sequence[str],
    regex: str | None,
    rows: dict[str, TableRow] | None,
    skipped: list[Skipped],
) -> dict[str, str | None]:
    """Patient by image; images that the expression does not match are missing from the answer."""
    if rows is not None and any(row.patient is not None for row in rows.values()):
        if regex is not None:
            raise InputError(
                "patients come either from the table's patient column or from --patient-regex; give one of them"
            )
        return {name: rows[name].patient for name in names}
    if regex is None:
        return dict.fromkeys(names)
    pattern = _compiled(regex)
    found = {name: _first_group(pattern, name) for name in names}
    if names and not any(found.values()):
        raise InputError(
            f"--patient-regex '{regex}' matches none of the {len(names)} files (first: {names[0]}); correct it"
        )
    skipped += [
        Skipped(
            name,
            f"--patient-regex '{regex}' finds no patient in this name; extend it, or rename the file",
        )
        for name in names
        if not found[name]
    ]
    return {name: patient for name, patient in found.items() if patient}


def _lost(
    labels: _Labels, patients: Mapping[str, str | None], names: Sequence[str], regex: str | None
) -> list[str]:
    """Warnings on what the expression for patients sets aside."""
    before = Counter(label for name in names for label in labels.by_name.get(name, ()))
    after = Counter(label for name in patients for label in labels.by_name.get(name, ()))
    why = f": --patient-regex '{regex}' finds no patient in the others"
    notes = vanished("images", before, after, why)
    if not notes and 2 * len(patients) < len(names):
        notes = [f"WARNING: only {len(patients):,} of {len(names):,} images are left{why}"]
    return notes


def _from_headers(
    root: Path,
    names: Sequence[str],
    places: Mapping[str, _Place],
    rows: Mapping[str, TableRow] | None,
    layout: Layout,
    notes: list[str],
) -> dict[str, str | None]:
    """Patients of the DICOM files; folders of one patient each are no classes, and are refused as such.

    Raises:
        InputError: most folders that would be classes hold DICOM files of one patient.
    """
    found = header_patients(root, names)
    if not found:
        return {}
    known: dict[str, str | None] = {name: patient for name, patient in found.items() if patient}
    by_folder: dict[str, set[str | None]] = defaultdict(set)
    for name in found if rows is None and layout == "auto" else ():
        label = places[name].label
        if label is not None:
            by_folder[label].add(known.get(name))
    n_classes = len({place.label for place in places.values()} - {None})
    one_each = sum(len(own) == 1 and None not in own for own in by_folder.values())
    told = f"the {len(found):,} DICOM files in {root} lie in {len(by_folder):,} folders"
    # a folder of copies or of a mixed series among those of patients makes no classes of them
    if one_each > 1 and one_each > n_classes / 2:
        some = "" if one_each == len(by_folder) else f", {one_each:,} of them"
        raise InputError(
            f"{told}{some} of one patient each, which are no classes: pack them with --format dicom, which knows patients, "
            "studies and views from headers, or with --layout flat"
        )
    if len(by_folder) > 1 and not known:
        notes.append(
            f"WARNING: {told}, which were taken for classes, and have no patient id; if they are patients or studies, "
            "pack them with --format dicom"
        )
    if known:
        notes.append(header_note(len(known)))
    return known


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise InputError(
            f"--patient-regex '{regex}' is not a regular expression: {error}; correct it"
        ) from error
    if pattern.groups == 0:
        raise InputError(
            f"expected a group in --patient-regex that is the patient, such as '(p\\d+)_'; got {regex!r}"
        )
    return pattern


def _first_group(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name.rsplit("/", 1)[-1]) or pattern.search(name)
    return None if match is None else next((group for group in match.groups() if group), None)


@dataclass(frozen=True)
class _Labels:
    """The classes and one shared vector for each distinct set of labels."""

    classes: tuple[str, ...]
    task: Task
    by_name: dict[str, tuple[str, ...]]
    vectors: dict[tuple[str, ...], FloatArray]

    @staticmethod
    def of(
        names: Sequence[str], places: dict[str, _Place], rows: dict[str, TableRow] | None
    ) -> _Labels:
        """From the table where it states a label, else from the folder."""
        by_name: dict[str, tuple[str, ...]] = {}
        for name in names:
            label = places[name].label
            own = (rows[name].labels if rows is not None else ()) or (
                () if label is None else (label,)
            )
            if own:
                by_name[name] = own
        classes = tuple(sorted({label for own in by_name.values() for label in own}))
        several = any(len(own) > 1 for own in by_name.values())
        vectors = {}
        for own in dict.fromkeys(by_name.values()):
            vector = np.array([PRESENT if c in own else ABSENT for c in classes], dtype=np.float32)
            vector.flags.writeable = False
            vectors[own] = vector
        return _Labels(
            classes,
            "none" if not classes else "multilabel" if several else "multiclass",
            by_name,
            vectors,
        )


def _samples(
    names: Sequence[str],
    places: dict[str, _Place],
    patients: dict[str, str | None],
    rows: dict[str, TableRow] | None,
    labels: _Labels,
) -> Iterator[Sample]:
    for name in names:
        if name not in patients:
            continue
        row = None if rows is None else rows[name]
        own = labels.by_name.get(name)
        split = row.split if row is not None and row.split is not None else places[name].split
        vector = None if own is None else labels.vectors[own]
        if row is not None and row.attributes:
            yield Sample(name, name, patients[name], split, vector, attributes=row.attributes)
        else:
            yield Sample(name, name, patients[name], split, vector)
