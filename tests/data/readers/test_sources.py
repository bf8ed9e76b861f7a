"""What every source goes through, whatever its format: splits by place, patients from headers, folders that are no classes, losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dicom_support import write_radiograph
from twinray.data.pack import read_info
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.errors import InputError
from twinray.records import Collection


def coco_of(folder: Path, name: str, n: int, first: int = 0, **record: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([len(folder.name), n, first])
    names = [f"{folder.name}{first + k}.png" for k in range(n)]
    for one in names:
        Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / one)
    images = [{"id": k + 1, "file_name": one, **record} for k, one in enumerate(names)]
    path = folder / name
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return path


def packed_splits(collections: list[Collection], out: Path) -> dict[str, set[str]]:
    write_pack(collections, out, PackOptions(size=16), workers=0)
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    return {
        name: {r["split"] for r in rows if r["source"].startswith(name)}
        for name in ("train", "valid", "test")
    }


def test_split_folders_of_coco_files_keep_their_splits(tmp_path: Path) -> None:
    files = [
        coco_of(tmp_path / name, "_annotations.coco.json", n, patient_id="7")
        for name, n in (("train", 12), ("valid", 3), ("test", 3))
    ]
    collections = read_sources("coco", files, SourceOptions())
    assert packed_splits(collections, tmp_path / "p") == {
        "train": {"train"},
        "valid": {"val"},
        "test": {"test"},
    }
    info = read_info(tmp_path / "p")
    assert any("1 patient (18 images) is in several splits" in note for note in info.notes), (
        "one patient in all parts"
    )
    flat = read_sources("coco", files, SourceOptions(layout="flat"))
    assert all(sample.split is None for collection in flat for sample in collection.samples)


def test_what_none_of_the_parts_has_is_cut_out_of_train(tmp_path: Path) -> None:
    files = [coco_of(tmp_path / name, "a.json", n) for name, n in (("train", 20), ("valid", 4))]
    splits = packed_splits(read_sources("coco", files, SourceOptions()), tmp_path / "p")
    assert splits["train"] == {"train", "test"}
    assert splits["valid"] == {"val"}


def test_names_of_coco_files_tell_splits(tmp_path: Path) -> None:
    for name, split in (
        ("instances_val2017.json", "val"),
        ("_annotations.coco.train.json", "train"),
        ("dev.json", "val"),
    ):
        (found,) = read_sources("coco", [coco_of(tmp_path / "x", name, 3)], SourceOptions())
        assert {sample.split for sample in found.samples} == {split}
        assert any(
            f"all 3 images are {split}: so says the name of the file" in n for n in found.notes
        )
    (alone,) = read_sources(
        "coco", [coco_of(tmp_path / "y" / "test", "a.json", 3)], SourceOptions()
    )
    assert {sample.split for sample in alone.samples} == {None}, (
        "a folder called test alone tells nothing"
    )
    odd = coco_of(tmp_path / "z" / "train", "test.json", 3)
    (tmp_path / "z" / "test").mkdir()
    with pytest.raises(InputError, match="says test, that of its folder train"):
        read_sources("coco", [odd], SourceOptions())


def test_split_folders_given_one_by_one_keep_their_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("Training", 8), ("validate", 4), ("testing", 4)):
        for k in range(n):
            path = tmp_path / name / "AB"[k % 2] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(path)
    folders = [tmp_path / name for name in ("Training", "validate", "testing")]
    collections = read_sources("folder", folders, SourceOptions())
    assert [{s.split for s in c.samples} for c in collections] == [{"train"}, {"val"}, {"test"}]
    assert all(c.by_place for c in collections)
    apart = read_sources("folder", folders[:1], SourceOptions())
    assert {s.split for s in apart[0].samples} == {None}


def dicoms(folder: Path, patients: list[str], per_patient: int = 2, **more: object) -> Path:
    for k, patient in enumerate(patients):
        for i in range(per_patient):
            path = folder / f"f{k}" / f"IM{i}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * k + i).integers(0, 255, (20, 20))
            uid = f"1.2.3.{k}.{i}"
            write_radiograph(path, pixels, PatientID=patient, SOPInstanceUID=uid, **more)
    return folder


def test_dicom_folders_of_patients_are_no_classes(tmp_path: Path) -> None:
    source = dicoms(tmp_path / "s", ["A1", "A2", "A3"])
    with pytest.raises(
        InputError, match=r"6 DICOM files .* lie in 3 folders of one patient each.*--format dicom"
    ):
        read_sources("folder", [source], SourceOptions())
    (flat,) = read_sources("folder", [source], SourceOptions(layout="flat"))
    assert [s.patient for s in flat.samples] == ["A1", "A1", "A2", "A2", "A3", "A3"]
    assert flat.task == "none"
    (studies,) = read_sources("dicom", [source], SourceOptions())
    assert {s.patient for s in studies.samples} == {"A1", "A2", "A3"}


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        ({"p1": "A", "p2": "B", "copies": "AB"}, "3 folders, 2 of them of one patient each"),
        ({"p1": "A", "p2": "B", "p3": "C", "mixed": "ABC"}, "4 folders, 3 of them"),
        ({"s1": "A", "s2": "A", "s3": "B"}, "3 folders of one patient each"),  # studies
        ({"sick": "ABC", "well": "D"}, None),
        ({"a": "ABC", "b": "DE", "c": "F", "d": "G"}, None),
    ],
)
def test_folders_of_patients_beside_another_folder_are_no_classes_either(
    tmp_path: Path, folders: dict[str, str], told: str | None
) -> None:
    for k, (name, patients) in enumerate(folders.items()):
        for i, patient in enumerate(patients):
            path = tmp_path / "s" / name / f"{i}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            uid = f"1.2.3.{k}.{i}"
            write_radiograph(
                path, np.full((20, 20), 9 * k + i), PatientID=patient, SOPInstanceUID=uid
            )
    if told is None:
        (found,) = read_sources("folder", [tmp_path / "s"], SourceOptions())
        assert found.label_classes == tuple(folders)
    else:
        with pytest.raises(InputError, match=told):
            read_sources("folder", [tmp_path / "s"], SourceOptions())


def test_dicom_class_folders_have_patients_from_headers(tmp_path: Path) -> None:
    for name, patients in (("sick", ["A", "B"]), ("well", ["C", "D"])):
        for k, patient in enumerate(patients):
            path = tmp_path / "s" / name / f"{k}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_radiograph(path, np.full((20, 20), 9 * k), PatientID=patient)
    (found,) = read_sources("folder", [tmp_path / "s"], SourceOptions())
    assert [s.patient for s in found.samples] == ["A", "B", "C", "D"]
    assert found.label_classes == ("sick", "well")
    assert any(
        "patients of 4 images are those of their DICOM headers" in note for note in found.notes
    )


def test_dicom_folders_without_patients_are_told(tmp_path: Path) -> None:
    (found,) = read_sources("folder", [dicoms(tmp_path / "s", ["", "", ""])], SourceOptions())
    assert any(
        "3 folders, which were taken for classes, and have no patient id" in n for n in found.notes
    )


@pytest.mark.parametrize("name", ["coco", "vindr"])
def test_readers_that_meet_dicom_take_patients_from_headers(tmp_path: Path, name: str) -> None:
    dicoms(tmp_path / "s" / "train", ["A", "B"], 1)
    for k in (0, 1):
        (tmp_path / "s" / "train" / f"f{k}" / "IM0.dcm").rename(
            tmp_path / "s" / "train" / f"k{k}.dicom"
        )
    images = [{"id": k, "file_name": f"train/k{k}.dicom"} for k in (0, 1)]
    (tmp_path / "s" / "a.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": []})
    )
    head = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    (tmp_path / "s" / "train.csv").write_text(
        head + "k0,ILD,5,R1,1,2,9,9\nk1,No finding,14,R1,,,,\n"
    )
    source = tmp_path / "s" / "a.json" if name == "coco" else tmp_path / "s"
    (found,) = read_sources(name, [source], SourceOptions())
    assert [s.patient for s in found.samples] == ["A", "B"]
    assert not any(note.startswith("no patient ids") for note in found.notes)


def test_an_expression_that_loses_a_class_is_loud(tmp_path: Path) -> None:
    names = [
        "PNEUMONIA/person1_bacteria_1.png",
        "PNEUMONIA/person2_virus_3.png",
        "NORMAL/IM-0115-0001.png",
        "NORMAL/NORMAL2-IM-7-0001.png",
    ]
    for k, name in enumerate(names):
        path = tmp_path / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 9 * k).save(path)
    lost, whole = (
        read_sources("folder", [tmp_path / "s"], SourceOptions(patient_regex=regex))[0]
        for regex in (r"^(\w+?)_", r"(person\d+)_|(IM-\d+)-")
    )
    assert any(
        "WARNING: class 'NORMAL' vanishes: none of its 2 images is left: --patient-regex" in n
        for n in lost.notes
    )
    assert [s.patient for s in whole.samples] == ["IM-0115", "IM-7", "person1", "person2"]
    assert not any("WARNING" in note for note in whole.notes)


def test_folders_that_look_like_patients_are_told(tmp_path: Path) -> None:
    for k in range(24):
        path = tmp_path / "s" / f"patient{k // 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 9 * k).save(path)
    (found,) = read_sources("folder", [tmp_path / "s"], SourceOptions())
    assert any(
        "12 folders were taken for classes of 24 images; if they are patients" in n
        for n in found.notes
    )


def test_most_of_a_class_that_cannot_be_decoded_is_loud(tmp_path: Path) -> None:
    for k in range(12):
        path = tmp_path / "s" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 9 * k).save(path)
        if k % 2 and k > 2:
            path.write_bytes(path.read_bytes()[:60])
    info = write_pack(
        read_sources("folder", [tmp_path / "s"], SourceOptions()),
        tmp_path / "p",
        PackOptions(size=16),
        workers=0,
    ).info
    assert info.notes[0] == (
        "WARNING: class 'b' loses most of its images: 1 of 6 are left (skipped.csv says why)"
    )
