"""What folders and columns call the three splits."""

from __future__ import annotations

from twinray.records import Split

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(word: str) -> Split | None:
    """The split that a word names (``valid`` and ``validation`` are val), in any case; None if it names none."""
    return _SPLITS.get(word.strip().lower())
