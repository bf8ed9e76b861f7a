"""One file -> what a viewer needs: values as stored, sent once and windowed there, and how they are shown at first.

With the first rule that a viewer is given it shows what :func:`twinray.data.decoding.images.load_image` gives a model, to
the rounding of one grey level. Colour comes as the grey that a model of one channel sees.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.images import file_kind, load_deep, load_image
from twinray.data.decoding.options import ALONE, Decoding
from twinray.errors import InputError
from twinray.records import Pixels

_TOP = 65_535
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID", "LUT"]


@dataclass(frozen=True, slots=True)
class Display:
    """How the values of a :class:`View` are shown at first.

    Attributes:
        width, height: pixels. bits: bits that the file stores.
        slope, intercept: modality value (what windows are stated in) = slope x value + intercept.
        function: ``LINEAR`` and ``LINEAR_EXACT`` and ``SIGMOID`` (DICOM PS3.3 C.11.2.1.2), or ``LUT``.
        centre, width_of_window: first window, in modality values; of a LUT the range that it covers.
        low, high: modality values that become black and white.
        lut: grey 0..255 for each whole modality value from ``low`` on; empty without a LUT.
        inverted: flag, true where black and white change places after the window.
        padding: smallest and largest value that is padding, as sent; None without.
        colour: flag, true where the file is in colour.
        how: the way, in words.
    """

    width: int
    height: int
    bits: int
    slope: float
    intercept: float
    function: Function
    centre: float
    width_of_window: float
    low: float
    high: float
    lut: tuple[float, ...]
    inverted: bool
    padding: tuple[int, int] | None
    colour: bool
    how: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"lut": list(self.lut) or None}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A decoded file for model and viewer.

    Attributes:
        pixels: as :func:`twinray.data.decoding.images.load_image` gives them.
        values: (h, w) uint16, what the viewer is sent.
        display: how they are shown.
    """

    pixels: Pixels
    values: npt.NDArray[np.uint16]
    display: Display


def load_view(path: Path, decoding: Decoding = ALONE) -> View:
    """Decode one file for model and viewer.

    Args:
        path: the file; its content decides its kind.
        decoding: as of :func:`twinray.data.decoding.images.load_image`.

    Raises:
        InputError: as :func:`twinray.data.decoding.images.load_image`.
    """
    if file_kind(path) == "dicom":
        return _dicom(path, decoding)
    pixels = load_image(path, decoding=decoding)  # the model's
    deep = load_deep(path, decoding)
    if deep is not None and deep[0].ndim == 2 and deep[0].shape == pixels.array.shape:
        return _deep(pixels, *deep)
    return _plain(pixels)


def _plain(pixels: Pixels) -> View:
    array = pixels.shown
    colour = array.ndim == 3
    if colour:  # ITU-R 601, as Pillow's conversion to grey
        array = np.rint(array @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    height, width = array.shape
    display = Display(
        width, height, 8, 1.0, 0.0, "LINEAR_EXACT", 127.5, 255.0, 0.0, 255.0, (), False, None, colour, pixels.how
    )  # fmt: skip
    return View(pixels, array.astype(np.uint16), display)


def _deep(
    pixels: Pixels, stored: npt.NDArray[Any], low: float, high: float, inverted: bool
) -> View:
    height, width = stored.shape
    least, most = float(stored.min()), float(stored.max())
    slope, intercept = 1.0, 0.0
    if stored.dtype.kind == "f" or most - least > _TOP:  # more than 16 bits hold: finely enough
        slope, intercept = max(most - least, 1e-30) / _TOP, least
        values = np.rint((stored.astype(np.float64) - least) / slope)
    else:
        intercept = min(0.0, least) if most <= _TOP + min(0.0, least) else least
        values = stored.astype(np.int64) - int(intercept)
    bits = 16 if stored.dtype.kind == "f" else max(8, int(most - min(0.0, least)).bit_length())
    display = Display(
        width, height, bits, slope, intercept, "LINEAR_EXACT", (low + high) / 2, high - low, low, high, (),
        inverted, None, False, pixels.how,
    )  # fmt: skip
    return View(pixels, values.astype(np.uint16), display)


def _dicom(path: Path, decoding: Decoding) -> View:
    # pydicom loads for half a second, which workers that decode PNG files would wait for
    from twinray.data.decoding.dicom.display import (
        DisplayError,
        Window,
        display_rule,
    )
    from twinray.data.decoding.dicom.pixels import load_stored

    stored = load_stored(path, lenient=decoding.lenient)
    try:
        rule = display_rule(stored.values, stored.header)
        pixels = stored.linear() if decoding.linear else stored.display()
    except DisplayError as error:
        raise InputError(f"{path}: {error}; correct the header or leave the file out") from None
    height, width = pixels.array.shape
    unsigned = stored.values.view(f"u{stored.values.itemsize}")
    if rule.slope is None or rule.intercept is None:  # a modality LUT: its output is what is sent
        table = np.rint(rule.modality).clip(0, _TOP).astype(np.uint16)
        slope, intercept = 1.0, 0.0
    else:
        least = int(rule.values.min())
        table = (rule.values.astype(np.int64) - least).astype(np.uint16)
        slope, intercept = rule.slope, rule.intercept + rule.slope * least
    padding = table[rule.padding]
    voi = rule.voi
    lut: tuple[float, ...] = ()
    shape: tuple[Function, float, float, float, float]
    if isinstance(voi, Window):
        shape = (voi.function, voi.centre, voi.width, voi.low, voi.high)
    else:
        first, last = float(voi.first), float(voi.first + len(voi.entries) - 1)
        lut = tuple(np.round(255.0 * voi.level(np.arange(first, last + 1)), 3).tolist())
        shape = ("LUT", (first + last) / 2, last - first, first, last)
    function, centre, width_of_window, low, high = shape
    display = Display(
        width=width,
        height=height,
        bits=int(stored.header.BitsStored),
        slope=slope,
        intercept=intercept,
        function=function,
        centre=centre,
        width_of_window=width_of_window,
        low=low,
        high=high,
        lut=lut,
        inverted=rule.inverted,
        padding=(int(padding.min()), int(padding.max())) if padding.size else None,
        colour=False,
        how=pixels.how,
    )
    return View(pixels, table[unsigned], display)
