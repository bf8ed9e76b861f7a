"""Image files of a store: each under the hash of its bytes, on the disk before anything says so.

``images/ab/abcd...`` holds files as they came. ``incoming/`` holds uploads that are not whole yet, ``cache/`` what can be
made again: pixels to be shown and heat maps, oldest out first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

from twinray.errors import TwinrayError
from twinray.files import clear_disk_errors
from twinray.serving.store.database import FullError

KEY_FILE = "key"


@dataclass(frozen=True)
class Kept:
    """A file that is on the disk.

    Attributes:
        sha256: hash of its bytes. size: their number.
    """

    sha256: str
    size: int


@final
class Incoming:
    """A file that is being received; :meth:`keep` makes it one of the store, leaving the block drops it."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self.path = files.incoming / secrets.token_hex(16)
        self._digest = hashlib.sha256()
        self.size = 0
        self.head = b""
        self._file: BinaryIO | None = None

    def __enter__(self) -> Incoming:
        with _full_disk():
            self._file = os.fdopen(
                os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            FullError: the disk is full.
        """
        assert self._file is not None
        if len(self.head) < 512:
            self.head += data[: 512 - len(self.head)]
        self._digest.update(data)
        self.size += len(data)
        with _full_disk():
            self._file.write(data)

    def flush(self) -> None:
        """Let others read what came so far.

        Raises:
            FullError: the disk is full.
        """
        assert self._file is not None
        with _full_disk():
            self._file.flush()

    def keep(self) -> Kept:
        """Bring all of it to the disk under its hash.

        Raises:
            FullError: the disk is full.
        """
        assert self._file is not None
        digest = self._digest.hexdigest()
        with _full_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            place = self._files.place(digest)
            made = not place.parent.is_dir()
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(self.path, place)
            _sync(place.parent)
            if made:
                _sync(place.parent.parent)
        return Kept(digest, self.size)


@final
class ImageFiles:
    """The folder of a store's files.

    Args:
        folder: folder; it and those in it are made, for this user alone.

    Raises:
        TwinrayError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.incoming, self.cache = (
            folder / name for name in ("images", "incoming", "cache")
        )
        for one in (folder, self.images, self.incoming, self.cache):
            with clear_disk_errors(one, "folder"):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)

    def place(self, sha256: str) -> Path:
        """Where the file of a hash lies."""
        return self.images / sha256[:2] / sha256

    def receive(self) -> Incoming:
        """A new file, to be used as a context."""
        return Incoming(self)

    def clean(self) -> None:
        """Remove uploads that a killed process left half received."""
        for stale in self.incoming.iterdir():
            stale.unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        """Remove a file and what was derived from it."""
        self.place(sha256).unlink(missing_ok=True)
        self.remove_derived(sha256)

    def remove_derived(self, sha256: str) -> None:
        """Remove what was made of a file."""
        for derived in self.cache.glob(f"{sha256}*"):
            derived.unlink(missing_ok=True)

    def kept(self) -> dict[str, Path]:
        """All image files by their hashes."""
        return {path.name: path for path in self.images.glob("??/*")}

    def cached_hashes(self) -> set[str]:
        """Hashes of the files that the cache holds something of, and beginnings of names that are of none."""
        return {entry.name[:64] for entry in os.scandir(self.cache)}

    def free_bytes(self) -> int:
        """Space that is free on the disk."""
        return shutil.disk_usage(self.folder).free

    def key(self) -> bytes:
        """The secret of this store's pseudonyms; made at first use."""
        path = self.folder / KEY_FILE
        with clear_disk_errors(path, "key"):
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_hex(32).encode())
                    file.flush()
                    os.fsync(file.fileno())
                _sync(self.folder)
            made = path.read_bytes().strip()
        if len(made) != 64:
            raise TwinrayError(
                f"expected the key of a store in {path}, it is damaged; restore it from a backup"
            )
        return made

    def cached(self, name: str) -> bytes | None:
        """What was kept under a name; None where nothing is."""
        path = self.cache / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def cache_away(self, name: str, data: bytes, most_bytes: int) -> None:
        """Keep data that can be made again, and remove the oldest of such data above a limit; a full disk keeps nothing."""
        temporary = self.cache / f".{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self.cache / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        self._trim(most_bytes)

    def _trim(self, most_bytes: int) -> None:
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.cache):
                with contextlib.suppress(OSError):
                    about = entry.stat()
                    found.append((about.st_mtime, about.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found) if total > most_bytes else ():
            if total <= 0.9 * most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FullError("the disk of the store is full; free some space") from error
        raise
