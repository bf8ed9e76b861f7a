"""A report as one HTML file that needs nothing else: no server, no script, no network.

Text arrives plain and is escaped here, nowhere else; images become part of the file. A content security
policy in the page forbids it to load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal, TypeAlias

from twinray.about import DISCLAIMER
from twinray.files import write_text
from twinray.report.page.style import STYLE
from twinray.report.tables import Table, as_html
from twinray.report.verdict import Verdict


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
class Card:
    """A figure to remember; ``arm`` picks its colour."""

    label: str
    value: str
    detail: str
    arm: int


@dataclass(frozen=True)
class Cards:
    """Figures to remember, side by side."""

    items: tuple[Card, ...]


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        data: the file's bytes.
        kind: ``svg`` for charts, ``png`` for photographs.
        alt: what it shows, for readers who do not see it.
        caption: below it.
    """

    data: bytes
    kind: Literal["svg", "png"]
    alt: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: tuple[tuple[str, str], ...]


Block: TypeAlias = str | Heading | Points | Steps | Cards | Verdict | Table | Picture | Code | Facts
"""What a section is made of; a plain text is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``name`` is short, for the contents."""

    title: str
    name: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Content:
    """A whole report.

    Attributes:
        title: of the page.
        over: a few words above the title.
        lede: what this is, in a sentence or two.
        sections: its parts.
        footer: where it came from: version, date.
    """

    title: str
    over: str
    lede: str
    sections: tuple[Section, ...]
    footer: str


def write_report(path: Path, content: Content) -> Path:
    """Write the page atomically and return its absolute path.

    Raises:
        TwinrayError: the disk is full, or the place may not be written.
    """
    write_text(path, as_page(content), "report")
    return path.resolve()


def as_page(content: Content) -> str:
    """The page's HTML."""
    links = "".join(f'<li><a href="#part{i}">{escape(s.name)}</a></li>' for i, s in enumerate(content.sections, 1))
    parts = "\n".join(_section(i, section) for i, section in enumerate(content.sections, 1))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(content.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="over">{escape(content.over)}</p>
<h1>{escape(content.title)}</h1>
<p class="lede">{escape(content.lede)}</p>
<p class="notice">{DISCLAIMER}</p>
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{parts}
</main>
<footer><p>{escape(content.footer)}</p><p>{DISCLAIMER}.</p></footer>
</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    body = "\n".join(_block(block) for block in section.blocks)
    return f'<section id="part{number}" aria-labelledby="head{number}">\n<h2 id="head{number}">{escape(section.title)}</h2>\n{body}\n</section>'


def _block(block: Block) -> str:
    match block:
        case str():
            return f"<p>{escape(block)}</p>"
        case Heading():
            return f"<h3>{escape(block.text)}</h3>"
        case Points():
            return f'<ul class="points">{"".join(f"<li>{_lead(lead)}{escape(text)}</li>" for lead, text in block.items)}</ul>'
        case Steps():
            return f'<ol class="steps">{"".join(_step(*item) for item in block.items)}</ol>'
        case Cards():
            return f'<div class="cards">{"".join(_card(card) for card in block.items)}</div>'
        case Verdict():
            return _verdict(block)
        case Table():
            return as_html(block)
        case Picture():
            return _picture(block)
        case Code():
            return f'<pre tabindex="0"><code>{escape(block.text)}</code></pre>'
        case Facts():
            return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in block.items)}</dl>"


def _lead(text: str) -> str:
    return f"<b>{escape(text)}</b> " if text else ""


def _step(name: str, what: str, took: str) -> str:
    seconds = f'<span class="took">{escape(took)}</span>' if took else ""
    return f"<li>{seconds}<b>{escape(name)}</b>{escape(what)}</li>"


def _card(card: Card) -> str:
    return (
        f'<div class="card" style="--mark:var(--arm{card.arm % 4})"><span class="label">{escape(card.label)}</span>'
        f'<span class="big">{escape(card.value)}</span><span class="small">{escape(card.detail)}</span></div>'
    )


def _verdict(verdict: Verdict) -> str:
    caution = f"<p>{escape(verdict.caution)}</p>" if verdict.caution else ""
    return f'<div class="verdict"><p class="headline">{escape(verdict.headline)}</p><p>{escape(verdict.reason)}</p>{caution}</div>'


def _picture(picture: Picture) -> str:
    kind, look = ("svg+xml", "chart") if picture.kind == "svg" else ("png", "photo")
    source = f"data:image/{kind};base64,{base64.b64encode(picture.data).decode('ascii')}"
    alt = escape(picture.alt, quote=True)
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f'<figure class="{look}"><div class="scroll"><img src="{source}" alt="{alt}"></div>{caption}</figure>'


def join_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
