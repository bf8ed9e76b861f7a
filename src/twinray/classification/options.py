"""Options of a classifier run, completed from protocol and initial weights."""

from __future__ import annotations

import dataclasses

from twinray.backbones.weights import settled_arch, settled_size
from twinray.classification.config import AUTO, ClassifyConfig
from twinray.classification.protocols import filled, recipe
from twinray.errors import InputError


def resolve(config: ClassifyConfig) -> ClassifyConfig:
    """Fill in the protocol's values; take architecture and size from the run that gave the weights.

    Raises:
        InputError: an option that the policy has no use for, or weights that do not say architecture or size.
    """
    config = filled(config)
    if config.policy == "probe":
        precision = "float32" if config.precision == "auto" else config.precision
        config = dataclasses.replace(config, precision=precision)
    else:
        _check_rate(config)
    if config.policy == "surgical":
        config = dataclasses.replace(config, tune=config.tune or (AUTO,))
    size = settled_size(config.size, config.init)
    if not size:
        raise InputError(
            f"expected --size with --init {config.init}: name the side that all arms of the comparison share"
        )
    return dataclasses.replace(config, arch=settled_arch(config.arch, config.init), size=size)


def _check_rate(config: ClassifyConfig) -> None:
    """A rate of 0 is what the paper's code does by default: allowed under its protocol, and said in every result."""
    if config.lr_backbone == 0 and not (
        config.protocol == "as-published" and config.policy == "full"
    ):
        raise InputError(
            "expected --lr-backbone to be more than 0 (to keep the backbone as it is: --policy head), got 0"
        )


def check_ranks(config: ClassifyConfig, n_images: int, world: int) -> None:
    """Refuse a batch that the ranks cannot share evenly, and the probe on several ranks.

    Raises:
        InputError: naming batch and ranks.
    """
    if config.policy == "probe":
        raise InputError("the probe is fitted by one process; start it without torchrun")
    batch_size = min(recipe(config).batch_size, n_images)
    if batch_size % world:
        raise InputError(
            f"a batch of {batch_size} images does not fall into {world} equal shares, one a rank; take --batch-size a multiple of {world}"
        )
