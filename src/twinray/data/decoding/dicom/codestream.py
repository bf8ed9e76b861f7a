"""Does a compressed DICOM frame claim the size that the DICOM header claims? Looked up before any decoder runs.

A frame of a few bytes may claim 65,535 x 65,535 pixels, or a million tiles; decoders allocate by that
claim. JPEG and JPEG-LS are read by their frame header (ITU-T T.81 B.2.2, T.87 C.2.2). JPEG 2000 is
read by its image and tile size (T.800 A.5.1). RLE is read by its DICOM header (PS3.5 annex G).
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator

from pydicom.uid import (
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from twinray.data.decoding.damage import jpeg2000_fault, jpeg_fault

_JPEG2000_FAMILY = (*JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)

_NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}
"""Markers in 0xC0..0xCF that do not start a frame: Huffman tables, reserved, arithmetic conditioning."""

_RLE_BEST_RATIO = 64
"""PackBits writes at most 128 pixels with 2 bytes."""


def codestream_fault(
    frame: bytes, syntax: str, rows: int, columns: int, bytes_allocated: int
) -> str | None:
    """Why a compressed frame must not be decoded, or None if its own header agrees with the DICOM header.

    Args:
        frame: the compressed bytes of one frame.
        syntax: transfer syntax UID.
        rows: height in pixels that the DICOM header states; ``columns`` the width.
        bytes_allocated: bytes a pixel that the DICOM header states (1 or 2).
    """
    if syntax == RLELossless:
        return _rle_fault(frame, rows * columns, bytes_allocated)
    if syntax in _JPEG2000_FAMILY:
        claim = _jpeg2000_size(frame)
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        claim = _jpeg_size(frame)
    else:
        return None
    if isinstance(claim, str):
        return claim
    height, width, components, precision = claim
    if components != 1:
        return f"the header says one sample a pixel, the compressed frame holds {components}"
    if (height, width) != (rows, columns):
        return f"the header says {columns} x {rows} pixels, the compressed frame {width} x {height}"
    if not 2 <= precision <= 8 * bytes_allocated:
        return (
            f"the header says {8 * bytes_allocated} bits a pixel, the compressed frame {precision}"
        )
    return None


def _jpeg_size(frame: bytes) -> tuple[int, int, int, int] | str:
    """(height, width, components, bits a sample) of a JPEG or JPEG-LS frame, or what is wrong with it."""
    if frame[:2] != b"\xff\xd8":
        return "the compressed frame is no JPEG stream"
    claim: tuple[int, int, int, int] | None = None
    lossless = tables = False
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        tables |= marker == 0xC4
        if claim is None and (
            (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS) or marker == 0xF7
        ):
            if at + 10 > len(frame):
                break
            precision, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
            claim, lossless = (height, width, components, precision), marker == 0xC3
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    if claim is None:
        return "the compressed frame has no JPEG frame header"
    # The usual decoder of lossless JPEG ends the process when the tables are missing.
    if lossless and not tables:
        return "the lossless JPEG frame has no Huffman table"
    return claim


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int, int] | str:
    """(height, width, components, bits a sample) of a JPEG 2000 codestream, or what is wrong with it."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 8192)
    if start < 0 or start + 43 > len(frame):
        return "the compressed frame has no JPEG 2000 size header"
    x1, y1, x0, y0, tile_w, tile_h, tile_x, tile_y, components = struct.unpack_from(
        ">8IH", frame, start + 8
    )
    if x1 <= x0 or y1 <= y0 or not tile_w or not tile_h or tile_x > x0 or tile_y > y0:
        return "the JPEG 2000 size header contradicts itself"
    tiles = -(-(x1 - tile_x) // tile_w) * -(-(y1 - tile_y) // tile_h)
    if tiles > 65_535:
        return f"the JPEG 2000 size header claims {tiles} tiles (at most 65535 exist)"
    return y1 - y0, x1 - x0, components, (frame[start + 42] & 0x7F) + 1


def _rle_fault(frame: bytes, pixels: int, bytes_allocated: int) -> str | None:
    """Why an RLE frame cannot hold ``pixels`` pixels of ``bytes_allocated`` bytes, or None."""
    if len(frame) < 64:
        return f"the RLE header needs 64 bytes, the frame has {len(frame)}"
    segments, *offsets = struct.unpack_from("<16L", frame)
    if segments != bytes_allocated:
        return f"the RLE header lists {segments} segments, expected {bytes_allocated}"
    used = offsets[:segments]
    if used[0] < 64 or any(a >= b for a, b in zip(used, [*used[1:], len(frame)], strict=True)):
        return "the RLE segment offsets are out of order or outside the frame"
    if (len(frame) - 64) * _RLE_BEST_RATIO < pixels * bytes_allocated:
        return f"{len(frame)} bytes of RLE cannot hold {pixels} pixels of {bytes_allocated} bytes"
    if len(frame) > 2 * pixels * bytes_allocated + 1024:
        return (
            f"{len(frame)} bytes of RLE are too many for {pixels} pixels of {bytes_allocated} bytes"
        )
    return None


def frame_damage(frame: bytes, syntax: str) -> str | None:
    """Why a compressed frame is not whole, as far as its bytes tell; None where nothing speaks against it.

    JPEG Lossless tells more while it is decoded (:func:`library_warnings`), JPEG-LS and RLE refuse by themselves.
    """
    if syntax in _JPEG2000_FAMILY:
        return jpeg2000_fault(frame)
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        if frame.rstrip(b"\0")[-2:] != b"\xff\xd9":
            return "its compressed frame ends without its end marker"
        return jpeg_fault(frame) if syntax == JPEGBaseline8Bit else None
    return None


_OF_LIBJPEG = (b"Corrupt JPEG data", b"Premature end of JPEG")


@contextlib.contextmanager
def library_warnings() -> Iterator[list[str]]:
    """What decoders warn of inside; the list is filled when the block ends.

    The libraries behind lossless JPEG write their warnings to the process's standard error and go on. What comes there
    meanwhile is looked through for theirs; the rest is passed on. So are Python's warnings of run-length data.
    """
    said: list[str] = []
    try:
        heard, saved = tempfile.TemporaryFile(), os.dup(2)  # noqa: SIM115 - closed below
    except OSError:  # no room for a file, or no standard error: nothing is listened to
        yield said
        return
    with heard, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        os.dup2(heard.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            heard.seek(0)
            for line in heard.read().splitlines(keepends=True):
                if line.startswith(_OF_LIBJPEG):
                    said.append(line.decode("ascii", "backslashreplace").strip())
                else:
                    with contextlib.suppress(OSError):
                        os.write(2, line)
            said += [str(one.message) for one in caught if "RLE" in str(one.message)]
