"""What evaluated runs are called, in tables and as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 160
"""Bytes of a name that leave room for what stands before and after it; file systems take 255."""


def run_names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names where these differ, else their paths."""
    names = [path.resolve().name for path in runs]
    return names if len(set(names)) == len(names) else [str(path) for path in runs]


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A file name for each name, no two the same, not even where large and small letters are one.

    Names that can be file names as they are stay so; where ``x/r`` would become the ``x_r`` that is there, it is ``x_r-2``.

    Args:
        names: all different.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if _plain(name) == name and name.casefold() not in taken:
            found[name] = name
            taken.add(name.casefold())
    for name in names:
        chosen, number = _plain(name), 1
        while name not in found and chosen.casefold() in taken:
            number += 1
            chosen = f"{_plain(name)}-{number}"
        taken.add(found.setdefault(name, chosen).casefold())
    return {name: found[name] for name in names}


def _plain(name: str) -> str:
    """Without separators and what some file systems refuse; the middle of a very long one is left out."""
    text = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name)
    while len(text.encode("utf-8", "surrogateescape")) > _LONGEST:
        half = (len(text) - 1) // 2
        text = f"{text[: half - 4]}...{text[half + 5 :]}"
    return text
