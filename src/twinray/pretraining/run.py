"""``twinray pretrain``: unlabelled packs -> a backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import MEAN, STD, normalise, pixels_to_unit
from twinray.backbones.weights import Provenance, initialise
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError, check_numbers, check_options
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins
from twinray.pretraining.objective import barlow_twins
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.records import SPLITS
from twinray.training.device import Machine, choose_machine
from twinray.training.engine import Loop, train
from twinray.training.loader import PixelSource, epoch_order, prefetch
from twinray.training.monitor import embedding_health
from twinray.training.optim import build_optimizer, warmup_cosine
from twinray.training.rundir import RunFolder, open_run, plain

_RATE_PER_256 = {"lars": 0.2, "adamw": 1e-3, "sgd": 0.1}
_DECAY = {"lars": 1e-6, "adamw": 0.01, "sgd": 1e-4}
_LAMBDA, _CROP_MIN = 0.0051, 0.08
_SHORT = 100  # epochs below which the views must be made to agree soon
_CROP_MIN_SHORT = 0.5
_WIDE = (8192, 8192, 8192)
_NARROW = (2048, 2048, 2048)


def run(config: PretrainConfig) -> RunFolder:
    """Pre-train and write ``backbone.safetensors`` into the run's folder.

    Raises:
        InputError: bad options, packs or initial weights.
        TwinrayError: the loss left the finite numbers, or the disk refuses.
    """
    config = resolve(config)
    source = open_source(config)
    if len(source) < config.batch_size:
        raise InputError(
            f"--batch-size {config.batch_size} is more than the {len(source)} images of {', '.join(config.splits)} in "
            f"{', '.join(map(str, config.data))}; lower it, or pass more packs"
        )
    backbone = build_backbone(config.arch, config.seed)
    provenance = initialise(backbone, config.init)
    machine = choose_machine(config.device, config.precision)
    inputs = {
        "packs": [open_pack(path).info.checksums for path in config.data],
        "init": provenance.sha256,
        "precision": machine.precision,
    }
    folder = open_run(config, out=config.out, resume=config.resume, job="pretrain", inputs=inputs)
    if folder.finished:
        return folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = BarlowTwins(backbone, config.projector)
    model = model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = make_loop(config, model, source, machine)
    state = train(loop, folder)
    _write_results(config, folder, model, provenance, state.seconds, state.waited, loop)
    return folder


def resolve(config: PretrainConfig) -> PretrainConfig:
    """Check the options and fill in defaults that depend on others.

    Raises:
        InputError: an option outside its range.
    """
    check_numbers(config)
    _check(config)
    optimizer = config.optimizer
    if optimizer == "auto":
        optimizer = "lars" if config.batch_size >= 512 else "adamw"
    projector = config.projector or (_WIDE if config.arch == "resnet50" else _NARROW)
    short = config.epochs < _SHORT
    scale = config.batch_size / 256
    lr = config.lr if config.lr is not None else _RATE_PER_256[optimizer] * scale
    default_biases = 0.0048 * scale if optimizer == "lars" else lr
    return dataclasses.replace(
        config,
        lam=config.lam if config.lam is not None else (1 / projector[-1] if short else _LAMBDA),
        crop_min=config.crop_min if config.crop_min is not None else (_CROP_MIN_SHORT if short else _CROP_MIN),
        optimizer=optimizer,
        lr=lr,
        lr_biases=config.lr_biases if config.lr_biases is not None else default_biases,
        weight_decay=config.weight_decay if config.weight_decay is not None else _DECAY[optimizer],
        warmup_epochs=config.warmup_epochs if config.warmup_epochs is not None else min(10.0, config.epochs / 10),
        projector=projector,
    )


def _check(config: PretrainConfig) -> None:
    rules: Sequence[tuple[bool, str, object, str]] = (
        (bool(config.data), "--data", "nothing", "at least one pack"),
        (len({p.resolve() for p in config.data}) == len(config.data), "--data", config.data, "different packs"),
        (
            bool(config.splits) and set(config.splits) <= set(SPLITS),
            "--splits",
            config.splits,
            f"some of {', '.join(SPLITS)}",
        ),
        (
            config.batch_size >= 2,
            "--batch-size",
            config.batch_size,
            "2 or more (statistics over one image do not exist)",
        ),
        (config.epochs >= 1, "--epochs", config.epochs, "1 or more"),
        (config.size >= 32, "--size", config.size, "32 pixels or more"),
        (config.lam is None or config.lam > 0, "--lam", config.lam, "more than 0"),
        (0 <= config.flip <= 1, "--flip", config.flip, "a probability, 0..1"),
        (
            config.crop_min is None or 0 < config.crop_min <= 1,
            "--crop-min",
            config.crop_min,
            "a share of the image's area, above 0 and up to 1",
        ),
        (config.lr is None or config.lr > 0, "--lr", config.lr, "more than 0"),
        (config.lr_biases is None or config.lr_biases > 0, "--lr-biases", config.lr_biases, "more than 0"),
        (config.weight_decay is None or config.weight_decay >= 0, "--weight-decay", config.weight_decay, "0 or more"),
        (
            config.warmup_epochs is None or 0 <= config.warmup_epochs <= config.epochs,
            "--warmup-epochs",
            config.warmup_epochs,
            f"0 to --epochs {config.epochs}",
        ),
        (all(w >= 2 for w in config.projector), "--projector", config.projector, "widths of 2 or more"),
        (config.log_every >= 1, "--log-every", config.log_every, "1 or more steps"),
        (config.checkpoint_every >= 0, "--checkpoint-every", config.checkpoint_every, "0 or more steps"),
    )
    check_options(rules)


def open_source(config: PretrainConfig) -> PixelSource:
    """The chosen images of all packs.

    Raises:
        InputError: the packs differ in size or channels, or the chosen splits are empty.
    """
    packs: list[Pack] = [open_pack(path) for path in config.data]
    first = packs[0]
    for pack in packs[1:]:
        if (pack.info.size, pack.info.channels) != (first.info.size, first.info.channels):
            raise InputError(
                f"expected packs of one size and one number of channels: {first.path} has {first.info.size} pixels and "
                f"{first.info.channels} channel(s), {pack.path} {pack.info.size} and {pack.info.channels}; pack them alike"
            )
    rows = [
        np.stack([np.full(len(chosen), which), chosen], axis=1)
        for which, pack in enumerate(packs)
        for chosen in [np.flatnonzero(np.isin(pack.splits.astype(str), config.splits))]
    ]
    source = PixelSource([pack.images for pack in packs], np.concatenate(rows))
    if len(source) == 0:
        raise InputError(
            f"no image of split {', '.join(config.splits)} in {', '.join(map(str, config.data))}; see --splits"
        )
    return source


def make_loop(config: PretrainConfig, model: BarlowTwins, source: PixelSource, machine: Machine) -> Loop:
    """The training loop of a resolved configuration."""
    assert config.lam is not None and config.lr is not None and config.lr_biases is not None  # set by resolve
    assert config.weight_decay is not None and config.warmup_epochs is not None and config.optimizer != "auto"
    steps_per_epoch = len(source) // config.batch_size
    total, warmup = steps_per_epoch * config.epochs, round(config.warmup_epochs * steps_per_epoch)
    optimizer = build_optimizer(
        config.optimizer, model, lr=config.lr, lr_biases=config.lr_biases, weight_decay=config.weight_decay
    )
    base = [float(group["lr"]) for group in optimizer.param_groups]

    def batches(epoch: int, first: int) -> Iterator[Tensor]:
        order = epoch_order(len(source), config.batch_size, seed=config.seed, epoch=epoch)
        return prefetch(source.gather, order[first:])

    return Loop(
        label="pre-training",
        model=model,
        optimizer=optimizer,
        step=Step(model, machine, _view_makers(config), config.lam, config.seed, config.log_every),
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        rates=lambda step: [rate * warmup_cosine(step, total=total, warmup=warmup) for rate in base],
        images_per_step=config.batch_size,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
    )


def _view_makers(config: PretrainConfig) -> tuple[ViewMaker, ViewMaker]:
    assert config.crop_min is not None  # set by resolve
    first, second = (
        dataclasses.replace(options, flip=config.flip, crop_area=(config.crop_min, 1.0))
        for options in ViewOptions.pair()
    )
    return ViewMaker(config.size, first), ViewMaker(config.size, second)


@dataclass(frozen=True, eq=False)
class Step:
    """The training step: two views of each image, two embeddings, one loss, its gradient."""

    model: BarlowTwins
    machine: Machine
    views: tuple[ViewMaker, ViewMaker]
    lam: float
    seed: int
    health_every: int

    def __call__(self, pixels: Tensor, step: int) -> Mapping[str, Tensor]:
        """uint8 (b, s, s[, 3]) pixels -> loss and monitors; gradients are left in ``.grad``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        images = pixels_to_unit(pixels.to(self.machine.device, non_blocking=True))
        embeddings = []
        for make_view in self.views:
            view = normalise(make_view(images, generator)).contiguous(memory_format=torch.channels_last)
            with self.machine.autocast():
                embeddings.append(self.model(view)[1])
        value = barlow_twins(embeddings[0], embeddings[1], self.lam)
        value.loss.backward()  # type: ignore[no-untyped-call]
        figures = {"loss": value.loss.detach(), "mean_c_ii": value.invariance, "rms_c_ij": value.redundancy}
        if step % self.health_every == 0:  # an eigenvalue problem: not at every step
            figures |= embedding_health(embeddings[0].detach())
        return figures


def _write_results(
    config: PretrainConfig,
    folder: RunFolder,
    model: BarlowTwins,
    provenance: Provenance,
    seconds: float,
    waited: float,
    loop: Loop,
) -> None:
    description: dict[str, Any] = {
        "kind": "backbone",
        "arch": config.arch,
        "features": model.backbone.features,
        "normalisation": {"mean": MEAN, "std": STD, "scale": "0..1"},
        "size": config.size,
        "trained_by": "pretrain (Barlow Twins)",
        "epochs": config.epochs,
        "data": [
            {"pack": str(path), "splits": list(config.splits), **_fingerprint(open_pack(path))} for path in config.data
        ],
        "init": provenance.as_json(),
    }
    folder.save_weights("backbone", model.backbone.state_dict(), plain(description))
    last: dict[str, Any] = {}
    for line in folder.history():
        last |= line  # the newest value of each figure; some are not in every line
    figures = {
        name: {"value": last[name], "ci95": None, "n": config.batch_size}
        for name in ("loss", "mean_c_ii", "rms_c_ij", "embedding_std", "effective_rank")
    }
    figures["images_per_s"] = {
        "value": loop.steps_per_epoch * loop.epochs * config.batch_size / seconds,
        "ci95": None,
        "n": 1,
    }
    figures["seconds"] = {"value": seconds, "ci95": None, "n": 1}
    figures["data_wait"] = {"value": waited / seconds, "ci95": None, "n": 1}
    folder.write_metrics({"train": figures})


def _fingerprint(pack: Pack) -> dict[str, Any]:
    return {"names": list(pack.info.names), "images": len(pack), "checksums": pack.info.checksums}
