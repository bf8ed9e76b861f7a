"""``weights``: the table, a row with its sources, and what a file holds."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from twinray.backbones.build import build_backbone
from twinray.backbones.ledger import LEDGER
from twinray.jobs.weights.config import WeightsConfig
from twinray.jobs.weights.run import look_into, run


@pytest.fixture(scope="module")
def state():
    return build_backbone("resnet18", 1).state_dict()


def test_the_table_lists_every_row(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    status, told, err = cli("weights")
    assert status == 0 and not err
    for name in LEDGER:
        assert f"│ {name} " in told
    assert set(run(WeightsConfig())) == set(LEDGER)


def test_a_row_gives_every_fact_with_source_and_day(cli):
    status, told, _ = cli("weights", "rad-dino")
    assert status == 0
    for word in (
        "0.5307",
        "microsoft/rad-dino",
        "timm/vit_base_patch14_dinov2",
        "nih-cxr14",
        "MIT",
        "read 2026-11-25",
    ):
        assert word in told
    (row,) = run(WeightsConfig("rad-dino")).values()
    assert row["size"] == {"value": 518, "source": row["size"]["source"], "read": "2026-11-25"}


@pytest.mark.parametrize("name", LEDGER)
def test_every_row_can_be_told(name):
    (row,) = run(WeightsConfig(name)).values()
    assert all(fact["source"] and fact["read"] for fact in row.values() if isinstance(fact, dict))


def test_a_file_whose_layout_and_architecture_are_found(tmp_path, state, cli):
    whole = {f"module.encoder_q.{k}": v for k, v in state.items()} | {
        "module.queue": torch.zeros(2, 2)
    }
    torch.save({"state_dict": whole}, tmp_path / "w.pth.tar")
    found = look_into(str(tmp_path / "w.pth.tar"))
    assert found["architecture"] == "resnet18" and found["layout"] == "own names"
    assert found["prefix"] == "module.encoder_q." and found["place"] == "state_dict"
    assert found["would load"] == "100 of 100 tensors of resnet18"
    assert "module.queue" in found["would not load"] and found["values"] == "all finite"
    assert "moco-cxr-resnet18" in found["in the table, this layout is of"]
    status, told, _ = cli("weights", tmp_path / "w.pth.tar")
    assert status == 0 and "prefix: module.encoder_q." in told


def test_a_file_that_does_not_fit_says_what_is_missing(tmp_path, state):
    less = {k: v for k, v in state.items() if not k.startswith("layer4")}
    safetensors.torch.save_file(less, tmp_path / "w.safetensors")
    found = look_into(str(tmp_path / "w.safetensors"), "resnet18")
    assert (
        "none that was tried" in found["architecture"] and "layer4.0.bn1.bias" in found["missing"]
    )


def test_values_that_no_network_can_use_are_named(tmp_path, state):
    torch.save(state | {"bn1.running_var": torch.full((64,), float("inf"))}, tmp_path / "w.pth")
    assert "bn1.running_var is not finite" in look_into(str(tmp_path / "w.pth"))["values"]


def test_a_name_with_a_file_is_read_as_that_row(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    found = look_into(f"gloria-resnet18={tmp_path / 'w.pth'}")
    assert found["would load"].startswith("100 of 100")
    assert "pickled module" in look_into(f"xrv-densenet121-nih={tmp_path / 'w.pth'}")["refused"]


@pytest.mark.parametrize("target", ["rad-din", "nowhere.pth", "rad-dino=nowhere.pth"])
def test_what_is_not_there_is_one_line(target, cli):
    status, _, err = cli("weights", target)
    assert status == 2 and err.count("\n") == 1
