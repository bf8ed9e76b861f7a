"""Which parts of a network a surgical fine-tuning moved."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure as Sheet

from twinray.report.charts.sheet import WIDTH, as_svg, legend, style
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.palette import ARMS


def tuning_chart(draws: Mapping[str, Mapping[str, float]]) -> bytes:
    """Rates of the parts, relative to the backbone's, from the input on; a bar each draw. SVG bytes.

    Args:
        draws: name of a draw -> part -> factor, 0..1; 0 for a part that does not learn.
    """
    parts = list(dict.fromkeys(part for rates in draws.values() for part in rates))
    sheet = Sheet(figsize=(WIDTH, 1.2 + 0.34 * max(1, len(parts))), layout="constrained")
    axes = sheet.subplots()
    height = 0.76 / max(1, len(draws))
    for i, (name, rates) in enumerate(draws.items()):
        places = [row + (i - (len(draws) - 1) / 2) * height for row in range(len(parts))]
        axes.barh(
            places,
            [rates.get(part, 0.0) for part in parts],
            height * 0.9,
            color=ARMS[i % 4],
            label=name,
        )
    axes.set_yticks(range(len(parts)), [literal(cut_in_middle(part, 24)) for part in parts])
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlim(0, 1.05)
    style(axes, "Learning rate of each part, share of the backbone's", "", across=True)
    if len(draws) > 1:
        legend(axes, outside=True)
    return as_svg(sheet)
