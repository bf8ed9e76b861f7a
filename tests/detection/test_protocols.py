"""Presets that differ in values alone, and arms that differ in initial tensors alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from twinray.backbones.build import build_backbone
from twinray.data.pack import open_pack
from twinray.detection import run as run_module
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated, labelled_fraction
from twinray.detection.options import resolve
from twinray.detection.protocols import (
    PROTOCOLS,
    Recipe,
    filled,
    learning_rate,
    pack_notes,
    recipe,
    with_warmup,
)
from twinray.detection.run import make_detector, make_loop, make_optimizer
from twinray.errors import InputError
from twinray.records import Boxes
from twinray.training.device import Machine

SMALL = {
    "arch": "resnet18",
    "size": 64,
    "batch_size": 4,
    "epochs": 1,
    "fpn_channels": 64,
    "box_head_width": 32,
    "rois_per_image": 16,
    "anchor_scale": 4.0,
    "bootstrap": 0,
    "precision": "float32",
}


def options(pack: Path = Path("p"), **more: object) -> DetectConfig:
    return resolve(DetectConfig(**{"data": pack, "out": Path("o"), **SMALL, **more}))  # type: ignore[arg-type]


def test_protocols_are_values_of_the_same_options() -> None:
    names = {field.name for field in dataclasses.fields(Recipe)}
    assert names <= {field.name for field in dataclasses.fields(DetectConfig)}
    assert {type(preset) for preset in PROTOCOLS.values()} == {Recipe}
    assert all(vars(preset).keys() == names for preset in PROTOCOLS.values())
    differing = {
        name
        for name in names
        if getattr(PROTOCOLS["sound"], name) != getattr(PROTOCOLS["as-published"], name)
    }
    assert {"norm", "trainable_stages", "optimizer", "images"} <= differing
    plain = DetectConfig(data=Path("p"), out=Path("o"), arch="resnet18")
    sound, published = resolve(plain), resolve(dataclasses.replace(plain, protocol="as-published"))
    changed = {
        f.name
        for f in dataclasses.fields(plain)
        if getattr(sound, f.name) != getattr(published, f.name)
    }
    assert changed == differing | {"protocol"}
    assert recipe(sound) == PROTOCOLS["sound"]
    assert recipe(published) == PROTOCOLS["as-published"]
    assert DetectConfig(data=Path("p"), out=Path("o")).protocol == "sound"


def test_the_published_values_are_the_papers() -> None:
    values = PROTOCOLS["as-published"]
    assert (values.norm, values.trainable_stages, values.epochs, values.batch_size) == (
        "eval",
        3,
        50,
        32,
    )
    assert (values.optimizer, values.lr, values.weight_decay, values.warmup_steps) == (
        "sgd",
        0.005,
        1e-4,
        500,
    )
    assert values.lr * values.final_lr == pytest.approx(1e-4)
    assert (values.flip, values.scale, values.brightness, values.contrast) == (
        0.5,
        (1.0, 1.0),
        0.0,
        0.0,
    )


def test_options_that_are_given_win_and_the_rate_follows_batch_and_optimiser() -> None:
    given = options(
        protocol="as-published", norm="group", batch_size=8, lr=0.5, scale=(0.9, 1.1), flip=0.0
    )
    assert (given.norm, given.batch_size, given.lr, given.scale, given.flip) == (
        "group",
        8,
        0.5,
        (0.9, 1.1),
        0.0,
    )
    assert given.trainable_stages == 3
    assert options(protocol="as-published", batch_size=16).lr == pytest.approx(0.0025)
    assert options(batch_size=32).lr == pytest.approx(4e-4)
    sgd = options(optimizer="sgd", batch_size=32)
    assert (sgd.lr, sgd.weight_decay) == (0.005, 1e-4)
    assert options(detector="retinanet", anchor_scale=None).anchor_scale == 4.0
    assert resolve(given) == given


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scale": (1.0,)}, "two numbers"),
        ({"scale": (1.2, 0.8)}, "--scale"),
        ({"batch_size": 0}, "--batch-size"),
        ({"fraction": 0.0}, "--fraction"),
        ({"fraction_seed": -1}, "--fraction-seed"),
        ({"final_lr": 2.0}, "--final-lr"),
        ({"clip_norm": -1.0}, "--clip-norm"),
        ({"weight_decay": math.nan}, "finite"),
    ],
)
def test_impossible_options_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        options(**more)


def test_the_schedules() -> None:
    published = PROTOCOLS["as-published"]
    rates = [learning_rate(published, step, 100) for step in range(5000)]
    assert rates[0] == pytest.approx(0.005 * 0.001)
    assert rates[499] == pytest.approx(
        0.005 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * 4 / 50)))
    )
    assert len(set(rates[600:700])) == 1  # one rate an epoch
    assert rates[-1] < 1.2e-4
    sound = PROTOCOLS["sound"]
    steps = [learning_rate(sound, step, 10) for step in range(500)]
    assert max(steps) == pytest.approx(sound.lr)
    assert steps.index(max(steps)) in (49, 50)  # a tenth of 500 steps
    assert all(a > b for a, b in itertools.pairwise(steps[50:]))
    assert learning_rate(sound, 500, 10) == pytest.approx(sound.lr * sound.final_lr)


def test_a_run_of_an_earlier_version_keeps_its_warmup_and_its_maps(
    blob_pack: Path, tmp_path: Path
) -> None:
    published = PROTOCOLS["as-published"]
    before = [learning_rate(published, step, 100, a_step_on=True) for step in range(500)]
    assert before[0] == pytest.approx(0.005 * (0.001 + 0.999 / 500))
    config = options(blob_pack, protocol="as-published", out=tmp_path)
    pack = open_pack(blob_pack)
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    for kept, aligned in (({"pack": "a"}, False), ({"maps": "", "warm-up": ""}, True)):
        (tmp_path / "inputs.json").write_text(json.dumps(kept))
        detector, _ = make_detector(config, pack)
        assert detector.options.aligned == aligned
        loop = make_loop(config, detector, data, cpu())
        first = learning_rate(recipe(config), 0, loop.steps_per_epoch, a_step_on=not aligned)
        assert loop.rates(0)[0] == pytest.approx(first)


def test_the_warmup_of_a_short_run_is_written_down() -> None:
    config = options(batch_size=8, epochs=10)
    assert config.warmup_steps is None
    assert with_warmup(config, 85).warmup_steps == 10
    assert with_warmup(options(batch_size=8, epochs=50), 8000).warmup_steps == 500
    assert with_warmup(options(warmup_steps=3), 85).warmup_steps == 3
    assert with_warmup(config, 5).warmup_steps == 1
    chosen = recipe(with_warmup(config, 85))
    assert [learning_rate(chosen, s, 10) for s in range(100)] == [
        learning_rate(recipe(config), s, 10) for s in range(100)
    ]


def test_a_frozen_random_layer_is_refused_in_sound_and_warned_of_in_as_published(
    blob_pack, capsys
) -> None:
    pack = open_pack(blob_pack)
    with pytest.raises(
        InputError, match=r"stages stem, layer1: \d+ layers stay random for ever"
    ) as error:
        make_detector(options(blob_pack, norm="group", trainable_stages=3), pack)
    assert "\n" not in str(error.value)
    assert "--protocol as-published" in str(error.value)
    make_detector(options(blob_pack, protocol="as-published"), pack)
    assert "random for ever" in capsys.readouterr().err
    make_detector(options(blob_pack), pack)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["faster-rcnn", "retinanet", "fcos"])
def test_arms_differ_in_nothing_but_their_initial_tensors(blob_pack, tmp_path, kind: str) -> None:
    pack = open_pack(blob_pack)
    weights = tmp_path / "weights.pt"
    torch.save(build_backbone("resnet18", seed=99).state_dict(), weights)
    scale = {"faster-rcnn": 4.0, "retinanet": 4.0, "fcos": 1.0}[kind]
    configs = [
        options(blob_pack, detector=kind, anchor_scale=scale, init=init)
        for init in ("random", str(weights))
    ]
    assert [f for f in vars(configs[0]) if getattr(configs[0], f) != getattr(configs[1], f)] == [
        "init"
    ]
    arms = [make_detector(config, pack)[0].train() for config in configs]
    states = [arm.state_dict() for arm in arms]
    assert states[0].keys() == states[1].keys()
    differ = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert {"backbone.body.conv1.weight", "backbone.body.layer4.1.conv2.weight"} <= differ
    assert all(name.startswith("backbone.body.") for name in differ)
    flags = [{name: p.requires_grad for name, p in arm.named_parameters()} for arm in arms]
    modes = [{name: module.training for name, module in arm.named_modules()} for arm in arms]
    assert flags[0] == flags[1] and modes[0] == modes[1]
    assert str(arms[0]) == str(arms[1])
    loops = [
        make_loop(config, arm, {s: annotated(pack, s) for s in ("train", "val", "test")}, cpu())
        for config, arm in zip(configs, arms, strict=True)
    ]
    for a, b in zip(*(loop.optimizer.param_groups for loop in loops), strict=True):
        assert [p.shape for p in a["params"]] == [p.shape for p in b["params"]]
        assert {k: v for k, v in a.items() if k != "params"} == {
            k: v for k, v in b.items() if k != "params"
        }
    assert [loops[0].rates(s) for s in range(4)] == [loops[1].rates(s) for s in range(4)]
    for (x, truth), (y, other) in zip(loops[0].batches(0, 0), loops[1].batches(0, 0), strict=True):
        assert torch.equal(x, y)
        assert torch.equal(truth.boxes, other.boxes)


def cpu() -> Machine:
    return Machine(torch.device("cpu"), bf16=False)


def test_decay_of_biases_is_the_protocols(blob_pack) -> None:
    pack = open_pack(blob_pack)
    for protocol, decay in (("sound", 0.0), ("as-published", 1e-4)):
        config = options(blob_pack, protocol=protocol, norm="trainable", trainable_stages=5)
        groups = make_optimizer(recipe(config), make_detector(config, pack)[0]).param_groups
        assert {g["name"]: g["weight_decay"] for g in groups} == {
            "weights": config.weight_decay,
            "biases and norms": decay,
        }


def test_fractions_are_nested_and_by_patient(blob_pack) -> None:
    data = annotated(open_pack(blob_pack), "train")
    previous: set[int] = set()
    for fraction in (0.2, 0.5, 0.8):
        part = labelled_fraction(data, fraction, seed=3)
        rows = set(part.rows.tolist())
        assert previous <= rows
        previous = rows
        patients = set(part.patients())
        assert rows == {
            int(r) for r, p in zip(data.rows, data.patients(), strict=True) if p in patients
        }
        assert len(part) == len(part.truth) == len(part.targets)
        for row, boxes in zip(part.rows, part.truth, strict=True):
            original = data.truth[int(np.flatnonzero(data.rows == row)[0])]
            assert np.array_equal(boxes.xyxy, original.xyxy)
    assert labelled_fraction(data, 1.0, seed=3) is data
    drawn = {frozenset(labelled_fraction(data, 0.5, seed=seed).rows.tolist()) for seed in range(5)}
    assert len(drawn) > 1


def test_as_published_chooses_its_epoch_on_images_with_a_box(blob_pack, monkeypatch) -> None:
    pack = open_pack(blob_pack)
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    asked: list[int] = []
    none = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), scores=np.zeros(0))

    def nothing_found(_net, of, rows, **_):
        asked.append(len(rows))
        return {str(of.ids[row]): none for row in rows}

    monkeypatch.setattr(run_module, "detect_rows", nothing_found)
    for protocol, images, wanted in (
        ("sound", None, len(data["val"])),
        ("as-published", None, len(data["val"].with_boxes())),
        ("as-published", "all", len(data["val"])),
    ):
        config = options(
            blob_pack, protocol=protocol, images=images, norm="trainable", trainable_stages=5
        )
        loop = make_loop(config, make_detector(config, pack)[0], data, cpu())
        assert loop.at_epoch_end is not None
        loop.at_epoch_end(0)
        assert asked.pop() == wanted
    assert 0 < len(data["val"].with_boxes()) < len(data["val"])
    assert all(len(boxes) for boxes in data["val"].with_boxes().truth)


def test_a_pack_that_is_not_as_the_paper_had_it_is_named(blob_pack) -> None:
    pack = open_pack(blob_pack)
    letterboxed = dataclasses.replace(pack, info=dataclasses.replace(pack.info, fit="letterbox"))
    assert pack_notes(options(blob_pack), pack) == []
    (note,) = pack_notes(options(blob_pack, protocol="as-published"), pack)
    assert (
        "--fit letterbox" in note and f"0 of its {len(pack)} images are out of proportion" in note
    )
    assert pack_notes(options(blob_pack, protocol="as-published"), letterboxed) == []
    (note,) = pack_notes(options(blob_pack, size=96), pack)
    assert "enlarged" in note and "--size 96" in note and "64 pixels" in note


def test_a_detector_of_other_classes_gets_new_layers_for_them_and_says_so(
    detect_run, blob_pack
) -> None:
    pack = open_pack(blob_pack)
    config = options(blob_pack, init=str(detect_run), fpn_channels=32, box_head_width=64)
    assert "with the layers of its classes" in make_detector(config, pack)[1].notes[0]
    other = dataclasses.replace(pack, info=dataclasses.replace(pack.info, box_classes=("Blob",)))
    (note,) = make_detector(config, other)[1].notes
    assert "only in the weights: ['blob']; only in the pack: ['Blob']" in note


def test_rates_as_published_are_those_of_chained_schedulers_step_for_step() -> None:
    """MMEngine's LinearLR over 500 iterations (its end counts as one of them) and its cosine by epoch, as torch chains them."""
    chosen, per_epoch = (
        recipe(filled(DetectConfig(Path("p"), Path("o"), protocol="as-published"))),
        96,
    )
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.005)
    schedulers = torch.optim.lr_scheduler
    warm = schedulers.LinearLR(optimizer, start_factor=0.001, end_factor=1.0, total_iters=499)
    cosine = schedulers.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-4)
    for step in range(50 * per_epoch):
        expected = optimizer.param_groups[0]["lr"]
        # chained, the floor of 1e-4 is added before the warm-up has multiplied it: a ten-thousandth
        assert learning_rate(chosen, step, per_epoch) == pytest.approx(expected, rel=2e-3), step
        optimizer.step()
        warm.step()
        if (step + 1) % per_epoch == 0:
            cosine.step()
