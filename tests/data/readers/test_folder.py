"""Layouts of folders, patients by expression and by table, and what is refused or set aside."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twinray.data.readers.folder import read_folder
from twinray.errors import InputError

KERMANY = r"(person\d+)_|(IM-\d+)-"


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5), 7, dtype=np.uint8)).save(path, format="PNG")
    return root


def labels_of(collection) -> dict[str, str]:
    return {s.id: collection.label_classes[int(np.argmax(s.labels))] for s in collection.samples}


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    found = read_folder(put(tmp_path, "b.png", "a.png"))
    assert [s.id for s in found.samples] == ["a.png", "b.png"]
    assert found.task == "none"
    assert all(s.labels is None and s.boxes is None and s.split is None for s in found.samples)
    assert any("no patient ids" in note for note in found.notes)
    assert found.load(found.samples[0]).array.shape == (4, 5)


def test_class_folders_give_sorted_classes_at_any_depth(tmp_path: Path) -> None:
    found = read_folder(put(tmp_path, "sick/x.png", "healthy/deep/er/y.png", "healthy/z.png"))
    assert (found.label_classes, found.task) == (("healthy", "sick"), "multiclass")
    assert labels_of(found) == {
        "healthy/deep/er/y.png": "healthy",
        "healthy/z.png": "healthy",
        "sick/x.png": "sick",
    }


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    found = read_folder(put(tmp_path, "train/a/1.png", f"{val}/b/2.png", "testing/a/3.png"))
    assert {s.id: s.split for s in found.samples} == {
        "train/a/1.png": "train",
        f"{val}/b/2.png": "val",
        "testing/a/3.png": "test",
    }
    assert found.label_classes == ("a", "b")


def test_split_folders_without_classes(tmp_path: Path) -> None:
    found = read_folder(put(tmp_path, "train/1.png", "test/2.png"))
    assert [s.split for s in found.samples] == ["test", "train"]
    assert found.task == "none"


def test_one_folder_around_everything_is_nesting(tmp_path: Path) -> None:
    found = read_folder(put(tmp_path, "chest/train/a/1.png", "chest/test/b/2.png"))
    assert {s.split for s in found.samples} == {"train", "test"}
    assert any("chest" in note for note in found.notes)
    assert read_folder(put(tmp_path / "other", "images/1.png", "images/2.png")).task == "none"


def test_junk_is_ignored_and_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png", "__MACOSX/a/1.png", ".hidden/3.png", "a/._1.png")
    for name in (".DS_Store", "Thumbs.db", "a/desktop.ini"):
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "a" / "list.csv").write_text("hello")
    found = read_folder(tmp_path)
    assert [s.id for s in found.samples] == ["a/1.png", "b/2.png"]
    assert any(
        note.startswith("2 files") and ".csv 1" in note and ".txt 1" in note for note in found.notes
    )
    assert not found.skipped


def test_a_dicom_file_is_known_by_its_mark(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "1.2.840.1").write_bytes(bytes(128) + b"DICM" + bytes(10))
    assert [s.id for s in read_folder(tmp_path).samples] == ["1.2.840.1", "a.png"]


def test_a_link_that_leads_back_up_ends(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(read_folder(tmp_path).samples) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "a/2.png", "b/3.png"], "found both"),
        (["train/a/1.png", "extra/2.png"], "extra beside them"),
        (["train/1.png", "train/a/2.png"], "found both"),
        (["train/a/1.png", "loose.png"], "loose.png beside them"),
    ],
)
def test_an_ambiguous_layout_is_refused_and_flat_resolves_it(
    tmp_path: Path, names: list[str], message: str
) -> None:
    put(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path)
    flat = read_folder(tmp_path, layout="flat")
    assert len(flat.samples) == len(names)
    assert flat.task == "none"


def test_missing_empty_and_imageless_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_folder(tmp_path / "none")
    with pytest.raises(InputError, match="found nothing"):
        read_folder(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"found 1 other files \(.txt 1\)"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        read_folder(tmp_path / "a.txt")


def test_patients_by_expression(tmp_path: Path) -> None:
    names = [
        "person12_virus_3.jpeg",
        "person12_bacteria_1.jpeg",
        "NORMAL2-IM-0123-0001.jpeg",
        "IM-0007-0001-0002.jpeg",
    ]
    found = read_folder(put(tmp_path, *names, "other.jpeg"), patient_regex=KERMANY)
    assert {s.id: s.patient for s in found.samples} == dict(
        zip(names, ["person12", "person12", "IM-0123", "IM-0007"], strict=True)
    )
    assert [s.where for s in found.skipped] == ["other.jpeg"]


def test_patients_by_folder(tmp_path: Path) -> None:
    put(tmp_path, "p1/study/1.png", "p2/1.png")
    found = read_folder(tmp_path, patient_regex=r"^(p\d+)/", layout="flat")
    assert [s.patient for s in found.samples] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("(", "not a regular expression"),
        ("abc", "expected a group"),
        ("(zzz)", "matches none of the 1"),
    ],
)
def test_bad_expressions_are_refused(tmp_path: Path, regex: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_folder(put(tmp_path, "a.png"), patient_regex=regex)


def test_a_table_gives_patients_splits_labels_and_attributes(tmp_path: Path) -> None:
    put(tmp_path, "x/1.png", "x/2.png", "y/3.png", "y/unlisted.png")
    table = tmp_path / "table.csv"
    table.write_text(
        "Path,Patient,Split,Label,Age\nx/1.png,p1,train,a|b,61\n2.png,p1,valid,a,\ny\\3.png,,,,40\n"
        "gone.png,p2,train,a,3\nx/1.png,p3,train,a,3\n",
        encoding="utf-8-sig",
    )
    found = read_folder(tmp_path, table=table)
    one, two, three = found.samples
    assert (found.task, found.label_classes) == ("multilabel", ("a", "b"))
    assert (one.patient, one.split, one.labels.tolist(), dict(one.attributes)) == (
        "p1",
        "train",
        [1, 1],
        {"Age": "61"},
    )
    assert (two.patient, two.split, two.labels.tolist()) == ("p1", "val", [1, 0])
    assert (three.patient, three.split, three.labels) == (None, None, None)
    assert {s.where for s in found.skipped} == {
        f"{table} line 5",
        f"{table} line 6",
        "y/unlisted.png",
    }


def test_a_bad_split_in_a_table_sets_its_row_aside(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    table = tmp_path / "t.csv"
    table.write_text("path,split\n1.png,sometimes\n2.png,test\n")
    found = read_folder(tmp_path, table=table)
    assert [s.id for s in found.samples] == ["2.png"]
    assert any("sometimes" in s.reason for s in found.skipped)


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    table = tmp_path / "t.csv"
    with pytest.raises(InputError, match="could not read the table"):
        read_folder(tmp_path, table=table)
    table.write_text("name,patient\n1.png,p\n")
    with pytest.raises(InputError, match="expected a column 'path'"):
        read_folder(tmp_path, table=table)
    table.write_text("path,patient\nother.png,p\n")
    with pytest.raises(InputError, match="no row of"):
        read_folder(tmp_path, table=table)
    table.write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_folder(tmp_path, table=table)
    table.write_text("path,patient\n1.png,p\n")
    with pytest.raises(InputError, match="give one of them"):
        read_folder(tmp_path, table=table, patient_regex="(1)")


@given(
    st.from_regex(
        r"person\d{1,4}_(bacteria|virus)_\d{1,4}\.jpeg|(NORMAL2-)?IM-\d{4}-\d{4}(-\d{4})?\.jpeg",
        fullmatch=True,
    )
)
def test_the_documented_expression_finds_a_patient_in_every_name(name: str) -> None:
    match = re.search(KERMANY, name)
    assert match is not None
    assert any(match.groups())


@pytest.mark.parametrize(
    "column", ["subject_id", "patientId", "PatientID", "Patient ID", "case_id"]
)
def test_usual_names_of_patient_columns_are_read(tmp_path, column):
    put(tmp_path / "s", "a.png", "b.png")
    table = tmp_path / "t.csv"
    table.write_text(f"path,{column},label\na.png,p1,x\nb.png,nan,x\n")
    found = read_folder(tmp_path / "s", table=table)
    assert [sample.patient for sample in found.samples] == ["p1", None]
    assert (
        f"t.csv gives patients from '{column}', labels from 'label'; no column of splits"
        in found.notes
    )


def test_a_column_of_another_name_is_named_and_can_be_asked_for(tmp_path):
    put(tmp_path / "s", "a.png", "b.png")
    table = tmp_path / "t.csv"
    table.write_text("path,patient hash,use\na.png,p1,train\nb.png,p2,val\n")
    notes = read_folder(tmp_path / "s", table=table).notes
    assert any("--patient-column 'patient hash' takes it" in note for note in notes)
    assert any("the column 'use' holds names of splits but was not read" in note for note in notes)
    found = read_folder(tmp_path / "s", table=table, patient_column="patient hash")
    assert [sample.patient for sample in found.samples] == ["p1", "p2"]
    with pytest.raises(InputError, match="expected the column 'who'"):
        read_folder(tmp_path / "s", table=table, patient_column="who")


@pytest.mark.parametrize(
    ("header", "first", "second", "named"),
    [
        ("a,b", "0,1", "1,0", "('a', 'b')"),
        ("a,b,c,d", "0,1,0,0", "1,0,1,1", "('a', 'b', 'c', ...)"),
        ("a,age", "0,1", "1,0", "('a', 'age')"),
        ("age", "3", "5", None),
        ("view", "0", "0", None),
        ("label,flag", "x,0", "y,1", None),
    ],
)
def test_columns_of_0_and_1_that_look_like_labels_are_named(tmp_path, header, first, second, named):
    put(tmp_path / "s", "a.png", "b.png")
    table = tmp_path / "t.csv"
    table.write_text(f"path,{header}\na.png,{first}\nb.png,{second}\n")
    found = [note for note in read_folder(tmp_path / "s", table=table).notes if "0 and 1" in note]
    assert (
        found == []
        if named is None
        else f"look like labels but were not read {named}; to use them" in found[0]
    )


@pytest.mark.parametrize("word", ["validate", "VALID", "dev", "tuning", "Validation"])
def test_split_words_of_the_field_are_read(tmp_path, word):
    put(tmp_path / "s", "a.png", "b.png")
    table = tmp_path / "t.csv"
    table.write_text(f"path,Subset\na.png,{word}\nb.png,train\n")
    assert [s.split for s in read_folder(tmp_path / "s", table=table).samples] == ["val", "train"]


def test_many_rows_of_an_unknown_split_are_refused_before_anything_is_cut(tmp_path):
    names = [f"{k}.png" for k in range(6)]
    put(tmp_path / "s", *names)
    table = tmp_path / "t.csv"
    words = ["train", "train", "train", "train", "hold", "hold"]
    rows = "".join(f"{n},{w}\n" for n, w in zip(names, words, strict=True))
    table.write_text("path,split\n" + rows)
    with pytest.raises(InputError, match=r"found 'hold' \(2 rows\); nothing was cut"):
        read_folder(tmp_path / "s", table=table)
