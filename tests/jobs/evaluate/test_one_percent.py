"""Two probes at 1 % of the labels, three draws each, through the command line: packed, probed, compared without the pack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from twinray.backbones.build import build_backbone
from twinray.runs.folder import RunFolder
from twinray.runs.seen import Seen, write_seen
from twinray.training.record import save_weights

SEEDS = (3, 4, 5)


def figures(folder: Path, split: str = "test") -> dict:
    return json.loads((folder / "metrics.json").read_text())[split]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """Other weights than those of ``--init random``, from a run that saw nothing of ours."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(11)
    weights = build_backbone("resnet18", 1).state_dict()
    described = {"kind": "backbone", "arch": "resnet18", "size": 32}
    save_weights(RunFolder(folder), "backbone", weights, described)
    write_seen(folder, Seen())
    return folder


def test_means_are_those_of_the_runs_with_a_paired_interval_and_without_data(
    backbone, tmp_path, cli
):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 90), ("bright", 110)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(125):
            pixels = rng.normal(level, 40, (32, 32)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{name}{i:03d}.png")
    pack = tmp_path / "pack"
    words = ("pack", tmp_path / "images", "--out", pack, "--size", 32, "--workers", 1)
    assert cli(*words, "--val", 0.1, "--test", 0.2)[0] == 0
    runs = {"random": tmp_path / "random", "other": tmp_path / "other"}
    for init, out in runs.items():
        status, _, told = cli(
            "classify", "--data", pack, "--out", out, "--arch", "resnet18", "--size", 32, "--bootstrap", 0,
            "--fraction", 0.01, "--seeds", *SEEDS, "--init", "random" if init == "random" else backbone,
        )  # fmt: skip
        assert status == 0, told
    own = {name: figures(run) for name, run in runs.items()}
    out = tmp_path / "evaluated"
    status, _, told = cli("evaluate", *runs.values(), "--out", out, "--bootstrap", 100)
    assert status == 0, told
    arms = json.loads((out / "metrics.json").read_text())["arms"]
    assert list(arms) == ["random", "other"]
    for name, arm in arms.items():
        assert len(arm["test"]["auc"]["over_seeds"]["ci95"]) == 2
        for measure in ("auc", "average_precision", "brier"):
            assert arm["test"][measure]["value"] == pytest.approx(own[name][measure]["value"])
    by_seed = {name: np.ravel(arm["test"]["auc"]["runs"]) for name, arm in arms.items()}
    assert all(len(values) == len(SEEDS) for values in by_seed.values())
    assert len(set(by_seed["random"])) > 1  # 1 % are other images each time
    apart = arms["other"]["difference"]["auc"]
    assert apart["value"] == pytest.approx(
        own["other"]["auc"]["value"] - own["random"]["auc"]["value"]
    )
    low, high = apart["ci95"]
    assert low < apart["value"] < high and apart["tests"]["p"] is not None
    paired = stats.ttest_rel(by_seed["other"], by_seed["random"]).confidence_interval(0.95)
    assert apart["over_seeds"]["ci95"] == pytest.approx([paired.low, paired.high])
    unpaired = [np.subtract(*one["test"]["auc"]["ci95"]) for one in arms.values()]
    assert high - low < np.hypot(*unpaired)  # the same patients on both sides
