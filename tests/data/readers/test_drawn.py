"""Formats of drawn annotations: exact corners, splits, readers, what counts as looked at, and hostile or odd files."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from support import twinray
from twinray.data.pack import open_pack
from twinray.data.readers.drawn.assembly import turned, turned_ellipse
from twinray.data.readers.drawn.chestx_det import ADDED, CLASSES, read_chestx_det
from twinray.data.readers.drawn.cvat import read_cvat
from twinray.data.readers.drawn.label_studio import read_label_studio
from twinray.data.readers.drawn.object_cxr import read_object_cxr
from twinray.data.readers.drawn.siim import read_siim, regions
from twinray.data.readers.drawn.voc import read_voc
from twinray.data.readers.drawn.yolo import read_yolo
from twinray.errors import InputError
from twinray.records import Collection, Sample

W, H = 96, 64


def put(path: Path, size: tuple[int, int] = (W, H)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.as_posix().encode())
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1]).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def one(found: Collection, key: str) -> Sample:
    (sample,) = (s for s in found.samples if s.id == key)
    return sample


def boxes(found: Collection, key: str) -> list[tuple[str, list[float]]]:
    own = one(found, key).boxes
    assert own is not None
    return [
        (found.box_classes[c], box)
        for c, box in zip(own.labels.tolist(), own.xyxy.round(6).tolist(), strict=True)
    ]


# YOLO ------------------------------------------------------------------------------------------------------------------------


def yolo(root: Path, yaml: str, files: dict[str, str | None]) -> Path:
    """Images with their text files, None: an image without one."""
    for name, text in files.items():
        put(root / name)
        label = (root / name.replace("images/", "labels/")).with_suffix(".txt")
        if text is not None:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml)
    return root / "data.yaml"


NAMES = "names:\n  0: mass\n  1: nodule\n"


def test_yolo_corners_splits_and_what_was_looked_at(tmp_path: Path) -> None:
    source = yolo(
        tmp_path,
        f"path: /somewhere/else\ntrain: images/train\nval: images/val\ntest: images/test\n{NAMES}",
        {
            "images/train/a.png": "0 0.5 0.5 0.25 0.5\n",
            "images/train/b.png": "1 0.25 0.25 0.5 0.25 0.5 0.75\n",
            "images/train/c.png": None,
            "images/val/d.png": "",
            "images/test/e.png": None,
        },
    )
    found = read_yolo(source)
    assert found.box_classes == found.label_classes == ("mass", "nodule")
    assert boxes(found, "images/train/a.png") == [("mass", [36, 16, 60, 48])]
    assert boxes(found, "images/train/b.png") == [("nodule", [24, 16, 48, 48])], "an outline"
    assert [s.split for s in found.samples] == ["train", "train", "train", "val", "test"]
    assert len(one(found, "images/train/c.png").boxes) == 0, "no file: looked at"
    assert len(one(found, "images/val/d.png").boxes) == 0
    assert one(found, "images/test/e.png").boxes is None, "no folder of labels: never annotated"
    assert one(found, "images/train/a.png").labels.tolist() == [1, 0]
    notes = " ".join(found.notes)
    assert "2 images have no text file or an empty one" in notes
    assert "1 of 5 images were never annotated" in notes


def test_roboflows_and_darknets_layouts(tmp_path: Path) -> None:
    source = yolo(
        tmp_path / "r",
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['mass', 'nodule']\n",
        {"train/images/a.png": "0 0.5 0.5 0.25 0.5\n", "valid/images/b.png": ""},
    )
    assert [s.split for s in read_yolo(source).samples] == ["train", "val"]
    assert boxes(read_yolo(source.parent), "train/images/a.png") == [("mass", [36, 16, 60, 48])]
    dark = tmp_path / "d"
    put(dark / "obj_train_data" / "a.png")
    (dark / "obj_train_data" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (dark / "obj.names").write_text("mass\nnodule\n")
    (dark / "train.txt").write_text("data/obj_train_data/a.png\ndata/obj_train_data/gone.png\n")
    found = read_yolo(dark)
    assert boxes(found, "obj_train_data/a.png") == [("nodule", [36, 16, 60, 48])]
    assert [s.split for s in found.samples] == ["train"]
    assert any("1 image of train.txt is not there" in note for note in found.notes)


def test_yolo_patients_from_names_reach_the_pack(tmp_path: Path) -> None:
    files = {f"images/p{i // 2}_{i}.png": "0 0.5 0.5 0.25 0.5\n" for i in range(12)}
    source = yolo(tmp_path / "in", f"train: images\n{NAMES}", files)
    done = twinray(
        "pack", source, "--format", "yolo", "--patient-regex", "(p\\d+)_", "--out", tmp_path / "p", "--size", 32, "--workers", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pack = open_pack(tmp_path / "p")
    assert pack.info.counts["patients"] == 6
    with pytest.raises(InputError, match="finds no patient in"):
        read_yolo(source, patient_regex="(q)")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images\n", "expected a list 'names'"),
        ("train: images\nnames: [a, a]\n", "twice or empty"),
        ("train: images\nnames: {1: a}\n", "numbered from 0"),
        ("train: images\nnames: [a]\nnc: 2\n", "says 2 classes"),
        ("train: nowhere\nnames: [a]\n", "found none that is there"),
        ("[1, 2]\n", "expected keys such as names"),
        ("a: [\n", "expected YAML"),
        ("train: images\nval: images\nnames: [mass]\n", "is in both train and val"),
    ],
)
def test_yaml_files_that_cannot_be_right(tmp_path: Path, yaml: str, message: str) -> None:
    source = yolo(tmp_path, yaml, {"images/a.png": "0 0.5 0.5 0.25 0.5\n"})
    with pytest.raises(InputError, match=message) as refused:
        read_yolo(source)
    assert len(str(refused.value).splitlines()) == 1


def test_yolo_in_pixels_is_refused(tmp_path: Path) -> None:
    files = {f"images/{i}.png": "0 48 32 24 16\n" for i in range(8)}
    with pytest.raises(InputError, match=r"hold values beyond 0\.\.1"):
        read_yolo(yolo(tmp_path, f"train: images\n{NAMES}", files))


# Pascal VOC ------------------------------------------------------------------------------------------------------------------


def voc_xml(
    path: Path, *objects: tuple[Any, ...], filename: str = "", size: str = f"{W} {H}"
) -> None:
    width, height = size.split()
    found = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d, difficult in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{filename}</filename><size><width>{width}</width><height>{height}</height></size>{found}</annotation>"
    )


def test_voc_counts_pixels_from_one_unless_the_file_shows_otherwise(tmp_path: Path) -> None:
    put(tmp_path / "JPEGImages" / "a.jpg")
    put(tmp_path / "JPEGImages" / "b.jpg")
    voc_xml(tmp_path / "Annotations" / "a.xml", ("mass", 1, 1, W, H, False))
    voc_xml(tmp_path / "Annotations" / "b.xml", ("nodule", 11, 21, 30, 40, True))
    found = read_voc(tmp_path)
    assert boxes(found, "Annotations/a") == [("mass", [0, 0, W, H])], "the whole image"
    difficult = one(found, "Annotations/b")
    assert difficult.boxes is not None and len(difficult.boxes) == 0
    assert difficult.regions is not None and difficult.regions.xyxy.tolist() == [[10, 20, 30, 40]]
    labels = dict(zip(found.label_classes, difficult.labels.tolist(), strict=True))
    assert math.isnan(labels["nodule"]) and labels["mass"] == 0
    voc_xml(tmp_path / "Annotations" / "a.xml", ("mass", 0, 1, W, H, False))
    assert boxes(read_voc(tmp_path), "Annotations/a") == [("mass", [0, 1, W, H])]


def test_voc_lists_and_folders_give_splits(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path / "v" / "JPEGImages" / f"{name}.jpg")
        voc_xml(tmp_path / "v" / "Annotations" / f"{name}.xml", ("mass", 5, 5, 20, 20, False))
    lists = tmp_path / "v" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("a\n")
    (lists / "test.txt").write_text("b\n")
    (lists / "mass_train.txt").write_text("c  1\n")
    assert [s.split for s in read_voc(tmp_path / "v").samples] == ["train", "test", None]
    for name in ("train", "valid"):
        put(tmp_path / "r" / name / f"{name}.jpg")
        voc_xml(tmp_path / "r" / name / f"{name}.xml", ("mass", 5, 5, 20, 20, False))
    assert [s.split for s in read_voc(tmp_path / "r").samples] == ["train", "val"]


def test_voc_finds_images_by_the_files_own_name(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "other.png")
    voc_xml(tmp_path / "a.xml", ("mass", 5, 5, 20, 20, False), filename="other.png")
    voc_xml(tmp_path / "renamed.xml", ("mass", 5, 5, 20, 20, False), filename="C:\\x\\other.png")
    voc_xml(tmp_path / "again.xml", ("mass", 5, 5, 20, 20, False), filename="a.png")
    found = read_voc(tmp_path)
    assert {s.id: s.source for s in found.samples} == {"a": "a.png", "renamed": "other.png"}
    assert [s.where for s in found.skipped] == [str(tmp_path / "again.xml")]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {c} "{f"&{p};" * 10}">' for p, c in zip("abcdefgh", "bcdefghi", strict=True)
) + "]><annotations><image name='&i;'/></annotations>"  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "a document type declaration"),
        (
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations>&a;</annotations>',
            "a document type",
        ),
        ("<a>" * 80 + "</a>" * 80, "nested more than 64 deep"),
        ("<annotations><image", "expected XML in"),
        ("", "expected XML in"),
        ("\0\1\2", "expected XML in"),
        ("<html/>", "expected <annotations> of CVAT"),
        ("<annotations><track/></annotations>", "is an export of a video"),
        ("<annotations/>", "expected images in"),
    ],
)
def test_xml_that_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        read_cvat(path)
    assert len(str(refused.value).splitlines()) == 1


# CVAT ------------------------------------------------------------------------------------------------------------------------


def cvat(root: Path, *images: str, labels: tuple[str, ...] = ("mass", "nodule", "device")) -> Path:
    told = "".join(f"<label><name>{name}</name></label>" for name in labels)
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><project><labels>{told}</labels></project></meta>{''.join(images)}</annotations>"
    )
    return root


def cvat_image(name: str, shapes: str = "", **more: str) -> str:
    told = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<image id="1" name="{name}" width="{W}" height="{H}"{told}>{shapes}</image>'


def test_cvat_shapes(tmp_path: Path) -> None:
    shapes = (
        '<box label="mass" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90.0"><attribute name="sure">yes</attribute></box>'
        '<polygon label="nodule" points="5.5,7;9,7;9,12"/><ellipse label="mass" cx="60" cy="30" rx="10" ry="5"/>'
        '<mask label="nodule" rle="3, 4" left="40" top="8" width="6" height="7"/><polyline label="mass" points="1,1;2,2"/>'
        '<tag label="device"/>'
    )
    put(tmp_path / "images" / "train" / "a.png")
    put(tmp_path / "images" / "b.png")
    cvat(tmp_path, cvat_image("a.png", shapes, subset="train"), cvat_image("b.png"))
    found = read_cvat(tmp_path)
    assert found.label_classes == found.box_classes == ("mass", "nodule", "device")
    assert boxes(found, "train/a.png") == [
        ("mass", [18, 12, 22, 32]),
        ("nodule", [5.5, 7, 9, 12]),
        ("mass", [50, 25, 70, 35]),
        ("nodule", [40, 8, 46, 15]),
    ]
    assert one(found, "train/a.png").labels.tolist() == [1, 1, 1], "a tag states its label"
    assert one(found, "train/a.png").split == "train"
    assert one(found, "train/a.png").source == "train/a.png" or "images" in str(found.load.root)
    assert one(found, "b.png").labels.tolist() == [0, 0, 0]
    assert any("no extent were left out: polyline 1" in note for note in found.notes)
    assert found.load(one(found, "train/a.png")).array.shape == (H, W)


# Label Studio ----------------------------------------------------------------------------------------------------------------


def region(
    label: str, x: float, y: float, width: float, height: float, **more: Any
) -> dict[str, Any]:
    value = {
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "rectanglelabels": [label],
        "rotation": more.pop("rotation", 0),
    }
    return {"type": "rectanglelabels", "value": value, "original_width": W, "original_height": H, **more}  # fmt: skip


def task(
    key: int, image: str, *annotations: dict[str, Any] | list[Any], **data: Any
) -> dict[str, Any]:
    made = [
        a if isinstance(a, dict) else {"completed_by": n + 1, "result": a}
        for n, a in enumerate(annotations)
    ]
    return {"id": key, "data": {"image": image, **data}, "annotations": made}


def export(
    root: Path, *tasks: dict[str, Any], images: tuple[str, ...] = ("a.png", "b.png", "c.png")
) -> Path:
    for name in images:
        put(root / "images" / name)
    (root / "export.json").write_text(json.dumps(tasks))
    return root / "export.json"


def test_label_studio_regions_are_per_cent_and_turn_about_their_corner(tmp_path: Path) -> None:
    turned_by = region("mass", 50, 50, 25, 12.5, rotation=90)
    polygon = {
        "type": "polygonlabels",
        "value": {"points": [[10, 10], [20, 10], [20, 50]], "polygonlabels": ["nodule"]},
    }
    ellipse = {
        "type": "ellipselabels",
        "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["mass"]},
    }
    path = export(
        tmp_path,
        task(1, "/data/upload/1/0a1b2c3d-a.png", [region("mass", 25, 50, 50, 25), turned_by, polygon, ellipse], patient_id="p1", site="x"),
        task(2, "/data/local-files/?d=images/b.png", [], patient_id="p2"),
        task(3, "s3://bucket/images/c.png", patient_id="p2"),
    )  # fmt: skip
    found = read_label_studio(path)
    assert boxes(found, "a.png") == [
        ("mass", [24, 32, 72, 48]),
        ("mass", [40, 32, 48, 56]),
        ("nodule", [9.6, 6.4, 19.2, 32]),
        ("mass", [38.4, 19.2, 57.6, 44.8]),
    ]
    assert one(found, "b.png").boxes is not None and len(one(found, "b.png").boxes) == 0
    assert one(found, "c.png").boxes is None, "a task without annotations was never annotated"
    assert [s.patient for s in found.samples] == ["p1", "p2", "p2"]
    assert one(found, "a.png").attributes == {"site": "x"}


def test_several_readers_are_fused_and_skipped_annotations_do_not_count(tmp_path: Path) -> None:
    near, far = region("mass", 25, 50, 50, 25), region("mass", 26, 50, 50, 25)
    path = export(
        tmp_path,
        task(1, "a.png", [near], [far], [region("nodule", 1, 1, 10, 10)]),
        task(2, "b.png", {"was_cancelled": True, "result": [near]}),
        task(3, "c.png", [near], {"ground_truth": True, "completed_by": {"id": 9}, "result": [region("nodule", 1, 1, 10, 10)]}),
    )  # fmt: skip
    found = read_label_studio(path)
    assert boxes(found, "a.png") == [
        ("mass", [24.48, 32, 72.48, 48]),
        ("nodule", [0.96, 0.64, 10.56, 7.04]),
    ]
    assert one(found, "a.png").boxes.n_readers.tolist() == [2, 1]
    assert one(found, "b.png").boxes is None
    assert boxes(found, "c.png") == [("nodule", [0.96, 0.64, 10.56, 7.04])], (
        "ground truth stands alone"
    )
    two = read_label_studio(path, min_readers=2)
    assert boxes(two, "a.png") == [("mass", [24.48, 32, 72.48, 48])]
    assert one(two, "a.png").labels[two.label_classes.index("nodule")] == 0
    raw = read_label_studio(path, fusion_iou=0)
    assert one(raw, "a.png").boxes.readers == ("1", "2", "3")


def test_json_min(tmp_path: Path) -> None:
    box = {
        "x": 25,
        "y": 50,
        "width": 50,
        "height": 25,
        "rotation": 0,
        "rectanglelabels": ["mass"],
        "original_width": W,
        "original_height": H,
    }
    path = export(
        tmp_path,
        {"image": "a.png", "id": 1, "label": [box], "annotator": 1, "annotation_id": 1, "created_at": "2024"},
        {"image": "b.png", "id": 2, "annotator": 1, "annotation_id": 2},
        {"image": "c.png", "id": 3, "choice": "device", "annotator": 1, "annotation_id": 3},
    )  # fmt: skip
    found = read_label_studio(path)
    assert boxes(found, "a.png") == [("mass", [24, 32, 72, 48])]
    assert len(one(found, "b.png").boxes) == 0
    assert found.box_classes == ("mass",)
    assert one(found, "c.png").labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "is a COCO file"),
        ({"a": 1}, "expected a list of tasks"),
        ([1, 2], "expected a list of tasks"),
        ([], "expected images in"),
        ([{"id": 1, "data": {"text": "x"}, "annotations": []}], "expected the name of an image"),
    ],
)
def test_files_of_others_are_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "export.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_label_studio(tmp_path / "export.json")


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=3)
       | st.dictionaries(st.sampled_from(["value", "x", "y", "width", "height", "type", "rectanglelabels", "points", "rotation"]), inner, max_size=5), max_leaves=12))  # fmt: skip
def test_any_region_is_read_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory, item: Any
) -> None:
    root = tmp_path_factory.mktemp("ls")
    good = region("mass", 25, 50, 50, 25)
    spoilt = {**good, **item} if isinstance(item, dict) else item
    (root / "export.json").write_text(json.dumps([task(1, "a.png", [good, spoilt])]))
    found = read_label_studio(root / "export.json")
    assert boxes(found, "a.png")[0] == ("mass", [24, 32, 72, 48])


# turned shapes ---------------------------------------------------------------------------------------------------------------


@given(st.floats(0, 50), st.floats(0, 50), st.floats(1, 40), st.floats(1, 40), st.floats(-400, 400))
def test_a_turned_ellipse_is_in_its_turned_box_and_touches_its_own(
    x: float, y: float, a: float, b: float, degrees: float
) -> None:
    outer = turned((x - a, y - b, x + a, y + b), degrees, (x, y))
    own = turned_ellipse((x, y), (a, b), degrees)
    at = np.linspace(0, 2 * np.pi, 3600)
    t = np.radians(degrees)
    xs = x + a * np.cos(at) * np.cos(t) - b * np.sin(at) * np.sin(t)
    ys = y + a * np.cos(at) * np.sin(t) + b * np.sin(at) * np.cos(t)
    assert np.allclose(own, [xs.min(), ys.min(), xs.max(), ys.max()], atol=1e-3)
    assert all(o <= i + 1e-9 for o, i in zip(outer[:2], own[:2], strict=True))
    assert all(o >= i - 1e-9 for o, i in zip(outer[2:], own[2:], strict=True))


# SIIM-ACR --------------------------------------------------------------------------------------------------------------------


def slow_mask(cell: str) -> np.ndarray:
    """The challenge's own way, pixel by pixel: skip, take, down the columns."""
    flat, at = np.zeros(1024 * 1024, dtype=bool), 0
    numbers = [int(word) for word in cell.split()]
    for skip, take in zip(numbers[::2], numbers[1::2], strict=True):
        at += skip
        flat[at : at + take] = True
        at += take
    return flat.reshape(1024, 1024).T


def encoded(mask: np.ndarray) -> str:
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    skips = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{s} {e}" for s, e in zip(skips, ends - starts, strict=True))


def test_masks_become_boxes_of_their_regions(tmp_path: Path) -> None:
    left, right = np.zeros((1024, 1024), dtype=bool), np.zeros((1024, 1024), dtype=bool)
    left[100:300, 50:80] = True
    left[300:320, 80:90] = True  # touches at a corner
    right[500:510, 900:1024] = True
    assert np.array_equal(slow_mask(encoded(left)), left)
    for name in ("x", "y", "z"):
        put(tmp_path / "dicom-images-train" / f"{name}.png", (32, 32))
    table = [
        "ImageId, EncodedPixels",
        f"x,{encoded(left)}",
        f"x, {encoded(right)}",
        "y, -1",
        "z,1048570 7",
    ]
    (tmp_path / "train-rle.csv").write_text("\n".join(table) + "\n")
    found = read_siim(tmp_path)
    assert boxes(found, "x") == [
        ("Pneumothorax", [50, 100, 90, 320]),
        ("Pneumothorax", [900, 500, 1024, 510]),
    ]
    assert one(found, "x").boxes_frame == (1024, 1024)
    assert [s.labels[0] for s in found.samples[:2]] == [1, 0]
    assert math.isnan(found.samples[2].labels[0]) and found.samples[2].boxes is None
    assert "end at pixel 1,048,577" in found.skipped[0].reason
    assert any("every image counts as its own patient" in note for note in found.notes)


def test_siims_published_rows() -> None:
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "siim-pneumothorax-train-rle.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships SIIM-ACR's masks, is not installed")
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == 12_954 and len({row[0] for row in rows}) == 12_047
    drawn = [row[1].strip() for row in rows if row[1].strip() != "-1"]
    from twinray.data.readers.drawn.siim import _runs

    for cell in drawn[::400]:
        mask = slow_mask(cell)
        ys, xs = np.nonzero(mask)
        runs = _runs(cell)
        assert not isinstance(runs, str)
        found = np.array(regions([runs]))
        around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert [*found[:, :2].min(0), *found[:, 2:].max(0)] == around
    assert not any(isinstance(_runs(cell), str) for cell in drawn)


# Object-CXR and ChestX-Det ---------------------------------------------------------------------------------------------------


def test_object_cxr(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "train/2.jpg", "dev/1.jpg"):
        put(tmp_path / name)
    (tmp_path / "train.csv").write_text(
        "image_name,annotation\n1.jpg,0 10 20 30 40;2 50 5 60 9 55 30\n2.jpg,\n3.jpg,0 1 1 5 5\n"
    )
    (tmp_path / "dev.csv").write_text("image_path,annotation\n/path/1.jpg,1 10 20 30 40\n")
    found = read_object_cxr(tmp_path)
    assert [(s.id, s.source, s.split) for s in found.samples] == [
        ("train/1.jpg", "train/1.jpg", "train"),
        ("train/2.jpg", "train/2.jpg", "train"),
        ("dev/1.jpg", "dev/1.jpg", "val"),
    ]
    assert boxes(found, "train/1.jpg") == [
        ("Foreign object", [10, 20, 30, 40]),
        ("Foreign object", [50, 5, 60, 30]),
    ]
    assert [s.labels.tolist() for s in found.samples] == [[1], [0], [1]]
    assert any("1 image that the tables list is not on this disk" in note for note in found.notes)


@pytest.mark.parametrize("ten", [False, True])
def test_chestx_det(tmp_path: Path, ten: bool) -> None:
    name, other = ("00000042_006.png", "00000042_007.png") if ten else ("36204.png", "36205.png")
    put(tmp_path / "train_data" / name, (64, 64))
    put(tmp_path / "test_data" / other, (64, 64))
    first = {"file_name": name, "syms": ["Fibrosis"], "boxes": [[632, 721, 909, 969]]}
    if not ten:
        first["syms"], first["boxes"] = (
            [*first["syms"], "Diffuse Nodule"],
            [*first["boxes"], [10, 20, 300, 400]],
        )
        first["polygons"] = [
            [[632, 721], [909, 721], [700, 969]],
            [[10, 20], [300, 400], [10, 400]],
        ]
    last = {"file_name": other, "syms": [], "boxes": []}
    prefix = "" if ten else "ChestX_Det_"
    for part, content in (("train", [first]), ("test", [last])):
        (tmp_path / f"{prefix}{part}.json").write_text(json.dumps(content))
    found = read_chestx_det(tmp_path)
    assert found.box_classes == (tuple(c for c in CLASSES if c not in ADDED) if ten else CLASSES)
    assert boxes(found, f"train/{name}")[0] == ("Fibrosis", [632, 721, 909, 969])
    assert [s.split for s in found.samples] == ["train", "test"]
    assert [s.patient for s in found.samples] == (["42", "42"] if ten else [None, None])
    assert found.samples[0].source == f"train_data/{name}"
    assert len(one(found, f"test/{other}").boxes) == 0
