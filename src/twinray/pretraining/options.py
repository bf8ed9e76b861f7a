"""Options of pre-training checked, and defaults that depend on others filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from twinray.checks import check_numbers, check_options
from twinray.errors import InputError
from twinray.pretraining.config import PretrainConfig
from twinray.records import SPLITS

_RATE_PER_256 = {"lars": 0.2, "adamw": 1e-3, "adam": 1e-3, "sgd": 0.1}
_DECAY = {"lars": 1e-6, "adamw": 0.01, "adam": 0.0, "sgd": 1e-4}
_LAMBDA, _CROP_MIN = 0.0051, 0.08
_SMALL = ("resnet18", "resnet34")
_SHORT = 100  # epochs below which the views must be made to agree soon
_CROP_MIN_SHORT = 0.5
_WIDE = (8192, 8192, 8192)
_NARROW = (2048, 2048, 2048)


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
    projector = config.projector or (_NARROW if config.arch in _SMALL or config.arch.startswith("timm/") else _WIDE)
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
        (config.accumulate >= 1, "--accumulate", config.accumulate, "1 or more pieces"),
        *_view_rules(config),
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
        (config.knn_every >= 0, "--knn-every", config.knn_every, "0 or more epochs"),
        (config.keep_checkpoints >= 1, "--keep-checkpoints", config.keep_checkpoints, "1 or more"),
        (config.keep_every >= 0, "--keep-every", config.keep_every, "0 or more epochs"),
        (config.checkpoint_every >= 0, "--checkpoint-every", config.checkpoint_every, "0 or more steps"),
    )
    check_options(rules)


def _view_rules(config: PretrainConfig) -> Sequence[tuple[bool, str, object, str]]:
    chances = {"--flip": config.flip, "--jitter": config.jitter, "--grey": config.grey}
    pairs = {"--blur": config.blur, "--solarise": config.solarise}
    strengths = {"--brightness": config.brightness, "--contrast": config.contrast, "--saturation": config.saturation}
    return (
        *((0 <= value <= 1, name, value, "a probability, 0..1") for name, value in chances.items()),
        *((all(0 <= p <= 1 for p in pair), name, pair, "two probabilities, 0..1") for name, pair in pairs.items()),
        *((0 <= value <= 1, name, value, "a strength, 0..1") for name, value in strengths.items()),
        (0 <= config.hue <= 0.5, "--hue", config.hue, "0 to 0.5 turns"),
        (
            config.crop_min is None or 0 < config.crop_min <= 1,
            "--crop-min",
            config.crop_min,
            "a share of the image's area, above 0 and up to 1",
        ),
    )


def check_ranks(config: PretrainConfig, world: int) -> None:
    """A batch must fall into equal pieces.

    Raises:
        InputError: it does not, or the pieces are too small for BatchNorm.
    """
    pieces = world * config.accumulate
    if config.batch_size % pieces or config.batch_size // pieces < 2:
        raise InputError(
            f"--batch-size {config.batch_size} does not fall into {world} rank(s) x --accumulate {config.accumulate} equal pieces of "
            f"2 images or more; take a multiple of {pieces}, at least {2 * pieces}"
        )
