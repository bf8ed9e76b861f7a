"""Pascal VOC -> Collection.

Data sheet
    What: the layout of the Pascal VOC challenges, which LabelImg, CVAT and Roboflow write too: an XML file an image.
    Boxes: ``bndbox`` with ``xmin, ymin, xmax, ymax``. VOC counts pixels from 1 and includes the last, so a whole image is
        1, 1, width, height. Other tools write pixels from 0. Where any box of the source has a coordinate of 0 or one that is not
        whole, all are taken as they stand. Else 1 is taken off ``xmin`` and ``ymin``. Which way was taken is told.
    Difficult: objects marked ``difficult`` count for nothing in VOC's evaluation. Here they are regions that evaluation leaves
        out, and their class is unknown in the image.
    Labels: present where the image has a box of the class, else absent.
    Classes: names that occur, in alphabetical order. The layout has no list of them.
    Splits: ``ImageSets/Main/train.txt``, ``val.txt``, ``test.txt`` (``trainval.txt`` is train where the first two are not there);
        without them, folders called train, valid, test at the top, where there are at least two.
    Patients: none in the files; ``--patient-regex`` takes them from names of files.
    Licence: that of the images.
    Source: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 88:303, 2010, and its development kit.

Layout::

    Annotations/<stem>.xml, JPEGImages/<stem>.jpg, ImageSets/Main/*.txt     as published
    <any folder>/<stem>.xml beside <stem>.png                               as tools write it

The image of ``<stem>.xml`` is ``<stem>`` with any ending; where that is not there, the file that ``filename`` names.
Images without an XML file are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from twinray.data.decoding.images import is_image_name
from twinray.data.readers.disk import scan
from twinray.data.readers.drawn.assembly import Assembly, Corners, Image, patients_from_names
from twinray.data.readers.drawn.xml_file import numbers, read_xml, text_of
from twinray.data.readers.tabular import read_names
from twinray.errors import InputError
from twinray.records import Collection, Split, split_of
from twinray.words import counted

_SETS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "val"), ("test", "test"))
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class _Object:
    """One object as its file states it."""

    image: Image
    where: str
    name: str
    corners: list[float] | None
    difficult: bool


@dataclass(slots=True)
class _Disk:
    """The images below the folder: by path without ending, by bare name without ending, and by bare name."""

    by_stem: dict[str, str] = field(default_factory=dict)
    by_bare: dict[str, list[str]] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)


def read_voc(
    root: Path, images_root: Path | None = None, *, patient_regex: str | None = None
) -> Collection:
    """Describe the images that have an XML file; a sample's id is the path of that file without its ending.

    Args:
        root: the folder.
        images_root: folder of the images, at any depth; by default ``root``.
        patient_regex: expression that finds the patient in the name of a file.

    Raises:
        InputError: no such folder, no XML file in it, no image left, boxes that cannot be in pixels of the images.
    """
    if not root.is_dir():
        came = "is a file; give its folder" if root.exists() else "is not there; check the path"
        raise InputError(f"expected a folder in Pascal VOC's layout, {root} {came}")
    found = scan(root, lambda path: path.suffix.lower() == ".xml")
    if not found.names:
        raise InputError(f"expected XML files of Pascal VOC's layout in {root}, found none")
    assembly = Assembly(root, images_root or root)
    assembly.skipped += found.skipped
    disk = _images(assembly.root, assembly)
    splits = _splits(root, found.names)
    objects: list[_Object] = []
    missing: list[str] = []
    for name in found.names:
        _read(root, name, disk, splits, objects, missing, assembly)
    _draw(objects, assembly)
    patients_from_names(assembly.images.values(), patient_regex)
    if missing:
        assembly.notes.append(
            f"{counted(len(missing), 'XML file has', 'XML files have')} no image on this disk, such as {missing[0]}: left out"
        )
    if not assembly.images and missing:
        raise InputError(
            f"none of the {len(missing):,} images of the XML files in {root} is in {assembly.root}; give their folder with --images"
        )
    used = {image.source for image in assembly.images.values()}
    if bare := sorted(set(disk.by_stem.values()) - used):
        assembly.notes.append(
            f"{counted(len(bare), 'image has', 'images have')} no XML file, such as {bare[0]}: left out"
        )
    return assembly.collection(root.resolve().name or "voc")


def _images(root: Path, assembly: Assembly) -> _Disk:
    found = scan(root, is_image_name)
    assembly.notes += found.notes
    disk = _Disk()
    for name in found.names:
        path = PurePosixPath(name)
        disk.by_stem.setdefault(path.with_suffix("").as_posix(), name)
        disk.by_bare.setdefault(path.stem, []).append(name)
        disk.by_name.setdefault(path.name, []).append(name)
    return disk


def _splits(root: Path, names: list[str]) -> dict[str, Split]:
    """Split by stem, from VOC's lists; by path, from folders at the top; empty where neither tells."""
    folder = next(
        (p for p in (root / "ImageSets" / "Main", root / "ImageSets") if p.is_dir()), None
    )
    splits: dict[str, Split] = {}
    if folder is not None:
        there = [(stem, split) for stem, split in _SETS if (folder / f"{stem}.txt").is_file()]
        if "train" not in dict(there) and (folder / "trainval.txt").is_file():
            there.insert(0, ("trainval", "train"))
        for stem, split in there:
            for line in read_names(folder / f"{stem}.txt"):
                name = (
                    PurePosixPath(line.split()[0]).stem
                    if "." in line.split()[0]
                    else line.split()[0]
                )
                if splits.setdefault(name, split) != split:
                    raise InputError(
                        f"{name} is in both {splits[name]} and {split} of {folder}; copy the lists again"
                    )
        return splits
    tops = {name: name.split("/")[0] for name in names if "/" in name}
    if len({split_of(top) for top in tops.values()} - {None}) < 2:
        return {}
    told = {name: split_of(top) for name, top in tops.items()}
    return {name.removesuffix(".xml"): split for name, split in told.items() if split is not None}


def _read(
    root: Path,
    name: str,
    disk: _Disk,
    splits: dict[str, Split],
    objects: list[_Object],
    missing: list[str],
    assembly: Assembly,
) -> None:
    """One XML file: its image is taken, its objects are added to ``objects``."""
    where = str(root / name)
    try:
        element = read_xml(root / name, "the annotation")
    except InputError as error:
        return assembly.set_aside(where, str(error))
    if element.tag != "annotation":
        return assembly.set_aside(
            where, f"expected <annotation>, found <{element.tag[:60]}>; leave the file out"
        )
    stem = name[: -len(".xml")]
    source = _source(stem, text_of(element, "filename"), disk)
    if source is None:
        missing.append(name)
        return None
    sides = numbers([text_of(element, "size/width"), text_of(element, "size/height")])
    sides = sides if sides and all(side >= 1 and side == int(side) for side in sides) else None
    image = Image(
        stem,
        source,
        size=(int(sides[0]), int(sides[1])) if sides else None,
        split=splits.get(stem) or splits.get(stem.rpartition("/")[2]),
    )
    if not assembly.add(image, where):
        return None
    for i, one in enumerate(element.findall("object")):
        objects.append(_object(one, image, f"{where} object {i}"))
    return None


def _source(stem: str, filename: str, disk: _Disk) -> str | None:
    """The image of an XML file: of the same path or name, else the one that it names; None if it is not on the disk."""
    for other in (
        stem,
        stem.replace("Annotations", "JPEGImages"),
        stem.replace("annotations", "images"),
    ):
        if other in disk.by_stem:
            return disk.by_stem[other]
    same = disk.by_bare.get(stem.rpartition("/")[2], [])
    if len(same) == 1:
        return same[0]
    named = (
        disk.by_name.get(PurePosixPath(filename.replace("\\", "/")).name, []) if filename else []
    )
    return named[0] if len(named) == 1 else None


def _object(element: Element, image: Image, where: str) -> _Object:
    cells = [text_of(element, f"bndbox/{key}") for key in _CORNERS]
    difficult = text_of(element, "difficult") not in ("", "0")
    return _Object(image, where, text_of(element, "name"), numbers(cells), difficult)


def _draw(objects: list[_Object], assembly: Assembly) -> None:
    """Draw all objects, now that it is known from where the source counts pixels."""
    values = [value for one in objects for value in one.corners or ()]
    from_zero = any(
        value == 0 or value != int(value)
        for value in values
        if value == value and abs(value) < 1e12
    )
    if values:
        assembly.notes.append(
            "boxes are taken as they stand: some coordinates are 0 or not whole, so pixels are counted from 0"
            if from_zero
            else "boxes are read as VOC defines them: pixels from 1, the last included (1 is taken off xmin and ymin)"
        )
    for one in objects:
        if not one.name:
            assembly.nameless(one.image, one.where, "expected a 'name', found none; correct it")
            continue
        box: Corners | str = "expected numbers under xmin, ymin, xmax, ymax"
        if one.corners is not None:
            left, top, right, bottom = one.corners
            off = 0.0 if from_zero else 1.0
            box = (left - off, top - off, right, bottom)
        assembly.draw(one.image, one.name, box, one.where, left_out=one.difficult)
