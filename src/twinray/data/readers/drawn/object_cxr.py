"""Object-CXR (foreign objects) -> Collection.

Data sheet
    What: frontal chest X-rays from some 300 township hospitals in China, JPEG; half of them with foreign objects. 8,000 for
        training and 1,000 for development are published; 1,000 for testing were kept.
    Boxes: one class, ``Foreign object``: objects within the lung field, drawn by 12 radiologists with 1 to 3 years of experience as
        rectangles, ellipses or outlines, in pixels of the image; here the box around them. Support devices were not drawn.
    Labels: present where an object was drawn, else absent.
    Splits: ``train.csv`` -> train, ``dev.csv`` -> val.
    Patients: NOT PUBLISHED.
    Get it: https://jfhealthcare.github.io/object-CXR/. Licence: unknown here; read the terms of the download.
    Cite: JF Healthcare, Automatic detection of foreign objects on chest X-rays, a challenge of MIDL 2020.

Layout::

    train.csv, dev.csv      image_name (or image_path), annotation: ``TYPE x1 y1 x2 y2;TYPE x1 y1 x2 y2 x3 y3 ...``, TYPE 0
                            a rectangle, 1 an ellipse (left, top, right, bottom), 2 an outline; empty: no object
    train/, dev/            the images; converted files of the same stem too
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from twinray.data.readers.disk import ImageIndex, index_images
from twinray.data.readers.drawn.assembly import Assembly, Corners, Image, extent
from twinray.data.readers.drawn.xml_file import numbers
from twinray.data.readers.tabular import find_table, read_rows
from twinray.errors import InputError
from twinray.records import Collection, Split
from twinray.words import counted

NAME = "object-cxr"
CLASS = "Foreign object"

_TABLES: tuple[tuple[str, Split], ...] = (("train", "train"), ("dev", "val"), ("test", "test"))


def read_object_cxr(
    root: Path, *, images_root: Path | None = None, need_images: bool = True
) -> Collection:
    """Describe the images that the tables list; ids are names of files after their part (``train/00001.jpg``).

    Args:
        root: the folder with the tables.
        images_root: folder with ``train`` and ``dev``; by default ``root``.
        need_images: flag to leave out images that are not on the disk.

    Raises:
        InputError: no table, or one that cannot be read; no image left; boxes that cannot be in pixels of the images.
    """
    tables = [
        (path, split)
        for stem, split in _TABLES
        if (path := find_table((root,), (stem,))) is not None
    ]
    if not tables:
        raise InputError(
            f"expected train.csv or dev.csv of Object-CXR in {root}, found neither; add one"
        )
    assembly = Assembly(root, images_root or root)
    missing: list[str] = []
    for path, split in tables:
        part = path.name.split(".")[0]
        index, prefix = _index(assembly, part)
        taken = len(assembly.images)
        for row in read_rows(
            path, (("image_name", "image_path"), "annotation"), notes=assembly.notes
        ):
            name = PurePosixPath(row[("image_name", "image_path")].replace("\\", "/")).name
            if not name:
                assembly.set_aside(
                    row.where, "expected the name of an image, found nothing; correct the row"
                )
                continue
            found = index.find(name)
            key = f"{part}/{name}"
            if found is None and need_images:
                missing.append(key)
                continue
            image = Image(key, f"{prefix}{found}" if found else key, split=split)
            if assembly.add(image, row.where):
                _draw(image, row["annotation"], row.where, assembly)
        if prefix:
            sources = [image.source for image in list(assembly.images.values())[taken:]]
            assembly.notes += index.unlisted((s.removeprefix(prefix) for s in sources), path.name)
    read = {path.name.split(".")[0] for path, _ in tables}
    assembly.notes += [
        f"the folder {stem} has no table {stem}.csv: left out"
        for stem, _ in _TABLES
        if stem not in read and (assembly.root / stem).is_dir()
    ]
    if missing:
        if not assembly.images:
            raise InputError(
                f"none of the {len(missing):,} images that the tables list is in {assembly.root} (first: {missing[0]}); unpack "
                "them beside the tables"
            )
        assembly.notes.append(
            f"{counted(len(missing), 'image that the tables list is not', 'images that the tables list are not')} on this disk, such as {missing[0]}: left out"
        )
    return assembly.collection(NAME, label_classes=(CLASS,), box_classes=(CLASS,))


def _index(assembly: Assembly, part: str) -> tuple[ImageIndex, str]:
    """The images of a part, in its folder where there is one, and what their paths begin with."""
    own = assembly.root / part
    index = index_images(own if own.is_dir() else assembly.root, assembly.skipped)
    return index, f"{part}/" if own.is_dir() else ""


def _draw(image: Image, cell: str, where: str, assembly: Assembly) -> None:
    for i, shape in enumerate(filter(None, (one.strip() for one in cell.split(";")))):
        assembly.draw(image, CLASS, _corners(shape), f"{where} shape {i}")


def _corners(shape: str) -> Corners | str:
    """The box around one shape; or why there is none."""
    kind, *cells = shape.split()
    values = numbers(cells)
    if kind in ("0", "1") and values is not None and len(values) == 4:
        return values[0], values[1], values[2], values[3]
    if kind == "2" and values is not None and len(values) >= 6 and len(values) % 2 == 0:
        return extent(zip(values[::2], values[1::2], strict=True))
    return f"expected TYPE x1 y1 x2 y2 with TYPE 0 or 1, or 2 and an outline, got {shape[:60]!r}"
