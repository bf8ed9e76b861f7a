"""Stored values of a DICOM grey image -> what a reader sees on a calibrated display, as 8 bits.

The order is PS3.4 annex N: modality LUT or rescale, VOI LUT or window, presentation LUT (polarity).
Stored values have at most 16 bits, so the whole chain is worked out once for each of the at most
65,536 possible values and then looked up: exact, and no float image is ever made.

Choices where the standard leaves room:

- The VOI LUT is preferred to a window where a file has both. The first of several is taken.
- A LUT without data is ignored where a window or another LUT is left, and ``how`` says so. A LUT
  that lacks at most 1 % of its entries goes on with the last (PS3.3 C.11.2.1.1 repeats it for
  values beyond). Words are never read as bytes.
- A window in brackets or with a decimal comma is read. A window that is no number is ignored.
  ``how`` says so in either case. A slope or intercept that is no number is refused.
- A LUT's output is scaled from its own smallest and largest entry to 0..255.
- A window of no width (LINEAR below 1, others 0 or less) is treated as absent, and ``how`` says so.
  LINEAR with a width between 0 and 1 is read as LINEAR_EXACT.
- Without any VOI, images of at most 8 bits stored are display values already (secondary captures).
  Their declared range becomes 0..255. Deeper images are stretched between the 0.5th and the 99.5th
  percentile of the pixels that are not padding.
- Inverted exactly once: if Presentation LUT Shape is present it decides, otherwise MONOCHROME1 does.
- Pixel padding is left out of percentiles, and goes through the chain like any value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.dicom.header import numbers, read_numbers, text
from twinray.records import Linear

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
_CHUNK = 1 << 20

_LEAST_SHARE_OF_LUT = 0.99
"""Share of a LUT's entries that must be there; what lacks is its last entry again."""

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class DisplayError(ValueError):
    """A transform of the header that must not be guessed; the message names its attribute."""


def display_pixels(stored: Array, header: Any) -> tuple[npt.NDArray[np.uint8], str, list[str]]:
    """Display values of a grey image.

    Args:
        stored: (h, w) uint8, int8, uint16 or int16, the stored values.
        header: pydicom Dataset with the attributes of the image.

    Returns:
        (h, w) uint8, the way taken (``dicom rescale, window 1 LINEAR, inverted``), and what of the header could not be
        used as it stands.

    Raises:
        DisplayError: a modality transform that is no number, a LUT that is damaged and nothing beside it.
    """
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.itemsize}")
    # Every value that can be stored, in the order of its unsigned bit pattern.
    values = np.arange(1 << (8 * stored.itemsize), dtype=unsigned.dtype).view(stored.dtype)
    rule = _rule(header, values, unsigned)
    level = rule.voi.level(rule.modality)
    table = np.rint((1.0 - level if rule.inverted else level) * 255.0).astype(np.uint8)
    return _look_up(table, unsigned), f"dicom {rule.how}", rule.unread


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A window on modality values.

    Attributes:
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
        centre, width: as PS3.3 C.11.2.1.2 has them.
        low, high: modality values that become black and white; of no use to ``SIGMOID``.
    """

    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
    centre: float
    width: float
    low: float
    high: float

    def level(self, modality: Floats) -> Floats:
        """0..1 for modality values of any shape."""
        if self.function == "SIGMOID":
            return 1.0 / (
                1.0 + np.exp(np.clip(-4.0 * (modality - self.centre) / self.width, -700.0, 700.0))
            )
        if self.function == "LINEAR" and self.width == 1:
            return (modality > self.low).astype(np.float64)
        return _unit(modality, self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class DisplayRule:
    """The way from stored values to what is seen, in its parts.

    Attributes:
        values: every value that can be stored, in the order of its unsigned bit pattern.
        modality: modality value of each.
        slope, intercept: modality value = slope x stored value + intercept; None under a modality LUT.
        voi: window, or LUT, on modality values.
        inverted: flag, true where black and white change places after it.
        padding: for each of ``values`` whether it is padding.
        how: the way, in words. unread: what of the header could not be used as it stands.
    """

    values: Array
    modality: Floats
    slope: float | None
    intercept: float | None
    voi: Window | Lut
    inverted: bool
    padding: npt.NDArray[np.bool_]
    how: str
    unread: list[str]


def display_rule(stored: Array, header: Any) -> DisplayRule:
    """How :func:`display_pixels` shows an image, for a viewer that lets the window be changed.

    Raises:
        DisplayError: as :func:`display_pixels`.
    """
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.itemsize}")
    values = np.arange(1 << (8 * stored.itemsize), dtype=unsigned.dtype).view(stored.dtype)
    return _rule(header, values, unsigned)


def linear_pixels(
    stored: Array, header: Any
) -> tuple[npt.NDArray[np.uint16], Linear, str, list[str], str]:
    """Linear values of a grey image: the modality transform's, brighter larger, the VOI kept as a window beside them.

    The pixel is the stored value, less the smallest that Bits Stored can hold; from the other end where black and white
    change places. No two stored values fall together. Of at most 8 bits each is multiplied by 257, as in 8-bit files. Under
    a modality LUT it is the LUT's output.

    Args:
        stored: (h, w) uint8, int8, uint16 or int16, without bits above Bits Stored.
        header: pydicom Dataset with the attributes of the image.

    Returns:
        (h, w) uint16; their meaning, the unit being that after the modality transform; the way taken; what of the header
        could not be used; and the VOI's curve where it is no window, of which the range is kept, else nothing.

    Raises:
        DisplayError: as :func:`display_pixels`.
    """
    rule = display_rule(stored, header)
    low, high, falls, curve = _range_of(rule.voi)
    if rule.slope is None or rule.intercept is None:
        whole = np.rint(rule.modality).clip(0, 65_535).astype(np.int64)
        slope, intercept, base = 1.0, 0.0, 0
        top = 255 if int(whole.max()) <= 255 else 65_535
    else:
        bits = int(numbers(header, "BitsStored")[0])
        base = -(1 << (bits - 1)) if stored.dtype.kind == "i" else 0
        whole, top = rule.values.astype(np.int64) - base, (1 << bits) - 1
        slope, intercept = rule.slope, rule.intercept
    factor = 257 if top <= 255 else 1
    # black and white change places, the VOI LUT falls, or larger stored values mean smaller ones: twice is not at all
    turned = rule.inverted ^ falls ^ (slope < 0)
    table = factor * (top - whole if turned else whole)
    # pixel = a x modality + b
    a, b = factor / slope, -factor * (intercept / slope + base)
    if turned:
        a, b = -a, factor * top - b
    ends = sorted((a * low + b, a * high + b))
    if isinstance(rule.voi, Window) and rule.voi.function == "LINEAR" and rule.voi.width == 1:
        ends = [float(np.floor(ends[0])), float(np.floor(ends[0])) + 1.0]  # a threshold
    meaning = Linear(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1.0, 1 / a, -b / a)
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.itemsize}")
    # what Bits Stored cannot hold does not occur; the table has a place for it all the same
    pixels = table.clip(0, 65_535).astype(np.uint16)[unsigned]
    return pixels, meaning, f"dicom linear, {rule.how}", rule.unread, curve


def _range_of(voi: Window | Lut) -> tuple[float, float, bool, str]:
    """Modality values between which a VOI rises or falls, whether it falls, and what it is where it is no straight line."""
    if isinstance(voi, Window):
        # the tangent of a sigmoid at its centre reaches black and white at the window's ends
        return voi.low, voi.high, False, "SIGMOID" if voi.function == "SIGMOID" else ""
    entries = voi.entries
    falls = bool(entries[0] > entries[-1])
    rising = entries[::-1] if falls else entries
    at_black = int(np.flatnonzero(rising > rising[0])[0]) - 1 if (rising > rising[0]).any() else 0
    at_white = int(np.argmax(rising)) if (rising > rising[0]).any() else len(rising) - 1
    ends = sorted(abs((len(rising) - 1) * falls - at) for at in (at_black, at_white))
    straight = np.interp(np.arange(len(rising)), (at_black, at_white), (rising[0], rising.max()))
    curved = bool(np.abs(straight - rising).max() > 0.01 * max(float(np.ptp(rising)), 1.0))
    return voi.first + ends[0], voi.first + ends[1], falls, "VOI LUT" if curved else ""


def _rule(header: Any, values: Array, unsigned: Array) -> DisplayRule:
    unread: list[str] = []
    modality, affine, ways = _modality(header, values.astype(np.float64), unread)
    voi, way = _value_of_interest(header, unread)
    if voi is None:
        voi, spread = _without_voi(header, values, modality, unsigned)
        way = f"{way}; {spread}" if way else spread
    ways.append(way)
    inverted = _inverted(header)
    if inverted:
        ways.append("inverted")
    slope, intercept = affine or (None, None)
    how = ", ".join([*ways, *unread])
    padding = _padding(header, values)
    return DisplayRule(values, modality, slope, intercept, voi, inverted, padding, how, unread)


def _look_up(table: npt.NDArray[np.uint8], index: Array) -> npt.NDArray[np.uint8]:
    flat, out = index.reshape(-1), np.empty(index.size, dtype=np.uint8)
    # In chunks: numpy widens an index to 8 bytes a pixel.
    for start in range(0, flat.size, _CHUNK):
        out[start : start + _CHUNK] = table[flat[start : start + _CHUNK]]
    return out.reshape(index.shape)


def _modality(
    header: Any, values: Floats, unread: list[str]
) -> tuple[Floats, tuple[float, float] | None, list[str]]:
    """Modality value of every stored value, slope and intercept where that is all, and the way in words."""
    for item in header.get("ModalityLUTSequence") or ():
        found = _lut(item, header)
        if isinstance(found, Lut):
            first, entries = found.first, found.entries
            looked_up = entries[_lut_index(values, first, len(entries))]
            return looked_up, None, [f"modality LUT{found.remark}"]
        if found != _NO_LUT:
            raise DisplayError(f"its Modality LUT Sequence (0028,3000) cannot be used: {found}")
        unread.append("empty modality LUT ignored")
    factors = []
    for keyword, name, default in (
        ("RescaleSlope", "Rescale Slope (0028,1053)", 1.0),
        ("RescaleIntercept", "Rescale Intercept (0028,1052)", 0.0),
    ):
        found_numbers, odd = read_numbers(header, keyword)
        if odd:
            raise DisplayError(f"its {name} is {odd[:40]!r}, which is no number")
        factors.append((found_numbers or [default])[0])
    slope, intercept = factors[0] or 1.0, factors[1]
    if (slope, intercept) == (1.0, 0.0):
        return values, (slope, intercept), []
    return values * slope + intercept, (slope, intercept), ["rescale"]


def _value_of_interest(header: Any, unread: list[str]) -> tuple[Window | Lut | None, str]:
    """The file's own VOI; None, and why, if it has none that can be used."""
    damaged = ""
    for number, item in enumerate(header.get("VOILUTSequence") or (), start=1):
        found = _lut(item, header)
        if isinstance(found, Lut):
            return found, f"VOI LUT {number}{found.remark}"
        unread.append(f"VOI LUT {number} ignored ({found})")
        damaged = damaged or (found if found != _NO_LUT else "")
    (centers, odd_center), (widths, odd_width) = (
        read_numbers(header, k) for k in ("WindowCenter", "WindowWidth")
    )
    odd = " ".join(
        f"{name} {value[:40]!r}"
        for name, value in (("center", odd_center), ("width", odd_width))
        if value
    )
    if damaged and not (centers and widths and widths[0] > 0):
        raise DisplayError(
            f"its VOI LUT Sequence (0028,3010) cannot be used and there is no window: {damaged}"
        )
    if not centers or not widths:
        if odd:
            unread.append(f"window ignored ({odd} is no number)")
        return None, ""
    center, width = centers[0], widths[0]
    if odd:
        unread.append(f"window {odd} read as {center:g} {width:g}")
    function = text(header, "VOILUTFunction").upper() or "LINEAR"
    if width <= 0:
        return None, "window without width ignored"
    low, high = center - width / 2, center + width / 2
    if function == "SIGMOID":
        return Window("SIGMOID", center, width, low, high), "window 1 SIGMOID"
    if function == "LINEAR_EXACT" or width < 1:
        return Window("LINEAR_EXACT", center, width, low, high), "window 1 LINEAR_EXACT"
    name = (
        "window 1 LINEAR" if function == "LINEAR" else "window 1 LINEAR (unknown VOI LUT function)"
    )
    # PS3.3 C.11.2.1.2.1: the window's ends are half a grey level inside; width 1 is a threshold.
    return Window("LINEAR", center, width, low, high - 1), name


def _without_voi(
    header: Any, values: Array, modality: Floats, unsigned: Array
) -> tuple[Window, str]:
    """A window where the file gives no VOI; see the top of the module."""
    bits = int(numbers(header, "BitsStored")[0])
    if bits <= 8:
        signed = numbers(header, "PixelRepresentation")[0] == 1
        declared = (values >= (-(1 << (bits - 1)) if signed else 0)) & (
            values < 1 << (bits - signed)
        )
        span = modality[declared]
        kind = "signed range" if signed else "range"
        return _window_between(span.min(), span.max()), f"no VOI: {bits}-bit {kind}"
    counts = np.zeros(len(values), dtype=np.int64)
    flat = unsigned.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        counts += np.bincount(flat[start : start + _CHUNK], minlength=len(values))
    padded = _padding(header, values)
    way = f"no VOI: percentiles {LOW_PERCENTILE} to {HIGH_PERCENTILE}"
    if padded.any() and counts[~padded].any():
        counts[padded] = 0
        way += " without padding"
    order = np.argsort(modality, kind="stable")
    order = order[counts[order] > 0]
    share = 100.0 * np.cumsum(counts[order]) / counts.sum()
    low, high = (
        modality[order[np.searchsorted(share, p)]] for p in (LOW_PERCENTILE, HIGH_PERCENTILE)
    )
    if high <= low:
        low, high = modality[order[0]], modality[order[-1]]
    return _window_between(low, high), way


def _window_between(low: float, high: float) -> Window:
    low, high = float(low), float(high)
    return Window("LINEAR_EXACT", (low + high) / 2, high - low, low, high)


def _padding(header: Any, values: Array) -> npt.NDArray[np.bool_]:
    """Which stored values are padding: Pixel Padding Value up to Pixel Padding Range Limit."""
    ends = [
        # Wrapped to the stored type: writers disagree on whether the attribute is signed.
        np.array(int(found[0]) & 0xFFFF, dtype=np.uint16).astype(values.dtype)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if (found := numbers(header, keyword))
    ]
    if not ends or not numbers(header, "PixelPaddingValue"):
        return np.zeros(len(values), dtype=np.bool_)
    return (values >= min(ends)) & (values <= max(ends))


def _inverted(header: Any) -> bool:
    shape = text(header, "PresentationLUTShape").upper()
    return (
        shape == "INVERSE"
        if shape
        else text(header, "PhotometricInterpretation").upper() == "MONOCHROME1"
    )


def _unit(values: Floats, low: float, high: float) -> Floats:
    if not high > low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _lut_index(values: Floats, first: int, count: int) -> npt.NDArray[np.intp]:
    index: npt.NDArray[np.intp] = np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)
    return index


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A LUT item.

    Attributes:
        first: the value that its first entry stands for.
        entries: (n,) what it maps to.
        remark: begins with a space where entries are missing at its end.
    """

    first: int
    entries: Floats
    remark: str = ""

    def level(self, modality: Floats) -> Floats:
        """0..1 for modality values of any shape."""
        level = _unit(self.entries, self.entries.min(), self.entries.max())
        return level[_lut_index(modality, self.first, len(self.entries))]


_NO_LUT = "no data"


def _lut(item: Any, header: Any) -> Lut | str:
    """A LUT item (PS3.3 C.11.1.1), or why it cannot be used."""
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    empty = data is None or (hasattr(data, "__len__") and len(data) == 0)
    if empty:
        return _NO_LUT
    try:
        parts = [int(value) for value in descriptor]
    except (TypeError, ValueError):
        parts = []
    if len(parts) != 3:
        return f"its descriptor has {len(parts)} values, expected 3"
    count, first, bits = parts[0] or 65_536, parts[1], parts[2]
    if not (0 < count <= 65_536 and 8 <= bits <= 16):
        return f"a LUT of {count} entries of {bits} bits"
    if first > 32_767 and numbers(header, "PixelRepresentation")[:1] == [1]:
        first -= 65_536  # written as unsigned although stored values are signed
    entries = _entries(data, count, bits, "<" if getattr(header, "_read_little", True) else ">")
    if len(entries) < _LEAST_SHARE_OF_LUT * count:
        return f"a LUT of {count} entries has {len(entries)}"
    remark = ""
    if len(entries) < count:
        remark = f" ({len(entries)} of {count} entries, the last repeated)"
        entries = np.append(entries, np.full(count - len(entries), entries[-1]))
    return Lut(first, entries[:count].astype(np.float64), remark)


def _entries(data: Any, count: int, bits: int, order: str) -> Array:
    """The entries that a LUT's data hold: a word each, or where the descriptor says 8 bits a byte each."""
    if isinstance(data, (bytes, bytearray)):
        # at most one byte of padding makes an odd number of bytes even; more can only be words, some of them missing
        wide = bits > 8 or len(data) > count + 1
        return np.frombuffer(
            data[: 2 * (len(data) // 2)] if wide else data, dtype=f"{order}u2" if wide else "u1"
        )
    entries = np.atleast_1d(np.asarray(data, dtype=np.float64))
    if bits == 8 and len(entries) == (count + 1) // 2 < count:
        entries = entries.astype("<u2").view("u1")  # two 8-bit entries in each word
    return entries
