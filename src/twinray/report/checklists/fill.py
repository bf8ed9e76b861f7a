"""Checklists filled from records: what is shown, with its source, and what is left for the authors to write.

An item is *filled* where the records answer it, a *draft* where they give a part, and *yours to write* where they show nothing. Of a
topic at most a few statements are given, one a record; ``more`` counts the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

from twinray.about import DISCLAIMER
from twinray.errors import InputError
from twinray.report.checklists.facts import TOPICS, Fact, not_disjoint
from twinray.report.checklists.items import GUIDELINES, Guideline, Item
from twinray.report.checklists.sources import Records

Status: TypeAlias = Literal["filled", "draft", "yours to write"]
_MOST = 4
YOURS = "yours to write"


@dataclass(frozen=True, slots=True)
class Answer:
    """An item with its answer.

    Attributes:
        item: item of the guideline.
        status: how far the records answer it.
        facts: statements with their sources.
        more: statements of the same kind that are not listed.
        remark: reason why something is not claimed; empty where there is none.
    """

    item: Item
    status: Status
    facts: tuple[Fact, ...] = ()
    more: int = 0
    remark: str = ""


def checklist(records: Records, name: str) -> tuple[Answer, ...]:
    """Fill a checklist.

    Args:
        records: records of packs, runs and studies (``sources.read_records``).
        name: one of ``claim-2024``, ``tripod-ai``, ``mi-claim``.

    Raises:
        InputError: another name.
    """
    said = {topic: tuple(find(records)) for topic, find in TOPICS.items()}
    apart = not_disjoint(records)
    if apart:  # some pack is not shown to be disjoint, so nothing is said of all
        said["disjoint"] = ()
    return tuple(_answer(item, said, apart) for item in guideline(name).items)


def guideline(name: str) -> Guideline:
    """A checklist by its name.

    Raises:
        InputError: another name.
    """
    if name not in GUIDELINES:
        raise InputError(f"checklist: expected one of {', '.join(GUIDELINES)}, got {name!r}")
    return GUIDELINES[name]


def _answer(item: Item, said: dict[str, tuple[Fact, ...]], apart: str) -> Answer:
    remark = apart if "disjoint" in item.topics else ""
    facts: list[Fact] = []
    more = 0
    for topic in item.topics:
        facts += islice(said[topic], _MOST)
        more += max(0, len(said[topic]) - _MOST)
    if not facts:
        return Answer(item, "yours to write", remark=remark)
    whole = item.whole and all(said[topic] for topic in item.topics) and not remark
    return Answer(item, "filled" if whole else "draft", tuple(facts), more, remark)


def as_json(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """A filled checklist as JSON holds it."""
    about = guideline(name)
    return {
        "checklist": about.name,
        "title": about.title,
        "citation": about.citation,
        "note": f"{DISCLAIMER}. Filled automatically from records; items are paraphrased.",
        "items": [
            {
                "number": answer.item.number,
                "asks": answer.item.asks,
                "status": answer.status,
                "statements": [
                    {
                        "text": fact.text,
                        "sources": [{"file": s.file, "key": s.key} for s in fact.sources],
                    }
                    for fact in answer.facts
                ],
                "more": answer.more,
                "remark": answer.remark,
            }
            for answer in answers
        ],
    }


def as_markdown(name: str, answers: Sequence[Answer]) -> str:
    """A filled checklist as a Markdown table, with the count of each status above it."""
    about = guideline(name)
    counts = {s: sum(a.status == s for a in answers) for s in ("filled", "draft", YOURS)}
    lines = [
        f"# {about.title}",
        "",
        f"{about.citation}. Items are paraphrased. {DISCLAIMER}.",
        "",
        f"Filled automatically: {counts['filled']}. Drafts to complete: {counts['draft']}. Yours to write: {counts[YOURS]}.",
        "",
        "| item | asks for | status | from the records |",
        "| --- | --- | --- | --- |",
    ]
    for answer in answers:
        parts = [
            f"{_cell(fact.text)} ({'; '.join(f'`{_code(s.told())}`' for s in fact.sources)})"
            for fact in answer.facts
        ]
        if answer.more:
            parts.append(f"and {answer.more} more")
        if answer.remark:
            parts.append(_cell(answer.remark))
        row = (answer.item.number, answer.item.asks, answer.status, "<br>".join(parts))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that ends no cell, opens no tag and starts no link."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "[", "`", "*"):
        flat = flat.replace(sign, "&lt;" if sign == "<" else f"\\{sign}")
    return flat


def _code(text: str) -> str:
    """Text inside backticks, where only these and the cell's end matter."""
    return " ".join(text.replace("`", "'").split()).replace("|", "\\|")
