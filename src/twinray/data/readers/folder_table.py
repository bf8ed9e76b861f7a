"""The CSV that may go with a folder of images: one row an image, with its patient, split and labels.

Columns: ``path`` (or ``file``, ``filename``, ``file_name``, ``image``), and any of ``patient`` (or
``patient_id``), ``split``, ``label`` (or ``labels``, ``class``). Header names count in any case. UTF-8, commas.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinray.errors import InputError
from twinray.records import Skipped, Split, split_of

_NAMES = {
    "path": ("path", "file", "filename", "file_name", "image"),
    "patient": ("patient", "patient_id"),
    "split": ("split",),
    "label": ("label", "labels", "class"),
}


@dataclass(frozen=True, slots=True)
class TableRow:
    """What the table states of one image; None or empty where a cell is blank or there is no column."""

    patient: str | None = None
    split: Split | None = None
    labels: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


def read_table(table: Path, names: Sequence[str], skipped: list[Skipped]) -> dict[str, TableRow]:
    """Read ``table`` and match its rows with the image paths ``names``.

    Rows that name no image, or one twice, or an unknown split, are added to ``skipped``.

    Raises:
        InputError: the table cannot be read, has no path column, or names none of the images.
    """
    rows: dict[str, TableRow] = {}
    find = _Finder(names)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = _columns(reader.fieldnames, table)
            for row in reader:
                where = f"{table} line {reader.line_num}"
                path = (row.get(columns["path"]) or "").strip()
                name = find(path)
                parsed = _parse(row, columns)
                if name is None:
                    skipped.append(
                        Skipped(where, f"expected the path of one image of the folder, got {path!r}; correct the row")
                    )
                elif name in rows:
                    skipped.append(Skipped(where, f"{name} already has a row further up; keep one of them"))
                elif isinstance(parsed, str):
                    skipped.append(Skipped(where, parsed))
                else:
                    rows[name] = parsed
    except OSError as error:
        raise InputError(f"could not read the table {table}: {error.strerror}; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"expected CSV in UTF-8 in {table}: {error}; save it as such") from error
    if not rows:
        first = f" (first: {skipped[-1].where}: {skipped[-1].reason})" if skipped else ""
        raise InputError(f"no row of {table} names an image of the folder{first}; the path column is relative to it")
    return rows


def _columns(header: Sequence[str] | None, table: Path) -> dict[str, str]:
    by_lower = {name.strip().lower(): name for name in header or () if name}
    columns = {
        what: next(by_lower[name] for name in spellings if name in by_lower)
        for what, spellings in _NAMES.items()
        if any(name in by_lower for name in spellings)
    }
    if "path" not in columns:
        raise InputError(
            f"expected a column 'path' in {table}, found {', '.join(header or ()) or 'nothing'}; rename it"
        )
    return columns


def _parse(row: dict[str, str], columns: dict[str, str]) -> TableRow | str:
    """The row, or why it is refused."""
    values = {what: (row.get(column) or "").strip() for what, column in columns.items()}
    split = values.get("split", "")
    if split and split_of(split) is None:
        return f"expected train, val or test in column {columns['split']!r}, got {split!r}; correct the row"
    used = set(columns.values())
    return TableRow(
        patient=values.get("patient") or None,
        split=split_of(split),
        labels=tuple(dict.fromkeys(part.strip() for part in values.get("label", "").split("|") if part.strip())),
        attributes={
            key: value for key, value in row.items() if key and key not in used and isinstance(value, str) and value
        },
    )


class _Finder:
    """Finds an image by its path, or by its bare name where only one image has it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        bare = Counter(name.rsplit("/", 1)[-1] for name in names)
        self._bare = {name.rsplit("/", 1)[-1]: name for name in names if bare[name.rsplit("/", 1)[-1]] == 1}

    def __call__(self, path: str) -> str | None:
        path = PurePosixPath(path.replace("\\", "/")).as_posix()
        return path if path in self._names else self._bare.get(path)
