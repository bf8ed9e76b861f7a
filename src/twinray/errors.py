"""Errors that a user can act on.

Every message says what was expected, what came, where, and what to do next. The command
line prints it as one line, without a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


class TwinrayError(Exception):
    """A failure with a known cause that is not the user's input (a full disk, say): exit status 1.

    What a file says of itself may hold line breaks and control characters: a message is one line of what can be printed.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(
            "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.splitlines())
            )
        )


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


def check_numbers(config: Any) -> None:
    """Refuse what no job takes: numbers that are not finite, negative seeds.

    Args:
        config: a job's options, a dataclass.

    Raises:
        InputError: naming flag and value.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = "--" + field.name.replace("_", "-")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise InputError(f"expected {flag} to be a finite number, got {one}")
            if field.name in ("seed", "seeds") and isinstance(one, int) and one < 0:
                raise InputError(f"expected {flag} to be 0 or more, got {one}")
