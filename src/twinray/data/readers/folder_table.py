"""The CSV that may go with a folder of images: one row an image, with its patient, split and labels.

Columns: ``path`` (or ``file``, ``filename``, ``file_name``, ``image``), and any of ``patient`` (or
``patient_id``), ``split``, ``label`` (or ``labels``, ``class``). Header names count in any case. Encodings and
delimiters are those of :mod:`twinray.data.readers.tabular`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinray.data.readers.tabular import Row, read_rows
from twinray.errors import InputError
from twinray.records import Skipped, Split, split_of

_PATH = ("path", "file", "filename", "file_name", "image")
_PATIENT = ("patient", "patient_id")
_SPLIT = ("split",)
_LABEL = ("label", "labels", "class")


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
    for row in read_rows(
        table, (_PATH,), optional=(_PATIENT, _SPLIT, _LABEL), any_case=True, advice="rename it"
    ):
        name = find(row[_PATH])
        parsed = _parse(row)
        if name is None:
            reason = (
                f"expected the path of one image of the folder, got {row[_PATH]!r}; correct the row"
            )
            skipped.append(Skipped(row.where, reason))
        elif name in rows:
            skipped.append(
                Skipped(row.where, f"{name} already has a row further up; keep one of them")
            )
        elif isinstance(parsed, str):
            skipped.append(Skipped(row.where, parsed))
        else:
            rows[name] = parsed
    if not rows:
        first = f" (first: {skipped[-1].where}: {skipped[-1].reason})" if skipped else ""
        raise InputError(
            f"no row of {table} names an image of the folder{first}; the path column is relative to it"
        )
    return rows


def _parse(row: Row) -> TableRow | str:
    """The row, or why it is refused."""
    split = row[_SPLIT]
    if split and split_of(split) is None:
        return f"expected train, val or test in column 'split', got {split!r}; correct the row"
    return TableRow(
        patient=row[_PATIENT] or None,
        split=split_of(split),
        labels=tuple(
            dict.fromkeys(part.strip() for part in row[_LABEL].split("|") if part.strip())
        ),
        attributes=row.others((_PATH, _PATIENT, _SPLIT, _LABEL)),
    )


class _Finder:
    """Finds an image by its path, or by its bare name where only one image has it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        bare = Counter(name.rsplit("/", 1)[-1] for name in names)
        self._bare = {
            name.rsplit("/", 1)[-1]: name for name in names if bare[name.rsplit("/", 1)[-1]] == 1
        }

    def __call__(self, path: str) -> str | None:
        path = PurePosixPath(path.replace("\\", "/")).as_posix()
        return path if path in self._names else self._bare.get(path)
