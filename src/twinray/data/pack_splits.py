"""Which split every packed image belongs to, and what leaks between splits.

A source's own splits are kept. Those that it does not have are cut, patient by patient, with a seed: all of them where
it has none, otherwise out of its training images. Images with identical pixels are kept on one side of a cut even if
their patients differ or are unknown (but for images of one single grey value, which say nothing of a patient).

What a source's own splits do wrong is not mended but reported: patients and images that are on several sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.data.splits import SplitRecord, cut_splits, record_splits
from twinray.errors import InputError
from twinray.records import SPLITS, FloatArray

_EXAMPLES = 20


@dataclass(frozen=True, eq=False)
class Rows:
    """The packed images, in order: n rows.

    Attributes:
        ids, patients, official: (n,) id, patient or None, the source's own split or None.
        collection: (n,) which collection the image is of.
        labels: (n, k) float32, NaN where not stated; or None where no image has labels.
        twins: (n,) equal numbers for images of identical pixels.
        blank: (n,) whether all pixels of the image are the same.
    """

    ids: Sequence[str]
    patients: Sequence[str | None]
    official: Sequence[str | None]
    collection: npt.NDArray[np.int64]
    labels: FloatArray | None
    twins: npt.NDArray[np.int64]
    blank: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settled:
    """Splits of all rows, how they were made, what users must know, and the JSON record."""

    splits: list[str]
    method: str
    notes: list[str]
    findings: dict[str, Any] = field(default_factory=dict)


def settle(rows: Rows, names: Sequence[str], val: float, test: float, seed: int) -> Settled:
    """Keep or cut splits.

    Args:
        rows: the packed images.
        names: of the collections.
        val, test: wanted shares of validation and test images where the source has none of them; 0 for none.
        seed: of the cut.

    Raises:
        InputError: fewer patients than splits to cut.
    """
    splits: list[str] = [split or "" for split in rows.official]
    groups = _groups(rows)
    methods, notes = [], []
    for k, name in enumerate(names):
        own = np.flatnonzero(rows.collection == k)
        if not len(own):
            continue
        method, more = _settle_one(rows, own, splits, groups, val, test, seed)
        methods.append(f"{name}: {method}" if len(names) > 1 else method)
        notes += [f"{name}: {note}" if len(names) > 1 else note for note in more]
    findings, leaks = _findings(rows, splits)
    return Settled(splits, "; ".join(methods), leaks + notes, findings)


def describe(
    rows: Rows, settled: Settled, label_classes: Sequence[str], val: float, test: float, seed: int
) -> SplitRecord:
    """The record of the splits that ``splits.json`` holds; a patient on several sides is noted in it, not refused."""
    both = set(_on_several_sides(rows.patients, settled.splits))
    told: list[str | None] = [None if patient in both else patient for patient in rows.patients]
    fractions = {name: share for name, share in (("train", 1 - val - test), ("val", val), ("test", test)) if share > 0}
    record = record_splits(
        rows.ids,
        told,
        rows.labels,
        settled.splits,
        label_classes=label_classes,
        method=settled.method,
        seed=None if settled.method == "official" else seed,
        fractions=fractions,
    )
    if not both:
        return record
    of_split: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(rows.patients, settled.splits, strict=True):
        if patient:
            of_split[split].add(patient)
    return replace(
        record,
        patients={name: len(of_split[name]) for name in record.images},
        patients_known=all(rows.patients),
        notes=[note for note in settled.notes if "several splits" in note],
    )


def _groups(rows: Rows) -> list[str | None]:
    """What a cut may not separate: the patient, with the patients of images of the same pixels."""
    keys = [f"p{patient}" if patient else f"i{i}" for i, patient in enumerate(rows.patients)]
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    first: dict[int, str] = {}
    counts = np.bincount(rows.twins) if len(rows.twins) else np.zeros(0, dtype=np.int64)
    for i in np.flatnonzero((counts[rows.twins] > 1) & ~rows.blank).tolist():
        a, b = sorted((root(first.setdefault(int(rows.twins[i]), keys[i])), root(keys[i])))
        if a != b:
            parent[b] = a
            parent.setdefault(a, a)
    return [None if key[0] == "i" and key not in parent else root(key) for key in keys]


def _settle_one(
    rows: Rows,
    own: npt.NDArray[np.int64],
    splits: list[str],
    groups: Sequence[str | None],
    val: float,
    test: float,
    seed: int,
) -> tuple[str, list[str]]:
    """Settle one collection's rows ``own`` in ``splits``; how, and notes."""
    notes = []
    present = {splits[i] for i in own} - {""}
    bare = [i for i in own.tolist() if not splits[i]]
    if present and bare:
        of_group = {groups[i]: splits[i] for i in own.tolist() if splits[i] and groups[i] is not None}
        for i in bare:
            splits[i] = of_group.get(groups[i], "train")
        notes.append(f"{len(bare)} images without a split of their own went to their patient's split, or to train")
    wanted = {"val": val, "test": test}
    missing = {split: share for split, share in wanted.items() if share > 0 and split not in present}
    pool = [i for i in own.tolist() if splits[i] in ("", "train")]
    if not pool or not missing:
        for i in pool:
            splits[i] = "train"
        return ("official" if present else "all images are for training"), notes
    fractions = {"train": 1 - sum(missing.values())} | missing
    try:
        labels = None if rows.labels is None else rows.labels[pool]
        cut = cut_splits([groups[i] for i in pool], labels, fractions, seed)
    except InputError as error:
        raise InputError(f"{error} (--val 0 or --test 0, with --resume to keep what is decoded)") from error
    for i, split in zip(pool, cut, strict=True):
        splits[i] = split
    grouped = "by patient" if any(rows.patients[i] for i in pool) else "by image (no patient ids)"
    shares = ", ".join(f"{split} {share:g}" for split, share in missing.items())
    kept = sorted(present, key=SPLITS.index)
    if kept == ["train"] or not kept:
        return f"cut {grouped}, iterative stratification, seed {seed}: {shares}", notes
    return (
        f"{', '.join(kept)} official; cut out of train {grouped}, iterative stratification, seed {seed}: {shares}",
        notes,
    )


def _on_several_sides(patients: Sequence[str | None], splits: Sequence[str]) -> list[str]:
    sides: dict[str, str] = {}
    both: dict[str, None] = {}
    for patient, split in zip(patients, splits, strict=True):
        if patient and sides.setdefault(patient, split) != split:
            both[patient] = None
    return sorted(both)


def _findings(rows: Rows, splits: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Patients and identical images that are on several sides; duplicates at all."""
    notes = []
    both = _on_several_sides(rows.patients, splits)
    if both:
        members = set(both)
        n = sum(patient in members for patient in rows.patients)
        notes.append(
            f"WARNING: {len(both)} patients ({n} images) are in several splits of the source's own (named in "
            "pack.json): figures on its val and test images will be too good"
        )
    groups = _repeated(rows.twins)
    across = [group for group in groups if len({splits[i] for i in group}) > 1]
    if groups:
        n = sum(len(group) - 1 for group in groups)
        notes.append(
            f"images that repeat the pixels of another: {n}, in {len(groups)} groups, such as {rows.ids[groups[0][0]]} "
            f"and {rows.ids[groups[0][1]]}"
        )
    if across:
        a = across[0]
        b = next(i for i in a if splits[i] != splits[a[0]])
        notes.append(
            f"WARNING: {len(across)} groups of identical images are in several splits, such as {rows.ids[a[0]]} "
            f"({splits[a[0]]}) and {rows.ids[b]} ({splits[b]}): figures on val and test images will be too good"
        )
    findings = {
        "patients_in_several_splits": {"patients": len(both), "first": both[:_EXAMPLES]},
        "duplicates": {
            "groups": len(groups),
            "images": sum(len(group) for group in groups),
            "groups_across_splits": len(across),
            "first": [[rows.ids[i] for i in group[:_EXAMPLES]] for group in (across or groups)[:_EXAMPLES]],
        },
    }
    return findings, notes


def _repeated(twins: npt.NDArray[np.int64]) -> list[list[int]]:
    """Rows that share a number with another, group by group, in order of their first row."""
    order = np.argsort(twins, kind="stable")
    starts = np.flatnonzero(np.diff(twins[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    several = lengths > 1
    groups = [order[at : at + n].tolist() for at, n in zip(starts[several], lengths[several], strict=True)]
    return sorted(groups)
