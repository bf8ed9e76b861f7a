"""SIIM-ACR Pneumothorax Segmentation (2019) -> Collection.

Data sheet
    What: 12,047 frontal chest X-rays of the challenge's training part, DICOM, 1024 x 1024 pixels. They are images of NIH
        ChestX-ray14 under new ids, so a model that was pre-trained on NIH may have seen them.
    Labels: one class, ``Pneumothorax``: present where an image has a mask, absent where its row says -1.
    Boxes: the published masks are outlines drawn by hand, as runs of pixels down the columns of the image. Each connected
        region of an image's masks, taken together, becomes the box around it, in pixels of the 1024 x 1024 original.
    Label noise: a region's box says little of its area: a pneumothorax is a thin rim.
    Splits: none for the labelled images.
    Patients: NOT PUBLISHED. ``ImageId`` is one an image, so every image counts as its own patient: two images of one person may
        lie on both sides of a split.
    Get it: https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation. Licence: unknown here; read the challenge's rules.
    Cite: Filice et al., Crowdsourcing pneumothorax annotations using machine learning annotations on the NIH chest X-ray
        dataset, Journal of Digital Imaging 33:490, 2020; and NIH's (``twinray.data.readers.nih``).

Layout (CSV files may be gzipped)::

    train-rle.csv or stage_2_train.csv                      ImageId, EncodedPixels
    dicom-images-train/<study>/<series>/<ImageId>.dcm, or converted images of the same stem in any folder

``EncodedPixels`` is -1, or pairs of numbers: how many pixels to skip since the end of the last run, and how many to take.
Pixels are counted down the first column, then down the second. Rows are set aside one by one: runs beyond the image, or
other text; a mask beside a -1 of the same image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twinray.data.readers.disk import index_images
from twinray.data.readers.drawn.assembly import Assembly, Corners, Image
from twinray.data.readers.tabular import find_table, read_rows
from twinray.errors import InputError
from twinray.records import Collection

NAME = "siim-acr-pneumothorax"
CLASS = "Pneumothorax"
FRAME = (1024, 1024)
"""(width, height) in pixels of the frame that masks are in."""

_EIGHT = np.ones((3, 3), dtype=np.int64)
"""Pixels that touch at a corner are one region."""


@dataclass(slots=True)
class _Mask:
    """What the rows say of one image: the place of the first row, its runs, and rows that could not be read."""

    where: str
    runs: list[npt.NDArray[np.int64]] = field(default_factory=list)
    none: bool = False
    faulty: bool = False


def read_siim(
    root: Path, *, images_root: Path | None = None, need_images: bool = True
) -> Collection:
    """Describe the labelled images; a sample's id is its ``ImageId``.

    Args:
        root: the folder, or the CSV itself.
        images_root: folder where the images are, at any depth; by default that of the CSV.
        need_images: flag to leave out images that are not on the disk.

    Raises:
        InputError: the table is missing or cannot be read, no image left.
    """
    path = root if root.is_file() else find_table((root,), ("train-rle", "stage_2_train"))
    if path is None:
        raise InputError(f"expected train-rle.csv (or .csv.gz) in {root}, found none; add it")
    assembly = Assembly(path, images_root or path.parent)
    index = index_images(assembly.root, assembly.skipped)
    masks = _masks(path, assembly)
    found = {key: source for key in masks if (source := index.by_stem.get(key)) is not None}
    if need_images:
        assembly.notes += index.notes(len(masks), found.values(), path.name)
    for key, mask in masks.items():
        if need_images and key not in found:
            continue
        image = Image(
            key, found.get(key, f"dicom-images-train/{key}.dcm"), frame=FRAME, patient=key
        )
        assembly.add(image, mask.where)
        if mask.faulty:
            image.lost.add(CLASS)
        for box in regions(mask.runs):
            assembly.draw(image, CLASS, box, mask.where)
    if masks and not assembly.images:
        raise InputError(
            f"none of the {len(masks):,} images that {path} lists is under {index.root}"
        )
    assembly.notes.append(
        "SIIM-ACR's ids are one an image: every image counts as its own patient, splits cannot be kept patient-disjoint"
    )
    return assembly.collection(NAME, label_classes=(CLASS,), box_classes=(CLASS,))


def _masks(path: Path, assembly: Assembly) -> dict[str, _Mask]:
    masks: dict[str, _Mask] = {}
    for row in read_rows(path, ("ImageId", "EncodedPixels"), notes=assembly.notes):
        key, cell = row["ImageId"], row["EncodedPixels"]
        if not key:
            assembly.set_aside(row.where, "expected an 'ImageId', found nothing; correct the row")
            continue
        known = masks.get(key)
        runs = None if cell == "-1" else _runs(cell)
        fault = runs if isinstance(runs, str) else ""
        if not fault and known is not None and (known.none or runs is None):
            fault = f"{key} has a row with a mask and one without; keep one of them"
        mask = masks.setdefault(key, _Mask(row.where))
        if fault:
            mask.faulty = True
            assembly.set_aside(row.where, fault)
        elif runs is None:
            mask.none = True
        elif not isinstance(runs, str):
            mask.runs.append(runs)
    return masks


def _runs(cell: str) -> npt.NDArray[np.int64] | str:
    """(n, 2) first pixel and number of pixels of each run; or why they cannot be read."""
    words = cell.split()
    if not words or len(words) % 2 or not all(word.isascii() and word.isdigit() for word in words):
        return f"expected -1 or pairs of whole numbers under 'EncodedPixels', got {cell[:40]!r}; correct the row"
    if max(map(len, words)) > 9:
        return "expected runs within 1024 x 1024 pixels, found numbers beyond; correct the row"
    pairs = np.array(words, dtype=np.int64).reshape(-1, 2)
    ends = np.cumsum(pairs.sum(axis=1))
    if ends[-1] > FRAME[0] * FRAME[1]:
        return f"expected runs within 1024 x 1024 pixels, they end at pixel {ends[-1]:,}; correct the row"
    return np.stack([ends - pairs[:, 1], pairs[:, 1]], axis=1)


def regions(masks: list[npt.NDArray[np.int64]]) -> list[Corners]:
    """Boxes around the connected regions of masks taken together, from left to right.

    Args:
        masks: (n, 2) runs: first pixel, counted down the columns of 1024 x 1024 pixels, and number of pixels.
    """
    width, height = FRAME
    marks = np.zeros(width * height + 1, dtype=np.int64)
    for runs in masks:
        np.add.at(marks, runs[:, 0], 1)
        np.add.at(marks, runs.sum(axis=1), -1)
    if not marks.any():
        return []
    covered = (np.cumsum(marks[:-1]) > 0).reshape(width, height).T
    labelled, _ = ndimage.label(covered, structure=_EIGHT)
    boxes = [
        (float(x.start), float(y.start), float(x.stop), float(y.stop))
        for y, x in ndimage.find_objects(labelled)
    ]
    return sorted(boxes)
