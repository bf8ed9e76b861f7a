"""Weighted box fusion: several readers' boxes on one image become one set of boxes.

Source: Solovyev, Wang and Gabruseva, "Weighted boxes fusion: ensembling boxes from different object
detection models", Image and Vision Computing 107 (2021). Per image and class the boxes are taken one
after the other, best score first. A box joins the fused box that it overlaps most if their
intersection over union (IoU) is greater than the threshold. That fused box becomes the
score-weighted mean of its members. Otherwise the box starts a fused box of its own.

Conventions
    Ties. Readers have no confidence, so every score is 1 and the order in which boxes are taken is
    a tie. Two boxes fuse alike in either order. Where three or more overlap in a chain, the order
    decides how many fused boxes there are. VinDr-CXR's 36,096 boxes at IoU 0.5 give 23,909 to
    23,953 over 25 random orders. Here ties are resolved by
    what the rows say, never by where they stand in a table: x1, y1, x2, y2, then the reader's name, ascending. The
    result is the same, to the byte, however the rows are shuffled.
    ``tie_order`` overrides that. To repeat figures that were made in file order, give the row
    numbers of the published file. Negate them for software that takes the last row first
    (``ensemble_boxes`` does). The number then belongs to its row and is shuffled with it.
    Image size. IoU and weighted means do not change when an axis is rescaled. Dividing by the
    image's width and height, as the paper does, therefore cannot change the result beyond rounding.
    Boxes are fused in pixels, where whole coordinates are exact; readers have clipped them to the
    image.
    Score. A fused box's score is the mean of its members' scores. The paper's last step, scaling the score by how many
    models found the box, is left out, because that number itself is kept: ``n_readers``.
    Readers. ``n_readers`` counts distinct names; one reader's duplicates count once. Without names every box is the
    work of one unknown reader, and ``n_readers`` is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.geometry import corner_iou
from twinray.records import Boxes, Collection, FloatArray, IntArray, Sample
from twinray.words import counted

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FusedTable:
    """Fused boxes of many images, sorted by image id, class id, x1, y1, x2, y2.

    Attributes:
        image_ids: (m,) str.
        class_ids: (m,) int64.
        xyxy: (m, 4) float64, pixels, the frame of the input boxes.
        scores: (m,) float64 in 0..1, the mean of the members' scores.
        n_readers: (m,) int64, distinct readers among the members.
        n_boxes: (m,) int64, members, duplicates included.
    """

    image_ids: npt.NDArray[np.str_]
    class_ids: Index
    xyxy: FloatArray
    scores: FloatArray
    n_readers: Index
    n_boxes: Index

    def __len__(self) -> int:
        return len(self.class_ids)


def fuse_table(
    image_ids: Sequence[str] | npt.NDArray[np.str_],
    class_ids: Sequence[int] | IntArray,
    xyxy: FloatArray,
    readers: Sequence[str] | npt.NDArray[np.str_] | None,
    *,
    scores: FloatArray | None = None,
    tie_order: IntArray | None = None,
    iou: float = 0.5,
    min_readers: int = 1,
) -> FusedTable:
    """Fuse the boxes of a whole table, all images and classes at once.

    Args:
        image_ids: (n,) the image that each box is on.
        class_ids: (n,) whole numbers; boxes of different classes never fuse.
        xyxy: (n, 4) left, top, right, bottom, in pixels (or any unit, the same within an image).
        readers: (n,) who drew each box, or None where the source does not say.
        scores: (n,) in (0, 1]; None gives every box the score 1.
        tie_order: (n,) boxes of equal score are taken in its ascending order; None: by content (see the module).
        iou: a box joins a fused box when their IoU is greater than this; in [0, 1).
        min_readers: fused boxes with fewer distinct readers are dropped.

    Raises:
        InputError: arrays of unequal length, a value outside its range, a box without area (its row is named).
    """
    table = _checked(image_ids, class_ids, xyxy, readers, scores, tie_order, iou, min_readers)
    names, image_codes = np.unique(table.image_ids, return_inverse=True)
    _, reader_codes = np.unique(table.readers, return_inverse=True)
    order = _canonical_order(image_codes, table, reader_codes)
    image_codes, classes, boxes = image_codes[order], table.class_ids[order], table.xyxy[order]
    weights, reader_codes = table.scores[order], reader_codes[order]
    new_group = np.ones(len(order), dtype=bool)
    new_group[1:] = (image_codes[1:] != image_codes[:-1]) | (classes[1:] != classes[:-1])
    starts = np.flatnonzero(new_group)
    slots = _cluster(boxes, weights, starts, np.diff(np.append(starts, len(order))), iou)
    # Every fused box keeps the slot of the row where its group starts plus its number in the group.
    used, members = np.unique(slots, return_inverse=True)
    n_boxes = np.bincount(members, minlength=len(used))
    total = np.bincount(members, weights, len(used))
    fused = np.stack(
        [np.bincount(members, weights * boxes[:, side], len(used)) / total for side in range(4)], 1
    )
    pairs = np.unique(np.stack([members, reader_codes], 1), axis=0)
    n_readers = np.bincount(pairs[:, 0], minlength=len(used))
    rank = np.lexsort((*fused.T[::-1], classes[used], image_codes[used]))
    rank = rank[n_readers[rank] >= min_readers]
    return FusedTable(
        image_ids=names[image_codes[used]][rank],
        class_ids=classes[used][rank],
        xyxy=fused[rank],
        scores=(total / np.maximum(n_boxes, 1))[rank],
        n_readers=n_readers[rank].astype(np.int64),
        n_boxes=n_boxes[rank].astype(np.int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    image_ids: npt.NDArray[np.str_]
    class_ids: Index
    xyxy: FloatArray
    readers: npt.NDArray[np.str_]
    scores: FloatArray
    tie_order: FloatArray


def _checked(
    image_ids: Sequence[str] | npt.NDArray[np.str_],
    class_ids: Sequence[int] | IntArray,
    xyxy: FloatArray,
    readers: Sequence[str] | npt.NDArray[np.str_] | None,
    scores: FloatArray | None,
    tie_order: IntArray | None,
    iou: float,
    min_readers: int,
) -> _Table:
    if not 0 <= iou < 1:
        raise InputError(
            f"box fusion: expected an IoU threshold in [0, 1), got {iou}; the usual one is 0.5"
        )
    if min_readers < 1:
        raise InputError(f"box fusion: expected min_readers of at least 1, got {min_readers}")
    if readers is None and min_readers > 1:
        raise InputError(
            f"box fusion: min_readers {min_readers} needs the readers' names, the boxes have none; use min_readers 1"
        )
    boxes = np.array(xyxy, dtype=np.float64)
    n = len(boxes)
    if boxes.shape != (n, 4):
        raise InputError(f"box fusion: expected boxes of shape (n, 4), got {boxes.shape}")
    columns = {"image_ids": image_ids, "class_ids": class_ids, "readers": readers, "scores": scores}
    columns |= {"tie_order": tie_order}
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise InputError(f"box fusion: expected {n} {name}, one a box, got {len(column)}")
    weights = np.ones(n) if scores is None else np.asarray(scores, dtype=np.float64)
    if not np.all((weights > 0) & (weights <= 1)):
        row = int(np.argmin((weights > 0) & (weights <= 1)))
        raise InputError(
            f"box fusion: expected scores in (0, 1], got {weights[row]} in row {row}; leave the box out"
        )
    sound = np.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not sound.all():
        row = int(np.argmin(sound))
        raise InputError(
            f"box fusion: expected x1 < x2 and y1 < y2, got {boxes[row].tolist()} in row {row}"
            f" (image {image_ids[row]!s}); correct the box or leave it out"
        )
    return _Table(
        image_ids=np.asarray(image_ids, dtype=np.str_),
        class_ids=np.asarray(class_ids, dtype=np.int64),
        xyxy=boxes,
        readers=np.zeros(n, dtype=np.str_)
        if readers is None
        else np.asarray(readers, dtype=np.str_),
        scores=weights,
        tie_order=np.zeros(n) if tie_order is None else np.asarray(tie_order, dtype=np.float64),
    )


def _canonical_order(image_codes: Index, table: _Table, reader_codes: Index) -> Index:
    """Rows by image and class, best score first; two rows that still tie are alike in every respect."""
    keys = (
        reader_codes,
        *table.xyxy.T[::-1],
        table.tie_order,
        -table.scores,
        table.class_ids,
        image_codes,
    )
    return np.lexsort(keys)


def _cluster(
    boxes: FloatArray, weights: FloatArray, starts: Index, counts: Index, iou: float
) -> Index:
    """Give every row the slot of its fused box.

    Groups (one image, one class) are independent, so step j takes the j-th box of all groups at once. Group g's
    fused boxes live in slots starts[g], starts[g] + 1, ..., at most as many as it has rows.

    boxes (n, 4), weights (n,), grouped; starts, counts (g,) -> slots (n,)
    """
    by_size = np.argsort(-counts, kind="stable")
    starts, counts = starts[by_size], counts[by_size]
    n_fused = np.zeros(len(starts), dtype=np.int64)
    sums, totals = np.zeros_like(boxes), np.zeros_like(weights)
    slots = np.zeros(len(boxes), dtype=np.int64)
    for step in range(int(counts.max(initial=0))):
        active = int(
            np.searchsorted(-counts, -step, side="left")
        )  # groups with more than `step` rows come first
        start, fused = starts[:active], n_fused[:active]
        rows = start + step
        choice = fused.copy()
        width = int(fused.max(initial=0))
        if width:
            column = np.arange(width)
            candidates = np.where(column < fused[:, None], start[:, None] + column, start[:, None])
            overlap = corner_iou(
                sums[candidates] / totals[candidates][..., None], boxes[rows][:, None]
            )
            overlap[column >= fused[:, None]] = -1.0
            best = overlap.argmax(1)
            choice = np.where(overlap[np.arange(active), best] > iou, best, fused)
        slot = start + choice
        sums[slot] += weights[rows][:, None] * boxes[rows]
        totals[slot] += weights[rows]
        n_fused[:active] += choice == fused
        slots[rows] = slot
    return slots


TieOrder = Callable[[Sequence[str], Sequence[str], FloatArray, Sequence[str]], IntArray]
"""(image ids, class names, (n, 4) boxes, readers) -> (n,) the order in which boxes of one image and class are taken."""


def fuse_collection(
    collection: Collection,
    iou: float = 0.5,
    min_readers: int = 1,
    tie_order: TieOrder | None = None,
) -> Collection:
    """Fuse each image's boxes, class by class.

    Images whose boxes carry no readers' names hold a consensus already, and stay as they are where other images do
    carry names. Where none does, all are fused, each box as the work of one unknown reader.

    Args:
        collection: raw boxes with ``readers``.
        iou: a box joins a fused box when their intersection over union is greater than this; in [0, 1).
        min_readers: fused boxes on which fewer distinct readers agree are dropped.
        tie_order: order in which boxes are taken; by content if None.

    Returns:
        The same images; fused boxes have ``n_readers`` and no ``readers``; a note tells how many became how many.

    Raises:
        InputError: a threshold outside its range, or ``min_readers`` above 1 without names.
    """
    named = any(sample.boxes is not None and sample.boxes.readers for sample in collection.samples)
    chosen = [
        s
        for s in collection.samples
        if s.boxes is not None and len(s.boxes) and (s.boxes.readers or not named)
    ]
    fused = _fuse(collection, chosen, named, iou, min_readers, tie_order)
    names, starts, counts = np.unique(fused.image_ids, return_index=True, return_counts=True)
    place = {
        name: slice(start, start + n)
        for name, start, n in zip(names.tolist(), starts.tolist(), counts.tolist(), strict=True)
    }
    of = {sample.id for sample in chosen}
    nowhere = slice(0, 0)
    samples = tuple(
        replace(sample, boxes=_part(fused, place.get(sample.id, nowhere)))
        if sample.id in of
        else sample
        for sample in collection.samples
    )
    before = sum(len(sample.boxes) for sample in chosen if sample.boxes is not None)
    note = f"weighted box fusion at IoU {iou:g}: {counted(before, 'box became', 'boxes became')} {len(fused):,}"
    if min_readers > 1:
        note += f" that at least {min_readers} readers drew"
    return replace(
        collection, samples=samples, notes=(*collection.notes, note) if chosen else collection.notes
    )


def fuse_by_image(
    boxes: Mapping[str, Boxes], iou: float = 0.5, min_readers: int = 1
) -> dict[str, Boxes]:
    """Each image's readers' boxes fused; an image without boxes stays without.

    Args:
        boxes: image id -> the boxes of its readers, all with names or all without.
        iou, min_readers: arguments as in ``fuse_table``.

    Raises:
        InputError: see ``fuse_table``.
    """
    some = {image: own for image, own in boxes.items() if len(own)}
    named = all(own.readers is not None for own in some.values())
    fused = fuse_table(
        np.repeat(np.array(list(some), dtype=np.str_), [len(own) for own in some.values()]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(own.labels for own in some.values())]),
        np.concatenate([np.zeros((0, 4)), *(own.xyxy for own in some.values())]),
        [name for own in some.values() for name in own.readers or ()] if named else None,
        iou=iou,
        min_readers=min_readers,
    )
    names, starts, counts = np.unique(fused.image_ids, return_index=True, return_counts=True)
    found = {
        str(name): _part(fused, slice(start, start + n))
        for name, start, n in zip(names, starts.tolist(), counts.tolist(), strict=True)
    }
    return {image: found.get(image, Boxes.empty()) for image in boxes}


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
