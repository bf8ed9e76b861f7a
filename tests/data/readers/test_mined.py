"""MIMIC-CXR-JPG, BRAX and PadChest in their published layouts: labels, patients, splits, views, and what is left out."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.chexpert import LABELS
from twinray.data.readers.label_readings import LabelReading
from twinray.data.readers.mined.brax import read_brax
from twinray.data.readers.mined.mimic import read_mimic
from twinray.data.readers.mined.padchest import read_padchest
from twinray.errors import InputError
from twinray.records import Collection


def put(path: Path, level: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), level, dtype=np.uint8)).save(path)


def table(path: Path, *rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        gzip.open(path, "wt", newline="")
        if path.suffix == ".gz"
        else path.open("w", newline="") as file
    ):
        csv.writer(file).writerows(rows)


def stated(**labels: str) -> list[str]:
    return [labels.get(name.replace(" ", "_"), "") for name in LABELS]


def label(found: Collection, key: str, name: str) -> float:
    (sample,) = (s for s in found.samples if s.id.endswith(key))
    assert sample.labels is not None
    return float(sample.labels[found.label_classes.index(name)])


def dicom_id(n: int) -> str:
    return "-".join([f"{n:08x}"] * 5)


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Two patients: a study of PA, lateral and an image without a view; a study without labels, for validation."""
    rows = [  # image, patient, study, view
        (1, "10000032", "50414267", "PA"),
        (2, "10000032", "50414267", "LATERAL"),
        (3, "10000032", "50414267", ""),
        (4, "10000764", "57375967", "AP"),
    ]
    table(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz",
        ["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate"],
        *([dicom_id(n), patient, study, view, "21800506"] for n, patient, study, view in rows),
    )
    table(
        tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz",
        ["subject_id", "study_id", *LABELS],
        ["10000032", "50414267", *stated(Edema="1.0", Pneumonia="-1.0", Fracture="0.0")],
    )
    table(
        tmp_path / "mimic-cxr-2.0.0-split.csv.gz",
        ["dicom_id", "study_id", "subject_id", "split"],
        *(
            [dicom_id(n), study, patient, "validate" if n == 4 else "train"]
            for n, patient, study, _ in rows
        ),
    )
    for n, patient, study, _ in rows:
        put(tmp_path / "files" / "p10" / f"p{patient}" / f"s{study}" / f"{dicom_id(n)}.jpg", n)
    return tmp_path


def test_mimic_as_published(mimic: Path) -> None:
    found = read_mimic(mimic)
    assert [s.id.split("/")[-1] for s in found.samples] == [f"{dicom_id(n)}.jpg" for n in (1, 3, 4)]
    assert [s.patient for s in found.samples] == ["10000032", "10000032", "10000764"]
    assert [s.split for s in found.samples] == ["train", "train", "val"]
    assert found.samples[0].attributes["study"] == "s50414267"
    assert found.samples[2].labels is None, "its study has no labels, so nothing is stated"
    first = dicom_id(1) + ".jpg"
    assert (label(found, first, "Edema"), label(found, first, "Pneumonia")) == (1.0, -1.0)
    assert label(found, first, "Fracture") == 0.0
    assert math.isnan(label(found, first, "Atelectasis"))
    assert label(found, first, "No Finding") == 0.0, "a finding is present"
    notes = " ".join(found.notes)
    assert "1 image that is no frontal view was left out" in notes
    assert "1 image has no view in the table and is kept" in notes
    assert "1 image is of a study without labels" in notes
    assert not found.skipped
    assert len(read_mimic(mimic, frontal_only=False).samples) == 4
    as_one = read_mimic(mimic, reading=LabelReading(uncertain="one", blank="zero"))
    assert (label(as_one, first, "Pneumonia"), label(as_one, first, "Atelectasis")) == (1.0, 0.0)


def test_mimic_without_its_tables(mimic: Path) -> None:
    (mimic / "mimic-cxr-2.0.0-chexpert.csv.gz").rename(mimic / "mimic-cxr-2.0.0-negbio.csv.gz")
    assert any("labels are NegBio's" in note for note in read_mimic(mimic).notes)
    (mimic / "mimic-cxr-2.0.0-negbio.csv.gz").unlink()
    bare = read_mimic(mimic)
    assert (bare.task, bare.label_classes) == ("none", ())
    (mimic / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    assert {s.split for s in read_mimic(mimic).samples} == {None}
    (mimic / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    with pytest.raises(InputError, match=r"expected mimic-cxr-2\.0\.0-metadata\.csv"):
        read_mimic(mimic)


def test_splits_of_unknown_words_stop_the_job(mimic: Path) -> None:
    table(
        mimic / "mimic-cxr-2.0.0-split.csv.gz",
        ["dicom_id", "subject_id", "split"],
        *([dicom_id(n), "10000032", "fold1"] for n in (1, 2, 3)),
    )
    with pytest.raises(InputError, match="expected train, validate or test, got 'fold1'"):
        read_mimic(mimic)


BRAX = [
    "DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "StudyDate", *LABELS, "ViewPosition",
    "Rows", "Columns", "Manufacturer",
]  # fmt: skip


def brax_row(n: int, patient: str, view: str = "PA", rows: str = "6", **labels: str) -> list[str]:
    path = f"id_{patient}/Study_{n}/Series_{n}/image-{n}"
    before = [
        f"Anonymized_DICOMs/{path}.dcm",
        f"images/{path}.png",
        f"id_{patient}",
        "F",
        "85 or more",
        f"a{n}",
        "20080101",
    ]
    return [*before, *stated(**labels), view, rows, "8", "3"]  # fmt: skip


def test_brax_as_published(tmp_path: Path) -> None:
    rows = [
        brax_row(1, "a", Edema="1", Pneumonia="-1"),
        brax_row(2, "a", "L"),
        brax_row(3, "b", "", No_Finding="1"),
        brax_row(4, "b", rows="400"),
        brax_row(5, "c"),
    ]
    table(tmp_path / "master_spreadsheet_update.csv", BRAX, *rows)
    for row in rows[:4]:
        put(tmp_path / row[1])
    found = read_brax(tmp_path)
    assert [s.source for s in found.samples] == [rows[0][1], rows[2][1]]
    assert [s.patient for s in found.samples] == ["id_a", "id_b"]
    assert [s.split for s in found.samples] == [None, None]
    assert found.samples[0].attributes["age"] == "85 or more"
    assert label(found, "image-1.png", "Edema") == 1.0
    assert label(found, "image-3.png", "Edema") == 0.0, "No Finding says so"
    assert math.isnan(label(found, "image-3.png", "Support Devices")), (
        "No Finding says nothing of it"
    )
    notes = " ".join(found.notes)
    assert "1 of the 5 images in master_spreadsheet_update.csv are not on this disk" in notes
    assert "1 image that is no frontal view" in notes
    assert "1 image has no view" in notes
    assert [s.reason.split(":")[0] for s in found.skipped] == ["the table says 8 x 400 pixels"]


def test_brax_takes_the_dicom_file_where_the_png_is_not_there(tmp_path: Path) -> None:
    row = brax_row(1, "a")
    table(tmp_path / "master_spreadsheet.csv", BRAX, row)
    (tmp_path / row[0]).parent.mkdir(parents=True)
    (tmp_path / row[0]).write_bytes(b"DICM")
    assert read_brax(tmp_path).samples[0].source == row[0]


PADCHEST = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def padchest(root: Path, *cells: str, views: tuple[str, ...] = ()) -> Path:
    head = [
        "",
        "ImageID",
        "ImageDir",
        "StudyID",
        "PatientID",
        "PatientSex_DICOM",
        "Projection",
        "MethodLabel",
        "Labels",
    ]
    rows = [
        [str(n), f"{n}_x.png", str(n % 2), f"s{n}", f"83{n // 2}", "F", views[n] if views else "PA", "RNN_model", cell]
        for n, cell in enumerate(cells)
    ]  # fmt: skip
    table(root / PADCHEST, head, *rows)
    for n in range(len(cells)):
        put(root / str(n % 2) / f"{n}_x.png", n)
    return root


def test_padchest_as_published(tmp_path: Path) -> None:
    root = padchest(
        tmp_path,
        "['normal']",
        "['pneumonia', ' nodule', 'unchanged']",
        "['unchanged']",
        "['nodule', 'suboptimal study']",
        "['exclude']",
        "",
    )
    found = read_padchest(root)
    assert found.label_classes == ("nodule", "normal", "pneumonia")
    assert [None if s.labels is None else s.labels.tolist() for s in found.samples] == [
        [0, 1, 0],
        [1, 0, 1],
        None,
        [1, 0, 0],
        None,
    ]
    assert [s.patient for s in found.samples] == ["830", "830", "831", "831", "832"]
    assert [s.source for s in found.samples][:2] == ["0/0_x.png", "1/1_x.png"]
    assert found.samples[3].attributes["quality"] == "suboptimal"
    assert found.samples[0].attributes["method"] == "RNN_model"
    assert [s.reason for s in found.skipped] == [
        "its authors mark this image as one to leave out (exclude)"
    ]
    assert any("2 images have no label that says what is seen" in note for note in found.notes)


def test_padchest_views(tmp_path: Path) -> None:
    views = ("PA", "AP_horizontal", "L", "COSTAL", "UNK", "EXCLUDE")
    root = padchest(tmp_path, *["['nodule']"] * 6, views=views)
    assert [s.attributes["view"] for s in read_padchest(root).samples] == [
        "PA",
        "AP_horizontal",
        "UNK",
    ]
    kept = [s.attributes["view"] for s in read_padchest(root, frontal_only=False).samples]
    assert kept == list(views[:5])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=60) | st.from_regex(r"\[('[a-z ]*', ?)*'[a-z]+'\]", fullmatch=True))
def test_any_text_as_labels_is_read_or_set_aside(tmp_path: Path, cell: str) -> None:
    root = padchest(
        tmp_path, "['nodule']", cell.replace("\0", "").replace("\r", " ").replace("\n", " ")
    )
    found = read_padchest(root)
    assert len(found.samples) + len(found.skipped) == 2


def test_padchests_whole_table() -> None:
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.origin).parent / "data" / f"{PADCHEST}.gz" if spec and spec.origin else None
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships PadChest's table, is not installed")
    import twinray.data.readers.mined.padchest as module

    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    faults: Counter[str] = Counter()
    labelled = 0
    for row in rows:
        cell = "" if row["Labels"] == "nan" else row["Labels"]  # as the one CSV reader has it
        labels = module._labels(cell)
        if isinstance(labels, str):
            faults[labels] += 1
        else:
            labelled += bool(labels)
    assert len(rows) == 160_861 and not faults
    assert len({row["PatientID"] for row in rows}) == 67_625
    assert {row["Projection"] for row in rows} <= {
        *module.FRONTAL,
        *module.OTHER_VIEWS,
        "UNK",
        "EXCLUDE",
    }
    assert labelled == 159_981
