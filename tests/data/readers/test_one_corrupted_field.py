"""For every reader: one corrupted field of a small source gives the same pack, or a message that names it. Never another pack in silence.

A source is drawn clean and read; then one field is spoilt, and it is read again. What counts as a pack is each image's patient, split,
labels, boxes and pixels. Messages are the refusal, what was set aside with its place, and the pack's notes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dicom_support import write_radiograph
from twinray.data.pack import PackInfo
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.chexpert import LABELS
from twinray.data.readers.formats import FORMATS, SourceOptions, read_sources
from twinray.errors import InputError

N = 12
WIDE = (96, 64)
Corrupt = Callable[[Path, int], Sequence[str]]
"""Spoils one field of the source in a folder, in the row of a number; returns texts of which one must be in a message."""


def picture(path: Path, i: int, size: tuple[int, int] = WIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def split(i: int) -> str:
    return "train" if i < 8 else "val" if i < 10 else "test"


# The sources ------------------------------------------------------------------------------------------------------------------


def folder(root: Path) -> None:
    lines = ["path,patient,split,label,age"]
    for i in range(N):
        picture(root / "in" / f"x{i:02d}.png", i)
        lines.append(
            f"x{i:02d}.png,p{i // 2},{split(i)},{'mass' if i % 3 else 'none at all'},{40 + i}"
        )
    (root / "t.csv").write_text("\n".join(lines) + "\n")


def coco(root: Path) -> None:
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "mass"}],
    }
    for i in range(N):
        picture(root / "in" / "images" / f"x{i:02d}.png", i)
        record = {"id": i + 1, "file_name": f"x{i:02d}.png", "width": WIDE[0], "height": WIDE[1]}
        content["images"].append(record | {"patient_id": f"p{i // 2}", "split": split(i)})
        box = [70 + i % 3, 20 + i, 20, 12]
        row = {"id": 100 + i, "image_id": i + 1, "category_id": 1, "bbox": box, "iscrowd": 0}
        x, y, w, h = box
        content["annotations"].append(
            row | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        )
    (root / "in" / "a.json").write_text(json.dumps(content))


def nih(root: Path) -> None:
    entries = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age"]
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for i in range(N):
        name = f"{i // 2 + 1:08d}_{i % 2:03d}.png"
        picture(root / "in" / "images" / name, i, (64, 64))
        entries.append(
            f"{name},{'Mass|Nodule' if i % 3 else 'No Finding'},{i % 2},{i // 2 + 1},{40 + i}"
        )
        boxes.append(f"{name},Mass,{400 + i},{600 + i},100.5,80")
    (root / "in" / "Data_Entry_2017.csv").write_text("\n".join(entries) + "\n")
    (root / "in" / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")


def vindr(root: Path) -> None:
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    meta = ["image_id,dim0,dim1"]
    for i in range(N):
        picture(root / "in" / "train" / f"k{i:02d}.png", i)
        meta.append(f"k{i:02d},640,960")
        for reader, shift in (("R1", 0), ("R2", 3)):
            found = f"ILD,5,{reader},{700 + shift},{200 + i},900,{400 + i}"
            lines.append(f"k{i:02d}," + (found if i % 3 else f"No finding,14,{reader},,,,"))
    (root / "in" / "train.csv").write_text("\n".join(lines) + "\n")
    (root / "in" / "train_meta.csv").write_text("\n".join(meta) + "\n")


def rsna(root: Path) -> None:
    lines = ["patientId,x,y,width,height,Target"]
    mapping = ["patientId,Image Index"]
    for i in range(N):
        picture(root / "in" / f"r{i:02d}.png", i, (64, 64))
        lines.append(f"r{i:02d}," + (f"{500 + i},{300 + i},200,150,1" if i % 3 else ",,,,0"))
        mapping.append(f"r{i:02d},{i // 2 + 1:08d}_{i % 2:03d}.png")
    (root / "in" / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    (root / "in" / "patientId_to_nih.csv").write_text("\n".join(mapping) + "\n")


def chexpert(root: Path) -> None:
    for name, rows in (("train", range(10)), ("valid", range(10, N))):
        lines = [",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS])]
        for i in rows:
            path = f"{name}/patient{i // 2 + 1:05d}/study1/view{i % 2 + 1}_frontal.jpg"
            picture(root / "in" / path, i)
            labels = [
                "1.0" if (i + k) % 3 == 0 else "0.0" if (i + k) % 3 == 1 else "" for k in range(14)
            ]
            lines.append(",".join([path, "Female", str(40 + i), "Frontal", "AP", *labels]))
        (root / "in" / f"{name}.csv").write_text("\n".join(lines) + "\n")


def medmnist(root: Path) -> None:
    rng, arrays = np.random.default_rng(0), {}
    for name, n in (("train", 8), ("val", 2), ("test", 2)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    (root / "in").mkdir(parents=True)
    np.savez(root / "in" / "pneumoniamnist.npz", **arrays)


def medimeta(root: Path) -> None:
    here = root / "in"
    for name in ("splits", "task_labels"):
        (here / name).mkdir(parents=True)
    task = {
        "task_name": "organ",
        "task_target": "MULTICLASS_CLASSIFICATION",
        "labels": {0: "heart", 1: "liver"},
    }
    (here / "info.yaml").write_text(yaml.safe_dump({"id": "organs", "tasks": [task]}))
    np.save(here / "task_labels" / "organ.npy", np.arange(N) % 2)
    for name in ("train", "val", "test"):
        own = [i for i in range(N) if split(i) == name]
        (here / "splits" / f"{name}.txt").write_text("".join(f"images/{i:06d}.tiff\n" for i in own))
    lines = ["filepath,patient_id,age"]
    for i in range(N):
        picture(here / "images" / f"{i:06d}.tiff", i, (16, 16))
        lines.append(f"images/{i:06d}.tiff,p{i // 2},{40 + i}")
    (here / "annotations.csv").write_text("\n".join(lines) + "\n")


def dicom(root: Path) -> None:
    lines = ["path,split,label"]
    for i in range(N):
        path = root / "in" / f"d{i:02d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (64, 96))
        uids = {"SOPInstanceUID": f"1.2.3.{i + 1}", "StudyInstanceUID": f"1.2.{i + 1}"}
        write_radiograph(path, pixels, PatientID=f"p{i // 2}", PatientName=f"N{i // 2}", **uids)
        lines.append(f"d{i:02d}.dcm,{split(i)},{'mass' if i % 3 else 'clear'}")
    (root / "t.csv").write_text("\n".join(lines) + "\n")


# What is spoilt ---------------------------------------------------------------------------------------------------------------


def edit(
    table: str, change: Callable[[list[list[str]], int], Sequence[str] | None], *tokens: str
) -> Corrupt:
    """Change the cells of a CSV, of which row 0 is the header; the message names the line, or one of the tokens."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / table
        with path.open(newline="") as file:
            cells = list(csv.reader(file))
        at = 1 + row % (len(cells) - 1)
        more = change(cells, at) or ()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        path.write_text(text.getvalue())
        return (f"{path.name} line {at + 1}", *tokens, *more)

    return corrupt


def cell(table: str, column: int, value: str | Callable[[str], str], *tokens: str) -> Corrupt:
    """One cell of a CSV takes another value."""

    def change(cells: list[list[str]], at: int) -> None:
        old = cells[at][column]
        cells[at][column] = value(old) if callable(value) else value

    return edit(table, change, *tokens)


def numbers(
    table: str, columns: Sequence[int], change: Callable[[list[float]], Sequence[float]]
) -> Corrupt:
    """The coordinates of one row, where it has any, are changed."""

    def spoil(cells: list[list[str]], at: int) -> None:
        if all(cells[at][c] for c in columns):
            values = change([float(cells[at][c]) for c in columns])
            for c, value in zip(columns, values, strict=True):
                cells[at][c] = f"{value:g}"

    return edit(table, spoil)


def without(table: str, column: int, *tokens: str) -> Corrupt:
    """A column is missing."""

    def change(cells: list[list[str]], _: int) -> Sequence[str]:
        name = cells[0][column]
        for row in cells:
            del row[column]
        return (name,)

    return edit(table, change, *tokens)


def repeated(table: str, *tokens: str) -> Corrupt:
    """A row occurs twice."""

    def change(cells: list[list[str]], at: int) -> Sequence[str]:
        cells.append(list(cells[at]))
        return (f"line {len(cells)}",)

    return edit(table, change, *tokens)


def header(table: str, column: int, value: Callable[[str], str], *tokens: str) -> Corrupt:
    """The name of a column is written otherwise."""

    def change(cells: list[list[str]], _: int) -> Sequence[str]:
        cells[0][column] = value(cells[0][column])
        return (cells[0][column],)

    return edit(table, change, *tokens)


def encoded(table: str, encoding: str, odd: str = "") -> Corrupt:
    """The file is in another encoding; ``odd`` is a word that only then differs in bytes."""

    def corrupt(root: Path, _: int) -> Sequence[str]:
        path = root / table
        text = path.read_text().rstrip("\n")
        path.write_bytes((text + odd + "\n").encode(encoding))
        return (path.name,)

    return corrupt


def deep(pattern: str) -> Corrupt:
    """One image has 16 bits in place of 8: the same picture, or one of another scale."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = sorted(root.glob(pattern))[row % N]
        pixels = np.asarray(Image.open(path)).astype(np.uint16) * 257
        Image.fromarray(pixels).save(path)
        return (path.name, "16-bit", "more than 8 bits")

    return corrupt


def resized(pattern: str) -> Corrupt:
    """One image is a copy of another size than its annotations say."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = sorted(root.glob(pattern))[row % N]
        picture(path, 99, (48, 32))
        return (path.name,)

    return corrupt


def swap(v: list[float]) -> list[float]:
    return [v[1], v[0], v[3], v[2]]


def relative(v: list[float]) -> list[float]:
    return [value / 1024 for value in v]


def negative(v: list[float]) -> list[float]:
    return [-v[0], *v[1:]]


def record(which: str, change: Callable[[dict[str, Any]], None], *tokens: str) -> Corrupt:
    """One object of a COCO file is changed."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / "a.json"
        content = json.loads(path.read_text())
        change(content[which][row])
        path.write_text(json.dumps(content))
        return (f"{which}[{row}]", *tokens)

    return corrupt


def box(change: Callable[[list[float]], Sequence[Any]]) -> Corrupt:
    return record("annotations", lambda a: a.update(bbox=list(change(a["bbox"]))))


def copied(which: str, change: Mapping[str, int], *tokens: str) -> Corrupt:
    """One object of a COCO file occurs twice, with another id."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / "a.json"
        content = json.loads(path.read_text())
        content[which].append(content[which][row % len(content[which])] | change)
        path.write_text(json.dumps(content))
        return tokens

    return corrupt


def dropped(which: str, key: str, *tokens: str) -> Corrupt:
    """All objects of a COCO file lack a key."""

    def corrupt(root: Path, _: int) -> Sequence[str]:
        path = root / "in" / "a.json"
        content = json.loads(path.read_text())
        for one in content[which]:
            del one[key]
        path.write_text(json.dumps(content))
        return (key, *tokens)

    return corrupt


def arrays(change: Callable[[dict[str, Any], int], None], *tokens: str) -> Corrupt:
    """The arrays of an .npz are changed."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / "pneumoniamnist.npz"
        with np.load(path) as archive:
            content = dict(archive)
        change(content, row % 8)
        np.savez(path, **content)
        return tokens

    return corrupt


def array_labels(change: Callable[[np.ndarray, int], np.ndarray]) -> Corrupt:
    """The array of MedIMeta's labels is changed."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / "task_labels" / "organ.npy"
        np.save(path, change(np.load(path), row))
        return (f"image {row} ", "images have no label", "task_labels has only")

    return corrupt


def set_label(value: float, kind: Any = np.int64) -> Callable[[np.ndarray, int], np.ndarray]:
    def change(values: np.ndarray, row: int) -> np.ndarray:
        values = values.astype(kind)
        values[row] = value
        return values

    return change


def split_line(change: Callable[[list[str]], list[str]], *tokens: str) -> Corrupt:
    """The list of MedIMeta's training images is changed."""

    def corrupt(root: Path, _: int) -> Sequence[str]:
        path = root / "in" / "splits" / "train.txt"
        path.write_text("\n".join(change(path.read_text().split())))
        return (f"{path.name} line", *tokens)

    return corrupt


def element(**values: Any) -> Corrupt:
    """One element of a DICOM header is changed."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / f"d{row:02d}.dcm"
        file = pydicom.dcmread(path)
        for key, value in values.items():
            if value is None:
                delattr(file, key)
            else:
                setattr(file, key, value)
        file.save_as(path)
        return (
            f"first: {path.name}",
            path.name,
            *(str(value) for value in values.values()),
            "no patient id",
        )

    return corrupt


def upper(text: str) -> str:
    return text.upper()


TABLE = "t.csv"
ENTRY, BOXES = "in/Data_Entry_2017.csv", "in/BBox_List_2017.csv"
VINDR, META = "in/train.csv", "in/train_meta.csv"
RSNA, MAPPING = "in/stage_2_train_labels.csv", "in/patientId_to_nih.csv"
CHEXPERT = "in/train.csv"
NOTHING = "count as empty"

CORRUPTED: dict[str, dict[str, Corrupt]] = {
    "folder": {
        "no patient": cell(TABLE, 1, "nan", NOTHING),
        "patient 0": cell(TABLE, 1, "0", "'0'"),
        "anonymous": cell(TABLE, 1, "ANONYMOUS", "'ANONYMOUS'"),
        "unknown split": cell(TABLE, 2, "later"),
        "split in another case": cell(TABLE, 2, upper),
        "no split": cell(TABLE, 2, "null", NOTHING),
        "label in another case": cell(TABLE, 3, upper, "differ in nothing but their writing"),
        "label nan": cell(TABLE, 3, "NaN", NOTHING),
        "another path": cell(TABLE, 0, "nowhere.png"),
        "no path": cell(TABLE, 0, ""),
        "without paths": without(TABLE, 0, "'path'"),
        "without patients": without(TABLE, 1, "no patient ids"),
        "without splits": without(TABLE, 2, "no column of splits"),
        "without labels": without(TABLE, 3, "no column of labels"),
        "patients of another name": header(TABLE, 1, lambda _: "Patient ID"),
        "patients of an odd name": header(TABLE, 1, lambda _: "patient hash"),
        "splits of an odd name": header(TABLE, 2, lambda _: "use"),
        "header in capitals": header(TABLE, 3, upper),
        "row twice": repeated(TABLE),
        "bom": encoded(TABLE, "utf-8-sig"),
        "utf-16": encoded(TABLE, "utf-16"),
        "latin-1": encoded(TABLE, "latin-1", "\nx00.png,Müller,train,mass,1"),
        "16 bits": deep("in/*.png"),
    },
    "coco": {
        "box in 0..1": box(relative),
        "box with swapped axes": box(swap),
        "box as corners": box(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]]),
        "box with a sign": box(negative),
        "box of nan": box(lambda v: [float("nan"), *v[1:]]),
        "box of text": box(lambda v: [str(v[0]), *v[1:]]),
        "box without height": box(lambda v: [*v[:3], 0]),
        "box of a larger copy": box(lambda v: [4 * value for value in v]),
        "box of a smaller copy": box(lambda v: [value / 4 for value in v]),
        "unknown image": record("annotations", lambda a: a.update(image_id=999)),
        "unknown category": record("annotations", lambda a: a.update(category_id=9)),
        "annotation twice": copied("annotations", {"id": 900}, "1 duplicate annotations"),
        "image twice": copied("images", {}, "is used twice"),
        "file twice": copied("images", {"id": 900}, "name a file that another names too"),
        "another size": record("images", lambda i: i.update(width=48), "48 x 64"),
        "swapped sizes": record("images", lambda i: i.update(width=64, height=96), "64 x 96"),
        "no name": record("images", lambda i: i.pop("file_name")),
        "unknown split": record("images", lambda i: i.update(split="later")),
        "split in another case": record("images", lambda i: i.update(split=i["split"].upper())),
        "patient nan": record("images", lambda i: i.update(patient_id="nan"), "'nan'"),
        "patient 0": record("images", lambda i: i.update(patient_id=0), "'0'"),
        "without patients": dropped("images", "patient_id", "no patient ids"),
        "without boxes": dropped("annotations", "bbox", "four numbers"),
        "without sizes, right": dropped("images", "width", "whole pixels"),
        "category of the same name": copied("categories", {"id": 2}, "is used twice"),
        "category in another case": copied("categories", {"id": 2, "name": "MASS"}, "differ in nothing"),
        "bom": encoded("in/a.json", "utf-8-sig"),
        "utf-16": encoded("in/a.json", "utf-16"),
        "16 bits": deep("in/images/*.png"),
        "smaller copy": resized("in/images/*.png"),
    },
    "nih": {
        "box in 0..1": numbers(BOXES, (2, 3, 4, 5), relative),
        "box with a sign": numbers(BOXES, (2, 3, 4, 5), negative),
        "box of nan": cell(BOXES, 2, "nan"),
        "box of a larger copy": numbers(BOXES, (2, 3, 4, 5), lambda v: [2.75 * value for value in v]),
        "box of an unknown class": cell(BOXES, 1, "mass"),
        "box twice": repeated(BOXES, "1 duplicate annotations"),
        "row twice": repeated(ENTRY),
        "finding in another case": cell(ENTRY, 1, upper),
        "finding nan": cell(ENTRY, 1, "nan"),
        "patient nan": cell(ENTRY, 3, "nan"),
        "patient 0": cell(ENTRY, 3, "0", "patient"),
        "without patients": without(ENTRY, 3),
        "without findings": without(ENTRY, 1),
        "bom": encoded(ENTRY, "utf-8-sig"),
        "utf-16": encoded(BOXES, "utf-16"),
        "16 bits": deep("in/images/*.png"),
    },
    "vindr": {
        "box in 0..1": numbers(VINDR, (4, 5, 6, 7), relative),
        "box with swapped axes": numbers(VINDR, (4, 5, 6, 7), swap),
        "box with swapped corners": numbers(VINDR, (4, 5, 6, 7), lambda v: [v[2], v[1], v[0], v[3]]),
        "box with a sign": numbers(VINDR, (4, 5, 6, 7), negative),
        "box of nan": numbers(VINDR, (4, 5, 6, 7), lambda v: [float("nan"), *v[1:]]),
        "box of a larger copy": numbers(VINDR, (4, 5, 6, 7), lambda v: [2 * value for value in v]),
        "class in another case": cell(VINDR, 1, lambda v: v.swapcase()),
        "no reader": cell(VINDR, 3, "nan"),
        "row twice": repeated(VINDR, "1 duplicate annotations"),
        "size nan": cell(META, 1, "nan"),
        "size with a sign": cell(META, 2, "-960"),
        "without readers": without(VINDR, 3),
        "without corners": without(VINDR, 6),
        "without heights": without(META, 1),
        "bom": encoded(VINDR, "utf-8-sig"),
        "utf-16": encoded(META, "utf-16"),
        "16 bits": deep("in/train/*.png"),
    },
    "rsna": {
        "box in 0..1": numbers(RSNA, (1, 2, 3, 4), relative),
        "box with a sign": numbers(RSNA, (1, 2, 3, 4), negative),
        "box of nan": numbers(RSNA, (1, 2, 3, 4), lambda v: [float("nan"), *v[1:]]),
        "box of a larger copy": numbers(RSNA, (1, 2, 3, 4), lambda v: [2 * value for value in v]),
        "nothing as nan": edit(RSNA, lambda c, at: c[at].__setitem__(slice(1, 5), c[at][1:5] if c[at][5] == "1" else ["nan"] * 4)),
        "target with a sign": cell(RSNA, 5, lambda v: "-1"),
        "target nan": cell(RSNA, 5, "nan"),
        "row twice": repeated(RSNA, "1 duplicate annotations"),
        "no image": cell(RSNA, 0, ""),
        "no patient": cell(MAPPING, 1, "nan", "not in patientId_to_nih.csv"),
        "without targets": without(RSNA, 5),
        "bom": encoded(RSNA, "utf-8-sig"),
        "utf-16": encoded(MAPPING, "utf-16"),
        "16 bits": deep("in/*.png"),
    },
    "chexpert": {
        "label nan": cell(CHEXPERT, 7, "nan", NOTHING),
        "label with a sign": cell(CHEXPERT, 8, "-1.0", "uncertain"),
        "label of another unit": cell(CHEXPERT, 9, "100"),
        "view in another case": cell(CHEXPERT, 3, upper),
        "unknown view": cell(CHEXPERT, 3, "oblique"),
        "lateral": cell(CHEXPERT, 3, "Lateral", "lateral views"),
        "another path": cell(CHEXPERT, 0, "train/patient99999/study1/view1_frontal.jpg", "are not there"),
        "no path": cell(CHEXPERT, 0, ""),
        "row twice": repeated(CHEXPERT),
        "without a label": without(CHEXPERT, 10),
        "header in capitals": header(CHEXPERT, 10, upper, "missing"),
        "bom": encoded(CHEXPERT, "utf-8-sig"),
        "utf-16": encoded(CHEXPERT, "utf-16"),
    },
    "medmnist": {
        "label with a sign": arrays(lambda a, i: a.update(train_labels=set_label(-1)(a["train_labels"], i)), "labels"),
        "label nan": arrays(lambda a, i: a.update(train_labels=set_label(np.nan, np.float64)(a["train_labels"], i)), "labels"),
        "unknown class": arrays(lambda a, i: a.update(train_labels=set_label(7)(a["train_labels"], i)), "labels", "class"),
        "16 bits": arrays(lambda a, _: a.update(train_images=a["train_images"].astype(np.uint16) * 257), "images"),
        "in 0..1": arrays(lambda a, _: a.update(train_images=a["train_images"] / 255), "images"),
        "without labels": arrays(lambda a, _: a.update(val_labels=a.pop("val_labels")[:0]), "val_labels", "labels"),
        "row twice": arrays(lambda a, i: a.update(train_labels=np.concatenate([a["train_labels"], a["train_labels"][i : i + 1]])), "labels"),
        "axes swapped": arrays(lambda a, _: a.update(test_images=np.moveaxis(a["test_images"], 0, -1)), "test"),
    },
    "medimeta": {
        "label with a sign": array_labels(set_label(-1)),
        "label nan": array_labels(set_label(np.nan, np.float64)),
        "unknown class": array_labels(set_label(7)),
        "label of another unit": array_labels(set_label(0.5, np.float64)),
        "too few labels": array_labels(lambda v, _: v[:-3]),
        "patient nan": cell("in/annotations.csv", 1, "nan", NOTHING),
        "anonymous": cell("in/annotations.csv", 1, "anonymous", "'anonymous'"),
        "row twice": repeated("in/annotations.csv"),
        "without patients": without("in/annotations.csv", 1, "no patient ids"),
        "patients of another name": header("in/annotations.csv", 1, lambda _: "Subject ID"),
        "line twice": split_line(lambda lines: [*lines, lines[0]]),
        "odd line": split_line(lambda lines: [*lines[1:], "images/first.tiff"]),
        "bom": encoded("in/annotations.csv", "utf-8-sig"),
        "bom of a split": encoded("in/splits/train.txt", "utf-8-sig"),
        "utf-16": encoded("in/annotations.csv", "utf-16"),
        "16 bits": deep("in/images/*.tiff"),
    },
    "dicom": {
        "anonymous": element(PatientID="ANONYMOUS"),
        "no patient": element(PatientID=""),
        "patient 0": element(PatientID="0"),
        "no photometric interpretation": element(PhotometricInterpretation=None),
        "more bits": element(BitsStored=12, HighBit=11),
        "other rows": element(Rows=640),
        "a sign": element(PixelRepresentation=1),
        "unknown split": cell(TABLE, 1, "later"),
        "label in another case": cell(TABLE, 2, upper, "differ in nothing but their writing"),
        "label nan": cell(TABLE, 2, "nan", NOTHING),
        "row twice": repeated(TABLE),
        "without labels": without(TABLE, 2, "no patients, splits or labels", "no column of"),
        "bom": encoded(TABLE, "utf-8-sig"),
        "utf-16": encoded(TABLE, "utf-16"),
    },
}  # fmt: skip
SOURCES: dict[str, Callable[[Path], None]] = {
    "folder": folder, "coco": coco, "nih": nih, "vindr": vindr, "rsna": rsna, "chexpert": chexpert, "medmnist": medmnist,
    "medimeta": medimeta, "dicom": dicom,
}  # fmt: skip
FILES = {"coco": "in/a.json", "medmnist": "in/pneumoniamnist.npz"}

# The property -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What a source became: facts of each image, and everything that was said."""

    facts: dict[str, object]
    said: tuple[str, ...]


def read(name: str, root: Path) -> Read:
    table = root / TABLE if (root / TABLE).exists() else None
    try:
        collections = read_sources(name, [root / FILES.get(name, "in")], SourceOptions(table=table))
        info: PackInfo = write_pack(
            collections, root / "pack", PackOptions(size=16), workers=0
        ).info
    except InputError as error:
        return Read({}, (str(error),))
    rows = pq.read_table(root / "pack" / "samples.parquet").to_pylist()
    kept = ("patient", "split", "labels", "boxes", "box_classes", "sha256")
    facts = {row["id"]: repr([row[key] for key in kept]) for row in rows}
    with (root / "pack" / "skipped.csv").open(newline="") as file:
        aside = [" ".join(row) for row in csv.reader(file)]
    classes = f"classes {info.label_classes} {info.box_classes}"
    return Read(facts | {"classes": classes}, (*aside, *info.notes))


def told(message: str, root: Path) -> str:
    """A message without the folder of this run, so that those of two runs compare."""
    return message.replace(str(root), "")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Read]:
    known: dict[str, Read] = {}

    def of(name: str) -> Read:
        if name not in known:
            root = tmp_path_factory.mktemp(name)
            SOURCES[name](root)
            found = read(name, root)
            known[name] = Read(found.facts, tuple(told(message, root) for message in found.said))
        return known[name]

    return of


def test_every_format_of_the_table_is_here() -> None:
    assert SOURCES.keys() == CORRUPTED.keys() == FORMATS.keys() - {"phantom"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_clean_source_is_read_whole(name: str, clean: Callable[[str], Read]) -> None:
    assert len(clean(name).facts) == N + 1, clean(name).said


@pytest.mark.parametrize(
    ("name", "fault"), [(n, f) for n, faults in CORRUPTED.items() for f in faults]
)
@given(row=st.integers(0, N - 1))
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_one_corrupted_field_is_repaired_or_named(
    name: str,
    fault: str,
    row: int,
    clean: Callable[[str], Read],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    before = clean(name)
    root = tmp_path_factory.mktemp(name)
    SOURCES[name](root)
    tokens = CORRUPTED[name][fault](root, row)
    after = read(name, root)
    assert all("\n" not in message for message in after.said)
    if after.facts == before.facts:
        return
    fresh = [told(message, root) for message in after.said]
    fresh = [message for message in fresh if message not in before.said]
    assert any(token and token in message for token in tokens for message in fresh), (tokens, fresh)
