"""How figures are written for people: the one place of these rules.

What does not exist (None, NaN, infinite) reads ``not defined``. Texts are plain ASCII for terminals and files; ``typeset`` gives
a page its real minus sign.
"""

from __future__ import annotations

import math
import re
from typing import Any

from twinray.evaluation.record import Figure
from twinray.words import counted

NOT_DEFINED = "not defined"


def value_of(figure: Figure | None) -> float | None:
    """The value of a figure; None where it does not exist."""
    return None if figure is None else finite(figure.value)


def interval_of(figure: Figure | None) -> tuple[float, float] | None:
    """The 95 % interval of a figure; None where it does not exist."""
    ends = None if figure is None else figure.ci95
    low, high = (None, None) if ends is None else map(finite, ends)
    return None if low is None or high is None else (low, high)


def finite(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Any, digits: int = 3) -> str:
    """``0.123``; ``not defined`` for what does not exist."""
    known = finite(value)
    return NOT_DEFINED if known is None else _without_minus_zero(f"{known:.{digits}f}")


def signed(value: Any, digits: int = 3) -> str:
    """``+0.123`` or ``-0.123``: a difference always shows its sign."""
    known = finite(value)
    return NOT_DEFINED if known is None else _without_minus_zero(f"{known:+.{digits}f}", "+")


def interval(figure: Figure | None, digits: int = 3, *, sign: bool = False) -> str:
    """``0.123 to 0.456``."""
    ends = interval_of(figure)
    write = signed if sign else number
    return NOT_DEFINED if ends is None else f"{write(ends[0], digits)} to {write(ends[1], digits)}"


def remark(figure: Figure | None) -> str:
    """``too few to say`` or another limit of a figure, short enough for a cell; empty where nothing limits it."""
    note = "" if figure is None else figure.note
    return note.partition(":")[0] if note.startswith("too ") else ""


def count(value: Any, what: str = "", plural: str | None = None) -> str:
    """``1,234 boxes``, ``1 box``; ``plural`` where it is not ``what`` and an s."""
    known = finite(value)
    if known is None:
        return NOT_DEFINED
    return counted(round(known), what, plural or "") if what else f"{round(known):,}"


def seconds(value: Any) -> str:
    """``47``, ``0.4``: whole seconds from one second up, for a column headed seconds."""
    known = finite(value)
    if known is None:
        return NOT_DEFINED
    return f"{known:,.0f}" if known >= 1 else f"{known:.1f}"


def duration(value: Any) -> str:
    """``2 min 5 s``."""
    known = finite(value)
    if known is None:
        return NOT_DEFINED
    if known < 60:
        return f"{seconds(known)} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _without_minus_zero(text: str, zero_sign: str = "") -> str:
    """``-0.000`` is a difference too small to show, not a loss."""
    return text if text.strip("+-0.") else zero_sign + text.lstrip("+-")


def typeset(text: str) -> str:
    """The text with a real minus sign before each negative number."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
