"""CVAT's own export ("CVAT for images 1.1") -> Collection.

Data sheet
    What: whatever was annotated in CVAT. COCO, YOLO and Pascal VOC exports of CVAT are read by those formats.
    Boxes: ``box`` (a turned one becomes the box around it), ``polygon``, ``ellipse`` and ``mask`` (the box around them), in pixels
        of the image. Polylines, points, cuboids and skeletons are no findings' extents: they are counted and left out.
    Labels: present where the image has a shape of the label, or a ``tag`` of it; else absent. CVAT exports every image of
        a task, also those that nobody has opened: leave jobs that are not finished out of the export.
    Classes: the labels of the task or project, in its order, whether or not they occur.
    Splits: ``subset`` of an image, where it names one.
    Patients: none in the file; ``--patient-regex`` takes them from names of files.
    Licence: that of the images.
    Source: https://docs.cvat.ai/docs/other/xml_format, version 1.1.

Layout::

    annotations.xml         <annotations> with <meta> and <image id name width height [subset]> ... </image>
    images/<name>, images/<subset>/<name>, or <name> beside the file

Video exports (``track``) are refused: export the task as "CVAT for images".
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

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
from twinray.data.readers.drawn.xml_file import numbers, read_xml, text_of
from twinray.errors import InputError
from twinray.records import Collection, split_of

SHAPES = ("box", "polygon", "ellipse", "mask")
NO_EXTENT = frozenset({"polyline", "points", "cuboid", "skeleton"})


def read_cvat(
    source: Path, images_root: Path | None = None, *, patient_regex: str | None = None
) -> Collection:
    """Describe the images and boxes of ``annotations.xml``; a sample's id is the image's name, after its subset.

    Args:
        source: the file, or its folder.
        images_root: folder that names are relative to; by default one of the usual places, see above.
        patient_regex: expression that finds the patient in the name of a file.

    Raises:
        InputError: no such file, no CVAT export, one of a video, no image left, boxes that cannot be in pixels of the images.
    """
    path = source / "annotations.xml" if source.is_dir() else source
    root = read_xml(path, "CVAT's annotations")
    if root.tag != "annotations":
        raise InputError(
            f"expected <annotations> of CVAT in {path}, found <{root.tag[:60]}>; export the task as 'CVAT for images 1.1'"
        )
    if root.find("track") is not None:
        raise InputError(
            f"{path} is an export of a video (it has tracks); export the task as 'CVAT for images 1.1'"
        )
    elements = root.findall("image")
    names = [_name(element) for element in elements]
    files = _files(path, images_root, names)
    assembly = Assembly(path, files.root)
    known = _labels(root)
    others: Counter[str] = Counter()
    for element, name in zip(elements, names, strict=True):
        _take(element, name, files, known, others, assembly)
    odd = Counter(i.attributes["subset"] for i in assembly.images.values() if i.attributes)
    if odd:
        told = ", ".join(f"{name[:40]!r} {n:,}" for name, n in odd.most_common(4))
        assembly.notes.append(f"subsets that name no split give none: images {told}")
    patients_from_names(assembly.images.values(), patient_regex)
    if others:
        told = ", ".join(f"{kind} {n:,}" for kind, n in others.most_common())
        assembly.notes.append(f"shapes that have no extent were left out: {told}")
    return assembly.collection(
        path.resolve().parent.name or "cvat", label_classes=known or None, box_classes=known or None
    )


def _name(element: Element) -> str:
    return (element.get("name") or "").replace("\\", "/").strip()


def _files(path: Path, images_root: Path | None, names: list[str]) -> NamedFiles:
    if images_root is not None:
        if not images_root.is_dir():
            raise InputError(
                f"expected the folder of the images, {images_root} is not there; correct --images"
            )
        return NamedFiles([images_root], names)
    here = path.parent
    inside = (
        sorted(p for p in (here / "images").glob("*") if p.is_dir())
        if (here / "images").is_dir()
        else []
    )
    return NamedFiles([here / "images", here, *inside], names)


def _labels(root: Element) -> list[str]:
    """Names of the labels of the task or project, in order; empty where the file states none."""
    meta = root.find("meta")
    found = [] if meta is None else [text_of(label, "name") for label in meta.iter("label")]
    return list(dict.fromkeys(name for name in found if name))


def _take(
    element: Element,
    name: str,
    files: NamedFiles,
    known: list[str],
    others: Counter[str],
    assembly: Assembly,
) -> None:
    where = f"{assembly.source} image {element.get('id', '?')} ({name[:120] or 'no name'})"
    if not name:
        return assembly.set_aside(where, "expected a 'name', found none; export it again")
    sides = numbers([element.get("width", ""), element.get("height", "")])
    if sides is None or any(side < 1 or side != int(side) for side in sides):
        return assembly.set_aside(
            where, "expected 'width' and 'height' in whole pixels; export it again"
        )
    subset = element.get("subset") or ""
    found = (files.find(f"{subset}/{name}") if subset else None) or files.find(name)
    image = Image(
        f"{subset}/{name}" if subset else name,
        found or name,
        size=(int(sides[0]), int(sides[1])),
        split=split_of(subset) if subset else None,
        attributes={"subset": subset} if subset and split_of(subset) is None else {},
    )
    if not assembly.add(image, where):
        return None
    for i, shape in enumerate(element):
        if shape.tag in NO_EXTENT:
            others[shape.tag] += 1
            continue
        if shape.tag not in (*SHAPES, "tag"):
            continue
        label, place = (shape.get("label") or "").strip(), f"{where} {shape.tag} {i}"
        if not label or (known and label not in known):
            reason = f"its label {label[:60]!r} is none of the task's; correct it"
            assembly.nameless(image, place, reason)
        elif shape.tag == "tag":
            image.stated.add(label)
        else:
            assembly.draw(image, label, _corners(shape), place)
    return None


def _corners(shape: Element) -> Corners | str:
    """The box around a shape; or why there is none."""
    kind, turn = shape.tag, numbers([shape.get("rotation") or "0"])
    if turn is None:
        return "expected a number under 'rotation'"
    if kind == "polygon":
        pairs = [
            numbers(pair.split(",")) for pair in (shape.get("points") or "").split(";") if pair
        ]
        if any(pair is None or len(pair) != 2 for pair in pairs):
            return "expected 'points' such as 1,2;3,4;5,6"
        return extent((pair[0], pair[1]) for pair in pairs if pair is not None)
    keys = {"box": ("xtl", "ytl", "xbr", "ybr"), "ellipse": ("cx", "cy", "rx", "ry")}.get(
        kind, ("left", "top", "width", "height")
    )
    values = numbers([shape.get(key) or "" for key in keys])
    if values is None:
        return f"expected numbers under {', '.join(keys)}"
    a, b, c, d = values
    if kind == "ellipse":
        return turned_ellipse((a, b), (c, d), turn[0])
    if kind == "mask":
        return a, b, a + c, b + d
    return turned((a, b, c, d), turn[0], ((a + c) / 2, (b + d) / 2))
