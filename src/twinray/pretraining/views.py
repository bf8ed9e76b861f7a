"""Two random views of every image, made on the device for the whole batch at once.

The operations and their ranges are those of the authors of Barlow Twins (Zbontar et al. 2021,
table of augmentations): random resized crop (bicubic, antialiased), horizontal flip, colour jitter,
greyscale, Gaussian blur, solarise. Every image draws its own parameters.

Cropping, resizing and flipping are one linear map along each axis, so a view is
``R @ image @ C^T`` with a small matrix a side, and a batch of views is two batched matrix products;
blurring is the same with other matrices. The values are those of torchvision's functional
operations on float images, to rounding.

A grey image stays one channel: saturation, hue and greyscale change nothing on it and are skipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ViewOptions:
    """Strength of the augmentations of one view; probabilities and factors in 0..1."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0

    @staticmethod
    def pair() -> tuple[ViewOptions, ViewOptions]:
        """The two views of Barlow Twins: the first always blurred, the second seldom blurred, sometimes solarised."""
        return ViewOptions(), ViewOptions(blur=0.1, solarise=0.2)


@dataclass(frozen=True, eq=False)
class ViewParameters:
    """What was drawn for a batch of b views; every tensor on the CPU.

    Attributes:
        crop: (b, 4) int64: top, left, height, width in pixels of the input.
        flip, grey, solarise: (b,) bool.
        jitter: (b, 4) float32 factors of brightness, contrast, saturation (1 changes nothing) and
            shift of hue in turns (0 changes nothing).
        order: (b, 4) int64, the order in which those four are applied.
        sigma: (b,) float32 blur in pixels of the view; 0 for none.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    grey: Tensor
    sigma: Tensor
    solarise: Tensor


@dataclass(frozen=True)
class ViewMaker:
    """Makes one view of each image of a batch.

    Attributes:
        size: side of the view, pixels.
        options: strength of the augmentations.
        blur_reference: the blur's sigma is meant for views of this side and scaled to others, so that
            a small view is not blurred away.
    """

    size: int
    options: ViewOptions = field(default_factory=ViewOptions)
    blur_reference: int = 224

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(b, 1 or 3, h, w) float32 in 0..1 -> (b, 1 or 3, size, size) float32 in 0..1."""
        return self.apply(images, self.draw(len(images), images.shape[-2], images.shape[-1], generator))

    def draw(self, b: int, height: int, width: int, generator: torch.Generator) -> ViewParameters:
        """Draw parameters for b views of (height, width) images, the same on every device."""
        o = self.options

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(b).uniform_(low, high, generator=generator)

        def chance(p: float) -> Tensor:
            return torch.rand(b, generator=generator) < p

        crop = draw_crops(b, height, width, o.crop_area, o.crop_ratio, generator)
        flip, jittered = chance(o.flip), chance(o.jitter)
        factors = [uniform(max(0.0, 1 - s), 1 + s) for s in (o.brightness, o.contrast, o.saturation)]
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        jitter = torch.where(jittered[:, None], torch.stack([*factors, uniform(-o.hue, o.hue)], dim=1), neutral)
        order = torch.rand(b, 4, generator=generator).argsort(dim=1)
        grey = chance(o.grey)
        scale = self.size / self.blur_reference
        sigma = torch.where(chance(o.blur), uniform(*o.blur_sigma) * scale, torch.zeros(b))
        return ViewParameters(crop, flip, jitter, order, grey, sigma, chance(o.solarise))

    def apply(self, images: Tensor, p: ViewParameters) -> Tensor:
        """Make the views that ``p`` describes."""
        device = images.device
        x = crop_resize(images, p.crop, p.flip, self.size).clamp_(0, 1)
        x = _jitter_grey(x, p) if x.shape[1] == 1 else _jitter_rgb(x, p)
        x = blur(x, p.sigma, 3 * self.options.blur_sigma[1] * self.size / self.blur_reference)
        solarised = p.solarise.to(device).view(-1, 1, 1, 1) & (x >= 0.5)
        return torch.where(solarised, 1 - x, x)


def draw_crops(
    b: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Parameters of b random resized crops, (b, 4) int64: top, left, height, width.

    As torchvision's ``RandomResizedCrop``: ten attempts at an area (uniform) and an aspect ratio
    (log-uniform) that fit; failing all, the largest central crop within the ratios.
    """
    attempts = 10
    areas = torch.empty(b, attempts).uniform_(*area, generator=generator) * (height * width)
    ratios = torch.empty(b, attempts).uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator).exp()
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
    return torch.stack([top, left, h, w], dim=1)


def crop_resize(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop, bicubic antialiased resize to (size, size) and flip, each image by its own parameters.

    Args:
        images: (b, c, h, w) float32.
        crop: (b, 4) int64: top, left, height, width.
        flip: (b,) bool, left to right.
        size: side of the result, pixels.
    """
    rows = resize_matrix(crop[:, 0], crop[:, 2], images.shape[2], size)
    columns = resize_matrix(crop[:, 1], crop[:, 3], images.shape[3], size)
    columns = torch.where(flip.view(-1, 1, 1), columns.flip(1), columns)
    rows, columns = rows.to(images.device).unsqueeze(1), columns.to(images.device).unsqueeze(1)
    return rows @ images @ columns.transpose(2, 3)


def resize_matrix(start: Tensor, length: Tensor, n_in: int, n_out: int) -> Tensor:
    """(b, n_out, n_in) weights that resample pixels ``start .. start + length`` of a line to n_out.

    Bicubic (a = -0.5) stretched by the scale when shrinking, as PIL and torchvision with antialias;
    pixels outside the crop have no weight and the rest are normalised.
    """
    scale = (length.to(torch.float64) / n_out).view(-1, 1, 1)
    stretch = scale.clamp_min(1.0)
    centre = (torch.arange(n_out, dtype=torch.float64).view(1, -1, 1) + 0.5) * scale  # in the crop
    support = 2 * stretch
    low = (centre - support + 0.5).floor().clamp_min(0)
    high = torch.minimum((centre + support + 0.5).floor(), length.to(torch.float64).view(-1, 1, 1))
    taps = math.ceil(4 * max(float(stretch.max()), 1.0)) + 2
    position = low + torch.arange(taps, dtype=torch.float64).view(1, 1, -1)  # (b, n_out, taps), in the crop
    weight = _cubic((position - centre + 0.5) / stretch)
    weight = torch.where(position < high, weight, torch.zeros((), dtype=torch.float64))
    weight = weight / weight.sum(dim=2, keepdim=True)
    column = (position.long() + start.view(-1, 1, 1)).clamp_max(n_in - 1)
    matrix = torch.zeros(len(start), n_out, n_in, dtype=torch.float32)
    return matrix.scatter_add_(2, column, weight.float())


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def blur(x: Tensor, sigma: Tensor, largest_radius: float) -> Tensor:
    """Gaussian blur of each (c, s, s) image by its own sigma in pixels; 0 leaves it as it is.

    Args:
        x: (b, c, s, s).
        sigma: (b,) pixels.
        largest_radius: where the kernel is cut off, pixels.
    """
    if not bool((sigma > 0).any()):
        return x
    side = x.shape[-1]
    radius = min(max(math.ceil(largest_radius), 1), side - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3).unsqueeze(1)).square())
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (b, taps)
    index = torch.arange(side).view(-1, 1) + torch.arange(-radius, radius + 1)  # (side, taps)
    index = index.abs()
    index = torch.where(index > side - 1, 2 * (side - 1) - index, index)  # reflect, edge not repeated
    matrix = torch.zeros(len(x), side, side)
    matrix.scatter_add_(2, index.expand(len(x), -1, -1), kernel.unsqueeze(1).expand(-1, side, -1).contiguous())
    matrix = matrix.to(x.device).unsqueeze(1)
    return matrix @ x @ matrix.transpose(2, 3)


def _jitter_grey(x: Tensor, p: ViewParameters) -> Tensor:
    """Brightness and contrast in each image's own order; a brightness of 1 changes no bit, so one
    chain (brightness, contrast, brightness) serves both orders."""
    brightness, contrast = p.jitter[:, 0], p.jitter[:, 1]
    rank = p.order.argsort(dim=1)
    brightness_first = rank[:, 0] < rank[:, 1]
    x = _brightness(x, torch.where(brightness_first, brightness, 1.0))
    x = _contrast(x, contrast)
    return _brightness(x, torch.where(brightness_first, 1.0, brightness))


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor.to(x.device).view(-1, 1, 1, 1)).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the greyscale image."""
    factor = factor.to(x.device).view(-1, 1, 1, 1)
    mean = _luma(x).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, x, factor).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_luma(x), x, factor.to(x.device).view(-1, 1, 1, 1)).clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    """(b, 3, h, w) -> (b, 1, h, w) greyscale (ITU-R 601-2); one channel stays."""
    if x.shape[1] == 1:
        return x
    weights = torch.tensor(_LUMA, device=x.device).view(1, 3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue by a share of the colour circle (via HSV)."""
    top, bottom = x.amax(dim=1), x.amin(dim=1)
    chroma = top - bottom
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    r, g, b = x.unbind(dim=1)
    hue = torch.where(top == r, ((g - b) / safe) % 6, torch.where(top == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = (hue / 6 + turns.to(x.device).view(-1, 1, 1)) % 1.0
    # HSV -> RGB without branches: channel n is v - v*s*max(0, min(k, 4 - k, 1)), k = (n + 6h) mod 6
    k = (torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1) + hue.unsqueeze(1) * 6) % 6
    return top.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def _jitter_rgb(x: Tensor, p: ViewParameters) -> Tensor:
    """Brightness, contrast, saturation and hue in each image's own order, then greyscale."""
    operations = (_brightness, _contrast, _saturation, _hue)
    for place in range(4):
        for which, operation in enumerate(operations):
            here = (p.order[:, place] == which).nonzero().squeeze(1)
            if len(here):
                there = here.to(x.device)
                x = x.index_copy(0, there, operation(x.index_select(0, there), p.jitter[here, which]))
    grey = p.grey.to(x.device).view(-1, 1, 1, 1)
    return torch.where(grey, _luma(x).expand_as(x), x)
