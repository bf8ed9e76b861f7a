"""Bars on a terminal, bars inside bars, lines in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from twinray import progress as module
from twinray.progress import progress


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal of 120 columns is sent."""
    screen = io.StringIO()
    monkeypatch.setattr(
        module,
        "_console",
        lambda: Console(force_terminal=True, file=screen, width=120, color_system=None),
    )
    return screen


def last_frame(screen: io.StringIO) -> str:
    """The lines that stand on the terminal: what was sent since the cursor last went back to the first of them."""
    return re.sub(
        r"\x1b\[[0-9;?]*[A-Za-z]",
        "",
        re.split(r"\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", screen.getvalue())[-1],
    )


def redraw() -> None:
    assert module._live is not None
    module._live.refresh()


def test_a_bar_inside_a_bar_leaves_both_standing(terminal):
    with progress("training", 10) as outer:
        outer.advance(4, "loss 1.5")
        with progress("validation", 6, unit="rows") as inner:
            inner.advance(2)
            redraw()
            shown = last_frame(terminal)
            assert re.search(r"training .* 4/10 .*loss 1.5", shown)
            assert re.search(r"validation .* 2/6 .*rows/s", shown)
            outer.advance()
        redraw()
        assert "validation" not in last_frame(terminal)
        outer.advance(5)
        inner.advance()  # too late; nothing to show it on
    shown = last_frame(terminal)
    assert re.search(r"training .* 10/10", shown)
    assert "validation" not in shown
    assert module._live is None


def test_an_error_inside_ends_both(terminal):
    def fail() -> None:
        with progress("outer", 2), progress("inner", 2):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert module._live is None
    with progress("next", 1) as meter:
        meter.advance()
    assert re.search(r"next .* 1/1", last_frame(terminal))


def test_a_resumed_job_begins_where_it_was(terminal):
    with progress("training", 10, done=7):
        redraw()
        assert re.search(r"training .* 7/10", last_frame(terminal))


def test_a_log_gets_lines(capsys):
    with progress("outer", 2) as outer:
        with progress("inner", 1, unit="files") as inner:
            inner.advance()
        outer.advance(2, "loss 3")
    lines = capsys.readouterr().err.splitlines()
    assert re.match(r"inner: 1/1 files, .*/s, 0 s left", lines[0])
    assert re.match(r"outer: 2/2 images, .* loss 3$", lines[1])
