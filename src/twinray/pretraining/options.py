"""Options of pre-training: defaults that depend on others, and what the number of ranks asks of a batch."""

from __future__ import annotations

import dataclasses

from twinray.backbones.build import is_transformer
from twinray.backbones.weights import settled_arch
from twinray.errors import InputError
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.recipes import RECIPES, recipe_name

_RATE_PER_256 = {"lars": 0.2, "adamw": 1e-3, "adam": 1e-3, "sgd": 0.1}
_DECAY = {"lars": 1e-6, "adamw": 0.01, "adam": 0.0, "sgd": 1e-4}
_OF_TRANSFORMERS = {"adamw": (1.5e-4, 0.1), "adam": (1.5e-4, 0.0)}
"""Rate for a batch of 256, and decay: MoCo v3's (Chen et al. 2021), whose larger rates let transformers break down now and
then. By the network and not by its weights, so that a random and a continued one differ in their weights alone."""
_SMALL = ("resnet18", "resnet34")
_WIDE = (8192, 8192, 8192)
_NARROW = (2048, 2048, 2048)


def resolve(config: PretrainConfig) -> PretrainConfig:
    """Fill in defaults that depend on other options.

    Raises:
        InputError: initial weights of another architecture than --arch.
    """
    config = dataclasses.replace(config, arch=settled_arch(config.arch, config.init, "resnet50"))
    optimizer = config.optimizer
    tokens = is_transformer(config.arch)
    if optimizer == "auto":
        optimizer = "lars" if config.batch_size >= 512 and not tokens else "adamw"
    projector = config.projector or (
        _NARROW if config.arch in _SMALL or config.arch.startswith("timm/") else _WIDE
    )
    recipe = RECIPES[recipe_name(config.recipe, config.epochs)]
    lam = recipe.lam if recipe.lam is not None else 1 / projector[-1]
    zeroed = config.zero_init_residual
    if zeroed == "auto":
        zeroed = "on" if recipe.zero_init_residual and config.init == "random" else "off"
    scale = config.batch_size / 256
    rate, decay = _RATE_PER_256[optimizer], _DECAY[optimizer]
    if tokens:
        rate, decay = _OF_TRANSFORMERS.get(optimizer, (rate, decay))
    lr = config.lr if config.lr is not None else rate * scale
    default_biases = 0.0048 * scale if optimizer == "lars" else lr
    return dataclasses.replace(
        config,
        lam=config.lam if config.lam is not None else lam,
        crop_min=config.crop_min if config.crop_min is not None else recipe.crop_min,
        optimizer=optimizer,
        lr=lr,
        lr_biases=config.lr_biases if config.lr_biases is not None else default_biases,
        weight_decay=config.weight_decay if config.weight_decay is not None else decay,
        warmup_epochs=config.warmup_epochs
        if config.warmup_epochs is not None
        else recipe.warmup_epochs(config.epochs),
        average=config.average if config.average is not None else recipe.average,
        norm_statistics=config.norm_statistics or recipe.norm_statistics,
        projector=projector,
        zero_init_residual=zeroed,
    )


def as_published(config: PretrainConfig) -> bool:
    """Whether a run takes the published values, by name or because it is long: they are made for hundreds of epochs."""
    return recipe_name(config.recipe, config.epochs) == "published"


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
