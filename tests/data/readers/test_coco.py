"""COCO files: what is read, what is set aside, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.coco import read_coco
from twinray.errors import InputError
from twinray.geometry import place_boxes

CATEGORIES = [{"id": 7, "name": "nodule"}, {"id": 3, "name": "mass"}]


def write(
    folder: Path,
    images: list[Any] | None = None,
    annotations: list[Any] | None = None,
    categories: Any = CATEGORIES,
    **more: Any,
) -> Path:
    images = (
        [{"id": 5, "file_name": "a.png", "width": 100, "height": 80}] if images is None else images
    )
    path = folder / "ann.json"
    content = {"images": images, "annotations": annotations or [], "categories": categories} | more
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


def box(*xywh: Any, image: Any = 5, category: Any = 7, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": list(xywh)} | more


def test_boxes_labels_patients_and_empty_images(tmp_path: Path) -> None:
    images = [
        {
            "id": 9000,
            "file_name": "a.png",
            "width": 100,
            "height": 80,
            "patient_id": 12,
            "split": "valid",
            "view": "PA",
        },
        {"id": 4, "file_name": "sub/b.png", "patient": "p"},
        {"id": 5, "file_name": "c.png"},
    ]
    found = read_coco(
        write(
            tmp_path, images, [box(1, 2, 30, 40, image=9000), box(0, 0, 5, 5, image=4, category=3)]
        )
    )
    a, b, c = found.samples
    assert (found.box_classes, found.label_classes, found.task) == (
        ("mass", "nodule"),
        ("mass", "nodule"),
        "multilabel",
    )
    assert (a.id, a.source, a.patient, a.split, a.size) == ("9000", "a.png", "12", "val", (100, 80))
    assert dict(a.attributes) == {"view": "PA"}
    assert a.boxes.xyxy.tolist() == [[1, 2, 31, 42]]
    assert (a.boxes.labels.tolist(), a.labels.tolist()) == ([1], [0, 1])
    assert (b.patient, b.size, b.labels.tolist()) == ("p", None, [1, 0])
    assert len(c.boxes) == 0
    assert c.labels.tolist() == [0, 0]
    assert c.patient is None


def test_the_images_folder_is_found(tmp_path: Path) -> None:
    pixels = Image.fromarray(np.zeros((80, 100), dtype=np.uint8))
    pixels.save(tmp_path / "a.png")
    path = write(tmp_path)
    beside = read_coco(path)
    assert beside.load(beside.samples[0]).array.shape == (80, 100)
    (tmp_path / "images").mkdir()
    still = read_coco(path)
    assert still.load(still.samples[0]).array.shape == (80, 100), "an empty folder images is none"
    Image.fromarray(np.zeros((60, 60), dtype=np.uint8)).save(tmp_path / "images" / "a.png")
    inside = read_coco(path)
    assert inside.load(inside.samples[0]).array.shape == (60, 60)
    given_root = read_coco(path, tmp_path)
    assert given_root.load(given_root.samples[0]).array.shape == (80, 100)
    with pytest.raises(InputError, match="--images"):
        read_coco(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (box(10, 10, 0, 5), "positive size"),
        (box(10, 10, 5, -5), "positive size"),
        (box(200, 10, 5, 5), "lies outside its image of 100 x 80"),
        (box(-20, 10, 5, 5), "lies outside"),
        (box(90, 10, 12, 5), "reaches 2 pixels beyond"),
        (box(math.nan, 10, 5, 5), "not a finite number"),
        (box(math.inf, 10, 5, 5), "not a finite number"),
        (box(10**400, 10, 5, 5), "not a finite number"),
        (box(1, 2, 3), "four numbers"),
        (box(1, 2, 3, "4"), "four numbers"),
        (box(1, 2, 3, True), "four numbers"),
        (box(1, 2, 3, None), "four numbers"),
        ({"id": 1, "image_id": 5, "category_id": 7}, "four numbers"),
        (box(1, 2, 3, 4, image=6), "not among the images"),
        (box(1, 2, 3, 4, image=None), "not among the images"),
        (box(1, 2, 3, 4, category=8), "not among the categories"),
        ("no object", "not among the images"),
    ],
)
def test_a_bad_row_is_set_aside_and_the_rest_goes_on(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path, annotations=[row, box(1, 2, 30, 40, category=3)])
    found = read_coco(path)
    assert len(found.skipped) == 1
    assert "annotations[0]" in found.skipped[0].where
    assert reason in found.skipped[0].reason
    assert "\n" not in found.skipped[0].reason
    assert found.samples[0].boxes.labels.tolist() == [0]
    with pytest.raises(InputError, match="--strict"):
        read_coco(path, strict=True)


def test_a_class_whose_box_was_set_aside_is_unknown_not_absent(tmp_path: Path) -> None:
    sample = read_coco(write(tmp_path, annotations=[box(10, 10, 0, 5)])).samples[0]
    assert sample.boxes is None
    assert sample.labels[0] == 0
    assert np.isnan(sample.labels[1])


def test_up_to_a_pixel_over_the_edge_is_clipped(tmp_path: Path) -> None:
    found = read_coco(write(tmp_path, annotations=[box(-1, -0.5, 102, 81)]))
    assert not found.skipped
    assert found.samples[0].boxes.xyxy.tolist() == [[0, 0, 100, 80]]


def test_crowds_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [
        box(1, 1, 5, 5, iscrowd=1),
        box(1, 1, 5, 5, category=3, ignore=1),
        box(2, 2, 5, 5, category=3),
    ]
    found = read_coco(write(tmp_path, annotations=rows), strict=True)
    assert not found.skipped
    assert any(note.startswith("2 regions") for note in found.notes)
    assert len(found.samples[0].boxes) == 1
    regions = found.samples[0].regions
    assert regions.xyxy.tolist() == [[1, 1, 6, 6], [1, 1, 6, 6]]
    assert [found.box_classes[i] for i in regions.labels] == ["nodule", "mass"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": 1}, "file_name"),
        ({"file_name": "a.png"}, "'id'"),
        ({"id": True, "file_name": "a.png"}, "'id'"),
        ({"id": 1, "file_name": "../../secret.png"}, "leads out"),
        ({"id": 1, "file_name": "a.png", "width": 0, "height": 5}, "'width'"),
        ({"id": 1, "file_name": "a.png", "width": math.nan, "height": 5}, "'width'"),
        ({"id": 1, "file_name": "a.png", "width": 10**400, "height": 5}, "'width'"),
        ({"id": 1, "file_name": "a.png", "split": "later"}, "'split'"),
        (17, "'id'"),
    ],
)
def test_a_bad_image_record_is_set_aside(tmp_path: Path, record: Any, reason: str) -> None:
    path = write(tmp_path, [record, {"id": 5, "file_name": "good.png"}], [box(1, 1, 2, 2, image=1)])
    found = read_coco(path)
    assert [s.id for s in found.samples] == ["5"]
    assert reason in found.skipped[0].reason
    assert len(found.skipped) == 2  # its annotation goes with it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]},
            "image id 1 is used twice",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "'a' is used twice"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "category id 1 is used twice",
        ),
        ({"categories": [{"id": 1}]}, "expected a 'name'"),
        ({"categories": [{"name": "a"}]}, "'id'"),
        ({"images": ...}, "'images'"),
        ({"images": {}}, "expected a list under 'images'"),
        ({"images": []}, "found none"),
        ({"categories": ..., "annotations": [box(1, 1, 1, 1)]}, "'categories'"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_coco(write(tmp_path, **content))


def test_files_that_are_no_coco_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not read"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_coco(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text("[1, 2]")
    with pytest.raises(InputError, match="found a list"):
        read_coco(bad)
    bad.write_text('{"images": [')
    with pytest.raises(InputError, match="line 1"):
        read_coco(bad)


def test_without_annotations_images_were_never_annotated(tmp_path: Path) -> None:
    found = read_coco(write(tmp_path, **{"annotations": ...}))
    assert found.samples[0].boxes is None
    assert found.samples[0].labels is None
    assert (found.task, found.label_classes) == ("none", ())


numbers = st.floats(-50, 150) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.tuples(numbers, numbers, numbers, numbers))
def test_every_box_is_inside_or_refused(box: tuple[float, float, float, float]) -> None:
    clipped, faults = place_boxes(np.array([box]), 100, 80)
    if faults[0] is None:
        x1, y1, x2, y2 = clipped[0]
        assert 0 <= x1 < x2 <= 100
        assert 0 <= y1 < y2 <= 80
        assert np.abs(clipped[0] - box).max() <= 1
    else:
        assert "\n" not in faults[0]


def drawn(path: Path, side: tuple[int, int] = (100, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", side, 9).save(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_is_read_over(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, annotations=[box(1, 2, 30, 40)])
    text = path.read_text()
    path.write_text("\ufeff" + text if encoding == "utf-16-le" else text, encoding=encoding)
    assert len(read_coco(path).samples[0].boxes) == 1
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match=r"found other bytes|expected JSON"):
        read_coco(path)


LAYOUTS = {  # the annotation file, the picture, its name in the file
    "label studio": ("result.json", "images/a.png", "images/a.png"),
    "label studio on Windows": ("result.json", "images/a.png", "images\\a.png"),
    "label studio's server": ("result.json", "images/a.png", "/data/upload/3/a.png"),
    "label studio's storage": ("result.json", "images/a.png", "/data/local-files/?d=images/a.png"),
    "label studio with parents": ("result.json", "images/a.png", "../../media/upload/1/a.png"),
    "cvat": ("annotations/instances_default.json", "images/a.png", "a.png"),
    "cvat, a subset": ("annotations/instances_default.json", "images/default/a.png", "a.png"),
    "coco": ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),
    "roboflow": ("train/_annotations.coco.json", "train/a.png", "a.png"),
    "percent signs": ("a.json", "images/caf\u00e9 1.png", "caf%C3%A9%201.png"),
    "percent signs that are meant": ("a.json", "images/a%20b.png", "a%20b.png"),
    "the other Unicode form": ("a.json", "images/cafe\u0301.png", "caf\u00e9.png"),
    "another case": ("a.json", "images/A.PNG", "a.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_in_the_layouts_of_annotation_tools(tmp_path: Path, layout: str) -> None:
    at, picture, name = LAYOUTS[layout]
    drawn(tmp_path / picture)
    folder = tmp_path / at
    folder.parent.mkdir(exist_ok=True)
    write(folder.parent, [{"id": 5, "file_name": name}]).rename(folder)
    found = read_coco(folder, need_images=True)
    assert found.load(found.samples[0]).array.shape == (80, 100)
    assert Path(found.samples[0].source).name == Path(picture).name


def test_never_another_image(tmp_path: Path) -> None:
    drawn(tmp_path / "images" / "p1" / "view.png")
    drawn(tmp_path / "images" / "x.png")
    images = [
        {"id": 1, "file_name": "p1/view.png"},
        {"id": 2, "file_name": "p2/view.png"},
        {"id": 3, "file_name": "a/x.png"},
        {"id": 4, "file_name": "b/x.png"},
    ]
    found = read_coco(write(tmp_path, images, [box(1, 1, 5, 5, image=4)]))
    assert [s.source for s in found.samples] == ["p1/view.png", "p2/view.png", "x.png"]
    assert "leads to x.png, which image 3 names" in found.skipped[0].reason
    assert len(found.skipped) == 2, "its annotation goes with it"


def test_without_any_image_the_refusal_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"none of the 1 images .* \(the first is a\.png\); give their folder with --images",
    ):
        read_coco(write(tmp_path), need_images=True)
    with pytest.raises(InputError, match=r"give the \.json in it: ann\.json"):
        read_coco(tmp_path)


def test_two_records_of_one_file_are_one_image(tmp_path: Path) -> None:
    images = [
        {"id": k, "file_name": name} for k, name in ((1, "a.png"), (2, "b.png"), (3, "a.png"))
    ]
    rows = [box(1, 1, 5, 5, image=1), box(1, 1, 5, 5, image=3), box(9, 9, 5, 5, image=3)]
    found = read_coco(write(tmp_path, images, rows))
    assert [(s.id, len(s.boxes)) for s in found.samples] == [("1", 2), ("2", 0)]
    assert any("1 image records name a file that another names too" in n for n in found.notes)
    images[2]["patient_id"], images[0]["patient_id"] = "p", "q"
    with pytest.raises(
        InputError, match=r"images 1 and 3 .* both name a\.png, but differ in patient"
    ):
        read_coco(write(tmp_path, images, rows))


@pytest.mark.parametrize("key", ["subject_id", "patientId", "PatientID", "Patient ID", "case_id"])
def test_usual_keys_of_patients_are_read(tmp_path: Path, key: str) -> None:
    found = read_coco(write(tmp_path, [{"id": 1, "file_name": "a.png", key: 17}]))
    assert found.samples[0].patient == "17"
    assert dict(found.samples[0].attributes) == {}


def test_a_key_that_looks_like_a_patient_is_named_and_can_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": 1, "file_name": "a.png", "patient hash": "x"}])
    assert any("--patient-column 'patient hash'" in note for note in read_coco(path).notes)
    assert read_coco(path, patient_column="patient hash").samples[0].patient == "x"


def test_many_unknown_splits_are_refused_before_anything_is_cut(tmp_path: Path) -> None:
    images = [
        {"id": k, "file_name": f"{k}.png", "split": "train" if k else "hold"} for k in range(9)
    ]
    assert len(read_coco(write(tmp_path, images)).skipped) == 1
    images[1]["split"] = "hold"
    with pytest.raises(InputError, match=r"found 'hold' \(2 images\); nothing was cut"):
        read_coco(write(tmp_path, images))


def test_label_studios_own_tasks_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text('[{"id": 1, "data": {"image": "a.png"}, "annotations": []}]')
    with pytest.raises(InputError, match="Label Studio's own list of tasks; export it as COCO"):
        read_coco(path)


@pytest.mark.parametrize("nothing", [None, [], [0, 0, 0, 0], [0.0] * 4, [math.nan] * 4])
def test_a_box_of_nothing_is_an_image_without_a_finding(tmp_path: Path, nothing: Any) -> None:
    row = {"id": 1, "image_id": 5, "category_id": 7, "bbox": nothing}
    found = read_coco(write(tmp_path, annotations=[row]))
    assert len(found.samples[0].boxes) == 0
    assert found.samples[0].labels.tolist() == [0, 0]
    assert not found.skipped
    assert any("1 annotations hold no box" in note for note in found.notes)


@pytest.mark.parametrize(
    "places", [("train.json", "eval.json"), ("train/a.json", "holdout/a.json")]
)
def test_parts_that_are_none_of_the_three_are_not_cut(
    tmp_path: Path, places: tuple[str, str]
) -> None:
    """Beside others that are whole splits; truth for heat maps may be called as it likes."""
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        record = {"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}
        (tmp_path / place).write_text(json.dumps(record))
        Image.fromarray(np.zeros((8, 8), np.uint8)).save((tmp_path / place).parent / "x.png")
    first, second = (tmp_path / place for place in places)
    assert read_coco(first, need_images=True).samples[0].split == "train"
    with pytest.raises(InputError, match="nothing was cut"):
        read_coco(second, need_images=True)
    assert read_coco(second, need_images=True, layout="flat").samples[0].split is None
    assert read_coco(second).samples[0].split is None
    if "/" not in places[0]:
        first.unlink()
        notes = read_coco(second, need_images=True).notes
        assert any("called as a part of a data set (eval)" in note for note in notes)
