"""Weights in torchvision's names give in torchvision what the run gives."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import twinray
from export_support import made_run
from twinray.errors import TwinrayError
from twinray.exporting import to_torchvision
from twinray.exporting.parity import Limits, of_boxes, of_numbers
from twinray.records import Boxes
from twinray.runs.description import Normalisation


def parity(folder):
    return json.loads((folder / "parity.json").read_text())


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto", "timm/test_vit"])
def test_features_and_logits_are_the_same_to_the_last_bit(tmp_path, cli, blob_pack, kind, arch):
    run = made_run(tmp_path / "run", blob_pack, kind=kind, arch=arch, size=64)
    status, _, said = cli("export", run, "--to", "torchvision", "--out", tmp_path / "out")
    assert status == 0, said
    assert parity(tmp_path / "out")["exact"] is True


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto", "timm/test_vit"])
def test_detectors_of_any_backbone_find_the_same_boxes(tmp_path, cli, blob_pack, detector, arch):
    run = made_run(tmp_path / "run", blob_pack, arch=arch, detector=detector, size=96)
    status, _, said = cli("export", run, "--to", "torchvision", "--out", tmp_path / "out")
    assert status == 0, said
    found = parity(tmp_path / "out")
    assert found["unmatched"] <= 2 and found["n_values"] > 100
    assert found["largest_share"] < 1e-5 and found["largest_score"] < 1e-5


@pytest.mark.parametrize(("kind", "size"), [("detector", 96), ("classifier", 64), ("backbone", 32)])
def test_as_the_card_says_an_image_gives_what_the_run_gives(
    tmp_path, cli, blob_pack, monkeypatch, kind, size
):
    run = made_run(tmp_path / "run", blob_pack, kind=kind, size=size)
    out = tmp_path / "out"
    assert cli("export", run, "--to", "torchvision", "--out", out)[0] == 0
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (140, 90), dtype=np.uint8)).save(out / "image.png")
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    monkeypatch.chdir(out)
    monkeypatch.syspath_prepend(out)
    for name in ("torchvision_model", "twinray_square"):
        sys.modules.pop(name, None)
    names = {}
    exec(code, names)
    wanted = twinray.load(run)(out / "image.png")
    if kind == "detector":
        found = names["found"]
        theirs = Boxes(
            names["boxes"], found["labels"].numpy() - 1, found["scores"].double().numpy()
        )
        limits = Limits(side=140, most=100, threshold=0.001)
        same = of_boxes([wanted.boxes], [theirs], limits=limits, loader="torchvision", limit=1e-5)
        assert same.n_values > 20 and same.holds, same.told()
    elif kind == "classifier":
        assert "Its sigmoid is the score" in (out / "README.md").read_text()
        scores = names["found"].sigmoid().tolist()
        assert scores == pytest.approx(list(wanted.labels.values()), rel=1e-5)
    else:
        np.testing.assert_allclose(names["found"], wanted.features, rtol=1e-4, atol=1e-5)


def test_a_trained_detector_passes_with_its_card(tmp_path, cli, detect_run):
    status, _, said = cli("export", detect_run, "--to", "torchvision", "--out", tmp_path / "out")
    assert status == 0, said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md", "made_by.json", "model.json", "model.pth", "parity.json", "torchvision_model.py",
        "twinray_square.py",
    ]  # fmt: skip
    assert "Research software, not a medical device" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("detector", ["faster-rcnn", "fcos"])
def test_group_norms_and_blue_first(tmp_path, cli, blob_pack, detector):
    by = Normalisation((0.5, 0.4, 0.3), (0.5, 0.4, 0.6), order="BGR")
    run = made_run(tmp_path / "run", blob_pack, detector=detector, size=96, norm="group", by=by)
    status, _, said = cli("export", run, "--to", "torchvision", "--out", tmp_path / "out")
    assert status == 0, said


def test_files_that_give_something_else_do_not_leave(tmp_path, cli, blob_pack, monkeypatch):
    run = made_run(tmp_path / "run", blob_pack, kind="classifier")
    right = to_torchvision.torchvision_state

    def wrong(subject):
        state = right(subject)
        return state | {"fc.bias": state["fc.bias"] + 0.01}

    monkeypatch.setattr(to_torchvision, "torchvision_state", wrong)
    status, _, said = cli("export", run, "--to", "torchvision", "--out", tmp_path / "out")
    assert status == 1
    assert "do not give what the run gives" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"made_by.json", ".written.jsonl"}


def test_shapes_that_differ_are_refused():
    with pytest.raises(TwinrayError, match="shape"):
        of_numbers(torch.zeros(2, 3).numpy(), torch.zeros(2, 4).numpy(), loader="x", what="logits", limit=1)  # fmt: skip
