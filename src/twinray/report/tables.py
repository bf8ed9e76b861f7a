"""Tables of figures, described once and drawn twice: on a terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import rich.table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from twinray.evaluation.measures import count_title, title
from twinray.evaluation.measures import measure as registered
from twinray.evaluation.record import Figure, SplitFigures
from twinray.report.numbers import count, interval, interval_of, number, remark, signed, value_of

FROC_RATES = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
"""False positives per image at which the sensitivity is given (``froc@0.5``)."""

_SHORTEST_NAMES = 22
"""Letters to which the names of rows are broken, at least, where that keeps the other cells whole."""

_LONGEST_WORD = 12
"""Letters of a column's head that are kept together on a narrow terminal."""


@dataclass(frozen=True)
class Table:
    """A table of text, ready to be drawn.

    Attributes:
        caption: text on what it shows.
        columns: heads of the columns; the first column names the rows.
        rows: rows of as many cells as there are columns.
        note: facts that a reader must know, below the table.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[rich.table.Table | Text]:
        for piece in pieces(self, options.max_width):
            drawn = as_rich(piece, options.max_width)
            # Beside a narrow table rich would break its title and its note at the table's own width.
            title, note = drawn.title, drawn.caption
            drawn.title = drawn.caption = None
            yield Text(str(title), style="table.title")
            yield drawn
            if note:
                yield Text(str(note), style="table.caption")

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(
                f"table {self.caption!r}: {len(self.columns)} columns but a row of {len(wrong[0])}"
            )


def arms_table(
    rows: Sequence[tuple[str, SplitFigures]],
    measures: Sequence[str],
    caption: str = "Value (95 % interval)",
    *,
    over_seeds: bool = False,
) -> Table:
    """Arms side by side: one row an arm, in each cell a measure with its 95 % interval.

    Args:
        rows: (name, figures).
        measures: names.
        caption: text on what is shown.
        over_seeds: intervals over seeds instead of those over patients.
    """
    cells = tuple(
        (
            name,
            *(
                with_interval(
                    _of(figures.get(measure), over_seeds), digits=registered(measure).digits
                )
                for measure in measures
            ),
        )
        for name, figures in rows
    )
    return Table(caption, ("run", *map(title, measures)), cells)


def group_tables(rows: Sequence[tuple[str, SplitFigures]], measures: Sequence[str]) -> list[Table]:
    """A table an attribute: a row a group and arm, with how many images and patients the group has.

    Args:
        rows: (name, figures).
        measures: columns.
    """
    tables = []
    for attribute in dict.fromkeys(a for _, figures in rows for a in figures.subgroups):
        cells = []
        for group in dict.fromkeys(
            g for _, figures in rows for g in figures.subgroups.get(attribute, {})
        ):
            for name, figures in rows:
                own = figures.subgroups.get(attribute, {}).get(group)
                if own is None:
                    continue
                shown = (
                    with_interval(own.get(measure), digits=registered(measure).digits)
                    for measure in measures
                )
                who = group if len(rows) == 1 else f"{group}, {name}"
                first = own.get(measures[0])
                cells.append(
                    (
                        who,
                        count(own.counts.get("n_images")),
                        count(first.n if first else None),
                        *shown,
                    )
                )
        note = "Each group's images alone. No interval: too few patients to say."
        tables.append(
            Table(
                f"By {attribute}: value (95 % interval)",
                (attribute, "images", "patients", *map(title, measures)),
                tuple(cells),
                note,
            )
        )
    return tables


def difference_table(
    difference: SplitFigures, measures: Sequence[str], note: str = "", *, over_seeds: bool = False
) -> Table:
    """Measure, paired difference (candidate minus baseline), 95 % interval, share of resamples (or seeds) above zero."""
    figures = {measure: _of(difference.get(measure), over_seeds) for measure in measures}
    share_of = "seeds" if over_seeds else "resamples"
    return Table(
        "Paired differences on the same test images",
        ("measure", "difference", "95 % interval", f"{share_of} above 0"),
        tuple(
            (
                title(name),
                signed(value_of(d), registered(name).digits),
                interval(d, registered(name).digits, sign=True)
                if interval_of(d)
                else remark(d) or interval(d),
                _percent(None if d is None else d.share_above_zero),
            )
            for name, d in figures.items()
        ),
        note,
    )


def _of(figure: Figure | None, over_seeds: bool) -> Figure | None:
    return figure.over_seeds if over_seeds and figure is not None else figure


def class_tables(
    rows: Sequence[tuple[str, SplitFigures]], measure: str, counted: str, width: int
) -> list[Table]:
    """Each class with how often it occurs and every arm's measure; several tables where one would be too wide to read.

    Args:
        rows: (name, figures).
        measure: ``ap50``, ``auc`` or another that classes have.
        counted: the count beside it, ``n_boxes`` or ``n_positive``.
        width: letters that a table may take.
    """
    classes = list(dict.fromkeys(c for _, split in rows for c in split.per_class))
    if not classes:
        return []
    left = [(c, count(class_count(rows, c, counted))) for c in classes]
    caption = f"{title(measure)} of each class (95 % interval)"
    tables: list[Table] = []
    for name, split in rows:
        cells = [
            with_interval(split.get(measure, c), digits=registered(measure).digits) for c in classes
        ]
        last = tables[-1] if tables else None
        if last is not None and _narrowest(wider := _with_column(last, name, cells)) <= width:
            tables[-1] = wider
        else:
            tables.append(
                _with_column(
                    Table(caption, ("class", count_title(counted)), tuple(left)), name, cells
                )
            )
    return tables


def class_count(
    rows: Sequence[tuple[str, SplitFigures]], class_name: str, counted: str
) -> int | None:
    """How often a class occurs, by the first arm that says."""
    known = (
        split.per_class[class_name].counts.get(counted)
        for _, split in rows
        if class_name in split.per_class
    )
    return next((n for n in known if n is not None), None)


def _with_column(table: Table, head: str, cells: Sequence[str]) -> Table:
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    return Table(table.caption, (*table.columns, head), rows, table.note)


def pieces(table: Table, width: int) -> list[Table]:
    """The table, or where it is too wide several below each other, each with the names of the rows: an interval is never broken.

    Args:
        table: table to draw.
        width: width of the terminal, letters.
    """
    least = _least(table)
    names = min(least[0], _SHORTEST_NAMES)
    if sum(least) + 3 * len(least) + 1 <= width or len(least) < 3:
        return [table]
    parts: list[list[int]] = []
    for column in range(1, len(least)):
        taken = names + sum(least[i] + 3 for i in parts[-1]) + 4 if parts else width
        if parts and taken + least[column] + 3 <= width:
            parts[-1].append(column)
        else:
            parts.append([column])
    if len(parts) <= 1:
        return [table]
    found = []
    for part in parts:
        rows = tuple((row[0], *(row[i] for i in part)) for row in table.rows)
        heads = (table.columns[0], *(table.columns[i] for i in part))
        found.append(Table(table.caption, heads, rows, table.note if part is parts[-1] else ""))
    return found


def as_rich(table: Table, width: int | None = None) -> rich.table.Table:
    """For the terminal; cells are plain text, never markup.

    What does not fit goes on below and is never cut: the ends of names distinguish runs. Heads are
    broken before the names of rows are, and these before cells are.

    Args:
        table: table to draw.
        width: width of the terminal; where names are broken, lines keep the rows apart.
    """
    whole = width is None or _narrowest(table) <= width
    fits = whole or (width is not None and _narrowest(table, _SHORTEST_NAMES) <= width)
    drawn = rich.table.Table(
        title=Text(table.caption),
        title_justify="left",
        caption=Text(table.note) if table.note else None,
        show_lines=not whole,
    )
    drawn.caption_justify = "left"
    wide = (
        _column_widths(table, width) if width is not None and fits else [None] * len(table.columns)
    )
    for i, head in enumerate(table.columns):
        drawn.add_column(
            Text(head), justify="left" if i == 0 else "right", overflow="fold", width=wide[i]
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _least(table: Table, names: int | None = None) -> list[int]:
    """Letters that each column needs for its cells, and for the words of its head unless these are long."""
    columns: Iterable[Sequence[str]] = (
        zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    )
    words = [max((cell_len(word) for word in head.split()), default=0) for head in table.columns]
    least = [
        max([min(word, _LONGEST_WORD), *map(cell_len, cells)])
        for word, cells in zip(words, columns, strict=True)
    ]
    return least if names is None else [min(least[0], names), *least[1:]]


def _narrowest(table: Table, names: int | None = None) -> int:
    """Letters that the table takes on a terminal without broken cells; each column has a rule and two blanks.

    ``names``: letters of the first column after which its cells may be broken; None for never.
    """
    return sum(_least(table, names)) + 3 * len(table.columns) + 1


def _column_widths(table: Table, width: int) -> list[int]:
    """What the cells need; what is left of the width goes to heads that are longer, from left to right."""
    names = None if _narrowest(table) <= width else _SHORTEST_NAMES
    left, widths = width - _narrowest(table, names), _least(table, names)
    if names is not None:
        widths[0], left = widths[0] + left, 0
    for i, head in enumerate(table.columns):
        more = min(left, max(0, cell_len(head) - widths[i]))
        widths[i], left = widths[i] + more, left - more
    return widths


def as_html(table: Table) -> str:
    """For a page: caption, column and row heads with their scope; everything escaped."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{escape(table.caption)}</caption>"
    label = escape(table.caption, quote=True)
    return (
        f'<div class="table" role="region" aria-label="{label}" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def with_interval(figure: Figure | None, *, digits: int = 3, sign: bool = False) -> str:
    """``0.123 (0.100 to 0.145)``; the value alone where there is no interval; ``[too few to say]`` where that is so."""
    write = signed if sign else number
    text = write(value_of(figure), digits)
    if interval_of(figure) is not None:
        text += f" ({interval(figure, digits, sign=sign)})"
    limit = remark(figure)
    return f"{text} [{limit}]" if limit else text


def _percent(share: float | None) -> str:
    text = number(None if share is None else 100 * share, 0)
    return text if share is None else f"{text} %"
