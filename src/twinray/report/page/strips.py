"""Charts that are part of the page: rows of names, strips and numbers; curves. Places are worked out here, drawn by the templates.

A strip is as wide as the page lets it be. Every place is a share of its width, in percent, so that
marks and letters keep their size. A mark is hollow where an interval includes 0, and for nothing
else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twinray.evaluation.record import Figure
from twinray.report.numbers import (
    NOT_DEFINED,
    interval,
    interval_of,
    number,
    remark,
    signed,
    typeset,
    value_of,
)
from twinray.report.palette import Look
from twinray.report.tables import Table


@dataclass(frozen=True)
class Scale:
    """An axis: from ``low`` to ``high``, with at most five ticks as (place in percent, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Place of a value, percent of the width; beyond the ends the end."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def scale_of(
    values: Iterable[float], *, zero: bool = False, sign: bool = False, upper: float | None = None
) -> Scale:
    """An axis that holds the values with some room, from round number to round number.

    Args:
        values: values to hold.
        zero: 0 is on it in any case.
        sign: ticks show their sign.
        upper: greatest value that there can be.
    """
    known = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low >= 0 and low < 1.5 * (high - low):
        low = 0.0
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.01
    low, high = (low if low == 0 and not zero else low - room), high + room
    if not sign:  # no room where no value can be
        low = max(low, 0.0) if min(known) >= 0 else low
        high = min(high, upper) if upper is not None and max(known) <= upper else high
    step = _step(low, high, _MOST_SIGNED if sign else _MOST_TICKS)
    first = math.ceil(low / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) + (
        round(step / 10 ** math.floor(math.log10(step)), 6) == 2.5
    )
    values_of_ticks = [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
    scale = Scale(low, high, ())
    write = signed if sign else number
    ticks = tuple(
        (scale.at(v), "0" if abs(v) < step / 2 else typeset(write(v, digits)))
        for v in values_of_ticks
    )
    return Scale(low, high, ticks)


def _step(low: float, high: float, most: int) -> float:
    """The smallest round step with at most so many ticks from ``low`` to ``high``."""
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = size * factor
        if math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) < most:
            return step
    return high - low


_MOST_TICKS, _MOST_SIGNED = 5, 3
"""Ticks of an axis, and of one of differences, whose strip is narrower and whose numbers are longer."""


@dataclass(frozen=True)
class Mark:
    """A figure on a strip, in percent of its width.

    Attributes:
        x: value; None where there is no figure, which is drawn hatched.
        ends: ends of the interval; None without one.
        cut: flags of whether it goes on beyond the left and the right end.
        hollow: the interval includes 0.
        runs: the single runs, as small ticks.
        dashed: some planned runs behind it are missing.
        hatched: it is no test figure.
    """

    x: float | None
    ends: tuple[float, float] | None = None
    cut: tuple[bool, bool] = (False, False)
    hollow: bool = False
    runs: tuple[float, ...] = ()
    dashed: bool = False
    hatched: bool = False


def mark_of(figure: Figure | None, scale: Scale, *, difference: bool = False) -> Mark:
    """Where a figure stands on an axis."""
    value, ends = value_of(figure), interval_of(figure)
    if value is None or figure is None:
        return Mark(None)
    runs = [v for row in figure.runs for v in row if v is not None]
    return Mark(
        scale.at(value),
        None if ends is None else (scale.at(ends[0]), scale.at(ends[1])),
        (False, False) if ends is None else (ends[0] < scale.low, ends[1] > scale.high),
        difference and not figure.excludes_zero,
        tuple(scale.at(v) for v in runs) if len(runs) > 1 else (),
    )


@dataclass(frozen=True)
class Told:
    """A figure in words: its value and its interval."""

    value: str
    interval: str


def told(figure: Figure | None, digits: int = 3, *, sign: bool = False, few: bool = False) -> Told:
    """A figure for a row; one that rests on too little has its value alone."""
    if value_of(figure) is None or figure is None:
        return Told("no figure", figure.note if figure is not None and figure.note else NOT_DEFINED)
    value = typeset((signed if sign else number)(value_of(figure), digits))
    if few:
        return Told(value, "too few to say")
    limit = remark(figure)
    ends = (
        typeset(interval(figure, digits, sign=sign))
        if interval_of(figure)
        else limit or figure.note or "no interval"
    )
    if limit and interval_of(figure):
        ends += f", {limit}"
    return Told(value, ends)


@dataclass(frozen=True)
class Row:
    """One arm of a forest.

    Attributes:
        name: whole. shown: cut in the middle where it is long.
        look: look of the arm.
        small: below the name.
        value, mark: value and mark of the arm.
        difference, difference_mark: difference from the arm that it is compared with; None where
            there is none to show.
        against: text that stands in place of a difference.
    """

    name: str
    shown: str
    look: Look
    small: str
    value: Told
    mark: Mark
    difference: Told | None = None
    difference_mark: Mark | None = None
    against: str = ""


@dataclass(frozen=True)
class Forest:
    """A measure of every arm: names, strips and numbers; beside them the differences on an axis of their own.

    Attributes:
        title: statement of what was found. sub: measure, images, what the intervals are over.
        measure: its name. scale: of the values.
        difference_head: above the differences; empty without any. difference_scale: of them; None without any.
        zero: place of 0 on it.
        rows: the arms.
        says, shown: word, and flag, of whether the last arm's difference is shown.
        numbers: behind the figure. csv: name of the file that has them.
        note: below the figure.
        runs: some row shows its single runs.
        compact: a title of the second rank.
    """

    title: str
    sub: str
    measure: str
    scale: Scale
    rows: tuple[Row, ...]
    difference_head: str = ""
    difference_scale: Scale | None = None
    says: str = ""
    shown: bool | None = None
    numbers: Table | None = None
    csv: str = ""
    note: str = ""
    compact: bool = False

    @property
    def zero(self) -> float:
        """Place of 0 among the differences."""
        return 0.0 if self.difference_scale is None else self.difference_scale.at(0.0)

    @property
    def hollow(self) -> bool:
        """Whether some mark is hollow."""
        return any(
            row.difference_mark is not None and row.difference_mark.hollow for row in self.rows
        )

    @property
    def runs(self) -> bool:
        """Whether some row shows its single runs."""
        return any(row.mark.runs for row in self.rows)

    @property
    def dashed(self) -> bool:
        """Whether runs are missing behind some row."""
        return any(row.mark.dashed for row in self.rows)

    @property
    def sealed(self) -> bool:
        """Whether its marks are no test figures."""
        return any(row.mark.hatched for row in self.rows)

    @property
    def empty(self) -> bool:
        """Whether some row has no figure."""
        return any(row.mark.x is None for row in self.rows)


@dataclass(frozen=True)
class BarRow:
    """One class of a chart by class, or one group of patients.

    Attributes:
        name, shown: whole, and cut in the middle.
        n: number of its occurrences.
        marks: (look, mark) of the arms that are drawn.
        difference: difference in words; None without one. difference_mark: on its axis.
        value: value in words, where there is no difference.
    """

    name: str
    shown: str
    n: str
    marks: tuple[tuple[Look, Mark], ...]
    value: Told | None
    difference: Told | None = None
    difference_mark: Mark | None = None


@dataclass(frozen=True)
class Bars:
    """Classes or groups as rows: value strips of some arms, the difference, the numbers.

    Attributes:
        title, sub: texts as of a forest.
        head, n_head: above the names and the counts.
        measure: its name. scale: of the values.
        arms: (name, look) of the arms that are drawn.
        rows, rare: those with enough behind them, and those without.
        rare_head: above the latter.
        difference_scale, look: scale and look of the differences; None without.
        numbers, csv, note: parts as of a forest.
    """

    title: str
    sub: str
    head: str
    n_head: str
    measure: str
    scale: Scale
    arms: tuple[tuple[str, Look], ...]
    rows: tuple[BarRow, ...]
    rare: tuple[BarRow, ...] = ()
    rare_head: str = ""
    difference_scale: Scale | None = None
    look: Look | None = None
    numbers: Table | None = None
    csv: str = ""
    note: str = ""

    @property
    def zero(self) -> float:
        """Place of 0 among the differences."""
        return 0.0 if self.difference_scale is None else self.difference_scale.at(0.0)


@dataclass(frozen=True)
class Line:
    """One arm's curve, in percent from the left and from the bottom.

    Attributes:
        name: name of the arm. look: look of it.
        points: points of the curve. band: outline of its interval; empty without.
        bars: (x, low, high) intervals at single points.
    """

    name: str
    shown: str
    look: Look
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()
    bars: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Curves:
    """Curves of all arms in one chart; from five arms on one panel an arm, with the others thin behind.

    Attributes:
        title, sub: texts as of a forest.
        y_label, x_label: labels with unit. y_ticks, x_ticks: (place, text).
        lines: the arms.
        alt: the result, for readers who do not see it.
        numbers, csv, note: parts as of a forest.
    """

    title: str
    sub: str
    y_label: str
    x_label: str
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    alt: str
    numbers: Table | None = None
    csv: str = ""
    note: str = ""

    @property
    def panels(self) -> tuple[tuple[Line, ...], ...]:
        """Lines of each panel, the last one in front."""
        if len(self.lines) < 5:
            return (self.lines,)
        return tuple(
            (*(other for other in self.lines if other is not own), own) for own in self.lines
        )


def all_values(figures: Sequence[Figure | None]) -> list[float]:
    """Values and ends of intervals that exist."""
    return [v for f in figures for v in (value_of(f), *(interval_of(f) or ())) if v is not None]
