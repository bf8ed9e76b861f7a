"""Progress that a person can follow: a bar on a terminal, a line now and then in a log.

Both show the rate, the time left and, for training, the share of time spent waiting for data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LOG_EVERY_S = 10.0

_live: Progress | None = None
"""The bars on the terminal now. A terminal has one last line, so bars inside bars share one display."""


class Meter:
    """Counts finished units of work and shows them; made by :func:`progress`."""

    def __init__(
        self, label: str, total: int, unit: str, bar: Progress | None, done: int = 0
    ) -> None:
        self._label, self._total, self._unit, self._bar = label, total, unit, bar
        self._done = self._done_at_start = done
        self._start = self._last_line = time.monotonic()
        self._task = bar.add_task(label, total=total, completed=done, note="") if bar else None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` further units; ``note`` is a short text such as ``loss 12.3, data wait 1 %``."""
        self._done += n
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self._done - self._done_at_start) / elapsed
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(self._task, advance=n, note=f"{rate:,.1f} {self._unit}/s  {note}")
        elif time.monotonic() - self._last_line >= _LOG_EVERY_S or self._done == self._total:
            self._last_line = time.monotonic()
            left = (self._total - self._done) / rate if rate > 0 else float("inf")
            print(
                f"{self._label}: {self._done}/{self._total} {self._unit}, {rate:,.1f}/s, {left:.0f} s left  {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def remove(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


@contextmanager
def progress(label: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Meter]:
    """Show progress of ``total`` units on standard error while the block runs.

    Inside another such block a second bar appears below the first, and goes when the inner block ends.

    Args:
        label: text on what is being done, in a few words.
        total: number of units in all.
        unit: unit that is counted, in the plural.
        done: units already finished by an earlier, interrupted run.
    """
    console = _console()
    if not console.is_terminal:
        yield Meter(label, total, unit, None, done)
    elif _live is not None:
        meter = Meter(label, total, unit, _live, done)
        try:
            yield meter
        finally:
            meter.remove()
    else:
        with _display(console) as bar:
            yield Meter(label, total, unit, bar, done)


@contextmanager
def _display(console: Console) -> Iterator[Progress]:
    """The terminal's one display, to which inner bars add theirs while the block runs."""
    global _live
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        _live = bar
        try:
            yield bar
        finally:
            _live = None


def _console() -> Console:
    return Console(stderr=True)
