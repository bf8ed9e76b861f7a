"""Figures of a run as a model card shows them: every measure with its meaning, interval and n, and every class by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twinray.evaluation.measures import COUNT_OF_CLASS, Kind, measure
from twinray.evaluation.record import SEEN
from twinray.report.numbers import count
from twinray.runs.notes import own_notes

_FLATTERS = (
    "Validation images took part in choosing what was kept: these figures flatter. None were measured on images that "
    "nothing was chosen on."
)


def measured(metrics: Mapping[str, Any]) -> str:
    """The split whose figures are shown: ``test``; ``val`` where no test images were measured; empty for none."""
    for split in ("test", "val"):
        if any(True for _ in values(metrics.get(split))):
            return split
    return ""


def values(figures: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Measures of a split, or of one class, that have a value, by name."""
    for name, figure in (figures if isinstance(figures, Mapping) else {}).items():
        known = isinstance(figure, Mapping) and name != SEEN and "ci95" in figure
        if known and isinstance(figure.get("value"), int | float):
            yield name, figure


def figure_lines(metrics: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """Tables and remarks, in Markdown."""
    split = measured(metrics)
    if not split:
        yield "None were measured on images that training had not seen."
        return
    own = metrics[split]
    boxes = own.get("n_boxes")
    seen = count(own.get("n_images", 0), f"{split} image")
    yield f"On {seen}{'' if boxes is None else ' with ' + count(boxes, 'true box', 'true boxes')}:"
    if split == "val":
        yield _FLATTERS
    overall = [(measure(n).title, measure(n).what, *_cells(f)) for n, f in values(own)]
    yield _table(("measure", "meaning", "value", "95 % interval", "n", "note"), overall)
    classes = own.get("per_class")
    rows = list(_class_rows(classes, kind)) if isinstance(classes, Mapping) else []
    if rows:
        counted = COUNT_OF_CLASS[kind].removeprefix("n_")
        yield _table(("class", counted, "measure", "value", "95 % interval", "n", "note"), rows)
    mark = own.get(SEEN)
    if mark:
        yield f"- {split}: includes {mark['value']} of {mark['n']} images that training had seen, or may have."
    for note in own_notes(metrics):
        if "/" not in note:  # notes name folders of the house
            yield f"- {note}"


def _class_rows(classes: Mapping[str, Any], kind: Kind) -> Iterator[tuple[str, ...]]:
    for name, own in classes.items():
        n = own.get(COUNT_OF_CLASS[kind], "")
        for one, figure in values(own):
            if measure(one).by_class:
                yield name, str(n), measure(one).title, *_cells(figure)


def _cells(figure: Mapping[str, Any]) -> tuple[str, ...]:
    ends = figure["ci95"]
    interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "none"
    n = f"{figure.get('n', '')} {figure.get('over', 'patients')}"
    return f"{figure['value']:.3f}", interval, n, str(figure.get("note", ""))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in one)} |" for one in lines
    )
