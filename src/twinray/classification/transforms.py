"""What training images of a classifier go through, a whole batch at once on whatever device it is on.

Random resized crop (bicubic, antialiased), left-right flip, brightness and contrast. Grey images
stay one channel until they are normalised. Parameters are drawn on the CPU for the whole batch,
whichever ranks share it. Each image has one set of them, always the same number. Switching one
operation on or off therefore does not change what the others draw.

Shapes: b images of this rank, p side of the packed images, s side of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinray.backbones.pixels import IMAGENET, normalise, pixels_to_levels, pixels_to_unit, resize
from twinray.runs.description import Normalisation
from twinray.training.crops import crop_resize, draw_crops
from twinray.training.ranks import Ranks
from twinray.training.windows import DRAWS, Windows, in_window

_RATIO = (3 / 4, 4 / 3)  # of a crop's sides, torchvision's own


@dataclass(frozen=True)
class Transforms:
    """Random changes of training images.

    Attributes:
        size: s, pixels.
        crop_min: smallest area of a crop, share of the image; 1 takes the whole image.
        flip: probability of a left-right flip.
        brightness: greatest shift up or down, of the 0..1 scale.
        contrast: greatest relative change of contrast about the image's mean.
        normalisation: pixels that the weights take.
        windows: windows drawn of linear values; None for display values.
    """

    size: int
    crop_min: float = 1.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    normalisation: Normalisation = IMAGENET
    windows: Windows | None = None

    @property
    def none(self) -> bool:
        """Whether images go through as they are, so that features of a frozen network stay the same."""
        windows = self.windows is None or self.windows.kept
        plain = self.crop_min >= 1 and not self.flip and not self.brightness and not self.contrast
        return plain and windows

    def __call__(
        self, pixels: Tensor, generator: torch.Generator, ranks: Ranks | None = None
    ) -> Tensor:
        """Packed (b, p, p) grey or (b, p, p, 3) RGB -> (b, 3, s, s) normalised float32, channels last.

        Args:
            pixels: this rank's share of a batch, on any device.
            generator: the only source of randomness; in the same state on every rank.
            ranks: all processes that share the batch.
        """
        ranks = ranks or Ranks()
        images = pixels_to_unit(pixels) if self.windows is None else pixels_to_levels(pixels)
        n = len(images) * ranks.world
        share = ranks.share(n)
        crops = draw_crops(
            n, images.shape[-2], images.shape[-1], (self.crop_min, 1.0), _RATIO, generator
        )
        draws = torch.rand(n, 3, generator=generator)
        crop, own = crops[share].to(images.device), draws[share].to(images.device)
        flipped = own[:, 0] < self.flip
        if self.windows is not None:
            windows = self.windows.of(torch.rand(n, DRAWS, generator=generator))
            images = in_window(images, windows[share].to(images.device))
        if self.crop_min < 1:
            images = crop_resize(images, crop, flipped, self.size).clamp_(0, 1)
        else:
            images = resize(images, self.size)
            if self.flip:
                images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        if self.brightness or self.contrast:
            images = _photometric(
                images,
                (own[:, 1] * 2 - 1) * self.brightness,
                1 + (own[:, 2] * 2 - 1) * self.contrast,
            )
        return normalise(images, self.normalisation).contiguous(memory_format=torch.channels_last)


def _photometric(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change (b, c, s, s) images in 0..1, each by its own (b,) shift and contrast factor."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = (images - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    return changed.clamp(0, 1)
