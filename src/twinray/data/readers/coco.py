"""A COCO annotation file and its images -> Collection.

Three lists are read. ``images`` has ``id`` and ``file_name``, and where there are any ``width``,
``height``, ``patient_id`` or ``patient``, and ``split``. ``annotations`` has ``image_id``,
``category_id`` and ``bbox`` = x, y, width, height in pixels of the stored file. ``categories`` has
``id`` and ``name``; class ids follow ascending category id. Ids may be sparse. An image without
annotations was looked at and has no box. A file without a list ``annotations`` has images that were
never annotated.

Rows are set aside one at a time and counted. A box is set aside that is not four finite numbers,
has no area or lies outside its image. A box that reaches more than one pixel over its image's edge
is set aside too (up to one pixel is clipped). An annotation of an unknown image or category is set
aside. An image record without a usable id, name or size is set aside.

An image's label for a class is present if it has a box of the class. The label is unknown, not
absent, where a box of the class was set aside. An image of which every box was set aside counts as
never annotated rather than as healthy.

Regions marked ``iscrowd`` or ``ignore`` are no boxes: an image's label for their class is unknown unless it has a box of it. They
are kept apart (``Sample.regions``) for evaluation, which counts no prediction that lies in one, and are counted in a note.
Segmentations and areas are not read.

The format: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; cocodataset.org/#format-data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from twinray.data.readers.disk import FileLoader
from twinray.errors import InputError
from twinray.files import read_json
from twinray.geometry import place_boxes
from twinray.records import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    Boxes,
    Collection,
    FloatArray,
    Sample,
    Skipped,
    Split,
    split_of,
)

_LONGEST_SIDE = 10_000_000
_READ = frozenset({"id", "file_name", "width", "height", "patient_id", "patient", "split"})
_LEFT = frozenset({"license", "flickr_url", "coco_url", "date_captured"})


@dataclass(slots=True)
class _Found:
    """What the annotations of one image gave."""

    boxes: list[FloatArray] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    regions: list[tuple[FloatArray, int]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    """Classes of boxes that were set aside (or None of a known class: -1)."""


@dataclass(frozen=True, slots=True)
class _Image:
    """One image record, checked."""

    id: str
    file_name: str
    size: tuple[int, int] | None
    patient: str | None
    split: Split | None
    attributes: Mapping[str, str]


def read_coco(
    annotation_json: Path, images_root: Path | None = None, *, strict: bool = False
) -> Collection:
    """Describe the images and boxes of a COCO file; a sample's id is the image's id in the file.

    Args:
        annotation_json: the annotation file.
        images_root: folder that ``file_name`` is relative to; by default ``images`` beside the file if there is
            such a folder, otherwise the file's own folder.
        strict: flag to refuse the whole file at the first row that would be set aside.

    Raises:
        InputError: not a COCO file, an image id twice, a category without a name or twice, no image left.
    """
    root = _images_root(annotation_json, images_root)
    raw = _read(annotation_json)
    skipped: list[Skipped] = []
    notes: list[str] = []
    class_of = _categories(raw, annotation_json)
    classes = tuple(name for _, name in sorted(class_of.values()))
    images, unusable = _images(raw, annotation_json, root, skipped)
    annotated = "annotations" in raw
    found = (
        _annotations(raw, annotation_json, images, unusable, class_of, skipped, notes)
        if annotated
        else {}
    )
    if strict and skipped:
        raise InputError(
            f"{skipped[0].where}: {skipped[0].reason} (the first of {len(skipped)}; --strict stops here)"
        )
    if not images:
        first = f"; first: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"expected images in {annotation_json}, found none that can be used{first}"
        )
    if not annotated:
        notes.append(
            f"{annotation_json.name} has no list of annotations: its images count as never annotated"
        )
    if all(image.patient is None for image in images.values()):
        notes.append(
            "no patient ids: images are their own groups, so splits cannot be kept patient-disjoint"
        )
    nothing = _Found()
    samples = tuple(
        _sample(image, found.get(key, nothing), len(classes), annotated)
        for key, image in images.items()
    )
    return Collection(
        name=annotation_json.resolve().parent.name or "coco",
        label_classes=classes if annotated else (),
        box_classes=classes,
        task="multilabel" if annotated and classes else "none",
        samples=samples,
        load=FileLoader(root),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _images_root(annotation_json: Path, images_root: Path | None) -> Path:
    if images_root is None:
        beside = annotation_json.parent / "images"
        return beside if beside.is_dir() else annotation_json.parent
    if not images_root.is_dir():
        raise InputError(
            f"expected the folder of the images, {images_root} is not there; correct --images"
        )
    return images_root


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InputError(
            f"expected a COCO annotation file, {path} is a folder; give the .json in it"
        )
    raw = read_json(path, "COCO annotations")
    if not isinstance(raw, dict):
        raise InputError(
            f"expected a COCO object with images, annotations and categories in {path}, found a {_kind(raw)}"
        )
    for key in ("images", "annotations", "categories"):
        if key in raw and not isinstance(raw[key], list):
            raise InputError(
                f"expected a list under {key!r} in {path}, found a {_kind(raw[key])}; repair the file"
            )
        if key not in raw and (key == "images" or raw.get("annotations")):
            raise InputError(
                f"expected a list under {key!r} in {path}, found none; is it a COCO annotation file?"
            )
    return raw


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "object", list: "list", str: "text"}
    return names.get(type(value), type(value).__name__)


def _key(value: object) -> str | None:
    """An id as text; None if the value cannot be one (COCO ids are whole numbers; text is accepted)."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value == int(value) else None
    return str(value) if isinstance(value, int) or (isinstance(value, str) and value) else None


def _categories(raw: dict[str, Any], path: Path) -> dict[str, tuple[int, str]]:
    """Category id as text -> (class id, name)."""
    named: dict[int, str] = {}
    for i, category in enumerate(raw.get("categories", ())):
        where = f"{path} categories[{i}]"
        if (
            not isinstance(category, dict)
            or (key := _key(category.get("id"))) is None
            or not key.lstrip("-").isdigit()
        ):
            raise InputError(
                f"expected an object with a whole number 'id' in {where}; repair the file"
            )
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"expected a 'name' in {where} (id {key}), found {name!r}; every category needs one"
            )
        if int(key) in named:
            raise InputError(
                f"category id {key} is used twice in {path}; give every category its own"
            )
        if name in named.values():
            raise InputError(
                f"category name {name!r} is used twice in {path}; merge the two categories or rename one"
            )
        named[int(key)] = name
    return {str(key): (i, named[key]) for i, key in enumerate(sorted(named))}


def _images(
    raw: dict[str, Any], path: Path, root: Path, skipped: list[Skipped]
) -> tuple[dict[str, _Image], set[str]]:
    """Usable images by id, and the ids of those set aside."""
    images: dict[str, _Image] = {}
    unusable: set[str] = set()
    for i, record in enumerate(raw["images"]):
        key = _key(record.get("id")) if isinstance(record, dict) else None
        if key is not None and (key in images or key in unusable):
            raise InputError(
                f"image id {key} is used twice in {path} (again at images[{i}]); give every image its own"
            )
        parsed = _image(record, key, root)
        if isinstance(parsed, _Image):
            images[parsed.id] = parsed
            continue
        skipped.append(Skipped(f"{path} images[{i}]" + (f" (id {key})" if key else ""), parsed))
        if key is not None:
            unusable.add(key)
    return images, unusable


def _image(record: object, key: str | None, root: Path) -> _Image | str:
    """The image, or why its record cannot be used."""
    if not isinstance(record, dict) or key is None:
        return "expected an object with an 'id' (a whole number)"
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        return f"expected a 'file_name', found {name!r}"
    name = name.replace("\\", "/")
    if not os.path.isabs(name) and os.path.normpath(name).split("/")[0] == "..":
        return f"file_name {name!r} leads out of the image folder {root}; give the right folder with --images"
    size = _size(record)
    if isinstance(size, str):
        return size
    split = record.get("split")
    if (
        split is not None
        and split != ""
        and (not isinstance(split, str) or split_of(split) is None)
    ):
        return f"expected 'split' train, val or test, got {split!r}"
    patient = record.get("patient_id", record.get("patient"))
    attributes = {
        str(k): str(v)
        for k, v in record.items()
        if k not in _READ and k not in _LEFT and isinstance(v, (str, int, float)) and v != ""
    }
    return _Image(key, name, size, _key(patient), split_of(split) if split else None, attributes)


def _size(record: dict[str, Any]) -> tuple[int, int] | str | None:
    values = (record.get("width"), record.get("height"))
    if values == (None, None):
        return None
    if all(
        isinstance(v, (int, float))
        and not isinstance(v, bool)
        and 1 <= v <= _LONGEST_SIDE
        and v == int(v)
        for v in values
    ):
        width, height = cast(tuple[float, float], values)
        return int(width), int(height)
    return f"expected 'width' and 'height' in whole pixels, got {values[0]!r} and {values[1]!r}"


def _annotations(
    raw: dict[str, Any],
    path: Path,
    images: Mapping[str, _Image],
    unusable: set[str],
    class_of: Mapping[str, tuple[int, str]],
    skipped: list[Skipped],
    notes: list[str],
) -> dict[str, _Found]:
    """Boxes by image id."""
    found: dict[str, _Found] = {}
    n_ignored = 0
    for i, row in enumerate(raw["annotations"]):
        row = row if isinstance(row, dict) else {}
        image_key, class_key = _key(row.get("image_id")), _key(row.get("category_id"))
        where = f"{path} annotations[{i}]" + ("" if row.get("id") is None else f" (id {row['id']})")
        if image_key is None or image_key not in images:
            why = (
                "was set aside"
                if image_key in unusable
                else "is not among the images; correct image_id"
            )
            skipped.append(Skipped(where, f"its image {row.get('image_id')!r} {why}"))
            continue
        image = images[image_key]
        where = f"{where} of {image.file_name}"
        into = found.setdefault(image_key, _Found())
        if class_key is None or class_key not in class_of:
            into.lost |= set(range(len(class_of))) or {-1}  # it may have been any of them
            skipped.append(
                Skipped(
                    where,
                    f"its category {row.get('category_id')!r} is not among the categories; correct category_id",
                )
            )
            continue
        class_id = class_of[class_key][0]
        if row.get("iscrowd") or row.get("ignore"):
            n_ignored += 1
            into.lost.add(class_id)
            region = _box(row.get("bbox"), image.size)
            if isinstance(region, str):
                skipped.append(Skipped(where, region))
            else:
                into.regions.append((region, class_id))
            continue
        box = _box(row.get("bbox"), image.size)
        if isinstance(box, str):
            into.lost.add(class_id)
            skipped.append(Skipped(where, box))
            continue
        into.boxes.append(box)
        into.classes.append(class_id)
    if n_ignored:
        notes.append(
            f"{n_ignored} regions marked iscrowd or ignore are no boxes; their class counts as unknown in those images, "
            "and evaluation counts no prediction that lies in one"
        )
    return found


def _box(bbox: object, size: tuple[int, int] | None) -> FloatArray | str:
    """xyxy in pixels, clipped to the image where its size is known; or why the box is refused."""
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in bbox)
    ):
        return f"expected a bbox of four numbers (x, y, width, height), got {_short(bbox)}; correct the box"
    try:
        x, y, width, height = (float(v) for v in bbox)
    except OverflowError:  # a whole number of hundreds of digits
        x = y = width = height = math.inf
    box: FloatArray = np.array([x, y, x + width, y + height])
    if size is None and np.isfinite(box).all() and width > 0 and height > 0:
        return box  # judged when the image is decoded
    clipped, faults = place_boxes(box[None], *(size or (math.inf, math.inf)))
    if faults[0] is not None:
        return f"{faults[0]}; correct the box or the image's size"
    kept: FloatArray = clipped[0]
    return kept


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sample(image: _Image, found: _Found, n_classes: int, annotated: bool) -> Sample:
    labels: FloatArray | None = None
    boxes: Boxes | None = None
    if annotated and n_classes:
        labels = np.full(n_classes, ABSENT, dtype=np.float32)
        labels[[c for c in found.lost if c >= 0]] = UNKNOWN
        labels[found.classes] = PRESENT
    if annotated and (found.boxes or not found.lost):
        boxes = Boxes(
            np.array(found.boxes, dtype=np.float64).reshape(-1, 4),
            np.array(found.classes, dtype=np.int64),
        )
    return Sample(
        id=image.id,
        source=image.file_name,
        patient=image.patient,
        split=image.split,
        labels=labels,
        boxes=boxes,
        size=image.size,
        attributes=image.attributes,
        regions=Boxes(
            np.array([xyxy for xyxy, _ in found.regions], dtype=np.float64),
            np.array([c for _, c in found.regions], dtype=np.int64),
        )
        if found.regions
        else None,
    )
