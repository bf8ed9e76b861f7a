"""Two ways to train a detector, as values of the same options: ``sound`` and ``as-published``.

``as-published`` is what the chest X-ray paper did: MMDetection's Faster R-CNN recipe, with stem and
layer1 frozen, batch norm in evaluation mode, SGD. With random initial weights it keeps a random
stem for ever. ``sound`` gives every arm of a comparison the same layers to train and statistics
that are estimated on the data. Random weights are then a fair floor. An option that is given wins
over its protocol's value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from twinray.data.pack import Pack, enlarged
from twinray.detection.config import DetectConfig


@dataclass(frozen=True)
class Recipe:
    """Every option that a protocol sets; the fields are those of :class:`DetectConfig`.

    ``lr`` is that of the protocol's own optimiser and batch size, ``weight_decay`` that of its optimiser: see
    :func:`filled`. ``warmup_steps`` None: 500, or a tenth of a run shorter than 5,000 steps. ``layer_decay`` None: by the
    network.
    """

    norm: Literal["trainable", "eval", "frozen", "group"]
    trainable_stages: int
    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    lr: float
    layer_decay: float | None
    weight_decay: float
    weight_decay_biases: float
    warmup_steps: int | None
    schedule: Literal["step", "epoch"]
    final_lr: float
    clip_norm: float
    flip: float
    scale: tuple[float, float]
    brightness: float
    contrast: float
    images: Literal["all", "with_boxes"]


PROTOCOLS: Mapping[str, Recipe] = {
    "sound": Recipe(
        norm="trainable",
        trainable_stages=5,
        epochs=50,
        batch_size=8,
        optimizer="adamw",
        lr=2e-4,
        layer_decay=None,
        weight_decay=0.05,
        weight_decay_biases=0.0,
        warmup_steps=None,
        schedule="step",
        final_lr=0.001,
        clip_norm=10.0,
        flip=0.5,
        scale=(0.8, 1.25),
        brightness=0.1,
        contrast=0.2,
        images="all",
    ),
    "as-published": Recipe(
        norm="eval",
        trainable_stages=3,
        epochs=50,
        batch_size=32,
        optimizer="sgd",
        lr=0.005,
        layer_decay=1.0,
        weight_decay=1e-4,
        weight_decay_biases=1e-4,
        warmup_steps=500,
        schedule="epoch",
        final_lr=0.02,
        clip_norm=0.0,
        flip=0.5,
        scale=(1.0, 1.0),
        brightness=0.0,
        contrast=0.0,
        images="with_boxes",
    ),
}

WARMUP_START = 0.001
"""Share of the peak rate that the warm-up begins with."""


def filled(config: DetectConfig) -> DetectConfig:
    """The options with the protocol's value wherever none was given.

    The learning rate follows the batch where it is not given: in proportion for SGD (Goyal et al. 2017), by the
    square root for AdamW. An optimiser other than the protocol's takes its rate and decay from the other protocol.
    """
    preset = PROTOCOLS[config.protocol]
    given = {
        field.name: value
        for field in dataclasses.fields(Recipe)
        if (value := getattr(config, field.name)) is not None and value != ()
    }
    values: dict[str, Any] = {**vars(preset), **given}
    rule = next(r for r in (preset, *PROTOCOLS.values()) if r.optimizer == values["optimizer"])
    ratio = values["batch_size"] / rule.batch_size
    values["lr"] = given.get(
        "lr", rule.lr * (math.sqrt(ratio) if rule.optimizer == "adamw" else ratio)
    )
    for name in ("weight_decay", "weight_decay_biases"):
        values[name] = given.get(name, getattr(rule, name))
    return dataclasses.replace(config, **values)


def recipe(config: DetectConfig) -> Recipe:
    """The protocol's options of a filled configuration."""
    return Recipe(
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(Recipe)}
    )


def pack_notes(config: DetectConfig, pack: Pack) -> list[str]:
    """What every result must say of a pack that does not give the pixels that the configuration stands for."""
    info, notes = pack.info, []
    if config.protocol == "as-published" and info.fit != "letterbox":
        off_square = int((pack.sizes[:, 0] != pack.sizes[:, 1]).sum())
        notes.append(
            f"--protocol as-published keeps an image's proportions and pads, the pack {pack.path} has --fit {info.fit}: "
            f"{off_square:,} of its {len(pack):,} images are out of proportion; to follow the paper, pack with --fit letterbox"
        )
    return notes + enlarged(pack, config.size)


def with_warmup(config: DetectConfig, training_images: int) -> DetectConfig:
    """A filled configuration with its number of warm-up steps, now that the run's length is known."""
    chosen = recipe(config)
    if chosen.warmup_steps is not None:
        return config
    return dataclasses.replace(
        config, warmup_steps=default_warmup(chosen.batch_size, chosen.epochs, training_images)
    )


def default_warmup(batch_size: int, epochs: int, training_images: int) -> int:
    """Steps of warm-up where none are given: 500, or a tenth of a shorter run."""
    steps = max(training_images // min(batch_size, max(training_images, 1)), 1)
    return _tenth(steps * epochs)


def _tenth(total: int) -> int:
    return min(500, total // 10)


def _warmup(chosen: Recipe, total: int) -> int:
    return chosen.warmup_steps if chosen.warmup_steps is not None else _tenth(total)


def learning_rate(
    chosen: Recipe, step: int, steps_per_epoch: int, *, a_step_on: bool = False
) -> float:
    """The rate of ``step``: linear warm-up, then half a cosine down to the share ``final_lr`` of the peak.

    ``schedule`` step: the cosine begins where the warm-up ends and falls at every step. ``schedule`` epoch: it falls
    once an epoch from the first on, and the warm-up multiplies it, as MMEngine's schedulers do.

    Args:
        chosen: recipe.
        step: number of the step, from 0.
        steps_per_epoch: steps of an epoch.
        a_step_on: flag of a warm-up that begins a step's share above the least rate under every schedule, as earlier
            versions had it.
    """
    total = steps_per_epoch * chosen.epochs
    warmup = _warmup(chosen, total)
    # MMEngine's first step has the least rate itself, and its step ``warmup - 1`` the whole one
    as_mmengine = chosen.schedule == "epoch" and not a_step_on
    done_warm = step / max(warmup - 1, 1) if as_mmengine else (step + 1) / max(warmup, 1)
    warm = WARMUP_START + (1 - WARMUP_START) * min(done_warm, 1.0) if warmup else 1.0
    if chosen.schedule == "epoch":
        done = (step // steps_per_epoch) / chosen.epochs
    elif step < warmup:
        done = 0.0
    else:
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return (
        chosen.lr
        * warm
        * (chosen.final_lr + (1 - chosen.final_lr) * 0.5 * (1 + math.cos(math.pi * done)))
    )
