"""Is a file whole? What its format lets anyone verify, and signs of damage where it has no checksum.

Decoders go on where they can. Libjpeg fills what is missing with grey. Libtiff stops once a strip
is full and never looks at its checksum. What is checked here, without decoding twice:

- PNG: CRC-32 of every chunk up to IEND (PNG 3rd edition, 5.3 and 13.2); Pillow checks the stream's Adler-32.
- TIFF: Adler-32 and length of deflate strips, the length of PackBits rows, JPEG strips by libjpeg's warnings.
- JPEG: libjpeg's warnings, which :mod:`simplejpeg` passes on (:func:`jpeg_fault`).
- JPEG 2000 and WebP: long runs of one byte in data that are compressed to look random (:func:`run_fault`).
- Formats that nothing protects: pixels that end in the middle of a row (:func:`cut_row`), or are missing from the
  middle of one on (:func:`hole`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

_LEAST_RUN = 256
"""Equal bytes in a row that no compressed stream has: a lost disk sector has 512, an empty JPEG 2000 packet is 1."""

_LEAST_RUN_WITH_PRECINCTS = 4096
_RUN = re.compile(rb"(.)\1{%d,}" % (_LEAST_RUN - 1), re.DOTALL)
_LEAST_SHARE = 32
"""A picture of which less than 1/32 of the rows is missing at its end cannot be distinguished from
one that ends so."""
_LEAST_COLUMNS = 16
_LEAST_CONTRAST = 20
"""A row that stops is distinguished from one that fades if half of what is missing stood out by
1/20 of the picture's range."""


def png_fault(data: bytes) -> str | None:
    """Why a PNG file is not whole, or None: a chunk whose CRC-32 is wrong, or no IEND chunk."""
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return "it ends inside a chunk"
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            name = kind.decode("ascii", "backslashreplace")
            return f"the checksum (CRC-32) of its {name} chunk at byte {at} is wrong"
        if kind == b"IEND":
            return None
        at = end
    return "it ends without its IEND chunk"


def jpeg_fault(data: bytes, colorspace: str = "GRAY") -> str | None:
    """What libjpeg warns of while it decodes a whole JPEG stream, or None."""
    try:
        simplejpeg.decode_jpeg(data, colorspace, strict=True)
    except ValueError as error:
        return str(error)
    return None


def webp_fault(data: bytes) -> str | None:
    """Why a WebP file is not whole, or None: a long run of one byte in the chunk of its picture."""
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return run_fault(memoryview(data)[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return None


def jpeg2000_fault(data: bytes) -> str | None:
    """Why a JPEG 2000 codestream is not whole, or None: a long run of one byte, or no end marker."""
    start = max(data.find(b"\xff\x4f\xff\x51"), 0)
    first = data.find(b"\xff\x93", start)  # start of data
    if first < 0:
        return "it has no coded data"
    if data.find(b"\xff\xd9", first) < 0:
        return "it ends without its end marker"
    # coding style default: with precincts a dark region is thousands of empty packets, a zero byte each
    style = data.find(b"\xff\x52", start, first)
    precincts = style >= 0 and bool(data[style + 4] & 1)
    return run_fault(
        memoryview(data)[first:], _LEAST_RUN_WITH_PRECINCTS if precincts else _LEAST_RUN
    )


def run_fault(data: bytes | memoryview, least: int = _LEAST_RUN) -> str | None:
    """A run of ``least`` equal bytes or more within compressed data, or None."""
    # almost every file is settled by looking at one byte in 64, where a run leaves two or more equal ones
    sparse = np.frombuffer(data, dtype=np.uint8)[:: _LEAST_RUN // 4]
    if not ((sparse[1:-1] == sparse[:-2]) & (sparse[2:] == sparse[1:-1])).any():
        return None
    found = max(_RUN.finditer(data), key=lambda run: run.end() - run.start(), default=None)
    if found is None or found.end() - found.start() < least:
        return None
    return f"its compressed data hold {found.end() - found.start()} equal bytes in a row at byte {found.start()}"


def missing_fault(pixels: npt.NDArray[Any], *, bottom_up: bool = False) -> str | None:
    """Which rows of a picture were lost without anything that says so, or None.

    Args:
        pixels: (h, w) or (h, w, c).
        bottom_up: flag of a format that stores its last row first.
    """
    stored, rows = pixels[::-1] if bottom_up else pixels, len(pixels)
    row = cut_row(stored)
    if row is not None:
        return f"its picture ends in the middle of row {rows - 1 - row if bottom_up else row} of {rows}"
    band = hole(stored)
    if band is None:
        return None
    first, last = (rows - 1 - band[1], rows - 1 - band[0]) if bottom_up else band
    return f"its rows {first} to {last} of {rows} hold one value, and the picture breaks off inside the row beside them"


def cut_row(pixels: npt.NDArray[Any]) -> int | None:
    """The row in the middle of which a picture ends, or None.

    Below it every row is of one value, as where a copy was cut off and the rest filled up. The edge of a collimator
    or of a letterbox runs along rows, or crosses several at a slant; it does not begin inside one row.

    Args:
        pixels: (h, w) or (h, w, c).
    """
    height, width = pixels.shape[:2]
    if height < 4 or width < 2 * _LEAST_COLUMNS:
        return None
    # most pictures are settled by their last row
    last = pixels[-1]
    if (last != last[0]).any():
        return None
    rows = (pixels != pixels[:, :1]).reshape(height, -1).any(axis=1)
    if not rows.any():
        return None
    row = int(np.flatnonzero(rows)[-1])
    if height - 1 - row < max(2, height // _LEAST_SHARE):
        return None
    return row if _stops(pixels, row) else None


def hole(pixels: npt.NDArray[Any]) -> tuple[int, int] | None:
    """The first and last row of a band of one value that begins or ends inside a row, or None.

    A disk sector or a packet that is lost leaves such a band where pixels are not compressed. The edge of a collimator, or
    the border between two pictures, runs along rows.

    Args:
        pixels: (h, w) or (h, w, c).
    """
    height, width = pixels.shape[:2]
    if height < 4 or width < 2 * _LEAST_COLUMNS:
        return None
    # three columns settle most rows
    few = pixels[:, [0, width // 3, width - 1]].reshape(height, 3, -1)
    even = (few == few[:, :1]).all(axis=(1, 2))
    even[even] = (pixels[even] == pixels[even][:, :1]).all(axis=tuple(range(1, pixels.ndim)))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], even, [False]])))
    flipped = pixels[::-1, ::-1]
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        last = after - 1
        same = (pixels[first:after, 0] == pixels[first, 0]).all()
        if after - first < max(2, height // _LEAST_SHARE) or not same:
            continue
        above, below = first - 1, height - 1 - after
        begins = (
            first > 0 and (pixels[above, -1] == pixels[first, 0]).all() and _stops(pixels, above)
        )
        ends = (
            after < height
            and (pixels[after, 0] == pixels[last, 0]).all()
            and _stops(flipped, below)
        )
        if begins or ends:
            return first, last
    return None


def _stops(pixels: npt.NDArray[Any], row: int) -> bool:
    """Whether a picture breaks off inside a row, and not with an edge that the rows above share."""
    if row < 2:
        return False
    width = pixels.shape[1]
    here, above, before = (_constant_from(pixels[r]) for r in (row, row - 1, row - 2))
    inside = width - here >= _LEAST_COLUMNS and here > 0
    # rows above reach the margin that they have in common; this one stops well before it
    stops = min(above, before) - here >= _LEAST_COLUMNS and abs(above - before) <= max(
        8, width // 50
    )
    if not (inside and stops):
        return False
    # the last rows before a dark margin fade out; a picture that is cut off is there and gone
    lost = np.abs(
        pixels[row - 1, here:above].astype(np.float64) - pixels[row, -1].astype(np.float64)
    )
    span = float(pixels.max()) - float(pixels.min())
    return bool(np.median(lost) >= span / _LEAST_CONTRAST)


def _constant_from(row: npt.NDArray[Any]) -> int:
    """The column from which on a row has one value."""
    differs = np.flatnonzero((row != row[-1]).reshape(len(row), -1).any(axis=1))
    return int(differs[-1]) + 1 if len(differs) else 0


def tiff_fault(data: bytes, tags: Any) -> str | None:
    """Why the strips or tiles of a TIFF file are not whole, or None where nothing speaks against them.

    Args:
        data: the whole file.
        tags: tag number -> value, as Pillow's ``tag_v2`` has them.
    """
    compression = int(tags.get(259, 1))
    check = {
        8: _deflate_fault,
        32946: _deflate_fault,
        32773: _packbits_fault,
        7: _jpeg_strip_fault,
    }.get(compression)
    for number, (strip, expected) in enumerate(_strips(data, tags)):
        if len(strip) == 0:
            return f"its strip {number} is empty or outside the file"
        fault = check(strip, expected, tags) if check is not None else None
        if fault is None and compression != 1 and check is None:
            fault = run_fault(strip) if compression in (33003, 33005, 34712, 50001) else None
        if fault:
            return f"strip {number}: {fault}"
    return None


def _strips(data: bytes, tags: Any) -> Iterator[tuple[memoryview, int]]:
    """Compressed bytes of each strip or tile, and how many bytes it inflates to."""
    width, height = int(tags[256]), int(tags[257])
    samples = int(tags.get(277, 1))
    bits = sum(_several(tags.get(258, 1))) or 1
    planar = int(tags.get(284, 1)) == 2 and samples > 1
    if planar:
        bits //= samples
    if 324 in tags:
        offsets, counts = _several(tags[324]), _several(tags[325])
        sizes = [-(-int(tags[322]) * bits // 8) * int(tags[323])] * len(offsets)
    else:
        offsets = _several(tags.get(273, ()))
        at_once = min(int(tags.get(278, height)), height)
        sizes = [
            -(-width * bits // 8) * min(at_once, height - y) for y in range(0, height, at_once)
        ]
        sizes *= samples if planar else 1
        counts = _several(tags[279]) if 279 in tags else sizes
    view = memoryview(data)
    for offset, count, size in zip(offsets, counts, sizes, strict=False):
        yield view[offset : offset + count], size


def _several(value: Any) -> Sequence[int]:
    return (value,) if isinstance(value, int) else tuple(int(one) for one in value)


def _deflate_fault(strip: memoryview, expected: int, _: Any) -> str | None:
    inflate = zlib.decompressobj()
    try:
        size = len(inflate.decompress(strip, expected + 1))
        # libtiff stops here; only what follows says whether the data were the ones that were written
        size += len(inflate.decompress(inflate.unconsumed_tail, 1 << 16))
    except zlib.error as error:
        return f"its deflate stream is damaged ({str(error).split(': ')[-1]})"
    if size < expected or not inflate.eof:
        return f"its deflate stream ends early ({size} of {expected} bytes)"
    return None


def _packbits_fault(strip: memoryview, expected: int, _: Any) -> str | None:
    size = packbits_size(strip)
    return None if size == expected else f"its PackBits data give {size} bytes, expected {expected}"


def packbits_size(data: bytes | memoryview) -> int:
    """How many bytes PackBits data unpack to (TIFF 6.0, section 9; DICOM PS3.5, annex G.3)."""
    at, size, length = 0, 0, len(data)
    while at < length:
        head = data[at]
        if head < 128:
            size += min(head + 1, length - at - 1)
            at += head + 2
        elif head > 128:
            size += 257 - head if at + 1 < length else 0
            at += 2
        else:
            at += 1
    return size


def _jpeg_strip_fault(strip: memoryview, _: int, tags: Any) -> str | None:
    """libjpeg's warnings on a strip that leaves its tables in the tag JPEGTables (TIFF Technical Note 2)."""
    tables = tags.get(347)
    data = bytes(strip)
    if isinstance(tables, bytes) and len(tables) > 4:
        data = tables[:-2] + data[2:]
    if simplejpeg_components(data) not in (1, 3):
        return None
    return jpeg_fault(data)


def simplejpeg_components(data: bytes) -> int:
    """Number of components of a JPEG frame by its header, 0 where there is none."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return 0
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 9]
        at += 2 + (
            0
            if 0xD0 <= marker <= 0xD8 or marker == 1
            else int.from_bytes(data[at + 2 : at + 4], "big")
        )
    return 0
