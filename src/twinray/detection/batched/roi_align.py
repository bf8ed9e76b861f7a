"""RoIAlign as one sparse gather over all pyramid levels, for training on a CPU and wherever bytes must repeat.

RoIAlign (He et al. 2017, Mask R-CNN, section 3) averages bilinear samples in every bin of a box.
Each pooled value is so a fixed sparse combination of feature pixels, the same for every channel.
The gradient in torchvision is computed on one thread, channel by channel. Here the combination is
written down once as a list of (bin, pixel, weight). The forward pass sums pixel rows into bins, the
backward pass sums bin rows into pixels. Both are vectorised, multi-threaded weighted row sums with
a fixed order of summation: the same bytes every time. Values and gradients equal
``torchvision.ops.roi_align`` with ``aligned=False``. On other devices torchvision's own kernel is
used, whose gradient adds up in no fixed order; under deterministic algorithms it is this one there too.

Shapes: b batch, c channels, h w a level's grid, n boxes, s side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align as torchvision_roi_align

SAMPLING_RATIO = 2
CANONICAL_SIZE, CANONICAL_LEVEL, FINEST_LEVEL = 224.0, 4, 2


def pyramid_levels(boxes: Tensor, n_levels: int) -> Tensor:
    """Which level each box pools from (Lin et al. 2017, Feature Pyramid Networks, eq. 1).

    Args:
        boxes: (n, 4) xyxy in pixels of the network's input.
        n_levels: number of levels, the finest with stride 4.

    Returns:
        (n,) int64, 0 for the finest level.
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE) + 1e-6)
    return (level.clamp(FINEST_LEVEL, FINEST_LEVEL + n_levels - 1) - FINEST_LEVEL).to(torch.int64)


def roi_align(feature: Tensor, rois: Tensor, spatial_scale: float, output_size: int = 7) -> Tensor:
    """Pool boxes from one feature map; equal to torchvision's with ``aligned=False, sampling_ratio=2``.

    Args:
        feature: (b, c, h, w) float.
        rois: (n, 5): index into the batch, then xyxy in pixels of the network's input.
        spatial_scale: feature pixels per input pixel (1 / stride).
        output_size: bins on a side.

    Returns:
        (n, c, output_size, output_size) in the feature map's precision.
    """
    # A few boxes without gradient: gathering them is cheaper than laying out the whole map by pixels.
    few = len(rois) * output_size**2 < feature.shape[2] * feature.shape[3]
    if feature.device.type != "cpu" or (
        few and not (torch.is_grad_enabled() and feature.requires_grad)
    ):
        return _torchvision(feature, rois, spatial_scale, output_size)
    levels = torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
    return _pool_by_rows([feature], rois, levels, [spatial_scale], output_size)


class MultiScaleRoIAlign(nn.Module):
    """Drop-in for ``torchvision.ops.MultiScaleRoIAlign`` on levels of known strides.

    Args:
        names: the pyramid's levels to pool from, finest first.
        strides: their strides in input pixels.
        output_size: bins on a side.
    """

    def __init__(
        self, names: Sequence[str], strides: Sequence[float], output_size: int = 7
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.scales = tuple(1.0 / stride for stride in strides)
        self.output_size = (output_size, output_size)

    def forward(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Pool every box from the level that its size asks for.

        Args:
            features: (b, c, h, w) per level name.
            boxes: per image (n_i, 4) xyxy in input pixels.
            image_shapes: not needed, the strides are known; kept for torchvision's call.

        Returns:
            (sum of n_i, c, s, s) float32 (or float64 for float64 features).
        """
        del image_shapes
        index = torch.cat([box.new_full((len(box), 1), i) for i, box in enumerate(boxes)])
        return self.pool(features, torch.cat([index, torch.cat(boxes)], dim=1))

    def pool(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """The same for ``rois`` (n, 5): index into the batch, then xyxy in input pixels."""
        levels = pyramid_levels(rois[:, 1:], len(self.names))
        maps = [at_least_float32(features[name]) for name in self.names]
        with torch.autocast(rois.device.type, enabled=False):
            if rois.device.type == "cpu" or torch.are_deterministic_algorithms_enabled():
                return _pool_by_rows(maps, rois, levels, self.scales, self.output_size[0])
            return self._pool_by_level(maps, rois, levels)

    def _pool_by_level(self, maps: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Boxes sorted by level, one call a level, and back into their order."""
        of_level = levels == torch.arange(len(maps), device=levels.device)[:, None]
        counts = of_level.sum(dim=1).tolist()  # the host waits here, once for all levels
        order = levels.argsort(stable=True)
        parts = [
            _torchvision(feature, some, scale, self.output_size[0])
            for feature, some, scale in zip(
                maps, torch.split(rois[order], counts), self.scales, strict=True
            )
        ]
        pooled: Tensor = _InOrder.apply(torch.cat(parts), order)
        return pooled

    def pool_level(self, feature: Tensor, rois: Tensor, level: int) -> Tensor:
        """Pool ``rois`` (n, 5) from one level's map (b, c, h, w) whatever their size: (n, c, s, s)."""
        return roi_align(at_least_float32(feature), rois, self.scales[level], self.output_size[0])


def at_least_float32(feature: Tensor) -> Tensor:
    """Values that autocast made coarse, in float32; float64 stays."""
    return feature if feature.dtype == torch.float64 else feature.float()


def _torchvision(feature: Tensor, rois: Tensor, scale: float, side: int) -> Tensor:
    pooled: Tensor = torchvision_roi_align(
        feature,
        rois.to(feature.dtype),
        (side, side),
        spatial_scale=scale,
        sampling_ratio=SAMPLING_RATIO,
    )
    return pooled


def _pool_by_rows(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], side: int
) -> Tensor:
    channels = maps[0].shape[1]
    if len(rois) == 0:
        # Keeps the graph whole: a batch without boxes still has (zero) gradients.
        return sum((m.sum() * 0 for m in maps), start=maps[0].new_zeros(())) + maps[0].new_zeros(
            (0, channels, side, side)
        )
    table = torch.cat(
        [m.permute(0, 2, 3, 1).reshape(-1, channels) for m in maps]
    )  # every pixel of every level
    index, weight, offsets = _combination(maps, rois.detach(), levels, scales, side)
    pooled: Tensor = _WeightedRowSum.apply(table, index, weight, offsets)
    return pooled.view(len(rois), side, side, channels).permute(
        0, 3, 1, 2
    )  # as it lies: BoxHead reads it so


def _combination(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The pixel rows and weights of every bin: index (k,), weight (k,), offsets (n * side^2,)."""
    dtype = maps[0].dtype
    sizes = [m.shape[2:] for m in maps]
    rows = [len(m) * s[0] * s[1] for m, s in zip(maps, sizes, strict=True)]
    starts = [sum(rows[:level]) for level in range(len(rows))]
    known = [(*size, start) for size, start in zip(sizes, starts, strict=True)]
    height, width, start = torch.tensor(known, device=rois.device)[levels].unbind(1)
    first = start + rois[:, 0].to(torch.int64) * height * width
    corners = (
        rois[:, 1:].to(dtype)
        * torch.tensor(scales, dtype=dtype, device=rois.device)[levels][:, None]
    )
    y, wy = _axis_taps(corners[:, 1], corners[:, 3], height, side)  # (n, s, taps)
    x, wx = _axis_taps(corners[:, 0], corners[:, 2], width, side)
    y = first[:, None, None] + y * width[:, None, None]
    index_type = (
        torch.int32 if sum(rows) < 2**31 and len(rois) * side * side < 2**31 else torch.int64
    )
    index = y.to(index_type)[:, :, None, :, None] + x.to(index_type)[:, None, :, None, :]
    weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
    used = (
        ((wy != 0)[:, :, None, :, None] & (wx != 0)[:, None, :, None, :])
        .flatten()
        .nonzero()
        .squeeze(1)
    )
    counts = ((wy != 0).sum(2)[:, :, None] * (wx != 0).sum(2)[:, None, :]).flatten()
    offsets = (counts.cumsum(0) - counts).to(index_type)
    return index.flatten()[used], weight.flatten()[used], offsets


def _axis_taps(low: Tensor, high: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pixels and weights of the bins along one axis: both (n, side, 4); equal pixels are merged.

    Each bin holds two samples of two pixels. A sample outside [-1, length] counts as zero; one between
    that and the grid takes the edge pixel: torchvision's (and Caffe2's) border rule.
    """
    bin_size = (high - low).clamp(min=1.0) / side
    step = bin_size / SAMPLING_RATIO
    sample = torch.arange(SAMPLING_RATIO, dtype=low.dtype, device=low.device) + 0.5
    bins = torch.arange(side, dtype=low.dtype, device=low.device)
    position = (
        low[:, None, None] + bins[:, None] * bin_size[:, None, None] + sample * step[:, None, None]
    )
    size = length[:, None, None]
    inside = (position >= -1.0) & (position <= size)
    position = torch.minimum(position.clamp(min=0), (size - 1).to(low.dtype))
    left = position.to(torch.int64)
    right = torch.minimum(left + 1, size - 1)
    fraction = position - left
    weight = torch.stack([1 - fraction, fraction], dim=-1) * (inside[..., None] / SAMPLING_RATIO)
    pixel = torch.stack([left, right], dim=-1).flatten(2)
    weight = weight.flatten(2)
    # The second sample often falls on pixels of the first: add its weights there and drop it.
    w0, w1, w2, w3 = weight.unbind(2)
    p0, p1, p2, _ = pixel.unbind(2)
    same, next_ = p2 == p0, (p2 == p1) & (p1 != p0)
    zero = torch.zeros_like(w0)
    w0, w1 = (
        w0 + torch.where(same, w2, zero),
        w1 + torch.where(same, w3, zero) + torch.where(next_, w2, zero),
    )
    w2, w3 = torch.where(same | next_, zero, w2), torch.where(same, zero, w3)
    return pixel, torch.stack([w0, w1, w2, w3], dim=2)


class _InOrder(torch.autograd.Function):
    """out[order[i]] = rows[i]: a permutation undone; its gradient is gathered, not added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return torch.empty_like(rows).index_copy_(0, order, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The rows of the gradient, in the order of the levels."""
        (order,) = ctx.saved_tensors
        return gradients[0].index_select(0, order), None


class _WeightedRowSum(torch.autograd.Function):
    """out[i] = sum over k in bag i of weight[k] * table[index[k]], and its transpose as the gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight, offsets)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the table: the same weighted sums the other way round, from places to rows."""
        index, weight, offsets = ctx.saved_tensors
        ends = torch.cat([offsets[1:], offsets.new_full((1,), len(index))])
        bags = torch.arange(len(offsets), dtype=index.dtype, device=index.device)
        bag = torch.repeat_interleave(bags, ends - offsets, output_size=len(index))
        rows, order = torch.sort(index, stable=True)  # a fixed order of summation
        starts = torch.searchsorted(
            rows,
            torch.arange(ctx.rows, dtype=index.dtype, device=index.device),
            out_int32=index.dtype == torch.int32,
        )
        summed = F.embedding_bag(
            bag[order],
            gradients[0].contiguous(),
            starts,
            mode="sum",
            per_sample_weights=weight[order],
        )
        return summed, None, None, None
