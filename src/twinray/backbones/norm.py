"""What happens to a backbone's normalisation layers, and which of its stages learn.

A detector's batches are small, so the choice matters and is part of a result. Frozen statistics are
only fair to weights that come with statistics, never to random ones. Sources: Wu & He 2018, Group
Normalization; He et al. 2019, Rethinking ImageNet Pre-training.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from twinray.backbones.contract import Backbone, parts_of_maps
from twinray.errors import InputError

NormPolicy = Literal["frozen", "eval", "trainable", "group"]
"""``frozen``: loaded statistics, loaded affine, neither changes. ``eval``: loaded statistics, the affine
learns. ``trainable``: plain batch norm. ``group``: group norm of 32 groups in its place; the affine is kept."""

GROUPS = 32
N_STAGES = 5


def apply_norm_policy(
    backbone: Backbone,
    policy: NormPolicy,
    trainable_stages: int,
    trainable_blocks: int | None = None,
) -> None:
    """Set, in place, which parameters of ``backbone`` learn, and replace its norms where asked.

    Args:
        backbone: network to change; what only its pooled features need is frozen: a detector does
            not use it.
        policy: treatment of the norms, see ``NormPolicy``.
        trainable_stages: number of stages that learn, counted from the last. Values: 5 all, 4
            without the stem, 3 without stem and layer1 (the chest X-ray paper), 0 none. A plain
            transformer's stages are the quarters of its blocks.
        trainable_blocks: number of blocks of a plain transformer that learn, counted from the last,
            in place of stages; the stem does not learn. None: by stages.

    Raises:
        InputError: an unknown policy, number of stages or of blocks, or a layer that group norm does not divide.
    """
    if policy not in ("frozen", "eval", "trainable", "group"):
        raise InputError(
            f"expected norm to be frozen, eval, trainable or group, got {policy!r}; choose one of those"
        )
    if not 0 <= trainable_stages <= N_STAGES:
        raise InputError(
            f"expected trainable_stages from 0 to {N_STAGES}, got {trainable_stages}; choose one of those"
        )
    if policy == "group":
        _replace_by_group_norm(backbone)
    own = None if trainable_blocks is None else _last_blocks(backbone, trainable_blocks)
    for name, parameter in backbone.named_parameters():
        stage = backbone.stage_of(name)
        chosen = name in own if own is not None else (stage or 0) >= N_STAGES - trainable_stages
        parameter.requires_grad_(stage is not None and chosen)
    if policy == "frozen":
        for module in backbone.modules():
            if is_batch_norm(module):
                module.requires_grad_(False)


def set_norm_modes(backbone: Backbone, policy: NormPolicy, trainable_stages: int) -> None:
    """After ``train()``: put what must not move or draw back into eval mode.

    These are batch norms whose statistics stay, and parts that do not learn (stochastic depth in them).
    """
    for name, module in backbone.named_modules():
        if is_batch_norm(module):
            stage = backbone.stage_of(name)
            if policy in ("frozen", "eval") or stage is None or stage < N_STAGES - trainable_stages:
                module.eval()
    still(backbone)


def still(module: nn.Module) -> None:
    """Evaluation mode for every module that has parameters and none that learns: no dropout there, no batch statistics."""
    for child in module.children():
        if next(child.parameters(), None) is not None and not learns(child):
            child.eval()
        else:
            still(child)


def learns(module: nn.Module) -> bool:
    """Whether any parameter of a module learns."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _last_blocks(backbone: Backbone, number: int) -> set[str]:
    """Names of the parameters of the last blocks of a plain transformer."""
    if not backbone.patch:
        raise InputError(
            f"--trainable-blocks counts the blocks of plain transformers, {backbone.arch} has stages; use --trainable-stages"
        )
    blocks = parts_of_maps(backbone)[1:]  # the first part is the stem
    if not 0 <= number <= len(blocks):
        raise InputError(
            f"expected --trainable-blocks from 0 to {len(blocks)}, the blocks of {backbone.arch}, got {number}; choose one of those"
        )
    return {name for block in blocks[len(blocks) - number :] for name in block}


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module normalises by batch statistics, on one rank or over several."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _replace_by_group_norm(backbone: nn.Module) -> None:
    modules = list(backbone.named_modules())
    if not any(isinstance(module, nn.BatchNorm2d) for _, module in modules):
        raise InputError(
            "group norm stands in for batch norm, and this backbone has none; choose --norm trainable"
        )
    for name, module in modules:
        if not isinstance(module, nn.BatchNorm2d):
            continue
        if module.num_features % GROUPS:
            raise InputError(
                f"group norm needs channels that {GROUPS} divides, {name} has {module.num_features}; choose another norm"
            )
        if type(module) is not nn.BatchNorm2d:
            raise InputError(
                f"group norm can stand in for plain batch norm only, {name} is a {type(module).__name__}; choose another norm"
            )
        group = nn.GroupNorm(GROUPS, module.num_features, eps=module.eps, affine=module.affine)
        if module.affine:
            group.weight, group.bias = module.weight, module.bias
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, group)
