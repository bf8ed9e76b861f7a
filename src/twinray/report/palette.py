"""Colours of the page and its figures: distinct with any colour vision, on light and on dark.

Data colours are from Okabe and Ito, Color Universal Design (2008). ``LIGHT`` is what figures are drawn in;
``FOR_DARK`` says what stands for each colour where the reader's page is dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

INK, MUTED, GRID = "#1c2430", "#566170", "#d9dee4"
ARMS = ("#c2500a", "#0067a5", "#00795a", "#a3487f")
"""Vermillion: the arm compared with; blue: the arm asked about; green, purple: what is right,
what else is distinguished."""

CARD, GROUND, SOFT = "#ffffff", "#f5f6f8", "#e8f1f8"
"""Grounds: of a figure or a section, of the page, of what is set apart."""

_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p")
_DASHES: tuple[Any, ...] = (
    (0, (4, 1.6)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)

Role = Literal["first", "asked", "other"]


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is drawn, in every chart and every table alike.

    Attributes:
        role: role of the arm. ``first`` is the arm compared with; ``asked`` is the last arm, which
            the comparison asks about. ``other`` is grey, distinguished by its shape, its dash and
            its name.
        colour: colour on light. marker, dash: Matplotlib's names.
        shape: number of the shape, from 0: the last arm's is 0.
    """

    role: Role
    colour: str
    marker: str
    dash: Any
    shape: int


def look_of(arm: int, arms: int) -> Look:
    """Of one of so many arms, by its place in the order given; an arm alone is ``asked``."""
    if arm == arms - 1:
        return Look("asked", ARMS[1], "o", "solid", 0)
    shape = arm % len(_MARKERS)
    dash = _DASHES[arm % len(_DASHES)]
    if arm == 0:
        return Look("first", ARMS[0], _MARKERS[0], dash, 1)
    return Look("other", MUTED, _MARKERS[shape], dash, shape + 1)


FOR_DARK = {
    INK: "#e9edf2",
    MUTED: "#a9b4c0",
    GRID: "#343d49",
    CARD: "#171d26",
    GROUND: "#0f1319",
    SOFT: "#16283a",
    ARMS[0]: "#ff9d5c",
    ARMS[1]: "#6dbcf2",
    ARMS[2]: "#4fd0a5",
    ARMS[3]: "#e39ac6",
}

TRUE_BOX, PREDICTED_BOX = "#56d4ff", "#ffd23f"
"""On grey X-ray pixels: sky blue, drawn solid; yellow, drawn dashed."""

PICTURE_GROUND, PICTURE_INK = "#0d1117", "#eef2f6"
HEAT = "inferno"
