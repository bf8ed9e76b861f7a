"""An unfinished pack: pixels and a journal that grow an image at a time, so that a cut-off pack can go on.

Two files. ``images.part`` is already a NumPy file in the making: a header of fixed length, then the
images one after the other. Finishing it means writing its final count into the header.
``journal.jsonl`` has a line of what the job is, then a line for every image that was packed or set
aside, written after its pixels. Whatever a crash leaves, opening keeps the longest beginning of the
journal whose pixels are there and have the checksums it states.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from twinray.data.decoding.options import PixelType
from twinray.data.fit import to_rgb
from twinray.errors import InputError
from twinray.files import clear_disk_errors
from twinray.records import Linear, Remark

HEADER_BYTES = 128
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Side = Annotated[int, msgspec.Meta(ge=1)]
_Sums = Annotated[tuple[_Count, ...], msgspec.Meta(min_length=1, max_length=3)]
_BLOCK_BYTES = 1 << 23
STORED: dict[PixelType, str] = {"uint8": "|u1", "uint16": "<u2"}
"""Type and order of bytes in the file, as NumPy writes them."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What is known of one packed image, but for its pixels.

    Attributes:
        width, height: sides of the original, in pixels.
        how: way in which the pixels were made.
        sha256: of the pixels as they came, (s, s) or (s, s, 3), in hexadecimal.
        sums, squares: sums of the pixel values and of their squares, one a channel; of linear pixels as their window shows
            them in 8 bits.
        remarks: facts that users must know of the file.
        linear: what linear pixels mean; None for 8 bits.
    """

    width: int
    height: int
    how: str
    sha256: str
    sums: tuple[int, ...]
    squares: tuple[int, ...]
    remarks: tuple[Remark, ...] = ()
    linear: Linear | None = None

    @property
    def grey(self) -> bool:
        """Whether it came with one channel."""
        return len(self.sums) == 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal: image ``index`` of the job was packed, or set aside for ``reason``."""

    index: int
    packed: Packed | None
    reason: str = ""


def npy_header(n: int, size: int, channels: int, pixels: PixelType = "uint8") -> bytes:
    """The first bytes of a NumPy file (format 1.0) of n images, padded to a length that no count changes."""
    shape = (n, size, size) if channels == 1 else (n, size, size, channels)
    text = f"{{'descr': '{STORED[pixels]}', 'fortran_order': False, 'shape': {shape}, }}"
    body = text.encode("ascii").ljust(HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


class Journal:
    """The unfinished pack in ``folder``; use as a context manager.

    Attributes:
        channels: 1 or 3, of ``images.part``; grows from 1 to 3 when the first colour image comes.
        rows: packed images so far.
        done: images done so far, packed or set aside.
        set_aside: those set aside.
    """

    def __init__(
        self, folder: Path, job: str, size: int, channels: int, pixels: PixelType = "uint8"
    ) -> None:
        """Open the unfinished pack of the job called ``job`` (a checksum), or begin it.

        Raises:
            InputError: the folder holds an unfinished pack of another job.
            TwinrayError: the folder cannot be written.
        """
        self.images_path, self.path = folder / "images.part", folder / "journal.jsonl"
        self.channels, self.rows, self.done, self.set_aside = channels, 0, 0, 0
        self._size, self._pixels = size, pixels
        self._type = np.dtype(STORED[pixels])
        with clear_disk_errors(folder, "the unfinished pack in"):
            folder.mkdir(parents=True, exist_ok=True)
            fresh = not (
                self.path.is_file() and self.images_path.is_file() and self.path.stat().st_size
            )
            if fresh:
                self.images_path.write_bytes(npy_header(0, size, channels, pixels))
                self.path.write_bytes(_line({"job": job}))
            self._images: IO[bytes] = self.images_path.open("r+b", buffering=0)
            self._journal: IO[bytes] = self.path.open("r+b", buffering=0)
            try:
                self._recover(job, folder)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both files; what was written stays."""
        self._images.close()
        self._journal.close()

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed image."""
        return self._size * self._size * self.channels * self._type.itemsize

    def add(self, index: int, packed: Packed, pixels: npt.NDArray[Any]) -> None:
        """Append an image: (s, s) or, which makes the whole pack colour, (s, s, 3), of the pack's type.

        Raises:
            TwinrayError: the disk is full; nothing that was there before is lost.
        """
        if pixels.ndim == 3 and self.channels == 1:
            self._make_rgb()
        if pixels.ndim == 2 and self.channels == 3:
            pixels = to_rgb(pixels)
        with clear_disk_errors(self.images_path, "the images"):
            self._images.seek(HEADER_BYTES + self.rows * self.row_bytes)
            stored = np.ascontiguousarray(pixels, dtype=self._type)
            _write_all(self._images, stored.data.cast("B"))
        p = packed
        line: list[object] = [
            index,
            p.width,
            p.height,
            p.how,
            p.sha256,
            list(p.sums),
            list(p.squares),
        ]
        if p.linear is not None:
            m = p.linear
            line += [p.remarks, [m.low, m.high, m.slope, m.intercept]]
        self._append([*line, p.remarks] if p.remarks and p.linear is None else line)
        self.rows += 1

    def skip(self, index: int, reason: str) -> None:
        """Note that an image was set aside."""
        self._append([index, reason])
        self.set_aside += 1

    def entries(self) -> Iterator[Entry]:
        """All lines, in order; constant memory."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield _entry(line)

    def finish(self) -> tuple[str, npt.NDArray[np.uint8]]:
        """Write the final count into the header of ``images.part``.

        Returns:
            SHA-256 of the whole file, and (rows, 32) digests of the images, as bytes.
        """
        whole = hashlib.sha256()
        digests = np.empty((self.rows, 32), dtype=np.uint8)
        with clear_disk_errors(self.images_path, "the images"):
            self._images.truncate(HEADER_BYTES + self.rows * self.row_bytes)
            self._images.seek(0)
            _write_all(
                self._images,
                memoryview(npy_header(self.rows, self._size, self.channels, self._pixels)),
            )
            self._images.flush()
            self._images.seek(0)
            whole.update(_read_all(self._images, HEADER_BYTES))
            for row in range(self.rows):
                data = _read_all(self._images, self.row_bytes)
                whole.update(data)
                digests[row] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
        return whole.hexdigest(), digests

    def _append(self, line: list[object]) -> None:
        with clear_disk_errors(self.path, "the journal"):
            start = self._journal.tell()
            try:
                _write_all(self._journal, memoryview(_line(line)))
            except OSError:
                self._journal.seek(start)
                self._journal.truncate()
                raise
        self.done += 1

    def _recover(self, job: str, folder: Path) -> None:
        """Keep what is whole, cut off what is not."""
        self.channels = _channels_of(self._images) or self.channels
        with self.path.open("rb") as file:
            if _head(file.readline()) != _Head(job):
                raise InputError(
                    f"{folder.parent} holds an unfinished pack of another source or of other options; repeat the "
                    "command that began it with --resume, or choose another --out"
                )
            end = file.tell()
            self._images.seek(HEADER_BYTES)
            for line in file:
                entry = _whole_entry(line)
                if entry is None or not self._has_pixels(entry):
                    break
                self.done += 1
                self.rows += entry.packed is not None
                self.set_aside += entry.packed is None
                end += len(line)
        self._journal.truncate(end)
        self._journal.seek(end)
        self._images.truncate(HEADER_BYTES + self.rows * self.row_bytes)

    def _has_pixels(self, entry: Entry) -> bool:
        if entry.packed is None:
            return True
        data = _read_all(self._images, self.row_bytes)
        if len(data) != self.row_bytes:
            return False
        if self.channels == 3 and entry.packed.grey:
            data = np.frombuffer(data, dtype=self._type)[::3].tobytes()
        return hashlib.sha256(data).hexdigest() == entry.packed.sha256

    def _make_rgb(self) -> None:
        """Write the grey images so far as RGB beside, then take that file's place in one step."""
        beside = self.images_path.with_suffix(".rgb")
        grey_bytes = self._size * self._size * self._type.itemsize
        at_once = max(1, _BLOCK_BYTES // grey_bytes)
        with clear_disk_errors(beside, "the images"):
            try:
                with beside.open("wb") as out:
                    out.write(npy_header(0, self._size, 3, self._pixels))
                    self._images.seek(HEADER_BYTES)
                    for start in range(0, self.rows, at_once):
                        data = _read_all(self._images, min(at_once, self.rows - start) * grey_bytes)
                        out.write(to_rgb(np.frombuffer(data, dtype=self._type)).data.cast("B"))
            except OSError:
                beside.unlink(missing_ok=True)
                raise
            beside.replace(self.images_path)
            self._images.close()
            self._images = self.images_path.open("r+b", buffering=0)
        self.channels = 3


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class _Head:
    """The journal's first line."""

    job: str


_PackedLine = tuple[_Count, _Side, _Side, str, str, _Sums, _Sums]
_RemarkedLine = tuple[_Count, _Side, _Side, str, str, _Sums, _Sums, tuple[Remark, ...]]
_LinearLine = tuple[
    _Count,
    _Side,
    _Side,
    str,
    str,
    _Sums,
    _Sums,
    tuple[Remark, ...],
    tuple[float, float, float, float],
]
_SkippedLine = tuple[_Count, str]


def _head(line: bytes) -> _Head | None:
    """The first line; None for one that was cut off or is none."""
    try:
        return msgspec.json.decode(line, type=_Head) if line.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _whole_entry(line: bytes) -> Entry | None:
    """An entry; None for a line that was cut off or is none."""
    try:
        return _entry(line) if line.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _entry(line: bytes) -> Entry:
    for kind in (_PackedLine, _RemarkedLine):
        with contextlib.suppress(msgspec.ValidationError):
            index, *packed = msgspec.json.decode(line, type=kind)
            return Entry(index, Packed(*packed))
    with contextlib.suppress(msgspec.ValidationError):
        index, width, height, how, digest, sums, squares, remarks, meaning = msgspec.json.decode(
            line, type=_LinearLine
        )
        one = Packed(width, height, how, digest, sums, squares, remarks, Linear(*meaning))
        return Entry(index, one)
    index, reason = msgspec.json.decode(line, type=_SkippedLine)
    return Entry(index, None, reason)


def _channels_of(images: IO[bytes]) -> int | None:
    images.seek(0)
    head = _read_all(images, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return None
    return 3 if head.rstrip().endswith(b", 3), }") else 1


def _read_all(file: IO[bytes], n: int) -> bytes:
    """Up to n bytes; an unbuffered file may give them in pieces."""
    pieces = []
    while n and (piece := file.read(n)):
        pieces.append(piece)
        n -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write_all(file: IO[bytes], data: memoryview) -> None:
    """All of ``data``: an unbuffered file may take it in pieces, and a full disk shows at the last."""
    while len(data):
        data = data[file.write(data) :]
