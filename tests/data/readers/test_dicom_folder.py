"""Folders of DICOM files: what is found, ids, patients, tables, copies, pseudonyms, and what is set aside."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.pseudonyms import Pseudonyms
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.errors import InputError
from twinray.records import Collection

CR = "1.2.840.10008.5.1.4.1.1.1"
DIRECTORY = "1.2.840.10008.1.3.10"


def refusal(call: Callable[[], object]) -> str | None:
    """What an InputError says, None where nothing was refused; any other exception passes."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def put(
    path: Path,
    number: int,
    *,
    patient: str = "",
    view: str = "PA",
    sop: str | None = None,
    sop_class: str = CR,
) -> Path:
    """A small radiograph: 8-bit secondary values ``10 * number`` and brighter."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.UID(sop_class)
    own = f"1.2.3.{number}" if sop is None else sop
    ds.file_meta.MediaStorageSOPInstanceUID = uid.UID(own or "1.2")
    ds.SOPInstanceUID = own
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.{number // 2}", f"1.2.{number // 2}.1"
    ds.PatientID, ds.PatientSex, ds.PatientAge, ds.Modality = patient, "F", "047Y", "CR"
    ds.PatientName = "Doe^Jane"
    ds.ViewPosition, ds.ImageLaterality, ds.BodyPartExamined = view, "U", "CHEST"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 6, 8, 8, 8, 7
    ds.PixelRepresentation = 0
    ds.PixelData = (np.arange(48, dtype=np.uint8) + 10 * number).tobytes()
    ds["PixelData"].VR = "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """As a hospital exports: nested, partly without suffix, with a directory and a viewer beside it."""
    root = tmp_path / "export"
    put(root / "ST1/IM1", 1, patient="SECRET-7")
    put(root / "ST1/IM2", 2, patient="SECRET-7", view="LL")
    put(root / "ST2/SE1/image.dcm", 3, patient="SECRET-8", view="")
    put(root / "ST3/4.DICOM", 4)
    put(root / "DICOMDIR", 5, sop_class=DIRECTORY)
    put(root / "copy-of-dicomdir", 6, sop_class=DIRECTORY)
    (root / "viewer.exe").write_bytes(b"MZ")
    (root / "README").write_text("open the viewer")
    (root / ".hidden").write_bytes(bytes(128) + b"DICM")
    return root


def test_files_are_found_by_content(export: Path) -> None:
    found = read_dicom_folder(export)
    assert [s.source for s in found.samples] == [
        "ST1/IM1",
        "ST1/IM2",
        "ST2/SE1/image.dcm",
        "ST3/4.DICOM",
    ]
    assert [s.id for s in found.samples] == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"]
    assert (found.name, found.task, found.label_classes) == ("export", "none", ())
    assert "2 files that are not DICOM (.exe 1, no suffix 1): skipped" in found.notes
    assert "1 DICOM directory (DICOMDIR under another name): skipped" in found.notes
    assert not found.skipped


def test_patients_and_attributes_come_from_headers(export: Path) -> None:
    found = read_dicom_folder(export)
    assert [s.patient for s in found.samples] == ["SECRET-7", "SECRET-7", "SECRET-8", None]
    assert dict(found.samples[1].attributes) == {
        "study_uid": "1.2.1",
        "series_uid": "1.2.1.1",
        "sop_uid": "1.2.3.2",
        "modality": "CR",
        "body_part": "CHEST",
        "view_position": "LL",
        "laterality": "U",
        "sex": "F",
        "age": "047Y",
    }
    assert "view_position" not in found.samples[2].attributes
    assert any(note.startswith("1 file has no patient id") for note in found.notes)
    assert any("treat what is made of them as patient data" in note for note in found.notes)


def test_patient_ids_are_never_told(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (export / "bad.dcm").write_bytes((export / "ST1/IM1").read_bytes()[:400])
    found = read_dicom_folder(export)
    printed = capsys.readouterr()
    told = " ".join(
        [*found.notes, *(s.where + s.reason for s in found.skipped), printed.out, printed.err]
    )
    assert "SECRET" not in told
    assert "Doe" not in told


def test_laterals_are_refused_by_the_decoder_if_only_frontals_are_wanted(export: Path) -> None:
    found = read_dicom_folder(export, frontal_only=True)
    load = pickle.loads(pickle.dumps(found.load))
    assert load(found.samples[0]).array[0, 0] == 10
    with pytest.raises(InputError, match="expected a frontal view, got LL"):
        load(found.samples[1])
    assert read_dicom_folder(export).load(found.samples[1]).array[0, 0] == 20


def write_table(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_table_states_labels_splits_and_patients(export: Path) -> None:
    table = write_table(
        export / "labels.csv",
        ["path", "patient", "split", "label", "scanner"],
        ["ST1/IM1", "a", "train", "nodule|mass", "X"],
        ["ST1/IM2", "a", "train", "", ""],
        ["image.dcm", "", "test", "mass", ""],
        ["nothing.dcm", "b", "", "", ""],
    )
    found = read_dicom_folder(export, table=table)
    assert (found.label_classes, found.task) == (("mass", "nodule"), "multilabel")
    assert [s.patient for s in found.samples] == ["a", "a", None]
    assert [s.split for s in found.samples] == ["train", "train", "test"]
    assert [None if s.labels is None else s.labels.tolist() for s in found.samples] == [
        [1, 1],
        None,
        [1, 0],
    ]
    assert found.samples[0].attributes["scanner"] == "X"
    assert found.samples[0].attributes["modality"] == "CR"
    assert sorted(s.where for s in found.skipped) == [
        f"{table} line 5",
        "ST3/4.DICOM",
        "copy-of-dicomdir",
    ]
    assert not any("skipped" in note and ".csv" in note for note in found.notes)
    assert any("labels.csv gives patients from 'patient'" in note for note in found.notes)


def test_a_table_without_patients_leaves_those_of_the_headers(export: Path) -> None:
    table = write_table(
        export.parent / "t.csv", ["path", "label"], ["IM1", "sick"], ["image.dcm", "well"]
    )
    found = read_dicom_folder(export, table=table)
    assert [s.patient for s in found.samples] == ["SECRET-7", "SECRET-8"]
    assert (found.task, [s.labels.tolist() for s in found.samples]) == (
        "multiclass",
        [[1, 0], [0, 1]],
    )


def test_copies_are_left_out_and_shared_uids_fall_back_to_paths(tmp_path: Path) -> None:
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 1)
    put(tmp_path / "c", 2, sop="1.2.9")
    put(tmp_path / "d", 3, sop="1.2.9")
    put(tmp_path / "e", 4, sop="")
    put(tmp_path / "f", 4, sop="")
    found = read_dicom_folder(tmp_path)
    assert [(s.id, s.source) for s in found.samples] == [
        ("1.2.3.1", "a"), ("c", "c"), ("d", "d"), ("e", "e"), ("f", "f"),
    ]  # fmt: skip
    assert "1 file is a copy of another and was left out (first: b of a)" in found.notes
    assert any(
        note.startswith("2 different files share a SOP instance UID") for note in found.notes
    )


def test_pseudonyms_hide_ids_and_keep_groups(export: Path) -> None:
    plain = read_dicom_folder(export)

    def under(key: str) -> Collection:
        (found,) = read_sources(
            "dicom", [export], SourceOptions(), pseudonyms=Pseudonyms(key), attributes=["sop_uid"]
        )
        return found

    hidden, again, other = under("a long secret"), under("a long secret"), under("another secret")
    assert [s.patient for s in hidden.samples] == [s.patient for s in again.samples]
    assert hidden.samples[0].patient == hidden.samples[1].patient != hidden.samples[2].patient
    assert hidden.samples[3].patient is None
    assert hidden.samples[0].patient != other.samples[0].patient
    assert len({s.id for s in hidden.samples}) == 4
    for old, new in zip(plain.samples, hidden.samples, strict=True):
        assert old.id not in repr((new.id, new.patient, dict(new.attributes)))
        assert "1.2." not in repr((new.id, new.source, dict(new.attributes)))
        assert new.attributes == {"sop_uid": new.id}
        assert old.source not in new.source
    assert not any("patient data" in note for note in hidden.notes)
    with pytest.raises(InputError, match="a secret key"):
        Pseudonyms(" ")


def test_one_patient_id_everywhere_is_told(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"{i}", i, patient="ANON")
    notes = read_dicom_folder(tmp_path).notes
    assert any("all files carry the same patient id" in note for note in notes)
    assert "ANON" not in " ".join(notes)


def test_broken_files_are_set_aside(export: Path) -> None:
    (export / "no-mark.dcm").write_bytes(b"hello" * 50)
    (export / "empty.dcm").write_bytes(b"")
    (export / "cut").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    found = read_dicom_folder(export)
    assert len(found.samples) >= 4
    reasons = {s.where: s.reason for s in found.skipped}
    assert "expected 'DICM' at byte 128" in reasons["no-mark.dcm"]
    assert "empty file" in reasons["empty.dcm"]
    assert all("\n" not in reason for reason in reasons.values())


def test_folders_without_dicom_are_refused(tmp_path: Path, export: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_dicom_folder(tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        read_dicom_folder(export / "README")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="found none; check the path"):
        read_dicom_folder(empty)
    (empty / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"found 1 file that is not DICOM \(.png 1\)"):
        read_dicom_folder(empty)
    (empty / "b").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    put(empty / "directory", 1, sop_class=DIRECTORY)
    (empty / "b").unlink()
    with pytest.raises(InputError, match="none of the 1 DICOM files"):
        read_dicom_folder(empty)
    with pytest.raises(InputError, match="could not read the table"):
        read_dicom_folder(export, table=tmp_path / "none.csv")


def test_a_link_that_leads_back_up_ends(export: Path) -> None:
    (export / "ST1" / "loop").symlink_to(export)
    assert len(read_dicom_folder(export).samples) == 4


def test_a_folder_is_packed_in_a_worker_and_laterals_are_set_aside(
    export: Path, tmp_path: Path
) -> None:
    found = read_dicom_folder(export, frontal_only=True)
    result = write_pack([found], tmp_path / "pack", PackOptions(size=16, val=0, test=0), workers=1)
    assert result.skipped == 1
    pack = open_pack(tmp_path / "pack")
    assert pack.info.counts["images"] == 3
    aside = (tmp_path / "pack" / "skipped.csv").read_text()
    assert "ST1/IM2" in aside
    assert "frontal" in aside
    assert "SECRET" not in aside


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    tail=st.binary(),
)
def test_mutated_headers_give_samples_or_one_line(
    tmp_path: Path, flips: list[tuple[float, int]], tail: bytes
) -> None:
    root = tmp_path / "set"
    whole = tmp_path / "whole"
    if not whole.exists():
        put(whole, 1, patient="SECRET")
        root.mkdir()
    content = bytearray(whole.read_bytes())
    for where, value in flips:
        content[132 + int(where * (len(content) - 132))] = value
    (root / "1.dcm").write_bytes(content)
    (root / "2").write_bytes(bytes(128) + b"DICM" + tail)
    refused = refusal(lambda: read_dicom_folder(root))
    if refused is None:
        found = read_dicom_folder(root)
        for sample in found.samples:
            said = refusal(lambda sample=sample: found.load(sample))
            assert said is None or len(said.splitlines()) == 1
    else:
        assert len(refused.splitlines()) == 1
