"""Tables of figures, described once and drawn twice: on a terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import rich.table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from twinray.report.numbers import Figure, count, interval, interval_of, number, seconds, signed, value_of

FROC_RATES = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
"""False positives per image at which ``metrics.json`` gives the sensitivity (``froc@0.5``)."""

TITLES = {
    "map50": "mAP50",
    "map40": "mAP40",
    "map": "mAP",
    "froc": "FROC",
    "ap50": "AP50",
    "auc": "AUC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
}
"""Measures as papers write them."""

_LONGEST_WORD = 12
"""Letters of a column's head that are kept together on a narrow terminal."""


@dataclass(frozen=True)
class Table:
    """A table of text, ready to be drawn.

    Attributes:
        caption: what it shows.
        columns: heads of the columns; the first column names the rows.
        rows: as many cells as there are columns.
        note: what a reader must know, below the table.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[rich.table.Table]:
        yield as_rich(self, options.max_width)

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"table {self.caption!r}: {len(self.columns)} columns but a row of {len(wrong[0])}")


@dataclass(frozen=True)
class ArmRow:
    """One arm of a comparison: its name, its mAP50 and the seconds that its training took."""

    name: str
    map50: Figure | None
    seconds: float | None


def map50_table(rows: Sequence[ArmRow], note: str = "") -> Table:
    """Arm, mAP50, 95 % interval, seconds."""
    return Table(
        "Test images, mean average precision at IoU 0.5",
        ("arm", "mAP50", "95 % interval", "seconds"),
        tuple((r.name, number(value_of(r.map50)), interval(r.map50), seconds(r.seconds)) for r in rows),
        note,
    )


def arms_table(
    rows: Sequence[tuple[str, Mapping[str, Any]]], measures: Sequence[str], caption: str = "Value (95 % interval)"
) -> Table:
    """Runs side by side: one row a run, in each cell a measure with its 95 % interval.

    Args:
        rows: (name of the run, figures of one split as ``metrics.json`` holds them).
        measures: names of the measures, as in ``metrics.json``.
        caption: what is shown.
    """
    cells = tuple((name, *(_with_interval(figures.get(measure)) for measure in measures)) for name, figures in rows)
    heads = tuple(TITLES.get(measure, measure) for measure in measures)
    return Table(caption, ("run", *heads), cells)


def difference_table(differences: Mapping[str, Figure | None], note: str = "", share_of: str = "resamples") -> Table:
    """Measure, paired difference (candidate minus baseline), 95 % interval, share of resamples (or seeds) above zero."""
    return Table(
        "Paired differences on the same test images",
        ("measure", "difference", "95 % interval", f"{share_of} above 0"),
        tuple(
            (name, signed(value_of(d)), interval(d, sign=True), _percent((d or {}).get("share_above_zero")))
            for name, d in differences.items()
        ),
        note,
    )


def per_class_table(arms: Mapping[str, Mapping[str, Any]], measure: str = "ap50", note: str = "") -> Table:
    """Average precision of every class of every arm.

    Args:
        arms: arm name -> figures of one split as ``metrics.json`` holds them.
        measure: ``ap50``, ``ap40`` or ``ap``.
        note: below the table.
    """
    heads = [head for name in arms for head in (name, "95 % interval")]
    classes = list(dict.fromkeys(c for split in arms.values() for c in split.get("per_class") or {}))
    rows = []
    for class_name in classes:
        by_arm = [(split.get("per_class") or {}).get(class_name, {}) for split in arms.values()]
        boxes = next((figures["n_boxes"] for figures in by_arm if "n_boxes" in figures), None)
        cells = [text for f in by_arm for text in (number(value_of(f.get(measure))), interval(f.get(measure)))]
        rows.append((class_name, count(boxes), *cells))
    caption = f"Average precision of each class, {measure.upper()}"
    return Table(caption, ("class", "true boxes", *heads), tuple(rows), note)


def class_tables(
    rows: Sequence[tuple[str, Mapping[str, Any]]], measure: str, counted: str, width: int, counted_title: str
) -> list[Table]:
    """Each class with how often it occurs and every run's measure; several tables where one would be too wide to read.

    Args:
        rows: (name of the run, figures of one split as ``metrics.json`` holds them).
        measure: ``ap50``, ``auc`` or another that classes have.
        counted: the count beside it, ``n_boxes`` or ``n_positive``.
        width: letters that a table may take.
        counted_title: head of the column of counts.
    """
    classes = list(dict.fromkeys(c for _, split in rows for c in split.get("per_class") or {}))
    if not classes:
        return []
    by_run = [(name, [(split.get("per_class") or {}).get(c) or {} for c in classes]) for name, split in rows]
    known = [next((own[i][counted] for _, own in by_run if counted in own[i]), None) for i in range(len(classes))]
    left = [(c, count(n)) for c, n in zip(classes, known, strict=True)]
    caption = f"{TITLES.get(measure, measure)} of each class (95 % interval)"
    tables: list[Table] = []
    for name, own in by_run:
        cells = [_with_interval(figures.get(measure)) for figures in own]
        last = tables[-1] if tables else None
        if last is not None and _narrowest(wider := _with_column(last, name, cells)) <= width:
            tables[-1] = wider
        else:
            tables.append(_with_column(Table(caption, ("class", counted_title), tuple(left)), name, cells))
    return tables


def _with_column(table: Table, head: str, cells: Sequence[str]) -> Table:
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    return Table(table.caption, (*table.columns, head), rows, table.note)


def froc_table(arms: Mapping[str, Mapping[str, Any]], note: str = "") -> Table:
    """Sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image, and their mean (``froc``).

    Args:
        arms: arm name -> figures of one split as ``metrics.json`` holds them.
        note: below the table.
    """
    rows = tuple(
        (
            name,
            *(number(value_of(split.get(f"froc@{rate}")), 2) for rate in FROC_RATES),
            number(value_of(split.get("froc"))),
        )
        for name, split in arms.items()
    )
    return Table("Sensitivity at so many false positives per image (FROC)", ("arm", *FROC_RATES, "mean"), rows, note)


def as_rich(table: Table, width: int | None = None) -> rich.table.Table:
    """For the terminal; cells are plain text, never markup.

    What does not fit goes on below and is never cut: the ends of names tell runs apart. Heads are broken before cells are.

    Args:
        table: to draw.
        width: of the terminal; where not even the cells fit, lines keep the rows apart.
    """
    fits = width is None or _narrowest(table) <= width
    drawn = rich.table.Table(
        title=Text(table.caption),
        title_justify="left",
        caption=Text(table.note) if table.note else None,
        show_lines=not fits,
    )
    drawn.caption_justify = "left"
    wide = _column_widths(table, width) if width is not None and fits else [None] * len(table.columns)
    for i, head in enumerate(table.columns):
        drawn.add_column(Text(head), justify="left" if i == 0 else "right", overflow="fold", width=wide[i])
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _least(table: Table) -> list[int]:
    """Letters that each column needs for its cells, and for the words of its head unless these are long."""
    columns: Iterable[Sequence[str]] = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    words = [max((cell_len(word) for word in head.split()), default=0) for head in table.columns]
    return [max([min(word, _LONGEST_WORD), *map(cell_len, cells)]) for word, cells in zip(words, columns, strict=True)]


def _narrowest(table: Table) -> int:
    """Letters that the table takes on a terminal without broken cells; each column has a rule and two blanks."""
    return sum(_least(table)) + 3 * len(table.columns) + 1


def _column_widths(table: Table, width: int) -> list[int]:
    """What the cells need; what is left of the width goes to heads that are longer, from left to right."""
    left, widths = width - _narrowest(table), _least(table)
    for i, head in enumerate(table.columns):
        more = min(left, max(0, cell_len(head) - widths[i]))
        widths[i], left = widths[i] + more, left - more
    return widths


def as_html(table: Table) -> str:
    """For a page: caption, column and row heads with their scope; everything escaped."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{escape(table.caption)}</caption>"
    label = escape(table.caption, quote=True)
    return (
        f'<div class="table" role="region" aria-label="{label}" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _with_interval(figure: Figure | None) -> str:
    if value_of(figure) is None or interval_of(figure) is None:
        return number(value_of(figure))
    return f"{number(value_of(figure))} ({interval(figure)})"


def _percent(share: Any) -> str:
    text = number(None if share is None else 100 * share, 0)
    return text if share is None else f"{text} %"
