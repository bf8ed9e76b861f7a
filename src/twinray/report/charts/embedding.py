"""Maps of features: a dot an image, coloured by what is known of it. SVG bytes, or a sheet for PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Sheet

from twinray.records import FloatArray
from twinray.report.charts.sheet import as_svg
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.palette import INK, MUTED

DOT_COLOURS = (
    "#0067a5", "#c2500a", "#00795a", "#a3487f", "#8a6d00", "#5b4ab8", "#b3202c", "#1f8fa6", "#6b8e23", "#d2691e",
    "#7b3f00", "#c71585",
)  # fmt: skip
"""Colours of groups, in their order; readable on light and dark grounds. Groups beyond them share grey."""
OTHER = "#8b96a3"
_RASTER_FROM = 3000
"""Dots from which on an SVG holds them as an image: a hundred thousand circles open in no browser."""


def group_colours(groups: Sequence[str]) -> list[str]:
    """A colour a group; images of none, and groups beyond the colours, are grey."""
    named = [g for g in groups if g != "unknown"]
    of = {name: DOT_COLOURS[i] if i < len(DOT_COLOURS) else OTHER for i, name in enumerate(named)}
    return [of.get(name, OTHER) for name in groups]


def embedding_map(
    points: FloatArray,
    of: Sequence[str],
    groups: Sequence[str],
    title: str,
    axes_names: tuple[str, str],
    note: str,
) -> Sheet:
    """One map, ready for ``as_svg`` or ``as_png``.

    Args:
        points: (n, 2).
        of: (n,) group of each dot.
        groups: groups in the legend's order.
        title: above the map.
        axes_names: names of x and y.
        note: small text below: how many images, of what.
    """
    sheet = Sheet(figsize=(8.2, 6.6), layout="constrained", facecolor="white")
    axes = sheet.subplots()
    colours = dict(zip(groups, group_colours(groups), strict=True))
    size = float(np.clip(9000 / max(len(points), 1), 1.2, 22))
    # In a fixed random order, so that no group hides another by coming later.
    order = np.random.default_rng(0).permutation(len(points))
    axes.scatter(
        points[order, 0], points[order, 1], s=size, c=[colours[of[i]] for i in order], alpha=0.75, linewidths=0,
        rasterized=len(points) > _RASTER_FROM,
    )  # fmt: skip
    counts = dict.fromkeys(groups, 0)
    for name in of:
        counts[name] += 1
    for name in groups:
        axes.scatter(
            [],
            [],
            s=36,
            c=colours[name],
            label=f"{literal(cut_in_middle(name, 28))} ({counts[name]:,})",
        )
    axes.set_title(literal(title), loc="left", fontsize=11, color=INK, fontweight="bold", pad=8)
    axes.set_xlabel(axes_names[0], fontsize=9.5, color=MUTED)
    axes.set_ylabel(axes_names[1], fontsize=9.5, color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=INK
    )
    sheet.supxlabel(literal(note), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    return sheet


def embedding_svg(sheet: Sheet) -> bytes:
    """The map as SVG; its text follows a light or dark page."""
    sheet.set_dpi(180)  # of the dots where they are an image
    return as_svg(sheet)
