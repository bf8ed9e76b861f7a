"""Figures of evaluated runs or arms on the terminal: overall, over images with boxes, by class, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from twinray.report.numbers import count
from twinray.report.tables import TITLES, arms_table, class_tables, difference_table

MEASURES = {
    "detector": ("map50", "map40", "map", "froc"),
    "classifier": ("auc", "average_precision", "accuracy", "balanced_accuracy"),
}
"""Those shown on the terminal; the files hold all."""
_BY_CLASS = {"detector": ("ap50", "n_boxes", "true boxes"), "classifier": ("auc", "n_positive", "images with it")}

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""(name of a run or an arm, figures of one split as ``metrics.json`` holds them)."""


def show_figures(console: Console, rows: Rows, kind: str) -> None:
    """Measures over all images, those of each class, and those over images with boxes where not all images have any."""
    console.print(arms_table(rows, MEASURES[kind]))
    measure, counted, title = _BY_CLASS[kind]
    for table in class_tables(rows, measure, counted, console.width, title):
        console.print(table)
    some = [(name, f["with_boxes"]) for name, f in rows if f.get("with_boxes")]
    if some and len(some) == len(rows) and some[0][1]["n_images"] != rows[0][1]["n_images"]:
        n = count(some[0][1]["n_images"], "image")
        console.print(arms_table(some, MEASURES[kind], f"Only the {n} with boxes: value (95 % interval)"))


def show_over_seeds(console: Console, rows: Rows, kind: str) -> None:
    """The same measures with their intervals over seeds."""
    seeds = [(name, {m: f[m]["over_seeds"] for m in MEASURES[kind]}) for name, f in rows]
    console.print(arms_table(seeds, MEASURES[kind]))


def show_difference(console: Console, found: Mapping[str, Any], kind: str, told: str, over: str = "patients") -> None:
    """Paired differences in the measures shown.

    Args:
        console: to print on.
        found: differences as ``metrics.json`` holds them.
        kind: ``detector`` or ``classifier``.
        told: what is subtracted from what.
        over: what the intervals are over, ``patients`` or ``seeds``.
    """
    seeds = over == "seeds"
    named = {TITLES.get(m, m): found[m]["over_seeds"] if seeds else found[m] for m in MEASURES[kind]}
    share_of = "seeds" if seeds else "resamples"
    console.print(difference_table(named, f"{told}; interval over {over}.", share_of=share_of))


def say(console: Console, text: str) -> None:
    """A line as it is: not broken, no markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)
