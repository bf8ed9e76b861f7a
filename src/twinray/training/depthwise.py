"""Depthwise convolutions in float32 where a processor trains in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from twinray.training.device import Machine

DEPTHWISE = "depthwise"
"""Fact of a run's inputs: later versions than the first compute these convolutions so."""


def full_depthwise(model: nn.Module, machine: Machine) -> nn.Module:
    """Keep depthwise convolutions of a network in float32, in place, if it trains in bfloat16 on a processor.

    oneDNN has no bfloat16 kernel for the gradients of most of them: 5 x 5 kernels took two to three times as long as in float32,
    strides of 2 up to twenty times (docs/benchmarks.md). Tensors, their names and float32 training are not touched.
    """
    if concerns(model, machine):
        for module in model.modules():
            if _is_depthwise(module):
                module.__class__ = _in_float32(type(module))
    return model


def concerns(model: nn.Module, machine: Machine) -> bool:
    """Whether :func:`full_depthwise` changes how a network is trained here."""
    on_processor = machine.bf16 and machine.device.type == "cpu"
    return on_processor and any(map(_is_depthwise, model.modules()))


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


_KINDS: dict[str, type[nn.Module]] = {}


def _in_float32(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of convolutions, computed in float32; not one class for all, since timm's pad in their own ways."""
    if issubclass(kind, _Float32):
        return kind
    name = f"{kind.__module__}.{kind.__qualname__}"
    return _KINDS.setdefault(name, type(kind.__name__, (_Float32, kind), {}))


class _Float32(nn.Module):
    """Mixin: the next class's forward, outside autocast."""

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = super().forward(x.float(), *more)
        return y
