"""Weights in MMDetection's names; the round trip runs where TWINRAY_MMDET_PYTHON names an environment that has it."""

from __future__ import annotations

import json
import os
import re
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from export_support import made_run
from twinray.errors import InputError
from twinray.exporting.parity import Limits, of_boxes
from twinray.exporting.subject import open_subject
from twinray.exporting.to_mmdet import write
from twinray.inference.model import load_model
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack
from twinray.records import Boxes, Pixels

PYTHON = os.environ.get("TWINRAY_MMDET_PYTHON", "")


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("norm", ["trainable", "group"])
def test_mmdetection_finds_the_same_boxes(tmp_path, cli, blob_pack, detector, norm):
    if not PYTHON:
        pytest.skip("TWINRAY_MMDET_PYTHON names no Python with MMDetection")
    run = made_run(tmp_path / "run", blob_pack, detector=detector, size=96, norm=norm)
    status, _, said = cli(
        "export", run, "--to", "mmdet", "--foreign-python", PYTHON, "--out", tmp_path / "out"
    )
    assert status == 0, said
    found = json.loads((tmp_path / "out" / "parity.json").read_text())
    print(said)
    assert found["n_values"] > 100 and found["unmatched"] <= 2


def beyond(network):
    """Codes far below and above the ends of box coders, logits whose sigmoids are all but 1, boxes beyond the border."""
    if network.one_stage is not None:
        codes = network.head.regression_head.bbox_reg.bias.view(-1, 4)
        codes[::2, 2], codes[1::2, 3] = -5.0, 5.0
        return
    network.rpn.head.cls_logits.bias.fill_(13.0)
    codes = network.rpn.head.bbox_pred.bias.view(-1, 4)
    codes[0, 2], codes[1, 3] = -5.0, -5.0
    codes = network.roi_heads.box_predictor.bbox_pred.bias.view(-1, 4)
    codes[1, 0], codes[2, 3] = 25.0, -25.0


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet"])
def test_where_mmdetection_does_otherwise_its_types_do_as_torchvision(
    tmp_path, cli, blob_pack, detector
):
    if not PYTHON:
        pytest.skip("TWINRAY_MMDET_PYTHON names no Python with MMDetection")
    run = made_run(
        tmp_path / "run", blob_pack, detector=detector, size=96, change=beyond, classes=("a", "b")
    )
    status, _, said = cli(
        "export", run, "--to", "mmdet", "--foreign-python", PYTHON, "--out", tmp_path / "out"
    )
    assert status == 0, said
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["n_values"] > 100


@pytest.fixture(scope="module")
def tall_pack(tmp_path_factory):
    """A pack of 64 pixels, letterboxed, of blobs in tall pictures."""
    folder, rng = tmp_path_factory.mktemp("tall"), np.random.default_rng(5)
    (folder / "files").mkdir()
    for i in range(4):
        Image.fromarray(tall(rng)).save(folder / "files" / f"{i}.png")
    out = folder / "pack"
    pack(PackConfig(folder / "files", out=out, size=64, fit="letterbox", workers=1))
    return out


def tall(rng):
    rows, columns = np.mgrid[:140, :90]
    image = rng.normal(60, 10, (140, 90))
    for y, x in rng.integers(10, 80, (3, 2)):
        image += 120 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 200)
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("detector", "fit"),
    [("faster-rcnn", "letterbox"), ("retinanet", "squash"), ("fcos", "letterbox")],
)
def test_as_the_card_says_boxes_come_in_pixels_of_the_image(
    tmp_path, cli, blob_pack, tall_pack, detector, fit
):
    if not PYTHON:
        pytest.skip("TWINRAY_MMDET_PYTHON names no Python with MMDetection")
    run = made_run(
        tmp_path / "run", tall_pack if fit == "letterbox" else blob_pack, detector=detector, size=96
    )
    out = tmp_path / "out"
    status, _, said = cli("export", run, "--to", "mmdet", "--foreign-python", PYTHON, "--out", out)
    assert status == 0, said
    image = tall(np.random.default_rng(7))
    Image.fromarray(image).save(out / "image.png")
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    code += (
        "import numpy\nown = found.pred_instances\n"
        "numpy.savez('found.npz', b=own.bboxes, l=own.labels, s=own.scores)\n"
    )
    subprocess.run([PYTHON, "-c", code], cwd=out, check=True, capture_output=True)
    theirs = np.load(out / "found.npz")
    model = load_model(run, "cpu")
    (wanted,) = model.boxes([model.prepare(Pixels(image, "test"), "x")])
    found = of_boxes(
        [wanted],
        [Boxes(theirs["b"].astype(float), theirs["l"], theirs["s"].astype(float))],
        limits=Limits(140, 100, 0.001),
        loader="MMDetection",
        limit=1e-4,
    )
    assert found.n_values > 20 and found.holds, found.told()


def test_the_background_goes_last_and_has_no_box(tmp_path, blob_pack):
    run = made_run(tmp_path / "run", blob_pack, classes=("a", "b"))
    subject = open_subject(run)
    (tmp_path / "out").mkdir()
    write(subject, tmp_path / "out")
    kept = torch.load(tmp_path / "out" / "weights.pth", weights_only=True)
    theirs, own = kept["state_dict"], subject.network.state_dict()
    scores, boxes = (own[f"roi_heads.box_predictor.{n}.weight"] for n in ("cls_score", "bbox_pred"))
    assert torch.equal(theirs["roi_head.bbox_head.fc_cls.weight"], scores[[1, 2, 0]])
    assert torch.equal(theirs["roi_head.bbox_head.fc_reg.weight"], boxes[4:])
    assert kept["meta"]["dataset_meta"]["classes"] == ["a", "b"]


def test_without_mmdetection_nothing_leaves(tmp_path, cli, blob_pack):
    run = made_run(tmp_path / "run", blob_pack)
    status, _, said = cli("export", run, "--to", "mmdet", "--out", tmp_path / "out")
    assert status == 2 and "--foreign-python" in said
    assert not (tmp_path / "out" / "weights.pth").exists()


def test_networks_that_mmdetection_lacks_are_refused(tmp_path, blob_pack):
    run = made_run(tmp_path / "run", blob_pack, arch="timm/convnext_atto")
    with pytest.raises(InputError, match="MMDetection has no"):
        write(open_subject(run), tmp_path)
