"""All figures of an evaluation as CSV for a spreadsheet: one row a figure, all digits kept, empty where not defined.

``images`` is ``all``, ``with_boxes`` for figures over images with at least one true box, or ``attribute=group``; ``class`` is empty
for figures over all classes. Counts (``n_images``, ``n_boxes``, ...) are rows too. ``low`` and ``high`` end the 95 % interval
over ``over``; where runs were made with several seeds, ``seeds_low`` and ``seeds_high`` end the one over ``seeds_over``.
``note`` says what limits a figure (``too few to say: ...``) and how its interval was made where that is not the usual way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from twinray.evaluation.record import SEEN, Figure, SplitFigures
from twinray.evaluation.result import Evaluation
from twinray.report.numbers import interval_of, value_of

_Row: TypeAlias = tuple[str, str, str, Figure | int]  # images, class, measure, figure or count


def figures_csv(runs: Sequence[tuple[str, SplitFigures]]) -> str:
    """run, images, class, measure, value, low, high, n, over; with several seeds also their interval."""
    rows = [(name, row) for name, split in runs for row in _rows(split)]
    seeds = _over_seeds(rows)
    lines: list[tuple[Any, ...]] = [
        (
            "run",
            "images",
            "class",
            "measure",
            "value",
            "low",
            "high",
            "n",
            "over",
            *_heads(seeds),
            "note",
        )
    ]
    for name, (images, class_name, measure, figure) in rows:
        if isinstance(figure, int):
            lines.append(
                (
                    name,
                    images,
                    class_name,
                    measure,
                    figure,
                    "",
                    "",
                    "",
                    "",
                    *(("",) * 4 if seeds else ()),
                    "",
                )
            )
            continue
        own = (_value(figure), *_ends(figure), figure.n, figure.over)
        lines.append(
            (
                name,
                images,
                class_name,
                measure,
                *own,
                *(_seeds(figure) if seeds else ()),
                figure.note,
            )
        )
    return _text(lines)


def differences_csv(runs: Sequence[tuple[str, str, SplitFigures]]) -> str:
    """run, minus, images, class, measure, difference, low, high, share_above_zero, n, over; as above with several seeds.

    Further tests of a difference have a column each where some figure has them: ``p``, ``holm_p``
    over the classes, ``detectable``, ``delong_p``. The value of ``detectable`` is what would have
    been shown in 80 of 100 such studies, approximately.

    Args:
        runs: (name, name of the run that it is compared with, paired differences).
    """
    rows = [(name, minus, row) for name, minus, split in runs for row in _rows(split)]
    figures = [row[3] for _, _, row in rows if isinstance(row[3], Figure)]
    seeds = _over_seeds([(name, row) for name, _, row in rows])
    tests = tuple(dict.fromkeys(test for figure in figures for test in figure.tests))
    heads = (
        "run",
        "minus",
        "images",
        "class",
        "measure",
        "difference",
        "low",
        "high",
        "share_above_zero",
        "n",
        "over",
    )
    lines: list[tuple[Any, ...]] = [
        (*heads, *tests, *_heads(seeds), *(("seeds_share_above_zero",) if seeds else ()), "note")
    ]
    for name, minus, (images, class_name, measure, figure) in rows:
        if isinstance(figure, int):
            continue  # how many images were compared, no difference
        own = (
            _value(figure),
            *_ends(figure),
            _or_empty(figure.share_above_zero),
            figure.n,
            figure.over,
        )
        tested = tuple(_or_empty(figure.tests.get(test)) for test in tests)
        share = None if figure.over_seeds is None else figure.over_seeds.share_above_zero
        more = (*_seeds(figure), _or_empty(share)) if seeds else ()
        lines.append((name, minus, images, class_name, measure, *own, *tested, *more, figure.note))
    return _text(lines)


def fractions_csv(result: Evaluation) -> str:
    """arm, fraction, training_images, class, measure, value, low, high, n, over, and the interval over seeds: points of curves."""
    lines: list[tuple[Any, ...]] = [
        (
            "arm",
            "fraction",
            "training_images",
            "class",
            "measure",
            "value",
            "low",
            "high",
            "n",
            "over",
            *_heads(True),
        )
    ]
    for family, points in result.families.items():
        for fraction, name in points.items():
            n_images = _or_empty(result.training_images(name))
            for images, class_name, measure, figure in _rows(result.arms[name].figures):
                if images == "all" and isinstance(figure, Figure):
                    own = (_value(figure), *_ends(figure), figure.n, figure.over, *_seeds(figure))
                    lines.append((family, fraction, n_images, class_name, measure, *own))
    return _text(lines)


def _rows(split: SplitFigures) -> Iterator[_Row]:
    """Overall figures and counts, then those of each class; the same over images with boxes, and of each group."""
    for images, part in split.sets():
        yield from ((images, "", measure, figure) for measure, figure in part.figures.items())
        yield from ((images, "", name, count) for name, count in part.counts.items())
        if part.seen is not None:
            yield images, "", SEEN, Figure(float(part.seen[0]), None, part.seen[1], "images")
        for class_name, own in part.per_class.items():
            yield from (
                (images, class_name, measure, figure) for measure, figure in own.figures.items()
            )
            yield from ((images, class_name, name, count) for name, count in own.counts.items())


def _over_seeds(rows: Sequence[tuple[str, _Row]]) -> bool:
    """Whether some figure was made with several seeds; an interval over one says nothing."""
    return any(
        isinstance(figure, Figure) and figure.over_seeds is not None and figure.over_seeds.n > 1
        for _, (_, _, _, figure) in rows
    )


def _heads(seeds: bool) -> tuple[str, ...]:
    return ("seeds_low", "seeds_high", "seeds", "seeds_over") if seeds else ()


def _seeds(figure: Figure) -> tuple[Any, ...]:
    over = figure.over_seeds
    return ("", "", "", "") if over is None else (*_ends(over), over.n, over.over)


def _value(figure: Figure) -> Any:
    return _or_empty(value_of(figure))


def _ends(figure: Figure) -> tuple[Any, Any]:
    low, high = interval_of(figure) or (None, None)
    return _or_empty(low), _or_empty(high)


def _or_empty(value: float | None) -> Any:
    return "" if value is None else value or abs(value)  # a zero has no sign


def _text(lines: Sequence[tuple[Any, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
