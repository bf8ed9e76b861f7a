"""Files that the user leaves out by name (``pack --exclude``): the list that ``twinray look`` writes, or any list of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twinray.data.readers.tabular import read_names
from twinray.errors import InputError
from twinray.records import Collection
from twinray.words import counted


def read_exclusion(path: Path) -> tuple[str, ...]:
    """Names of a list, one a line up to a tab; lines that begin with ``# `` are remarks.

    Raises:
        InputError: the list cannot be read.
    """
    lines = [line for line in read_names(path) if not line.startswith("# ")]
    names = [line.split("\t")[0].strip().replace("\\", "/") for line in lines]
    return tuple(dict.fromkeys(name for name in names if name))


def without(
    collections: Sequence[Collection], names: Sequence[str], path: Path
) -> list[Collection]:
    """The collections without the images of these names.

    A name is an image's path in its source, or its id. Where neither is there, it is the end of one image's path, or one
    image's path is its end: lists are often made from a folder above or below.

    Raises:
        InputError: a name fits several images, none of the names fits any, or nothing is left.
    """
    known: dict[str, list[tuple[int, int]]] = {}
    for c, collection in enumerate(collections):
        for k, sample in enumerate(collection.samples):
            for name in dict.fromkeys((sample.source, sample.id)):
                known.setdefault(name, []).append((c, k))
    ends: dict[str, list[tuple[int, int]]] = {}
    for name, own in known.items():
        parts = name.split("/")
        for i in range(1, len(parts)):
            ends.setdefault("/".join(parts[i:]), []).extend(own)
    gone: set[tuple[int, int]] = set()
    unknown: list[str] = []
    for name in names:
        parts = name.split("/")
        longer = (
            known["/".join(parts[i:])] for i in range(1, len(parts)) if "/".join(parts[i:]) in known
        )
        places: set[tuple[int, int]] = set(known.get(name) or ends.get(name) or next(longer, []))
        if len(places) > 1:
            c, k = min(places)
            raise InputError(
                f"{path}: {name!r} fits {len(places)} images, such as {collections[c].samples[k].source}; give longer paths"
            )
        if not places:
            unknown.append(name)
        gone |= places
    if names and not gone:
        raise InputError(
            f"none of the {len(names):,} names in {path} is an image of the source (first: {names[0]!r}); names are paths below it"
        )
    kept = []
    for c, collection in enumerate(collections):
        n = sum(place[0] == c for place in gone)
        samples = tuple(s for k, s in enumerate(collection.samples) if (c, k) not in gone)
        if not samples:
            raise InputError(
                f"{path} leaves out all {n:,} images of {collection.name}; leave the source out"
            )
        notes = (f"{counted(n, 'image is', 'images are')} left out by --exclude",) if n else ()
        kept.append(replace(collection, samples=samples, notes=(*collection.notes, *notes)))
    if unknown:
        note = (
            f"{len(unknown):,} names of --exclude are no images of the source, such as {unknown[0]}"
        )
        kept[0] = replace(kept[0], notes=(*kept[0].notes, note))
    return kept
