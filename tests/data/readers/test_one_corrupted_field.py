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


def mimic(root: Path) -> None:
    meta = [
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate"
    ]
    labels, splits = (
        [",".join(["subject_id", "study_id", *LABELS])],
        ["dicom_id,study_id,subject_id,split"],
    )
    for i in range(N):
        patient, study, key = 10000000 + i // 2, 50000000 + i, "-".join([f"{i:08x}"] * 5)
        picture(root / "in" / "files" / f"p{str(patient)[:2]}/p{patient}/s{study}/{key}.jpg", i)
        meta.append(
            f"{key},{patient},{study},CHEST (PA AND LAT),{('PA', 'AP')[i % 2]},64,96,21800506"
        )
        stated = [
            "1.0" if (i + k) % 3 == 0 else "0.0" if (i + k) % 3 == 1 else "" for k in range(14)
        ]
        labels.append(",".join([str(patient), str(study), *stated]))
        splits.append(f"{key},{study},{patient},{'validate' if split(i) == 'val' else split(i)}")
    for name, lines in (("metadata", meta), ("chexpert", labels), ("split", splits)):
        (root / "in" / f"mimic-cxr-2.0.0-{name}.csv").write_text("\n".join(lines) + "\n")


def brax(root: Path) -> None:
    lines = [
        ",".join(["", "DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "StudyDate", *LABELS,
                  "ViewPosition", "Rows", "Columns", "Manufacturer"])
    ]  # fmt: skip
    for i in range(N):
        path = f"id_p{i // 2}/Study_{i}/Series_{i}/image-{i}"
        picture(root / "in" / "images" / f"{path}.png", i)
        labels = [
            "1.0" if (i + k) % 3 == 0 else "0.0" if (i + k) % 3 == 1 else "" for k in range(14)
        ]
        lines.append(
            ",".join([str(i), f"Anonymized_DICOMs/{path}.dcm", f"images/{path}.png", f"id_p{i // 2}", "F", "40", f"{i}", "20080101",
                      *labels, "PA", "64", "96", "1"])
        )  # fmt: skip
    (root / "in" / "master_spreadsheet_update.csv").write_text("\n".join(lines) + "\n")


def padchest(root: Path) -> None:
    lines = [
        "\tImageID\tImageDir\tStudyDate_DICOM\tStudyID\tPatientID\tPatientBirth\tProjection\tMethodLabel\tLabels".replace(
            "\t", ","
        )
    ]
    for i in range(N):
        picture(root / "in" / str(i % 3) / f"{i:03d}_k6ga.png", i)
        found = "\"['pneumonia', ' nodule']\"" if i % 3 else "['normal']"
        lines.append(
            f"{i},{i:03d}_k6ga.png,{i % 3},20140915,s{i},83986{i // 2},1930.0,PA,Physician,{found}"
        )
    (root / "in" / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text(
        "\n".join(lines) + "\n"
    )


def siim(root: Path) -> None:
    lines = ["ImageId, EncodedPixels"]
    for i in range(N):
        key = f"1.2.276.0.7230010.3.1.4.8323329.{i:04d}"
        picture(root / "in" / "dicom-images-train" / f"{key}.png", i, (64, 64))
        column = " ".join(["924 100"] * 20)  # 20 columns of 100 pixels
        lines.append(f"{key}," + (f"{200 * 1024 + 300 + i} 100 {column}" if i % 3 else "-1"))
    (root / "in" / "train-rle.csv").write_text("\n".join(lines) + "\n")


def object_cxr(root: Path) -> None:
    for part, rows in (("train", range(8)), ("dev", range(8, N))):
        lines = ["image_name,annotation"]
        for i in rows:
            picture(root / "in" / part / f"{i:05d}.jpg", i)
            shapes = f"0 {40 + i} 20 90 50;1 5 40 25 60;2 30 5 35 12 20 14"
            lines.append(f"{i:05d}.jpg,{shapes if i % 3 else ''}")
        (root / "in" / f"{part}.csv").write_text("\n".join(lines) + "\n")


def chestx_det(root: Path) -> None:
    for part, rows in (("train", range(8)), ("test", range(8, N))):
        content = []
        for i in rows:
            picture(root / "in" / f"{part}_data" / f"{36000 + i}.png", i, (64, 64))
            boxes = [[632, 621 + i, 909, 969], [129, 611, 474, 909]] if i % 3 else []
            outlines = [[[a, b], [c, b], [c, d], [a, d]] for a, b, c, d in boxes]
            content.append(
                {"file_name": f"{36000 + i}.png", "syms": ["Fibrosis", "Effusion"][: len(boxes)], "boxes": boxes, "polygons": outlines}
            )  # fmt: skip
        (root / "in" / f"ChestX_Det_{part}.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    content = {"path": ".", "names": {0: "mass", 1: "nodule"}, "nc": 2}
    for name in ("train", "val", "test"):
        content[name] = f"images/{name}"
    for i in range(N):
        picture(root / "in" / "images" / split(i) / f"x{i:02d}.png", i)
        label = root / "in" / "labels" / split(i) / f"x{i:02d}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"0 0.7 0.5 0.25 0.125\n1 0.25 {0.2 + i / 100:.2f} 0.125 0.125\n")
    (root / "in" / "data.yaml").write_text(yaml.safe_dump(content))


def voc(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for i in range(N):
        picture(root / "in" / "JPEGImages" / f"x{i:02d}.jpg", i)
        lists[split(i)].append(f"x{i:02d}")
        path = root / "in" / "Annotations" / f"x{i:02d}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        found = "".join(
            f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
            f"<ymax>{d}</ymax></bndbox></object>"
            for name, a, b, c, d in (("mass", 70, 20 + i, 90, 40 + i), ("nodule", 5, 7, 9, 12))
        )
        path.write_text(
            f"<annotation><folder>in</folder><filename>x{i:02d}.jpg</filename><size><width>{WIDE[0]}</width><height>{WIDE[1]}</height>"
            f"<depth>1</depth></size>{found}</annotation>"
        )
    for name, stems in lists.items():
        path = root / "in" / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(stems) + "\n")


def cvat(root: Path) -> None:
    labels = "".join(
        f"<label><name>{name}</name><type>any</type></label>" for name in ("mass", "nodule")
    )
    images = []
    for i in range(N):
        picture(root / "in" / "images" / f"x{i:02d}.png", i)
        images.append(
            f'<image id="{i}" name="x{i:02d}.png" subset="{split(i)}" width="{WIDE[0]}" height="{WIDE[1]}">'
            f'<box label="mass" occluded="0" xtl="70.5" ytl="{20 + i}" xbr="90.25" ybr="{40 + i}" z_order="0"></box>'
            f'<polygon label="nodule" points="5,7;9,7;9,12" z_order="0"></polygon></image>'
        )
    (root / "in" / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>{''.join(images)}</annotations>"
    )


def label_studio(root: Path) -> None:
    tasks = []
    for i in range(N):
        picture(root / "in" / "images" / f"x{i:02d}.png", i)
        value = {
            "x": 70,
            "y": 20 + i,
            "width": 20,
            "height": 15,
            "rotation": 0,
            "rectanglelabels": ["mass"],
        }
        region = {
            "id": f"r{i}",
            "type": "rectanglelabels",
            "value": value,
            "original_width": WIDE[0],
            "original_height": WIDE[1],
        }
        data = {
            "image": f"/data/upload/1/{i:08x}-x{i:02d}.png",
            "patient_id": f"p{i // 2}",
            "split": split(i),
        }
        result = [region] if i % 3 else []
        tasks.append(
            {
                "id": i + 1,
                "data": data,
                "annotations": [{"completed_by": 7, "was_cancelled": False, "result": result}],
            }
        )
    (root / "in" / "export.json").write_text(json.dumps(tasks))


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
        return (f"image {row} ", "1 image has no label", "task_labels has only")

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


def text(path: str, old: str, new: str, *tokens: str) -> Corrupt:
    """The first place of a text in a file, or in the one of a row (``{i}`` in its name), is another."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        file = root / path.format(i=row, split=split(row))
        content = file.read_text()
        assert old in content, (old, file)
        file.write_text(content.replace(old, new, 1))
        return (file.name, *tokens)

    return corrupt


def gone(path: str, *tokens: str) -> Corrupt:
    """A file is not there."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        file = root / path.format(i=row, split=split(row))
        file.unlink()
        return (file.name, *tokens)

    return corrupt


def lines(table: str, change: Callable[[list[str], int], Sequence[str]], *tokens: str) -> Corrupt:
    """The lines of a table are changed; the message names the table."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / table
        text = path.read_text().splitlines()
        path.write_text("\n".join(change(text, 1 + row % (len(text) - 1))) + "\n")
        return (path.name, *tokens)

    return corrupt


def with_cell_more(text: list[str], at: int) -> Sequence[str]:
    """A comma that nobody quoted moves the cells behind it."""
    return [*text[:at], text[at].replace(",", ",x,", 1), *text[at + 1 :]]


def cut_short(text: list[str], at: int) -> Sequence[str]:
    """A row that ends before its last cell."""
    return [*text[:at], text[at].rpartition(",")[0], *text[at + 1 :]]


def without_rows(text: list[str], _: int) -> Sequence[str]:
    return text[:1]


def task(change: Callable[[dict[str, Any]], Any], *tokens: str) -> Corrupt:
    """One task of a Label Studio file is changed."""

    def corrupt(root: Path, row: int) -> Sequence[str]:
        path = root / "in" / "export.json"
        content = json.loads(path.read_text())
        change(content[row])
        path.write_text(json.dumps(content))
        return (f"task {content[row].get('id')} ", f"task {content[row].get('id')}", *tokens)

    return corrupt


def region(change: Callable[[dict[str, Any]], Any], *tokens: str) -> Corrupt:
    """The region of a task, where it has one, is changed."""
    return task(lambda t: [change(r) for a in t["annotations"] for r in a["result"]], *tokens)


def upper(text: str) -> str:
    return text.upper()


TABLE = "t.csv"
ENTRY, BOXES = "in/Data_Entry_2017.csv", "in/BBox_List_2017.csv"
VINDR, META = "in/train.csv", "in/train_meta.csv"
RSNA, MAPPING = "in/stage_2_train_labels.csv", "in/patientId_to_nih.csv"
CHEXPERT = "in/train.csv"
MIMIC_META, MIMIC_LABELS, MIMIC_SPLIT = (
    f"in/mimic-cxr-2.0.0-{name}.csv" for name in ("metadata", "chexpert", "split")
)
BRAX, PADCHEST = (
    "in/master_spreadsheet_update.csv",
    "in/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
)
SIIM, OBJECT = "in/train-rle.csv", "in/train.csv"
DET, YOLO, VOC = (
    "in/ChestX_Det_train.json",
    "in/labels/{split}/x{i:02d}.txt",
    "in/Annotations/x{i:02d}.xml",
)
CVAT = "in/annotations.xml"
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
        "patient null": record("images", lambda i: i.update(patient_id=None), "no patient id"),
        "patient of no kind": record("images", lambda i: i.update(patient_id=[1]), "no patient id"),
        "category with a blank": text("in/a.json", '"name": "mass"', '"name": "mass "'),
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
        "table gone": gone(CHEXPERT, "has no table"),
        "label nan": cell(CHEXPERT, 7, "nan", NOTHING),
        "label with a sign": cell(CHEXPERT, 8, "-1.0", "uncertain"),
        "label of another unit": cell(CHEXPERT, 9, "100"),
        "view in another case": cell(CHEXPERT, 3, upper),
        "unknown view": cell(CHEXPERT, 3, "oblique"),
        "lateral": cell(CHEXPERT, 3, "Lateral", "1 lateral view was left out"),
        "another path": cell(CHEXPERT, 0, "train/patient99999/study1/view1_frontal.jpg", "1 image that the tables list is not there"),
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
        "odd path": cell("in/annotations.csv", 0, "images/first.tiff"),
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
    "mimic-cxr": {
        "label of another unit": cell(MIMIC_LABELS, 5, "100"),
        "label nan": cell(MIMIC_LABELS, 5, "nan", NOTHING),
        "label with a sign": cell(MIMIC_LABELS, 5, "-1.0", "uncertain"),
        "unknown split": cell(MIMIC_SPLIT, 3, "later"),
        "split nan": cell(MIMIC_SPLIT, 3, "nan", NOTHING),
        "another patient": cell(MIMIC_META, 1, "19999999", "says patient"),
        "patient nan": cell(MIMIC_META, 1, "nan"),
        "study of another patient": cell(MIMIC_LABELS, 0, "19999999", "says patient"),
        "study without labels": cell(MIMIC_LABELS, 1, "59999999", "1 image is of a study without labels"),
        "lateral": cell(MIMIC_META, 4, "LATERAL", "1 image that is no frontal view was left out"),
        "no view": cell(MIMIC_META, 4, "", "have no view"),
        "row twice": repeated(MIMIC_META),
        "labels twice": repeated(MIMIC_LABELS),
        "split twice": repeated(MIMIC_SPLIT),
        "without a label": without(MIMIC_LABELS, 6),
        "no splits": gone(MIMIC_SPLIT, "no official split"),
        "no labels": gone(MIMIC_LABELS, "no image has labels"),
    },
    "brax": {
        "label of another unit": cell(BRAX, 9, "100"),
        "label with a sign": cell(BRAX, 9, "-1", "uncertain"),
        "no patient": cell(BRAX, 3, "nan", NOTHING),
        "another path": cell(BRAX, 2, "images/x.png", "not on this disk"),
        "path that leads out": cell(BRAX, 2, "../x.png"),
        "lateral": cell(BRAX, 22, "L", "1 image that is no frontal view was left out"),
        "a strip": cell(BRAX, 23, "2"),
        "row twice": repeated(BRAX),
        "without patients": without(BRAX, 3),
    },
    "padchest": {
        "labels nan": cell(PADCHEST, 9, "nan", NOTHING),
        "labels in another form": cell(PADCHEST, 9, "pneumonia|nodule"),
        "labels of numbers": cell(PADCHEST, 9, "[1]"),
        "excluded": cell(PADCHEST, 9, "['exclude']"),
        "unchanged": cell(PADCHEST, 9, "['unchanged']", "its labels are unknown"),
        "label in another case": cell(PADCHEST, 9, lambda v: v.upper(), "differ in nothing"),
        "no patient": cell(PADCHEST, 5, "nan", NOTHING),
        "unknown view": cell(PADCHEST, 7, "oblique"),
        "lateral": cell(PADCHEST, 7, "L", "1 image that is no frontal view was left out"),
        "row twice": repeated(PADCHEST),
        "without labels": without(PADCHEST, 9),
    },
    "siim-acr": {
        "runs beyond the image": cell(SIIM, 1, "1048570 100"),
        "runs of odd number": cell(SIIM, 1, "5 3 9"),
        "runs of text": cell(SIIM, 1, "a b"),
        "runs nan": cell(SIIM, 1, "nan", NOTHING),
        "mask and no mask": edit(SIIM, lambda c, at: c.append([c[at][0], "-1" if c[at][1] != "-1" else "5 3"]), "with a mask and one without"),
        "row twice": repeated(SIIM),
        "no image": cell(SIIM, 0, ""),
        "another image": cell(SIIM, 0, "1.2.3", "not on this disk"),
    },
    "object-cxr": {
        "table gone": gone(OBJECT, "has no table"),
        "unknown shape": cell(OBJECT, 1, "7 1 2 30 40"),
        "swapped corners": cell(OBJECT, 1, "0 90 50 40 20"),
        "box beyond the image": cell(OBJECT, 1, "0 900 50 990 60", "lies outside its image"),
        "box of text": cell(OBJECT, 1, "0 a b c d"),
        "box in 0..1": cell(OBJECT, 1, "0 0.1 0.1 0.5 0.5"),
        "outline of one point": cell(OBJECT, 1, "2 5 5"),
        "another image": cell(OBJECT, 0, "9.jpg", "not on this disk"),
        "row twice": repeated(OBJECT),
        "without annotations": without(OBJECT, 1),
    },
    "chestx-det": {
        "record gone": text(DET, '"file_name": "36001.png"', '"file_name": "36002.png"', "are not in ChestX_Det_train.json"),
        "box with swapped corners": text(DET, "[632, 622,", "[909, 622, 632, 969], [1,", "as many 'syms'"),
        "box elsewhere": text(DET, "[632, 622, 909, 969]", "[2, 2, 30, 40]", "different places"),
        "box of text": text(DET, "[632, 622, 909, 969]", '["632", 622, 909, 969]'),
        "box beyond the image": text(DET, "[632, 622, 909, 969]", "[632, 622, 2909, 969]"),
        "unknown class": text(DET, '"Fibrosis"', '"fibrosis"'),
        "a class too few": text(DET, '"Fibrosis", ', "", "as many 'syms'"),
        "no name": text(DET, '"36001.png"', "null"),
        "name twice": text(DET, '"36001.png"', '"36002.png"'),
    },
    "yolo": {
        "no image": gone("in/images/{split}/x{i:02d}.png", "1 text file has no image"),
        "pixels": text(YOLO, "0 0.7 0.5 0.25 0.125", "0 67 32 24 8"),
        "prediction": text(YOLO, "0 0.7 0.5 0.25 0.125", "0 0.7 0.5 0.25 0.125 0.9"),
        "unknown class": text(YOLO, "0 0.7", "7 0.7"),
        "class of text": text(YOLO, "0 0.7", "mass 0.7"),
        "box of nan": text(YOLO, "0.7", "nan"),
        "box without height": text(YOLO, "0.25 0.125", "0.25 0"),
        "line twice": text(YOLO, "0 0.7 0.5 0.25 0.125", "0 0.7 0.5 0.25 0.125\n0 0.7 0.5 0.25 0.125", "1 duplicate annotations"),
        "no text file": gone(YOLO, "1 image has no text file"),
        "other number of classes": text("in/data.yaml", "nc: 2", "nc: 3"),
        "class twice": text("in/data.yaml", "nodule", "mass"),
        "split that is not there": text("in/data.yaml", "images/val", "images/valid", "is not there"),
        "no names": text("in/data.yaml", "names", "classes"),
    },
    "voc": {
        "box with swapped corners": text(VOC, "<xmin>70<", "<xmin>95<"),
        "box of text": text(VOC, "<xmin>70<", "<xmin>left<"),
        "box of nan": text(VOC, "<xmin>70<", "<xmin>nan<"),
        "box beyond the image": text(VOC, "<xmax>90<", "<xmax>190<"),
        "pixels from 0": text(VOC, "<xmin>5<", "<xmin>0<", "counted from 0"),
        "difficult": text(VOC, "<difficult>0<", "<difficult>1<", "left out of evaluation"),
        "no name": text(VOC, "<name>mass</name>", ""),
        "name in another case": text(VOC, "<name>mass<", "<name>Mass<", "differ in nothing"),
        "another size": text(VOC, f"<width>{WIDE[0]}<", "<width>192<", "192 x 64"),
        "another image": text(VOC, "<filename>x", "<filename>y"),
        "entities": text(VOC, "<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>'),
        "no XML": text(VOC, "</annotation>", "", "line 1"),
        "in two splits": text("in/ImageSets/Main/val.txt", "x08", "x00\nx08", "is in both"),
        "no image": gone("in/JPEGImages/x{i:02d}.jpg", "1 XML file has no image on this disk"),
        "no annotation": gone(VOC, "1 image has no XML file"),
    },
    "cvat": {
        "unknown label": text(CVAT, 'box label="mass"', 'box label="Mass"', "none of the task's"),
        "box with swapped corners": text(CVAT, 'xtl="70.5"', 'xtl="95"', "image 0"),
        "box of text": text(CVAT, 'xtl="70.5"', 'xtl="left"', "image 0"),
        "box beyond the image": text(CVAT, 'xbr="90.25"', 'xbr="190"', "image 0"),
        "odd points": text(CVAT, 'points="5,7;', 'points="5;', "image 0"),
        "another shape": text(CVAT, "<polygon ", "<polyline ", "mismatched", "line 1"),
        "no width": text(CVAT, f'width="{WIDE[0]}"', 'width=""', "image 0"),
        "another size": text(CVAT, f'width="{WIDE[0]}"', 'width="192"', "192 x 64"),
        "name twice": text(CVAT, 'name="x01.png"', 'name="x00.png"', "image 1"),
        "unknown split": text(CVAT, 'subset="train"', 'subset="later"', "later"),
        "tracks": text(CVAT, "<meta>", "<track/><meta>"),
    },
    "label-studio": {
        "region of no type": region(lambda r: r.pop("type")),
        "bare region": region(lambda r: r.update(type="rectangle", value={k: v for k, v in r["value"].items() if k != "rectanglelabels"})),
        "no results": task(lambda t: t["annotations"][0].update(result=None), "no list under 'result'"),
        "patient null": task(lambda t: t["data"].update(patient_id=None), "no patient id"),
        "box beyond the image": region(lambda r: r["value"].update(x=95), "region r"),
        "box of text": region(lambda r: r["value"].update(x="left")),
        "box without height": region(lambda r: r["value"].update(height=0)),
        "no label": region(lambda r: r["value"].update(rectanglelabels=[])),
        "label in another case": region(lambda r: r["value"].update(rectanglelabels=["Mass"]), "differ in nothing"),
        "turned image": region(lambda r: r.update(image_rotation=90), "image_rotation"),
        "another size": region(lambda r: r.update(original_width=192), "192 x 64"),
        "brush": region(lambda r: r.update(type="brushlabels", value={"brushlabels": ["mass"], "rle": [1]}), "brushlabels"),
        "skipped": task(lambda t: t["annotations"][0].update(was_cancelled=True), "skipped in the tool"),
        "never annotated": task(lambda t: t.update(annotations=[]), "never annotated"),
        "region twice": region(lambda r: None),
        "patient nan": task(lambda t: t["data"].update(patient_id="nan"), "'nan'"),
        "unknown split": task(lambda t: t["data"].update(split="later"), "later"),
        "no image": task(lambda t: t["data"].pop("image")),
        "another image": task(lambda t: t["data"].update(image="nowhere.png"), "nowhere.png"),
    },
}  # fmt: skip
TABLES: dict[str, Sequence[str]] = {
    "folder": (TABLE,), "nih": (ENTRY, BOXES), "vindr": (VINDR, META), "rsna": (RSNA, MAPPING), "chexpert": (CHEXPERT,),
    "medimeta": ("in/annotations.csv",), "dicom": (TABLE,), "mimic-cxr": (MIMIC_META, MIMIC_LABELS, MIMIC_SPLIT), "brax": (BRAX,),
    "padchest": (PADCHEST,), "siim-acr": (SIIM,), "object-cxr": (OBJECT,),
}  # fmt: skip
for _name, _tables in TABLES.items():
    for _table in _tables:
        _of = "" if len(_tables) == 1 else f" of {_table.rpartition('/')[2]}"
        CORRUPTED[_name] |= {
            f"a cell more{_of}": lines(_table, with_cell_more),
            f"a cell less{_of}": lines(_table, cut_short),
            f"no rows{_of}": lines(
                _table, without_rows, "no rows", "another resolution of the images"
            ),
        }
SOURCES: dict[str, Callable[[Path], None]] = {
    "folder": folder, "coco": coco, "nih": nih, "vindr": vindr, "rsna": rsna, "chexpert": chexpert, "medmnist": medmnist,
    "medimeta": medimeta, "dicom": dicom, "mimic-cxr": mimic, "brax": brax, "padchest": padchest, "siim-acr": siim,
    "object-cxr": object_cxr, "chestx-det": chestx_det, "yolo": yolo, "voc": voc, "cvat": cvat, "label-studio": label_studio,
}  # fmt: skip
FILES = {
    "coco": "in/a.json", "medmnist": "in/pneumoniamnist.npz", "yolo": "in/data.yaml", "cvat": "in/annotations.xml",
    "label-studio": "in/export.json",
}  # fmt: skip

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
    assert SOURCES.keys() == CORRUPTED.keys() == FORMATS.keys() - {"phantom", "feedback"}


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
