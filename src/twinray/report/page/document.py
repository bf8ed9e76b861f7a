"""A report as one HTML file that needs nothing else: no server, no script, no network.

Text arrives plain and is escaped by the templates, nowhere else; images become part of the file. A content security
policy in the page forbids it to load anything. The templates lie beside this file, under ``templates``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from twinray.about import DISCLAIMER
from twinray.files import write_text
from twinray.report.numbers import typeset
from twinray.report.page.strips import Bars, Curves, Forest
from twinray.report.palette import (
    ARMS,
    CARD,
    FOR_DARK,
    GRID,
    GROUND,
    INK,
    MUTED,
    PICTURE_GROUND,
    SOFT,
)
from twinray.report.tables import Table
from twinray.report.verdict import Verdict

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of remarks; each is a lead-in, shown bold, and its sentence."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Steps:
    """What was done, in order: name, what it did, how long it took (empty: not said)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Key:
    """A figure to remember: what it is, the figure, its unit, and its interval in words."""

    label: str
    value: str
    unit: str
    detail: str


@dataclass(frozen=True)
class Keys:
    """Figures to remember, side by side."""

    items: tuple[Key, ...]


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        data: the file's bytes.
        kind: ``svg`` for charts, ``png`` for photographs.
        alt: text on what it shows, for readers who do not see it.
        caption: below it.
        small: flag of a chart that needs half of the page's width; two of them stand side by side.
    """

    data: bytes
    kind: Literal["svg", "png"]
    alt: str
    caption: str
    small: bool = False

    @property
    def source(self) -> str:
        """The bytes as an address that needs no network."""
        kind = "svg+xml" if self.kind == "svg" else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Panels:
    """Photographs side by side, as many in a row as there is room for."""

    items: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Words:
    """A table of words: its cells are broken into lines, and on a phone each row becomes a stack of them.

    Attributes:
        table: the table.
        numbers: flag, true for figures among the words, which get a real minus sign.
    """

    table: Table
    numbers: bool = False


@dataclass(frozen=True)
class Caution:
    """What makes the comparison unfair or weak, beside the claim."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Details:
    """Something that is read on request."""

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = (
    str
    | Heading
    | Points
    | Steps
    | Keys
    | Verdict
    | Table
    | Words
    | Picture
    | Panels
    | Code
    | Facts
    | Caution
    | Details
    | Forest
    | Curves
    | Bars
)
"""What a section is made of; a plain text is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A titled part of the page.

    Attributes:
        title: heading.
        name: short, for the contents.
        blocks: blocks that it holds.
        part: name of the group of sections that begins here; empty inside a group.
    """

    title: str
    name: str
    blocks: tuple[Block, ...]
    part: str = ""


@dataclass(frozen=True)
class Content:
    """A whole report.

    Attributes:
        title: title of the page.
        over: a few words above the title.
        lede: description of this, in a sentence or two.
        sections: its parts.
        footer: origin of the page: version, date.
        meta: short facts below the lede.
    """

    title: str
    over: str
    lede: str
    sections: tuple[Section, ...]
    footer: str
    meta: tuple[str, ...] = ()


def write_report(path: Path, content: Content) -> Path:
    """Write the page atomically and return its absolute path.

    Raises:
        TwinrayError: the disk is full, or the place may not be written.
    """
    write_text(path, as_page(content), "report")
    return path.resolve()


def as_page(content: Content) -> str:
    """The page's HTML."""
    page = _environment().get_template("page.html")
    return page.render(content=content, disclaimer=DISCLAIMER, light=_COLOURS, dark=_DARK)


_COLOURS = {
    "ground": GROUND, "card": CARD, "ink": INK, "muted": MUTED, "line": GRID, "first": ARMS[0], "asked": ARMS[1], "soft": SOFT,
    "picture": PICTURE_GROUND,
}  # fmt: skip
_DARK: Mapping[str, str] = {name: FOR_DARK.get(colour, colour) for name, colour in _COLOURS.items()}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["typeset"] = typeset
    made.filters["points"] = _points
    made.tests["text"] = lambda block: isinstance(block, str)
    made.globals["kind"] = lambda block: type(block).__name__
    return made


def _points(points: Sequence[tuple[float, float]]) -> str:
    """For SVG: percent from the left, percent from the bottom -> places from the top left."""
    return " ".join(f"{x:.3f},{100 - y:.3f}" for x, y in points)


def join_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
