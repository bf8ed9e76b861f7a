"""The RSNA challenge's tables: one box a row, NIH patients through a mapping, the frame of 1024 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.rsna import FRAME, read_rsna
from twinray.errors import InputError
from twinray.records import Collection

HEADER = "patientId,x,y,width,height,Target"
ROWS = ("aa,,,,,0", "bb,100,200,300,400,1", "bb,600.0,200.0,100.0,50.0,1", "cc,,,,,0")
MAPPING = "patientId,Image Index\naa,00000007_000.png\nbb,00000007_001.png\ncc,00000012_000.png\n"


def source(root: Path, rows=ROWS, mapping: str | None = MAPPING, ending=".png") -> Path:
    (root / "stage_2_train_images").mkdir(parents=True)
    (root / "stage_2_train_labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    if mapping is not None:
        (root / "patientId_to_nih.csv").write_text(mapping)
    rng = np.random.default_rng(0)
    for key in ("aa", "bb", "cc"):
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "stage_2_train_images" / f"{key}{ending}")
    return root


def test_boxes_labels_and_nih_patients(tmp_path):
    root = source(tmp_path / "s")
    (root / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\naa,Normal\nbb,Lung Opacity\nbb,Lung Opacity\ncc,No Lung Opacity / Not Normal\nzz,Normal\n"
    )
    collection = read_rsna(root)
    assert [s.id for s in collection.samples] == ["aa", "bb", "cc"]
    assert [s.patient for s in collection.samples] == ["7", "7", "12"]
    assert [s.labels.tolist() for s in collection.samples] == [[0], [1], [0]]
    assert [len(s.boxes) for s in collection.samples] == [0, 2, 0]
    assert collection.samples[1].boxes.xyxy.tolist() == [[100, 200, 400, 600], [600, 200, 700, 250]]
    assert collection.samples[1].boxes_frame == FRAME
    assert collection.samples[2].attributes == {
        "detailed_class": "No Lung Opacity / Not Normal",
        "nih_image": "00000012_000.png",
    }
    assert any("1 row of stage_2_detailed_class_info" in note for note in collection.notes)


def test_official_nih_lists_apply_through_the_mapping(tmp_path):
    root = source(tmp_path / "s")
    (root / "train_val_list.txt").write_text("00000007_000.png\n00000007_001.png\n")
    (root / "test_list.txt").write_text("00000012_000.png\n")
    assert [s.split for s in read_rsna(root).samples] == ["train", "train", "test"]


def test_without_a_mapping_each_image_is_its_own_patient_and_that_is_said(tmp_path):
    collection = read_rsna(source(tmp_path / "s", mapping=None))
    assert [s.patient for s in collection.samples] == ["aa", "bb", "cc"]
    assert any("every image counts as its own patient" in note for note in collection.notes)


def test_a_mapping_with_a_gap(tmp_path):
    collection = read_rsna(source(tmp_path / "s", mapping=MAPPING.rsplit("cc", 1)[0]))
    assert [s.patient for s in collection.samples] == ["7", "7", None]
    assert any("1 image is not in patientId_to_nih.csv" in note for note in collection.notes)


def test_the_labels_file_itself_will_do_and_missing_images_are_noted(tmp_path):
    root = source(tmp_path / "s")
    (root / "stage_2_train_images" / "cc.png").unlink()
    collection = read_rsna(root / "stage_2_train_labels.csv")
    assert [s.id for s in collection.samples] == ["aa", "bb"]
    assert any("1 of the 3 images" in note for note in collection.notes)
    assert read_rsna(root, need_images=False).samples[2].source == "stage_2_train_images/cc.dcm"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("dd,,,,,2", "'Target' 0 or 1"),
        ("dd,1,2,3", "'Target' 0 or 1"),
        (",,,,,0", "patientId"),
        ("aa,,,,,0", "further up"),
        ("aa,1,2,3,4,1", "keep one of them"),
        ("bb,1,2,x,4,1", "four numbers"),
        ("bb,,,,,1", "four numbers"),
        ("bb,1,2,0,4,1", "positive size"),
        ("bb,900,2,300,4,1", "beyond its image"),
        ("bb,inf,2,300,4,1", "finite"),
    ],
)
def test_bad_rows_are_set_aside_by_file_and_line(tmp_path, row, message):
    collection = read_rsna(source(tmp_path / "s", rows=(*ROWS, row)))
    (skipped,) = collection.skipped
    assert message in skipped.reason and skipped.where.endswith("stage_2_train_labels.csv line 6")
    assert [len(s.boxes) for s in collection.samples] == [0, 2, 0]


def test_an_image_that_lost_its_only_box_does_not_count_as_healthy(tmp_path):
    collection = read_rsna(source(tmp_path / "s", rows=("aa,1,1,0,1,1", "bb,,,,,0")))
    assert collection.samples[0].boxes is None and collection.samples[0].labels.tolist() == [1]
    assert len(collection.samples[1].boxes) == 0


def test_what_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"stage_2_train_labels\.csv"):
        read_rsna(tmp_path)
    root = source(tmp_path / "s", ending=".bmp", rows=("zz,,,,,0",))
    with pytest.raises(InputError, match="none of the 1 images"):
        read_rsna(root)
    (root / "stage_2_train_labels.csv").write_text("patientId,x\n")
    with pytest.raises(InputError, match=r"found patientId, x; missing: y, width, height, Target"):
        read_rsna(root)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda t: f"{HEADER}\n{ROWS[1]}\n".encode() + t),
    ),
    name=st.sampled_from(
        ["stage_2_train_labels.csv", "patientId_to_nih.csv", "stage_2_detailed_class_info.csv.gz"]
    ),
)
def test_random_bytes_never_give_a_traceback(tmp_path_factory, data, name):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "stage_2_train_labels.csv").write_text("\n".join([HEADER, *ROWS]))
    (root / name).write_bytes(data)
    message = ""
    try:
        assert isinstance(read_rsna(root, need_images=False), Collection)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
