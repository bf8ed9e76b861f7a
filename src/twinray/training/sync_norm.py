"""BatchNorm over the batch of all ranks.

On GPUs torch's own ``SyncBatchNorm`` does it. It refuses processors, where multi-process training
is for tests and for machines with many cores. There this module's version stands in, with the same
state-dict names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm by one whose statistics are those of all ranks' batches together."""
    if device.type == "cuda":
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        if (
            "timm" in sys.modules
        ):  # its norms may hold an activation, which torch's conversion would lose
            from timm.layers.norm_act import convert_sync_batchnorm as convert
        return convert(model)
    return _replaced(model)


def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(
        module, ProcessorSyncBatchNorm
    ):
        return ProcessorSyncBatchNorm.like(module)
    for name, child in module.named_children():
        module.add_module(name, _replaced(child))
    return module


@final
class ProcessorSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of (b, c) or (b, c, h, w) input over all ranks' rows; every rank has as many rows."""

    after: nn.Module  # what timm's norms hold besides: dropping and activation, without tensors

    @classmethod
    def like(cls, norm: nn.modules.batchnorm._BatchNorm) -> ProcessorSyncBatchNorm:
        """The same normalisation with the same tensors and mode."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new.weight, new.bias = norm.weight, norm.bias
        new.running_mean, new.running_var = norm.running_mean, norm.running_var
        new.num_batches_tracked = norm.num_batches_tracked
        kept = [getattr(norm, name, None) for name in ("drop", "act")]
        new.after = nn.Sequential(*(m for m in kept if isinstance(m, nn.Module)))
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.ndim < 2:
            raise ValueError(f"expected at least 2 dimensions, got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class names it
        """Same shape; statistics of all ranks in training, the running ones otherwise."""
        self._check_input_dim(input)
        if not self.training:
            still: Tensor = self.after(super().forward(input))
            return still
        with torch.autocast(input.device.type, enabled=False):
            wide = input if input.dtype == torch.float64 else input.float()
            y, mean, variance = _Normalise.apply(wide, self.eps)
            self._track(mean, variance, wide.numel() // wide.shape[1] * dist.get_world_size())
            if self.affine:
                shape = (1, -1, *[1] * (input.ndim - 2))
                y = y * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = self.after(y.to(input.dtype))
        return result

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, n: int) -> None:
        if (
            not self.track_running_stats
            or self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        momentum = (
            self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        )
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(
            (variance * (n / max(n - 1, 1))).to(self.running_var.dtype), momentum
        )


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) with the mean and (biased) variance of all ranks; the sums are the only messages."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x (b, c, ...) -> normalised, and the mean and variance (c,) of all ranks, which carry no gradient."""
        dims = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        n = x.numel() // x.shape[1] * dist.get_world_size()
        mean = x.sum(dims)
        dist.all_reduce(mean)
        mean /= n
        centred = x - mean.view(shape)
        variance = centred.square().sum(dims)  # of deviations, not of squares: no cancellation
        dist.all_reduce(variance)
        variance /= n
        scale = (variance + eps).rsqrt()
        y = centred * scale.view(shape)
        ctx.save_for_backward(y, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Batch normalisation's gradient with both of its means over all ranks."""
        y, scale = ctx.saved_tensors
        g = gradients[0]
        dims = [0, *range(2, g.ndim)]
        shape = (1, -1, *[1] * (g.ndim - 2))
        sums = torch.stack([g.sum(dims), (g * y).sum(dims)])
        dist.all_reduce(sums)
        sums /= g.numel() // g.shape[1] * dist.get_world_size()
        return (g - sums[0].view(shape) - y * sums[1].view(shape)) * scale.view(shape), None
