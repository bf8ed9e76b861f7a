"""The tables of VinDr-CXR, in Kaggle's and in PhysioNet's layout -> what was read of each image.

Which files there are, what they hold and how they differ is documented in
:mod:`twinray.data.readers.vindr.reader`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from twinray.data.annotations import REPEATED, BoxAudit
from twinray.data.readers.tabular import Row, find_table, number, read_rows
from twinray.errors import InputError
from twinray.records import Skipped, Split

BOX_CLASSES = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis",
)  # fmt: skip
"""The 14 classes of Kaggle's copy, in the order of its class ids."""

OTHER_BOX_CLASSES = (
    "Clavicle fracture", "Edema", "Emphysema", "Enlarged PA", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Rib fracture",
)  # fmt: skip
"""The 8 further box classes of PhysioNet's copy."""

GLOBAL_CLASSES = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases")
"""Labels of whole images, never boxed; PhysioNet only."""

NO_FINDING = "No finding"
_SPELLINGS = {"Other disease": "Other diseases"}  # the test table's
_SIDES = ("x_min", "y_min", "x_max", "y_max")
_LONGEST_SIDE = 100_000.0
_NO_BOX = ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
"""What common copies write in place of nothing; the second is the form of the challenge's submissions."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of annotations with what belongs to it.

    Attributes:
        annotations: the table of boxes.
        labels: PhysioNet's table of image labels, where it is there.
        meta: the table of original sizes, where it is there.
        split: split that these images are in.
        kaggle: 14 classes; otherwise PhysioNet's 22.
        named: the rows carry ``rad_id``.
    """

    annotations: Path
    labels: Path | None
    meta: Path | None
    split: Split
    kaggle: bool
    named: bool


@dataclass(slots=True)
class Reading:
    """What the tables say of one image.

    Attributes:
        votes: class -> the readers who state it ('' for a consensus).
        boxes: (x1, y1, x2, y2), class, reader, in file order.
        frame: (width, height) in pixels of the original image, where the meta table tells.
        incomplete: a row of this image was set aside, so that what it does not state is not known to be absent.
        lost: a box of this image was set aside.
    """

    votes: dict[str, set[str]] = field(default_factory=dict)
    boxes: list[tuple[tuple[float, ...], str, str]] = field(default_factory=list)
    frame: tuple[int, int] | None = None
    incomplete: bool = False
    lost: bool = False


def find_parts(root: Path) -> tuple[Part, ...]:
    """The files of annotations in a folder (or the one file given), training before test.

    Raises:
        InputError: nothing of that kind is there.
    """
    if root.is_file():
        return (_part(root, root.parent, "test" if "test" in root.name else "train"),)
    if not root.is_dir():
        raise InputError(f"expected the folder of VinDr-CXR, {root} is not there; check the path")
    kaggle = find_table((root,), ("train",))
    if kaggle is not None:
        return (_part(kaggle, root, "train"),)
    splits: tuple[Split, ...] = ("train", "test")
    found = [
        (find_table((root / "annotations", root), (f"annotations_{split}",)), split)
        for split in splits
    ]
    parts = tuple(_part(path, root, split) for path, split in found if path is not None)
    if not parts:
        raise InputError(
            f"expected train.csv (Kaggle) or annotations/annotations_train.csv (PhysioNet) in {root}, found neither; "
            "give the folder that holds it, or the file itself"
        )
    return parts


def _part(annotations: Path, root: Path, split: Split) -> Part:
    row = next(read_rows(annotations, ("image_id", "class_name", *_SIDES)), None)
    if row is None:
        raise InputError(
            f"expected rows in {annotations}, found only a header; copy the file again from its source"
        )
    if split == "train" and "rad_id" not in row:
        raise InputError(
            f"expected a column rad_id (who read the image) in {annotations}, found {', '.join(row.columns)}; "
            "give the file as it is published"
        )
    folders = (annotations.parent, root, root / split)
    return Part(
        annotations=annotations,
        labels=find_table(folders[:2], (f"image_labels_{split}",)),
        meta=find_table(folders, (f"{split}_meta",)),
        split=split,
        kaggle="class_id" in row,
        named="rad_id" in row,
    )


def read_part(
    part: Part, skipped: list[Skipped], notes: list[str], audit: BoxAudit
) -> dict[str, Reading]:
    """Image id -> what was read; rows that cannot be used are added to ``skipped``.

    Where the table has columns ``width`` and ``height`` (as many copies on the net do), they are the size of the
    original that boxes are in, as the meta table is, which takes precedence.

    Raises:
        InputError: a table cannot be read or lacks a column.
    """
    images: dict[str, Reading] = {}
    sizes: dict[str, tuple[int, int]] = {}
    pending: dict[str, list[tuple[Row, tuple[float, ...]]]] = {}
    boxed = BOX_CLASSES if part.kaggle else BOX_CLASSES + OTHER_BOX_CLASSES
    for row in read_rows(part.annotations, ("image_id", "class_name", *_SIDES), notes=notes):
        key = row["image_id"]
        fault = _who(row, part.named) or _own_size(row, sizes)
        if fault is not None:
            skipped.append(Skipped(row.where, fault))
            continue
        reading = images.setdefault(key, Reading())
        box = _corners(row, boxed)
        if isinstance(box, str):
            skipped.append(Skipped(row.where, box))
            reading.lost = reading.incomplete = True
        else:
            reading.votes.setdefault(row["class_name"], set()).add(row["rad_id"])
            if box is not None:
                pending.setdefault(key, []).append((row, box))
    if part.labels is not None and not part.kaggle:
        _read_labels(part, images, skipped, notes)
    for key, size in sizes.items():
        if key in images:
            images[key].frame = size
    if part.meta is not None:
        _read_sizes(part.meta, images, skipped, notes)
    for key, boxes in pending.items():
        _place(key, images[key], boxes, skipped, audit)
    return images


def _own_size(row: Row, sizes: dict[str, tuple[int, int]]) -> str | None:
    """Remember the row's own width and height; why they cannot be right."""
    cells = (row["width"], row["height"])
    if not any(cells):
        return None
    size = _whole(cells[0]), _whole(cells[1])
    if size[0] is None or size[1] is None:
        return f"expected width and height in whole pixels, got {cells[0][:20]!r} and {cells[1][:20]!r}; correct the row"
    first = sizes.setdefault(row["image_id"], (size[0], size[1]))
    if first != size:
        return (
            f"expected the size that a row further up states, {first[0]} x {first[1]}, got {size[0]} x {size[1]}; "
            "correct the row"
        )
    return None


def _whole(cell: str) -> int | None:
    value = number(cell)
    if value is None or not 1 <= value <= _LONGEST_SIDE or value % 1:
        return None
    return int(value)


def _who(row: Row, named: bool) -> str | None:
    if not row["image_id"]:
        return "expected an 'image_id', found nothing; correct the row"
    if named and not row["rad_id"]:
        return "expected a reader in 'rad_id', found nothing; correct the row"
    return None


def _corners(row: Row, boxed: tuple[str, ...]) -> tuple[float, ...] | str | None:
    """The row's corners; why it is refused; or None for a row that states that there is no finding."""
    name, cells = row["class_name"], [row[side] for side in _SIDES]
    if name == NO_FINDING:
        return (
            None
            if not any(cells) or [number(cell) for cell in cells] in _NO_BOX
            else f"expected no box with '{NO_FINDING}', got {', '.join(cells)[:60]!r}"
        )
    if name not in boxed:
        return f"expected one of the {len(boxed)} box classes or '{NO_FINDING}', got {name[:60]!r}; names must be exact"
    values = tuple(value for cell in cells if (value := number(cell)) is not None)
    if len(values) < 4:
        return f"expected four numbers x_min, y_min, x_max, y_max, got {', '.join(cells)[:60]!r}; correct the row"
    return values


def _place(
    key: str,
    reading: Reading,
    boxes: list[tuple[Row, tuple[float, ...]]],
    skipped: list[Skipped],
    audit: BoxAudit,
) -> None:
    """Judge an image's boxes, against its size where that is known, and keep the good ones."""
    for row, box in boxes:
        name, reader = row["class_name"], row["rad_id"]
        label = (BOX_CLASSES + OTHER_BOX_CLASSES).index(name)
        judged = audit.judge(key, label, box, reading.frame, row.where, reader=reader)
        if not isinstance(judged, str):
            reading.boxes.append((tuple(judged.tolist()), name, reader))
        elif judged != REPEATED:
            skipped.append(Skipped(row.where, f"{judged}; correct the row"))
            reading.lost = True


def _read_labels(
    part: Part, images: dict[str, Reading], skipped: list[Skipped], notes: list[str]
) -> None:
    """Add PhysioNet's image labels to the votes; images that are in this table alone count too."""
    path, named = part.labels, part.named
    assert path is not None
    told: set[str] = set()
    by_column: dict[str, str] = {}
    for row in read_rows(path, ("image_id", *(("rad_id",) if named else ())), notes=notes):
        by_column = by_column or _label_columns(row, path)
        key = row["image_id"]
        fault = _who(row, named)
        wrong = next((c for c in by_column if row[c] not in ("0", "1", "0.0", "1.0")), None)
        if fault is None and wrong is not None:
            fault = f"expected 0 or 1 in column {wrong!r}, got {row[wrong][:40]!r}; correct the row"
        if fault is not None:
            skipped.append(Skipped(row.where, fault))
            if key in images:
                images[key].incomplete = True
            continue
        told.add(key)
        votes = images.setdefault(key, Reading()).votes
        for column, name in by_column.items():
            if row[column] in ("1", "1.0"):
                votes.setdefault(name, set()).add(row["rad_id"])
    for key, reading in images.items():
        reading.incomplete |= key not in told


def _label_columns(row: Row, path: Path) -> dict[str, str]:
    """Column -> class; all 28 must be there, and no other."""
    expected = {*BOX_CLASSES, *OTHER_BOX_CLASSES, *GLOBAL_CLASSES, NO_FINDING}
    by_column = {
        c: _SPELLINGS.get(c, c) for c in row.columns if c and c not in ("image_id", "rad_id")
    }
    found = set(by_column.values())
    if found != expected:
        missing, unknown = (
            ", ".join(sorted(expected - found)) or "none",
            ", ".join(sorted(found - expected)) or "none",
        )
        raise InputError(
            f"expected the 28 label columns of PhysioNet's release in {path}; missing: {missing[:200]}; "
            f"not known: {unknown[:200]}; give the file as it is published"
        )
    return by_column


def _read_sizes(
    path: Path, images: dict[str, Reading], skipped: list[Skipped], notes: list[str]
) -> None:
    for row in read_rows(path, ("image_id", "dim0", "dim1"), notes=notes):
        height, width = _whole(row["dim0"]), _whole(row["dim1"])
        if height is None or width is None:
            told = f"{row['dim0'][:20]!r} and {row['dim1'][:20]!r}"
            skipped.append(
                Skipped(
                    row.where,
                    f"expected dim0 and dim1 in whole pixels, got {told}; correct the row",
                )
            )
        elif row["image_id"] in images:
            images[row["image_id"]].frame = width, height
