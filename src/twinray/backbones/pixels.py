"""From packed pixels to what a network takes, the same for every network and every job."""

from __future__ import annotations

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.runs.description import Normalisation

IMAGENET: Final = Normalisation()
"""Statistics of ImageNet: of random weights, of torchvision's, and of files that say nothing else."""
MEAN: Final = IMAGENET.mean
STD: Final = IMAGENET.std
_KEPT: Final[dict[tuple[Normalisation, torch.device, torch.dtype], tuple[Tensor, Tensor]]] = {}


Filter = Literal["bicubic", "bilinear"]
"""Filter that brings images to a network's side: bicubic in every stage. Bilinear is what
detectors of version 0.1.0 and before learnt with, and see again."""


def normalise(x: Tensor, by: Normalisation = IMAGENET) -> Tensor:
    """(b, 1 or 3, h, w) pixels on the 0..1 scale -> (b, 3, h, w) normalised; grey is repeated.

    Args:
        x: red, green and blue, or grey.
        by: statistics of the weights that will see them (``Backbone.normalisation``).
    """
    mean, std = _statistics(x, by)
    normalised = (x - mean) / std
    return normalised.flip(1) if by.order == "BGR" else normalised


def _statistics(like: Tensor, by: Normalisation) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, 3, 1, 1) where ``like`` is.

    Made once for a device and precision: a GPU's host waits for every constant that it sends.
    """
    key = (by, like.device, like.dtype)
    plain = (
        not torch.compiler.is_compiling() and type(like) is Tensor
    )  # a trace makes constants of its own
    if plain and key in _KEPT:
        return _KEPT[key]
    with torch.inference_mode(False):  # or what a prediction kept could not be learnt through
        mean, std = (
            torch.tensor(values, device=like.device, dtype=like.dtype).view(1, 3, 1, 1)
            for values in (by.mean, by.std)
        )
    if plain and type(mean) is Tensor:
        _KEPT[key] = mean, std
    return mean, std


def pixels_to_levels(batch: Tensor) -> Tensor:
    """Packed pixels (b, h, w) or (b, h, w, 3) -> float32 (b, 1 or 3, h, w) whose 0 and 1 are black and white.

    uint8 lies in 0..1. Levels of linear pixels may lie outside: training draws windows from them.
    """
    x = batch.unsqueeze(1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
    return x if batch.dtype == torch.float32 else x.to(torch.float32).div_(255)


def pixels_to_unit(batch: Tensor) -> Tensor:
    """Packed pixels (b, h, w) or (b, h, w, 3) -> float32 (b, 1 or 3, h, w) in 0..1, as an image's own window shows it."""
    x = pixels_to_levels(batch)
    return x.clamp(0, 1) if batch.dtype == torch.float32 else x


def resize(x: Tensor, size: int, how: Filter = "bicubic") -> Tensor:
    """(b, c, h, w) in 0..1 -> (b, c, size, size), antialiased; unchanged if it has that size."""
    if x.shape[-2:] == (size, size):
        return x
    resized = F.interpolate(x, (size, size), mode=how, antialias=True, align_corners=False)
    return resized.clamp_(0, 1) if how == "bicubic" else resized  # cubic weights overshoot at edges


def network_input(
    pixels: Tensor, size: int, device: torch.device, by: Normalisation = IMAGENET
) -> Tensor:
    """Pixels of a pack -> (b, 3, size, size) normalised, channels last, without augmentation."""
    x = resize(pixels_to_unit(pixels.to(device, non_blocking=True)), size)
    return normalise(x, by).contiguous(memory_format=torch.channels_last)
