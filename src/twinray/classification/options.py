"""Options of a classifier run: checked, and completed from its initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from twinray.backbones.weights import described_arch, read_description
from twinray.checks import check_numbers, check_options
from twinray.classification.config import ClassifyConfig
from twinray.errors import InputError


def resolve(config: ClassifyConfig) -> ClassifyConfig:
    """Check the options; take architecture and size from the run that gave the weights.

    Raises:
        InputError: an option outside its range.
    """
    check_numbers(config)
    rules: Sequence[tuple[bool, str, object, str]] = (
        (0 < config.fraction <= 1, "--fraction", config.fraction, "above 0 and up to 1"),
        (
            bool(config.seeds) and len(set(config.seeds)) == len(config.seeds),
            "--seeds",
            config.seeds,
            "one or more different numbers",
        ),
        (config.size == 0 or config.size >= 32, "--size", config.size, "32 pixels or more"),
        (config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more"),
        (config.folds >= 2, "--folds", config.folds, "2 or more"),
        (config.bootstrap >= 0, "--bootstrap", config.bootstrap, "0 or more"),
    )
    check_options(rules)
    size = config.size or int(read_description(config.init).get("size", 0))
    if not size:
        raise InputError(
            f"expected --size with --init {config.init}: name the side that all arms of the comparison share"
        )
    return dataclasses.replace(config, arch=config.arch or described_arch(config.init), size=size)
