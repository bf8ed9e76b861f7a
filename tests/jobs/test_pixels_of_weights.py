"""Weights are fed the pixels that they were trained on, in every verb, and hand the statistics on.

The oracle: a network whose first convolution is doubled sees the same when the standard deviation
is doubled. A factor of two is exact, so every figure must be the same to the last bit; one place
that fed other pixels would show.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import IMAGENET
from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.detection.config import DetectConfig
from twinray.detection.run import run as detect
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import run as evaluate
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.run import run as pretrain
from twinray.runs.folder import RunFolder, plain
from twinray.training.record import save_weights

DOUBLED = dataclasses.replace(IMAGENET, std=tuple(2 * s for s in IMAGENET.std))
DETECT = {
    "size": 64, "batch_size": 4, "fpn_channels": 32, "box_head_width": 64, "rois_per_image": 32,
    "anchor_scale": 4.0, "bootstrap": 0, "precision": "float32", "epochs": 1, "trainable_stages": 3, "norm": "eval",
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The same network twice: as it is, and doubled in weights and statistics."""
    folders = []
    for name, by in (("plain", IMAGENET), ("doubled", DOUBLED)):
        backbone = build_backbone("resnet18", 1)
        if by is DOUBLED:
            backbone.conv1.weight.data *= 2
        folder = tmp_path_factory.mktemp("weights") / name
        folder.mkdir()
        described = {"kind": "backbone", "arch": "resnet18", "size": 32, "normalisation": plain(by)}
        save_weights(RunFolder(folder), "backbone", backbone.state_dict(), described)
        folders.append(folder)
    return folders


def said(run):
    return json.loads((run / "model.json").read_text())["normalisation"]


def test_classifiers(weights, class_pack, class_folder, tmp_path, cli):
    figures, told = [], []
    for folder in weights:
        out = tmp_path / f"c-{folder.name}"
        classify(ClassifyConfig(class_pack, out, init=str(folder), bootstrap=0, device="cpu"))
        figures.append((out / "predictions.parquet").read_bytes())
        found = evaluate(EvaluateConfig((out,), data=class_pack, bootstrap=0, device="cpu"))
        told.append(str(found))
        status, _, err = cli("predict", out, class_folder / "dark", "--out", tmp_path / f"p-{folder.name}",
                             "--device", "cpu")  # fmt: skip
        assert status == 0, err
    assert figures[0] == figures[1]
    first, second = (tmp_path / f"p-{f.name}" / "predictions.csv" for f in weights)
    assert first.read_text() == second.read_text()
    assert said(tmp_path / "c-doubled")["std"] == list(DOUBLED.std)
    assert said(tmp_path / "c-plain") == plain(IMAGENET)


@pytest.mark.parametrize("policy", ["surgical", "full"])
def test_training_images_of_classifiers(weights, class_pack, tmp_path, policy):
    """The loss of the first step, on augmented images."""
    scores = []
    for folder in weights:
        out = tmp_path / f"{policy}-{folder.name}"
        options = {"tune": ("layer4",)} if policy == "surgical" else {"lr_backbone": 1e-12}
        classify(ClassifyConfig(class_pack, out, init=str(folder), bootstrap=0, policy=policy, epochs=1, batch_size=4, log_every=1,
                                device="cpu", precision="float32", **options))  # fmt: skip
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        scores.append(next(line["loss"] for line in lines if "loss" in line))
    assert (
        scores[0] == scores[1]
    )  # of the first step: later ones differ where a clipped gradient knows the scale


def test_detectors(weights, blob_pack, blobs, tmp_path, cli):
    found, heat = [], []
    for folder in weights:
        out = tmp_path / f"d-{folder.name}"
        detect(DetectConfig(blob_pack, out, init=str(folder), device="cpu", **DETECT))
        found.append((out / "predictions.json").read_text())
        status, _, err = cli("explain", out, blobs.parent / "images" / "im000.png", "--out", tmp_path / f"e-{folder.name}",
                             "--device", "cpu", "--boxes", 1)  # fmt: skip
        assert status == 0, err
        heat.append(sorted(p.read_bytes() for p in (tmp_path / f"e-{folder.name}").glob("*.png")))
    assert found[0] == found[1] and heat[0] == heat[1] and heat[0]
    assert said(tmp_path / "d-doubled")["std"] == list(DOUBLED.std)


def test_pretraining_goes_on_with_them_and_hands_them_on(weights, class_pack, tmp_path):
    losses = []
    for folder in weights:
        out = tmp_path / f"t-{folder.name}"
        pretrain(PretrainConfig(data=(class_pack,), out=out, init=str(folder), arch="resnet18", size=32, epochs=1,
                                batch_size=8, projector=(32, 32), precision="float32", device="cpu", log_every=1))  # fmt: skip
        losses.append(json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[0] == losses[1]
    backbone = json.loads((tmp_path / "t-doubled" / "backbone.json").read_text())
    assert backbone["normalisation"] == plain(DOUBLED)


def test_embedding(weights, class_pack, tmp_path, cli):
    import pyarrow.parquet as pq

    tables = []
    for folder in weights:
        status, _, err = cli("embed", "--data", class_pack, "--init", folder, "--out", tmp_path / folder.name,
                             "--maps", "pca", "--bootstrap", 0, "--page-images", 0)  # fmt: skip
        assert status == 0, err
        tables.append(
            pq.read_table(tmp_path / folder.name / "features.parquet")["features"].to_pylist()
        )
    np.testing.assert_array_equal(tables[0], tables[1])


@pytest.mark.parametrize(
    "wrong", [{"std": [0, 1, 1]}, {"mean": [0.1]}, {"scale": "0..255"}, {"gamma": 2}, 3]
)
def test_a_damaged_record_of_the_pixels_is_one_line(weights, class_pack, tmp_path, cli, wrong):
    folder = tmp_path / "w"
    folder.mkdir()
    for name in ("backbone.safetensors", "backbone.json"):
        (folder / name).write_bytes((weights[0] / name).read_bytes())
    raw = json.loads((folder / "backbone.json").read_text())
    raw["normalisation"] = {**raw["normalisation"], **wrong} if isinstance(wrong, dict) else wrong
    (folder / "backbone.json").write_text(json.dumps(raw))
    status, _, err = cli(
        "classify", "--data", class_pack, "--init", folder, "--out", tmp_path / "o"
    )
    assert status == 2 and "normalisation" in err and err.count("\n") == 1
