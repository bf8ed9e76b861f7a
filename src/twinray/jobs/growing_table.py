"""A table of a long job, on the disk as far as the job has come."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twinray.errors import TwinrayError


class GrowingTable:
    """A CSV file that grows by whole rows: a kill or a full disk leaves all that was done before.

    Raises:
        TwinrayError: the disk refuses.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._size = path, 0
        self.append([columns])

    def append(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write at once: what is in the table survives a stop."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode("utf-8")
        try:
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._size)  # no half row
            raise TwinrayError(
                f"could not write {self._path}: {error.strerror}; what was done before is kept in it: "
                "make room, then run again for the rest with another --out"
            ) from error
        self._size += len(data)
