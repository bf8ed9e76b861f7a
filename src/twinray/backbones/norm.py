"""What happens to a backbone's normalisation layers, and which of its stages learn.

A detector's batches are small, so the choice matters and is part of a result. Frozen statistics are
only fair to weights that come with statistics, never to random ones. Sources: Wu & He 2018, Group
Normalization; He et al. 2019, Rethinking ImageNet Pre-training.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from twinray.backbones.contract import Backbone
from twinray.errors import InputError

NormPolicy = Literal["frozen", "eval", "trainable", "group"]
"""``frozen``: loaded statistics, loaded affine, neither changes. ``eval``: loaded statistics, the affine
learns. ``trainable``: plain batch norm. ``group``: group norm of 32 groups in its place; the affine is kept."""

GROUPS = 32
N_STAGES = 5


def apply_norm_policy(backbone: Backbone, policy: NormPolicy, trainable_stages: int) -> None:
    """Set, in place, which parameters of ``backbone`` learn, and replace its norms where asked.

    Args:
        backbone: network to change; what only its pooled features need is frozen: a detector does
            not use it.
        policy: treatment of the norms, see ``NormPolicy``.
        trainable_stages: number of stages that learn, counted from the last. Values: 5 all, 4
            without the stem, 3 without stem and layer1 (the chest X-ray paper), 0 none.

    Raises:
        InputError: an unknown policy or number of stages, or a layer that group norm does not divide.
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
    for name, parameter in backbone.named_parameters():
        stage = backbone.stage_of(name)
        parameter.requires_grad_(stage is not None and stage >= N_STAGES - trainable_stages)
    if policy == "frozen":
        for module in backbone.modules():
            if is_batch_norm(module):
                module.requires_grad_(False)


def set_norm_modes(backbone: Backbone, policy: NormPolicy, trainable_stages: int) -> None:
    """After ``train()``: put the batch norms whose statistics must not move back into eval mode."""
    for name, module in backbone.named_modules():
        if is_batch_norm(module):
            stage = backbone.stage_of(name)
            if policy in ("frozen", "eval") or stage is None or stage < N_STAGES - trainable_stages:
                module.eval()


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
