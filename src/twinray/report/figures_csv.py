"""All figures of an evaluation as CSV for a spreadsheet: one row a figure, all digits kept, empty where not defined.

``images`` is ``all``, or ``with_boxes`` for figures over images with at least one true box; ``class`` is empty for
figures over all classes. Counts (``n_images``, ``n_boxes``, ...) are rows too. ``low`` and ``high`` end the 95 % interval
over patients; where runs were made with several seeds, ``seeds_low`` and ``seeds_high`` end the one over seeds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from twinray.report.numbers import finite, interval_of, value_of

Split: TypeAlias = Mapping[str, Any]
"""Figures of one split, or differences, as ``metrics.json`` holds them."""
_Row: TypeAlias = tuple[str, str, str, Mapping[str, Any]]  # images, class, measure, figure


def figures_csv(runs: Sequence[tuple[str, Split]]) -> str:
    """run, images, class, measure, value, low, high, n; with several seeds also seeds_low, seeds_high, seeds."""
    rows = [(name, row) for name, split in runs for row in _rows(split)]
    seeds = _over_seeds(rows)
    lines = [("run", "images", "class", "measure", "value", "low", "high", "n", *_heads(seeds))]
    for name, (images, class_name, measure, figure) in rows:
        own = (_value(figure, whole=measure.startswith("n_")), *_ends(figure), figure.get("n", ""))
        lines.append((name, images, class_name, measure, *own, *(_seeds(figure) if seeds else ())))
    return _text(lines)


def differences_csv(first: str, runs: Sequence[tuple[str, Split]]) -> str:
    """run, minus, images, class, measure, difference, low, high, share_above_zero, n; as above with several seeds.

    Args:
        first: name of the run that the others are compared with.
        runs: (name, paired differences to the first).
    """
    rows = [(name, row) for name, split in runs for row in _rows(split)]
    seeds = _over_seeds(rows)
    heads = ("run", "minus", "images", "class", "measure", "difference", "low", "high", "share_above_zero", "n")
    lines: list[tuple[Any, ...]] = [(*heads, *_heads(seeds), *(("seeds_share_above_zero",) if seeds else ()))]
    for name, (images, class_name, measure, figure) in rows:
        if measure.startswith("n_"):
            continue  # how many images were compared, no difference
        own = (_value(figure), *_ends(figure), _share(figure), figure.get("n", ""))
        more = (*_seeds(figure), _share(figure.get("over_seeds") or {})) if seeds else ()
        lines.append((name, first, images, class_name, measure, *own, *more))
    return _text(lines)


def _rows(split: Split, images: str = "all", class_name: str = "") -> Iterator[_Row]:
    """Overall figures, then those of each class, then the same over images with boxes."""
    for measure, figure in split.items():
        if isinstance(figure, Mapping) and "value" in figure:
            yield images, class_name, measure, figure
        elif isinstance(figure, int) and not isinstance(figure, bool):
            yield images, class_name, measure, {"value": figure}
    for name, figures in (split.get("per_class") or {}).items():
        yield from _rows(figures, images, name)
    if split.get("with_boxes"):
        yield from _rows(split["with_boxes"], "with_boxes")


def _over_seeds(rows: Sequence[tuple[str, _Row]]) -> bool:
    """Whether some figure was made with several seeds; an interval over one says nothing."""
    return any(((row[3].get("over_seeds") or {}).get("n") or 0) > 1 for _, row in rows)


def _heads(seeds: bool) -> tuple[str, ...]:
    return ("seeds_low", "seeds_high", "seeds") if seeds else ()


def _seeds(figure: Mapping[str, Any]) -> tuple[Any, ...]:
    over = figure.get("over_seeds") or {}
    return (*_ends(over), over.get("n", ""))


def _value(figure: Mapping[str, Any], *, whole: bool = False) -> Any:
    value = value_of(figure)
    return "" if value is None else int(value) if whole else value


def _ends(figure: Mapping[str, Any]) -> tuple[Any, Any]:
    return interval_of(figure) or ("", "")


def _share(figure: Mapping[str, Any]) -> Any:
    share = finite(figure.get("share_above_zero"))
    return "" if share is None else share


def _text(lines: Sequence[tuple[Any, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
