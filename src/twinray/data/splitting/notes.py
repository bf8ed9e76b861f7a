"""What is reported of a pack's splits.

This is how they came about, and which patients and identical images are on several sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.data.splitting.groups import Rows
from twinray.records import SPLITS
from twinray.words import counted

_EXAMPLES = 20


def how_made(
    rows: Rows,
    names: Sequence[str],
    present: Sequence[set[str]],
    missing: Sequence[Mapping[str, float]],
    held: set[int],
    cut: Sequence[int],
    seed: int,
) -> tuple[str, list[str]]:
    """How each collection's splits came about, and notes."""
    methods: dict[str, list[str]] = {}
    notes = []
    cut_rows = np.zeros(len(rows.ids), dtype=np.bool_)
    cut_rows[list(cut)] = True
    for k, name in enumerate(names):
        own = np.flatnonzero(rows.collection == k)
        if not len(own):
            continue
        pool = own[cut_rows[own]].tolist()
        methods.setdefault(_method(rows, pool, present[k], missing[k], own, held, seed), []).append(
            name
        )
        before = f"{name}: " if len(names) > 1 else ""
        bare = [i for i in own.tolist() if not rows.official[i]]
        followed = sum(i in held and bool(rows.official[i] or not present[k]) for i in own.tolist())
        if present[k] and bare:
            notes.append(
                f"{before}{counted(len(bare), 'image without a split of its own', 'images without a split of their own')} went to the patient's split, or to train"
            )
        if followed:
            notes.append(
                f"{before}{counted(followed, 'image went to the split that another source has for its', 'images went to the split that another source has for their')} patient or pixels"
            )
    if len(methods) == 1:
        return next(iter(methods)), notes
    return "; ".join(f"{', '.join(of)}: {method}" for method, of in methods.items()), notes


def _method(
    rows: Rows,
    pool: Sequence[int],
    present: set[str],
    missing: Mapping[str, float],
    own: npt.NDArray[np.int64],
    held: set[int],
    seed: int,
) -> str:
    """How the splits of one collection, rows ``own``, came about; the rows ``pool`` were cut."""
    if not pool:
        if present:
            return "official"
        return (
            "official in other sources"
            if any(i in held for i in own.tolist())
            else "all images are for training"
        )
    grouped = "by patient" if any(rows.patients[i] for i in pool) else "by image (no patient ids)"
    shares = ", ".join(f"{split} {share:g}" for split, share in missing.items())
    kept = [split for split in SPLITS if split in present]
    how = f"{grouped}, iterative stratification, seed {seed}: {shares}"
    return (
        f"cut {how}"
        if kept in ([], ["train"])
        else f"{', '.join(kept)} official; cut out of train {how}"
    )


def on_several_sides(patients: Sequence[str | None], splits: Sequence[str]) -> list[str]:
    """Patients with images in more than one split, sorted."""
    sides: dict[str, str] = {}
    both: dict[str, None] = {}
    for patient, split in zip(patients, splits, strict=True):
        if patient and sides.setdefault(patient, split) != split:
            both[patient] = None
    return sorted(both)


def problems(
    rows: Rows, splits: Sequence[str], whose: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Patients and identical images that are on several sides, and duplicates at all: as JSON, and as notes.

    Args:
        rows: the packed images.
        splits: (n,) their splits.
        whose: splits these are, in words; the sources' own if empty.
    """
    notes = []
    both = on_several_sides(rows.patients, splits)
    if both:
        members = set(both)
        n = sum(patient in members for patient in rows.patients)
        own = "the sources' own" if rows.collection.any() else "the source's own"
        notes.append(
            f"WARNING: {len(both):,} {'patient' if len(both) == 1 else 'patients'} ({counted(n, 'image')}) {'is' if len(both) == 1 else 'are'} in several splits of {whose or own} (named in "
            "pack.json): figures on its val and test images will be too good"
        )
    groups = _repeated(rows.twins)
    across = [group for group in groups if len({splits[i] for i in group}) > 1]
    if groups:
        n = sum(len(group) - 1 for group in groups)
        notes.append(
            f"images that repeat {_what(rows)}: {n:,}, in {counted(len(groups), 'group')}, such as {rows.ids[groups[0][0]]} "
            f"and {rows.ids[groups[0][1]]}"
        )
    if across:
        a = across[0]
        b = next(i for i in a if splits[i] != splits[a[0]])
        notes.append(
            f"WARNING: {len(across)} groups of identical images are in several splits, such as {rows.ids[a[0]]} "
            f"({splits[a[0]]}) and {rows.ids[b]} ({splits[b]}): figures on val and test images will be too good"
        )
    found = {
        "patients_in_several_splits": {"patients": len(both), "first": both[:_EXAMPLES]},
        "duplicates": {
            "groups": len(groups),
            "images": sum(len(group) for group in groups),
            "groups_across_splits": len(across),
            "first": [
                [rows.ids[i] for i in group[:_EXAMPLES]] for group in (across or groups)[:_EXAMPLES]
            ],
        },
    }
    return found, notes


def _what(rows: Rows) -> str:
    return (
        "another, by their pixels or the origin's id of the image"
        if rows.told_by_ids
        else "the pixels of another"
    )


def _repeated(twins: npt.NDArray[np.int64]) -> list[list[int]]:
    """Rows that share a number with another, group by group, in order of their first row."""
    order = np.argsort(twins, kind="stable")
    starts = np.flatnonzero(np.diff(twins[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    several = lengths > 1
    groups = [
        order[at : at + n].tolist() for at, n in zip(starts[several], lengths[several], strict=True)
    ]
    return sorted(groups)
