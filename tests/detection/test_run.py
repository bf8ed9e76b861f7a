"""Whole runs: the one-stage detectors train, select, test once, load, predict; several ranks train one detector."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import numpy as np
import pytest

from support import DETECT, twinray
from support import ranks as start_ranks
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.run import run as detect
from twinray.evaluation.coco_json import coco_image_ids, read_predictions
from twinray.inference.model import load_model, prepare_row


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_train_resume_and_predict(blob_pack, tmp_path, kind: Literal["retinanet", "fcos"]) -> None:
    config = DetectConfig(
        data=blob_pack,
        out=tmp_path / "run",
        arch="resnet18",
        detector=kind,
        size=64,
        batch_size=4,
        epochs=2,
        fraction=0.6,
        fpn_channels=64,
        bootstrap=0,
        device="cpu",
        precision="float32",
    )
    out = detect(config).path
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["selected_on"] == "val map50"
    assert metrics["protocol"] == "sound"
    pack = open_pack(blob_pack)
    assert 0 < metrics["training_images"] < len(pack.where("train"))
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum("val_map50" in line for line in logged) == 2
    before = (out / "model.safetensors").stat()
    detect(dataclasses.replace(config, resume=True))  # finished: nothing is done again
    assert (out / "model.safetensors").stat() == before
    model = load_model(out, "cpu")
    assert model.detector.options.detector == kind
    rows = pack.where("test")
    ids = coco_image_ids([str(i) for i in pack.ids[rows]])
    kept = read_predictions(out / "predictions.json", ids, 1)
    for row in rows:
        (boxes,) = model.boxes([prepare_row(model, pack, int(row))])
        stored = kept[str(pack.ids[row])]
        assert boxes.scores is not None and stored.scores is not None
        np.testing.assert_allclose(np.sort(boxes.scores), np.sort(stored.scores), atol=1e-4)
        width, height = pack.sizes[row]
        assert (boxes.xyxy >= 0).all()
        assert (boxes.xyxy <= [width, height, width, height]).all()


def test_as_published_says_what_its_figures_are_on(blob_pack, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    small = {
        "arch": "resnet18",
        "size": 96,
        "batch_size": 4,
        "epochs": 1,
        "fpn_channels": 32,
        "box_head_width": 32,
    }
    config = DetectConfig(
        data=blob_pack,
        out=out,
        protocol="as-published",
        bootstrap=0,
        device="cpu",
        precision="float32",
        **small,
    )
    detect(config)
    metrics, told = json.loads((out / "metrics.json").read_text()), capsys.readouterr().err
    for words in ("pack with --fit letterbox", "its pixels are enlarged"):
        assert any(words in note for note in metrics["notes"])
        assert sum(line.startswith("note: ") and words in line for line in told.splitlines()) == 1
    n, n_with = metrics["val"]["n_images"], metrics["val"]["with_boxes"]["n_images"]
    assert n_with < n
    assert metrics["selected_on"].startswith(f"val map50 on the {n_with} of {n} images with a box")
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (chosen,) = [line["val_map50"] for line in logged if "val_map50" in line]
    assert chosen == pytest.approx(metrics["val"]["with_boxes"]["map50"]["value"], abs=1e-6)


def test_two_ranks_train_one_detector(blob_pack, tmp_path) -> None:
    """Rank 0 writes everything once; both ranks' gradients are averaged; the run is one that predict and evaluate take."""
    run = tmp_path / "run"
    start_ranks(
        2,
        [
            "-m",
            "twinray.cli",
            "detect",
            "--data",
            blob_pack,
            "--out",
            run,
            *DETECT,
            "--epochs",
            2,
            "--log-every",
            1,
        ],
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps))
    assert json.loads((run / "metrics.json").read_text())["test"]["map50"]["n"] > 0
    done = twinray("evaluate", run, "--data", blob_pack, check=True)
    assert "mAP50" in done.stdout


def test_a_batch_that_ranks_cannot_share_is_refused(blob_pack, tmp_path) -> None:
    with pytest.raises(AssertionError, match="does not fall into 3 equal shares"):
        start_ranks(
            3,
            [
                "-m",
                "twinray.cli",
                "detect",
                "--data",
                blob_pack,
                "--out",
                tmp_path / "run",
                *DETECT,
            ],
        )
