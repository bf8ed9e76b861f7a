"""Options of a detector run: checked, and completed from its initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from twinray.backbones.weights import described_arch
from twinray.checks import check_numbers, check_options
from twinray.detection.config import DetectConfig
from twinray.detection.protocols import filled, recipe
from twinray.detection.transforms import TransformOptions
from twinray.errors import InputError

ANCHOR_SCALE = {"faster-rcnn": 8.0, "retinanet": 4.0, "fcos": 1.0}
"""Default of ``anchor_scale``: sizes from 32 pixels for both kinds of anchors; FCOS's cells are as large as its strides."""


def check_ranks(config: DetectConfig, n_images: int, world: int) -> None:
    """Refuse a batch that the ranks cannot share evenly.

    Raises:
        InputError: naming batch and ranks.
    """
    batch_size = min(recipe(config).batch_size, n_images)
    if batch_size % world:
        raise InputError(
            f"a batch of {batch_size} images does not fall into {world} equal shares, one a rank; take --batch-size a multiple of {world}"
        )


def resolve(config: DetectConfig) -> DetectConfig:
    """Fill in the protocol's values and defaults that depend on others, and check all.

    Raises:
        InputError: an option outside its range.
    """
    check_numbers(config)
    given = config
    if config.batch_size is not None:  # the learning rate's default is drawn from it
        check_options([(config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more")])
    if len(config.scale) not in (0, 2):
        raise InputError(f"expected --scale to be two numbers, got {len(config.scale)}")
    config = filled(config)
    chosen = recipe(config)
    low, high = chosen.scale
    rules: Sequence[tuple[bool, str, object, str]] = (
        (chosen.epochs >= 1, "--epochs", chosen.epochs, "1 or more"),
        (chosen.lr > 0, "--lr", chosen.lr, "more than 0"),
        (0 <= chosen.final_lr <= 1, "--final-lr", chosen.final_lr, "a share of the peak rate, 0..1"),
        (chosen.clip_norm >= 0, "--clip-norm", chosen.clip_norm, "0 (off) or more"),
        (0 <= chosen.trainable_stages <= 5, "--trainable-stages", chosen.trainable_stages, "0 to 5"),
        (0 <= chosen.flip <= 1, "--flip", chosen.flip, "a probability, 0..1"),
        (0 < low <= high, "--scale", given.scale, "two numbers above 0, ascending"),
        (chosen.weight_decay >= 0, "--weight-decay", chosen.weight_decay, "0 or more"),
        (chosen.weight_decay_biases >= 0, "--weight-decay-biases", chosen.weight_decay_biases, "0 or more"),
        ((chosen.warmup_steps or 0) >= 0, "--warmup-steps", chosen.warmup_steps, "0 or more"),
        (chosen.brightness >= 0, "--brightness", chosen.brightness, "0 or more"),
        (0 <= chosen.contrast <= 1, "--contrast", chosen.contrast, "0 to 1"),
        (0 < config.fraction <= 1, "--fraction", config.fraction, "above 0 and up to 1"),
        (config.fraction_seed >= 0, "--fraction-seed", config.fraction_seed, "0 or more"),
        (config.bootstrap >= 0, "--bootstrap", config.bootstrap, "0 or more"),
        (config.log_every >= 1, "--log-every", config.log_every, "1 or more steps"),
        (config.checkpoint_every >= 0, "--checkpoint-every", config.checkpoint_every, "0 or more steps"),
    )
    check_options(rules)
    scale = config.anchor_scale if config.anchor_scale is not None else ANCHOR_SCALE[config.detector]
    return dataclasses.replace(config, arch=config.arch or described_arch(config.init), anchor_scale=scale)


def transform_options(config: DetectConfig) -> TransformOptions:
    """The training transforms of a configuration."""
    chosen = recipe(config)
    return TransformOptions(
        flip=chosen.flip, scale=chosen.scale, brightness=chosen.brightness, contrast=chosen.contrast
    )
