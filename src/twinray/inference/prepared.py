"""One image as a model sees it, and the way back to its own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.geometry import Geometry
from twinray.records import FloatArray


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image, fitted to the square that the model's pack had.

    Attributes:
        id: the image's name, for messages.
        packed: (s, s) or (s, s, 3) as networks take it: uint8, or float32 levels (:mod:`twinray.data.packed_pixels`).
        place: where the original lies in the square, and its size.
        display: (h, w) or (h, w, 3) uint8, for pictures: the original where it is at hand, else the packed image.
    """

    id: str
    packed: npt.NDArray[Any]
    place: Geometry
    display: npt.NDArray[np.uint8]

    def to_original(self, boxes: FloatArray, side: int) -> FloatArray:
        """(n, 4) boxes in pixels of a network input of the given side -> original pixels, clipped."""
        return self.place.clip(self.place.to_original(boxes, side))

    def map_to_display(self, heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A (side, side) map over the network's input -> (h, w) over ``display``."""
        height, width = self.display.shape[:2]
        image = Image.fromarray(heat.astype(np.float32))
        inner = self.place.picture_at(heat.shape[0])
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=inner)).clip(
            0, 1
        )
