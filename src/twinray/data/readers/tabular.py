"""Published CSV tables, row by row, each row with its file and line: plain ``.csv`` or gzipped ``.csv.gz``, UTF-8.

A table that cannot be read at all (no such column, other bytes than text, cut-off gzip) is an :class:`InputError`; what
is wrong with a single row is for the reader of that table to judge, with :attr:`Row.where` to name it.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from twinray.errors import InputError

_LONGEST_LINE = 1 << 20
"""Characters; a longer line is no row of a table, and must not be read into memory whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``where`` names its file and line, ``cells`` are in file order."""

    path: Path
    line: int
    cells: Sequence[str]
    columns: Mapping[str, int]

    @property
    def where(self) -> str:
        """What to call the row in a message."""
        return f"{self.path} line {self.line}"

    def __getitem__(self, column: str) -> str:
        """The cell without surrounding blanks; empty where the row ends early or the table has no such column."""
        at = self.columns.get(column, len(self.cells))
        return self.cells[at].strip() if at < len(self.cells) else ""

    def __contains__(self, column: str) -> bool:
        return column in self.columns


def find_table(folders: Sequence[Path], stems: Sequence[str]) -> Path | None:
    """The first table ``<stem>.csv`` or ``<stem>.csv.gz`` in the first of the folders that has one."""
    for folder in folders:
        for stem in stems:
            for name in (f"{stem}.csv", f"{stem}.csv.gz"):
                if (folder / name).is_file():
                    return folder / name
    return None


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """The rows of a table whose header names at least the columns ``needed``; empty lines are passed over.

    Where the header names a column twice, the first counts.

    Raises:
        InputError: the file cannot be read, is not CSV in UTF-8, or lacks a column.
    """
    try:
        with _opened(path) as file:
            reader = csv.reader(_lines(file, path))
            columns = _columns(next(reader, []), needed, path)
            for cells in reader:
                if any(cells):
                    yield Row(path, reader.line_num, cells, columns)
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"expected CSV in UTF-8 in {path}: {error}; copy the file again from its source") from error
    except OSError as error:
        raise InputError(f"could not read the table {path}: {error.strerror or error}; check the path") from error


def read_names(path: Path) -> list[str]:
    """The lines of a list of names, one a line, without blanks around them and without empty lines.

    Raises:
        InputError: the file cannot be read or is not text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"could not read the list {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected a list of file names in {path}, found other bytes; copy it again from its source"
        ) from error


def number(cell: str) -> float | None:
    """The cell's number (it may be infinite or NaN: say so where it matters); None if it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError(
                f"expected CSV in {path}, found a line of more than {_LONGEST_LINE:,} characters; check it"
            )
        yield line


def _columns(header: Sequence[str], needed: Sequence[str], path: Path) -> dict[str, int]:
    columns: dict[str, int] = {}
    for at, name in enumerate(header):
        columns.setdefault(name.strip(), at)
    missing = [name for name in needed if name not in columns]
    if missing:
        found = ", ".join(name for name in columns if name)[:300] or "nothing"
        raise InputError(
            f"expected the columns {', '.join(needed)} in {path}, found {found}; "
            f"missing: {', '.join(missing)}; give the file as it is published"
        )
    return columns
