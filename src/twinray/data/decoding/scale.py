"""Which stored values become black and white: decided once for a source, never image by image.

A file of 16 bits does not say whether a detector of 10, 12 or 14 bits filled it. The brightest
pixel of one image says how bright that image is, not how deep the detector was. A scale made from
it would give one stored value another grey in every image. A scale is therefore declared
(``--depth``, ``--value-range``) or found. It may be found in what the headers state (the largest
value of a PGM, the precision of a JPEG 2000). Otherwise the largest value of *all* images of the
source decides: the smallest depth of 8, 10, 12, 14 and 16 bits that holds it.

The container's own top value (65535 in 16 bits) is white at every depth. It does not count for the
largest value: exporters burn markers in with it. Floating point and integers below 0 or above 65535
have no depth. Their range from the smallest to the largest value of the source counts. Floating
point that keeps to 0..1 or 0..255 has that range instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.words import counted

DEPTHS = (8, 10, 12, 14, 16)
"""Bits a pixel that detectors and their exports have."""

TOP_16 = 65_535
Numbers = Literal["whole", "real"]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Stored values that become black and white; None: not known.

    Attributes:
        whole: (low, high) of integers of more than 8 bits.
        real: (low, high) of floating point.
    """

    whole: Range | None = None
    real: Range | None = None

    def of(self, numbers: Numbers) -> Range | None:
        """The range for integers or for floating point."""
        return self.whole if numbers == "whole" else self.real


@dataclass(frozen=True, slots=True)
class Spread:
    """What one image of more than 8 bits has to say on the scale of its source.

    Attributes:
        numbers: integers (``whole``) or floating point (``real``).
        low, high: smallest and largest stored value; the top of a 16-bit container left out.
        white: the value that the file's header declares to be white; None where it declares none.
    """

    numbers: Numbers
    low: float
    high: float
    white: float | None = None


def declared(depth: int | None, value_range: Range | None) -> Scale | None:
    """The scale that a user declared, for integers and floating point alike; None if none was.

    Raises:
        InputError: both are given, a depth outside 8..16, or a range that is none.
    """
    if depth is not None and value_range is not None:
        raise InputError("expected --depth or --value-range, got both; leave one of them out")
    if depth is not None:
        if not 8 <= depth <= 16:
            raise InputError(f"expected --depth in 8..16 bits, got {depth}")
        value_range = (0.0, float((1 << depth) - 1))
    if value_range is None:
        return None
    low, high = (float(value) for value in value_range)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(
            f"expected --value-range LOW HIGH with LOW below HIGH, got {low:g} {high:g}"
        )
    return Scale((low, high), (low, high))


def spread(values: npt.NDArray[Any], white: float | None = None) -> Spread:
    """The spread of one image's stored values, of any shape.

    Raises:
        ValueError: a value that is not finite.
    """
    numbers: Numbers = "real" if values.dtype.kind == "f" else "whole"
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("holds pixels that are not finite numbers")
    if values.dtype == np.uint16 and high == TOP_16 and white is None:
        below = values[values < TOP_16]
        high = float(below.max()) if below.size else low
    return Spread(numbers, low, high, white)


@dataclass(slots=True)
class Survey:
    """The spreads of all images of a source that have more than 8 bits, added up.

    Attributes:
        images: their number, by kind of number.
        low, high: smallest and largest value, by kind of number.
        highest: name of the image that holds the largest value, by kind of number.
        white: largest value that a header, or the smallest depth that holds an image, makes white.
        whites: numbers of headers that state each value.
        depths: numbers of images of integers that fit each depth by themselves.
    """

    images: Counter[str] = field(default_factory=Counter)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    highest: dict[str, str] = field(default_factory=dict)
    white: float = 0.0
    whites: Counter[float] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)

    @staticmethod
    def of(named: Iterable[tuple[str, Spread]]) -> Survey:
        """The survey of images, by name."""
        survey = Survey()
        for name, one in named:
            survey.add(name, one)
        return survey

    def add(self, name: str, one: Spread) -> None:
        """Add one image."""
        kind = one.numbers
        self.images[kind] += 1
        self.low[kind] = min(one.low, self.low.get(kind, one.low))
        if one.high > self.high.get(kind, -np.inf):
            self.high[kind], self.highest[kind] = one.high, name
        if kind == "whole":
            self.depths[_depth(one.high)] += 1
            if one.white is not None:
                self.whites[one.white] += 1
            self.white = max(
                self.white, (1 << _depth(one.high)) - 1 if one.white is None else one.white
            )

    def scale(self) -> Scale:
        """The one scale of the source."""
        return Scale(
            self._whole() if self.images["whole"] else None,
            self._real() if self.images["real"] else None,
        )

    def notes(self) -> list[str]:
        """What users must know: the range chosen, why, and how far the images agree with it."""
        scale, notes = self.scale(), []
        if scale.whole is not None:
            notes.append(self._whole_in_words(scale.whole))
            if (warning := self._dark(scale.whole)) is not None:
                notes.append(warning)
        if scale.real is not None:
            notes.append(
                f"{counted(self.images['real'], 'image of floating point is', 'images of floating point are')} scaled from {_span(scale.real)}; the source holds "
                f"{self.low['real']:g} to {self.high['real']:g}; if its values mean something else, pack again with "
                "--value-range LOW HIGH"
            )
        return notes

    def _whole(self) -> Range:
        if self.low["whole"] < 0 or self.high["whole"] > TOP_16:
            return self.low["whole"], max(self.high["whole"], self.low["whole"])
        return 0.0, self.white

    def _real(self) -> Range:
        low, high = self.low["real"], self.high["real"]
        if low >= 0 and 0.25 < high <= 1:
            return 0.0, 1.0
        if low >= 0 and 64 < high <= 255:
            return 0.0, 255.0
        return low, high

    def _whole_in_words(self, chosen: Range) -> str:
        n, high = self.images["whole"], self.high["whole"]
        if chosen[0] < 0 or chosen[1] > TOP_16:
            why = "the smallest and the largest value of the source"
        elif self.whites and self.white in self.whites:
            why = "as headers declare"
        else:
            why = f"the smallest usual depth that holds the source's largest value, {high:g} in {self.highest['whole']}"
        depth = (
            f"depth {_depth(chosen[1])} bits, " if chosen[0] == 0 and chosen[1] <= TOP_16 else ""
        )
        return f"{counted(n, 'image of more than 8 bits is', 'images of more than 8 bits are')} scaled from {_span(chosen)} ({depth}{why})"

    def _dark(self, chosen: Range) -> str | None:
        """A warning where most images would come out dark at the depth that the brightest needs."""
        if (
            chosen[0] != 0
            or chosen[1] > TOP_16
            or sum(self.whites.values()) == self.images["whole"]
        ):
            return None
        depth = _depth(chosen[1])
        dark = sum(n for bits, n in self.depths.items() if bits <= depth - 2)
        if not dark:
            return None
        each = ", ".join(f"{n:,} of {bits} bits" for bits, n in sorted(self.depths.items()))
        begin = "WARNING: " if 2 * dark > self.images["whole"] else ""
        return (
            f"{begin}by their own largest values the images have different depths ({each}), all are scaled from depth "
            f"{depth} so that they stay comparable; if the detector's depth is known, pack again with --depth"
        )


def to_grey_levels(values: npt.NDArray[Any], chosen: Range) -> npt.NDArray[np.uint8]:
    """Stored values of any shape -> 0..255, linearly, ``chosen`` becoming black and white; outside is clipped."""
    low, high = chosen
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    if values.dtype == np.uint16 and values.size > TOP_16:
        table = to_grey_levels(np.arange(TOP_16 + 1, dtype=np.int32), chosen)
        looked_up: npt.NDArray[np.uint8] = table[values]
        return looked_up
    # single precision holds 24 bits: enough for 16-bit values, not for large 32-bit ones
    exact: Any = (
        np.float32 if max(abs(low), abs(high)) < 1e6 and values.dtype.itemsize <= 4 else np.float64
    )
    scaled = (values.astype(exact) - exact(low)) * exact(255.0 / (high - low))
    levels: npt.NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return levels


def _depth(high: float) -> int:
    return next((bits for bits in DEPTHS if high < 1 << bits), 16)


def _span(chosen: Range) -> str:
    return f"{chosen[0]:g}..{chosen[1]:g}"
