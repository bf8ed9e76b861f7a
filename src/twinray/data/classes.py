"""Do names of classes name classes? The one place that judges them, for every reader."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from twinray.records import PRESENT, Collection, is_split_like, split_in_name, split_of
from twinray.words import counted

_FOR_NOTHING = frozenset(
    {"none", "na", "nil", "unknown", "unlabelled", "unlabeled", "undefined", "missing", "-", "?"}
)
_NO_FINDING = frozenset(
    {"nofinding", "nofindings", "normal", "negative", "healthy", "background", "none", "nolesion"}
)
_SAME_SHOWN = 3


def says_no_finding(name: str) -> bool:
    """Whether a class's name says that there is nothing to find, as in "No Finding".

    >>> [says_no_finding(name) for name in ("No Finding", "NORMAL", "Nodule")]
    [True, True, False]
    """
    return re.sub(r"[\W_]+", "", name.casefold()) in _NO_FINDING


def checked_classes(collection: Collection) -> Collection:
    """The collection with notes on classes that are most likely none, or one and the same."""
    notes = [
        *_alike("labels", collection.label_classes),
        *(
            _alike("boxes", collection.box_classes)
            if collection.box_classes != collection.label_classes
            else []
        ),
        *_nothing(collection),
        *_no_finding(collection),
        *_splits(collection.label_classes),
    ]
    return replace(collection, notes=(*collection.notes, *notes)) if notes else collection


def _alike(what: str, classes: Sequence[str]) -> list[str]:
    """Names that differ only in case, blanks or punctuation."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        same[re.sub(r"[\W_]+", "", name.casefold()) or name].append(name)
    groups = [names for names in same.values() if len(names) > 1]
    told = "; ".join(", ".join(map(repr, names)) for names in groups[:_SAME_SHOWN])
    return (
        [
            f"WARNING: classes of {what} differ in nothing but their writing and count as several: {told}"
        ]
        if groups
        else []
    )


def _nothing(collection: Collection) -> list[str]:
    """Classes whose names say that there is no label."""
    notes = []
    for k, name in enumerate(collection.label_classes):
        if name.strip().casefold() in _FOR_NOTHING:
            n = sum(
                int(np.asarray(sample.labels)[k] == PRESENT)
                for sample in collection.samples
                if sample.labels is not None
            )
            notes.append(
                f"WARNING: {name!r} ({counted(n, 'image')}) was taken for a class; leave the cells empty if it means no label"
            )
    return notes


def _no_finding(collection: Collection) -> list[str]:
    """Box classes whose names say that there is nothing to box."""
    notes = []
    for k, name in enumerate(collection.box_classes):
        if says_no_finding(name):
            n = sum(
                int((np.asarray(sample.boxes.labels) == k).sum())
                for sample in collection.samples
                if sample.boxes is not None
            )
            if n:
                notes.append(
                    f"WARNING: {name!r} has {counted(n, 'box', 'boxes')}, but says that there is nothing to box: a detector would learn them; "
                    "leave these annotations out, images without any count as healthy"
                )
    return notes


def _splits(classes: Sequence[str]) -> list[str]:
    """Classes that are called as parts of a data set are."""
    like = [
        name for name in classes if split_of(name) or is_split_like(name) or split_in_name(name)
    ]
    return (
        [
            f"WARNING: {', '.join(map(repr, like))} were taken for classes, but look like splits; call the folders train, "
            "val and test"
        ]
        if like and len(like) == len(classes)
        else []
    )


def vanished(
    what: str, before: Mapping[str, int], after: Mapping[str, int], why: str = ""
) -> list[str]:
    """Warnings on classes of which nothing, or less than half, is left.

    Args:
        what: what is counted, as in ``images``.
        before, after: numbers by class.
        why: words on what became of the others.
    """
    notes = []
    for name, n in before.items():
        left = after.get(name, 0)
        if n and 2 * left < n:
            how = (
                f"loses most of its {what}: {left:,} of {n:,} are left"
                if left
                else f"vanishes: none of its {n:,} {what} is left"
            )
            notes.append(f"WARNING: class {name!r} {how}{why}")
    return notes
