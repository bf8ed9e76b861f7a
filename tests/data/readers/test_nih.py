"""NIH ChestX-ray14's tables: broken headers, official lists, boxes in a frame of their own, partial copies."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.nih import BOX_CLASSES, FRAME, LABEL_CLASSES, read_nih
from twinray.errors import InputError
from twinray.records import Collection

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
ROWS = (
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,",
    "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171,",
    "00000003_000.png,Infiltration,0,00003,30,F,AP,2500,2048,0.171,0.171,",
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOXES = (
    "00000001_000.png,Cardiomegaly,256,512,512,256,,,",
    "00000003_000.png,Infiltrate,0,0,100.5,200",
)


def source(root: Path, rows=ROWS, boxes=BOXES, images=None, folder="images_001/images") -> Path:
    root.mkdir(exist_ok=True)
    (root / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [row.split(",")[0] for row in ROWS] if images is None else images:
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(root / folder / name)
    return root


def lists(root: Path, train_val: str, test: str) -> None:
    (root / "train_val_list.txt").write_text(train_val)
    (root / "test_list.txt").write_text(test)


def test_labels_patients_boxes_and_attributes(tmp_path):
    collection = read_nih(source(tmp_path / "s"))
    assert collection.label_classes == LABEL_CLASSES and len(LABEL_CLASSES) == 15
    assert collection.box_classes == BOX_CLASSES and collection.task == "multilabel"
    first, second, healthy, fourth = collection.samples
    assert [s.patient for s in collection.samples] == ["1", "1", "2", "3"]
    assert {LABEL_CLASSES[i] for i in np.flatnonzero(second.labels)} == {
        "Cardiomegaly",
        "Emphysema",
    }
    assert np.flatnonzero(healthy.labels).tolist() == [14]
    assert first.source == "images_001/images/00000001_000.png" and first.boxes_frame == FRAME
    assert first.boxes.xyxy.tolist() == [[256, 512, 768, 768]]
    assert fourth.boxes.labels.tolist() == [BOX_CLASSES.index("Infiltration")]
    assert healthy.boxes is None, "never annotated is not the same as no box"
    assert first.attributes["sex"] == "M" and first.attributes["original_height"] == "2749"
    assert not collection.skipped


def test_the_2020_table_says_sex_and_may_be_gzipped(tmp_path):
    root = source(tmp_path / "s")
    text = (root / "Data_Entry_2017.csv").read_text().replace("Patient Gender", "Patient Sex")
    (root / "Data_Entry_2017.csv").unlink()
    (root / "Data_Entry_2017_v2020.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert [s.attributes["sex"] for s in read_nih(root).samples] == ["M", "M", "F", "F"]


def test_official_lists_become_splits(tmp_path):
    root = source(tmp_path / "s")
    lists(root, "00000001_000.png\n00000001_001.png\n00000002_000.png\n", "00000003_000.png\n")
    assert [s.split for s in read_nih(root).samples] == ["train", "train", "train", "test"]
    (root / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(InputError, match="is in both"):
        read_nih(root)
    (root / "test_list.txt").unlink()
    with pytest.raises(InputError, match=r"no test_list\.txt"):
        read_nih(root)


def test_boxes_are_scaled_to_the_stored_pixels(tmp_path):
    root = source(tmp_path / "s")
    lists(root, "\n".join(row.split(",")[0] for row in ROWS[:3]), "00000003_000.png")
    write_pack([read_nih(root)], tmp_path / "p", PackOptions(size=32, val=0), workers=0)
    pack = open_pack(tmp_path / "p")
    assert pack.boxes(0).xyxy.tolist() == [[16, 32, 48, 48]], "64 stored pixels for a frame of 1024"
    assert pack.splits.tolist() == ["train", "train", "train", "test"]


def test_a_shard_finds_the_tables_above_it_and_shares_its_patients(tmp_path):
    root = source(tmp_path / "s", images=["00000001_000.png"])
    other = root / "images_002"
    other.mkdir()
    (root / "images_001" / "images" / "00000001_000.png").rename(other / "00000001_001.png")
    Image.new("L", (8, 8)).save(root / "images_001" / "images" / "00000001_000.png")
    a, b = read_nih(root / "images_001"), read_nih(other)
    assert [s.id for s in a.samples] == ["00000001_000.png"] and [s.id for s in b.samples] == [
        "00000001_001.png"
    ]
    assert a.name == b.name and a.samples[0].patient == b.samples[0].patient


def test_a_partial_copy_is_one_note(tmp_path):
    root = source(tmp_path / "s", images=["00000001_000.png", "other.png"])
    collection = read_nih(root)
    assert len(collection.samples) == 1 and not collection.skipped
    assert any("3 of the 4 images" in note for note in collection.notes)
    assert any(
        "1 image on disk is not in" in note and "other.png" in note for note in collection.notes
    )
    assert len(read_nih(root, need_images=False).samples) == 4


def test_converted_copies_are_found_by_stem_and_elsewhere(tmp_path):
    root = source(tmp_path / "s", images=["00000002_000.jpg"], folder="elsewhere")
    collection = read_nih(root, images_root=root / "elsewhere")
    assert [(s.id, s.source) for s in collection.samples] == [
        ("00000002_000.png", "00000002_000.jpg")
    ]
    assert collection.load(collection.samples[0]).array.shape == (64, 64)


@pytest.mark.parametrize(
    ("rows", "boxes", "message"),
    [
        (("00000009_000.png,Cold,0,9,57,M,PA",), (), "'Cold'"),
        (("00000009_000.png,,0,9,57,M,PA",), (), "expected findings"),
        (("00000009_000.png,No Finding|Mass,0,9",), (), "alone"),
        (("00000009_000.png,Mass,0,,57",), (), "Patient ID"),
        (("00000009_000.png,Mass",), (), "Patient ID"),
        ((",Mass,0,9",), (), "Image Index"),
        ((ROWS[0],), (), "further up"),
        ((), ("00000001_000.png,Hernia,1,2,3,4",), "'Hernia'"),
        ((), ("00000077_000.png,Mass,1,2,3,4",), "00000077_000.png"),
        ((), ("00000001_000.png,Mass,1,2,x,4",), "four numbers"),
        ((), ("00000001_000.png,Mass,1,2",), "four numbers"),
        ((), ("00000001_000.png,Mass,1,2,0,4",), "positive size"),
        ((), ("00000001_000.png,Mass,1,2,nan,4",), "four numbers"),
        ((), ("00000001_000.png,Mass,1,2,inf,4",), "finite"),
        ((), ("00000001_000.png,Mass,1000,2,300,4",), "beyond its image"),
    ],
)
def test_bad_rows_are_set_aside_by_file_and_line(tmp_path, rows, boxes, message):
    collection = read_nih(source(tmp_path / "s", rows=(*ROWS, *rows), boxes=(*BOXES, *boxes)))
    assert len(collection.samples) == 4
    (skipped,) = collection.skipped
    assert message in skipped.reason
    assert skipped.where.endswith("line 6" if rows else "line 4")


@pytest.mark.parametrize("header", ["a,b,c", "", "Image Index,Finding Labels"])
def test_missing_columns_name_what_was_expected_and_found(tmp_path, header):
    root = source(tmp_path / "s")
    (root / "Data_Entry_2017.csv").write_text(header + "\n1,2,3\n")
    with pytest.raises(
        InputError, match=r"expected the columns Image Index, .* found .*missing: .*Patient ID"
    ):
        read_nih(root)


def test_what_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_nih(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"Data_Entry_2017\.csv"):
        read_nih(tmp_path)
    with pytest.raises(InputError, match="none of the 4 images"):
        read_nih(source(tmp_path / "s", images=[]))
    (tmp_path / "s" / "BBox_List_2017.csv").unlink()
    assert any("no BBox_List" in note for note in read_nih(tmp_path / "s", need_images=False).notes)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=120).map(lambda tail: f"{HEADER}\n{ROWS[0]}\n".encode() + tail),
        st.binary(max_size=80).map(lambda tail: f"{BOX_HEADER}\n{BOXES[0]}\n".encode() + tail),
    ),
    name=st.sampled_from(
        ["Data_Entry_2017.csv", "Data_Entry_2017.csv.gz", "BBox_List_2017.csv", "test_list.txt"]
    ),
)
def test_random_bytes_never_give_a_traceback(tmp_path_factory, data, name):
    root = tmp_path_factory.mktemp("fuzz") / "s"
    root.mkdir()
    (root / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *ROWS]))
    lists(root, "a", "b")
    if name.endswith(".gz"):
        (root / "Data_Entry_2017.csv").unlink()
    (root / name).write_bytes(data)
    message = ""
    try:
        assert isinstance(read_nih(root, need_images=False), Collection)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
