"""Letters that DejaVu Sans lacks, Chinese, Japanese and Korean ones among them: from whatever installed font has them.

DejaVu Sans comes with matplotlib, so pictures look the same on every machine. The machine's choice
of fonts counts only where a name needs other letters.
"""

from __future__ import annotations

import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@contextmanager
def all_letters(sheet: Figure) -> Iterator[None]:
    """While ``sheet`` is drawn, its texts fall back to fonts that have what DejaVu Sans lacks."""
    texts = [text for text in sheet.findobj(Text) if isinstance(text, Text)]
    lacking = _lacking("".join(text.get_text() for text in texts))
    if lacking:
        families = ["DejaVu Sans", *map(_family, _fonts_with(lacking))]
        for text in texts:
            text.set_fontfamily(families)
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    with warnings.catch_warnings():
        # what no font has was told in one line, and a fallback without a bold face is no news
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def font_file(text: str) -> Path:
    """The font to write ``text`` in: DejaVu Sans, or one that has more of its letters."""
    lacking = _lacking(text)
    paths = _fonts_with(lacking) if lacking else ()
    return max((DEJAVU, *paths), key=lambda path: len(_letters(path).intersection(map(ord, text))))


def columns(text: str) -> int:
    """How wide a text is, in letters: those of Chinese, Japanese and Korean are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _lacking(text: str) -> frozenset[int]:
    return frozenset(ord(c) for c in text if not c.isspace()) - _letters(DEJAVU)


@cache
def _fonts_with(lacking: frozenset[int]) -> tuple[Path, ...]:
    """Installed fonts that together have the letters; says once which none has."""
    left, chosen = set(lacking), []
    for path in _installed():
        if left and (more := left & _letters(path)):
            chosen.append(path)
            left -= more
    if left:
        named = "".join(map(chr, sorted(left)[:20]))
        print(
            f"note: no installed font has the letters {named!r}: pictures show boxes in their place; install one that does, such "
            "as Noto Sans CJK",
            file=sys.stderr,
        )
    return tuple(chosen)


@cache
def _installed() -> tuple[Path, ...]:
    """Font files of the system, upright ones without serifs first, as DejaVu Sans is."""

    def unlike(path: Path) -> tuple[bool, bool, str]:
        name = path.stem.lower()
        return (
            any(w in name for w in ("bold", "italic", "oblique", "mono")),
            "serif" in name,
            str(path),
        )

    return tuple(sorted(map(Path, font_manager.findSystemFonts()), key=unlike))


@cache
def _family(path: Path) -> str:
    """What matplotlib calls a font that it now knows; once a font, since it forgets what it had looked up."""
    font_manager.fontManager.addfont(path)
    return str(font_manager.get_font(path).family_name)


@cache
def _letters(path: Path) -> frozenset[int]:
    """Code points of a font's first face; none of a file that cannot be read."""
    try:
        font = FT2Font(str(path))
        # letters that are pictures, as in fonts of emoji, cannot be scaled
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def cut_in_middle(text: str, letters: int) -> str:
    """At most so many letters; an ellipsis replaces the middle, so that both ends distinguish names."""
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


def literal(text: str) -> str:
    """Matplotlib reads text between dollar signs as mathematics; a name is not."""
    return text.replace("$", r"\$")
