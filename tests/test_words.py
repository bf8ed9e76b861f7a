"""Numbers and what they count agree: one image, two images."""

from __future__ import annotations

import re
from pathlib import Path

from twinray.words import counted

SOURCES = Path(__file__).resolve().parents[1] / "src" / "twinray"
_NOUNS = "archives|boxes|copies|files|images|labels|patients|pieces|readings|rows|views"
_AGREES = re.compile(
    rf"(?<!of )(?<!of its )(?<!all )\{{[^{{}}\"]*\}} (?:\w+ )?(?:{_NOUNS}) (?:are|have|hold|were)\b"
)


def test_one_is_singular_and_no_other_number() -> None:
    assert [counted(n, "box is", "boxes are") for n in (0, 1, 2, 1234)] == [
        "0 boxes are",
        "1 box is",
        "2 boxes are",
        "1,234 boxes are",
    ]
    assert (counted(1, "run"), counted(3, "run")) == ("1 run", "3 runs")


def test_no_message_puts_a_bare_number_before_several() -> None:
    """``{n} images are`` would say "1 images are": such sentences go through ``counted``, or state both forms."""
    found = [
        f"{path.relative_to(SOURCES)}: {hit}"
        for path in sorted(SOURCES.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        for hit in _AGREES.findall(line)
        if " == 1 else " not in line and path.name != "remarks.py"  # both forms stand there
    ]
    assert not found
