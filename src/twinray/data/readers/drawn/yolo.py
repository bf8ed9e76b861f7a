"""YOLO's text files -> Collection.

Data sheet
    What: the layout of Ultralytics' YOLO, and of Darknet, which CVAT, Label Studio and Roboflow write too: a text file an image.
    Boxes: ``class x_centre y_centre width height``, in shares of the image's width and height. A line with three or more points
        after the class (``class x1 y1 x2 y2 x3 y3 ...``) is an outline: the box around it is taken. A line of six
        numbers ends in a confidence, so it is a prediction: it is set aside.
    Labels: present where the image has a box of the class, else absent. An image without a text file was looked at and has
        no box (Ultralytics: "if there are no objects in an image, no file is required"); how many is told. Where the
        folder that its text file belongs in is not there, the image was never annotated.
    Classes: ``names`` of the YAML file, or the lines of ``classes.txt`` or ``obj.names``; in that order.
    Splits: ``train``, ``val`` and ``test`` of the YAML file.
    Patients: none in the files; ``--patient-regex`` takes them from names of files.
    Licence: that of the images.
    Source: https://docs.ultralytics.com/datasets/detect/.

Layout::

    data.yaml                           names, train, val, test: folders, lists of files (.txt), or several of them, relative
                                        to ``path`` or, where that is not there, to the file
    images/train/a.png                  its text file is labels/train/a.txt: the last ``images`` of its path is ``labels``
    obj_train_data/a.png                where no folder is called images: its text file lies beside it
    images/, labels/, classes.txt       a folder without a YAML file (Label Studio): no splits

The size of every image is read from its header, since boxes have no other measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from twinray.data.annotations import Size, file_size
from twinray.data.decoding.images import is_image_name
from twinray.data.readers.disk import scan
from twinray.data.readers.drawn.assembly import (
    Assembly,
    Corners,
    Image,
    extent,
    patients_from_names,
)
from twinray.data.readers.drawn.xml_file import numbers
from twinray.data.readers.tabular import read_names
from twinray.errors import InputError
from twinray.files import check_regular
from twinray.progress import progress
from twinray.records import Collection, Skipped, Split
from twinray.words import counted

_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "val"), ("test", "test"))
_LISTS = ("classes.txt", "obj.names")
_OVER = 1e-3
"""How far beyond 0..1 a rounded share may lie."""
_MOST_BYTES = 16 << 20


@dataclass(slots=True)
class _Source:
    """What is read.

    Attributes:
        path: file or folder, for messages.
        root: folder that paths are relative to.
        names: classes in order.
        places: split (None: none) and what is to be read for it, folders and lists of files.
    """

    path: Path
    root: Path
    names: list[str]
    places: list[tuple[Split | None, Path]]
    notes: list[str] = field(default_factory=list)


def read_yolo(source: Path, *, patient_regex: str | None = None) -> Collection:
    """Describe the images of a YAML file or folder; a sample's id is its path below the folder.

    Args:
        source: the YAML file, or the folder.
        patient_regex: expression that finds the patient in the name of a file.

    Raises:
        InputError: no such source, no names of classes, no image left, values that cannot be shares of the images.
    """
    described = _yaml_in(source)
    what = _from_folder(source) if described is None else _from_yaml(described)
    assembly = Assembly(what.path, what.root)
    assembly.notes += what.notes
    files = list(_files(what, assembly))
    without, pixels = 0, 0
    with progress("reading sizes", len(files), unit="files") as meter:
        for split, name in files:
            path = what.root / name
            lines = _lines(path, assembly.skipped)
            image = Image(
                name, name, annotated=lines is not None, split=split, size=file_size(path)
            )
            meter.advance()
            if not assembly.add(image, str(path)):
                continue
            without += lines == []
            pixels += _draw_all(image, lines or [], what.names, _label_path(path), assembly)
    drawn = sum(len(image.classes) > 0 for image in assembly.images.values())
    if pixels > max(3, drawn / 2):
        raise InputError(
            f"{what.path}: the text files of {pixels:,} images hold values beyond 0..1, expected shares of the image's width and "
            "height; divide pixels by them"
        )
    assembly.notes += _without_image(what, files)
    if without:
        assembly.notes.append(
            f"{counted(without, 'image has no text file or an empty one: it counts', 'images have no text file or an empty one: they count')} as looked at and without a box"
        )
    patients_from_names(assembly.images.values(), patient_regex)
    name = what.root.resolve().name or "yolo"
    return assembly.collection(name, label_classes=what.names, box_classes=what.names)


def _yaml_in(source: Path) -> Path | None:
    """The YAML file of a source; None where it is a folder without one."""
    check_regular(source, "YOLO's YAML file")
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(
            f"expected YOLO's YAML file or folder, {source} is not there; check the path"
        )
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in (".yaml", ".yml"))
    usual = [p for p in found if p.stem.lower() in ("data", "dataset")]
    if len(usual or found) > 1:
        raise InputError(
            f"expected one YAML file in {source}, found {', '.join(p.name for p in found[:5])}; give the one to read"
        )
    return next(iter(usual or found), None)


def _from_yaml(path: Path) -> _Source:
    content = _parsed(path)
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise InputError(
                f"expected 'names' numbered from 0 on in {path}, found {str(list(names))[:80]}; correct them"
            )
        names = [names[k] for k in range(len(names))]
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(n, (str, int)) for n in names)
    ):
        raise InputError(
            f"expected a list 'names' of the classes in {path}, found {str(names)[:60]}; add it"
        )
    if "nc" in content and content["nc"] != len(names):
        raise InputError(
            f"{path} says {content['nc']} classes (nc) and names {len(names)}; correct one of them"
        )
    root = path.parent
    if isinstance(base := content.get("path"), str) and base:
        base_folder = path.parent / base  # an absolute path stands as it is
        root = base_folder if base_folder.is_dir() else root
    places: list[tuple[Split | None, Path]] = []
    notes = []
    for key, split in _SPLITS:
        given = content.get(key, content.get("valid") if key == "val" else None)
        for one in given if isinstance(given, list) else [given] if given else []:
            place = _place(root, str(one))
            if place is None:
                notes.append(f"{key}: {str(one)[:80]} of {path.name} is not there: left out")
            else:
                places.append((split, place))
    if not places:
        raise InputError(
            f"expected folders or lists of images under train, val or test in {path}, found none that is there; correct 'path'"
        )
    return _Source(path, root.resolve(), _checked(names, path), places, notes)


def _parsed(path: Path) -> dict[str, Any]:
    check_regular(path, "the YAML file")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(
                f"expected YOLO's YAML file, {path} has more than {_MOST_BYTES >> 20} MiB"
            )
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"could not read {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"expected YAML in {path}: {told}; repair the file") from error
    if not isinstance(content, dict):
        raise InputError(
            f"expected keys such as names and train in {path}, found none; is it YOLO's YAML file?"
        )
    return content


def _place(root: Path, written: str) -> Path | None:
    """A folder or list as it is written, or as Roboflow means it (``../train/images`` is ``train/images``); None: not there."""
    tried = [root / written, root / written.removeprefix("../")]
    return next((path for path in tried if path.exists()), None)


def _from_folder(folder: Path) -> _Source:
    listed = next((folder / name for name in _LISTS if (folder / name).is_file()), None)
    if listed is None:
        raise InputError(
            f"expected a YAML file, classes.txt or obj.names with the names of the classes in {folder}, found none; add one"
        )
    names = _checked(read_names(listed), listed)
    lists: list[tuple[Split | None, Path]] = []
    for stem, split in (("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test")):
        if listed.name == "obj.names" and (folder / f"{stem}.txt").is_file():
            lists.append((split, folder / f"{stem}.txt"))  # type: ignore[arg-type]
    images = folder / "images"
    return _Source(
        folder, folder.resolve(), names, lists or [(None, images if images.is_dir() else folder)]
    )


def _checked(names: Sequence[object], path: Path) -> list[str]:
    told = [str(name).strip() for name in names]
    twice = next((name for name in told if told.count(name) > 1 or not name), None)
    if twice is not None:
        raise InputError(
            f"expected names that differ in {path}, found {twice!r} twice or empty; rename one"
        )
    return told


def _files(what: _Source, assembly: Assembly) -> Iterator[tuple[Split | None, str]]:
    """Split and path of every image, below the root; an image of two splits is refused."""
    of: dict[str, Split | None] = {}
    for split, place in what.places:
        names: list[str] = []
        if place.is_dir():
            found = scan(place, is_image_name)
            assembly.skipped += found.skipped
            names = [_below(what.root, place / name) for name in found.names]
        else:
            missing = 0
            for line in read_names(place):
                listed = next(
                    (
                        p
                        for p in (
                            what.root / line,
                            place.parent / line,
                            what.root / line.removeprefix("data/"),
                        )
                        if p.is_file()
                    ),
                    None,
                )
                missing += listed is None
                names += [] if listed is None else [_below(what.root, listed)]
            if missing:
                assembly.notes.append(
                    f"{counted(missing, 'image')} of {place.name} {'is' if missing == 1 else 'are'} not there: left out"
                )
        for name in names:
            if name in of:
                if of[name] != split:
                    raise InputError(
                        f"{name} is in both {of[name]} and {split} of {what.path}; keep one of them"
                    )
                continue
            of[name] = split
            yield split, name


def _without_image(what: _Source, files: Sequence[tuple[Split | None, str]]) -> list[str]:
    """A note on text files that belong to no image; none where every one does."""
    used = {_label_path(what.root / name) for _, name in files}
    folders = sorted({path.parent for path in used if "labels" in path.parts})
    bare = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.glob("*.txt"))
        if path not in used and path.name not in _LISTS
    ]
    return (
        [
            f"{counted(len(bare), 'text file has', 'text files have')} no image, such as {bare[0].name}: left out"
        ]
        if bare
        else []
    )


def _below(root: Path, path: Path) -> str:
    """A path relative to the root, or as it is where it lies elsewhere."""
    resolved = path.resolve()
    return (
        resolved.relative_to(root).as_posix()
        if resolved.is_relative_to(root)
        else resolved.as_posix()
    )


def _label_path(image: Path) -> Path:
    parts = list(image.parts)
    at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i] == "images"), None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _lines(image: Path, skipped: list[Skipped]) -> list[str] | None:
    """The lines of an image's text file; none where there is no file; None where nobody annotated it."""
    path = _label_path(image)
    if not path.is_file():
        return [] if path.parent.is_dir() else None
    try:
        return read_names(path)
    except InputError as error:
        skipped.append(Skipped(str(path), f"{error}; its image counts as never annotated"))
        return None


def _draw_all(
    image: Image, lines: Sequence[str], names: Sequence[str], path: Path, assembly: Assembly
) -> bool:
    """Draw an image's lines; True where its values are no shares."""
    beyond = False
    for i, line in enumerate(lines):
        where = f"{path} line {i + 1}"
        cells = line.split()
        values = numbers(cells)
        number = (
            int(values[0]) if values and values[0] == values[0] and abs(values[0]) < 1e9 else -1
        )
        if values is None or number != values[0] or not 0 <= number < len(names):
            assembly.nameless(
                image,
                where,
                f"expected a class of 0 to {len(names) - 1} and numbers, got {line[:60]!r}; correct it",
            )
            continue
        box = _corners(values[1:], image.size)
        beyond = beyond or box == _BEYOND
        assembly.draw(image, names[number], box, where)
    return beyond


_BEYOND = "expected shares of the image in 0..1, found values beyond"


def _corners(values: Sequence[float], size: Size | None) -> Corners | str:
    """The box in pixels; or why there is none."""
    if size is None:
        return "the size of its image cannot be read"
    if len(values) == 5:
        return "a line of six numbers ends in a confidence: it is a prediction, no annotation"
    if len(values) < 4 or len(values) % 2:
        return f"expected x_centre y_centre width height, or an outline of points, got {len(values)} numbers"
    if not all(-_OVER <= value <= 1 + _OVER for value in values):
        return _BEYOND
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    return extent((values[i] * width, values[i + 1] * height) for i in range(0, len(values), 2))
