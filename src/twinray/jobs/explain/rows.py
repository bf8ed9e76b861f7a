"""Which images of a pack are explained or measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from twinray.data.pack import Pack
from twinray.errors import InputError


def chosen_rows(pack: Pack, ids: Sequence[str], split: str, count: int) -> list[int]:
    """Rows of the named images, or of the split's first images with boxes.

    Raises:
        InputError: an id that the pack does not have; a split without boxes.
    """
    if ids:
        position = {str(image): row for row, image in enumerate(pack.ids)}
        unknown = [image for image in ids if image not in position]
        if unknown:
            raise InputError(
                f"{pack.path} has no image {unknown[0]!r}; ids are in the column id of its samples.parquet"
            )
        return [position[image] for image in ids]
    with_boxes = (int(row) for row in pack.where(split) if len(pack.boxes(int(row)) or ()) > 0)
    rows = list(islice(with_boxes, count))
    if not rows:
        raise InputError(
            f"no image with a box in split {split} of {pack.path}; name images by id, or see --split"
        )
    return rows


def rows_to_explain(pack: Pack, split: str, count: int) -> list[int]:
    """The split's first images with boxes; where it has none, its first images.

    Raises:
        InputError: the split has no image.
    """
    rows = [int(row) for row in pack.where(split)]
    with_boxes = [row for row in rows if len(pack.boxes(row) or ()) > 0]
    if not rows:
        raise InputError(
            f"no image in split {split} of {pack.path}; name images by id, or see --split"
        )
    return (with_boxes or rows)[:count]
