"""The guard answers for public weights: their publishers name data sets, and no image."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from seen_support import every, make_pack, n_seen
from twinray.backbones.build import build_backbone
from twinray.backbones.weights import seen_by
from twinray.errors import InputError
from twinray.runs.seen import check_unseen, read_seen, write_seen


def pack_of(name, *, official=True, ids=("00000001_000", "00000002_000")):
    pack = make_pack(list(ids), [None] * len(ids), names=(name,))
    method = "train, test official; cut out of train by patient" if official else "cut by patient"
    return dataclasses.replace(pack, info=dataclasses.replace(pack.info, split_method=method))


SAW = {
    "rad-dino": {"nih-cxr14": True, "rsna-pneumonia": True, "chexpert": True, "mimic-cxr": False, "vindr-cxr": False},
    "cxformer-small": {"nih-cxr14": False, "rsna-pneumonia": True, "chexpert": False, "vindr-cxr": False},
    "ark-6": {"nih-cxr14": True, "rsna-pneumonia": True, "vindr-cxr": True, "chexpert": False},
    "xrv-resnet50": {"nih-cxr14": True, "vindr-cxr": False, "chexpert": False},
    "xrv-densenet121-rsna": {"nih-cxr14": True, "rsna-pneumonia": True, "vindr-cxr": False},
    "biovil": {"mimic-cxr": True, "nih-cxr14": False},
    "eva-x-small": {"nih-cxr14": True, "rsna-pneumonia": True, "mimic-cxr": True, "vindr-cxr": False},
    "lvm-med": {"vindr-cxr": False, "nih-cxr14": False},
    "efficientnet-lite0": {"nih-cxr14": False, "vindr-cxr": False},
    "radimagenet": {"nih-cxr14": False},
}  # fmt: skip


@pytest.mark.parametrize("name", SAW)
def test_official_test_lists(name):
    for data_set, met in SAW[name].items():
        pack = pack_of(data_set)
        assert n_seen(seen_by(name), pack) == (len(pack) if met else 0), data_set


def test_a_test_split_that_is_not_the_official_one_may_hold_the_training_list():
    assert n_seen(seen_by("cxformer-small"), pack_of("nih-cxr14", official=False)) == 2
    assert n_seen(seen_by("xrv-resnet50"), pack_of("vindr-cxr", official=False)) == 2


def test_data_sets_with_the_same_people_count():
    """All of NIH is in RAD-DINO, so whatever was made of NIH is."""
    for name in ("siim-acr-pneumothorax", "chestmnist", "covidx", "chestx-det"):
        assert n_seen(seen_by("rad-dino"), pack_of(name, ids=("1", "2"))) == 2
        assert n_seen(seen_by("cxformer-small"), pack_of(name, ids=("1", "2"))) == 2


def test_the_refusal_names_weights_and_data_set_and_the_mark_says_how_many():
    pack = pack_of("rsna-pneumonia")
    with pytest.raises(InputError, match="trained on nih-cxr14") as caught:
        check_unseen(seen_by("rad-dino"), pack, {"test": every(pack)}, weights="rad-dino", allow=False)  # fmt: skip
    assert "the weights rad-dino" in str(caught.value) and "\n" not in str(caught.value)
    checked = check_unseen(
        seen_by("rad-dino"), pack, {"test": every(pack)}, weights="rad-dino", allow=True
    )
    assert checked.marks["test"]["seen_in_pretraining"] == {"value": 2, "ci95": None, "n": 2}


def test_runs_that_start_from_them_hand_the_record_on(tmp_path):
    own = pack_of("archive", ids=("a", "b"))
    seen = seen_by("rad-dino").plus(tmp_path, "pretrain", [(own, every(own))])
    write_seen(tmp_path, seen)
    again = read_seen(tmp_path)
    assert [part.origins for part in again.parts] == [part.origins for part in seen.parts]
    assert n_seen(again, pack_of("nih-cxr14")) == 2 and again.unknown == ("rad-dino",)


def test_through_the_command_line(tmp_path, cli):
    """A classifier from MoCo-CXR's weights (a made file) on CheXpert's images: refused, and marked when forced."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("bright", 150)):
        (tmp_path / "chexpert" / label).mkdir(parents=True)
        for i in range(12):
            image = rng.normal(level, 30, (40, 40)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "chexpert" / label / f"{label}{i}.png")
    status, _, err = cli("pack", tmp_path / "chexpert", "--out", tmp_path / "p", "--size", 32, "--workers", 1, "--val", 0, "--test", 0.3)  # fmt: skip
    assert status == 0, err
    state = build_backbone("resnet18", 4).state_dict()
    torch.save(
        {"state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}},
        tmp_path / "w.pth.tar",
    )
    command = ("classify", "--data", tmp_path / "p", "--init", f"moco-cxr-resnet18={tmp_path / 'w.pth.tar'}", "--bootstrap", 0,
               "--size", 32, "--device", "cpu")  # fmt: skip
    status, _, err = cli(*command, "--out", tmp_path / "o")
    assert status == 2 and "moco-cxr-resnet18" in err and "trained on chexpert" in err
    assert not (tmp_path / "o").exists()
    status, _, err = cli(*command, "--out", tmp_path / "o", "--allow-seen")
    assert status == 0, err
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["test"]["seen_in_pretraining"]["value"] == metrics["test"]["n_images"]
    assert any("CC-BY-NC" in note and "not for commercial use" in note for note in metrics["notes"])
    assert metrics["init"]["ancestors"][0]["use"] == "non-commercial"
    model = json.loads((tmp_path / "o" / "model.json").read_text())
    assert model["init"]["ancestors"][0]["name"] == "moco-cxr-resnet18"
    assert model["normalisation"]["std"] == pytest.approx([0.085585] * 3)
    status, _, err = cli("evaluate", tmp_path / "o", "--out", tmp_path / "e", "--bootstrap", 0)
    assert status == 0, err
    page = (tmp_path / "e" / "report.html").read_text()
    assert "CC-BY-NC" in page and "moco-cxr-resnet18" in page
    status, _, err = cli("classify", "--data", tmp_path / "p", "--init", tmp_path / "o", "--bootstrap", 0, "--device", "cpu",
                         "--out", tmp_path / "o2", "--allow-seen")  # fmt: skip
    assert status == 0, err
    second = json.loads((tmp_path / "o2" / "metrics.json").read_text())
    assert any("CC-BY-NC" in note for note in second["notes"])  # ancestors go on
