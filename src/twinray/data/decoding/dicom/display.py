"""Stored values of a DICOM grey image -> what a reader sees on a calibrated display, as 8 bits.

The order is PS3.4 annex N: modality LUT or rescale, VOI LUT or window, presentation LUT (polarity).
Stored values have at most 16 bits, so the whole chain is worked out once for each of the at most
65,536 possible values and then looked up: exact, and no float image is ever made.

Choices where the standard leaves room:

* The VOI LUT is preferred to a window where a file has both, the first of several is taken.
* A LUT's output is scaled from its own smallest and largest entry to 0..255.
* A window of no width (LINEAR below 1, others 0 or less) is treated as absent, and ``how`` says so;
  LINEAR with a width between 0 and 1 is read as LINEAR_EXACT.
* Without any VOI: at most 8 bits stored are display values already (secondary captures), so their
  declared range becomes 0..255; deeper images are stretched between the 0.5th and the 99.5th
  percentile of the pixels that are not padding.
* Inverted exactly once: if Presentation LUT Shape is present it decides, otherwise MONOCHROME1 does.
* Pixel padding is left out of percentiles, and goes through the chain like any value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.dicom.header import numbers, text

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
_CHUNK = 1 << 20

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def display_pixels(stored: Array, header: Any) -> tuple[npt.NDArray[np.uint8], str]:
    """Display values of a grey image.

    Args:
        stored: (h, w) uint8, int8, uint16 or int16, the stored values.
        header: pydicom Dataset with the attributes of the image.

    Returns:
        (h, w) uint8 and the way taken (``dicom rescale, window 1 LINEAR, inverted``).

    Raises:
        ValueError: a LUT whose data do not fit its descriptor.
    """
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.itemsize}")
    # Every value that can be stored, in the order of its unsigned bit pattern.
    values = np.arange(1 << (8 * stored.itemsize), dtype=unsigned.dtype).view(stored.dtype)
    modality, ways = _modality(header, values.astype(np.float64))
    level, way = _value_of_interest(header, modality)
    if level is None:
        level, spread = _without_voi(header, values, modality, unsigned)
        way = f"{way}; {spread}" if way else spread
    ways.append(way)
    if _inverted(header):
        level = 1.0 - level
        ways.append("inverted")
    table = np.rint(level * 255.0).astype(np.uint8)
    return _look_up(table, unsigned), "dicom " + ", ".join(ways)


def _look_up(table: npt.NDArray[np.uint8], index: Array) -> npt.NDArray[np.uint8]:
    flat, out = index.reshape(-1), np.empty(index.size, dtype=np.uint8)
    # In chunks: numpy widens an index to 8 bytes a pixel.
    for start in range(0, flat.size, _CHUNK):
        out[start : start + _CHUNK] = table[flat[start : start + _CHUNK]]
    return out.reshape(index.shape)


def _modality(header: Any, values: Floats) -> tuple[Floats, list[str]]:
    items = header.get("ModalityLUTSequence")
    if items:
        first, entries = _lut(items[0], header)
        return entries[_lut_index(values, first, len(entries))], ["modality LUT"]
    slope = (numbers(header, "RescaleSlope") or [1.0])[0] or 1.0
    intercept = (numbers(header, "RescaleIntercept") or [0.0])[0]
    if (slope, intercept) == (1.0, 0.0):
        return values, []
    return values * slope + intercept, ["rescale"]


def _value_of_interest(header: Any, modality: Floats) -> tuple[Floats | None, str]:
    """0..1 for every modality value by the file's own VOI; None, and why, if it has none that can be used."""
    items = header.get("VOILUTSequence")
    if items:
        first, entries = _lut(items[0], header)
        return _unit(entries, entries.min(), entries.max())[_lut_index(modality, first, len(entries))], "VOI LUT 1"
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if not centers or not widths:
        return None, ""
    center, width = centers[0], widths[0]
    function = text(header, "VOILUTFunction").upper() or "LINEAR"
    if width <= 0:
        return None, "window without width ignored"
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (modality - center) / width, -700.0, 700.0))), "window 1 SIGMOID"
    if function == "LINEAR_EXACT" or width < 1:
        return _unit(modality, center - width / 2, center + width / 2), "window 1 LINEAR_EXACT"
    name = "window 1 LINEAR" if function == "LINEAR" else "window 1 LINEAR (unknown VOI LUT function)"
    # PS3.3 C.11.2.1.2.1: the window's ends are half a grey level inside; width 1 is a threshold.
    low, high = center - width / 2, center + width / 2 - 1
    if width == 1:
        return (modality > low).astype(np.float64), name
    return _unit(modality, low, high), name


def _without_voi(header: Any, values: Array, modality: Floats, unsigned: Array) -> tuple[Floats, str]:
    """0..1 for every modality value where the file gives no VOI; see the top of the module."""
    bits = int(header.BitsStored)
    if bits <= 8:
        signed = bool(int(header.get("PixelRepresentation") or 0))
        declared = (values >= (-(1 << (bits - 1)) if signed else 0)) & (values < 1 << (bits - signed))
        span = modality[declared]
        return _unit(modality, span.min(), span.max()), f"no VOI: {bits}-bit range"
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
    low, high = (modality[order[np.searchsorted(share, p)]] for p in (LOW_PERCENTILE, HIGH_PERCENTILE))
    if high <= low:
        low, high = modality[order[0]], modality[order[-1]]
    return _unit(modality, low, high), way


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
    return shape == "INVERSE" if shape else text(header, "PhotometricInterpretation").upper() == "MONOCHROME1"


def _unit(values: Floats, low: float, high: float) -> Floats:
    if not high > low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _lut_index(values: Floats, first: int, count: int) -> npt.NDArray[np.intp]:
    index: npt.NDArray[np.intp] = np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)
    return index


def _lut(item: Any, header: Any) -> tuple[int, Floats]:
    """First mapped value and entries of a LUT item (PS3.3 C.11.1.1)."""
    descriptor = [int(value) for value in item.LUTDescriptor]
    if len(descriptor) != 3:
        raise ValueError(f"a LUT descriptor needs 3 values, got {len(descriptor)}")
    count, first, bits = descriptor[0] or 65_536, descriptor[1], descriptor[2]
    if not (0 < count <= 65_536 and 8 <= bits <= 16):
        raise ValueError(f"a LUT of {count} entries of {bits} bits")
    if first > 32_767 and int(header.get("PixelRepresentation") or 0):
        first -= 65_536  # written as unsigned although stored values are signed
    data = item.LUTData
    if isinstance(data, (bytes, bytearray)):
        order = "<" if getattr(header, "_read_little", True) else ">"
        wide = len(data) >= 2 * count
        entries = np.frombuffer(data[: 2 * (len(data) // 2)] if wide else data, dtype=f"{order}u2" if wide else "u1")
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.float64))
        if bits == 8 and len(entries) == (count + 1) // 2 < count:
            entries = entries.astype("<u2").view("u1")  # two 8-bit entries in each word
    if len(entries) < count:
        raise ValueError(f"a LUT of {count} entries holds {len(entries)}")
    return first, entries[:count].astype(np.float64)
