"""The CSV that may go with a folder of images: one row an image, with its patient, split and labels.

Columns: ``path`` (or ``file``, ``filename``, ``image``, ...), and any of ``patient`` (``patient_id``, ``Patient ID``,
``subject_id``, ...), ``split``, ``label`` (or ``labels``, ``class``). The names that are known are those of
:mod:`twinray.data.readers.columns`. Encodings and delimiters are those of :mod:`twinray.data.readers.tabular`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinray.data.readers import columns
from twinray.data.readers.columns import plain
from twinray.data.readers.tabular import Row, read_rows
from twinray.errors import InputError
from twinray.records import Skipped, Split, split_of

_FEW_UNKNOWN = 0.01
"""Share of rows of an unknown split that may be typing errors, to be set aside one by one."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """What the table states of one image; None or empty where a cell is blank or there is no column."""

    patient: str | None = None
    split: Split | None = None
    labels: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Names of the columns that are read, as the header has them; None where there is none."""

    path: str
    patient: str | None
    split: str | None
    label: str | None

    @property
    def used(self) -> tuple[str, ...]:
        """Those there are, in their plain form."""
        found = (self.path, self.patient, self.split, self.label)
        return tuple(plain(name) for name in found if name is not None)


def read_table(
    table: Path,
    names: Sequence[str],
    skipped: list[Skipped],
    notes: list[str],
    *,
    patient_column: str | None = None,
) -> dict[str, TableRow]:
    """Read ``table`` and match its rows with the image paths ``names``.

    Rows that name no image, or one twice, or an unknown split, are added to ``skipped``.

    Args:
        table: path of the CSV.
        names: paths of the images.
        skipped: list that gets what is set aside.
        notes: list that gets what users must know: which columns were read, and which look as if they should be.
        patient_column: column that holds patients, where its name is none of the known ones.

    Raises:
        InputError: the table cannot be read, has no path column, or names none of the images; ``patient_column`` is not
            there; or many rows have an unknown split, since splits would be cut anew without them.
    """
    everything = list(
        read_rows(
            table,
            (columns.PATH,),
            optional=(columns.PATIENT, ("split",), columns.LABEL),
            any_case=True,
            advice="rename it",
            notes=notes,
            classes=(columns.LABEL,),
        )
    )
    chosen = _columns(table, everything, patient_column, notes)
    _check_splits(table, everything, chosen.split)
    rows: dict[str, TableRow] = {}
    find = _Finder(names)
    for row in everything:
        cell = row[plain(chosen.path)]
        name = find(cell)
        parsed = _parse(row, chosen)
        if name is None:
            reason = f"expected the path of one image of the folder, got {cell!r}; correct the row"
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


def _columns(table: Path, rows: Sequence[Row], wanted: str | None, notes: list[str]) -> _Columns:
    """Which columns are read; what the others look like is noted."""
    header = [name for name in rows[0].header if name.strip()] if rows else []
    path = columns.find(header, columns.PATH) or "path"
    patient = columns.patient_column(header, wanted, str(table))
    label = columns.find(header, columns.LABEL)
    cells = {
        name: {row[plain(name)] for row in rows}
        for name in header
        if name not in (path, patient, label)
    }
    split = columns.split_column(cells)
    found = {"patients": patient, "splits": split, "labels": label}
    told = ", ".join(f"{what} from {name!r}" for what, name in found.items() if name is not None)
    lacking = ", ".join(what for what, name in found.items() if name is None)
    notes.append(
        f"{table.name} gives {told or 'no patients, splits or labels'}"
        + (f"; no column of {lacking}" if told and lacking else "")
    )
    others = [name for name in header if name not in (path, patient, split, label)]
    for note in (
        columns.unread_patients(others, patient),
        columns.unread_splits({name: cells[name] for name in others}, split),
        columns.unread_labels({name: cells[name] for name in others}, label),
    ):
        notes += [] if note is None else [note]
    return _Columns(path, patient, split, label)


def _check_splits(table: Path, rows: Sequence[Row], split: str | None) -> None:
    """Refuse a table of which many rows name a split that is not known."""
    if split is None:
        return
    unknown = Counter(
        word for row in rows if (word := row[plain(split)]) and split_of(word) is None
    )
    if unknown.total() > max(1, _FEW_UNKNOWN * len(rows)):
        words = ", ".join(f"{word!r} ({n:,} rows)" for word, n in unknown.most_common(5))
        raise InputError(
            f"expected train, val or test in column {split!r} of {table}, found {words}; nothing was cut: "
            "write train, val or test, or leave the cells empty"
        )


def _parse(row: Row, chosen: _Columns) -> TableRow | str:
    """The row, or why it is refused."""
    split = "" if chosen.split is None else row[plain(chosen.split)]
    if split and split_of(split) is None:
        return f"expected train, val or test in column {chosen.split!r}, got {split!r}; correct the row"
    label = "" if chosen.label is None else row[plain(chosen.label)]
    return TableRow(
        patient=(row[plain(chosen.patient)] if chosen.patient else "") or None,
        split=split_of(split),
        labels=tuple(dict.fromkeys(part.strip() for part in label.split("|") if part.strip())),
        attributes=row.others(chosen.used),
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
