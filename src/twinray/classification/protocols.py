"""Ways to train a classifier by gradient descent, as values of the same options.

``sound`` gives every arm of a comparison the same layers, the same treatment and an epoch that is
chosen on validation patients. The other two are what the papers did, line by line. ``as-published``
is the chest X-ray paper (arXiv:2402.06499, "Linear Evaluation Protocol" and "End-to-End
Finetuning", with the paper's released ``evaluate.py``). ``comparative-study`` is the study of
Barlow Twins and ImageNet weights on CT slices and histology tiles, which names few of its options.
An option that is given wins over its protocol's value.

What neither preset takes over, because it is unsound, is the choice of the best epoch on the test images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from twinray.classification.config import ClassifyConfig, Policy, Protocol
from twinray.errors import InputError
from twinray.training.optim import warmup_cosine


@dataclass(frozen=True)
class Recipe:
    """Every option that a protocol sets; the fields are those of :class:`ClassifyConfig`.

    ``lr_head`` and ``lr_backbone`` are those of the protocol's own optimiser and batch size: see :func:`filled`.
    ``warmup_steps`` None: 500, or a tenth of a run shorter than 5,000 steps. ``layer_decay`` None: by the network.
    What the policy ``head`` has no use for (``lr_backbone``, ``norm``, ``layer_decay``) is None there, ``features``
    under the others.
    """

    epochs: int
    least_steps: int
    batch_size: int
    optimizer: Literal["adamw", "adam", "sgd"]
    lr_head: float
    lr_backbone: float | None
    layer_decay: float | None
    weight_decay: float
    weight_decay_biases: float
    warmup_steps: int | None
    schedule: Literal["step", "epoch"]
    final_lr: float
    clip_norm: float
    norm: Literal["trainable", "eval", "frozen"] | None
    features: Literal["standardised", "raw"] | None
    crop_min: float
    flip: float
    brightness: float
    contrast: float


_SOUND_FULL = Recipe(
    epochs=30,
    least_steps=10,
    batch_size=64,
    optimizer="adamw",
    lr_head=1e-3,
    lr_backbone=3e-4,
    layer_decay=None,
    weight_decay=0.05,
    weight_decay_biases=0.0,
    warmup_steps=None,
    schedule="step",
    final_lr=0.001,
    clip_norm=10.0,
    norm="trainable",
    features=None,
    crop_min=0.5,
    flip=0.5,
    brightness=0.1,
    contrast=0.2,
)
_SOUND_HEAD = dataclasses.replace(
    _SOUND_FULL,
    optimizer="adam",  # its weight decay is the L2 penalty of the probe
    lr_head=3e-3,
    lr_backbone=None,
    weight_decay=1e-3,
    clip_norm=0.0,
    norm=None,
    features="standardised",  # one rate then suits features of every scale, those of random weights too
    brightness=0.0,
    contrast=0.0,
)

_PAPER_FULL = Recipe(
    epochs=30,  # paper; evaluate.py --epochs 30
    least_steps=1,  # an epoch is one pass
    batch_size=64,  # paper; evaluate.py --batch-size 64
    optimizer="sgd",  # evaluate.py: SGD, momentum 0.9
    lr_head=0.5,  # evaluate.py --lr-classifier 0.5
    # The paper updates "parameters across the entire network"; evaluate.py's own --lr-backbone is 0.0, which moves batch
    # statistics only. This is the rate of the code that it was made from (Barlow Twins, README, semi-supervised learning).
    lr_backbone=0.005,
    layer_decay=1.0,  # evaluate.py: one rate for the backbone
    weight_decay=1e-6,  # evaluate.py --weight-decay 1e-6
    weight_decay_biases=1e-6,  # evaluate.py: on every parameter
    warmup_steps=0,  # evaluate.py: none
    schedule="epoch",  # evaluate.py: CosineAnnealingLR, stepped once an epoch
    final_lr=0.0,  # CosineAnnealingLR's own end
    clip_norm=0.0,  # evaluate.py: none
    norm="trainable",  # evaluate.py --weights finetune: model.train()
    features=None,
    crop_min=0.08,  # evaluate.py: RandomResizedCrop(224), torchvision's own range
    flip=0.5,  # evaluate.py: RandomHorizontalFlip()
    brightness=0.0,
    contrast=0.0,
)
_PAPER_HEAD = dataclasses.replace(
    _PAPER_FULL,
    lr_backbone=None,  # evaluate.py --weights freeze: model.eval(), only fc learns
    layer_decay=None,
    norm=None,
    features="raw",  # evaluate.py: fc on the pooled features as they are
)

_STUDY_FULL = Recipe(
    epochs=30,  # not stated in the study; ours
    least_steps=1,
    batch_size=256,  # stated for pre-training (3.2.1), not for fine-tuning
    optimizer="adam",  # stated for pre-training (3.2.1), not for fine-tuning
    lr_head=1e-3,  # not stated; ours (the 3e-2 of 3.2.1 is of pre-training)
    lr_backbone=1e-4,  # not stated; ours
    layer_decay=1.0,
    weight_decay=0.0,  # not stated
    weight_decay_biases=0.0,
    warmup_steps=0,  # not stated
    schedule="epoch",  # not stated; ours
    final_lr=0.0,
    clip_norm=0.0,
    norm="trainable",  # 3.2.2: "comprehensive training of the entire model"
    features=None,
    crop_min=1.0,  # no transform is stated for fine-tuning
    flip=0.0,
    brightness=0.0,
    contrast=0.0,
)
_STUDY_HEAD = dataclasses.replace(
    _STUDY_FULL,
    lr_backbone=None,  # 3.2.2: "preserving the weights of the backbone"
    layer_decay=None,
    norm=None,
    features="raw",  # 3.2.2: the 512-dimensional feature vector is the head's input
)

PROTOCOLS: Mapping[Protocol, Mapping[Policy, Recipe]] = MappingProxyType(
    {
        "sound": {
            "head": _SOUND_HEAD,
            "surgical": dataclasses.replace(_SOUND_FULL, layer_decay=1.0),
            "full": _SOUND_FULL,
        },
        "as-published": {"head": _PAPER_HEAD, "full": _PAPER_FULL},
        # the study names surgical fine-tuning as its third way and gives no figure of it
        "comparative-study": {"head": _STUDY_HEAD, "surgical": _STUDY_FULL, "full": _STUDY_FULL},
    }
)

_RATES: Mapping[str, tuple[float, float, int]] = MappingProxyType(
    {"adamw": (1e-3, 3e-4, 64), "adam": (1e-3, 3e-4, 64), "sgd": (0.1, 0.01, 64)}
)
"""Rates of head and backbone, and their batch size, for an optimiser that is not the protocol's."""


def filled(config: ClassifyConfig) -> ClassifyConfig:
    """The options with the protocol's value wherever none was given; those of a probe as they are.

    Learning rates follow the batch where they are not given. They follow in proportion for SGD
    (Goyal et al. 2017), by the square root for Adam and AdamW. An optimiser other than the
    protocol's has rates of its own.

    Raises:
        InputError: the protocol does not know the policy, or an option was given that the policy has no use for.
    """
    known = PROTOCOLS[config.protocol]
    names = [field.name for field in dataclasses.fields(Recipe)]
    if config.policy == "probe":
        _refuse_useless(config, [name for name in names if name != "batch_size"])
        if config.protocol != "sound":
            raise InputError(
                f"expected --policy {' or '.join(known)} with --protocol {config.protocol}, got probe: no paper fits one that is convex"
            )
        return dataclasses.replace(config, batch_size=config.batch_size or 256)
    if config.policy not in known:
        raise InputError(
            f"expected --policy {' or '.join(known)} with --protocol {config.protocol}, got {config.policy}: the paper has "
            "no such arm; use --protocol sound"
        )
    preset = known[config.policy]
    useless = {"head": ("lr_backbone", "layer_decay", "norm")}.get(config.policy, ("features",))
    _refuse_useless(config, useless)
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    values: dict[str, Any] = {**vars(preset), **given}
    return dataclasses.replace(config, **{**values, **_rates(preset, given, values)})


def _rates(preset: Recipe, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, float]:
    """The learning rates that were not given."""
    head, backbone, batch_size = preset.lr_head, preset.lr_backbone, preset.batch_size
    if values["optimizer"] != preset.optimizer:
        head, other, batch_size = _RATES[values["optimizer"]]
        backbone = None if backbone is None else other
    ratio = values["batch_size"] / batch_size
    factor = ratio if values["optimizer"] == "sgd" else math.sqrt(ratio)
    rates = {"lr_head": head, "lr_backbone": backbone}
    return {
        name: rate * factor
        for name, rate in rates.items()
        if rate is not None and name not in given
    }


def _refuse_useless(config: ClassifyConfig, names: list[str] | tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} has no use under --policy {config.policy}; leave it out, or choose another policy"
            )


def recipe(config: ClassifyConfig) -> Recipe:
    """The protocol's options of a filled configuration of any policy but the probe."""
    return Recipe(
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(Recipe)}
    )


def rate_factor(chosen: Recipe, step: int, steps_per_epoch: int) -> float:
    """The factor on the peak rates at ``step``: linear warm-up, then half a cosine down to ``final_lr``.

    ``schedule`` step: the cosine falls at every step after the warm-up. ``schedule`` epoch: it falls once an epoch from the
    first on, as ``CosineAnnealingLR`` stepped once an epoch, and the warm-up multiplies it.
    """
    total = steps_per_epoch * chosen.epochs
    warmup = chosen.warmup_steps if chosen.warmup_steps is not None else min(500, total // 10)
    if chosen.schedule == "step":
        return warmup_cosine(step, total=total, warmup=warmup, end=chosen.final_lr)
    fallen = warmup_cosine(
        step // steps_per_epoch, total=chosen.epochs, warmup=0, end=chosen.final_lr
    )
    return fallen * (min((step + 1) / warmup, 1.0) if warmup else 1.0)


def notes_of(config: ClassifyConfig) -> list[str]:
    """What every result under a paper's protocol must say."""
    notes = []
    if config.protocol == "as-published":
        notes.append(
            "--protocol as-published chooses the epoch on validation patients; the paper's code reports the best epoch of the test images"
        )
        if config.policy == "full" and config.lr_backbone == 0:
            notes.append(
                "--lr-backbone 0: no weight of the backbone learns, only its batch statistics move"
            )
    if config.protocol == "comparative-study":
        notes.append(
            "--protocol comparative-study: the study does not state optimiser, rates, epochs and transforms of its fine-tuning; "
            "those of this run are in config.yaml"
        )
    return notes
