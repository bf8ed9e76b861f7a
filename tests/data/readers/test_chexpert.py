"""CheXpert's tables: labels with uncertainty, official splits, views, and what is left out or refused."""

from __future__ import annotations

import csv
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.chexpert import LABELS, read_chexpert
from twinray.errors import InputError

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
SMALL = "CheXpert-v1.0-small/"


def refusal(call: Callable[[], object]) -> str | None:
    """What an InputError says, None where nothing was refused; any other exception passes."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def row(path: str, labels: dict[str, str] | None = None, view: str = "Frontal") -> list[str]:
    return [
        path,
        "Female",
        "68",
        view,
        "AP" if view == "Frontal" else "",
        *((labels or {}).get(n, "") for n in LABELS),
    ]


def table(path: Path, *rows: list[str], header: list[str] = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def put(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8), 10 * i + 7, dtype=np.uint8)).save(root / name)


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """Two training patients, one with a lateral, and one for validation."""
    table(
        tmp_path / "train.csv",
        row(SMALL + "train/patient00001/study1/view1_frontal.jpg", {"Edema": "1.0", "Fracture": "-1.0", "No Finding": "0.0"}),
        row(SMALL + "train/patient00002/study1/view1_frontal.jpg", {"Support Devices": "1.0"}),
        row(SMALL + "train/patient00002/study1/view2_lateral.jpg", {"Support Devices": "1.0"}, "Lateral"),
    )  # fmt: skip
    table(
        tmp_path / "valid.csv",
        row(
            SMALL + "valid/patient64541/study1/view1_frontal.jpg",
            dict.fromkeys(LABELS, "0.0") | {"Edema": "1"},
        ),
    )
    put(
        tmp_path,
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "train/patient00002/study1/view2_lateral.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    )
    return tmp_path


def by_id(collection):
    return {sample.id: sample for sample in collection.samples}


def test_labels_patients_and_splits(chexpert: Path) -> None:
    found = read_chexpert(chexpert)
    assert (found.name, found.label_classes, found.task) == ("chexpert", LABELS, "multilabel")
    assert [s.id for s in found.samples] == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert [s.split for s in found.samples] == ["train", "train", "val"]
    assert [s.patient for s in found.samples] == ["patient00001", "patient00002", "patient64541"]
    first = dict(zip(LABELS, found.samples[0].labels, strict=True))
    assert (first["Edema"], first["Fracture"], first["No Finding"]) == (1.0, -1.0, 0.0)
    assert sum(map(math.isnan, first.values())) == 11
    assert dict(found.samples[0].attributes) == {
        "Sex": "Female",
        "Age": "68",
        "Frontal/Lateral": "Frontal",
        "AP/PA": "AP",
        "study": "study1",
    }
    assert found.notes == (
        "1 lateral view was left out",
        "1 label values are uncertain (-1) and are kept as such",
        "labels are read with --uncertain ignore --blank unknown --no-finding implies",
    )
    assert not found.skipped


def test_pixels_are_those_of_the_listed_file(chexpert: Path) -> None:
    found = read_chexpert(chexpert, frontal_only=False)
    load = pickle.loads(pickle.dumps(found.load))
    levels = {s.id: int(load(s).array[0, 0]) for s in found.samples}
    assert levels["train/patient00002/study1/view2_lateral.jpg"] == 27
    assert levels["valid/patient64541/study1/view1_frontal.jpg"] == 37


def test_laterals_are_kept_if_asked_for(chexpert: Path) -> None:
    found = read_chexpert(chexpert, frontal_only=False)
    assert len(found.samples) == 4
    lateral = by_id(found)["train/patient00002/study1/view2_lateral.jpg"]
    assert dict(lateral.attributes) == {
        "Sex": "Female",
        "Age": "68",
        "Frontal/Lateral": "Lateral",
        "study": "study1",
    }


@pytest.mark.parametrize("place", ["", SMALL, "CheXpert-v1.0/"])
@pytest.mark.parametrize("prefix", ["", SMALL, "CheXpert-v1.0/"])
def test_paths_with_and_without_the_first_folder(tmp_path: Path, place: str, prefix: str) -> None:
    table(
        tmp_path / place / "train.csv", row(prefix + "train/patient00009/study2/view1_frontal.jpg")
    )
    put(tmp_path / place, "train/patient00009/study2/view1_frontal.jpg")
    found = read_chexpert(tmp_path)
    assert [s.id for s in found.samples] == ["train/patient00009/study2/view1_frontal.jpg"]
    assert found.load(found.samples[0]).array.shape == (6, 8)


def test_images_below_the_folder_that_paths_name(tmp_path: Path) -> None:
    table(tmp_path / "valid.csv", row(SMALL + "valid/patient1/study1/view1_frontal.jpg"))
    put(tmp_path, SMALL + "valid/patient1/study1/view1_frontal.jpg")
    assert (
        read_chexpert(tmp_path).samples[0].source
        == SMALL + "valid/patient1/study1/view1_frontal.jpg"
    )


def test_missing_images_are_one_count(chexpert: Path) -> None:
    (chexpert / "train/patient00001/study1/view1_frontal.jpg").unlink()
    (chexpert / "valid/patient64541/study1/view1_frontal.jpg").unlink()
    found = read_chexpert(chexpert)
    assert len(found.samples) == 1
    assert (
        "2 images that the tables list are not there (first: train/patient00001/study1"
        in found.notes[0]
    )
    assert not found.skipped


def test_a_test_table_and_the_view_by_file_name(tmp_path: Path) -> None:
    header = ["Path", *reversed(LABELS)]
    path = "test/patient64741/study1/view1_frontal.jpg"
    lateral = "test/patient64741/study1/view2_lateral.jpg"
    table(tmp_path / "test.csv", [path, "1", *["0"] * 13], [lateral, *["0"] * 14], header=header)
    put(tmp_path, path, lateral)
    found = read_chexpert(tmp_path)
    assert [(s.split, s.labels[-1], s.labels[0]) for s in found.samples] == [("test", 1.0, 0.0)]
    assert "1 lateral view was left out" in found.notes


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("train/nobody/view1_frontal.jpg"), "expected a Path such as"),
        (row("train/../../patient1/view1_frontal.jpg"), "expected a Path such as"),
        (row("/etc/patient1/view1_frontal.jpg"), "expected a Path such as"),
        (row(""), "got nothing"),
        (row("train/patient3/study1/view1_frontal.jpg", {"Edema": "2"}), "under 'Edema', got '2'"),
        (
            row("train/patient3/study1/view1_frontal.jpg", view="Oblique"),
            "expected Frontal or Lateral",
        ),
        (row(SMALL + "train/patient00001/study1/view1_frontal.jpg"), "already has a row"),
        (["train/patient3/study1/view1"], "expected Frontal or Lateral, got nothing"),
    ],
)
def test_bad_rows_are_set_aside(chexpert: Path, bad: list[str], reason: str) -> None:
    put(chexpert, "train/patient3/study1/view1_frontal.jpg")
    with (chexpert / "train.csv").open("a", newline="") as file:
        csv.writer(file).writerow(bad)
    found = read_chexpert(chexpert)
    assert len(found.samples) == 3
    assert [s.where for s in found.skipped] == [f"{chexpert / 'train.csv'} line 5"]
    assert reason in found.skipped[0].reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Path, No Finding"),
        (b"Path,Sex\n", "expected the columns Path, No Finding"),
        (b"\xff\xffP", "expected CSV in UTF-8"),
        ((",".join(HEADER) + "\n").encode(), "found none that can be used"),
        (
            (",".join(HEADER) + "\n" + ",".join(row("train/patient1/s/v_frontal.jpg"))).encode(),
            "none of the 1 images",
        ),
        (
            (
                ",".join(HEADER) + "\n" + ",".join(row("t/patient1/s/v.jpg", view="Lateral"))
            ).encode(),
            "allow laterals",
        ),
        (b'"' + b"x" * 200_000, "expected CSV"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read_chexpert(tmp_path)
    assert "\n" not in str(refused.value)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_chexpert(tmp_path / "none")
    with pytest.raises(InputError, match=r"found neither"):
        read_chexpert(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        read_chexpert(table(tmp_path / "train.csv"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.lists(
        st.text(max_size=40)
        | st.from_regex(r"(train/)?patient\d{1,5}/[a-z./]{0,9}_frontal", fullmatch=True)
    ),
    labels=st.lists(st.sampled_from(["", "1.0", "0.0", "-1.0", "x"]), min_size=14, max_size=14),
)
def test_any_text_in_cells_is_read_or_set_aside(
    tmp_path: Path, paths: list[str], labels: list[str]
) -> None:
    rows = [[path, "", "", "", "", *labels] for path in paths]
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([HEADER, *rows])
    assert (
        len(refusal(lambda: read_chexpert(tmp_path)).splitlines()) == 1
    )  # no image of any row is there


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300))
def test_random_bytes_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_chexpert(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("given", ["", "CheXpert-v1.0 batch 1 (validate & csv)"])
def test_folders_of_batches_are_read_as_one(tmp_path: Path, given: str) -> None:
    first = tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)"
    rows = [
        row(f"CheXpert-v1.0/train/patient{n:05d}/study1/view1_frontal.jpg") for n in (1, 2, 3, 9)
    ]
    table(first / "train.csv", *rows)
    table(first / "valid.csv", row("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"))
    places = {
        1: "CheXpert-v1.0 batch 2 (train 1)/patient00001",
        2: "CheXpert-v1.0 batch 3 (train 2)/patient00002",
        3: "CheXpert-v1.0 batch 2 (train 1)/patient00003",
        4: f"{first.name}/valid/patient64541",
    }
    for n, place in places.items():
        path = tmp_path / place / "study1" / "view1_frontal.jpg"
        path.parent.mkdir(parents=True)
        Image.new("L", (8 + n, 8), 9).save(path)
    found = read_chexpert(tmp_path / given)
    assert [(s.patient, s.split) for s in found.samples] == [
        ("patient00001", "train"), ("patient00002", "train"), ("patient00003", "train"), ("patient64541", "val"),
    ]  # fmt: skip
    assert [found.load(s).array.shape[1] for s in found.samples] == [9, 10, 11, 12]
    assert any("1 image that the tables list is not there" in note for note in found.notes)


def test_words_for_nothing_are_blank(tmp_path: Path) -> None:
    table(
        tmp_path / "train.csv",
        row("train/patient1/study1/view1_frontal.jpg", {"Edema": "nan", "Fracture": "1"}),
    )
    path = tmp_path / "train/patient1/study1/view1_frontal.jpg"
    path.parent.mkdir(parents=True)
    Image.new("L", (8, 8)).save(path)
    found = read_chexpert(tmp_path)
    labels = dict(zip(LABELS, found.samples[0].labels, strict=True))
    assert math.isnan(labels["Edema"])
    assert labels["Fracture"] == 1
    assert (
        "1 cells of train.csv hold nan, null or the like and count as empty (Edema 1)"
        in found.notes
    )
