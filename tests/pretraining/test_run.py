"""The job itself: ranks, pieces, signals, monitors and options."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from support import PRETRAIN, ranks, twinray
from twinray.backbones.build import build_backbone, zero_last_norms
from twinray.backbones.pixels import IMAGENET
from twinray.errors import InputError, TwinrayError
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.knn import FEWEST, KnnProbe
from twinray.pretraining.model import BarlowTwins
from twinray.pretraining.options import check_ranks, resolve
from twinray.pretraining.run import chosen_rows, make_loop, open_packs, open_source, run
from twinray.records import UNCERTAIN, UNKNOWN
from twinray.training.device import Machine
from twinray.training.loader import PixelSource
from twinray.training.monitor import collapse

TINY = {
    "arch": "resnet18",
    "size": 32,
    "batch_size": 8,
    "projector": (32, 32),
    "precision": "float32",
    "device": "cpu",
    "optimizer": "sgd",
    "log_every": 1,
}


def backbone(folder):
    return safetensors.torch.load_file(folder / "backbone.safetensors")


def test_two_ranks_train_as_one(class_pack, tmp_path):
    """One step of SGD: after several, float32 rounding through BatchNorm of so few images has grown to per cents.

    That the gradients are equal to rounding is shown in float64 in ``tests/training/test_ranks.py``.
    """
    more = (
        "--optimizer",
        "sgd",
        "--batch-size",
        24,
        "--log-every",
        1,
        "--norm-statistics",
        "whole",
    )
    arguments = ("pretrain", "--data", class_pack, "--epochs", 1, *PRETRAIN, *more)
    twinray(*arguments, "--out", tmp_path / "one", check=True)
    ranks(2, ["-m", "twinray.cli", *arguments, "--out", tmp_path / "two"])
    one, two = (backbone(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    start = build_backbone("resnet18", 0).state_dict()
    learnt = [name for name in one if name.endswith(("weight", "bias"))]
    moved, apart = (
        sum(float((one[name] - other[name]).square().sum()) for name in learnt) ** 0.5
        for other in (start, two)
    )
    assert apart < 0.02 * moved
    losses = [
        [
            json.loads(line).get("loss")
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == len(losses[1]) == 1  # one log, not one a rank
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_batch_must_fall_into_equal_pieces():
    config = PretrainConfig(data=(Path("a"),), out=Path("run"), batch_size=12, accumulate=2)
    check_ranks(config, 3)
    for accumulate, world in ((1, 5), (6, 2), (5, 1)):
        with pytest.raises(InputError, match="equal pieces"):
            check_ranks(dataclasses.replace(config, accumulate=accumulate), world)


@pytest.mark.parametrize("objective", ["barlow-twins", "vicreg", "simclr", "byol"])
def test_every_objective_trains_in_pieces(objective, class_pack, tmp_path):
    config = PretrainConfig(
        data=(class_pack,),
        out=tmp_path / "run",
        epochs=1,
        objective=objective,
        accumulate=2,
        **TINY,
    )
    folder = run(config)
    figures = json.loads((folder.path / "metrics.json").read_text())["train"]
    assert np.isfinite(
        [figures[name]["value"] for name in ("loss", "mean_c_ii", "rms_c_ij", "effective_rank")]
    ).all()
    assert objective in json.loads((folder.path / "backbone.json").read_text())["trained_by"]


def test_a_collapsed_embedding_stops_the_run(class_pack, tmp_path):
    config = resolve(PretrainConfig(data=(class_pack,), out=tmp_path / "run", epochs=3, **TINY))
    packs = open_packs(config)
    from twinray.pretraining.model import BarlowTwins
    from twinray.runs.folder import open_run
    from twinray.training.device import choose_machine
    from twinray.training.engine import train

    model = BarlowTwins(build_backbone("resnet18", 0), (32, 32))
    torch.nn.init.zeros_(model.projector[-1].weight)
    loop = make_loop(
        config,
        model,
        open_source(packs, chosen_rows(packs, config), config),
        choose_machine("cpu", "float32"),
    )
    frozen = dataclasses.replace(loop, rates=lambda step: [0.0, 0.0])
    with pytest.raises(TwinrayError, match="collapsed to a point"):
        train(
            frozen, open_run(config, out=config.out, resume=False, job="pretrain", environment={})
        )
    assert (tmp_path / "run" / "failed-step.pt").is_file()


def test_what_counts_as_collapse():
    assert collapse({"loss": 3.0}, 64) is None
    assert collapse({"embedding_std": 0.7, "effective_rank": 12.0}, 64) is None
    assert "point" in collapse({"embedding_std": 0.001, "effective_rank": 12.0}, 64)
    assert "line" in collapse({"embedding_std": 0.7, "effective_rank": 1.1}, 64)


def test_defaults_follow_the_batch_and_the_length():
    long = resolve(PretrainConfig(data=(Path("a"),), out=Path("run"), epochs=600, batch_size=768))
    assert (long.optimizer, long.lam, long.crop_min, long.warmup_epochs) == (
        "lars",
        0.0051,
        0.08,
        10,
    )
    assert long.lr == pytest.approx(0.6)
    assert long.lr_biases == pytest.approx(0.0144)
    assert long.projector == (8192, 8192, 8192)
    short = resolve(PretrainConfig(data=(Path("a"),), out=Path("run"), epochs=5, arch="resnet18"))
    assert (short.optimizer, short.lam, short.crop_min) == ("adamw", 1 / 2048, 0.5)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("accumulate", 0, "--accumulate"),
        ("blur", (0.5, 1.5), "--blur"),
        ("hue", 0.6, "--hue"),
        ("keep_checkpoints", 0, "--keep-checkpoints"),
        ("knn_every", -1, "--knn-every"),
        ("crop_min", 0.0, "--crop-min"),
    ],
)
def test_options_outside_their_range_are_named(option, value, told):
    with pytest.raises(InputError, match=told):
        resolve(PretrainConfig(data=(Path("a"),), out=Path("run"), **{option: value}))


class Pixel(torch.nn.Module):
    """Features that tell the image's brightness, or nothing."""

    normalisation = IMAGENET

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, x):
        level = x.mean(dim=(1, 2, 3), keepdim=True).flatten(1)
        angle = torch.zeros_like(level) if self.blind else level
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def test_neighbours_vote_for_what_features_tell():
    rng = np.random.default_rng(0)
    n = FEWEST
    positive = rng.random(n) < 0.4
    images = (60 + 100 * positive[:, None, None] + rng.integers(0, 9, (n, 32, 32))).astype(np.uint8)
    source = PixelSource([images], np.stack([np.zeros(n, dtype=np.int64), np.arange(n)], axis=1))
    labels = positive[:, None].astype(np.float64)
    labels[:5] = np.nan
    from twinray.training.device import choose_machine

    machine = choose_machine("cpu", "float32")
    probe = KnnProbe.of(source, labels, np.arange(n) // 2, 32, seed=0)
    assert probe is None  # five of them are not labelled: too few
    more = KnnProbe.of(source, positive[:, None].astype(np.float64), np.arange(n) // 2, 32, seed=0)
    assert more(Pixel(blind=False), machine)["knn_auc"] == 1.0
    assert more(Pixel(blind=True), machine)["knn_auc"] == pytest.approx(0.5, abs=0.15)
    # an uncertain label is none: it is -1 in a pack, which counted against its neighbours and as an image without
    unsure, noisy = rng.random(n) < 0.45, positive ^ (rng.random(n) < 0.2)
    figures = []
    for value in (UNCERTAIN, UNKNOWN):
        stated = np.where(unsure, value, noisy)[:, None]
        both = np.concatenate([stated, positive[:, None]], axis=1)
        made = KnnProbe.of(source, both, np.arange(n) // 2, 32, seed=0)
        figures.append(made(Pixel(blind=False), machine)["knn_auc"])
    assert figures[0] == figures[1] < 1
    assert (
        KnnProbe.of(source, np.ones((n, 1)), np.arange(n), 32, seed=0) is None
    )  # one class: nothing to tell


@pytest.mark.parametrize(
    ("epochs", "init", "given", "expected"),
    [
        (100, "random", "auto", "on"),
        (99, "random", "auto", "off"),
        (99, "random", "on", "on"),
        (100, "random", "off", "off"),
        (600, "imagenet-v2", "auto", "off"),
    ],
)
def test_residual_blocks_begin_as_the_authors_from_100_epochs_on(epochs, init, given, expected):
    config = PretrainConfig(
        data=(Path("a"),), out=Path("run"), epochs=epochs, arch="resnet50", init=init, zero_init_residual=given,
    )  # fmt: skip
    assert resolve(config).zero_init_residual == expected


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_zeroed_residual_blocks_are_torchvisions(arch):
    backbone = build_backbone(arch, 3)
    zero_last_norms(backbone)
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(arch, weights=None, zero_init_residual=True).state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def authors_rate(step, steps_per_epoch, epochs, batch_size):
    """The factor that the authors of Barlow Twins set before step ``step``, by their formulas."""
    total, warmup, base = epochs * steps_per_epoch, 10 * steps_per_epoch, batch_size / 256
    if step < warmup:
        return base * step / warmup
    q = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    return base * q + base * 0.001 * (1 - q)


def test_rates_are_the_authors_step_for_step(class_pack, tmp_path):
    config = resolve(
        PretrainConfig(
            data=(class_pack,),
            out=tmp_path,
            epochs=100,
            arch="resnet18",
            batch_size=8,
            projector=(8, 8),
            optimizer="lars",
            size=32,
        )
    )
    packs = open_packs(config)
    source = open_source(packs, chosen_rows(packs, config), config)
    model = BarlowTwins(build_backbone("resnet18", 0), (8, 8))
    loop = make_loop(config, model, source, Machine(torch.device("cpu"), bf16=False))
    n = loop.steps_per_epoch
    assert n > 1
    for step in range(100 * n):
        factor = authors_rate(step, n, 100, 8)
        assert loop.rates(step) == pytest.approx([0.2 * factor, 0.0048 * factor], rel=1e-9), step
    assert config.out is not None
    config.out.mkdir(exist_ok=True)  # a run of a version whose warm-up began a step on
    (config.out / "inputs.json").write_text('{"precision": "float32"}')
    loop = make_loop(config, model, source, Machine(torch.device("cpu"), bf16=False))
    assert loop.rates(0)[0] == pytest.approx(0.2 * 8 / 256 / (10 * n))
