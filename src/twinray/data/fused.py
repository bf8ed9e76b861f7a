"""Weighted box fusion over a whole collection: several readers' boxes -> one set of boxes an image.

How boxes are fused is told in :mod:`twinray.data.fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from twinray.data.fusion import FusedTable, fuse_table
from twinray.records import Boxes, Collection, FloatArray, IntArray, Sample

TieOrder = Callable[[Sequence[str], Sequence[str], FloatArray, Sequence[str]], IntArray]
"""(image ids, class names, (n, 4) boxes, readers) -> (n,) the order in which boxes of one image and class are taken."""


def fuse_collection(
    collection: Collection, iou: float = 0.5, min_readers: int = 1, tie_order: TieOrder | None = None
) -> Collection:
    """Fuse each image's boxes, class by class.

    Images whose boxes carry no readers' names hold a consensus already, and stay as they are where other images do
    carry names. Where none does, all are fused, each box as the work of one unknown reader.

    Args:
        collection: raw boxes with ``readers``.
        iou: a box joins a fused box when their intersection over union is greater than this; in [0, 1).
        min_readers: fused boxes on which fewer distinct readers agree are dropped.
        tie_order: in which order boxes are taken; by content if None.

    Returns:
        The same images; fused boxes have ``n_readers`` and no ``readers``; a note tells how many became how many.

    Raises:
        InputError: a threshold outside its range, or ``min_readers`` above 1 without names.
    """
    named = any(sample.boxes is not None and sample.boxes.readers for sample in collection.samples)
    chosen = [s for s in collection.samples if s.boxes is not None and len(s.boxes) and (s.boxes.readers or not named)]
    fused = _fuse(collection, chosen, named, iou, min_readers, tie_order)
    names, starts, counts = np.unique(fused.image_ids, return_index=True, return_counts=True)
    place = {
        name: slice(start, start + n)
        for name, start, n in zip(names.tolist(), starts.tolist(), counts.tolist(), strict=True)
    }
    of = {sample.id for sample in chosen}
    nowhere = slice(0, 0)
    samples = tuple(
        replace(sample, boxes=_part(fused, place.get(sample.id, nowhere))) if sample.id in of else sample
        for sample in collection.samples
    )
    before = sum(len(sample.boxes) for sample in chosen if sample.boxes is not None)
    note = f"weighted box fusion at IoU {iou:g}: {before:,} boxes became {len(fused):,}"
    if min_readers > 1:
        note += f" that at least {min_readers} readers drew"
    return replace(collection, samples=samples, notes=(*collection.notes, note) if chosen else collection.notes)


def _fuse(
    collection: Collection,
    samples: Sequence[Sample],
    named: bool,
    iou: float,
    min_readers: int,
    tie_order: TieOrder | None,
) -> FusedTable:
    boxes = [sample.boxes for sample in samples if sample.boxes is not None]
    ids = [sample.id for sample, own in zip(samples, boxes, strict=True) for _ in range(len(own))]
    classes = np.concatenate([np.zeros(0, dtype=np.int64), *(own.labels for own in boxes)])
    xyxy = np.concatenate([np.zeros((0, 4)), *(own.xyxy for own in boxes)])
    readers = [name for own in boxes for name in own.readers or ()] if named else None
    order = None
    if tie_order is not None and readers is not None:
        order = tie_order(ids, [collection.box_classes[c] for c in classes.tolist()], xyxy, readers)
    return fuse_table(
        np.array(ids, dtype=np.str_),
        classes,
        xyxy,
        readers if readers is None else np.array(readers, dtype=np.str_),
        tie_order=order,
        iou=iou,
        min_readers=min_readers,
    )


def _part(fused: FusedTable, rows: slice) -> Boxes:
    return Boxes(fused.xyxy[rows], fused.class_ids[rows], n_readers=fused.n_readers[rows])
