"""Random resized crops and flips of whole batches, every image by parameters of its own.

Cropping, resizing and flipping are one linear map along each axis. A crop is so ``R @ image @ C^T``
with a small matrix a side. A batch of crops is two batched matrix products. The values are those of
torchvision's functional operations on float images, to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_crops(
    b: int,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Parameters of b random resized crops, (b, 4) int64: top, left, height, width.

    As torchvision's ``RandomResizedCrop``: ten attempts at an area (uniform) and an aspect ratio
    (log-uniform) that fit; failing all, the largest central crop within the ratios. Unlike there, an
    area of (1, 1) is the whole image whatever its shape.
    """
    attempts = 10
    areas = torch.empty(b, attempts).uniform_(*area, generator=generator) * (height * width)
    ratios = (
        torch.empty(b, attempts)
        .uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator)
        .exp()
    )
    w, h = (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    whole = width / height
    central_w = width if whole <= ratio[1] else round(height * ratio[1])
    central_h = height if whole >= ratio[0] else round(width / ratio[0])
    found = fits.any(dim=1)
    w = torch.where(found, w, torch.tensor(central_w))
    h = torch.where(found, h, torch.tensor(central_h))
    position = torch.rand(b, 2, generator=generator)
    top = (position[:, 0] * (height - h + 1)).long()
    left = (position[:, 1] * (width - w + 1)).long()
    top = torch.where(found, top, (height - h) // 2)
    left = torch.where(found, left, (width - w) // 2)
    if min(area) >= 1:
        return torch.tensor([0, 0, height, width]).repeat(b, 1)
    return torch.stack([top, left, h, w], dim=1)


def crop_resize(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop, bicubic antialiased resize to (size, size) and flip, each image by its own parameters.

    Args:
        images: (b, c, h, w) float32.
        crop: (b, 4) int64 on the images' device: top, left, height, width.
        flip: (b,) bool on the images' device, left to right.
        size: side of the result, pixels.
    """
    b, c, h, w = images.shape
    rows = resize_matrix(crop[:, 0], crop[:, 2], h, size)
    columns = resize_matrix(crop[:, 1], crop[:, 3], w, size, flip)
    narrowed = (images.reshape(b, c * h, w) @ columns.mT).view(b, c, h, size)
    return rows.unsqueeze(1) @ narrowed


def resize_matrix(
    start: Tensor, length: Tensor, n_in: int, n_out: int, reverse: Tensor | None = None
) -> Tensor:
    """(b, n_out, n_in) weights that resample pixels ``start .. start + length`` of a line to n_out.

    The filter is bicubic (a = -0.5), stretched by the scale when shrinking, as PIL and torchvision
    with antialias. Pixels outside the crop have no weight and the rest are normalised.

    Args:
        start, length: (b,) int64, ``start + length <= n_in``.
        n_in, n_out: pixels of the line before and after.
        reverse: (b,) bool: mirror the result; None mirrors none.
    """

    def column(values: Tensor) -> Tensor:
        return values.to(torch.float64).view(-1, 1, 1)

    first, size = column(start), column(length)
    scale = size / n_out
    stretch = scale.clamp_min(1.0)
    place = torch.arange(n_out, dtype=torch.float64, device=start.device).view(1, -1, 1)
    if reverse is not None:
        place = torch.where(reverse.view(-1, 1, 1), n_out - 1 - place, place)
    centre = (place + 0.5) * scale  # in the crop, as all that follows
    low = (centre - 2 * stretch + 0.5).floor().clamp_min(0)
    high = torch.minimum((centre + 2 * stretch + 0.5).floor(), size)
    # as many taps as the longest crop can need: a number that no device has to be asked for
    taps = min(math.ceil(4 * max(n_in / n_out, 1.0)) + 2, n_in)
    line = (low + first).clamp_max(n_in - taps) + torch.arange(
        taps, dtype=torch.float64, device=start.device
    )
    position = line - first  # (b, n_out, taps)
    weight = _cubic((position - centre + 0.5) / stretch)
    weight = torch.where((position >= low) & (position < high), weight, 0.0)
    weight = weight / weight.sum(dim=2, keepdim=True)
    matrix = torch.zeros(len(start), n_out, n_in, device=start.device)
    return matrix.scatter_(2, line.long(), weight.float())


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
