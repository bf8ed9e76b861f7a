"""Transformers and ConvNeXt of timm through the verbs that learn, on the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from support import DETECT
from twinray.backbones.build import build_backbone, is_transformer
from twinray.backbones.weights import initialise
from twinray.classification.policies import named_parts
from twinray.errors import InputError
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.options import resolve

timm = pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")

VIT = "timm/test_vit"
SMALL = [w for pair in zip(DETECT[::2], DETECT[1::2], strict=True) for w in pair
         if pair[0] not in ("--arch", "--size", "--batch-size", "--bootstrap", "--precision")]  # fmt: skip
COMMON = ["--batch-size", 8, "--epochs", 1, "--precision", "float32"]


def test_published_weights_of_a_vit_are_continued_and_used(
    class_pack, blob_pack, cli, tmp_path
) -> None:
    """DINOv2's ViT-S/14 by its name, on random values: pretrain, then classify some blocks, then detect."""
    torch.manual_seed(3)
    donor = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    file = tmp_path / "dinov2.safetensors"
    safetensors.torch.save_file(donor.state_dict(), file)
    first = tmp_path / "continued"
    status, _, err = cli("pretrain", "--data", class_pack, "--init", f"dinov2-vit-small={file}", "--out", first,
                         "--size", 56, "--projector", 32, 32, "--optimizer", "sgd", *COMMON)  # fmt: skip
    assert status == 0, err
    described = json.loads((first / "backbone.json").read_text())
    assert described["arch"] == "timm/vit_small_patch14_dinov2"
    assert described["init"]["ancestors"][0]["name"] == "dinov2-vit-small"
    learnt = safetensors.torch.load_file(first / "backbone.safetensors")
    assert {k: v.shape for k, v in learnt.items()} == {
        k: v.shape for k, v in donor.state_dict().items()
    }
    assert not torch.equal(learnt["pos_embed"], donor.pos_embed)  # learnt through interpolation
    surgical = ["--policy", "surgical", "--tune", "blocks.10-11", "--size", 56, "--bootstrap", 0, "--optimizer", "sgd"]  # fmt: skip
    status, _, err = cli("classify", "--data", class_pack, "--init", first, "--out", tmp_path / "c",
                         "--allow-seen", *surgical, *COMMON)  # fmt: skip
    assert status == 0, err
    layers = json.loads((tmp_path / "c" / "model.json").read_text())["layers"]
    assert layers["learning"] == ["head", "blocks.10", "blocks.11"]
    status, _, err = cli("detect", "--data", blob_pack, "--init", first, "--out", tmp_path / "d", "--size", 84,
                         "--optimizer", "sgd", "--bootstrap", 0, "--trainable-blocks", 1, *SMALL, *COMMON)  # fmt: skip
    assert status == 0, err
    trained = safetensors.torch.load_file(tmp_path / "d" / "model.safetensors")
    for name, value in learnt.items():
        moved = name.startswith(("blocks.11.", "norm."))
        assert torch.equal(trained[f"backbone.body.{name}"], value) != moved, name


def test_convnext_classifies_and_detects(class_pack, blob_pack, cli, tmp_path) -> None:
    for verb, pack, more in (
        ("classify", class_pack, ["--policy", "full"]),
        ("detect", blob_pack, SMALL),
    ):
        status, _, err = cli(verb, "--data", pack, "--out", tmp_path / verb, "--arch", "timm/convnext_tiny", "--size", 64,
                             "--bootstrap", 0, "--optimizer", "sgd", *more, *COMMON)  # fmt: skip
        assert status == 0, err
        assert json.loads((tmp_path / verb / "metrics.json").read_text())["test"]


@pytest.mark.parametrize("policy", ["probe", "head", "surgical", "full"])
def test_every_policy_takes_a_plain_transformer(policy, class_pack, cli, tmp_path) -> None:
    more = {"probe": [], "surgical": ["--tune", "blocks.4-5", "norms"]}.get(policy, [])
    learning = [] if policy == "probe" else ["--epochs", 1]
    drawn = ["--drop-path", 0.1] if policy in ("surgical", "full") else []
    out = tmp_path / "run"
    status, _, err = cli("classify", "--data", class_pack, "--out", out, "--arch", VIT, "--policy", policy, "--size", 64,
                         "--bootstrap", 0, *more, *learning, *drawn)  # fmt: skip
    assert status == 0, err
    options = yaml.safe_load((out / "config.yaml").read_text())
    assert options["drop_path"] == (0.1 if drawn else 0.0)
    state = safetensors.torch.load_file(out / "model.safetensors")
    fresh = build_backbone(VIT, 0, 64).state_dict()
    moved = {k for k, v in fresh.items() if not torch.equal(v, state[f"backbone.{k}"])}
    if policy in ("probe", "head"):
        assert not moved
    elif policy == "full":
        assert {"pos_embed", "cls_token", "blocks.0.attn.qkv.weight"} <= moved
    else:
        assert "blocks.4.mlp.fc1.weight" in moved and "blocks.0.norm1.weight" in moved
        assert "blocks.3.mlp.fc1.weight" not in moved and "pos_embed" not in moved


def test_blocks_may_be_named_by_range() -> None:
    backbone = build_backbone(VIT, 0, 64)
    assert list(named_parts(backbone, ("blocks.2-4", "norms"))) == [
        "blocks.2", "blocks.3", "blocks.4", "norms"
    ]  # fmt: skip
    for wrong in ("blocks.4-2", "blocks.4-6", "blocks.-1", "blocks.0-9999"):
        with pytest.raises(InputError, match="to name parts of timm/test_vit"):
            named_parts(backbone, (wrong,))


def test_rates_of_pretraining_follow_the_network_and_not_its_weights() -> None:
    def options(arch: str, **more: object) -> PretrainConfig:
        return resolve(PretrainConfig((Path("p"),), Path("o"), arch=arch, epochs=5, **more))

    large = options(VIT, batch_size=1024)
    assert (large.optimizer, large.lr, large.weight_decay) == ("adamw", 1.5e-4 * 4, 0.1)
    assert options("timm/resnet10t", batch_size=1024).optimizer == "lars"
    small = options("timm/resnet10t", batch_size=256)
    assert (small.optimizer, small.lr, small.weight_decay) == ("adamw", 1e-3, 0.01)
    sgd = options(VIT, batch_size=256, optimizer="sgd")
    assert (sgd.lr, sgd.weight_decay) == (0.1, 1e-4)
    assert is_transformer("timm/vit_small_patch16_dinov3")  # positions by rotation
    assert not is_transformer("resnet50")


def test_stochastic_depth_is_drawn_in_training_alone(tmp_path) -> None:
    torch.save(build_backbone(VIT, 4, 64).state_dict(), tmp_path / "w.pt")
    plain, drawing = build_backbone(VIT, 0, 64), build_backbone(VIT, 0, 64, drop_path=0.5)
    assert str(plain.state_dict().keys()) == str(drawing.state_dict().keys())
    for one in (plain, drawing):
        initialise(one, str(tmp_path / "w.pt"))
    x = torch.randn(4, 3, 64, 64)
    rates = [block.drop_path1.drop_prob for block in drawing.net.blocks[1:]]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert torch.equal(plain.eval()(x), drawing.eval()(x))
    assert not torch.equal(plain.train()(x), drawing.train()(x))
