"""What decides a pack's bytes, besides its sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinray.data.fit import Fit
from twinray.errors import InputError

Channels = Literal["auto", "grey", "rgb"]

MIN_SIZE, MAX_SIZE = 16, 4096


@dataclass(frozen=True)
class PackOptions:
    """What decides a pack's bytes, besides its sources.

    Attributes:
        size: side of the packed images in pixels, 16 to 4096.
        fit: ``squash`` both sides to the square, or ``letterbox`` (keep proportions, pad with black).
        channels: ``grey`` (colour turns to luma), ``rgb``, or ``auto``: grey if no image carries colour.
        val, test: shares of images to cut for validation and test where the source has no such split.
        seed: of the cut.
    """

    size: int = 256
    fit: Fit = "squash"
    channels: Channels = "auto"
    val: float = 0.1
    test: float = 0.2
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: an option out of its range.
        """
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise InputError(f"expected --size in {MIN_SIZE}..{MAX_SIZE} pixels, got {self.size}")
        if self.fit not in ("squash", "letterbox"):
            raise InputError(f"expected --fit squash or letterbox, got {self.fit!r}")
        if self.channels not in ("auto", "grey", "rgb"):
            raise InputError(f"expected --channels auto, grey or rgb, got {self.channels!r}")
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share < 1:
                raise InputError(f"expected --{name} as a share in 0..1, got {share}; 0.1 means one image in ten")
        if self.val + self.test >= 1:
            raise InputError(
                f"expected --val and --test to leave images for training, got {self.val} + {self.test} >= 1"
            )
        if self.seed < 0:
            raise InputError(f"expected --seed of 0 or more, got {self.seed}")
