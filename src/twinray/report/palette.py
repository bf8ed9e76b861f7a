"""Colours of the page and its figures: told apart with any colour vision, on light and on dark.

Data colours are from Okabe and Ito, Color Universal Design (2008). ``LIGHT`` is what figures are drawn in;
``FOR_DARK`` says what stands for each colour where the reader's page is dark.
"""

from __future__ import annotations

INK, MUTED, GRID = "#1c2430", "#566170", "#d9dee4"
ARMS = ("#c2500a", "#0067a5", "#00795a", "#a3487f")
"""One colour an arm, in the order of the table: vermillion, blue, green, purple."""

MARKERS = ("s", "o", "^", "D")
DASHES = ((0, (4, 1.6)), "solid", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Arms differ in marker and line too, for readers in grey."""

FOR_DARK = {
    INK: "#e9edf2",
    MUTED: "#a9b4c0",
    GRID: "#343d49",
    ARMS[0]: "#ff9d5c",
    ARMS[1]: "#6dbcf2",
    ARMS[2]: "#4fd0a5",
    ARMS[3]: "#e39ac6",
}

TRUE_BOX, PREDICTED_BOX = "#56d4ff", "#ffd23f"
"""On grey X-ray pixels: sky blue, drawn solid; yellow, drawn dashed."""

PICTURE_GROUND, PICTURE_INK = "#0d1117", "#eef2f6"
HEAT = "inferno"
