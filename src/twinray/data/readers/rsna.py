"""RSNA Pneumonia Detection Challenge (2018) -> Collection.

Data sheet
    What: 26,684 labelled frontal chest X-rays, one DICOM file of 1024 x 1024 pixels each. Every one of them is an image
    of NIH ChestX-ray14, so a model that was pre-trained on NIH may have seen them.
    Labels and boxes: one class, ``Lung Opacity``, with 9,555 boxes on 6,012 images, in pixels of
    the 1024 x 1024 original. Radiologists drew them as evidence of pneumonia. All other images were
    looked at and have no box. ``stage_2_detailed_class_info.csv`` tells the others apart (kept as
    the attribute ``detailed_class``): ``Normal``, and ``No Lung Opacity / Not Normal``, images with
    another abnormality.
    Label noise: opacity is not pneumonia; the readers had no clinical information and no lateral view.
    Splits: none for the labelled images (the challenge's test images have no published labels).
    Patients: ``patientId`` is one an image, not one a person. A mapping to NIH's file names gives
    the true patient. With NIH's official lists beside it, it gives the official split too. Without
    the mapping the same person can be on both sides.
    Get it: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge. Licence: non-commercial research and
    education. Cite: Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert
    Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 2019; and NIH's (``twinray.data.readers.nih``).

Layout (CSV files may be gzipped)::

    stage_2_train_labels.csv                needed: patientId,x,y,width,height,Target
    stage_2_detailed_class_info.csv         optional: patientId,class
    patientId_to_nih.csv                    optional: patientId,Image Index (NIH's file name)
    train_val_list.txt, test_list.txt       optional, of NIH: official splits, through the mapping
    stage_2_train_images/<patientId>.dcm, or converted images of the same stem in any folder

Rows are set aside one by one. Causes are a ``Target`` other than 0 and 1, two that disagree, and an
image named twice without a box. A box is set aside that is not four finite numbers, has no area or
lies outside the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twinray.data.annotations import REPEATED, BoxAudit
from twinray.data.readers.disk import FileLoader, index_images
from twinray.data.readers.nih import patient_number, read_official_lists
from twinray.data.readers.tabular import Row, find_table, number, read_rows
from twinray.errors import InputError
from twinray.records import ABSENT, PRESENT, Boxes, Collection, FloatArray, Sample, Skipped
from twinray.words import counted

CLASS = "Lung Opacity"
FRAME = (1024, 1024)
"""(width, height) in pixels of the frame that boxes are in."""

_SIDES = ("x", "y", "width", "height")


@dataclass(slots=True)
class _Image:
    """What the labels say of one image."""

    target: str
    boxes: list[FloatArray] = field(default_factory=list)


def read_rsna(
    root: Path, *, images_root: Path | None = None, need_images: bool = True
) -> Collection:
    """Describe the labelled images; a sample's id is its ``patientId``.

    Args:
        root: the folder, or the labels' CSV itself.
        images_root: folder where the images are, at any depth; by default the folder of the labels.
        need_images: flag to leave out images that are not on the disk; False keeps them all, for
            annotations alone.

    Returns:
        A collection with the label and box class ``Lung Opacity``, in the order of the labels. Every image has
        ``boxes``, empty where the target is 0; None only where all boxes of an image were set aside.

    Raises:
        InputError: a table is missing or cannot be read, no image left.
    """
    labels_csv = root if root.is_file() else find_table((root,), ("stage_2_train_labels",))
    if labels_csv is None:
        raise InputError(
            f"expected stage_2_train_labels.csv (or .csv.gz) in {root}, found none; add it"
        )
    folder = labels_csv.parent
    skipped: list[Skipped] = []
    notes: list[str] = []
    index = index_images(images_root or folder, skipped)
    images = _labels(labels_csv, skipped, notes)
    attributes: dict[str, dict[str, str]] = {key: {} for key in images}
    _classes(folder, attributes, notes)
    nih_image = _mapping(folder, attributes, notes)
    split_of = read_official_lists((folder,)) if nih_image else {}
    found = {key: path for key in images if (path := index.find(key)) is not None}
    if need_images:
        notes = [*index.notes(len(images), found.values(), labels_csv.name), *notes]
    kept = [key for key in images if not need_images or key in found]
    if not kept:
        first = f"; first set aside: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"none of the {len(images):,} images that {labels_csv} lists is under {index.root}{first}"
        )
    samples = []
    for key in kept:
        image, name = images[key], nih_image.get(key)
        patient = (
            key if not nih_image else None if name is None else patient_number(name.split("_")[0])
        )
        samples.append(
            Sample(
                id=key,
                source=found.get(key, f"stage_2_train_images/{key}.dcm"),
                patient=patient,
                split=None if name is None else split_of.get(name),
                labels=np.array([PRESENT if image.target == "1" else ABSENT], dtype=np.float32),
                boxes=_boxes(image),
                boxes_frame=FRAME,
                attributes=attributes[key],
            )
        )
    return Collection(
        name="rsna-pneumonia",
        label_classes=(CLASS,),
        box_classes=(CLASS,),
        task="multilabel",
        samples=tuple(samples),
        load=FileLoader(index.root),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _labels(path: Path, skipped: list[Skipped], notes: list[str]) -> dict[str, _Image]:
    """patientId -> target and boxes."""
    images: dict[str, _Image] = {}
    audit = BoxAudit(str(path))
    for row in read_rows(path, ("patientId", *_SIDES, "Target"), notes=notes):
        key, target = row["patientId"], row["Target"]
        fault: str | None = None
        if not key:
            fault = "expected a 'patientId', found nothing; correct the row"
        elif target not in ("0", "1"):
            fault = f"expected 'Target' 0 or 1, got {target[:40]!r}; correct the row"
        elif key in images and images[key].target != target:
            fault = f"a row further up says Target {images[key].target} of {key}, this one {target}; keep one of them"
        elif key in images and target == "0":
            fault = f"{key} already has a row further up; keep one of them"
        if fault is not None:
            skipped.append(Skipped(row.where, fault))
            continue
        image = images.setdefault(key, _Image(target))
        box = _box(row, audit)
        if isinstance(box, str):
            skipped += [] if box == REPEATED else [Skipped(row.where, box)]
        elif box is not None:
            image.boxes.append(box)
    notes += audit.conclude(lambda _: FRAME)
    return images


def _box(row: Row, audit: BoxAudit) -> FloatArray | str | None:
    """xyxy in the frame of 1024 x 1024 pixels; why the box is refused; or None for a target of 0."""
    cells = [row[side] for side in _SIDES]
    if row["Target"] == "0":
        return (
            None
            if all(number(cell or "0") == 0 for cell in cells)
            else f"expected no box with Target 0, got {', '.join(cells)[:60]!r}; correct it"
        )
    values = [number(cell) for cell in cells]
    if any(value is None for value in values):
        return f"expected four numbers x, y, width, height, got {', '.join(cells)[:60]!r}; correct the row"
    x, y, width, height = (float(value) for value in values if value is not None)
    corners = (x, y, x + width, y + height)
    judged = audit.judge(row["patientId"], 0, corners, FRAME, row.where)
    return (
        f"{judged}; correct the row" if isinstance(judged, str) and judged != REPEATED else judged
    )


def _boxes(image: _Image) -> Boxes | None:
    if not image.boxes:
        return Boxes.empty() if image.target == "0" else None
    return Boxes(
        np.array(image.boxes, dtype=np.float64), np.zeros(len(image.boxes), dtype=np.int64)
    )


def _classes(folder: Path, attributes: dict[str, dict[str, str]], notes: list[str]) -> None:
    """Put the detailed class into the attributes."""
    path = find_table((folder,), ("stage_2_detailed_class_info",))
    if path is None:
        return
    unknown = 0
    for row in read_rows(
        path, ("patientId", "class"), notes=notes
    ):  # one row a box: an image's rows repeat its class
        if row["patientId"] in attributes:
            attributes[row["patientId"]]["detailed_class"] = row["class"]
        else:
            unknown += 1
    if unknown:
        notes.append(
            f"{counted(unknown, 'row')} of {path.name} {'names' if unknown == 1 else 'name'} images that the labels do not: left out"
        )


def _mapping(
    folder: Path, attributes: dict[str, dict[str, str]], notes: list[str]
) -> dict[str, str]:
    """patientId -> NIH's file name, also put into the attributes; empty without a mapping."""
    path = find_table((folder,), ("patientId_to_nih",))
    if path is None:
        notes.append(
            "no patientId_to_nih.csv: RSNA's patientId is one an image, so every image counts as its own patient and "
            "splits cannot be kept patient-disjoint"
        )
        return {}
    of: dict[str, str] = {}
    for row in read_rows(path, ("patientId", "Image Index"), notes=notes):
        key, name = row["patientId"], row["Image Index"]
        if key in attributes and name:
            of[key] = name
            attributes[key]["nih_image"] = name
            if row["detailed_class"]:
                attributes[key].setdefault("detailed_class", row["detailed_class"])
    if missing := len(attributes) - len(of):
        notes.append(
            f"{counted(missing, 'image is', 'images are')} not in {path.name}: {'its patient is' if missing == 1 else 'their patients are'} not known"
        )
    return of
