"""How many of what, as people say it."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """A number and what it counts, in the singular for one.

    Args:
        n: how many there are.
        one: words after the number 1, with their verb where one follows: ``image is``.
        many: words after any other number; ``one`` and an s if empty.

    >>> counted(1, "image is", "images are"), counted(1200, "file")
    ('1 image is', '1,200 files')
    """
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
