"""Which data sets hold the same people, by published facts: known by names and files, and decided by ids where there are any."""

from __future__ import annotations

import re

import pytest

from twinray.data.identity import DATA_SETS, Identity, identify, known_as


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nih-cxr14", "nih-cxr14"),
        ("ChestX-ray14", "nih-cxr14"),
        ("rsna-pneumonia", "rsna-pneumonia"),
        ("rsna-pneumonia-detection-challenge", "rsna-pneumonia"),
        ("chexpert", "chexpert"),
        ("CheXpert-v1.0-small", "chexpert"),
        ("chexpert-plus", "chexpert"),
        ("mimic-cxr-jpg-2.1.0", "mimic-cxr"),
        ("vindr-cxr", "vindr-cxr"),
        ("vinbigdata-chest-xray-abnormalities-detection", "vindr-cxr"),
        ("pneumoniamnist_224", "pneumoniamnist"),
        ("chestmnist", "chestmnist"),
        ("organcmnist_64", "organcmnist"),
        ("pathmnist", "pathmnist"),
        ("NCT-CRC-HE-100K", "nct-crc-he-100k"),
        ("kermany-cxr", "kermany-cxr"),
    ],
)
def test_a_source_is_known_by_its_name(name, key):
    found = known_as(name, [])
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize(
    "name", ["cxr", "pneumonia", "oct", "clinic", "chest_xray", "normal", "images"]
)
def test_names_that_anybody_may_use_tell_nothing(name):
    assert known_as(name, ["a.png", "b.png"]) is None


@pytest.mark.parametrize(
    ("files", "key"),
    [
        (["images_001/00000001_000.png", "00030805_012.png"], "nih-cxr14"),
        (
            ["train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_bacteria_1.jpeg"],
            "kermany-cxr",
        ),
        (["test/NORMAL/NORMAL2-IM-0012-0001-0002.jpeg", "x/person10_virus_35.jpg"], "kermany-cxr"),
        (["a/patient00001/study1/view1_frontal.jpg"], "chexpert"),
        (
            ["files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm"],
            "mimic-cxr",
        ),
        (["CNV/CNV-1016042-1.jpeg"], "kermany-oct"),
    ],
)
def test_a_folder_of_any_name_is_known_by_its_files(files, key):
    found = known_as("some folder", files * 20)
    assert found is not None
    assert found.key == key
    assert known_as("some folder", files + [f"{i}.png" for i in range(20)]) is None


def test_what_the_user_states_takes_precedence():
    assert known_as("nih-cxr14", [], "rsna-pneumonia") is DATA_SETS["rsna-pneumonia"]


def told(key: str, image: str, patient: str | None = None, **attributes: str) -> Identity:
    return identify(DATA_SETS[key], image, patient, attributes)


def test_ids_decide_where_a_data_set_keeps_its_origins():
    nih = told("nih-cxr14", "00000061_012.png", "61")
    mapped = told(
        "rsna-pneumonia", "91b2ce38-efaf-4476-b77c-4f363d340f11", "61", nih_image="00000061_012.png"
    )
    assert nih == mapped == Identity("00000061_012", "61")
    numbered = told("rsna-pneumonia", "1", "61")  # an annotation file with NIH's patients
    assert (numbered.patient, numbered.settled) == ("61", True)
    unmapped = "91b2ce38-efaf-4476-b77c-4f363d340f11"
    assert not told("rsna-pneumonia", unmapped, unmapped).settled
    assert not told("chestmnist", "train/0").settled


def test_editions_of_chexpert_and_mimic_name_one_image_alike():
    small = told("chexpert", "train/patient00001/study1/view1_frontal.jpg", "patient00001")
    plus = told("chexpert", "PNG/train/patient00001/study1/view1_frontal.png", None)
    assert small == plus
    image = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
    jpg = told("mimic-cxr", f"files/p10/p10000032/s50414267/{image}.jpg", "10000032")
    dicom = told("mimic-cxr", f"p10/p10000032/s50414267/{image}.dcm", "p10000032")
    assert jpg == dicom == Identity(image, "10000032")


def test_parts_of_an_origin():
    assert told("organamnist", "test/3").part == told("organsmnist", "test/9").part == "test"
    assert told("pathmnist", "test/0").part == told("crc-val-he-7k", "ADI/x.tif").part
    assert told("pathmnist", "val/0").part == told("nct-crc-he-100k", "ADI/x.tif").part
    assert told("medimeta-organs-axial", "0").part == ""


def test_every_row_names_an_origin_of_the_table_and_a_publication():
    keys = list(DATA_SETS)
    for row in DATA_SETS.values():
        assert (
            any(other.origin == row.origin and other is not row for other in DATA_SETS.values())
            or row.key == row.origin
        )
        assert re.search(r"(19|20)\d\d", row.fact), row.key
        for expression in (row.image, row.patient, row.patients):
            assert not expression or re.compile(expression).groups == 1, row.key
    plain = [key for key in keys if not key.startswith("medimeta")]
    for key in plain:
        found = known_as(key, [])
        assert found is DATA_SETS[key], key
