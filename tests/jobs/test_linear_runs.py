"""Packs of linear values through every verb: what they see is what the pack holds, and what files hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch

from dicom_support import write_radiograph
from support import DETECT, PRETRAIN, draw_blob, ranks
from twinray.data.decoding.images import load_image
from twinray.data.pack import open_pack
from twinray.detection.on_pack import detect_rows
from twinray.errors import InputError
from twinray.inference.model import check_pack, load_model, prepare_row
from twinray.pretraining.step import Step

CLASSIFY = ("--arch", "resnet18", "--size", 32, "--bootstrap", 20, "--precision", "float32")


def twelve_bits(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """8-bit pixels as a detector of 12 bits with an offset and noise below one grey level."""
    return np.rint(300 + pixels * 8.0 + rng.uniform(0, 8, pixels.shape)).astype(np.uint16)


def radiograph(path: Path, stored: np.ndarray, patient: str, **values) -> None:
    write_radiograph(
        path, stored, **{"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "WindowCenter": "1300", "WindowWidth": "1800",
        "PixelData": stored.astype("<u2").tobytes(), "PatientID": patient, "SOPInstanceUID": f"1.2.3.{abs(hash(path.name)) % 10**8}"}
        | values,
    )  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A COCO file of DICOM radiographs of 12 bits: 24 images, every fourth without a box; some MONOCHROME1."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(5)
    (folder / "images").mkdir()
    images, annotations = [], []
    for i in range(24):
        pixels, box = draw_blob(rng)
        if i % 4 == 3:
            pixels = rng.normal(70, 12, (64, 64)).clip(0, 255).astype(np.uint8)
        else:
            annotations.append({"id": i + 1, "image_id": i, "category_id": 7, "bbox": list(box)})
        stored = twelve_bits(pixels, rng)
        more = {}
        if i % 5 == 0:
            stored = (4095 - stored).astype(np.uint16)
            more = {"photometric": "MONOCHROME1", "WindowCenter": "2796"}
        name = f"im{i:03d}.dcm"
        radiograph(folder / "images" / name, stored, f"p{i // 2}", **more)
        images.append(
            {"id": i, "file_name": name, "width": 64, "height": 64, "patient_id": f"p{i // 2}"}
        )
    told = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "blob"}]}
    (folder / "annotations.json").write_text(json.dumps(told))
    return folder / "annotations.json"


@pytest.fixture(scope="module")
def packs(films: Path, tmp_path_factory) -> dict[str, Path]:
    """The films packed at another size than theirs, with either kind of pixels; and in class folders."""
    from twinray.jobs.pack import PackConfig, run

    out = tmp_path_factory.mktemp("packs")
    for kind in ("uint8", "uint16"):
        run(
            PackConfig(
                (films,),
                ("coco",),
                out=out / kind,
                size=48,
                fit="letterbox",
                val=0.2,
                test=0.25,
                workers=1,
                pixels=kind,
            )
        )
    rng, folder = np.random.default_rng(1), out / "source"
    for name, level in (("dark", 60), ("bright", 150)):
        (folder / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.normal(level, 40, (40, 48)).clip(0, 255).astype(np.uint8)
            radiograph(
                folder / name / f"{name}{i // 2:02d}_{i}.dcm",
                twelve_bits(pixels, rng),
                f"{name}{i // 2}",
            )
    run(
        PackConfig(
            (folder,), out=out / "classes", size=40, val=0.1, test=0.3, workers=1, pixels="uint16",
            patient_regex=r"((?:dark|bright)\d+)_",
        )
    )  # fmt: skip
    return {name: out / name for name in ("uint8", "uint16", "classes")}


@pytest.fixture(scope="module")
def detector(packs: dict[str, Path], tmp_path_factory) -> Path:
    from twinray.cli import main

    out = tmp_path_factory.mktemp("runs") / "detector"
    command = ["detect", "--data", packs["uint16"], "--out", out, "--epochs", 1, *DETECT]
    main([str(one) for one in command])
    return out


def test_pretraining_resumes_to_the_same_bytes(packs, tmp_path, cli, monkeypatch) -> None:
    command = (
        "pretrain",
        "--data",
        packs["classes"],
        "--epochs",
        2,
        "--checkpoint-every",
        1,
        *PRETRAIN,
    )
    status, _, err = cli(*command, "--out", tmp_path / "whole")
    assert status == 0, err
    real, calls = Step.__call__, [0]

    def stops(self, *arguments):
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", stops)
        assert cli(*command, "--out", tmp_path / "cut")[0] != 0
    assert cli(*command, "--out", tmp_path / "cut", "--resume")[0] == 0
    whole = (tmp_path / "whole" / "backbone.safetensors").read_bytes()
    assert (tmp_path / "cut" / "backbone.safetensors").read_bytes() == whole
    told = json.loads((tmp_path / "whole" / "backbone.json").read_text())
    assert told["windows"] == {"evaluation": "each image's own", "width": 1.5, "shift": 0.1}
    assert told["data"][0]["pixels"] == "uint16"


def test_windows_change_what_is_learnt_and_ranks_do_not(packs, tmp_path, cli) -> None:
    command = (
        "pretrain", "--data", packs["classes"], "--epochs", 1, *PRETRAIN, "--optimizer", "sgd", "--batch-size", 16,
    )  # fmt: skip
    assert cli(*command, "--out", tmp_path / "one")[0] == 0
    assert (
        cli(*command, "--out", tmp_path / "own", "--window-width", 1, "--window-shift", 0)[0] == 0
    )
    ranks(2, ["-m", "twinray.cli", *command, "--out", tmp_path / "two"])
    one, own, two = (
        safetensors.torch.load_file(tmp_path / name / "backbone.safetensors")
        for name in ("one", "own", "two")
    )

    def apart(a, b) -> float:
        return (
            sum(
                float((a[n].double() - b[n].double()).square().sum())
                for n in a
                if n.endswith("weight")
            )
            ** 0.5
        )

    assert apart(one, two) < 0.05 * apart(one, own)


def test_classifiers_see_each_images_own_window(packs, tmp_path, cli) -> None:
    command = ("classify", "--data", packs["classes"], *CLASSIFY)
    status, _, err = cli(*command, "--policy", "probe", "--out", tmp_path / "probe")
    assert status == 0, err
    status, _, err = cli(*command, "--policy", "full", "--epochs", 1, "--out", tmp_path / "full")
    assert status == 0, err
    full, probe = (
        json.loads((tmp_path / name / "model.json").read_text()) for name in ("full", "probe")
    )
    assert full["pack"]["pixels"] == probe["pack"]["pixels"] == "uint16"
    assert full["windows"] == {"evaluation": "each image's own", "width": 1.5, "shift": 0.1}
    assert probe["windows"] == {"evaluation": "each image's own", "width": 1.0, "shift": 0.0}
    pack = open_pack(packs["classes"])
    model = load_model(tmp_path / "probe")
    rows = pack.where("test")
    kept = pd.read_parquet(tmp_path / "probe" / "predictions.parquet").set_index("image")
    scores = model.labels([prepare_row(model, pack, int(row)) for row in rows])
    for row, one in zip(rows, scores, strict=True):
        name = f"score:{model.classes[0]}"
        column = (
            name
            if name in kept.columns
            else next(c for c in kept.columns if c.endswith(model.classes[0]) and "score" in c)
        )
        assert abs(float(kept.loc[str(pack.ids[row]), column]) - one[0]) < 1e-5
    source = packs["classes"].parent / "source"
    for row in rows[:4].tolist():
        path = source / pack.table["source"][row].as_py()
        prepared = model.prepare(load_image(path, decoding=model.decoding()), path.name)
        np.testing.assert_array_equal(prepared.packed, pack.pixels[row])


def test_files_give_the_very_pixels_that_the_pack_holds(packs, films, detector) -> None:
    """Other photometric interpretations, a letterbox and resampling included."""
    pack, model = open_pack(packs["uint16"]), load_model(detector)
    plain = open_pack(packs["uint8"])
    for row in range(len(pack)):
        path = films.parent / "images" / Path(pack.table["source"][row].as_py()).name
        prepared = model.prepare(load_image(path, decoding=model.decoding()), path.name)
        own = prepare_row(model, pack, row)
        np.testing.assert_array_equal(prepared.packed, own.packed)
        assert prepared.packed.dtype == np.float32
        assert prepared.display.dtype == own.display.dtype == np.uint8
        # shown to people both packs look the same but for what each rounds and where it cuts off
        assert np.abs(pack.shown(row).astype(int) - plain.shown(row).astype(int)).mean() < 1


def test_predict_and_explain_on_files_agree_with_the_pack(
    packs, films, detector, tmp_path, cli
) -> None:
    """The boxes found in images of the pack are those that predict finds in their files."""
    folder = films.parent / "images"
    status, _, err = cli(
        "predict", detector, folder, "--out", tmp_path / "p", "--score-threshold", 0, "--workers", 0,
        "--no-overlays", "--no-dicom-objects",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads((tmp_path / "p" / "summary.json").read_text())["decoded"]["linear"] is True
    table = pd.read_csv(tmp_path / "p" / "predictions.csv")
    pack, model = open_pack(packs["uint16"]), load_model(detector)
    rows = np.arange(6)
    of_pack = detect_rows(
        model.detector, pack, rows, machine=model.machine, batch_size=3, shown=False
    )
    for row in rows:
        own = table[
            table["file"].map(lambda name: Path(name).stem) == f"im{int(pack.ids[row]):03d}"
        ]
        expected = of_pack[pack.ids[row]]
        np.testing.assert_allclose(own["score"], expected.scores, atol=1e-4)
        np.testing.assert_allclose(own[["x1", "y1", "x2", "y2"]], expected.xyxy, atol=0.02)
    status, _, err = cli(
        "explain", detector, folder / "im001.dcm", "--out", tmp_path / "e", "--least-score", 0,
        "--workers", 0,
    )  # fmt: skip
    assert status == 0, err
    status, _, err = cli(
        "evaluate",
        "--runs",
        detector,
        "--data",
        packs["uint16"],
        "--out",
        tmp_path / "v",
        "--bootstrap",
        20,
    )
    assert status == 0, err


def test_packs_of_other_pixels_are_refused_in_one_line(packs, detector, tmp_path, cli) -> None:
    with pytest.raises(InputError, match="pixels: the model's uint16, the pack's uint8"):
        check_pack(load_model(detector), open_pack(packs["uint8"]))
    status, _, err = cli(
        "pretrain", "--data", packs["uint8"], packs["uint16"], "--out", tmp_path / "r", *PRETRAIN
    )
    assert status != 0
    assert "expected packs of one kind of pixels" in err
    for command in (("pretrain", *PRETRAIN), ("detect", *DETECT)):
        status, _, err = cli(
            command[0],
            "--data",
            packs["uint8"],
            "--out",
            tmp_path / "r",
            *command[1:],
            "--window-width",
            2,
        )
        assert status != 0
        assert "--window-width draws windows of linear values" in err
        assert "--pixels uint16" in err
        shutil.rmtree(tmp_path / "r", ignore_errors=True)


def test_linear_pixels_for_a_model_of_display_values_are_refused(
    packs, films, tmp_path, cli
) -> None:
    out = tmp_path / "plain"
    status, _, err = cli("detect", "--data", packs["uint8"], "--out", out, "--epochs", 1, *DETECT)
    assert status == 0, err
    model = load_model(out)
    assert not model.decoding().linear
    assert "windows" not in json.loads((out / "model.json").read_text())
    linear = load_model(out).description.pack.decoded.for_new_files(None, "uint16")
    pixels = load_image(next((films.parent / "images").glob("*.dcm")), decoding=linear)
    with pytest.raises(InputError, match="expected display values"):
        model.prepare(pixels, "film")


def test_the_preview_shows_windows(packs, tmp_path, cli) -> None:
    status, _, err = cli(
        "pretrain", "--data", packs["classes"], "--preview", tmp_path / "look", *PRETRAIN
    )
    assert status == 0, err
    assert (tmp_path / "look" / "views.png").stat().st_size > 1000


def test_neighbours_of_a_file_begin_with_itself(packs, films, tmp_path, cli) -> None:
    query = films.parent / "images" / "im001.dcm"
    status, _, err = cli(
        "embed", "--data", packs["uint16"], "--init", "random", "--arch", "resnet18", "--size", 48, "--query", query,
        "--out", tmp_path / "e", "--page-images", 5,
    )  # fmt: skip
    assert status == 0, err
    found = json.loads((tmp_path / "e" / "embedding.json").read_text())
    nearest = found["queries"][0]["neighbours"][0]
    assert nearest["id"] == "1"  # of the COCO file
    assert nearest["similarity"] == pytest.approx(1, abs=1e-5)
