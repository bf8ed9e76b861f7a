"""Opening one file that a stranger wrote: what it is, how long it is, and reads that stay inside it.

A file's own header is never trusted for an allocation: a length is cut to what the file holds. The
number of reads that a parser may make is limited. Whatever a parser raises becomes one line.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from twinray.errors import InputError

MAX_READS = 200_000
"""Reads that parsing one header may take (about two an element; a radiograph's header has a few hundred elements)."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """An exception's message as one printable line of at most ``limit`` characters; its type's name if it has none."""
    text = str(error) if isinstance(error, str) else (str(error) or type(error).__name__)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def regular_file_size(path: Path) -> int:
    """The size in bytes of a readable, non-empty regular file.

    Raises:
        InputError: the file is missing, a folder, a device or pipe, unreadable or empty.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected an image file, but there is none here; check the path"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be looked up ({one_line(error)}); check the path and its folders"
        ) from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: expected an image file, got a folder; name the file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{path}: expected an image file, got a device, pipe or socket; name a regular file"
        )
    if not os.access(path, os.R_OK):
        raise InputError(
            f"{path}: the file may not be read (permission denied); change its permissions"
        )
    if status.st_size == 0:
        raise InputError(
            f"{path}: expected an image, got an empty file; copy it again from its source"
        )
    return status.st_size


def first_bytes(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of a readable regular file.

    Raises:
        InputError: as :func:`regular_file_size`, or the read fails.
    """
    regular_file_size(path)
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}); check its permissions and the disk"
        ) from None


def read_whole(path: Path, limit: int) -> bytes:
    """All bytes of a readable regular file of at most ``limit`` bytes.

    Raises:
        InputError: as :func:`regular_file_size`, it is longer, or the read fails.
    """
    size = regular_file_size(path)
    if size > limit:
        raise InputError(
            f"{path}: {size >> 20} MiB, more than any image of the largest size allowed; leave it out"
        )
    return first_bytes(path, size)


_FIRST_ELEMENTS = (0x00, 0x01, 0x05, 0x06, 0x08, 0x12, 0x13, 0x14, 0x16, 0x18)
_EXPLICIT = (b"UL", b"CS", b"DA", b"TM", b"UI")


def is_dicom_head(head: bytes) -> bool:
    """Whether a file's first 132 bytes are those of a DICOM file, also of one that was written without its preamble.

    With the preamble the mark ``DICM`` stands at byte 128 (PS3.10, 7.1). Without it a file begins
    with the mark, the meta information (group 0002) or the image's identification (group 0008).
    Both groups may be explicit or implicit.
    """
    if head[128:132] == b"DICM" or head[:4] == b"DICM" or head[:6] == b"\x02\0\0\0UL":
        return True
    if len(head) < 16 or head[:2] != b"\x08\0" or head[3] or head[2] not in _FIRST_ELEMENTS:
        return False
    # implicit: four bytes of length, then text, or the length of the group
    return head[4:6] in _EXPLICIT or (
        head[5:8] == b"\0\0\0" and head[4] % 2 == 0 and 0 < head[4] <= 64
    )


class BoundedReader:
    """A binary file for parsers that believe lengths written in the file.

    Python allocates the whole buffer of ``read(n)`` before it reads. A false length of 4 GiB in a
    file of 4 KiB therefore costs 4 GiB. Here ``n`` is cut to what is left. After ``MAX_READS``
    reads the file is refused. A parser in a loop over millions of empty elements then ends after a
    second or two instead of minutes.
    """

    def __init__(self, raw: BinaryIO, size: int, name: str) -> None:
        self.name = name
        self._raw = raw
        self._size = size
        self._reads = 0

    def read(self, count: int = -1) -> bytes:
        """Up to ``count`` bytes. Raises RestOfFileWanted for everything that is left, which only inflating asks for."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise InputError(
                f"{self.name}: more than {MAX_READS // 2} data elements; no radiograph has so many"
            )
        position = self._raw.tell()
        if count < 0:
            raise RestOfFileWanted(position)
        return self._raw.read(min(count, max(0, self._size - position)))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's ``seek``."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """As a file's ``tell``."""
        return self._raw.tell()

    def close(self) -> None:
        """Close the file underneath."""
        self._raw.close()

    @property
    def exhausted_reads(self) -> bool:
        """Whether the limit on reads was met (a parser may have swallowed the error that said so)."""
        return self._reads > MAX_READS


def _in_words(error: Exception) -> str:
    """What a library's exception says, without Python's own words for it."""
    if isinstance(error, AttributeError) and error.name:
        return f"{error.name} is missing"
    if isinstance(error, KeyError):
        return f"{one_line(error)} is missing"
    return one_line(error)


class RestOfFileWanted(Exception):
    """A parser asked for all bytes from ``position`` to the end of the file."""

    def __init__(self, position: int) -> None:
        super().__init__(f"all bytes from {position}")
        self.position = position


@contextmanager
def parser_faults_as_input_errors(path: Path, doing: str, advice: str) -> Iterator[None]:
    """Turn whatever a parser or decoder raises inside into one InputError line; keep its warnings off the screen.

    Raises:
        InputError: in place of any exception but an InputError, which passes unchanged.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    try:
        # Broken files make parsers warn and log at length; the refusal says it once.
        logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, RestOfFileWanted):
        raise
    except RecursionError:
        raise InputError(
            f"{path}: {doing} failed: structures nested too deeply; {advice}"
        ) from None
    except MemoryError:
        raise InputError(f"{path}: {doing} needed more memory than allowed; {advice}") from None
    except Exception as error:
        raise InputError(f"{path}: {doing} failed ({_in_words(error)}); {advice}") from None
    finally:
        logger.setLevel(level)
