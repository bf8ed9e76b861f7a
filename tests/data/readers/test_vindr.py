"""VinDr-CXR's tables: both layouts, readers, votes on labels, fusion, original sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.vindr.order import groups, published_order
from twinray.data.readers.vindr.reader import fuse_vindr, read_raw_vindr, read_vindr
from twinray.data.readers.vindr.rows import (
    BOX_CLASSES,
    GLOBAL_CLASSES,
    NO_FINDING,
    OTHER_BOX_CLASSES,
)
from twinray.errors import InputError
from twinray.records import Collection

KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
ROWS = (
    "a,Cardiomegaly,3,R1,100,200,300,400",
    "a,Cardiomegaly,3,R2,102,198,300,400",
    "a,Nodule/Mass,8,R3,10,20,30,40",
    "b,No finding,14,R1,,,,",
    "b,No finding,14,R2,,,,",
    "b,No finding,14,R3,,,,",
)
LOCAL = BOX_CLASSES + OTHER_BOX_CLASSES
LABELS = (*LOCAL, *GLOBAL_CLASSES, NO_FINDING)


def kaggle(
    root: Path, rows=ROWS, meta: str | None = None, images=("a", "b"), side=(500, 400)
) -> Path:
    (root / "train").mkdir(parents=True)
    (root / "train.csv").write_text("\n".join([KAGGLE, *rows]) + "\n")
    if meta is not None:
        (root / "train_meta.csv").write_text(meta)
    for key in images:
        Image.new("L", side).save(root / "train" / f"{key}.png")
    return root


def physionet(root: Path, train_labels: list[str] | None = None) -> Path:
    folder = root / "annotations"
    folder.mkdir(parents=True)
    (folder / "annotations_train.csv").write_text(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        "a,R1,Rib fracture,1,2,30,40\na,R2,Rib fracture,2,2,30,40\na,R3,No finding,,,,\nb,R1,No finding,,,,\n"
    )
    (folder / "annotations_test.csv").write_text(
        "image_id,class_name,x_min,y_min,x_max,y_max\nt,ILD,1,2,30,40\nt,ILD,2,2,30,40\nu,No finding,,,,\n"
    )
    for split, names, cells in (("train", LABELS, train_labels), ("test", LABELS, ["t", "u"])):
        if cells is None:
            continue
        header = ",".join(names).replace(
            "Other diseases", "Other disease" if split == "test" else "Other diseases"
        )
        lines = [f"image_id,{'rad_id,' if split == 'train' else ''}{header}"]
        if split == "train":
            lines += cells
        else:
            lines += ["t," + marks("ILD", "Other diseases"), "u," + marks(NO_FINDING)]
        (folder / f"image_labels_{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def marks(*present: str) -> str:
    return ",".join("1" if name in present else "0" for name in LABELS)


def by_id(collection: Collection):
    return {sample.id: sample for sample in collection.samples}


def test_kaggle_raw_boxes_keep_their_readers(tmp_path):
    collection = read_vindr(kaggle(tmp_path / "s"), fusion_iou=0)
    assert collection.box_classes == BOX_CLASSES and collection.label_classes == (
        *BOX_CLASSES,
        NO_FINDING,
    )
    a, b = collection.samples
    assert a.boxes.readers == ("R1", "R2", "R3") and a.boxes.xyxy[0].tolist() == [
        100,
        200,
        300,
        400,
    ]
    assert a.source == "train/a.png" and a.patient is None and a.split is None
    assert np.flatnonzero(a.labels).tolist() == [3, 8]
    assert len(b.boxes) == 0 and np.flatnonzero(b.labels).tolist() == [14]
    # who read b and drew nothing is known too
    assert [one.attributes["readers"] for one in (a, b)] == ["R1;R2;R3", "R1;R2;R3"]
    assert any("no patient ids" in note for note in collection.notes)
    assert any("no train_meta.csv" in note for note in collection.notes)


def test_kaggle_boxes_are_fused_with_the_number_of_readers(tmp_path):
    root = kaggle(tmp_path / "s")
    a = by_id(read_vindr(root))["a"]
    assert a.boxes.n_readers.tolist() == [2, 1] and a.boxes.readers is None
    assert a.boxes.xyxy[0].tolist() == [101, 199, 300, 400]
    agreed = by_id(read_vindr(root, min_readers=2))
    assert agreed["a"].boxes.labels.tolist() == [3]
    assert np.flatnonzero(agreed["a"].labels).tolist() == [3], (
        "labels need as many readers as boxes do"
    )
    assert len(by_id(read_vindr(root, min_readers=3))["a"].boxes) == 0


def test_original_sizes_come_from_the_meta_table(tmp_path):
    meta = "image_id,dim0,dim1\na,3000,2000\nb,x,2000\nz,1,1\n"
    collection = read_vindr(
        kaggle(tmp_path / "s", rows=(*ROWS, "a,ILD,5,R1,1,1,2500,90"), meta=meta)
    )
    assert by_id(collection)["a"].boxes_frame == (2000, 3000), "dim0 is the height"
    assert len(by_id(collection)["a"].boxes) == 2
    reasons = sorted(s.reason for s in collection.skipped)
    assert len(reasons) == 2 and "dim0 and dim1" in reasons[0] and "beyond its image" in reasons[1]


def test_physionet_votes_consensus_and_official_splits(tmp_path):
    told = [
        "a,R1," + marks("Rib fracture", "Pneumonia"),
        "a,R2," + marks("Rib fracture"),
        "a,R3," + marks(NO_FINDING),
        "b,R1," + marks(NO_FINDING),
    ]
    root = physionet(tmp_path / "s", told)
    for min_readers, expected in ((1, {"Rib fracture", "Pneumonia"}), (2, {"Rib fracture"})):
        samples = by_id(read_vindr(root, need_images=False, min_readers=min_readers))
        assert {LABELS.index(name) for name in expected} == set(
            np.flatnonzero(samples["a"].labels == 1).tolist()
        )
    assert [samples[k].split for k in "abtu"] == ["train", "train", "test", "test"]
    assert samples["a"].boxes.n_readers.tolist() == [2]
    assert len(samples["t"].boxes) == 2 and samples["t"].boxes.n_readers is None, (
        "a consensus is not fused again"
    )
    assert {LABELS[i] for i in np.flatnonzero(samples["t"].labels)} == {"ILD", "Other diseases"}
    assert {LABELS[i] for i in np.flatnonzero(samples["u"].labels)} == {NO_FINDING}
    assert samples["t"].source == "test/t.dicom"


def test_physionet_without_label_tables(tmp_path):
    root = physionet(tmp_path / "s")
    (root / "annotations" / "image_labels_test.csv").unlink()
    collection = read_vindr(root, need_images=False)
    assert collection.label_classes == (*LOCAL, NO_FINDING)
    assert any("labels of its images come from boxes" in note for note in collection.notes)


def test_what_one_label_table_does_not_say_is_not_known(tmp_path):
    a = by_id(read_vindr(physionet(tmp_path / "s"), need_images=False))["a"]
    assert np.isnan(a.labels[LABELS.index("Pneumonia")]) and a.labels[LABELS.index("ILD")] == 0


def test_label_columns_must_be_the_published_ones(tmp_path):
    root = physionet(tmp_path / "s", ["a,R1," + marks(NO_FINDING)])
    path = root / "annotations" / "image_labels_train.csv"
    path.write_text(path.read_text().replace("ILD", "Ild"))
    with pytest.raises(InputError, match=r"missing: ILD; not known: Ild"):
        read_vindr(root, need_images=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,cardiomegaly,3,R1,1,2,3,4", "names must be exact"),
        ("a,Rib fracture,3,R1,1,2,3,4", "14 box classes"),
        ("a,ILD,5,,1,2,3,4", "rad_id"),
        (",ILD,5,R1,1,2,3,4", "image_id"),
        ("a,ILD,5,R1,1,2,x,4", "four numbers"),
        ("a,ILD,5,R1,,,,", "four numbers"),
        ("a,ILD,5,R1,3,2,3,4", "positive size"),
        ("a,ILD,5,R1,3,2,nan,4", "four numbers"),
        ("a,ILD,5,R1,3,2,inf,4", "finite"),
        ("a,ILD,5,R1,-30,2,3,4", "beyond its image"),
        ("b,No finding,14,R1,1,2,3,4", "expected no box"),
    ],
)
def test_bad_rows_are_set_aside_by_file_and_line(tmp_path, row, message):
    collection = read_vindr(kaggle(tmp_path / "s", rows=(*ROWS, row)))
    (skipped,) = collection.skipped
    assert message in skipped.reason and skipped.where.endswith("train.csv line 8")
    assert len(by_id(collection)["a"].boxes) == 2


def test_what_a_lost_row_might_have_said_is_not_known(tmp_path):
    a = by_id(
        read_vindr(kaggle(tmp_path / "s", rows=("a,Typo,3,R1,1,2,3,4", "b,ILD,5,R2,1,2,3,4")))
    )["a"]
    assert a.boxes is None and np.isnan(a.labels).all()


def test_the_annotation_file_itself_will_do(tmp_path):
    root = kaggle(tmp_path / "s")
    (root / "train.csv").rename(root / "rows.csv")
    assert len(read_vindr(root / "rows.csv").samples) == 2
    with pytest.raises(InputError, match=r"expected train\.csv"):
        read_vindr(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion_iou": 1.0}, "--fusion-iou"),
        ({"fusion_iou": -0.1}, "--fusion-iou"),
        ({"fusion_iou": float("nan")}, "--fusion-iou"),
        ({"fusion_iou": 0, "min_readers": 2}, "--min-readers needs"),
        ({"min_readers": 0}, "--min-readers"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        read_vindr(kaggle(tmp_path / "s"), **options)


def test_bad_sources(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_vindr(tmp_path / "nowhere")
    root = kaggle(tmp_path / "s", images=())
    with pytest.raises(InputError, match="none of the 2 images"):
        read_vindr(root)
    (root / "train.csv").write_text(KAGGLE.replace("rad_id", "who") + "\n" + ROWS[0])
    with pytest.raises(InputError, match="column rad_id"):
        read_vindr(root)
    (root / "train.csv").write_text(KAGGLE)
    with pytest.raises(InputError, match="only a header"):
        read_vindr(root)


boxes = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from(["ILD", "Calcification"]), st.sampled_from(["R1", "R2", "R3"]),
        st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(boxes, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(tmp_path_factory, rows, random):
    results = []
    for _ in range(2):
        root = tmp_path_factory.mktemp("order")
        lines = [f"{i},{name},0,{who},{x},{y},{x + w},{y + h}" for i, name, who, x, y, w, h in rows]
        (root / "train.csv").write_text("\n".join([KAGGLE, *lines]) + "\n")
        fused = fuse_vindr(read_raw_vindr(root, need_images=False), 0.5, 1)
        results.append(
            [(s.id, s.boxes.xyxy.tobytes(), s.boxes.n_readers.tolist()) for s in fused.samples]
        )
        random.shuffle(rows)
    assert results[0] == results[1]


def test_groups_that_are_not_recorded_are_taken_by_content():
    xyxy = np.array([[5.0, 0, 9, 9], [1, 0, 9, 9], [1, 0, 8, 9], [0, 0, 1, 1]])
    assert published_order(["a", "a", "a", "b"], ["x"] * 4, xyxy, ["R"] * 4).tolist() == [
        2,
        1,
        0,
        0,
    ]
    ((key, rows),) = groups(["a", "a", "a", "b"], ["x"] * 4, xyxy, ["R"] * 4)
    assert len(key) == 16 and rows.tolist() == [2, 1, 0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=120).map(lambda t: f"{KAGGLE}\n{ROWS[0]}\n".encode() + t),
    ),
    name=st.sampled_from(["train.csv", "train_meta.csv", "annotations/image_labels_train.csv"]),
)
def test_random_bytes_never_give_a_traceback(tmp_path_factory, data, name):
    root = tmp_path_factory.mktemp("fuzz") / "s"
    if name.startswith("annotations"):
        physionet(root)
    else:
        kaggle(root, images=())
    (root / name).write_bytes(data)
    message = ""
    try:
        assert isinstance(read_vindr(root, need_images=False), Collection)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
