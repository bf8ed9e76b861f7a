"""Rules on options: what a job refuses before it begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from twinray.errors import InputError


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
