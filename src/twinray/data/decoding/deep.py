"""Stored values of files with more than 8 bits a channel, as they are: nothing cut, shifted or wrapped.

Pillow opens them all, but changes values. It keeps the upper 8 bits of colour, so a 12-bit picture
in a 16-bit RGB file comes out black. It reads unsigned 32-bit TIFFs as signed ones, shifts JPEG
2000 and stretches PGM to 16 bits. Colour of 9 to 15 bits in JPEG 2000 it rounds, so that white turns black. What it
can be made to give is taken from it; PGM and PPM of more than 8 bits are read here, deep colour and deep grey with
alpha in JPEG 2000 by pylibjpeg-openjpeg (the ``[dicom]`` extra). Planes of a TIFF that are stored one after the other
are read as grey pictures, one by one.

PNG's sBIT chunk says how many bits of a sample mean something. Writers disagree on where these are: scaled up to 16
bits, as the standard has it (PNG 12.4), or as they came. The values show which; where they do, the white is known.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

_BITS, _FORMAT, _COMPRESSION, _PLANES, _CHANNELS = 258, 339, 259, 284, 277
_PHOTOMETRIC, _EXTRA = 262, 338
_OF_PLANES = {"strips": (273, 279), "tiles": (324, 325)}
"""Tags of TIFF that hold one number for each strip or tile of each plane: where it begins, how long it is."""
_UNKNOWN, _ON_BLACK, _ALPHA = 0, 1, 2
"""Values of TIFF's ExtraSamples: data of no stated meaning, alpha by which the colours are multiplied already, alpha."""
_UNSIGNED, _SIGNED = 1, 2
_NUMBERS = {
    1: "whole numbers",
    2: "signed whole numbers",
    3: "floating point",
    5: "complex",
    6: "complex",
}
"""TIFF's SampleFormat in words."""

# Pillow does not open 16-bit grey with a second channel. It needs a mode to open one; the raw mode is one that it cannot
# decode, so that no other user of Pillow gets bytes in a wrong order. `_both` puts the right one in its place.
# Of 16-bit grey where white is 0 it opens one byte order only.
TiffImagePlugin.OPEN_INFO.setdefault(
    (TiffImagePlugin.MM, 0, (1,), 1, (16,), ()), ("I;16B", "I;16B")
)
for _order in (TiffImagePlugin.II, TiffImagePlugin.MM):
    for _white in (0, 1):
        for _second in ((), (0,), (1,), (2,)):
            TiffImagePlugin.OPEN_INFO.setdefault(
                (_order, _white, (1,), 1, (16, 16), _second), ("LA", "LA;16 of twinray")
            )


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Stored values of more than 8 bits.

    Attributes:
        values: (h, w) or (h, w, 3); uint16, int8, int16, int32, uint32 or float32.
        name: name of what they are (``16-bit grey``).
        alpha: (h, w) uint16, or None; None also where the values lie on black already.
        white: the value that the header declares to be white, or None.
        opaque: the alpha that hides what lies behind, where the header declares it, or None.
    """

    values: npt.NDArray[Any]
    name: str
    alpha: npt.NDArray[np.uint16] | None = None
    white: float | None = None
    opaque: float | None = None


class UnreadableDepthError(ValueError):
    """A layout whose lower bits cannot be had."""


def deep_values(image: Any, data: bytes, kind: str) -> Stored | None:
    """The stored values of an opened image if it has more than 8 bits a channel or signed ones; None otherwise.

    Args:
        image: opened by Pillow from ``data``, not loaded.
        data: the whole file.
        kind: kind as :func:`twinray.data.decoding.images.file_kind` gives it.

    Raises:
        UnreadableDepthError: a layout whose lower bits cannot be read.
        ValueError, OSError, ...: the file is damaged.
    """
    if kind == "pnm":
        return _pnm(data)
    if kind == "png" and data[24] == 16:
        return _png(image, data)
    if kind == "tiff":
        return _tiff(image, data)
    if kind == "jpeg2000":
        return _jpeg2000(image, data)
    return None


def is_deep(image: Any, data: bytes, kind: str) -> bool:
    """Whether :func:`deep_values` has something to give, told from the header alone."""
    if kind == "pnm":
        return _pnm_header(data) is not None
    if kind == "png":
        return data[24] == 16
    if kind == "tiff":
        return _tiff_is_deep(image)
    return kind == "jpeg2000" and _precision(data)[0] > 8


def _png(image: Any, data: bytes) -> Stored:
    colour = data[25]
    if colour == 0:
        image.load()
        values = _sixteen(image)
        if "transparency" in image.info:
            values = np.where(values == image.info["transparency"], np.uint16(0), values)
        return Stored(values, "16-bit grey", white=_png_white(data, values))
    if colour == 4:  # four bytes a pixel: grey and alpha, high byte first
        raw = _raw(image, "RGBA", "RGBA").astype(np.uint16)
        grey, alpha = (raw[..., k] * np.uint16(256) + raw[..., k + 1] for k in (0, 2))
        return Stored(grey, "16-bit grey and alpha", alpha)
    mode = "RGBA" if colour == 6 else "RGB"
    values = _both_bytes(image, data, mode, f"{mode};16B", f"{mode};16L")
    return Stored(
        values[..., :3],
        f"16-bit {mode.lower()}",
        values[..., 3] if colour == 6 else None,
        _png_white(data, values[..., :3]),
    )


def _png_white(data: bytes, values: npt.NDArray[Any]) -> float | None:
    """The white of a 16-bit PNG that says how many bits mean something; None where it or its values do not tell."""
    bits = _significant_bits(data)
    if not 8 < bits < 16 or not values.any():
        return None
    spare = 16 - bits
    top = values >> spare
    repeated = (top << spare) | (top >> (bits - spare) if bits >= spare else top)
    if not (values & ((1 << spare) - 1)).any():
        return float(((1 << bits) - 1) << spare)  # low bits left at zero
    if (values == repeated).all():
        return 65_535.0
    return float((1 << bits) - 1) if int(values.max()) < 1 << bits else None


def _significant_bits(data: bytes) -> int:
    """The largest number in a PNG's sBIT chunk, of its colours; 0 where there is none before the pixels."""
    at = 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"sBIT" and 1 <= length <= 4:
            numbers = data[at + 8 : at + 8 + length]
            return max(numbers if length in (1, 3) else numbers[:-1])
        if kind == b"IDAT":
            return 0
        at += 12 + length
    return 0


def _tiff_is_deep(image: Any) -> bool:
    bits, signed = _of_tags(image)
    return (
        image.mode.startswith("I")
        or image.mode == "F"
        or bits > 8
        or (signed and image.mode == "L")
    )


def _tiff(image: Any, data: bytes) -> Stored | None:
    if not _tiff_is_deep(image):
        return None
    bits, signed = _of_tags(image)
    mode, grey = image.mode, image.mode in ("LA", "I;16", "I;16B")
    apart = image.tag_v2.get(_PLANES, 1) == 2 and int(image.tag_v2.get(_CHANNELS, 1)) > 1
    whole = bits == 16 and not signed
    if whole and ((grey and apart) or mode in ("RGB", "RGBA", "LA")):
        if apart:
            values = _planes(image, data)
        else:
            values = _both(image) if mode == "LA" else _tiff_colour(image, data, mode)
        return _with_alpha(values, 1 if grey else 3, _several(image.tag_v2.get(_EXTRA, ())))
    if apart:  # Pillow would take the bytes of a plane in the machine's order
        raise UnreadableDepthError(
            f"{bits} bits a channel in separate planes cannot be read without loss"
        )
    if mode == "F":
        image.load()
        return Stored(np.asarray(image), "float grey")
    if mode.startswith("I;16") or mode == "I":
        image.load()
        values = _sixteen(image) if mode != "I" else np.asarray(image)
        if mode == "I" and bits == 32 and not signed:
            values = values.view(np.uint32)
        white = float((1 << bits) - 1) if 8 < bits < 16 and not signed else None
        return Stored(values, f"{'signed ' if signed else ''}{bits}-bit grey", white=white)
    if mode == "L":
        image.load()
        return Stored(np.asarray(image).view(np.int8), "signed 8-bit grey")
    raise UnreadableDepthError(f"{bits} bits a channel of {mode} cannot be read without loss")


def _with_alpha(values: npt.NDArray[np.uint16], colours: int, extra: tuple[int, ...]) -> Stored:
    """Grey or colour, and what stands behind it, by TIFF's ExtraSamples (TIFF 6.0, section 18).

    Args:
        values: (h, w, channels).
        colours: channels of colour, 1 or 3.
        extra: ExtraSamples; empty where the tag is missing.
    """
    name = "grey" if colours == 1 else "rgb"
    shown = np.ascontiguousarray(values[..., 0] if colours == 1 else values[..., :3])
    further = values.shape[2] - colours
    if not further:
        return Stored(shown, f"16-bit {name}")
    # four channels without the tag are RGBA to every reader; two may be two channels of a microscope
    meaning = extra[0] if extra else (_UNKNOWN if colours == 1 else _ALPHA)
    if meaning == _UNKNOWN:
        return Stored(shown, f"16-bit {name} beside channels left out")
    alpha = None if meaning == _ON_BLACK else values[..., colours]
    return Stored(shown, "16-bit grey and alpha" if colours == 1 else "16-bit rgba", alpha)


def channels_left_out(tags: Any) -> int:
    """How many channels of a TIFF file have no stated meaning, so that they are left out.

    Args:
        tags: tag number -> value, as Pillow's ``tag_v2`` has them.
    """
    extra = _several(tags.get(_EXTRA, ()))
    grey = int(tags.get(_PHOTOMETRIC, 0)) in (0, 1)
    if not extra and grey:
        return int(tags.get(_CHANNELS, 1)) - 1
    return sum(one == _UNKNOWN for one in extra)


def _several(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _both(image: Any) -> npt.NDArray[np.uint16]:
    """(h, w, 2) from 16-bit grey with a second channel: four bytes a pixel, as of RGBA, whose order is then known."""
    native = any(tile.codec_name == "libtiff" for tile in image.tile)  # libtiff turns bytes round
    order = "=" if native else ("<" if image.tag_v2.prefix == TiffImagePlugin.II else ">")
    raw = np.ascontiguousarray(_raw(image, "RGBA", "RGBA"))
    return raw.view(f"{order}u2").astype(np.uint16)


def _planes(image: Any, data: bytes) -> npt.NDArray[np.uint16]:
    """(h, w, channels) from a TIFF whose channels are stored one after the other.

    libtiff would give upper bytes alone. Each plane has strips of its own, so a directory that names these alone makes a
    grey picture of it.
    """
    tags = image.tag_v2
    offsets, counts = next(
        (pair for pair in _OF_PLANES.values() if pair[0] in tags), _OF_PLANES["strips"]
    )
    channels = int(tags.get(_CHANNELS, 1))
    pieces = len(_several(tags[offsets])) // channels
    kept = (256, 257, 259, 266, 278, 317, 322, 323)  # size, compression, how it is cut, predictor
    shared = {tag: _several(tags[tag]) for tag in kept if tag in tags}
    shared |= {_PHOTOMETRIC: (1,), _BITS: (16,), _CHANNELS: (1,)}
    planes = []
    for channel in range(channels):
        mine = slice(channel * pieces, (channel + 1) * pieces)
        of_plane = {tag: _several(tags[tag])[mine] for tag in (offsets, counts) if tag in tags}
        plain = _with_directory(data, tags.prefix, shared | of_plane)
        with Image.open(io.BytesIO(plain), formats=("TIFF",)) as grey:
            grey.load()
            planes.append(_sixteen(grey))
    return np.stack(planes, -1)


def _with_directory(data: bytes, prefix: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """A TIFF file with another directory of 32-bit numbers, behind what it holds (TIFF 6.0, section 2)."""
    order = "<" if prefix == TiffImagePlugin.II else ">"
    start = len(data) + len(data) % 2
    entries, further = struct.pack(f"{order}H", len(tags)), b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            where = struct.pack(f"{order}I", behind + len(further))
            packed, further = where, further + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = prefix + struct.pack(f"{order}HI", 42, start)
    return head + data[8:].ljust(start - 8, b"\0") + entries + bytes(4) + further


def tiff_layout(data: bytes) -> str:
    """What the first picture of a TIFF file is made of, in words; empty where its tags cannot be read.

    Args:
        data: the file, or its beginning.
    """
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8] if data[2] in b"*\0" else data[:16])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        if not {256, 257, _BITS} <= set(tags):
            return ""  # no picture, or what a damaged file begins with
        bits, form = tags.get(_BITS, (1,)), tags.get(_FORMAT, (_UNSIGNED,))
        numbers = _NUMBERS.get(form[0] if isinstance(form, tuple) else int(form), "")
        channels, each = int(tags.get(_CHANNELS, 1)), "/".join(str(b) for b in dict.fromkeys(bits))
    except (
        Exception
    ):  # damaged tags say nothing; Pillow raises OSError, SyntaxError, struct.error, KeyError, ...
        return ""
    planes = " in separate planes" if channels > 1 and tags.get(_PLANES, 1) == 2 else ""
    return (
        f"{channels} channel{'s' * (channels > 1)} of {each}-bit {numbers}{planes}"
        if numbers
        else ""
    )


def _of_tags(image: Any) -> tuple[int, bool]:
    """Bits a channel of a TIFF file, and whether they are signed integers."""
    bits, form = image.tag_v2.get(_BITS, (1,)), image.tag_v2.get(_FORMAT, (_UNSIGNED,))
    most = max(bits) if isinstance(bits, tuple) else int(bits)
    return most, (form if isinstance(form, int) else form[0]) == _SIGNED


def _tiff_colour(image: Any, data: bytes, mode: str) -> npt.NDArray[np.uint16]:
    rawmode = image.tile[0].args[0] if isinstance(image.tile[0].args, tuple) else image.tile[0].args
    if len({_rawmode(tile) for tile in image.tile}) != 1 or not re.fullmatch(
        r"RGB[AaX]?;16[BLN]", str(rawmode)
    ):
        raise UnreadableDepthError(
            f"16 bits a channel in the layout {rawmode} cannot be read without loss"
        )
    order = str(rawmode)[-1]
    native = "L" if np.little_endian else "B"
    stored = native if order == "N" else order
    other = "B" if stored == "L" else "L"
    base = str(rawmode)[:-1].replace("a", "A")  # as stored, not divided by alpha
    return _both_bytes(image, data, mode, base + stored, base + other)


def _rawmode(tile: Any) -> Any:
    return tile.args[0] if isinstance(tile.args, tuple) else tile.args


def _both_bytes(image: Any, data: bytes, mode: str, high: str, low: str) -> npt.NDArray[np.uint16]:
    """16-bit channels from an image decoded twice: once for the upper byte of each value, once for the lower."""
    upper = _raw(image, mode, high)
    with Image.open(io.BytesIO(data), formats=(image.format,)) as again:
        as_stored(again)
        lower = _raw(again, mode, low)
    return upper.astype(np.uint16) * np.uint16(256) + lower


def _raw(image: Any, mode: str, rawmode: str) -> npt.NDArray[np.uint8]:
    """Decode with another raw mode than the plugin chose: which bytes of a pixel are taken, in which order."""
    tiles = []
    for tile in image.tile:
        args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        tiles.append(tile._replace(args=args))
    image.tile = tiles
    image._mode = mode
    image.load()
    return np.asarray(image)


def as_stored(image: Any) -> int:
    """The orientation that an opened image asks for (1 to 8); a TIFF will no longer be turned while it is loaded."""
    if image.format != "TIFF":
        return 1
    exif = image.getexif()
    asked = _orientation(exif.get(274, 1))
    exif[274] = 1
    # Pillow has swapped width and height already, and turns the pixels after decoding
    image._size = image._tile_size
    return asked


def asked_orientation(image: Any) -> int:
    """The orientation that a loaded image asks for, 1 to 8; 1 where it asks for none or its EXIF data are damaged."""
    try:
        return _orientation(image.getexif().get(274, 1))
    except Exception:  # damaged EXIF data say nothing about the pixels
        return 1


def _orientation(value: Any) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _sixteen(image: Any) -> npt.NDArray[np.uint16]:
    return np.asarray(image).astype(np.uint16, copy=False)


def _precision(data: bytes) -> tuple[int, bool, int]:
    """(bits, signed, components) of a JPEG 2000 codestream; (0, False, 0) where it has no size header."""
    start = _size_header(data)
    if start < 0:
        return 0, False, 0
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    return (data[start + 42] & 0x7F) + 1, bool(data[start + 42] & 0x80), components


def _size_header(data: bytes) -> int:
    start = data.find(b"\xff\x4f\xff\x51")
    return start if start + 43 <= len(data) else -1


def _jpeg2000(image: Any, data: bytes) -> Stored | None:
    bits, _, components = _precision(data)
    if bits <= 8:
        return None
    white = float((1 << bits) - 1) if bits < 16 else None
    if image.mode.startswith("I;16") and bits <= 16:
        image.load()
        # Pillow shifts what has fewer bits to 16, and signed values to 0
        values = _sixteen(image) >> (16 - bits)
        return Stored(values, f"{bits}-bit grey", white=white)
    if bits <= 16 and components in (2, 3, 4):
        several = _openjpeg(data, bits, components)
        if components == 3:
            return Stored(several, f"{bits}-bit rgb", white=white)
        colours, name = (1, "grey and alpha") if components == 2 else (3, "rgba")
        shown = np.ascontiguousarray(several[..., 0] if colours == 1 else several[..., :3])
        if _alpha_of_jp2(data, colours) == _MULTIPLIED:
            return Stored(shown, f"{bits}-bit {name}", white=white)
        # each component has a precision of its own (ISO/IEC 15444-1, A.5.1)
        own = (data[_size_header(data) + 42 + 3 * colours] & 0x7F) + 1
        opaque = float((1 << own) - 1)
        return Stored(shown, f"{bits}-bit {name}", several[..., colours], white, opaque)
    raise UnreadableDepthError(
        f"{bits} bits a channel of {components} channels cannot be read without loss"
    )


_OPACITY, _MULTIPLIED = 1, 2
"""Types of a channel in JP2's channel definitions: alpha, and alpha by which the colours are multiplied already."""


def _alpha_of_jp2(data: bytes, channel: int) -> int:
    """What the last channel means by the channel definitions of a JP2 file; alpha where there are none.

    Raises:
        UnreadableDepthError: they say that it is no alpha, or that another one is (ISO/IEC 15444-1, I.5.3.6).
    """
    at = data.find(b"cdef", 0, max(data.find(b"jp2c"), 0))
    if at < 0:
        return _OPACITY
    n = int.from_bytes(data[at + 4 : at + 6], "big")
    types = {
        int.from_bytes(one[:2], "big"): int.from_bytes(one[2:4], "big")
        for one in (data[at + 6 + 6 * k : at + 12 + 6 * k] for k in range(min(n, 8)))
    }
    others = {number for number, kind in types.items() if kind != 0} - {channel}
    meaning = types.get(channel, _OPACITY)
    if others or meaning not in (_OPACITY, _MULTIPLIED):
        raise UnreadableDepthError(
            f"its channel definitions say that channel {channel + 1} is no alpha, or another one is"
        )
    return meaning


def _openjpeg(data: bytes, bits: int, components: int) -> npt.NDArray[np.uint16]:
    """(h, w, components) stored values."""
    try:
        decode = importlib.import_module("openjpeg").decode
    except ImportError as error:
        raise UnreadableDepthError(
            f"{bits} bits a channel of {components} channels need the package pylibjpeg-openjpeg (pip install 'twinray[dicom]')"
        ) from error
    values = np.asarray(decode(io.BytesIO(data)))
    if values.ndim != 3 or values.shape[2] != components or values.dtype.kind != "u":
        raise UnreadableDepthError(
            f"{bits} bits a channel of {components} channels came as {values.shape} of {values.dtype}"
        )
    return values.astype(np.uint16)


_TOKEN = re.compile(rb"(?:\s+|#[^\n\r]*[\n\r])*(\d+)")


def _pnm_header(data: bytes) -> tuple[int, int, int, int] | None:
    """(width, height, largest value, start of the pixels) of a PGM or PPM of more than 8 bits; None of any other."""
    if data[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return None
    at, numbers = 2, []
    for _ in range(3):
        token = _TOKEN.match(data, at)
        if token is None:
            return None
        numbers.append(int(token[1][:10]))
        at = token.end()
    width, height, top = numbers
    return (width, height, top, at + 1) if 255 < top < 65_536 else None


def _pnm(data: bytes) -> Stored | None:
    header = _pnm_header(data)
    if header is None:
        return None
    width, height, top, start = header
    channels = 3 if data[:2] in (b"P3", b"P6") else 1
    wanted = width * height * channels
    if data[:2] in (b"P5", b"P6"):
        values = np.frombuffer(
            data, dtype=">u2", count=min(wanted, (len(data) - start) // 2), offset=start
        )
    else:
        text = re.sub(rb"#[^\n\r]*", b"", data[start:])
        values = np.array(text.split()[:wanted], dtype=np.int64)
    if len(values) < wanted:
        raise ValueError(f"{width} x {height} pixels need {wanted} values, it has {len(values)}")
    if int(values.max(initial=0)) > top or int(values.min(initial=0)) < 0:
        raise ValueError(
            f"its header says that {top} is the largest value, it has {int(values.max())}"
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    grey = values.astype(np.uint16).reshape(shape)
    # 65535 is what writers put there who know no depth
    return Stored(
        grey,
        "16-bit grey" if channels == 1 else "16-bit rgb",
        white=float(top) if top < 65_535 else None,
    )
