"""Labelled images of a pack."""

from __future__ import annotations

import numpy as np

from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.records import IntArray


def labelled_rows(pack: Pack, split: str) -> IntArray:
    """Rows of a split that have a label.

    Raises:
        InputError: the pack has no labels, or the split no labelled image.
    """
    if pack.info.task == "none":
        raise InputError(f"{pack.path} has no labels: pack a source with class folders, a label table or annotations")
    rows = pack.where(split)
    usable: IntArray = rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)]
    if len(usable) == 0:
        raise InputError(f"no labelled image of split {split} in {pack.path}; pack again with a larger share for it")
    return usable


def check_classes(pack: Pack, rows: IntArray, fraction: float, seed: int) -> None:
    """One class alone teaches nothing; said before any work is done."""
    labels = pack.labels[rows]
    if pack.info.task == "multiclass" and len(np.unique(labels.argmax(axis=1))) < 2:
        name = pack.info.label_classes[int(labels[0].argmax())]
        raise InputError(
            f"all {len(rows)} training images of --fraction {fraction} with seed {seed} are {name!r}; raise the fraction, or pack "
            "images of other classes too"
        )
