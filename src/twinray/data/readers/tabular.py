"""The one CSV reader: published tables and users' own, row by row, each row with its file and line.

A table is recognised by its content, never by its name. It may be plain or gzipped, in UTF-8 with
or without a byte order mark, or in UTF-16 with one. Cells stand between commas, semicolons or tabs,
whichever makes the needed columns out of the header (RFC 4180 otherwise). A table that cannot be
read at all is an :class:`InputError`. What is wrong with a single row is for the reader of that
table to judge, with :attr:`Row.where` to name it.

Text that programs write where there is nothing (``nan``, ``null``, ``NA``: :data:`MISSING`) counts as an empty cell in
every table alike. How many such cells there are is told.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from twinray.data.readers.columns import plain
from twinray.errors import InputError
from twinray.files import check_regular
from twinray.words import counted

_LONGEST_LINE = 1 << 20
"""Characters; a longer line is no row of a table, and must not be read into memory whole."""
_MOST_HEADER_LINES = 1000
_MOST_COLUMNS_TOLD = 6
_DELIMITERS = (",", ";", "\t")
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", ""),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_AS_PUBLISHED = "give the file as it is published"

MISSING = frozenset({"nan", "null", "<na>", "nat", "#n/a", "n/a", "na", "none", "nil"})
"""What counts as an empty cell, in any case."""
_SURELY_MISSING = MISSING - {"na", "none", "nil"}
"""The same where a cell may hold a class, which can be called None."""
_LONGEST_MISSING = max(map(len, MISSING))

Column = str | Sequence[str]
"""The name of a column, or several that it may have, the first that is there counts."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        path, line: its file, and the number of the line that it ends on.
        cells: cells as they stand, in file order.
        header: names of the columns as they stand.
        columns: name without blanks (in its plain form where any case counts) -> place.
    """

    path: Path
    line: int
    cells: Sequence[str]
    header: Sequence[str]
    columns: Mapping[str, int]

    @property
    def where(self) -> str:
        """What to call the row in a message."""
        return f"{self.path} line {self.line}"

    def __getitem__(self, column: Column) -> str:
        """The cell without surrounding blanks; empty where the row ends early or the table has no such column."""
        at = self.place(column)
        return "" if at is None or at >= len(self.cells) else self.cells[at].strip()

    def __contains__(self, column: Column) -> bool:
        return self.place(column) is not None

    def place(self, column: Column) -> int | None:
        """Where the column is; None if the table has none of that name."""
        return _place(self.columns, column)

    def others(self, used: Sequence[Column]) -> dict[str, str]:
        """The cells that are not empty, as they stand, by name of column, without the columns ``used``."""
        taken = {self.place(column) for column in used}
        named = zip(self.header, self.cells, strict=False)
        return {
            name: cell for at, (name, cell) in enumerate(named) if name and cell and at not in taken
        }


def find_table(folders: Sequence[Path], stems: Sequence[str]) -> Path | None:
    """The first table ``<stem>.csv`` or ``<stem>.csv.gz`` in the first of the folders that has one."""
    for folder in folders:
        for stem in stems:
            for name in (f"{stem}.csv", f"{stem}.csv.gz"):
                if (folder / name).is_file():
                    return folder / name
    return None


def read_rows(
    path: Path,
    needed: Sequence[Column],
    *,
    optional: Sequence[Column] = (),
    any_case: bool = False,
    advice: str = _AS_PUBLISHED,
    notes: list[str] | None = None,
    classes: Sequence[Column] = (),
) -> Iterator[Row]:
    """The rows of a table whose header names at least the columns ``needed``.

    Rows without content are skipped.

    Args:
        path: path of the table.
        needed: columns that must be there.
        optional: columns that the caller reads where they are there.
        any_case: names of columns count in any case, blanks and underscores left out; ``needed`` and ``optional`` are
            then in that plain form.
        advice: advice on what to do where a needed column is missing.
        notes: list that gets a note on cells that were taken for empty, after the last row.
        classes: columns whose cells are names of classes, where ``None`` and ``NA`` are kept.

    Raises:
        InputError: the file cannot be read, is no table, lacks a needed column, or has a needed or optional one twice.
    """
    line = 0
    try:
        with _opened(path) as file:
            lines = _lines(file, path)
            first = _first_record(lines)
            line = len(first)
            names, delimiter = _header(first, needed, any_case)
            columns = _columns(names, any_case)
            _check_columns(names, columns, needed, optional, any_case, path, advice)
            # strict: a quote that nobody closes would otherwise swallow the rest of the table into one cell
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            named = {_place(columns, column) for column in classes}
            emptied: Counter[int] = Counter()
            lengths = _Lengths(len(names))
            for cells in reader:
                line = reader.line_num + len(first)
                _empty_missing(cells, named, emptied)
                if any(cells):
                    lengths.add(cells, line)
                    yield Row(path, line, cells, names, columns)
            if emptied and notes is not None:
                notes.append(_emptied_note(path, names, emptied))
            if notes is not None:
                notes += lengths.notes(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected CSV in UTF-8 in {path}, found other bytes at or after line {line + 1}; save it as UTF-8, or copy "
            "it again from its source"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"expected CSV in UTF-8 in {path}, below line {line}: {error}; correct the table"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"expected a whole gzip file in {path}: {error}; copy it again from its source"
        ) from error
    except OSError as error:
        raise InputError(
            f"could not read the table {path}: {error.strerror or error}; check the path"
        ) from error


def _empty_missing(cells: list[str], named: Set[int | None], emptied: Counter[int]) -> None:
    """Empty the cells that hold a word for nothing, and count them by column."""
    for at, cell in enumerate(cells):
        if not 1 < len(cell) <= _LONGEST_MISSING + 2:
            continue
        words = _SURELY_MISSING if at in named else MISSING
        if cell.strip().casefold() in words:
            cells[at] = ""
            emptied[at] += 1


@dataclass(slots=True)
class _Lengths:
    """Do rows have as many cells as the header (RFC 4180)? Empty cells at the end do not count.

    Attributes:
        header: number of cells of the header.
        rows, long, short: numbers of rows, of those with more cells, and of those with fewer.
    """

    header: int
    rows: int = 0
    long: int = 0
    short: int = 0
    _first_long: str = ""
    _first_short: str = ""

    def add(self, cells: Sequence[str], line: int) -> None:
        """Count one row."""
        self.rows += 1
        told = f"line {line}: {len(cells)} cells, {self.header} in the header"
        if len(cells) > self.header and any(cells[self.header :]):
            self.long += 1
            self._first_long = self._first_long or told
        elif len(cells) < self.header:
            self.short += 1
            self._first_short = self._first_short or told

    def notes(self, path: Path) -> list[str]:
        """What users must know of the table's rows."""
        if not self.rows:
            return [f"WARNING: {path.name} has a header but no rows"]
        notes = []
        if self.long:
            notes.append(
                f"WARNING: {counted(self.long, 'row has', 'rows have')} more cells than the header (first: {path.name} {self._first_long}): what they "
                "say may stand in wrong columns; quote cells that hold the separator"
            )
        if self.short:
            notes.append(
                f"{counted(self.short, 'row ends', 'rows end')} early (first: {path.name} {self._first_short}); what is missing counts as empty"
            )
        return notes


def _emptied_note(path: Path, names: Sequence[str], emptied: Counter[int]) -> str:
    by_column = ", ".join(
        f"{names[at].strip() if at < len(names) else at} {n:,}"
        for at, n in emptied.most_common(_MOST_COLUMNS_TOLD)
    )
    more = ", ..." if len(emptied) > _MOST_COLUMNS_TOLD else ""
    return f"{emptied.total():,} cells of {path.name} hold nan, null or the like and count as empty ({by_column}{more})"


def read_names(path: Path) -> list[str]:
    """The lines of a list of names, one a line, without blanks around them and without empty lines.

    Raises:
        InputError: the file cannot be read or is not text.
    """
    check_regular(path, "the list")
    try:
        return [
            line.strip()
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip()
        ]
    except OSError as error:
        raise InputError(
            f"could not read the list {path}: {error.strerror}; check the path"
        ) from error
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


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The table as text, unpacked."""
    if path.exists() and not path.is_file():
        raise InputError(f"could not read the table {path}: it is not a file; check the path")
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
        encoding = _encoding(content.peek(1024)[:1024], path)
        with io.TextIOWrapper(content, encoding=encoding, newline="") as text:
            yield text


def _encoding(head: bytes, path: Path) -> str:
    """By the first bytes.

    Raises:
        InputError: they are those of no text, or of an encoding that nobody should guess.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark) and encoding:
            return encoding
        if head.startswith(mark):
            break
    if head.startswith(b"PK\x03\x04"):
        raise InputError(
            f"expected CSV in {path}, found a zip archive or an Excel workbook; save it as CSV in UTF-8"
        )
    if b"\0" in head:
        raise InputError(
            f"expected CSV in UTF-8 in {path}, found bytes of no text; save it as CSV in UTF-8"
        )
    return "utf-8"


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError(
                f"expected CSV in {path}, found a line of more than {_LONGEST_LINE:,} characters; check it"
            )
        yield line


def _first_record(lines: Iterator[str]) -> list[str]:
    """The lines of the header: one, or more where a quoted name has line breaks in it."""
    first = [next(lines, "")]
    while (
        sum(line.count('"') for line in first) % 2
        and len(first) < _MOST_HEADER_LINES
        and (more := next(lines, ""))
    ):
        first.append(more)
    return first


def _header(
    record: Sequence[str], needed: Sequence[Column], any_case: bool
) -> tuple[list[str], str]:
    """Names of columns and the character between cells: the one that makes most of the needed columns, then most columns.

    Of equals the first of comma, semicolon and tab: a table of one column has none of them.
    """
    ranked = []
    for delimiter in _DELIMITERS:
        names = next(csv.reader(record, delimiter=delimiter), [])
        columns = _columns(names, any_case)
        made = sum(_place(columns, column) is not None for column in needed)
        ranked.append(((made, len(names)), names, delimiter))
    _, names, delimiter = max(ranked, key=lambda one: one[0])
    return names, delimiter


def _columns(names: Sequence[str], any_case: bool) -> dict[str, int]:
    columns: dict[str, int] = {}
    for at, name in enumerate(names):
        columns.setdefault(plain(name) if any_case else name.strip(), at)
    return columns


def _place(columns: Mapping[str, int], column: Column) -> int | None:
    if isinstance(column, str):
        return columns.get(column)
    return next((columns[name] for name in column if name in columns), None)


def _check_columns(
    names: Sequence[str],
    columns: Mapping[str, int],
    needed: Sequence[Column],
    optional: Sequence[Column],
    any_case: bool,
    path: Path,
    advice: str,
) -> None:
    first = [column if isinstance(column, str) else column[0] for column in needed]
    missing = [
        name for name, column in zip(first, needed, strict=True) if _place(columns, column) is None
    ]
    if missing:
        found = ", ".join(name for name in columns if name)[:300] or "nothing"
        if len(needed) == 1:
            raise InputError(f"expected a column {missing[0]!r} in {path}, found {found}; {advice}")
        raise InputError(
            f"expected the columns {', '.join(first)} in {path}, found {found}; missing: {', '.join(missing)}; {advice}"
        )
    used = {_place(columns, column) for column in (*needed, *optional)} - {None}
    for at, name in enumerate(names):
        twin = columns[plain(name) if any_case else name.strip()]
        if twin != at and twin in used:
            raise InputError(
                f"expected one column {name.strip()!r} in {path}, found it twice; rename one of them"
            )
