"""The record of who went to which side, and its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from twinray.data.splitting.cut import Patients, checked_groups
from twinray.errors import InputError
from twinray.files import read_json, sha256, typed, write_json
from twinray.records import FloatArray, Split, split_of

_FORMAT = "twinray split record 1"


def check_disjoint(patients: Patients, splits: Sequence[str | None]) -> None:
    """Refuse splits in which a known patient is on two sides. Images whose split is None are in none.

    Raises:
        InputError: names the patients.
    """
    if len(patients) != len(splits):
        raise InputError(
            f"splits: expected one split an image, got {len(splits)} for {len(patients)} images"
        )
    sides: dict[str, set[str]] = {}
    for patient, split in zip(patients, splits, strict=True):
        if patient and split is not None:
            sides.setdefault(patient, set()).add(split)
    both = sorted(patient for patient, names in sides.items() if len(names) > 1)
    if both:
        raise InputError(
            f"splits: expected every patient in one split, got {len(both)} in several: {_some(both)};"
            " cut the splits by patient, or leave those images out"
        )


def patient_note(patients: Patients) -> str | None:
    """The remark that users must see where patients are unknown, or None."""
    unknown = sum(not patient for patient in patients)
    if not unknown:
        return None
    which = (
        "no patient ids"
        if unknown == len(patients)
        else f"no patient id for {unknown} of {len(patients)} images"
    )
    return (
        f"{which}: patient-disjoint splits are impossible to ensure, images were split one by one"
    )


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """A split that anyone can reuse, as a JSON file.

    Attributes:
        method: way in which it was made, in a few words (``iterative stratification by patient``,
            ``official lists``).
        seed: the seed, or None where none was drawn from.
        fractions: the shares asked for, by split.
        ids: the image ids of each split, sorted.
        images: number of images by split.
        patients: number of known patients by split.
        label_counts: images that show each label, by split and label.
        patients_known: flag, true if every image's patient is known, so that "patient-disjoint"
            means something.
        notes: one-line remarks that users must see.
    """

    method: str
    seed: int | None
    fractions: dict[str, float]
    ids: dict[str, list[str]]
    images: dict[str, int]
    patients: dict[str, int]
    label_counts: dict[str, dict[str, int]]
    patients_known: bool
    notes: list[str]

    def write(self, path: Path) -> None:
        """Write the record as JSON, all or nothing; TwinrayError where the disk is full or may not be written."""
        write_json(path, {"format": _FORMAT} | asdict(self), "the split record")

    @staticmethod
    def read(path: Path) -> SplitRecord:
        """Read a record that ``write`` wrote.

        Raises:
            InputError: the file is missing, is no JSON, or is no split record; or an image is in two splits.
        """
        content = read_json(path, "split record")
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InputError(
                f'{path}: expected a split record ("format": "{_FORMAT}"), found none; give a splits.json'
            )
        record = typed(
            {k: v for k, v in content.items() if k != "format"}, SplitRecord, path, "split record"
        )
        every = [i for side in record.ids.values() for i in side]
        twice = (
            sorted({i for i, n in zip(*np.unique(every, return_counts=True), strict=True) if n > 1})
            if every
            else []
        )
        if twice:
            raise InputError(
                f"{path}: expected every image in one split, got {len(twice)} in several: {_some(twice)}"
            )
        return record


@dataclass(frozen=True)
class GivenSplits:
    """The splits of somebody's record, to be used again.

    Attributes:
        name: name of the file.
        sha256: of its bytes.
        method: way in which they were made, as the record says.
        split_of: split by image id.
    """

    name: str
    sha256: str
    method: str
    split_of: Mapping[str, Split]

    @staticmethod
    def read(path: Path) -> GivenSplits:
        """Read a record, with the splits under any of their usual names (``valid``, ``validation`` are val).

        Raises:
            InputError: as :meth:`SplitRecord.read`, or a split is none of train, val and test.
        """
        record = SplitRecord.read(path)
        named = {name: split_of(name) for name in record.ids}
        odd = [name for name, split in named.items() if split is None and record.ids[name]]
        if odd:
            raise InputError(
                f"{path}: expected the splits train, val and test, got {_some(odd)}; rename them"
            )
        return GivenSplits(
            name=path.name,
            sha256=sha256(path),
            method=record.method,
            split_of={
                i: split
                for name, split in named.items()
                if split is not None
                for i in record.ids[name]
            },
        )

    @property
    def told(self) -> str:
        """How the splits came about, in words."""
        return f"as in {self.name} ({self.method})"


def record_splits(
    ids: Sequence[str],
    patients: Patients,
    labels: FloatArray | None,
    splits: Sequence[str | None],
    *,
    label_classes: Sequence[str],
    method: str,
    seed: int | None,
    fractions: Mapping[str, float],
) -> SplitRecord:
    """Describe splits (of ``cut_splits``, of official lists, of a label fraction) so that they can be written.

    Args:
        ids, patients, labels, splits: (n,), (n,), (n, k) or None, (n,); images whose split is None are left out.
        label_classes: (k,) names.
        method, seed, fractions: as in ``SplitRecord``.

    Raises:
        InputError: a patient is on two sides, an id occurs twice, or lengths disagree.
    """
    check_disjoint(patients, splits)
    if len(ids) != len(splits) or len(set(ids)) != len(ids):
        raise InputError(
            f"splits: expected {len(splits)} different image ids, got {len(set(ids))} among {len(ids)}"
        )
    _, present = checked_groups(patients, labels)
    if labels is not None and len(label_classes) != labels.shape[1]:
        raise InputError(
            f"splits: expected {labels.shape[1]} names of labels, got {len(label_classes)}"
        )
    names = [*fractions, *sorted({s for s in splits if s is not None} - set(fractions))]
    rows = {name: [row for row, split in enumerate(splits) if split == name] for name in names}
    classes = label_classes if labels is not None else []
    note = patient_note(patients)
    return SplitRecord(
        method=method,
        seed=seed,
        fractions=dict(fractions),
        ids={name: sorted(ids[row] for row in rows[name]) for name in names},
        images={name: len(rows[name]) for name in names},
        patients={
            name: len({patients[row] for row in rows[name] if patients[row]}) for name in names
        },
        label_counts={
            name: {
                label: int(present[rows[name], column].sum())
                for column, label in enumerate(classes)
            }
            for name in names
        },
        patients_known=note is None,
        notes=[] if note is None else [note],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
