"""Ids that name nobody, ids that name too many, and names of classes that are none: by every reader alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinray.data.classes import checked_classes, vanished
from twinray.data.patients import NO_PATIENTS, checked_patients, is_nobody
from twinray.data.readers.columns import (
    PATIENT,
    find,
    patient_column,
    split_column,
    unread_patients,
    unread_splits,
)
from twinray.errors import InputError
from twinray.records import (
    Boxes,
    Collection,
    Pixels,
    Sample,
    is_split_like,
    split_in_name,
    split_of,
)


def load(_: Sample) -> Pixels:
    return Pixels(np.zeros((4, 4), np.uint8), "none")


def of(*patients: str | None) -> Collection:
    samples = [Sample(f"i{k}", f"i{k}.png", patient=p) for k, p in enumerate(patients)]
    return Collection("c", (), (), "none", samples, load)


@pytest.mark.parametrize(
    "word",
    [
        "nan",
        "None",
        "NULL",
        "ANONYMOUS",
        "Anonymous^Patient",
        "n/a",
        "unknown",
        "-",
        "De-Identified",
        "removed",
    ],
)
def test_ids_that_say_nobody_are_unknown_and_counted(word: str) -> None:
    found = checked_patients(of("p1", word, "p2", word))
    assert [s.patient for s in found.samples] == ["p1", None, "p2", None]
    (note,) = found.notes
    assert note.startswith(f"WARNING: 2 images have a patient id that stands for nobody ({word!r})")


@pytest.mark.parametrize("word", ["nancy", "p0", "Noneman", "anonym123", "A", "10"])
def test_names_that_only_look_so_are_kept(word: str) -> None:
    assert not is_nobody(word)
    assert checked_patients(of("p1", word, "p2")).notes == ()


def test_a_number_among_names_is_a_placeholder_and_among_numbers_a_patient() -> None:
    assert [s.patient for s in checked_patients(of("p1", "0", "p2", "-1")).samples] == [
        "p1", None, "p2", None,
    ]  # fmt: skip
    numbered = of(*(str(k // 2) for k in range(20)))
    assert checked_patients(numbered) is numbered
    many = checked_patients(of(*(str(1 + k // 2) for k in range(20)), *["0"] * 15))
    assert sum(s.patient is None for s in many.samples) == 15


def test_one_patient_far_ahead_is_named_or_shown_by_an_image() -> None:
    source = of(*["p0001"] * 40, *(f"q{k // 2}" for k in range(20)))
    assert any(
        "patient 'p0001' has 40 of 60 images, the next has 2" in n
        for n in checked_patients(source).notes
    )
    (hidden,) = checked_patients(source, tell_ids=False).notes
    assert "p0001" not in hidden
    assert "i0.png" in hidden
    heavy = of(*(p for p, n in (("a", 180), ("b", 170), ("c", 2), ("d", 1)) for _ in range(n)))
    assert checked_patients(heavy).notes == (), "as in NIH's, whose patients have up to 184 images"


def test_when_nobody_is_left_the_usual_note_follows() -> None:
    assert checked_patients(of("nan", "None")).notes[-1] == NO_PATIENTS


@pytest.mark.parametrize(
    "name",
    [
        "subject_id",
        "patientId",
        "PatientID",
        "Patient ID",
        "PATIENT-ID",
        "case_id",
        "Subject",
        "patient.id",
        "MRN",
        "participant_id",
    ],
)
def test_usual_names_of_patient_columns_are_known(name: str) -> None:
    assert find(["path", name, "label"], PATIENT) == name


@pytest.mark.parametrize(
    "name", ["hospital patient key", "patient_hash", "subj/patient", "patient_uid"]
)
def test_columns_that_look_like_patients_are_named_with_the_flag(name: str) -> None:
    assert f"--patient-column {name!r}" in (unread_patients(["path", name], None) or "")
    assert patient_column(["path", name], name, "t.csv") == name
    assert unread_patients(["path", name], "patient") is None


@pytest.mark.parametrize(
    "name", ["Patient Age", "PatientSex", "patient_position", "n_patients", "case_comment", "stage"]
)
def test_columns_that_say_something_of_a_patient_are_none(name: str) -> None:
    assert unread_patients(["path", name], None) is None
    assert find([name], PATIENT) is None


def test_a_patient_column_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"expected the column 'who' in t\.csv, found path, pid"):
        patient_column(["path", "pid"], "who", "t.csv")


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("validate", "val"), ("valid", "val"), ("VALIDATION", "val"), ("dev", "val"), ("Development", "val"),
        ("tuning", "val"), ("train2017", "train"), ("Training", "train"), ("train_set", "train"), ("testing", "test"),
        ("test-set", "test"), (" Test ", "test"), ("later", None), ("holdout", None), ("", None), ("set", None), ("TR", None),
    ],
)  # fmt: skip
def test_split_words_of_the_field(word: str, split: str | None) -> None:
    assert split_of(word) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017", "train"), ("instances_val2017", "val"), ("_annotations.coco.test", "test"), ("dev", "val"),
        ("result", None), ("instances_default", None), ("train_val", None), ("latest", None), ("contest-1", None),
    ],
)  # fmt: skip
def test_splits_in_names_of_files(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_columns_of_splits_are_read_or_named() -> None:
    words = {"train", "validate", "test", ""}
    assert split_column({"split": {"odd"}, "subset": words}) == "split"
    assert split_column({"Subset": words, "view": {"PA"}}) == "Subset"
    assert split_column({"subset": {"1", "2"}}) is None
    assert "'use_for' holds names of splits" in (unread_splits({"use_for": words}, None) or "")
    assert unread_splits({"view": {"PA", "AP"}}, None) is None
    assert is_split_like("Evaluation")
    assert not is_split_like("pneumonia")


def labelled(*classes: str) -> Collection:
    labels = np.eye(len(classes), dtype=np.float32)
    samples = [Sample(c, c, labels=row) for c, row in zip(classes, labels, strict=True)]
    return Collection("c", classes, (), "multiclass", samples, load)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (
            ("Normal", "normal", "ILD"),
            "differ in nothing but their writing and count as several: 'Normal', 'normal'",
        ),
        (("pleural effusion", "Pleural_Effusion"), "'pleural effusion', 'Pleural_Effusion'"),
        (("mass ", "mass"), "'mass ', 'mass'"),
        (("None", "mild"), "'None' (1 image) was taken for a class"),
        (("eval", "holdout"), "'eval', 'holdout' were taken for classes, but look like splits"),
        (
            ("covid_train", "covid_test"),
            "'covid_train', 'covid_test' were taken for classes, but look like splits",
        ),
        (("NORMAL", "PNEUMONIA"), ""),
        (("a", "b", "a-b"), ""),
    ],
)
def test_classes_that_are_most_likely_none_are_told(classes: tuple[str, ...], told: str) -> None:
    notes = checked_classes(labelled(*classes)).notes
    assert [told in note for note in notes] == ([True] if told else [])


def test_classes_that_vanish_are_told() -> None:
    before, after = {"a": 10, "b": 10, "c": 10, "d": 0}, {"a": 0, "b": 4, "c": 5}
    assert vanished("images", before, after) == [
        "WARNING: class 'a' vanishes: none of its 10 images is left",
        "WARNING: class 'b' loses most of its images: 4 of 10 are left",
    ]


def test_nothing_is_said_of_a_sound_source(tmp_path: Path) -> None:
    for source in (of("p1", "p1", "p2", "p3"), of(None, None)):
        assert checked_classes(checked_patients(source)) is source


def test_images_without_a_patient_among_others_are_told() -> None:
    (note,) = checked_patients(of("p1", None, "p2", None)).notes
    assert "2 of 4 images have no patient id (first: i1.png)" in note


@pytest.mark.parametrize("name", ["No finding", "no_finding", "Normal", "HEALTHY", "negative"])
def test_boxes_of_no_finding_are_told(name: str) -> None:
    boxes = Boxes(np.array([[0.0, 0, 1, 1]]), np.zeros(1, np.int64))
    samples = [Sample("a", "a", boxes=boxes), Sample("b", "b", boxes=Boxes.empty())]
    source = Collection("c", (), (name, "mass"), "none", samples, load)
    (note,) = checked_classes(source).notes
    assert note.startswith(f"WARNING: {name!r} has 1 box, but says that there is nothing to box")
