"""What a worker process does for a pack: load one image, fit it, sum it up.

A module of its own, so that a worker starts without what only the parent needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twinray.data.annotations import size_fault
from twinray.data.decoding.images import UnscaledError
from twinray.data.decoding.options import DecodesFiles, PixelType
from twinray.data.decoding.scale import Spread
from twinray.data.fit import to_square
from twinray.data.packing.journal import Packed
from twinray.data.packing.options import Channels
from twinray.errors import InputError
from twinray.geometry import Fit
from twinray.records import Pixels, Sample

_CHANNELS: dict[Channels, Literal[1, 3, "auto"]] = {"grey": 1, "rgb": 3, "auto": "auto"}


@dataclass(frozen=True, slots=True)
class PackOne:
    """Packs images one by one; picklable."""

    loaders: tuple[Callable[[Sample], Pixels], ...]
    size: int
    fit: Fit
    channels: Channels
    pixels: PixelType = "uint8"

    def __call__(self, task: tuple[int, Sample]) -> tuple[Packed, npt.NDArray[Any]] | None:
        """(collection, sample) -> what is known of the image, and its packed pixels.

        None where it has more than 8 bits and the scale of its source is not known yet.

        Raises:
            InputError: the file is refused, or has another size than its annotations say.
        """
        collection, sample = task
        try:
            loaded: Pixels = self.loaders[collection](sample)
        except UnscaledError:
            return None
        if self.pixels == "uint16":
            loaded = loaded.as_linear()  # of a reader that gives arrays, not files
        pixels, how = loaded.array, loaded.how
        height, width = pixels.shape[:2]
        if (fault := size_fault(sample, width, height)) is not None:
            raise InputError(f"{fault}; {_advice(loaded, sample.size == (height, width))}")
        fitted = to_square(pixels, self.size, self.fit, _CHANNELS[self.channels])
        linear = loaded.linear
        sums, squares = _moments(fitted if linear is None else linear.shown(fitted))
        remarks = loaded.remarks
        if (value := _only_value(pixels, fitted)) is not None:
            remarks = (*remarks, ("one value", str(value)))
        if fitted.dtype == np.uint16:
            fitted = fitted.astype("<u2", copy=False)  # the file's order of bytes on any machine
        digest = hashlib.sha256(fitted.data).hexdigest()
        return Packed(width, height, how, digest, sums, squares, remarks, linear), fitted


@dataclass(frozen=True, slots=True)
class SpreadOf:
    """What images have to say on the scale of their source; picklable."""

    loaders: tuple[Callable[[Sample], Pixels], ...]

    def __call__(self, task: tuple[int, Sample]) -> Spread | None:
        """(collection, sample) -> its spread; None for 8 bits.

        Raises:
            InputError: the file is refused.
        """
        collection, sample = task
        loader = self.loaders[collection]
        return loader.spread(sample) if isinstance(loader, DecodesFiles) else None


def _advice(loaded: Pixels, swapped: bool) -> str:
    asked = next((text for kind, text in loaded.remarks if kind == "orientation"), None)
    if swapped and asked is not None:
        return f"the file asks to be turned (orientation {asked}): try --exif apply, or ignore if it was given"
    return "give the images that the annotations were made for"


def _only_value(pixels: npt.NDArray[Any], fitted: npt.NDArray[Any]) -> int | None:
    """The one grey value that all pixels have, or None; the small image settles it for almost all."""
    centre = fitted[len(fitted) // 2]
    if (centre != centre[len(centre) // 2]).any() or (pixels != pixels[0, 0]).any():
        return None
    return int(pixels[0, 0].max())


def _moments(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sum of the values and of their squares, for each channel, exactly."""
    values = np.arange(256, dtype=np.int64)
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(pixels.shape[2])]
    counts = [np.bincount(plane.ravel(), minlength=256) for plane in planes]
    return tuple(int(n @ values) for n in counts), tuple(int(n @ values**2) for n in counts)
