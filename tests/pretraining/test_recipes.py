"""Recipes by name, the average of weights and the statistics of batch norms that a run keeps."""

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from twinray.backbones.build import build_backbone
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins, Byol, kept_backbone
from twinray.pretraining.momentum import share_kept
from twinray.pretraining.norms import settle_norms
from twinray.pretraining.options import as_published, resolve
from twinray.pretraining.recipes import RECIPES, Recipe
from twinray.pretraining.run import chosen_rows, make_loop, open_packs, open_source, run
from twinray.runs.folder import open_run
from twinray.training.device import choose_machine
from twinray.training.engine import train

TINY = {
    "arch": "resnet18",
    "size": 32,
    "batch_size": 8,
    "projector": (32, 32),
    "precision": "float32",
    "device": "cpu",
    "knn_every": 0,
}


def resolved(**more):
    return resolve(PretrainConfig(data=(Path("a"),), out=Path("run"), **more))


def test_the_published_recipe_is_the_authors():
    assert RECIPES["published"] == Recipe(0.0051, 0.08, 10.0, 10.0, 0.0, "views", True)
    for config in (resolved(epochs=300), resolved(recipe="published", epochs=300)):
        assert (config.lam, config.crop_min, config.warmup_epochs) == (0.0051, 0.08, 10.0)
        assert (config.average, config.norm_statistics) == (0.0, "views")
        assert config.zero_init_residual == "on" and as_published(config)
        assert (config.blur, config.solarise, config.jitter) == ((1.0, 0.1), (0.0, 0.2), 0.8)
    brief = resolved(recipe="published", epochs=5)
    assert (brief.lam, brief.crop_min, brief.warmup_epochs) == (0.0051, 0.08, 0.5)


def test_the_short_recipe():
    short = RECIPES["short"]
    for config in (
        resolved(epochs=5, arch="resnet18"),
        resolved(recipe="short", epochs=300, arch="resnet18"),
    ):
        assert config.lam == 1 / 2048
        assert config.zero_init_residual == "off" and not as_published(config)
        assert config.crop_min == short.crop_min
        assert config.average == short.average
        assert config.norm_statistics == short.norm_statistics
    assert resolved(epochs=99).crop_min == short.crop_min
    assert resolved(epochs=100).crop_min == 0.08


@pytest.mark.parametrize("recipe", ["published", "short"])
def test_an_option_that_is_given_wins(recipe):
    given = {
        "lam": 0.02,
        "crop_min": 0.3,
        "warmup_epochs": 1.0,
        "average": 0.7,
        "norm_statistics": "whole",
    }
    config = resolved(recipe=recipe, epochs=7, **given)
    assert {name: getattr(config, name) for name in given} == given
    nothing = resolved(recipe=recipe, epochs=7, average=0.0, norm_statistics="views")
    assert (nothing.average, nothing.norm_statistics) == (0.0, "views")


def test_what_an_average_keeps_of_itself():
    assert share_kept(1, 1000, 0.1) == 0  # the random first weights are gone at once
    assert share_kept(11, 1000, 0.1) == pytest.approx(0.5)
    assert share_kept(1000, 1000, 0.1) == pytest.approx(0.99)
    assert share_kept(500, 1000, 0.0) == share_kept(3, 10, 0.1) == 0


def loop_of(config):
    packs = open_packs(config)
    source = open_source(packs, chosen_rows(packs, config), config)
    backbone = build_backbone(config.arch, config.seed, config.size)
    model = BarlowTwins(backbone, config.projector, averaged=bool(config.average))
    return make_loop(config, model, source, choose_machine("cpu", "float32")), model


def test_the_average_is_that_of_a_plain_loop(class_pack, tmp_path):
    config = resolve(
        PretrainConfig(data=(class_pack,), out=tmp_path / "run", epochs=3, average=0.4, **TINY)
    )
    loop, model = loop_of(config)
    total = loop.steps_per_epoch * loop.epochs
    plain = [p.detach().double() for p in model.backbone.parameters()]

    def after(step):
        loop.after_step(step)
        keep = min(1 - 1 / (0.4 * total), (step - 1) / (step + 9))
        for mean, now in zip(plain, model.backbone.parameters(), strict=True):
            mean.mul_(keep).add_(now.detach().double(), alpha=1 - keep)

    folder = open_run(config, out=config.out, resume=False, job="pretrain", environment={})
    train(dataclasses.replace(loop, after_step=after), folder)
    kept = kept_backbone(model)
    assert kept is not model.backbone
    moved = 0.0
    for mean, got, last in zip(plain, kept.parameters(), model.backbone.parameters(), strict=True):
        torch.testing.assert_close(got.double(), mean, rtol=1e-5, atol=1e-6)
        moved += float((got - last).detach().abs().sum())
    assert moved > 0
    for mine, theirs in zip(kept.buffers(), model.backbone.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_byol_owns_its_average_once():
    twins = BarlowTwins(build_backbone("resnet18", 0), (32, 32), averaged=True)
    model = Byol(twins, hidden=16)
    names = list(model.state_dict())
    assert len(names) == len(set(names))
    assert sum(name.startswith("average.") for name in names) == len(model.backbone.state_dict())
    assert not any("average" in name for name in model.twin.state_dict())
    model.average.update(0.0)
    assert torch.equal(kept_backbone(model).conv1.weight, model.backbone.conv1.weight)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3, momentum=0.1), nn.Dropout(0.9)

    def forward(self, x):
        return self.drop(self.norm(x))


def test_settled_statistics_are_means_over_the_batches():
    network = Small()
    network.norm.running_mean.fill_(7.0)
    batches = [torch.randn(6, 3, 4, 4) * k + k for k in (1.0, 2.0, 3.0)]
    state = torch.get_rng_state()
    assert settle_norms(network, batches) == 1
    assert torch.equal(torch.get_rng_state(), state)  # no dropout was drawn
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(network.norm.running_mean, mean)
    torch.testing.assert_close(network.norm.running_var, variance)
    assert network.training and network.norm.momentum == 0.1
    network.eval()
    settle_norms(network, batches)
    assert not network.training and not network.norm.training
    assert settle_norms(nn.Linear(3, 3), [torch.zeros(2, 3)]) == 0


def test_only_statistics_differ_between_views_and_whole_images(class_pack, tmp_path):
    found = {}
    for name in ("views", "whole"):
        run(
            PretrainConfig(
                data=(class_pack,), out=tmp_path / name, epochs=1, norm_statistics=name, **TINY
            )
        )
        found[name] = safetensors.torch.load_file(tmp_path / name / "backbone.safetensors")
    assert (
        found["views"].keys()
        == found["whole"].keys()
        == build_backbone("resnet18", 0).state_dict().keys()
    )
    for name, tensor in found["views"].items():
        same = torch.equal(tensor, found["whole"][name])
        assert same == (
            not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        ), name


def test_a_run_keeps_its_average(class_pack, tmp_path):
    config = PretrainConfig(data=(class_pack,), out=tmp_path / "run", epochs=2, average=0.5, **TINY)
    run(config)
    loop, model = loop_of(resolve(config))
    again = dataclasses.replace(resolve(config), out=tmp_path / "again")
    train(loop, open_run(again, out=again.out, resume=False, job="pretrain", environment={}))
    kept = safetensors.torch.load_file(tmp_path / "run" / "backbone.safetensors")
    wanted = model.average.target.state_dict()
    assert kept.keys() == wanted.keys()
    assert not torch.equal(kept["conv1.weight"], model.backbone.conv1.weight.detach())
