"""Optimisers and the learning-rate schedule of Barlow Twins and of its followers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

OptimizerName = Literal["lars", "adamw", "adam", "sgd"]


@final
class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), as the authors of Barlow Twins define it.

    Groups with ``adapt=True`` take weight decay and the trust ratio ``eta * |p| / |g|``; groups with
    ``adapt=False`` (biases, norm parameters) take neither. Multi-tensor kernels only: no Python loop
    over tensors and no host synchronisation.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.2,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 0.001,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "eta": eta,
                "adapt": True,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update from the gradients at hand."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates: list[Tensor] = [p.grad for p in params if p.grad is not None]
            if group["adapt"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
                updates = list(
                    torch._foreach_mul(updates, _trust_ratios(params, updates, group["eta"]))
                )
            buffers = []
            for p in params:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                buffers.append(state["momentum"])
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        return loss


def _trust_ratios(params: list[Tensor], updates: list[Tensor], eta: float) -> list[Tensor]:
    """eta * |p| / |u|, or 1 where either norm is zero."""
    p_norm, u_norm = (
        torch.stack(torch._foreach_norm(params)),
        torch.stack(torch._foreach_norm(updates)),
    )
    ratio = torch.where((p_norm > 0) & (u_norm > 0), eta * p_norm / u_norm, torch.ones_like(p_norm))
    return list(ratio.unbind())


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights; biases and norm parameters (everything of one dimension).

    Tokens and position embeddings, which networks of timm name in ``no_weight_decay()``, are of the second.
    """
    plain = never_decayed(model)
    trainable = [
        (p, p.ndim > 1 and name not in plain)
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    return [
        {"params": [p for p, is_weight in trainable if is_weight], "name": "weights"},
        {"params": [p for p, is_weight in trainable if not is_weight], "name": "biases and norms"},
    ]


def rated_groups(
    model: nn.Module,
    rate: Callable[[str], tuple[str, float, float]],
    *,
    weight_decay: float,
    weight_decay_biases: float,
) -> list[dict[str, Any]]:
    """Groups of an optimiser, of one rate and one decay each, for layers that learn at different rates.

    Args:
        model: network to train.
        rate: a parameter's name -> what it belongs to (``head`` or another word), its factor, and the peak rate that the
            factor stands on. A factor of 0 leaves the parameter out.
        weight_decay: of weights.
        weight_decay_biases: of biases, norm parameters, tokens and position embeddings.

    Returns:
        The head's groups first, then falling factors, weights before the others.
    """
    plain = never_decayed(model)
    found: dict[tuple[str, float, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        where, factor, peak = rate(name)
        if factor > 0 and parameter.requires_grad:
            is_weight = parameter.ndim > 1 and name not in plain
            found.setdefault((where, factor, is_weight, peak), []).append(parameter)
    ordered = sorted(
        found.items(), key=lambda item: (item[0][0] != "head", -item[0][1], not item[0][2])
    )
    return [
        {
            "params": parameters,
            "name": f"{where} x {factor:.4g}, {'weights' if is_weight else 'biases and norms'}",
            "lr": factor * peak,
            "weight_decay": weight_decay if is_weight else weight_decay_biases,
        }
        for (where, factor, is_weight, peak), parameters in ordered
    ]


def never_decayed(model: nn.Module) -> set[str]:
    """Full names of the parameters that the model's parts themselves except from weight decay."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        told = getattr(module, "no_weight_decay", None)
        if callable(told):
            names |= {f"{prefix}.{name}" if prefix else str(name) for name in told()}
    return names


def build_optimizer(
    name: OptimizerName,
    model: nn.Module,
    *,
    lr: float,
    lr_biases: float,
    weight_decay: float,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """An optimiser over :func:`parameter_groups`; biases and norms take ``lr_biases`` and no decay."""
    weights, biases = parameter_groups(model)
    weights |= {"lr": lr, "weight_decay": weight_decay}
    biases |= {"lr": lr_biases, "weight_decay": 0.0}
    groups = [group for group in (weights, biases) if group["params"]]
    if name == "lars":
        for group in groups:
            group["adapt"] = group["name"] == "weights"
    return optimizer_of(name, groups, momentum)


def optimizer_of(
    name: OptimizerName, groups: list[dict[str, Any]], momentum: float = 0.9
) -> torch.optim.Optimizer:
    """An optimiser over groups that have their own ``lr`` and ``weight_decay`` (and ``adapt`` for LARS)."""
    if name == "lars":
        return LARS(groups, momentum=momentum)
    if name == "adam":
        return torch.optim.Adam(groups, betas=(momentum, 0.999), foreach=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=(momentum, 0.999), foreach=True)
    return torch.optim.SGD(groups, momentum=momentum, foreach=True)


def warmup_cosine(
    step: int,
    *,
    total: int,
    warmup: int,
    start: float = 0.0,
    end: float = 0.001,
    at_zero: bool = False,
) -> float:
    """The factor on the base learning rate at ``step`` (counted from 0).

    The factor is linear from ``start`` over ``warmup`` steps to 1, then half a cosine down to
    ``end`` at ``total``. The source is Loshchilov and Hutter 2017, with the final 0.1 % of Barlow
    Twins.

    Args:
        step: number of the step.
        total, warmup: steps of the whole run and of its warm-up.
        start, end: factor before the warm-up and at the end.
        at_zero: whether step 0 has ``start`` itself, as in the authors' code of Barlow Twins, or a step's share more.
    """
    if step < warmup:
        return start + (1 - start) * (step + (not at_zero)) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))
