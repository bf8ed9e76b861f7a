"""ChestX-Det and ChestX-Det10 -> Collection.

Data sheet
    What: 3,578 images (ChestX-Det10: 3,543) of NIH ChestX-ray14, PNG of 1024 x 1024 pixels. A model that was
        pre-trained on NIH may have seen them.
    Boxes: 13 classes (ChestX-Det10: 10), drawn by three radiologists, in pixels of the 1024 x 1024 original: Atelectasis, Calcification,
        Cardiomegaly, Consolidation, Diffuse Nodule, Effusion, Emphysema, Fibrosis, Fracture, Mass, Nodule, Pleural Thickening,
        Pneumothorax. An image without a box was looked at. Outlines are used to check boxes alone.
    Labels: present where the image has a box of the class, else absent.
    Splits: the official ones, by image: train and test.
    Patients: ChestX-Det10 keeps NIH's file names, whose first part is the patient. ChestX-Det numbers images anew: patients are
        then not known, and one person may be on both sides.
    Get it: https://github.com/Deepwise-AILab/ChestX-Det-Dataset and .../ChestX-Det10-Dataset. Licence: unknown here; the images
        are NIH's.
    Cite: Lian et al., A Structure-Aware Relation Network for Thoracic Diseases Detection and Segmentation, arXiv 2104.10326,
        2021; Liu et al., ChestX-Det10, arXiv 2006.10550, 2020; and NIH's (``twinray.data.readers.nih``).

Layout::

    ChestX_Det_train.json, ChestX_Det_test.json     [{"file_name", "syms": [...], "boxes": [[x1, y1, x2, y2], ...], "polygons": [...]}]
    (or train.json, test.json)
    train_data/, test_data/                         the images (or train/, test/, or any folder)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from twinray.data.readers.disk import ImageIndex, index_images
from twinray.data.readers.drawn.assembly import Assembly, Corners, Image, extent
from twinray.data.readers.nih import patient_number
from twinray.errors import InputError
from twinray.files import read_json
from twinray.records import Collection, FloatArray, Split
from twinray.words import counted

NAME = "chestx-det"
CLASSES = (
    "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse Nodule", "Effusion", "Emphysema", "Fibrosis",
    "Fracture", "Mass", "Nodule", "Pleural Thickening", "Pneumothorax",
)  # fmt: skip
ADDED = ("Cardiomegaly", "Diffuse Nodule", "Pleural Thickening")
"""Classes that ChestX-Det10 lacks."""
FRAME = (1024, 1024)
"""(width, height) in pixels of the frame that boxes are in."""

_FILES: tuple[tuple[str, Split], ...] = (("train", "train"), ("test", "test"))
_NIH = re.compile(r"(\d{8})_\d{3}\.\w+")


def read_chestx_det(
    root: Path, *, images_root: Path | None = None, need_images: bool = True
) -> Collection:
    """Describe the images of both files; ids are names of files after their part (``train/36199.png``).

    Args:
        root: the folder with the JSON files.
        images_root: folder of the images; by default ``root``.
        need_images: flag to leave out images that are not on the disk.

    Raises:
        InputError: no JSON file, or one of another form; no image left.
    """
    files = [
        (path, part, split)
        for part, split in _FILES
        for path in (root / f"ChestX_Det_{part}.json", root / f"{part}.json")
        if path.is_file()
    ]
    parts = [part for _, part, _ in files]
    if not files or len(set(parts)) < len(parts):
        came = f"found {', '.join(path.name for path, *_ in files)}" if files else "found neither"
        raise InputError(
            f"expected ChestX_Det_train.json and ChestX_Det_test.json, or train.json and test.json, in {root}, {came}"
        )
    assembly = Assembly(root, images_root or root)
    missing: list[str] = []
    classes: set[str] = set()
    for path, part, split in files:
        index, prefix = _index(assembly, part)
        taken = len(assembly.images)
        for i, one in enumerate(_records(path)):
            _take(
                one,
                f"{path} [{i}]",
                (part, split),
                (index, prefix),
                missing if need_images else None,
                classes,
                assembly,
            )
        if prefix:
            sources = [image.source for image in list(assembly.images.values())[taken:]]
            assembly.notes += index.unlisted((s.removeprefix(prefix) for s in sources), path.name)
    if missing:
        if not assembly.images:
            raise InputError(
                f"none of the {len(missing):,} images of the JSON files is in {assembly.root} (first: {missing[0]}); give their "
                "folder with --images"
            )
        assembly.notes.append(
            f"{counted(len(missing), 'image of the JSON files is', 'images of the JSON files are')} not on this disk, such as {missing[0]}: left out"
        )
    own = CLASSES if classes & set(ADDED) else tuple(c for c in CLASSES if c not in ADDED)
    return assembly.collection(NAME, label_classes=own, box_classes=own)


def _index(assembly: Assembly, part: str) -> tuple[ImageIndex, str]:
    """The images of a part and what their paths begin with."""
    folder = next((name for name in (f"{part}_data", part) if (assembly.root / name).is_dir()), "")
    index = index_images(assembly.root / folder, assembly.skipped)
    return index, f"{folder}/" if folder else ""


def _records(path: Path) -> list[Any]:
    raw = read_json(path, "ChestX-Det's annotations", foreign=True)
    if not isinstance(raw, list):
        raise InputError(
            f"expected a list of images with file_name, syms and boxes in {path}, found none; give the file as it is published"
        )
    return raw


def _take(
    one: Any,
    where: str,
    part: tuple[str, Split],
    index: tuple[ImageIndex, str],
    missing: list[str] | None,
    classes: set[str],
    assembly: Assembly,
) -> None:
    name = one.get("file_name") if isinstance(one, dict) else None
    if not isinstance(name, str) or not name or "/" in name:
        return assembly.set_aside(
            where, f"expected a 'file_name', got {str(name)[:60]!r}; correct it"
        )
    names, boxes, polygons = (one.get(key, []) for key in ("syms", "boxes", "polygons"))
    if not isinstance(names, list) or not isinstance(boxes, list) or len(names) != len(boxes):
        return assembly.set_aside(
            f"{where} ({name[:60]})",
            "expected as many 'syms' as 'boxes'; give the file as it is published",
        )
    found = index[0].find(name)
    key = f"{part[0]}/{name}"
    if found is None and missing is not None:
        missing.append(key)
        return None
    nih = _NIH.fullmatch(name)
    image = Image(
        key,
        f"{index[1]}{found}" if found else key,
        frame=FRAME,
        split=part[1],
        patient=patient_number(nih[1]) if nih else None,
        attributes={"nih_image": name} if nih else {},
    )
    if not assembly.add(image, where):
        return None
    for j, (sym, box) in enumerate(zip(names, boxes, strict=True)):
        place = f"{where} ({name}) box {j}"
        if sym not in CLASSES:
            assembly.nameless(
                image,
                place,
                f"expected one of {', '.join(CLASSES)}, got {str(sym)[:60]!r}; correct it",
            )
            continue
        classes.add(sym)
        outline = (
            polygons[j] if isinstance(polygons, list) and len(polygons) == len(boxes) else None
        )
        assembly.draw(image, sym, _corners(box), place, outline=_outline(outline))
    return None


def _corners(box: object) -> Corners | str:
    if (
        not isinstance(box, list)
        or len(box) != 4
        or any(isinstance(v, bool) or not isinstance(v, (int, float)) or abs(v) > 1e12 for v in box)
    ):
        return f"expected four numbers x1, y1, x2, y2, got {str(box)[:60]}"
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def _outline(points: object) -> FloatArray | None:
    """(4,) box around an outline; None where there is none that can be read."""
    if not isinstance(points, list) or any(
        not isinstance(p, list)
        or len(p) != 2
        or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in p)
        for p in points
    ):
        return None
    around = extent((p[0], p[1]) for p in points)
    if isinstance(around, str) or around[2] <= around[0] or around[3] <= around[1]:
        return None
    return np.array(around)
