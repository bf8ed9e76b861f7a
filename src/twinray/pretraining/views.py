"""Two random views of every image, made on the device for the whole batch at once.

The operations and their ranges are those of the authors of Barlow Twins (Zbontar et al. 2021, table
of augmentations). They are random resized crop (bicubic, antialiased), horizontal flip, colour
jitter, greyscale, Gaussian blur, solarise. Every image draws its own parameters.

Cropping, resizing and flipping are two batched matrix products (``training.crops``); blurring is the
same with other matrices. The values are those of torchvision's functional operations on float images,
to rounding.

A grey image stays one channel: saturation, hue and greyscale change nothing on it and are skipped.

Parameters are drawn on the CPU, so every device sees the same ones, and whatever decides what runs
is read there. The device gets them in one small copy and builds its matrices itself. It is never
asked for a value, so launching a view never waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from twinray.training.crops import crop_resize, draw_crops
from twinray.training.device import sent
from twinray.training.windows import DRAWS, Windows, in_window

_LUMA = (0.299, 0.587, 0.114)
_NEUTRAL = torch.tensor(
    [1.0, 1.0, 1.0, 0.0]
)  # brightness, contrast, saturation, hue that change nothing


@dataclass(frozen=True)
class ViewOptions:
    """Strength of the augmentations of one view; probabilities and factors in 0..1.

    Each can be switched off: a probability of 0, or a ``crop_area`` of (1, 1), which takes the whole image.
    """

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
    windows: Windows | None = None
    """Windows drawn of linear values; None for display values."""

    @staticmethod
    def pair() -> tuple[ViewOptions, ViewOptions]:
        """The two views of Barlow Twins: the first always blurred, the second seldom blurred, sometimes solarised."""
        return ViewOptions(), ViewOptions(blur=0.1, solarise=0.2)


@dataclass(frozen=True, eq=False)
class ViewParameters:
    """What was drawn for a batch of b views; drawn on the CPU.

    Attributes:
        crop: (b, 4) int64: top, left, height, width in pixels of the input.
        flip, grey, solarise: (b,) bool.
        jitter: (b, 4) float32 factors of brightness, contrast, saturation (1 changes nothing) and
            shift of hue in turns (0 changes nothing).
        order: (b, 4) int64, the order in which those four are applied.
        sigma: (b,) float32 blur in pixels of the view; 0 for none.
        windows: (b, 2) float32 windows of linear values, see :mod:`twinray.training.windows`; (b, 0) for display values.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    grey: Tensor
    sigma: Tensor
    solarise: Tensor
    windows: Tensor

    def to(self, device: torch.device) -> ViewParameters:
        """The same parameters on ``device``, in one copy that does not wait for it."""
        if device.type == "cpu":
            return self
        switches = torch.stack([self.flip, self.grey, self.solarise], dim=1)
        parts = (
            self.crop,
            self.order,
            self.jitter,
            self.sigma.unsqueeze(1),
            switches,
            self.windows,
        )
        packed = torch.cat(
            [part.double() for part in parts], dim=1
        )  # float64 holds each of them exactly
        crop, order, jitter, sigma, switches, windows = torch.split(
            sent(packed, device), [part.shape[1] for part in parts], dim=1
        )
        flip, grey, solarise = switches.bool().unbind(dim=1)
        return ViewParameters(
            crop.long(),
            flip,
            jitter.float(),
            order.long(),
            grey,
            sigma.squeeze(1).float(),
            solarise,
            windows.float(),
        )


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
        """(b, 1 or 3, h, w) float32 in 0..1, or levels where windows are drawn -> (b, 1 or 3, size, size) in 0..1."""
        return self.apply(
            images, self.draw(len(images), images.shape[-2], images.shape[-1], generator)
        )

    def draw(self, b: int, height: int, width: int, generator: torch.Generator) -> ViewParameters:
        """Draw parameters for b views of (height, width) images, the same on every device."""
        o = self.options

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(b).uniform_(low, high, generator=generator)

        def chance(p: float) -> Tensor:
            return torch.rand(b, generator=generator) < p

        crop = draw_crops(b, height, width, o.crop_area, o.crop_ratio, generator)
        flip, jittered = chance(o.flip), chance(o.jitter)
        factors = [
            uniform(max(0.0, 1 - s), 1 + s) for s in (o.brightness, o.contrast, o.saturation)
        ]
        jitter = torch.where(
            jittered[:, None], torch.stack([*factors, uniform(-o.hue, o.hue)], dim=1), _NEUTRAL
        )
        order = torch.rand(b, 4, generator=generator).argsort(dim=1)
        grey = chance(o.grey)
        scale = self.size / self.blur_reference
        sigma = torch.where(chance(o.blur), uniform(*o.blur_sigma) * scale, torch.zeros(b))
        solarise = chance(o.solarise)
        # the last to be drawn: packs of display values draw what they always did
        drawn = torch.rand(b, DRAWS if o.windows else 0, generator=generator)
        windows = drawn if o.windows is None else o.windows.of(drawn)
        return ViewParameters(crop, flip, jitter, order, grey, sigma, solarise, windows)

    def apply(self, images: Tensor, p: ViewParameters) -> Tensor:
        """Make the views that ``p``, on the CPU, describes; outside autocast, which would round the pixels."""
        there = p.to(images.device)
        if self.options.windows is not None:
            images = in_window(images, there.windows)
        x = crop_resize(images, there.crop, there.flip, self.size).clamp_(0, 1)
        x = _jitter_grey(x, there) if x.shape[1] == 1 else _jitter_rgb(x, p, there)
        x = self._blur(x, p, there)
        solarised = there.solarise.view(-1, 1, 1, 1) & (x >= 0.5)
        return torch.where(solarised, 1 - x, x)

    def _blur(self, x: Tensor, p: ViewParameters, there: ViewParameters) -> Tensor:
        """Blur the images that drew a sigma, and only those."""
        which = p.sigma.nonzero().squeeze(1)
        radius = math.ceil(3 * self.options.blur_sigma[1] * self.size / self.blur_reference)
        if len(which) == len(x):
            return blur(x, there.sigma, radius)
        if len(which) == 0:
            return x
        index = sent(which, x.device)
        return x.index_copy_(
            0, index, blur(x.index_select(0, index), there.sigma.index_select(0, index), radius)
        )


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of each (c, s, s) image by its own sigma in pixels; 0 leaves it as it is.

    Args:
        x: (b, c, s, s).
        sigma: (b,) pixels, on the device of x.
        radius: distance at which the kernel is cut off, pixels; at most s - 1 is used.
    """
    side = x.shape[-1]
    radius = min(max(radius, 1), side - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3).unsqueeze(1)).square())
    kernel = functional.pad(
        kernel / kernel.sum(dim=1, keepdim=True), (0, 1)
    )  # (b, taps + 1), the last one 0
    span = torch.arange(side + 2 * radius, device=x.device) - torch.arange(
        side, device=x.device
    ).unsqueeze(1)
    tap = torch.where((span >= 0) & (span <= 2 * radius), span, 2 * radius + 1)
    matrix = kernel.index_select(1, tap.flatten()).view(len(x), 1, side, -1)
    return matrix @ functional.pad(x, (radius,) * 4, mode="reflect") @ matrix.mT


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
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the greyscale image."""
    mean = _luma(x).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_luma(x), x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    """(b, 3, h, w) -> (b, 1, h, w) greyscale (ITU-R 601-2); one channel stays."""
    if x.shape[1] == 1:
        return x
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return r * _LUMA[0] + g * _LUMA[1] + b * _LUMA[2]


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue by a share of the colour circle (via HSV)."""
    top, bottom = x.amax(dim=1), x.amin(dim=1)
    chroma = top - bottom
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    r, g, b = x.unbind(dim=1)
    hue = torch.where(
        top == r,
        ((g - b) / safe) % 6,
        torch.where(top == g, (b - r) / safe + 2, (r - g) / safe + 4),
    )
    hue = (hue / 6 + turns.view(-1, 1, 1)) % 1.0
    # HSV -> RGB without branches: channel n is v - v*s*max(0, min(k, 4 - k, 1)), k = (n + 6h) mod 6
    n = torch.arange(5.0, 0.0, -2.0, device=x.device).view(1, 3, 1, 1)  # 5, 3, 1
    k = (n + hue.unsqueeze(1) * 6) % 6
    return top.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def _jitter_rgb(x: Tensor, p: ViewParameters, there: ViewParameters) -> Tensor:
    """Brightness, contrast, saturation and hue in each image's own order, then greyscale.

    At each of the four places of the order, images are sorted by what comes there, so every operation
    runs once on its share of the batch. ``p`` is on the CPU, ``there`` holds the same on the device of
    ``x``, which is changed.
    """
    operations = (_brightness, _contrast, _saturation, _hue)
    skipped = p.jitter.gather(1, p.order) == _NEUTRAL[p.order]
    comes = torch.where(skipped, len(operations), p.order)  # (b, place)
    index = sent(comes.argsort(dim=0, stable=True), x.device)
    values = there.jitter.gather(1, there.order)
    for place in range(4):
        counts = torch.bincount(comes[:, place], minlength=len(operations) + 1).tolist()
        shares = torch.split(index[:, place], counts)[: len(operations)]
        for share, count, operation in zip(shares, counts, operations, strict=False):
            if count:
                factor = values[:, place].index_select(0, share)
                x.index_copy_(0, share, operation(x.index_select(0, share), factor))
    if not bool(p.grey.any()):
        return x
    return torch.where(there.grey.view(-1, 1, 1, 1), _luma(x).expand_as(x), x)
