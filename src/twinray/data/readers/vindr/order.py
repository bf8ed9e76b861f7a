"""The order in which VinDr-CXR's published rows were fused, where the result depends on it.

The published counts of fused boxes are 36,096 -> 23,934 at IoU 0.5. They were made by taking each
image's and class's boxes in the order of the published file, last row first. Here boxes are
otherwise taken by their content, which needs no file order and gives 23,902. The two differ in 257
of 15,365 groups of one image and class. For these, and nothing else, ``vindr_order.json`` holds the
published order. It has a hash of each group's content (image id, class, every box with its reader)
and a permutation, no box. So the published rows give the published boxes however they are shuffled.
Any other rows (a changed box, a missing reader) match no hash and are taken by content.
``scripts/make_vindr_order.py`` makes the file again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from twinray.records import FloatArray

PUBLISHED_IOU = 0.5
"""The threshold that the published counts, and so the recorded groups, belong to."""

Index = npt.NDArray[np.int64]


def published_order(
    image_ids: Sequence[str], class_names: Sequence[str], xyxy: FloatArray, readers: Sequence[str]
) -> Index:
    """The place of every box in the order in which its group is taken; for ``fuse_table``'s ``tie_order``.

    Args:
        image_ids, class_names, readers: (n,) of each box; a group is one image and class.
        xyxy: (n, 4) boxes in pixels as published.

    Returns:
        (n,) int64, 0 for the box of its group that is taken first.
    """
    known = _recorded()
    places = np.zeros(len(image_ids), dtype=np.int64)
    for key, rows in groups(image_ids, class_names, xyxy, readers):
        taken = known.get(key)
        order = (
            rows
            if taken is None or sorted(taken) != list(range(len(rows)))
            else rows[np.array(taken)]
        )
        places[order] = np.arange(len(rows))
    return places


def groups(
    image_ids: Sequence[str], class_names: Sequence[str], xyxy: FloatArray, readers: Sequence[str]
) -> Iterator[tuple[str, Index]]:
    """Every group of two or more boxes: the hash of its content, and its rows in the order of their content."""
    names = [
        np.unique(np.array(column, dtype=np.str_), return_inverse=True)[1]
        for column in (image_ids, class_names)
    ]
    who = np.unique(np.array(readers, dtype=np.str_), return_inverse=True)[1]
    order = np.lexsort((who, *xyxy.T[::-1], names[1], names[0]))
    changes = (np.diff(names[0][order], prepend=-1) != 0) | (
        np.diff(names[1][order], prepend=-1) != 0
    )
    starts = np.flatnonzero(changes)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        if end - start > 1:
            rows = order[start:end]
            content = [(*xyxy[row].tolist(), str(readers[row])) for row in rows.tolist()]
            told = repr((str(image_ids[rows[0]]), str(class_names[rows[0]]), content))
            yield hashlib.sha256(told.encode()).hexdigest()[:16], rows


@cache
def _recorded() -> Mapping[str, Sequence[int]]:
    text = (
        resources.files("twinray.data.readers.vindr")
        .joinpath("vindr_order.json")
        .read_text(encoding="utf-8")
    )
    recorded: dict[str, list[int]] = json.loads(text)["taken"]
    return recorded
