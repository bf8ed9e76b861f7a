"""An archive's files: views, copies, UIDs, nested boxes, and captures of a size that can be sent."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dicom_support import write_radiograph
from twinray.jobs.predict.config import PredictConfig
from twinray.jobs.predict.run import NESTED, nested_in
from twinray.jobs.predict.run import run as predict
from twinray.records import Boxes


@pytest.fixture
def archive(tmp_path: Path, blobs: Path) -> Path:
    """Two frontal images, three laterals told in three ways, copies, and pictures that have no header."""
    folder = tmp_path / "archive"
    (folder / "again").mkdir(parents=True)
    pixels = [np.asarray(Image.open(blobs.parent / "images" / f"im00{i}.png")) for i in range(6)]
    for i, view in enumerate(("PA", "AP", "LL", "LATERAL")):
        write_radiograph(
            folder / f"{i}.dcm", pixels[i], SOPInstanceUID=f"1.2.3.{i}", ViewPosition=view
        )
    write_radiograph(folder / "4.dcm", pixels[4], SOPInstanceUID="1.2.3.4", ViewPosition="RLO")
    shutil.copy(folder / "0.dcm", folder / "again" / "0.dcm")
    Image.fromarray(pixels[5]).save(folder / "5.png")
    Image.fromarray(pixels[5]).save(folder / "again" / "5.tif")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_only_frontal_views_are_predicted_where_that_is_asked_for(
    archive, detect_run, tmp_path, cli
):
    out = tmp_path / "p"
    status, shown, err = cli(
        "predict", detect_run, archive, "--out", out, "--views", "frontal", "--strict"
    )
    assert status == 0, err
    assert "3 images, 0 set aside" in shown and "3 lateral or oblique views left out" in shown
    assert {Path(row["file"]).name for row in rows(out / "predictions.csv")} <= {
        "0.dcm",
        "1.dcm",
        "5.png",
    }
    left = {Path(row["file"]).name: row["reason"] for row in rows(out / "left_out.csv")}
    assert set(left) == {"2.dcm", "3.dcm", "4.dcm"}
    assert "(LL)" in left["2.dcm"]
    assert not (out / "skipped.csv").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["views"], summary["left_out"], summary["copies"]) == ("frontal", 3, 2)
    status, shown, err = cli("predict", detect_run, archive, "--out", tmp_path / "all")
    assert status == 0, err
    assert "6 images" in shown
    assert (
        "3 files are DICOM images of lateral or oblique views; --views frontal leaves such out"
        in shown
    )


def test_laterals_alone_are_one_line(archive, detect_run, tmp_path, cli):
    files = [archive / f"{i}.dcm" for i in (2, 3)]
    status, _, err = cli(
        "predict", detect_run, *files, "--out", tmp_path / "p", "--views", "frontal"
    )
    assert status == 2
    assert "twinray: all 2 images are lateral or oblique views; give --views all" in err


def test_copies_are_predicted_once_and_named(archive, detect_run, tmp_path, cli):
    out = tmp_path / "p"
    status, shown, err = cli("predict", detect_run, archive, "--out", out)
    assert status == 0, err
    assert "2 copies of these images were not predicted again" in shown
    copies = {row["file"].rsplit("/", 1)[-1]: row["copy_of"] for row in rows(out / "copies.csv")}
    assert set(copies) == {"0.dcm", "5.tif"}
    assert copies["5.tif"].endswith("archive/5.png")
    assert len(list((out / "overlays").iterdir())) == 6
    assert len(list((out / "dicom").glob("*-sc.dcm"))) == 5
    images = json.loads((out / "images.json").read_text())["images"]
    assert len(images) == 6


def test_one_uid_with_two_pictures_is_told_and_both_are_predicted(
    archive, detect_run, tmp_path, cli
):
    other = pydicom.dcmread(archive / "1.dcm").pixel_array[::-1]
    write_radiograph(archive / "other.dcm", np.ascontiguousarray(other), SOPInstanceUID="1.2.3.1")
    status, shown, err = cli("predict", detect_run, archive, "--out", tmp_path / "p")
    assert status == 0, err
    assert "7 images" in shown
    assert "1 file has the SOP instance UID of another file and other pixels" in shown


def test_every_row_names_study_series_and_image(archive, detect_run, tmp_path):
    out = predict(
        PredictConfig(detect_run, archive, tmp_path / "p", overlays=False, dicom_objects=False)
    )
    for row in rows(out / "predictions.csv"):
        uids = (row["study_uid"], row["series_uid"], row["sop_uid"])
        if row["file"].endswith(".png"):
            assert uids == ("", "", "")
            continue
        header = pydicom.dcmread(row["file"], stop_before_pixels=True)
        assert uids == (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)


def test_classifiers_rows_name_them_too(archive, class_pack, tmp_path, cli):
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--arch",
        "resnet18",
        "--size",
        32,
        "--out",
        tmp_path / "c",
    )
    assert status == 0, err
    status, _, err = cli(
        "predict", tmp_path / "c", archive, "--out", tmp_path / "p", "--views", "frontal"
    )
    assert status == 0, err
    found = rows(tmp_path / "p" / "predictions.csv")
    assert [row["sop_uid"] for row in found] == ["1.2.3.0", "1.2.3.1", ""]
    assert len(rows(tmp_path / "p" / "copies.csv")) == 2


def test_captures_are_smaller_and_hold_the_same_pixels(archive, detect_run, tmp_path):
    large = np.asarray(Image.open(archive / "5.png").resize((900, 1000)))
    write_radiograph(archive / "large.dcm", large, SOPInstanceUID="1.2.3.9")
    made = {}
    for how in ("jpeg2000", "uncompressed"):
        out = predict(
            PredictConfig(
                detect_run, archive / "large.dcm", tmp_path / how, captures=how, overlays=False
            )
        )
        (path,) = (out / "dicom").glob("*-sc.dcm")
        made[how] = path.stat().st_size, pydicom.dcmread(path)
    compressed, plain = made["jpeg2000"][1], made["uncompressed"][1]
    assert compressed.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert compressed.PhotometricInterpretation == "YBR_RCT"
    np.testing.assert_array_equal(compressed.pixel_array, plain.pixel_array)
    assert made["jpeg2000"][0] < made["uncompressed"][0] / 3
    assert compressed.get("LossyImageCompression", "00") != "01"


def boxes(*found: tuple[float, float, float, float, int]) -> Boxes:
    table = np.array(found, dtype=np.float64).reshape(-1, 5)
    scores = np.linspace(0.9, 0.1, len(table))
    return Boxes(table[:, :4], table[:, 4].astype(np.int64), scores)


def test_boxes_in_one_another_show_one_region():
    found = boxes(
        (0, 0, 100, 100, 0),  # the best
        (10, 10, 30, 30, 0),  # in it
        (10, 10, 30, 30, 1),  # of another class
        (90, 90, 190, 190, 0),  # a corner in common
        (-10, -10, 120, 110, 0),  # around the best
        (12, 12, 20, 20, 0),  # in two that show one region: of the best
        (95, 95, 110, 110, 0),  # in the fourth
    )
    assert nested_in(found).tolist() == [-1, 0, -1, -1, 0, 0, 3]
    assert nested_in(Boxes.empty()).tolist() == []


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 4, st.integers(0, 1)), max_size=12))
def test_whatever_is_shown_shares_no_region(corners):
    found = boxes(*((x, y, x + w, y + h, c) for x, y, w, h, c in corners))
    within = nested_in(found)
    for i, of in enumerate(within.tolist()):
        others = [of] if of >= 0 else [j for j in range(i) if within[j] < 0]
        for j in others:
            assert j < i and within[j] < 0
            a, b = found.xyxy[i], found.xyxy[j]
            both = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
            least = min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))
            shared = found.labels[i] == found.labels[j] and least > 0 and both >= NESTED * least
            assert shared == (of >= 0)


def test_nested_boxes_are_marked_and_merged_unless_kept(archive, detect_run, tmp_path):
    options = {"score_threshold": 0.0, "overlays": False, "dicom_objects": False}
    merged = predict(PredictConfig(detect_run, archive, tmp_path / "m", **options))
    kept = predict(PredictConfig(detect_run, archive, tmp_path / "k", nested="keep", **options))
    first, second = rows(merged / "predictions.csv"), rows(kept / "predictions.csv")
    assert [{**row, "shown": ""} for row in first] == [{**row, "shown": ""} for row in second]
    assert {row["shown"] for row in second} == {"1"}
    assert all((row["shown"] == "1") == (row["nested_in"] == "") for row in first)
    nested = sum(row["nested_in"] != "" for row in first)
    assert nested > 0
    summary = json.loads((merged / "summary.json").read_text())
    assert summary["boxes_nested"] == {"n": nested, "how": "merge"}
    assert summary["boxes_shown"] == len(first) - nested
