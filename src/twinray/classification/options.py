"""Options of a classifier run: checked, and completed from protocol and initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from twinray.backbones.weights import described_arch, read_description
from twinray.checks import check_numbers, check_options
from twinray.classification.config import ClassifyConfig
from twinray.classification.protocols import filled, recipe
from twinray.errors import InputError

AUTO = "auto"


def resolve(config: ClassifyConfig) -> ClassifyConfig:
    """Check the options; fill in the protocol's values; take architecture and size from the run that gave the weights.

    Raises:
        InputError: an option outside its range, or one that the policy has no use for.
    """
    check_numbers(config)
    check_options(
        (
            (0 < config.fraction <= 1, "--fraction", config.fraction, "above 0 and up to 1"),
            (
                bool(config.seeds) and len(set(config.seeds)) == len(config.seeds),
                "--seeds",
                config.seeds,
                "one or more different numbers",
            ),
            (config.size == 0 or config.size >= 32, "--size", config.size, "32 pixels or more"),
            (config.batch_size is None or config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more"),
            (config.folds >= 2, "--folds", config.folds, "2 or more"),
            (config.bootstrap >= 0, "--bootstrap", config.bootstrap, "0 or more"),
            (config.log_every >= 1, "--log-every", config.log_every, "1 or more steps"),
            (config.checkpoint_every >= 0, "--checkpoint-every", config.checkpoint_every, "0 or more steps"),
        )
    )
    _check_uses(config)
    config = filled(config)
    if config.policy == "probe":
        precision = "float32" if config.precision == "auto" else config.precision
        config = dataclasses.replace(config, precision=precision)
    else:
        check_options(_recipe_rules(config))
    if config.policy == "surgical":
        config = dataclasses.replace(config, tune=config.tune or (AUTO,))
    size = config.size or int(read_description(config.init).get("size", 0))
    if not size:
        raise InputError(
            f"expected --size with --init {config.init}: name the side that all arms of the comparison share"
        )
    return dataclasses.replace(config, arch=config.arch or described_arch(config.init), size=size)


def _check_uses(config: ClassifyConfig) -> None:
    """Options that a policy would pass over without a word."""
    tune = config.tune
    if tune and config.policy != "surgical":
        raise InputError(f"expected no --tune with --policy {config.policy}; --policy surgical tunes {' '.join(tune)}")
    if AUTO in tune and len(tune) > 1:
        raise InputError(f"expected --tune {AUTO} alone or the names of parts, got {' '.join(tune)}")
    if config.policy == "probe" and config.choose_on not in ("auto",):
        raise InputError("--choose-on has no use under --policy probe: a convex fit has no epochs; leave it out")


def _recipe_rules(config: ClassifyConfig) -> Sequence[tuple[bool, str, object, str]]:
    chosen = recipe(config)
    decay, rate = chosen.layer_decay, chosen.lr_backbone
    # Under the paper's protocol a rate of 0 is what its code does by default; it is allowed and said in every result.
    zero = config.protocol == "as-published" and config.policy == "full"
    return (
        (chosen.batch_size >= 1, "--batch-size", chosen.batch_size, "1 or more"),
        (chosen.epochs >= 1, "--epochs", chosen.epochs, "1 or more"),
        (chosen.least_steps >= 1, "--least-steps", chosen.least_steps, "1 or more"),
        (chosen.lr_head > 0, "--lr-head", chosen.lr_head, "more than 0"),
        (
            rate is None or rate > 0 or (zero and rate == 0),
            "--lr-backbone",
            rate,
            "more than 0 (to keep the backbone as it is: --policy head)",
        ),
        (decay is None or 0 < decay <= 1, "--layer-decay", decay, "above 0 and up to 1"),
        (chosen.weight_decay >= 0, "--weight-decay", chosen.weight_decay, "0 or more"),
        (chosen.weight_decay_biases >= 0, "--weight-decay-biases", chosen.weight_decay_biases, "0 or more"),
        ((chosen.warmup_steps or 0) >= 0, "--warmup-steps", chosen.warmup_steps, "0 or more"),
        (0 <= chosen.final_lr <= 1, "--final-lr", chosen.final_lr, "a share of the peak rate, 0..1"),
        (chosen.clip_norm >= 0, "--clip-norm", chosen.clip_norm, "0 (off) or more"),
        (0 < chosen.crop_min <= 1, "--crop-min", chosen.crop_min, "a share of the image's area, above 0 and up to 1"),
        (0 <= chosen.flip <= 1, "--flip", chosen.flip, "a probability, 0..1"),
        (chosen.brightness >= 0, "--brightness", chosen.brightness, "0 or more"),
        (0 <= chosen.contrast <= 1, "--contrast", chosen.contrast, "0 to 1"),
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
