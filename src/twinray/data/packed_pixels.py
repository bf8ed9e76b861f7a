"""Packed pixels as networks take them, and as people do.

Display-ready packs hold uint8. Packs of linear values hold uint16 and a window for each image; a network takes *levels*:
float32, 0 and 1 being the ends of the image's own window. Levels are not cut off at these ends, so that training can draw
another window from them (:mod:`twinray.training.windows`); everything else cuts them off at 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.records import FloatArray, Linear, shown_levels


@dataclass(frozen=True, eq=False)
class LevelPixels:
    """Linear images and their windows as an array of levels that is made row by row.

    Attributes:
        images: (n, s, s) or (n, s, s, 3) uint16.
        windows: (n, 2) float64: pixel values that become black and white.
    """

    images: npt.NDArray[np.uint16]
    windows: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the images."""
        return tuple(self.images.shape)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Of the levels."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> npt.NDArray[np.float32]:
        low, high = self.windows[row].tolist()
        return Linear(low, high).levels(self.images[row])


PackedPixels: TypeAlias = npt.NDArray[Any] | LevelPixels
"""The images of a pack, one an index: uint8, or float32 levels."""


def shown(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """One packed image for people: uint8 as it is, levels cut off at the ends of their window."""
    return np.asarray(pixels) if pixels.dtype == np.uint8 else shown_levels(pixels)


def linear_columns(linear: Linear) -> dict[str, float]:
    """What the table of a pack says of one linear image."""
    return {
        "window_low": linear.low,
        "window_high": linear.high,
        "slope": linear.slope,
        "intercept": linear.intercept,
    }
