"""Images and their boxes, moved together, a whole batch at once on whatever device it is on.

Grey images stay one channel until they are normalised. Every draw comes from the generator given:
one row of numbers an image, always the same number of them. Switching one operation on or off
therefore does not change what the others draw. Boxes are xyxy in pixels of the image they are on.

Shapes: b batch, c channels (1 or 3), p side of the packed images, s side of the network's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.backbones.pixels import (
    IMAGENET,
    Filter,
    normalise,
    pixels_to_levels,
    pixels_to_unit,
    resize,
)
from twinray.detection.batched.coding import large
from twinray.detection.targets import BoxTargets
from twinray.runs.description import Normalisation
from twinray.training.device import sent
from twinray.training.windows import Windows, in_window

_MIN_VISIBLE = 0.25  # a box that keeps less of its area in the window is no example of its class
_DRAWS = 8  # numbers an image; more than are used, so that seeds keep their meaning when an operation comes or goes
_SMALLEST = 1.0  # pixels of the network's input; a narrower box is nothing to learn from


@dataclass(frozen=True)
class TransformOptions:
    """What training images go through; with the defaults, a flip and nothing else.

    Attributes:
        flip: probability of a left-right flip.
        scale: (least, greatest) magnification: above 1 a random window is enlarged, below 1 the image
            shrinks into a random place on black. Drawn evenly on a log scale. (1, 1) is off.
        brightness: greatest shift up or down, of the 0..1 scale.
        contrast: greatest relative change of contrast about the image's mean.
        resize: filter that brings packed images to the network's side.
        windows: windows drawn of linear values; None for display values.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    resize: Filter = "bicubic"
    windows: Windows | None = None


def training_batch(
    pixels: Tensor,
    targets: BoxTargets,
    size: int,
    options: TransformOptions,
    generator: torch.Generator,
    by: Normalisation = IMAGENET,
) -> tuple[Tensor, BoxTargets]:
    """Packed pixels and boxes to what the detector trains on.

    Args:
        pixels: packed (b, p, p) grey or (b, p, p, 3) RGB.
        targets: boxes in pixels of the packed images.
        size: s.
        options: choice of what to draw.
        generator: the only source of randomness.
        by: statistics of the weights that will see them.

    Returns:
        (b, 3, s, s) normalised float32, and the boxes in its pixels.
    """
    draws = sent(torch.rand(len(pixels), _DRAWS, generator=generator), pixels.device)
    if options.windows is None:
        images = pixels_to_unit(pixels)
    else:
        images = in_window(pixels_to_levels(pixels), options.windows.of(draws[:, 6:8]))
    images, targets = resize_with_boxes(images, targets, size, options.resize)
    images, targets = flip(images, targets, draws[:, 0] < options.flip)
    if options.scale != (1.0, 1.0):
        low, high = (math.log(value) for value in options.scale)
        images, targets = zoom(
            images, targets, torch.exp(low + (high - low) * draws[:, 1]), draws[:, 2:4]
        )
    if options.brightness or options.contrast:
        signed = draws[:, 4:6] * 2 - 1
        images = photometric(
            images, signed[:, 0] * options.brightness, 1 + signed[:, 1] * options.contrast
        )
    return normalise(images, by), without_degenerate(clip(targets, size))


def evaluation_batch(
    pixels: Tensor, size: int, how: Filter, by: Normalisation = IMAGENET
) -> Tensor:
    """Packed pixels (b, p, p[, 3]) to (b, 3, s, s) normalised float32; nothing is drawn."""
    return normalise(resize(pixels_to_unit(pixels), size, how), by)


def resize_with_boxes(
    images: Tensor, targets: BoxTargets, size: int, how: Filter
) -> tuple[Tensor, BoxTargets]:
    """(b, c, p, p) images and their boxes to (b, c, s, s)."""
    return resize(images, size, how), targets.with_boxes(targets.boxes * (size / images.shape[-1]))


def flip(images: Tensor, targets: BoxTargets, which: Tensor) -> tuple[Tensor, BoxTargets]:
    """Mirror left and right the images where ``which`` (b,) is true."""
    images = torch.where(which[:, None, None, None], images.flip(-1), images)
    x1, y1, x2, y2 = targets.boxes.unbind(-1)
    mirrored = torch.stack([images.shape[-1] - x2, y1, images.shape[-1] - x1, y2], dim=-1)
    return images, targets.with_boxes(torch.where(which[:, None, None], mirrored, targets.boxes))


def zoom(
    images: Tensor, targets: BoxTargets, scale: Tensor, place: Tensor
) -> tuple[Tensor, BoxTargets]:
    """Magnify each (s, s) image about a place of its own, keeping its size; outside is black.

    Args:
        images: (b, c, s, s).
        targets: their boxes.
        scale: (b,) magnification, above 0.
        place: (b, 2) in 0..1: where, x then y, the window (or, below 1, the shrunken image) lies.
    """
    size = images.shape[-1]
    # A point u of the input goes to scale * u - shift; at place 0 the left (top) edges meet, at 1 the right.
    shift = (scale[:, None] - 1) * size * place
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = (2 * shift / size + 1) / scale[:, None] - 1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    boxes = targets.boxes * scale[:, None, None] - shift.repeat(1, 2)[:, None]
    visible = _area(boxes.clamp(0, size)) / _area(boxes).clamp(min=1e-12)
    return moved, targets.with_boxes(boxes).keep(visible >= _MIN_VISIBLE)


def photometric(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change (b, c, s, s) images in 0..1, each by its own (b,) shift and contrast factor."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = (images - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    return changed.clamp(0, 1)


def clip(targets: BoxTargets, size: int) -> BoxTargets:
    """Boxes cut at the edges of an (s, s) image."""
    return targets.with_boxes(targets.boxes.clamp(0, size))


def without_degenerate(targets: BoxTargets) -> BoxTargets:
    """Without the boxes that are narrower or lower than one pixel."""
    return targets.keep(large(targets.boxes, _SMALLEST))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
