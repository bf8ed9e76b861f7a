"""Label Studio's own export (JSON and JSON-MIN) -> Collection.

Data sheet
    What: whatever was annotated in Label Studio. Its COCO, YOLO and Pascal VOC exports are read by those formats.
    Boxes: rectangles, ellipses and polygons, in per cent of the image; a turned one becomes the box around it. Brush masks and
        key points are counted and left out: export them as COCO.
    Readers: each annotation of a task is one reader's. Where an image has several, their boxes are fused as VinDr-CXR's are
        (``--fusion-iou``, ``--min-readers``); an annotation marked as ground truth stands alone. Skipped annotations
        (``was_cancelled``), drafts and predictions are not read.
    Labels: present where the image has a box of the class, or a choice of that name; else absent. A task without an
        annotation was never annotated; one whose annotation is empty was looked at.
    Classes: names that occur, in alphabetical order. The export has no list of them.
    Splits, patients: keys of a task's ``data`` of the usual names (``split``, ``patient_id``, ...); further keys are attributes.
    Licence: that of the images.
    Source: https://labelstud.io/guide/task_format and https://labelstud.io/tags/rectanglelabels.

Layout::

    export.json     [{"id", "data": {"image": ...}, "annotations": [{"completed_by", "result": [...]}]}]        JSON
                    [{"id", "image": ..., "annotator": ..., "label": [{"x", "y", "width", "height", ...}]}]     JSON-MIN
    images          in ``images`` beside the file, beside the file, or under --images. Names may be paths, URLs,
                    ``/data/local-files/?d=...``, or ``/data/upload/1/3f2a9c01-name.png``: what Label Studio puts in front
                    of a name is left out where the name as written is not there
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twinray.data.annotations import Size, file_size
from twinray.data.decoding.images import is_image_name
from twinray.data.fusion import fuse_collection
from twinray.data.readers import columns
from twinray.data.readers.disk import NamedFiles
from twinray.data.readers.drawn.assembly import (
    Assembly,
    Corners,
    Image,
    extent,
    patients_from_names,
    turned,
    turned_ellipse,
)
from twinray.errors import InputError
from twinray.files import read_json
from twinray.records import Collection, split_of

_SHAPES = ("rectanglelabels", "ellipselabels", "polygonlabels", "hypertextlabels", "labels")
_BARE = frozenset({"rectangle", "ellipse", "polygon", "brush", "keypoint", "bitmask", "vector"})
"""Regions that have no label of their own."""
_UPLOAD = re.compile(r"(?:^|/)[0-9a-f]{8}-(?=[^/]+$)")
"""What an upload puts in front of a file's name."""
_LEFT_OUT = frozenset({"annotation_id", "annotator", "created_at", "updated_at", "lead_time", "id"})
_FEW_UNKNOWN = 0.01


@dataclass(slots=True)
class _Task:
    """One image with what its readers drew.

    Attributes:
        where: place in the file.
        data: facts of the image.
        name: name of its file.
        readers: result items by reader, in order; None where nobody annotated it.
    """

    where: str
    data: Mapping[str, Any]
    name: str
    readers: list[tuple[str, list[Mapping[str, Any]]]] | None = None


@dataclass(slots=True)
class _Left:
    """What is not read, by kind; ``unread`` are annotations without a list of results."""

    kinds: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    unread: int = 0
    predicted: int = 0


def read_label_studio(
    path: Path,
    images_root: Path | None = None,
    *,
    patient_regex: str | None = None,
    patient_column: str | None = None,
    fusion_iou: float = 0.5,
    min_readers: int = 1,
) -> Collection:
    """Describe the images and boxes of an export; a sample's id is the path of its file, or its name where that is not there.

    Args:
        path: the file.
        images_root: folder that names are relative to; by default one of the usual places, see above.
        patient_regex: expression that finds the patient in the name of a file.
        patient_column: key of a task's data that holds its patient, where its name is none of the known ones.
        fusion_iou: threshold at which several readers' boxes are fused, in (0, 1); 0 keeps them as they are, with names.
        min_readers: number of readers that must agree on a label and on a fused box, where an image has several.

    Raises:
        InputError: no export of Label Studio, options out of range, many unknown splits, no image left, boxes that cannot be in
            per cent of the images.
    """
    raw = read_raw_label_studio(
        path,
        images_root,
        patient_regex=patient_regex,
        patient_column=patient_column,
        min_readers=min_readers,
    )
    if not fusion_iou and min_readers > 1:
        raise InputError(
            "--min-readers needs fused boxes, --fusion-iou 0 keeps them raw; change one of them"
        )
    several = any(s.boxes is not None and s.boxes.readers for s in raw.samples)
    return fuse_collection(raw, fusion_iou, min_readers) if fusion_iou and several else raw


def fuse_label_studio(raw: Collection, iou: float, min_readers: int) -> Collection:
    """Fuse what :func:`read_raw_label_studio` read; images of one reader stay as they are.

    Raises:
        InputError: a threshold out of range.
    """
    several = any(s.boxes is not None and s.boxes.readers for s in raw.samples)
    return fuse_collection(raw, iou, min_readers) if several else raw


def read_raw_label_studio(
    path: Path,
    images_root: Path | None = None,
    *,
    patient_regex: str | None = None,
    patient_column: str | None = None,
    min_readers: int = 1,
) -> Collection:
    """As :func:`read_label_studio`, with every reader's boxes; ``min_readers`` decides labels only."""
    if patient_regex is not None and patient_column is not None:
        raise InputError(
            "patients come either from --patient-column or from --patient-regex; give one"
        )
    left = _Left()
    tasks = _tasks(path, left)
    files = _files(path, images_root, [task.name for task in tasks])
    assembly = Assembly(path, files.root, form="xywh")
    keys = list(dict.fromkeys(key for task in tasks for key in task.data))
    patient_key = columns.patient_column(keys, patient_column, f"the tasks of {path}")
    if patient_regex is None and (note := columns.unread_patients(keys, patient_key)):
        assembly.notes.append(note)
    _check_splits(tasks, path)
    for task in tasks:
        _take(task, files, None if patient_regex else patient_key, left, assembly)
    patients_from_names(assembly.images.values(), patient_regex)
    assembly.notes += _notes(left)
    return assembly.collection(
        path.resolve().parent.name or "label-studio", min_readers=min_readers
    )


def _files(path: Path, images_root: Path | None, names: Sequence[str]) -> NamedFiles:
    if images_root is None:
        return NamedFiles([path.parent / "images", path.parent], names)
    if not images_root.is_dir():
        raise InputError(
            f"expected the folder of the images, {images_root} is not there; correct --images"
        )
    return NamedFiles([images_root], names)


def _tasks(path: Path, left: _Left) -> list[_Task]:
    if path.is_dir():
        raise InputError(
            f"expected Label Studio's JSON export, {path} is a folder; give the .json in it"
        )
    raw = read_json(path, "Label Studio's export", foreign=True)
    if isinstance(raw, dict) and "images" in raw and "annotations" in raw:
        raise InputError(f"{path} is a COCO file; give it as --format coco")
    if not isinstance(raw, list) or not all(isinstance(task, dict) for task in raw):
        raise InputError(
            f"expected a list of tasks, as Label Studio's JSON export has it, in {path}; export it as JSON"
        )
    tasks: dict[str, _Task] = {}
    for i, one in enumerate(raw):
        where = f"{path} task {one.get('id', i)}"
        data = one.get("data")
        data = (
            data
            if isinstance(data, dict)
            else {k: v for k, v in one.items() if not isinstance(v, list)}
        )
        name = _image_name(data, one)
        task = tasks.setdefault(f"{one.get('id', f'no {i}')}", _Task(where, data, name))
        if task.name != name:
            task = tasks[f"again {i}"] = _Task(where, data, name)
        readers = (
            list(_annotations(one, left)) if isinstance(one.get("data"), dict) else _minimal(one)
        )
        if readers:
            task.readers = (task.readers or []) + readers
    return list(tasks.values())


def _image_name(data: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """The name of the image's file: under the key that the results name, ``image``, or the only one that looks like one."""
    texts = {
        key: value
        for key, value in data.items()
        if isinstance(value, str) and is_image_name(Path(_path_of(value).rpartition("/")[2]))
    }
    if "image" in data and isinstance(data["image"], str):
        return data["image"]
    named = {
        str(item.get("source", "")).lstrip("$")
        for _, items in _annotations(task, _Left())
        for item in items
    }
    return next((texts[key] for key in texts if key in named), next(iter(texts.values()), ""))


def _annotations(
    task: Mapping[str, Any], left: _Left
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Reader and result items of each annotation that counts."""
    found = task.get("annotations")
    found = found if isinstance(found, list) else task.get("completions")
    kept = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    left.skipped += sum(bool(one.get("was_cancelled")) for one in kept)
    left.predicted += bool(task.get("predictions")) and not kept
    kept = [one for one in kept if not one.get("was_cancelled")]
    kept = [one for one in kept if one.get("ground_truth")][:1] or kept
    for i, one in enumerate(kept):
        who = one.get("completed_by")
        who = (who.get("email") or who.get("id")) if isinstance(who, dict) else who
        result = one.get("result")
        if not isinstance(result, list):
            left.unread += 1
            continue
        items: list[Mapping[str, Any]] = [item for item in result if isinstance(item, dict)]
        yield f"{who if who is not None else f'reader {i + 1}'}", items


def _minimal(task: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The reader and result items of a task of JSON-MIN, in the form of JSON; none where nobody annotated it."""
    items: list[Mapping[str, Any]] = []
    for value in task.values():
        for one in value if isinstance(value, list) else ():
            kind = next((k for k in _SHAPES if isinstance(one, dict) and k in one), None)
            if kind is not None:
                items.append({"type": kind, "value": one, **one})
            elif isinstance(one, dict) and ("brushlabels" in one or "keypointlabels" in one):
                items.append(
                    {
                        "type": "brushlabels" if "brushlabels" in one else "keypointlabels",
                        "value": one,
                    }
                )
    choice = task.get("choice")
    chosen = (
        choice
        if isinstance(choice, str)
        else choice.get("choices")
        if isinstance(choice, dict)
        else None
    )
    if chosen:
        items.append(
            {
                "type": "choices",
                "value": {"choices": [chosen] if isinstance(chosen, str) else chosen},
            }
        )
    annotated = (
        bool(items) or task.get("annotation_id") is not None or task.get("annotator") is not None
    )
    return [(f"{task.get('annotator', 'reader')}", items)] if annotated else []


def _check_splits(tasks: Sequence[_Task], path: Path) -> None:
    stated = [str(task.data["split"]) for task in tasks if task.data.get("split") not in (None, "")]
    unknown = Counter(word for word in stated if split_of(word) is None)
    if unknown.total() > max(1, _FEW_UNKNOWN * len(stated)):
        words = ", ".join(f"{word!r} ({n:,} tasks)" for word, n in unknown.most_common(5))
        raise InputError(
            f"expected 'split' train, val or test in the tasks of {path}, found {words}; nothing was cut: correct them"
        )


def _take(
    task: _Task, files: NamedFiles, patient_key: str | None, left: _Left, assembly: Assembly
) -> None:
    if not task.name:
        return assembly.set_aside(
            task.where, "expected the name of an image in its data, found none"
        )
    split = task.data.get("split")
    if split not in (None, "") and split_of(str(split)) is None:
        return assembly.set_aside(task.where, f"expected 'split' train, val or test, got {split!r}")
    written = _path_of(task.name)
    source = files.find(task.name) or files.find(written)
    source = source or files.find(
        _UPLOAD.sub(lambda m: m[0][:1] if m[0].startswith("/") else "", written)
    )
    sizes = {_size(item) for _, items in task.readers or () for item in items} - {None}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    if size is None and source is not None:
        size = file_size(files.root / source)
    patient = task.data.get(patient_key) if patient_key is not None else None
    used = {patient_key, "split", "image"}
    image = Image(
        source or written.lstrip("/"),
        source or written.lstrip("/"),
        annotated=task.readers is not None,
        size=size,
        patient=None if patient in (None, "") else str(patient),
        split=split_of(str(split)) if split else None,
        attributes={
            str(k): str(v)
            for k, v in task.data.items()
            if k not in used
            and k not in _LEFT_OUT
            and isinstance(v, (str, int, float))
            and v not in ("", task.name)
        },
    )
    if not assembly.add(image, task.where):
        return None
    several = len({who for who, _ in task.readers or ()}) > 1
    for who, items in task.readers or ():
        for i, item in enumerate(items):
            _draw(
                item,
                image,
                f"{task.where} of {image.id[:80]} region {item.get('id', i)}",
                who if several else "",
                left,
                assembly,
            )
    return None


def _draw(
    item: Mapping[str, Any],
    image: Image,
    where: str,
    reader: str,
    left: _Left,
    assembly: Assembly,
) -> None:
    value = item.get("value")
    value = value if isinstance(value, dict) else {}
    kind = item.get("type") or next((k for k in _SHAPES if k in value), None)
    kind = kind if isinstance(kind, str) else ""
    if kind == "choices":
        chosen = value.get("choices")
        image.stated |= (
            {c for c in chosen if isinstance(c, str)} if isinstance(chosen, list) else set()
        )
        return
    if kind not in _SHAPES:
        if kind.endswith("labels"):
            left.kinds[kind] += 1
            names = value.get(kind)
            image.lost |= (
                {n for n in names if isinstance(n, str)} if isinstance(names, list) else set()
            )
        elif kind in _BARE or not kind:
            assembly.nameless(
                image, where, "expected a region with a 'type' and a label; correct it"
            )
        return
    names = value.get(kind)
    names = [n for n in names if isinstance(n, str) and n] if isinstance(names, list) else []
    if not names:
        assembly.nameless(
            image, where, f"expected a name under {kind!r}, found none; give the region a label"
        )
    box: Corners | str = "the size of its image is not known"
    if item.get("image_rotation"):
        box = "it was drawn on an image that was turned in the tool (image_rotation); turn it back and draw again"
    elif image.size is not None:
        box = _corners(value, image.size)
    for name in names:
        assembly.draw(image, name, box, where, reader=reader)


def _corners(value: Mapping[str, Any], size: Size) -> Corners | str:
    """The box around a region in pixels; or why there is none. Values are in per cent of the image."""
    width, height = size[0] / 100, size[1] / 100
    if isinstance(points := value.get("points"), list):
        if any(not _are_numbers(point, 2) for point in points):
            return "expected 'points' of two numbers each"
        return extent((point[0] * width, point[1] * height) for point in points)
    turn = value.get("rotation") or 0
    ellipse = "radiusX" in value
    keys = ("x", "y", "radiusX", "radiusY") if ellipse else ("x", "y", "width", "height")
    values = [value.get(key) for key in keys]
    if not _are_numbers([*values, turn], 5):
        return f"expected numbers under {', '.join(keys)}"
    x, y, a, b = (float(v) for v in values if isinstance(v, (int, float)))
    if ellipse:
        return turned_ellipse((x * width, y * height), (a * width, b * height), float(turn))
    left, top = x * width, y * height
    return turned((left, top, left + a * width, top + b * height), float(turn), (left, top))


def _are_numbers(values: object, n: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == n
        and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e12
            for v in values
        )
    )


def _size(item: Mapping[str, Any]) -> Size | None:
    sides = [item.get("original_width"), item.get("original_height")]
    if not _are_numbers(sides, 2):
        return None
    width, height = (float(side) for side in sides if isinstance(side, (int, float)))
    return (
        (int(width), int(height))
        if min(width, height) >= 1 and width == int(width) and height == int(height)
        else None
    )


def _path_of(name: str) -> str:
    """The path in a name that may be a URL, without a query; ``?d=`` of local files is that path."""
    if "?d=" in name:
        return name.rpartition("?d=")[2].partition("&")[0]
    return urlsplit(name).path if re.match(r"[a-z0-9]+://", name) else name.replace("\\", "/")


def _notes(left: _Left) -> list[str]:
    notes = []
    if left.kinds:
        told = ", ".join(f"{kind} {n:,}" for kind, n in left.kinds.most_common())
        notes.append(
            f"regions without corners were left out, and their classes are unknown in those images: {told}; export them as COCO"
        )
    if left.skipped:
        notes.append(f"{left.skipped:,} annotations that were skipped in the tool are not read")
    if left.unread:
        notes.append(
            f"{left.unread:,} annotations hold no list under 'result': they are not read, their images may count as never annotated"
        )
    if left.predicted:
        notes.append(
            f"{left.predicted:,} tasks have predictions alone: their images count as never annotated"
        )
    return notes
