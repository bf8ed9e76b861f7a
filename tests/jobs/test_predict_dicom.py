"""Predictions on DICOM files, the boxes that are shown, and batches."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_support import dciodvfy_errors, write_radiograph
from twinray.errors import InputError
from twinray.evaluation.coco_json import truth_as_coco, write_predictions
from twinray.evaluation.matching import BoxesByImage
from twinray.evaluation.thresholds import FALLBACK_SCORE, choose_thresholds
from twinray.inference.model import Model
from twinray.jobs.predict import run as job
from twinray.jobs.predict.config import PredictConfig
from twinray.records import Boxes
from twinray.runs.results import thresholds_on_val


@pytest.fixture
def films(tmp_path: Path, blobs: Path) -> Path:
    """A blob as PNG, as DICOM in both polarities and, off the square, in a sub-folder; one DICOM without a study."""
    folder = tmp_path / "films"
    (folder / "sub").mkdir(parents=True)
    pixels = np.asarray(Image.open(blobs.parent / "images" / "im000.png"))
    Image.fromarray(pixels).save(folder / "blob.png")
    write_radiograph(folder / "plain.dcm", pixels)
    write_radiograph(
        folder / "inverted.dcm", 255 - pixels, photometric="MONOCHROME1", SOPInstanceUID="1.2.3.4.6"
    )
    wide = np.pad(pixels, ((0, 0), (0, 37)))
    write_radiograph(folder / "sub" / "plain.dcm", wide, SOPInstanceUID="1.2.3.4.7")
    write_radiograph(folder / "nobody.dcm", pixels, without=("StudyInstanceUID",))
    return folder


@pytest.fixture
def own_run(tmp_path: Path, detect_run: Path) -> Path:
    """A copy of the finished run whose description a test may change."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(detect_run / name, run / name)
    return run


def describe(run: Path, thresholds: object) -> None:
    description = json.loads((run / "model.json").read_text())
    description.pop("thresholds", None)
    if thresholds is not None:
        description["thresholds"] = thresholds
    (run / "model.json").write_text(json.dumps(description))


def chosen(scores: list[float]) -> dict:
    """Thresholds of 32 validation images: each score a false positive, so that every rate has its own threshold."""
    truth = {i: Boxes(np.array([[0.0, 0, 5, 5]]), np.array([0])) for i in range(32)}
    found = {
        i: Boxes(np.array([[20.0, 20, 30, 30]]), np.array([0]), np.array([score]))
        for i, score in enumerate(scores)
    }
    return choose_thresholds(truth, found, ["blob"]).as_json()


def few(own_run: Path, paths: Path, out: Path) -> float:
    """A threshold that six boxes reach."""
    found = job.run(PredictConfig(own_run, (paths,), out, overlays=False, dicom_objects=False))
    return sorted(entry["score"] for entry in json.loads((found / "predictions.json").read_text()))[
        -6
    ]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_name(out: Path, name: str) -> list[dict[str, str]]:
    return [row for row in rows(out / "predictions.csv") if row["file"].endswith(name)]


def test_training_stores_thresholds_with_the_model(detect_run):
    stored = json.loads((detect_run / "model.json").read_text())["thresholds"]
    assert stored["fp_per_image"] == 0.25
    assert [point["fp_per_image"] for point in stored["operating_points"]] == [
        0.125,
        0.25,
        0.5,
        1,
        2,
        4,
        8,
    ]
    (blob,) = stored["per_class"].values()
    # the fixture has a handful of validation images: marked, not believed
    assert blob["threshold"] == FALLBACK_SCORE and "validation images" in blob["fallback"]
    assert stored["n_images"] == len(
        json.loads((detect_run / "truth_val.json").read_text())["images"]
    )


def test_the_models_thresholds_decide_what_is_shown(films, own_run, tmp_path, capsys):
    options = {"overlays": False, "dicom_objects": False, "nested": "keep"}
    everything = job.run(
        PredictConfig(own_run, (films,), tmp_path / "all", score_threshold=0.0, **options)
    )
    all_rows = rows(everything / "predictions.csv")
    assert {row["shown"] for row in all_rows} == {"1"}
    scores = sorted(
        {entry["score"] for entry in json.loads((everything / "predictions.json").read_text())}
    )
    assert len(scores) > 12
    describe(own_run, chosen(scores[-12:]))
    for rate, wanted in ((None, scores[-8]), (0.125, scores[-4])):
        out = tmp_path / f"rate-{rate}"
        job.run(PredictConfig(own_run, (films,), out, fp_per_image=rate, **options))
        said = capsys.readouterr().out
        found = json.loads((out / "predictions.json").read_text())
        n_shown = sum(entry["score"] >= wanted for entry in found)
        assert [row["shown"] for row in rows(out / "predictions.csv")].count("1") == n_shown > 0
        assert len(found) == len(all_rows)
        summary = json.loads((out / "summary.json").read_text())
        assert summary["thresholds"]["per_class"]["blob"]["threshold"] == wanted
        assert summary["thresholds"]["fp_per_image"] == (rate or 0.25)
        assert (summary["boxes_shown"], summary["images"], summary["set_aside"]) == (n_shown, 5, 0)
        assert (
            f"{n_shown} boxes shown: by class, for {rate or 0.25:g} false positives per image"
            in said
        )
        assert not (out / "dicom").exists()


def test_without_stored_thresholds_a_fixed_one_is_named(films, own_run, tmp_path, capsys):
    describe(own_run, None)
    out = job.run(PredictConfig(own_run, (films / "blob.png",), tmp_path / "p", overlays=False))
    assert "score >= 0.3 (fixed: the model holds no thresholds)" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["thresholds"]["per_class"] == {
        "blob": FALLBACK_SCORE
    }
    with pytest.raises(InputError, match="give --score-threshold in place of"):
        job.run(PredictConfig(own_run, (films,), tmp_path / "q", fp_per_image=1.0))
    describe(own_run, chosen([0.5]))
    with pytest.raises(InputError, match="one of those stored"):
        job.run(PredictConfig(own_run, (films,), tmp_path / "q", fp_per_image=0.3))
    describe(own_run, {"per_class": {}})
    with pytest.raises(InputError, match="thresholds cannot be read"):
        job.run(PredictConfig(own_run, (films,), tmp_path / "q"))
    job.run(
        PredictConfig(
            own_run, (films / "blob.png",), tmp_path / "q", overlays=False, score_threshold=0.5
        )
    )


def test_any_number_of_false_positives_is_worked_out_from_val(films, own_run, tmp_path, capsys):
    """From what the run kept of val, exactly what training would have stored; also where it stored nothing."""
    scores = [0.9 - 0.01 * i for i in range(32)]
    truth: BoxesByImage = {
        f"v{i}": Boxes(np.array([[0.0, 0, 5, 5]]), np.array([0])) for i in range(32)
    }
    found = {
        f"v{i}": Boxes(np.array([[20.0, 20, 30, 30]]), np.array([0]), np.array([score]))
        for i, score in enumerate(scores)
    }
    (own_run / "truth_val.json").write_text(json.dumps(truth_as_coco(truth, ["blob"])))
    write_predictions(own_run / "predictions_val.json", found, 1)
    options = {"overlays": False, "dicom_objects": False}
    for number, stored in enumerate((choose_thresholds(truth, found, ["blob"]).as_json(), None)):
        describe(own_run, stored)
        out = job.run(
            PredictConfig(
                own_run, (films / "blob.png",), tmp_path / f"p{number}", fp_per_image=0.3, **options
            )
        )
        thresholds = json.loads((out / "summary.json").read_text())["thresholds"]
        assert thresholds["per_class"]["blob"]["threshold"] == scores[8]  # 9 of 32 images: 0.28
        assert (thresholds["fp_per_image"], thresholds["n_images"]) == (0.3, 32)
        assert thresholds["from"] == "the run's predictions on val"
        assert (
            "for 0.3 false positives per image on 32 validation images" in capsys.readouterr().out
        )
    describe(own_run, chosen([0.5]))
    out = job.run(
        PredictConfig(own_run, (films / "blob.png",), tmp_path / "s", fp_per_image=0.5, **options)
    )
    assert json.loads((out / "summary.json").read_text())["thresholds"]["from"] == "model"
    (own_run / "truth_val.json").write_text(json.dumps(truth_as_coco(truth, ["Blob"])))
    with pytest.raises(InputError, match=r"truth_val\.json .*only in the model: \['blob'\]"):
        job.run(PredictConfig(own_run, (films,), tmp_path / "q", fp_per_image=0.3))


def test_what_a_run_kept_of_val_gives_the_thresholds_that_it_stored(detect_run):
    described = json.loads((detect_run / "model.json").read_text())
    for point in described["thresholds"]["operating_points"]:
        anew = thresholds_on_val(detect_run, described["classes"], point["fp_per_image"])
        assert anew is not None
        assert anew.at(None).as_json() == point


def test_images_go_through_the_network_in_batches(films, own_run, tmp_path, monkeypatch):
    predict, sizes = Model.boxes, []

    def counted(model: Model, images):
        sizes.append(len(images))
        return predict(model, images)

    monkeypatch.setattr(Model, "boxes", counted)
    (films / "broken.png").write_text("this is text")
    options = {"overlays": False, "dicom_objects": False, "batch_size": 2}
    one = job.run(PredictConfig(own_run, (films,), tmp_path / "one", **options))
    assert sizes == [2, 2, 1]
    two = job.run(PredictConfig(own_run, (films,), tmp_path / "two", **options, workers=2))
    assert (one / "predictions.csv").read_bytes() == (two / "predictions.csv").read_bytes()
    assert [Path(row["file"]).name for row in rows(one / "skipped.csv")] == ["broken.png"]


def test_every_dicom_file_gets_its_objects_or_its_reason(films, own_run, tmp_path, capsys):
    pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
    score = few(own_run, films, tmp_path / "first")
    capsys.readouterr()
    out = job.run(PredictConfig(own_run, (films,), tmp_path / "p", score_threshold=score))
    said = capsys.readouterr().out
    assert (
        "9 DICOM objects" in said and "1 image without" in said and "not a medical device" in said
    )
    (without,) = rows(out / "dicom_skipped.csv")
    assert without["file"].endswith("nobody.dcm") and "StudyInstanceUID" in without["reason"]
    assert by_name(out, "nobody.dcm")
    assert not (out / "skipped.csv").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["dicom_objects"], summary["dicom_images_without_objects"]) == (9, 1)
    # one overlay an image and three objects a DICOM image, equal file names in two folders included
    names = [
        Path(i["file_name"]).name for i in json.loads((out / "images.json").read_text())["images"]
    ]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        f"{number:06d}-{name.rsplit('.', 1)[0]}.png" for number, name in enumerate(names, start=1)
    ]
    assert names.count("plain.dcm") == 2
    headers = {path.name: pydicom.dcmread(path) for path in (out / "dicom").iterdir()}
    assert sorted(h.Modality for h in headers.values()) == ["OT"] * 3 + ["PR"] * 3 + ["SR"] * 3
    assert len({h.SOPInstanceUID for h in headers.values()}) == 9
    for path in (out / "dicom").iterdir():
        assert dciodvfy_errors(path) == []


def test_regions_are_the_tables_boxes_in_pixels_of_the_file(films, own_run, tmp_path):
    pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
    from highdicom.sr import srread

    score = few(own_run, films / "sub", tmp_path / "first")
    out = job.run(
        PredictConfig(
            own_run,
            (films / "sub",),
            tmp_path / "p",
            score_threshold=score,
            overlays=False,
            nested="keep",
        )
    )
    (report,) = (out / "dicom").glob("*-sr.dcm")
    groups = srread(report).content.get_planar_roi_measurement_groups()
    table = [row for row in rows(out / "predictions.csv") if row["shown"] == "1"]
    assert len(groups) == len(table) >= 6
    for group, row in zip(groups, table, strict=True):
        box = [float(row[k]) for k in ("x1", "y1", "x2", "y2")]
        np.testing.assert_allclose(group.roi.value[[0, 2]].ravel(), box, atol=0.006)
        assert group.finding_type.meaning == row["class"]
        assert (group.roi.value >= 0).all() and (group.roi.value <= [64 + 37, 64]).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_what_is_found_in_the_networks_frame_lands_on_it_in_the_file(
    own_run, tmp_path, monkeypatch, fit, photometric
):
    """A stand-in for the detector boxes the bright patch of its input; the capture's frame must surround it."""
    pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
    from highdicom.sr import srread

    display = np.full((600, 1100), 40, dtype=np.uint8)
    patch = (660, 150, 880, 300)
    display[patch[1] : patch[3], patch[0] : patch[2]] = 230
    stored = display if photometric == "MONOCHROME2" else 255 - display
    film = write_radiograph(tmp_path / "film.dcm", stored, photometric=photometric)
    describe(own_run, None)
    description = json.loads((own_run / "model.json").read_text())
    description["pack"]["fit"] = fit
    (own_run / "model.json").write_text(json.dumps(description))

    def bright(_model: Model, images):
        found = []
        for image in images:
            rows, columns = np.nonzero(image.packed > 135)
            box = np.array(
                [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=float
            )
            found.append(
                Boxes(image.to_original(box, len(image.packed)), np.array([0]), np.array([0.9]))
            )
        return found

    monkeypatch.setattr(Model, "boxes", bright)
    out = job.run(PredictConfig(own_run, (film,), tmp_path / "p", overlays=False))
    (group,) = srread(
        out / "dicom" / "000001-film-sr.dcm"
    ).content.get_planar_roi_measurement_groups()
    pixel = 1100 / 64  # of the network's frame, in the file's pixels
    np.testing.assert_allclose(group.roi.value[[0, 2]].ravel(), patch, atol=pixel)
    capture = pydicom.dcmread(out / "dicom" / "000001-film-sc.dcm").pixel_array
    inner = tuple(
        int(v) for v in (patch[0] + pixel, patch[1] + pixel, patch[2] - pixel, patch[3] - pixel)
    )
    assert (capture[inner[1] : inner[3], inner[0] : inner[2]] == 230).all()
    frame = (capture[:600] == (255, 210, 63)).all(axis=-1)
    middle = np.flatnonzero(frame[(patch[1] + patch[3]) // 2])
    assert abs(middle.min() - patch[0]) < pixel + 6 and abs(middle.max() - patch[2]) < pixel + 6


def test_a_dicom_file_and_a_picture_of_it_get_the_same_boxes(films, own_run, tmp_path):
    files = tuple(films / name for name in ("blob.png", "plain.dcm", "inverted.dcm"))
    out = job.run(
        PredictConfig(
            own_run, files, tmp_path / "p", overlays=False, dicom_objects=False, batch_size=1
        )
    )
    png, plain, inverted = (
        [
            [v for k, v in row.items() if k not in ("file", *job.UIDS)]
            for row in by_name(out, file.name)
        ]
        for file in files
    )
    assert png == plain == inverted and png


def test_without_highdicom_one_line_says_so_and_the_job_goes_on(
    films, own_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(job, "objects_available", lambda: False)
    out = job.run(PredictConfig(own_run, (films,), tmp_path / "p", overlays=False))
    assert capsys.readouterr().out.count("pip install 'twinray[dicom]'") == 1
    assert not (out / "dicom").exists() and not (out / "dicom_skipped.csv").exists()
    assert len(json.loads((out / "images.json").read_text())["images"]) == 5
    job.run(PredictConfig(own_run, (films / "blob.png",), tmp_path / "q", overlays=False))
    assert "twinray[dicom]" not in capsys.readouterr().out


def test_an_object_that_cannot_be_made_costs_that_object_only(
    films, own_run, tmp_path, monkeypatch
):
    pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
    from twinray.report.dicom import secondary_capture

    build = secondary_capture.secondary_capture

    def fails_once(finding, **options):
        if finding.source.sop == "1.2.3.4.6":
            raise KeyError("odd source")
        return build(finding, **options)

    monkeypatch.setattr(secondary_capture, "secondary_capture", fails_once)
    out = job.run(PredictConfig(own_run, (films,), tmp_path / "p", overlays=False))
    reasons = {Path(row["file"]).name: row["reason"] for row in rows(out / "dicom_skipped.csv")}
    assert (
        set(reasons) == {"inverted.dcm", "nobody.dcm"} and "odd source" in reasons["inverted.dcm"]
    )
    assert (
        len(list((out / "dicom").iterdir())) == 6
    )  # three of each of two images; none of the third
    assert by_name(out, "inverted.dcm")
