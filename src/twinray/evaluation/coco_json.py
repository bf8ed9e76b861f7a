"""Boxes as COCO JSON: a ground-truth dictionary and a list of results that pycocotools reads.

Category ids are class ids plus 1. Image ids are whole numbers. Integer ids stay as they are; text
ids become their rank, from 1, in evaluation order (``matching``). Thus pycocotools takes equal
scores in our order. Boxes are ``[x, y, width, height]`` in pixels of the original image. Numbers
are written with all their digits: what is read back is the same float64. Format:
https://cocodataset.org/#format-data and ``#format-results``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.matching import BoxesByImage, ImageId, as_mapping, check_boxes, image_order
from twinray.files import read_json, write_json
from twinray.geometry import to_xywh
from twinray.records import Boxes


def coco_image_ids(ids: Sequence[ImageId]) -> dict[ImageId, int]:
    """The COCO image id of every image: itself where all are integers, else its rank from 1.

    Args:
        ids: ids of all the images of the evaluation, in any order.
    """
    if all(not isinstance(image, str) for image in ids):
        return {image: int(image) for image in ids}
    return {ids[position]: rank for rank, position in enumerate(image_order(ids), start=1)}


def _checked_image_ids(
    images: Sequence[ImageId], image_ids: Mapping[ImageId, int] | None
) -> Mapping[ImageId, int]:
    if image_ids is None:
        return coco_image_ids(images)
    absent = next((image for image in images if image not in image_ids), None)
    if absent is not None:
        raise InputError(
            f"COCO image ids: expected one for every image, image {absent!r} has none; add it"
        )
    if len(set(image_ids.values())) != len(image_ids):
        raise InputError(
            "COCO image ids: expected different ids for different images, found one twice; renumber them"
        )
    return image_ids


def truth_as_coco(
    truth: BoxesByImage,
    box_classes: Sequence[str],
    *,
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
    file_names: Mapping[ImageId, str] | None = None,
    image_ids: Mapping[ImageId, int] | None = None,
    patients: Mapping[ImageId, str | None] | None = None,
) -> dict[str, object]:
    """True boxes as a COCO ground-truth dictionary.

    Args:
        truth: image id -> boxes, images without boxes included.
        box_classes: names that labels index.
        sizes: (width, height) in pixels by image; left out of the file where unknown.
        file_names: names by image; the id stands in where there is none, and is kept as ``pack_id``
            where there is one.
        image_ids: COCO id of each image; ``coco_image_ids`` if None.
        patients: patients by image, written as ``patient_id``; left out of the file where unknown.

    Returns:
        ``{"info", "images", "annotations", "categories"}`` of plain Python values; annotation ids from 1.

    Raises:
        InputError: boxes that ``matching.check_boxes`` refuses, or an image without a COCO id.
    """
    boxes_of = as_mapping(truth)
    numbers = _checked_image_ids(list(boxes_of), image_ids)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image, boxes in sorted(boxes_of.items(), key=lambda item: numbers[item[0]]):
        check_boxes(boxes, len(box_classes), f"true boxes of image {image!r}", scored=False)
        entry: dict[str, object] = {
            "id": numbers[image],
            "file_name": (file_names or {}).get(image, str(image)),
        }
        if entry["file_name"] != str(image):
            entry["pack_id"] = image
        if sizes is not None and image in sizes:
            entry["width"], entry["height"] = (int(side) for side in sizes[image])
        if patient := (patients or {}).get(image):
            entry["patient_id"] = patient
        images.append(entry)
        crowd = np.zeros(len(boxes), dtype=bool) if boxes.crowd is None else boxes.crowd
        areas = (
            [None] * len(boxes)
            if boxes.area is None
            else np.asarray(boxes.area, dtype=np.float64).tolist()
        )
        rows = zip(
            boxes.labels.tolist(), to_xywh(boxes.xyxy).tolist(), crowd.tolist(), areas, strict=True
        )
        for label, box, region, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[image],
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3] if area is None else area,
                    "iscrowd": int(region),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(box_classes, start=1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


@dataclass(frozen=True, eq=False)
class CocoTruth:
    """True boxes as a run keeps them.

    Attributes:
        boxes: image -> true boxes. An image is named by its ``pack_id``, else by its ``file_name`` and ``id``.
        image_ids: image -> COCO id.
        patients: image -> ``patient_id``, None where unknown.
        classes: category names in the order of their ids, which are 1 to k.
    """

    boxes: dict[ImageId, Boxes]
    image_ids: dict[ImageId, int]
    patients: dict[ImageId, str | None]
    classes: tuple[str, ...]


def read_truth(path: Path) -> CocoTruth:
    """Read true boxes that ``truth_as_coco`` made.

    Raises:
        InputError: the file is missing, not JSON, or not of that form.
    """
    data = read_json(path, "true boxes")
    try:
        names = {
            int(i["id"]): str(i.get("pack_id") or i.get("file_name") or i["id"])
            for i in data["images"]
        }
        categories = sorted((int(c["id"]), str(c["name"])) for c in data["categories"])
        rows: dict[int, list[tuple[list[float], int, bool, float]]] = {
            number: [] for number in names
        }
        for a in data["annotations"]:
            x, y, width, height = (float(v) for v in a["bbox"])
            region, area = bool(a.get("iscrowd", 0)), float(a.get("area", width * height))
            label = int(a["category_id"]) - 1
            if not 0 <= label < len(categories):
                raise ValueError(f"category {label + 1}")
            rows[int(a["image_id"])].append(([x, y, x + width, y + height], label, region, area))
        patients: dict[ImageId, str | None] = {
            names[int(i["id"])]: None if i.get("patient_id") is None else str(i["patient_id"])
            for i in data["images"]
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: expected true boxes in COCO's form (images, annotations, categories), got something else ({error!r}); "
            "was it edited?"
        ) from error
    different = len(names) == len(set(names.values())) == len(data["images"])
    if (
        [number for number, _ in categories] != list(range(1, len(categories) + 1))
        or not names
        or not different
    ):
        raise InputError(
            f"{path}: expected at least one image, every image once, and category ids from 1 without gaps; was it edited?"
        )
    boxes: dict[ImageId, Boxes] = {
        names[number]: Boxes(
            np.array([row[0] for row in found], dtype=np.float64).reshape(-1, 4),
            np.array([row[1] for row in found], dtype=np.int64),
            crowd=np.array([row[2] for row in found], dtype=bool)
            if any(row[2] for row in found)
            else None,
            area=np.array([row[3] for row in found], dtype=np.float64),
        )
        for number, found in rows.items()
    }
    return CocoTruth(
        boxes,
        {name: number for number, name in names.items()},
        patients,
        tuple(n for _, n in categories),
    )


def predictions_as_coco(
    predictions: BoxesByImage, n_classes: int, image_ids: Mapping[ImageId, int] | None = None
) -> list[dict[str, object]]:
    """Predicted boxes as a COCO results list, by image, each image's boxes in the order given.

    Args:
        predictions: image id -> boxes with scores. With ``image_ids`` None it must hold every image
            of the evaluation, or the ranks of text ids would shift. An image where nothing was
            predicted has ``Boxes`` without rows.
        n_classes: number of box classes.
        image_ids: COCO id of each image; ``coco_image_ids`` of the predictions' own images if None.

    Raises:
        InputError: boxes that ``matching.check_boxes`` refuses, or an image without a COCO id.
    """
    boxes_of = as_mapping(predictions)
    numbers = _checked_image_ids(list(boxes_of), image_ids)
    results: list[dict[str, object]] = []
    for image, boxes in sorted(boxes_of.items(), key=lambda item: numbers[item[0]]):
        check_boxes(boxes, n_classes, f"predictions of image {image!r}", scored=True)
        scores = [] if boxes.scores is None else np.asarray(boxes.scores, dtype=np.float64).tolist()
        for label, box, score in zip(
            boxes.labels.tolist(), to_xywh(boxes.xyxy).tolist(), scores, strict=True
        ):
            results.append(
                {"image_id": numbers[image], "category_id": label + 1, "bbox": box, "score": score}
            )
    return results


def write_predictions(
    path: Path,
    predictions: BoxesByImage,
    n_classes: int,
    image_ids: Mapping[ImageId, int] | None = None,
) -> None:
    """Write ``predictions_as_coco`` to a file, atomically.

    Raises:
        InputError: as ``predictions_as_coco``.
        TwinrayError: the file cannot be written.
    """
    write_json(path, predictions_as_coco(predictions, n_classes, image_ids), "predictions")


def read_predictions(
    path: Path, image_ids: Mapping[ImageId, int], n_classes: int
) -> dict[ImageId, Boxes]:
    """Read a COCO results file.

    Args:
        path: path of the JSON file.
        image_ids: COCO id of every image of the evaluation (``coco_image_ids``).
        n_classes: number of box classes; category ids are 1 to ``n_classes``.

    Returns:
        Boxes with scores for every image in ``image_ids``, empty where the file has none, in the file's order.

    Raises:
        InputError: the file is missing, not JSON or not a list. Also an entry that lacks a key,
            names an unknown image or category, or has a score outside 0..1. Also a box that is not
            four finite numbers of width and height >= 0.
    """
    entries = read_json(path, "predictions")
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: expected a COCO results list, found {_kind(entries)}; write one entry per predicted box"
        )
    image_of = {number: image for image, number in image_ids.items()}
    rows: dict[ImageId, list[tuple[list[float], int, float]]] = {image: [] for image in image_ids}
    for i, entry in enumerate(entries):
        number, category, box, score = _entry(entry, f"{path}, entry {i}")
        if number not in image_of:
            raise InputError(
                f"{path}, entry {i}: image id {number} is not among the {len(image_of)} images; use the same data"
            )
        if not 1 <= category <= n_classes:
            raise InputError(
                f"{path}, entry {i}: expected a category id from 1 to {n_classes}, found {category}; "
                "compare the class lists"
            )
        x, y, width, height = box
        rows[image_of[number]].append(([x, y, x + width, y + height], category - 1, score))
    return {
        image: Boxes(
            np.array([r[0] for r in found], dtype=np.float64).reshape(-1, 4),
            np.array([r[1] for r in found], dtype=np.int64),
            np.array([r[2] for r in found], dtype=np.float64),
        )
        for image, found in rows.items()
    }


def _entry(entry: Any, where: str) -> tuple[int, int, list[float], float]:
    """Image id, category id, box and score of one result."""
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: expected an object, found {_kind(entry)}; see the COCO results format"
        )
    absent = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
    if absent:
        raise InputError(
            f"{where}: expected image_id, category_id, bbox and score, {absent[0]} is missing; add it"
        )
    for key in ("image_id", "category_id"):
        if not isinstance(entry[key], int) or isinstance(entry[key], bool):
            raise InputError(
                f"{where}: expected {key} to be a whole number, found {entry[key]!r}; correct it"
            )
    box, score = entry["bbox"], entry["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(side) for side in box):
        raise InputError(
            f"{where}: expected bbox to be 4 finite numbers [x, y, width, height], found {box!r}; correct it"
        )
    if box[2] < 0 or box[3] < 0:
        raise InputError(
            f"{where}: expected bbox width and height of 0 or more, found {box!r}; correct it"
        )
    if not _finite(score) or not 0 <= score <= 1:
        raise InputError(f"{where}: expected a score in 0..1, found {score!r}; correct it")
    return entry["image_id"], entry["category_id"], [float(side) for side in box], float(score)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(
        type(value), "a number"
    )
