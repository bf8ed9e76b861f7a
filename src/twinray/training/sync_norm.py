"""BatchNorm over the batch of all ranks, on any device, with torch's state-dict names.

torch's own ``SyncBatchNorm`` refuses processors; on GPUs it breaks the compiled graph of ResNet-50 47 times and makes the host wait
330 times a step. This one is traced whole, and waits for nothing.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm, in place, by one whose statistics are those of all ranks' batches together.

    In evaluation mode it normalises by stored statistics as any BatchNorm: norm policies mean the same on several ranks.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(
        module, RankBatchNorm
    ):
        return RankBatchNorm.like(module)
    for name, child in module.named_children():
        module.add_module(name, synchronise_norms(child))
    return module


@final
class RankBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of (b, c) or (b, c, h, w) input over all ranks' rows; every rank has as many rows."""

    after: nn.Module  # what timm's norms hold besides: dropping and activation, without tensors

    @classmethod
    def like(cls, norm: nn.modules.batchnorm._BatchNorm) -> RankBatchNorm:
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
            y, mean, variance = _Normalise.apply(input, self.eps)
            self._track(mean, variance, input.numel() // input.shape[1] * dist.get_world_size())
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
    """(x - mean) / sqrt(var + eps) with the mean and (biased) variance of all ranks; the sums are the only messages.

    Arithmetic is in float32 at least. Kept for the backward pass is the input in its own precision, not the result.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x (b, c, ...) -> normalised, and the mean and variance (c,) of all ranks, which carry no gradient."""
        wide = _wide(x)
        dims = [0, *range(2, x.ndim)]
        n = x.numel() // x.shape[1] * dist.get_world_size()
        mean = wide.sum(dims)
        dist.all_reduce(mean)
        mean /= n
        centred = wide - _by_channel(mean, x)
        variance = centred.square().sum(dims)  # of deviations, not of squares: no cancellation
        dist.all_reduce(variance)
        variance /= n
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return centred * _by_channel(scale, x), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Batch normalisation's gradient with both of its means over all ranks."""
        x, mean, scale = ctx.saved_tensors
        g = gradients[0]
        scale = _by_channel(scale, x)
        y = (_wide(x) - _by_channel(mean, x)) * scale
        dims = [0, *range(2, g.ndim)]
        sums = torch.stack([g.sum(dims), (g * y).sum(dims)])
        dist.all_reduce(sums)
        sums /= g.numel() // g.shape[1] * dist.get_world_size()
        gradient = (g - _by_channel(sums[0], x) - y * _by_channel(sums[1], x)) * scale
        return gradient.to(x.dtype), None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """(c,) values in the shape that meets x (b, c, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
