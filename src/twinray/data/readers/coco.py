"""A COCO annotation file and its images -> Collection.

Three lists are read. ``images`` has ``id`` and ``file_name``, and where there are any ``width``,
``height``, ``split``, and the patient under ``patient_id`` or another name of
:mod:`twinray.data.readers.columns`. ``annotations`` has ``image_id``,
``category_id`` and ``bbox`` = x, y, width, height in pixels of the stored file. ``categories`` has
``id`` and ``name``; class ids follow ascending category id. Ids may be sparse. An image without
annotations was looked at and has no box; so was one whose annotation holds a box of nothing (null, empty, zeros). A file without a list ``annotations`` has images that were
never annotated. The file may begin with a byte order mark.

Names of files are relative to ``images`` beside the file or to its own folder. CVAT's layout (``annotations/x.json``
beside ``images``), COCO's (``annotations/instances_train2017.json`` beside ``train2017``) and Label Studio's (names that
begin with ``images/``, percent signs) are found too. Two records of one file are one image.

Splits: a record's ``split`` takes precedence. Without one, the file's name tells it (``instances_train2017.json``), or
the folder's, where folders of other splits lie beside it (``train``, ``valid``, ``test`` of Roboflow). ``--layout flat``
ignores both.

Rows are set aside one at a time and counted. A box is set aside that is not four finite numbers,
has no area or lies outside its image. A box that reaches more than one pixel over its image's edge
is set aside too (up to one pixel is clipped). An annotation of an unknown image or category is set
aside. An image record without a usable id, name or size is set aside.

An image's label for a class is present if it has a box of the class. The label is unknown, not
absent, where a box of the class was set aside. An image of which every box was set aside counts as
never annotated rather than as healthy. Repeated annotations and outlines that contradict their boxes are judged in
:mod:`twinray.data.annotations`.

Regions marked ``iscrowd`` or ``ignore`` are no boxes: an image's label for their class is unknown unless it has a box of it. They
are kept apart (``Sample.regions``) for evaluation, which counts no prediction that lies in one, and are counted in a note.
Of a segmentation only its extent is read, areas are not.

The format: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; cocodataset.org/#format-data.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from twinray.data.annotations import REPEATED, BoxAudit, file_size
from twinray.data.patients import NO_PATIENTS
from twinray.data.readers import columns
from twinray.data.readers.disk import FileLoader, NamedFiles
from twinray.errors import InputError
from twinray.files import read_json
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
    is_split_like,
    split_in_name,
    split_of,
)

_LONGEST_SIDE = 10_000_000
_FEW_UNKNOWN = 0.01
"""Share of images of an unknown split that may be typing errors, to be set aside one by one."""
_READ = frozenset({"id", "file_name", "width", "height", "split"})
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


Layout = Literal["auto", "flat"]


@dataclass(slots=True)
class _Source:
    """The file that is read, where its images are, and what is said of it.

    Attributes:
        path: path of the file. raw: its content. files: where the images are.
        audit, regions: judges of its boxes, and of regions marked iscrowd or ignore.
        skipped, notes: what was set aside, and what users must know.
        unusable: ids of images that were set aside.
        aliases: ids of further records of an image -> the id of the first.
    """

    path: Path
    raw: dict[str, Any]
    files: NamedFiles
    audit: BoxAudit
    regions: BoxAudit
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)


def read_coco(
    annotation_json: Path,
    images_root: Path | None = None,
    *,
    strict: bool = False,
    need_images: bool = False,
    layout: Layout = "auto",
    patient_column: str | None = None,
) -> Collection:
    """Describe the images and boxes of a COCO file; a sample's id is the image's id in the file.

    Args:
        annotation_json: the annotation file.
        images_root: folder that ``file_name`` is relative to; by default one of the usual places, see above.
        strict: flag to refuse the whole file at the first row that would be set aside.
        need_images: flag to refuse a file of which no image is there.
        layout: ``flat`` takes no split from names of files and folders.
        patient_column: key of an image's record that holds its patient, where its name is none of the known ones.

    Raises:
        InputError: not a COCO file, an image id twice, a category without a name or twice, no image left, boxes that
            cannot be in pixels of the images.
    """
    raw = _read(annotation_json)
    name = str(annotation_json)
    files = _named_files(raw, annotation_json, images_root)
    source = _Source(annotation_json, raw, files, BoxAudit(name), BoxAudit(name))
    skipped, notes = source.skipped, source.notes
    class_of = _categories(raw, annotation_json)
    classes = tuple(name for _, name in sorted(class_of.values()))
    patient_keys = _patient_keys(raw, annotation_json, patient_column, notes)
    _check_splits(raw, annotation_json)
    images = _images(source, patient_keys, need_images)
    by_place = False
    if layout == "auto":
        images, by_place = _with_named_split(images, annotation_json, notes, packing=need_images)
    annotated = "annotations" in raw
    found = _annotations(source, images, class_of) if annotated else {}
    notes += source.audit.conclude(lambda key: file_size(files.root / images[key].file_name))
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
        notes.append(NO_PATIENTS)
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
        load=FileLoader(files.root),
        skipped=tuple(skipped),
        notes=tuple(notes),
        by_place=by_place,
    )


def _named_files(raw: dict[str, Any], path: Path, images_root: Path | None) -> NamedFiles:
    """Where the images are: in the folder that is given, or in one of those that annotation tools use."""
    names = [
        record["file_name"].replace("\\", "/")
        for record in raw["images"]
        if isinstance(record, dict) and isinstance(record.get("file_name"), str)
    ]
    if images_root is None:
        here, above = path.parent, path.parent.resolve().parent
        roots = [here / "images", here]
        if path.parent.resolve().name == "annotations":
            subset = path.stem.rpartition("_")[2]
            roots += [above / "images", above / "images" / subset, above / subset, above]
        return NamedFiles(roots, names)
    if not images_root.is_dir():
        raise InputError(
            f"expected the folder of the images, {images_root} is not there; correct --images"
        )
    return NamedFiles([images_root], names)


def _patient_keys(
    raw: dict[str, Any], path: Path, wanted: str | None, notes: list[str]
) -> Sequence[str]:
    """The keys that hold patients in the records of images, the likeliest first: records may differ."""
    keys = list(
        dict.fromkeys(key for record in raw["images"] if isinstance(record, dict) for key in record)
    )
    found = columns.patient_column(keys, wanted, f"the images of {path}")
    note = columns.unread_patients(keys, found)
    notes += [] if note is None else [note]
    if found is None or wanted is not None:
        return [] if found is None else [found]
    known = [key for key in keys if columns.plain(key) in columns.PATIENT]
    return sorted(known, key=lambda key: columns.PATIENT.index(columns.plain(key)))


def _check_splits(raw: dict[str, Any], path: Path) -> None:
    """Refuse a file of which many images name a split that is not known: others would be cut in its place."""
    stated = [
        str(record["split"])
        for record in raw["images"]
        if isinstance(record, dict) and record.get("split") not in (None, "")
    ]
    unknown = Counter(word for word in stated if split_of(word) is None)
    if unknown.total() > max(1, _FEW_UNKNOWN * len(stated)):
        words = ", ".join(f"{word!r} ({n:,} images)" for word, n in unknown.most_common(5))
        raise InputError(
            f"expected 'split' train, val or test in the images of {path}, found {words}; nothing was cut: correct them"
        )


def _with_named_split(
    images: dict[str, _Image], path: Path, notes: list[str], *, packing: bool
) -> tuple[dict[str, _Image], bool]:
    """The images with the split that names of the file and its folder tell, where they state none; and whether they do."""
    by_file, by_folder = split_in_name(path.stem), split_of(path.resolve().parent.name)
    if by_folder is not None:
        beside = [
            folder.name for folder in path.resolve().parent.parent.iterdir() if folder.is_dir()
        ]
        parts = {split_of(name) or is_split_like(name) for name in beside} - {False}
        by_folder = by_folder if len(parts) > 1 else None
    if by_file and by_folder and by_file != by_folder:
        raise InputError(
            f"the name of {path} says {by_file}, that of its folder {by_folder}; rename one of them, or ignore both with --layout flat"
        )
    split = by_file or by_folder
    bare = [key for key, image in images.items() if image.split is None]
    if len(bare) < len(images):
        return images, False
    if split is None:
        if packing:
            _check_split_like(path, notes)
        return images, False
    of = "file" if by_file else "folder"
    notes.append(
        f"all {len(bare):,} images are {split}: so says the name of the {of} (--layout flat ignores it)"
    )
    return {key: replace(image, split=split) for key, image in images.items()}, True


def _check_split_like(path: Path, notes: list[str]) -> None:
    """Say that a file is called as a part of a data set, but as none of the three; refuse it where others beside it are one.

    Raises:
        InputError: its images would be cut into splits although others beside it are whole ones.
    """
    folder = path.resolve().parent
    words = [path.stem, *re.split(r"[^A-Za-z0-9]+", path.stem)]
    odd = next((word for word in words if is_split_like(word)), None)
    beside: list[str] = []
    if odd is not None:
        beside = [other.name for other in folder.glob("*.json") if split_in_name(other.stem)]
    elif is_split_like(folder.name):
        odd = folder.name
        beside = [o.name for o in folder.parent.iterdir() if o.is_dir() and split_of(o.name)]
    if beside:
        raise InputError(
            f"expected train, val or test in the name of {path}, found {odd!r} beside {sorted(beside)[0]}; nothing was cut: "
            "rename it, or ignore names with --layout flat"
        )
    if odd is not None and words[0] == odd:
        notes.append(
            f"WARNING: {path.name} is called as a part of a data set ({odd}), which is none of train, val and test: its images "
            "are cut into these"
        )


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InputError(
            f"expected a COCO annotation file, {path} is a folder; give the .json in it{_jsons_in(path)}"
        )
    raw = read_json(path, "COCO annotations", foreign=True)
    if isinstance(raw, list) and raw and isinstance(raw[0], dict) and "data" in raw[0]:
        raise InputError(
            f"expected a COCO object in {path}, found Label Studio's own list of tasks; export it as COCO"
        )
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


def _jsons_in(folder: Path) -> str:
    found = sorted(p.relative_to(folder).as_posix() for p in folder.glob("**/*.json"))[:6]
    return f": {', '.join(found)}" if found else ""


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
        name = name.strip()
        if name in named.values():
            raise InputError(
                f"category name {name!r} is used twice in {path}; merge the two categories or rename one"
            )
        named[int(key)] = name
    return {str(key): (i, named[key]) for i, key in enumerate(sorted(named))}


def _images(source: _Source, patient_keys: Sequence[str], need_images: bool) -> dict[str, _Image]:
    """Usable images by id."""
    path, files, skipped, notes = source.path, source.files, source.skipped, source.notes
    unusable, aliases = source.unusable, source.aliases
    images: dict[str, _Image] = {}
    by_name: dict[str, str] = {}
    moved: dict[str, str] = {}
    missing: list[str] = []
    for i, record in enumerate(source.raw["images"]):
        key = _key(record.get("id")) if isinstance(record, dict) else None
        if key is not None and (key in images or key in unusable or key in aliases):
            raise InputError(
                f"image id {key} is used twice in {path} (again at images[{i}]); give every image its own"
            )
        where = f"{path} images[{i}]" + (f" (id {key})" if key else "")
        parsed = _image(record, key, files, patient_keys)
        if isinstance(parsed, str):
            skipped.append(Skipped(where, parsed))
            if key is not None:
                unusable.add(key)
            continue
        written = str(cast(dict[str, Any], record)["file_name"]).replace("\\", "/")
        twin = by_name.setdefault(parsed.file_name, parsed.id)
        if twin != parsed.id and moved.get(parsed.file_name, parsed.file_name) != written:
            skipped.append(
                Skipped(
                    where,
                    f"its file_name {written!r} leads to {parsed.file_name}, which image {twin} names; correct one of them",
                )
            )
            unusable.add(parsed.id)
        elif twin != parsed.id:
            _check_twin(images[twin], parsed, path)
            aliases[parsed.id] = twin
        else:
            images[parsed.id] = parsed
            if written != parsed.file_name:
                moved[parsed.file_name] = written
            elif not (files.root / written).is_file():
                missing.append(written)
    if aliases:
        notes.append(
            f"{len(aliases):,} image records name a file that another names too, such as "
            f"{images[next(iter(aliases.values()))].file_name}: taken as one image with the annotations of all"
        )
    if moved:
        found, written = next(iter(moved.items()))
        notes.append(f"{len(moved):,} file names are written otherwise ({written} is {found})")
    if need_images and missing and len(missing) == len(images):
        raise InputError(
            f"none of the {len(images):,} images of {path} is in {files.root} (the first is {missing[0]}); give their folder "
            "with --images"
        )
    if need_images and missing:
        notes.append(
            f"{len(missing):,} of {len(images):,} images of {path.name} are not in {files.root.name or 'its folder'}, such as {missing[0]}"
        )
    return images


def _check_twin(first: _Image, second: _Image, path: Path) -> None:
    for what in ("size", "patient", "split"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other and one is not None and other is not None:
            raise InputError(
                f"images {first.id} and {second.id} of {path} both name {first.file_name}, but differ in {what}: keep one of them"
            )


def _image(
    record: object, key: str | None, files: NamedFiles, patient_keys: Sequence[str]
) -> _Image | str:
    """The image, or why its record cannot be used."""
    if not isinstance(record, dict) or key is None:
        return "expected an object with an 'id' (a whole number)"
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        return f"expected a 'file_name', found {name!r}"
    name = name.replace("\\", "/")
    found = files.find(name)
    if found is None and not os.path.isabs(name) and os.path.normpath(name).split("/")[0] == "..":
        return f"file_name {name!r} leads out of the image folder {files.root}; give the right folder with --images"
    name = found or name
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
    patient = next((record[k] for k in patient_keys if record.get(k) not in (None, "")), None)
    attributes = {
        str(k): str(v)
        for k, v in record.items()
        if k not in _READ
        and k not in _LEFT
        and k not in patient_keys
        and isinstance(v, (str, int, float))
        and v != ""
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
    source: _Source, images: Mapping[str, _Image], class_of: Mapping[str, tuple[int, str]]
) -> dict[str, _Found]:
    """Boxes by image id."""
    path, skipped = source.path, source.skipped
    found: dict[str, _Found] = {}
    n_ignored = n_without = 0
    for i, row in enumerate(source.raw["annotations"]):
        row = row if isinstance(row, dict) else {}
        image_key, class_key = _key(row.get("image_id")), _key(row.get("category_id"))
        image_key = source.aliases.get(image_key, image_key) if image_key is not None else None
        where = f"{path} annotations[{i}]" + ("" if row.get("id") is None else f" (id {row['id']})")
        if image_key is None or image_key not in images:
            why = (
                "was set aside"
                if image_key in source.unusable
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
        if _says_nothing(row):
            n_without += 1
            continue
        class_id = class_of[class_key][0]
        ignored = bool(row.get("iscrowd") or row.get("ignore"))
        box = _judged(row, image, class_id, source.regions if ignored else source.audit, where)
        repeated = isinstance(box, str) and box == REPEATED
        n_ignored += ignored and not repeated
        if ignored or (isinstance(box, str) and not repeated):
            into.lost.add(class_id)
        if isinstance(box, str):
            skipped += [] if repeated else [Skipped(where, box)]
        elif ignored:
            into.regions.append((box, class_id))
        else:
            into.boxes.append(box)
            into.classes.append(class_id)
    if n_without:
        source.notes.append(
            f"{n_without:,} annotations hold no box (null, empty, or four times 0 or nan): their images count as looked at"
        )
    if n_ignored:
        all_of_them = (
            "" if any(one.boxes for one in found.values()) else "WARNING: no box is left: "
        )
        source.notes.append(
            f"{all_of_them}{n_ignored} regions marked iscrowd or ignore are no boxes; their class counts as unknown in those "
            "images, and evaluation counts no prediction that lies in one"
            + (
                "; where each is one finding (masks drawn with a brush), set iscrowd to 0"
                if all_of_them
                else ""
            )
        )
    return found


def _says_nothing(row: Mapping[str, Any]) -> bool:
    """Whether an annotation is what exporters write for an image without a finding: a box of nothing."""
    if "bbox" not in row:
        return False
    bbox = row["bbox"]
    return bbox in (None, [], [0, 0, 0, 0]) or (
        isinstance(bbox, list)
        and len(bbox) == 4
        and all(isinstance(v, float) and math.isnan(v) for v in bbox)
    )


def _judged(
    row: Mapping[str, Any], image: _Image, class_id: int, audit: BoxAudit, where: str
) -> FloatArray | str:
    """(4,) xyxy in pixels, clipped to the image where its size is known; :data:`REPEATED`; or why the box is refused."""
    box = _box(row)
    if isinstance(box, str):
        return box
    outline = None if row.get("iscrowd") else _outline(row.get("segmentation"))
    judged = audit.judge(image.id, class_id, box, image.size, where, outline=outline)
    if isinstance(judged, str) and judged != REPEATED:
        return f"{judged}; correct the box or the image's size"
    return judged


def _box(row: Mapping[str, Any]) -> tuple[float, float, float, float] | str:
    """Left, top, right, bottom; or why the box is refused."""
    bbox = row.get("bbox")
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
    return x, y, x + width, y + height


def _outline(segmentation: object) -> FloatArray | None:
    """(4,) box around the polygons; None where there are none that can be read."""
    if not isinstance(segmentation, list):
        return None
    rings = [ring for ring in segmentation if isinstance(ring, list) and len(ring) >= 6]
    values = [value for ring in rings for value in ring[: len(ring) // 2 * 2]]
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        return None
    try:
        points = np.array(values, dtype=np.float64).reshape(-1, 2)
    except OverflowError:
        return None
    if not np.isfinite(points).all():
        return None
    around: FloatArray = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return around if (around[2:] > around[:2]).all() else None


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
