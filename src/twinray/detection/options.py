"""Options of a detector run, completed from its protocol and its initial weights."""

from __future__ import annotations

import dataclasses

from twinray.backbones.weights import settled_arch
from twinray.detection.config import DetectConfig
from twinray.detection.initial import initial_detector
from twinray.detection.protocols import filled, recipe
from twinray.detection.transforms import TransformOptions
from twinray.errors import InputError
from twinray.training.windows import windows_of

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
    """Fill in the protocol's values and defaults that depend on others.

    Raises:
        InputError: initial weights that do not say their architecture, where --arch does not either.
    """
    config = filled(config)
    scale, rounded = ANCHOR_SCALE[config.detector], False
    initial = initial_detector(config.init, config.init_part, config.detector)
    if initial is not None and initial.description is not None:  # its heads know its own anchors
        options = initial.description.options
        scale = float(options.get("anchor_scale", scale))
        rounded = bool(options.get("round_anchors", False))
    elif initial is not None:
        rounded = True
    return dataclasses.replace(
        config,
        arch=settled_arch(config.arch, config.init),
        anchor_scale=scale if config.anchor_scale is None else config.anchor_scale,
        round_anchors=rounded or config.round_anchors,
    )


def transform_options(config: DetectConfig) -> TransformOptions:
    """The training transforms of a configuration."""
    chosen = recipe(config)
    return TransformOptions(
        flip=chosen.flip,
        scale=chosen.scale,
        brightness=chosen.brightness,
        contrast=chosen.contrast,
        resize=config.resize,
        windows=windows_of(config),
    )
