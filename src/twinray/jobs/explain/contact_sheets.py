"""``twinray explain RUN --versus RUN``: several detectors side by side on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from twinray.about import DISCLAIMER
from twinray.files import write_bytes
from twinray.inference.heat_maps import Explained
from twinray.inference.methods import Method
from twinray.inference.model import Model
from twinray.inference.prepared import Prepared
from twinray.records import Boxes, FloatArray
from twinray.report.numbers import count
from twinray.report.pictures.contact_sheet import ROWS, contact_sheet
from twinray.report.pictures.panels import Panel, as_png, scaled
from twinray.runs.names import run_names

MERGED = "the strongest of the shown boxes' maps at each place, each weighed by its score over the best one's"


@dataclass(frozen=True, eq=False)
class Sheet:
    """One written sheet.

    Attributes:
        path: of the PNG.
        n_images: rows.
        without: of these, images on which no model has a box to show.
        records: one for each box that is shown.
    """

    path: Path
    n_images: int
    without: int
    records: list[dict[str, Any]]


def write_sheets(
    models: Sequence[Model],
    images: Iterable[tuple[Sequence[Prepared], Boxes | None]],
    out: Path,
    *,
    method: Method,
    most: int,
    least_score: float,
) -> Iterator[Sheet]:
    """Write sheets of at most ``ROWS`` images; yield each when it is on the disk.

    Args:
        models: the models, at least two.
        images: each as every model's pack would hold it, with its true boxes where known.
        out: folder.
        method: name of the heat map.
        most: boxes of a model on an image, best first.
        least_score: boxes that score less are not shown.
    """
    names = run_names([model.path for model in models])
    rows: list[list[Explained]] = []
    number = 0
    for prepared, truth in images:
        explained = [
            model.explain(one, truth, method=method, most=most, least_score=least_score)
            for model, one in zip(models, prepared, strict=True)
        ]
        rows.append(explained)
        if len(rows) == ROWS:
            number += 1
            yield _write(models, names, rows, out / f"contact-sheet-{number:02d}.png", least_score)
            rows = []
    if rows:
        yield _write(models, names, rows, out / f"contact-sheet-{number + 1:02d}.png", least_score)


def merged_map(explained: Explained) -> FloatArray | None:
    """One map (h, w) in 0..1 of all boxes shown (see ``MERGED``); None where there is none."""
    scores = explained.predictions.scores
    if not explained.top or scores is None:
        return None
    shown = scores[list(explained.top)]
    share = np.asarray(shown / max(float(shown.max()), 1e-12), dtype=np.float32)
    merged: FloatArray = (explained.heat_maps * share[:, None, None]).max(axis=0)
    return merged


def _write(
    models: Sequence[Model],
    names: Sequence[str],
    rows: Sequence[Sequence[Explained]],
    path: Path,
    least: float,
) -> Sheet:
    known = any(row[0].truth is not None for row in rows)
    panels, without = [], 0
    records: list[dict[str, Any]] = []
    for row in rows:
        first = row[0]
        truth = None if first.truth is None else scaled(first.truth, first.scale)
        cells = [Panel(PurePath(first.id).name, first.image, truth, name_truth=True)]
        for name, model, explained in zip(names, models, row, strict=True):
            shown = _shown(explained)
            empty = sum(not heat.any() for heat in explained.heat_maps)
            title = f"{empty} of {count(len(shown), 'heat map')} empty" if empty else ""
            title = title if len(shown) else f"no box scored {least} or more"
            cells.append(
                Panel(
                    title,
                    explained.image,
                    None,
                    scaled(shown, explained.scale),
                    merged_map(explained),
                )
            )
            records += _records(explained, shown, name, model.classes, path)
        without += not any(explained.top for explained in row)
        panels.append(cells)
    definition = next((e.definition for row in rows for e in row if e.definition), "")
    note = f"Heat maps: {definition}; {MERGED}. {DISCLAIMER}." if definition else f"{DISCLAIMER}."
    headings = ["image and true boxes" if known else "image", *names]
    sheet = contact_sheet(
        panels, headings, [models[0].classes, *(model.classes for model in models)], note=note
    )
    write_bytes(path, as_png(sheet), "contact sheet")
    return Sheet(path, len(rows), without, records)


def _shown(explained: Explained) -> Boxes:
    found, top = explained.predictions, list(explained.top)
    return Boxes(
        found.xyxy[top], found.labels[top], None if found.scores is None else found.scores[top]
    )


def _records(
    explained: Explained, shown: Boxes, name: str, classes: Sequence[str], path: Path
) -> Iterator[dict[str, Any]]:
    assert shown.scores is not None
    found = zip(shown.xyxy, shown.labels, shown.scores, explained.heat_maps, strict=True)
    for box, label, score, heat in found:
        yield {
            "image": explained.id,
            "picture": path.name,
            "run": name,
            "class": classes[int(label)],
            "score": float(score),
            "box_xyxy": [float(v) for v in box],
            "heat_map": explained.definition,
            "empty": not heat.any(),
        }
