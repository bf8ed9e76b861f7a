"""Errors that a user can act on.

Every message says what was expected, what came, where, and what to do next. The command
line prints it as one line, without a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable


class TwinrayError(Exception):
    """A failure with a known cause that is not the user's input (a full disk, say): exit status 1."""

    exit_code = 1


class InputError(TwinrayError):
    """Bad input: an option, a file, a row of a table: exit status 2."""

    exit_code = 2


def check_options(rules: Iterable[tuple[bool, str, object, str]]) -> None:
    """Refuse the first option that is out of its range.

    Args:
        rules: (whether it holds, the flag, the value that came, what is expected).

    Raises:
        InputError: naming flag, expectation and value.
    """
    for holds, flag, value, expected in rules:
        if not holds:
            raise InputError(f"expected {flag} to be {expected}, got {value}")
