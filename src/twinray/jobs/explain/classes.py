"""``twinray explain`` of a classifier: a heat map for each class that it sees on an image, or several runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from twinray.about import DISCLAIMER
from twinray.errors import InputError
from twinray.explanation.class_maps import ClassMethod
from twinray.files import write_bytes
from twinray.inference.class_maps import ClassExplainer, ExplainedClasses
from twinray.inference.prepared import Prepared
from twinray.records import Boxes
from twinray.report.numbers import number
from twinray.report.pictures.contact_sheet import ROWS, contact_sheet
from twinray.report.pictures.panels import Panel, as_png, panel_row, scaled
from twinray.report.pictures.single import picture_name
from twinray.runs.names import run_names

EMPTY_CLASS_MAP = "empty heat map: nothing speaks for this class"
Images = Iterable[tuple[Sequence[Prepared], Boxes | None]]
"""Each image as the pack of every model would hold it, with its true boxes where known."""


@dataclass(frozen=True)
class ClassChoice:
    """Which classes of an image are explained.

    Attributes:
        named: class names; empty for those that score best.
        most: at most so many, best first.
        least_score: classes that score less are not explained, unless named.
    """

    named: tuple[str, ...]
    most: int
    least_score: float

    def check(self, classes: Sequence[str]) -> None:
        """Refuse a name that is no class.

        Raises:
            InputError: naming the classes.
        """
        for name in self.named:
            if name not in classes:
                raise InputError(f"expected --classes to be of {', '.join(classes)}, got {name!r}")

    def of(self, scores: Sequence[float], classes: Sequence[str]) -> list[int]:
        """Class ids, best first, or as named."""
        if self.named:
            return [list(classes).index(name) for name in self.named]
        order = np.argsort(-np.asarray(scores), kind="stable")[: self.most]
        return [int(i) for i in order if scores[i] >= self.least_score]


@dataclass(frozen=True, eq=False)
class Drawn:
    """One written picture or sheet: its path, what it shows, and how many of its images had no class to show."""

    path: Path | None
    records: list[dict[str, Any]]
    without: int


def draw_classes(
    explainer: ClassExplainer,
    images: Images,
    out: Path,
    choice: ClassChoice,
    method: ClassMethod,
    box_classes: Sequence[str],
    *,
    first: int = 1,
) -> Iterator[Drawn]:
    """Write one picture a class of each image; yield each when it is on the disk.

    Args:
        explainer: explainer of the run.
        images: with their true boxes where known.
        out: folder.
        choice: which classes.
        method: name of the heat map.
        box_classes: names that labels of true boxes index.
        first: number of the first image.
    """
    classes = explainer.model.classes
    for image_number, ((prepared,), truth) in enumerate(images, start=first):
        scores = explainer.model.labels([prepared])[0].tolist()
        labels = choice.of(scores, classes)
        explained = explainer.explain(prepared, labels, method)
        if not labels:
            yield Drawn(None, [], 1)
        for number_of, (label, heat) in enumerate(
            zip(labels, explained.heat_maps, strict=True), start=1
        ):
            name = classes[label]
            shown = None if truth is None else scaled(truth, explained.scale)
            title = f"{name} {number(scores[label], 2)}" if heat.any() else EMPTY_CLASS_MAP
            panels = [
                Panel(
                    "image" if truth is None else "image and true boxes",
                    explained.image,
                    shown,
                    name_truth=True,
                ),
                Panel(title, explained.image, None, None, heat),
            ]
            note = f"Heat map of {name}: {explained.definition}. {DISCLAIMER}."
            picture = panel_row(panels, box_classes, inches=4.4, note=note)
            path = out / picture_name(
                image_number, PurePosixPath(explained.id).name, f"class{number_of}", name
            )
            write_bytes(path, as_png(picture), "picture")
            yield Drawn(path, [_record(explained, label, heat, name, path)], 0)


def draw_class_sheets(
    explainers: Sequence[ClassExplainer],
    images: Images,
    out: Path,
    choice: ClassChoice,
    method: ClassMethod,
    box_classes: Sequence[str],
) -> Iterator[Drawn]:
    """Write contact sheets: a row an image and class, chosen by the first run's scores, a column a run."""
    names = run_names([one.model.path for one in explainers])
    classes = explainers[0].model.classes
    rows: list[list[Panel]] = []
    records: list[dict[str, Any]] = []
    sheets = without = 0
    known = False

    def flush() -> Drawn:
        nonlocal rows, records, sheets, without
        sheets += 1
        path = out / f"contact-sheet-{sheets:02d}.png"
        note = f"Heat maps: {definition}. {DISCLAIMER}."
        headings = ["image and true boxes" if known else "image", *names]
        sheet = contact_sheet(rows, headings, [box_classes] * len(headings), note=note)
        write_bytes(path, as_png(sheet), "contact sheet")
        done = Drawn(path, [{**record, "picture": path.name} for record in records], without)
        rows, records, without = [], [], 0
        return done

    definition = ""
    for prepared, truth in images:
        known |= truth is not None
        labels = choice.of(explainers[0].model.labels([prepared[0]])[0].tolist(), classes)
        without += not labels
        explained = [
            one.explain(p, labels, method) for one, p in zip(explainers, prepared, strict=True)
        ]
        definition = explained[0].definition
        for at, label in enumerate(labels):
            first = explained[0]
            shown = None if truth is None else scaled(truth, first.scale)
            cells = [Panel(PurePath(first.id).name, first.image, shown, name_truth=True)]
            for name, one in zip(names, explained, strict=True):
                heat = one.heat_maps[at]
                title = (
                    f"{classes[label]} {number(float(one.scores[label]), 2)}"
                    if heat.any()
                    else EMPTY_CLASS_MAP
                )
                cells.append(Panel(title, one.image, None, None, heat))
                records.append({**_record(one, label, heat, classes[label], None), "run": name})
            rows.append(cells)
            if len(rows) == ROWS:
                yield flush()
    if rows:
        yield flush()
    elif without:
        yield Drawn(None, [], without)


def _record(
    explained: ExplainedClasses, label: int, heat: Any, name: str, path: Path | None
) -> dict[str, Any]:
    return {
        "image": explained.id,
        "picture": None if path is None else path.name,
        "class": name,
        "score": float(explained.scores[label]),
        "heat_map": explained.definition,
        "empty": not heat.any(),
    }
