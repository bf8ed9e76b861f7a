"""Boxes that contradict themselves: each kind of fault, in several readers and verbs, is refused, repaired and counted, or told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twinray.data.annotations import (
    REPEATED,
    BoxAudit,
    boxes_in_file,
    other_proportions,
    size_fault,
)
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.formats import SourceOptions, read_annotations, read_sources
from twinray.errors import InputError
from twinray.jobs import boxes as boxes_job
from twinray.records import Boxes, Collection, Sample

WIDE = (96, 64)
N = 24
Box = Callable[[int], Sequence[float]]


def good(i: int) -> list[float]:
    """A box of the right half, left, top, width, height: swapped axes would take it out of the image."""
    return [66 + i % 6, 20 + i % 9, 20, 12]


def coco(folder: Path, box: Box = good, *, sizes: bool = True, n: int = N, **more: Any) -> Path:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    for i in range(n):
        pixels = rng.integers(0, 255, (WIDE[1], WIDE[0]), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        record = {"id": i, "file_name": f"{i}.png", "patient_id": f"p{i}"}
        content["images"].append(record | ({"width": WIDE[0], "height": WIDE[1]} if sizes else {}))
        row = {"id": i, "image_id": i, "category_id": 1, "bbox": list(box(i)), "iscrowd": 0}
        content["annotations"].append(
            row | {key: value(i) if callable(value) else value for key, value in more.items()}
        )
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return path


def vindr(folder: Path, box: Box = good, *, columns: bool = True, side: Any = WIDE) -> Path:
    (folder / "train").mkdir(parents=True)
    head = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    lines = [head + (",width,height" if columns else "")]
    for i in range(N):
        Image.new("L", side, 7 * i).save(folder / "train" / f"k{i}.png")
        x, y, w, h = box(i)
        size = f",{WIDE[0]},{WIDE[1]}" if columns else ""
        lines.append(f"k{i},ILD,5,R1,{x},{y},{x + w},{y + h}{size}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


def rsna(folder: Path, box: Box) -> Path:
    folder.mkdir(parents=True)
    lines = ["patientId,x,y,width,height,Target"]
    for i in range(N):
        Image.new("L", (64, 64), 7 * i).save(folder / f"r{i}.png")
        lines.append(f"r{i},{','.join(map(str, box(i)))},1")
    (folder / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def nih(folder: Path, box: Box) -> Path:
    folder.mkdir(parents=True)
    entries, boxed = (
        ["Image Index,Finding Labels,Patient ID"],
        ["Image Index,Finding Label,x,y,w,h"],
    )
    for i in range(N):
        name = f"{i:08d}_000.png"
        Image.new("L", (64, 64), 7 * i).save(folder / name)
        entries.append(f"{name},Mass,{i}")
        boxed.append(f"{name},Mass,{','.join(map(str, box(i)))}")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(entries) + "\n")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxed) + "\n")
    return folder


WRITERS = {"coco": coco, "vindr": vindr, "rsna": rsna, "nih": nih}


def read(name: str, folder: Path, box: Box) -> Collection:
    return read_sources(name, [WRITERS[name](folder / "s", box)], SourceOptions())[0]


def in_1024(i: int) -> list[float]:
    return [300 + i, 500 + i, 200, 100]


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_in_0_to_1_are_refused_by_every_reader_and_by_boxes(
    name: str, tmp_path: Path
) -> None:
    def relative(i: int) -> list[float]:
        return [0.1 + i / 100, 0.2, 0.3, 0.25]

    source = WRITERS[name](tmp_path / "s", relative)
    with pytest.raises(InputError, match=r"24 of 24 boxes are relative \(0\.\.1\)"):
        read_sources(name, [source], SourceOptions())
    with pytest.raises(InputError, match=r"are relative \(0\.\.1\)"):
        boxes_job.run(boxes_job.BoxesConfig(source, name, tmp_path / "b.json"))


@pytest.mark.parametrize("name", WRITERS)
def test_one_box_in_0_to_1_is_set_aside_by_every_reader(name: str, tmp_path: Path) -> None:
    right = in_1024 if name in ("rsna", "nih") else good

    def mostly(i: int) -> Sequence[float]:
        return [0.1, 0.2, 0.3, 0.25] if i == 3 else right(i)

    found = read(name, tmp_path, mostly)
    assert ["smaller than a pixel" in s.reason for s in found.skipped] == [True]
    assert sum(len(s.boxes or ()) for s in found.samples) == N - 1


@pytest.mark.parametrize("name", WRITERS)
def test_repeated_annotations_are_kept_once_and_counted_by_every_reader(
    name: str, tmp_path: Path
) -> None:
    source = WRITERS[name](tmp_path / "s", in_1024 if name in ("rsna", "nih") else good)
    if name == "coco":
        content = json.loads(source.read_text())
        again = [{**a, "id": a["id"] + 100} for a in content["annotations"]]
        source.write_text(json.dumps(content | {"annotations": content["annotations"] + again}))
    else:
        table = {
            "vindr": "train.csv",
            "rsna": "stage_2_train_labels.csv",
            "nih": "BBox_List_2017.csv",
        }[name]
        lines = (source / table).read_text().splitlines()
        (source / table).write_text("\n".join(lines + lines[1:]) + "\n")
    for found in (
        read_sources(name, [source], SourceOptions())[0],
        read_annotations(name, source, SourceOptions()),
    ):
        assert sum(len(s.boxes or ()) for s in found.samples) == N
        assert sum("24 duplicate annotations" in note for note in found.notes) == 1
        assert not found.skipped
        labels = [s.labels for s in found.samples if s.labels is not None]
        assert all(not np.isnan(own).any() for own in labels), "a repeat is no lost box"


def test_boxes_of_two_readers_and_of_two_classes_are_no_repeats() -> None:
    audit = BoxAudit("s")
    first = audit.judge("i", 0, (1, 1, 9, 9), None, "a", reader="R1")
    assert not isinstance(first, str)
    assert not isinstance(audit.judge("i", 0, (1, 1, 9, 9), None, "b", reader="R2"), str)
    assert not isinstance(audit.judge("i", 1, (1, 1, 9, 9), None, "c", reader="R1"), str)
    assert not isinstance(audit.judge("j", 0, (1, 1, 9, 9), None, "d", reader="R1"), str)
    assert not isinstance(audit.judge("i", 0, (1, 1, 9, 9.5), None, "e", reader="R1"), str)
    assert audit.judge("i", 0, (1, 1, 9.004, 9), None, "f", reader="R1") == REPEATED
    assert audit.repeats == 1


OTHER_ORDERS: dict[str, Callable[[list[float]], list[float]]] = {
    "with x and y swapped": lambda b: [b[1], b[0], b[3], b[2]],
    "as left, top, right, bottom": lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]],
    "as centre, width, height": lambda b: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]],
}


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("order", OTHER_ORDERS)
def test_boxes_written_in_another_order_are_refused_with_the_right_one(
    order: str, sizes: bool, tmp_path: Path
) -> None:
    def written(i: int) -> Sequence[float]:
        at_edge = [74 + i % 3, 50 + i % 2, 20, 12]  # reaches outside in every other order
        return OTHER_ORDERS[order](at_edge)

    path = coco(tmp_path / "s", written, sizes=sizes)
    with pytest.raises(InputError, match=f"reach beyond their images, all would fit {order}"):
        read_sources("coco", [path], SourceOptions())


def test_swapped_axes_in_a_table_of_corners_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all would fit with x and y swapped"):
        read("vindr", tmp_path, lambda i: OTHER_ORDERS["with x and y swapped"](good(i)))


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_of_a_larger_copy_are_refused_by_every_reader(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="drawn on another resolution"):
        read(name, tmp_path, lambda i: [40.0 * v for v in good(i)])


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("scale", [0.2, 0.4])
def test_boxes_of_a_smaller_copy_are_told_by_every_reader(
    name: str, scale: float, tmp_path: Path
) -> None:
    right = in_1024 if name in ("rsna", "nih") else good
    found = read(name, tmp_path, lambda i: [scale * v for v in right(i)])
    assert any("no box reaches beyond the first" in note for note in found.notes)
    assert not any("no box reaches" in note for note in read(name, tmp_path / "r", right).notes)


def test_sizes_of_files_are_looked_up_where_a_table_states_none(tmp_path: Path) -> None:
    small = vindr(tmp_path / "s", columns=False, side=(24, 16))
    with pytest.raises(InputError, match="drawn on another resolution"):
        read_sources("vindr", [small], SourceOptions())


def test_an_outline_elsewhere_contradicts_its_box(tmp_path: Path) -> None:
    def outline(i: int) -> list[list[float]]:
        x, y, w, h = good(i)
        x = 4.0 if i == 5 else x
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    path = coco(tmp_path / "s", segmentation=outline)
    found = read_sources("coco", [path], SourceOptions())[0]
    (aside,) = found.skipped
    assert "annotations[5]" in aside.where
    assert "bbox and its segmentation" in aside.reason
    elsewhere = coco(tmp_path / "t", segmentation=lambda _: [[1, 1, 9, 1, 9, 9, 1, 9]])
    with pytest.raises(InputError, match="24 of 24 boxes lie elsewhere than their segmentation"):
        read_sources("coco", [elsewhere], SourceOptions())


@pytest.mark.parametrize("odd", [[], [[]], [[1, 2]], {"counts": [1]}, None, "x", [[1, "2"] * 4]])
def test_segmentations_that_say_nothing_are_no_contradiction(odd: Any, tmp_path: Path) -> None:
    found = read_sources("coco", [coco(tmp_path / "s", segmentation=odd)], SourceOptions())[0]
    assert not found.skipped


def test_brush_masks_that_are_all_crowds_are_loud(tmp_path: Path) -> None:
    found = read_sources("coco", [coco(tmp_path / "s", iscrowd=1)], SourceOptions())[0]
    assert any(
        note.startswith("WARNING: no box is left: 24 regions marked iscrowd")
        for note in found.notes
    )


def test_boxes_refuses_files_of_another_size_than_stated(tmp_path: Path) -> None:
    path = coco(tmp_path / "s")
    Image.new("L", (48, 32)).save(path.parent / "images" / "0.png")
    result = boxes_job.run(boxes_job.BoxesConfig(path, "coco", tmp_path / "b.json"))
    assert ["96 x 64 pixels, the file has 48 x 32" in s.reason for s in result.set_aside] == [True]
    assert len(json.loads((tmp_path / "b.json").read_text())["images"]) == N - 1


def test_files_of_other_proportions_than_the_boxes_frame_are_told(tmp_path: Path) -> None:
    source = nih(tmp_path / "s", in_1024)
    Image.new("L", (96, 64), 9).save(source / "00000003_000.png")
    collections = read_sources("nih", [source], SourceOptions())
    info = write_pack(collections, tmp_path / "p", PackOptions(size=16), workers=0).info
    (note,) = [note for note in info.notes if "other proportions" in note]
    assert note.startswith("WARNING: boxes of 1 image")
    assert "00000003_000.png (96 x 64, boxes 1024 x 1024)" in note


def sample(**more: Any) -> Sample:
    return Sample("i", "i.png", boxes=Boxes(np.array([[1.0, 2, 5, 6]]), np.zeros(1, int)), **more)


def test_a_file_of_another_size_is_told_from_a_resized_frame() -> None:
    assert size_fault(sample(), 8, 8) is None
    assert size_fault(sample(size=(8, 8)), 8, 8) is None
    assert "say 8 x 8 pixels, the file has 4 x 4" in (size_fault(sample(size=(8, 8)), 4, 4) or "")
    resized, aside = boxes_in_file(sample(boxes_frame=(8, 8)), 4, 4)
    assert resized is not None
    assert resized.xyxy.tolist() == [[0.5, 1, 2.5, 3]]
    assert not aside
    assert not other_proportions(sample(boxes_frame=(1000, 1001)), 500, 500)
    assert other_proportions(sample(boxes_frame=(1000, 1100)), 500, 500)


@given(
    st.lists(
        st.tuples(*[st.floats(-2000, 2000) | st.just(float("nan"))] * 4), min_size=1, max_size=30
    ),
    st.sampled_from([None, (100, 80), (1, 1)]),
)
def test_whatever_the_numbers_every_box_is_inside_repeated_or_refused(
    boxes: list[tuple[float, ...]], frame: tuple[int, int] | None
) -> None:
    audit = BoxAudit("s")
    for i, box in enumerate(boxes):
        judged = audit.judge("i", 0, box, frame, str(i))
        if not isinstance(judged, str) and frame is not None:
            assert (judged[:2] >= 0).all()
            assert (judged[2:] <= frame).all()
    try:
        notes = audit.conclude(lambda _: (100, 80))
    except InputError as error:
        notes = [str(error)]
    assert all("\n" not in note for note in notes)
