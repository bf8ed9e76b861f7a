"""Do a classifier's heat maps point at the findings that people boxed? Weak localisation over a split of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.intervals import group_index
from twinray.explanation.class_maps import CLASS_METHODS, DEFINITIONS, ClassMethod
from twinray.explanation.faithfulness import removal_curves
from twinray.explanation.faithfulness_figures import MeasuredMaps, faithfulness_figures
from twinray.explanation.localisation import (
    FLOOR_DEFINITIONS,
    IOUS,
    LOCALISATION_FLOORS,
    LOCALISATION_MEASURES,
    elsewhere_floor,
    measure_map,
    middle_floor,
    whole_floor,
)
from twinray.files import GrowingTable, write_bytes, write_json, write_text
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.model import prepare_row
from twinray.progress import progress
from twinray.records import FloatArray
from twinray.report.charts.faithfulness import (
    faithfulness_chart,
    faithfulness_csv,
    faithfulness_table,
)
from twinray.report.pictures.panels import as_png
from twinray.runs.output import Output

FINDINGS = "findings.csv"
_ON_TERMINAL = ("pointing", "energy", "localised@0.1", "localised@0.3", "iou")
"""Measures of the printed table; the files hold all."""


@dataclass(frozen=True)
class LocalisationOptions:
    """What is measured.

    Attributes:
        methods: heat maps to compare; empty for all that the network has. The floors always stand beside them.
        split: name, for the record.
        points: points of the deletion and insertion curves; 0 leaves both measures out.
        bootstrap: resamples of patients.
        seed: seed of the resamples and of the order of equal values.
        batch_size: versions of an image at a time.
    """

    methods: tuple[ClassMethod, ...]
    split: str
    points: int
    bootstrap: int
    seed: int
    batch_size: int

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that are taken."""
        return (*LOCALISATION_MEASURES, *(("deletion", "insertion") if self.points else ()))


@dataclass(frozen=True, eq=False)
class _Label:
    """The class that a map explains."""

    label: int


@dataclass(frozen=True, eq=False)
class _Finding:
    """A class with true boxes on one image: (n, 4) in pixels of the network's input."""

    row: int
    label: int
    boxes: FloatArray


def measure_localisation(
    explainer: ClassExplainer,
    pack: Pack,
    rows: Sequence[int],
    options: LocalisationOptions,
    output: Output,
) -> list[Path]:
    """Explain every class with true boxes on every image of the rows; write JSON, two CSV files and a chart.

    The table of findings grows image by image, so that a stop loses no measurement.

    Raises:
        InputError: a method that this network has no use for, or box classes that are no label
            classes of the run. Also no box.
    """
    methods = options.methods or tuple(
        m for m in CLASS_METHODS if m == "occlusion" or explainer.scorer.last_map is not None
    )
    for method in methods:
        explainer.check_method(method)
    findings = _findings(explainer, pack, rows)
    maps = (*methods, *LOCALISATION_FLOORS)
    size = (explainer.model.size, explainer.model.size)
    edited = (*explainer.model.edited, *pack.check_pixels(np.asarray(rows)))
    out = output.path
    columns = ("image", "patient", "class", "score", "boxes", "map", *options.measures)
    groups = pack.groups
    values = np.empty((len(findings), len(maps), len(options.measures)))
    everywhere = {
        label: [f for f in findings if f.label == label] for label in {f.label for f in findings}
    }
    at = size_done = 0
    with output.reading():
        for state in output.progress:
            own_values = np.array(state["values"]).reshape(-1, *values.shape[1:])
            values[at : at + len(own_values)] = own_values
            at, size_done = at + len(own_values), state["size"]
        table = GrowingTable(out / FINDINGS, columns, size_done)
    with progress("measuring heat maps", len(findings), done=at) as meter:
        for row in [*dict.fromkeys(f.row for f in findings)][len(output.progress) :]:
            first = at
            own = [f for f in findings if f.row == row]
            prepared = prepare_row(explainer.model, pack, row)
            labels = [f.label for f in own]
            by_method = [
                [
                    found.map
                    for found in explainer.maps(
                        prepared, labels, method, batch_size=options.batch_size
                    )
                ]
                for method in methods
            ]
            scores = explainer.model.labels([prepared])[0]
            for number, finding in enumerate(own):
                others = [
                    f.boxes for f in everywhere[finding.label] if groups[f.row] != groups[row]
                ]
                heats = [
                    *(heat[number] for heat in by_method),
                    whole_floor(size),
                    middle_floor(size),
                    elsewhere_floor(np.concatenate(others) if others else np.zeros((0, 4)), size),
                ]
                measured = np.stack([measure_map(heat, finding.boxes) for heat in heats])
                areas = _areas(explainer, prepared, finding.label, heats, options)
                values[at] = np.concatenate([measured, areas], axis=1)
                table.append(
                    _table_rows(
                        explainer, pack, finding, float(scores[finding.label]), maps, values[at]
                    )
                )
                at += 1
                meter.advance()
            output.keep({"size": table.size, "values": values[first:at].tolist()})
    images = np.array([f.row for f in findings])
    unique, image = np.unique(images, return_inverse=True)
    patients = group_index(list(pack.patients[unique]), list(pack.ids[unique]))[image]
    taken = MeasuredMaps(
        maps,
        options.measures,
        values,
        np.array([f.label for f in findings]),
        patients,
        LOCALISATION_FLOORS,
    )
    figures = faithfulness_figures(
        taken, explainer.model.classes, bootstrap=options.bootstrap, seed=options.seed
    )
    record: dict[str, Any] = {
        "run": str(explainer.model.path),
        "data": str(pack.path),
        "split": options.split,
        "unit": "a class with true boxes on one image, whatever the classifier says of it",
        "n_images": len(unique),
        "n_findings": len(findings),
        "n_true_boxes": sum(len(f.boxes) for f in findings),
        "ious": list(IOUS),
        "curve_points": options.points,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        **({"edited": list(edited)} if edited else {}),
        "definitions": {**{m: DEFINITIONS[m] for m in methods}, **FLOOR_DEFINITIONS},
        "maps": figures,
    }
    return _write(explainer, options, record, out)


def _findings(explainer: ClassExplainer, pack: Pack, rows: Sequence[int]) -> list[_Finding]:
    classes, model = explainer.model.classes, explainer.model
    shared = {
        i: classes.index(name) for i, name in enumerate(pack.info.box_classes) if name in classes
    }
    if not shared:
        raise InputError(
            f"no box class of {pack.path} ({', '.join(pack.info.box_classes) or 'none'}) is a class of {model.path} "
            f"({', '.join(classes)}); boxes and labels must have the same names"
        )
    found = []
    for row in rows:
        boxes = pack.boxes(row)
        if boxes is None or not len(boxes):
            continue
        place = prepare_row(model, pack, row).place
        for own in np.unique(boxes.labels):
            if int(own) in shared:
                inside = place.to_square(boxes.xyxy[boxes.labels == own], model.size)
                found.append(_Finding(row, shared[int(own)], inside))
    if not found:
        raise InputError(
            f"no image of the {len(rows)} chosen ones has a true box of a class of {model.path}"
        )
    return found


@torch.no_grad()
def _areas(
    explainer: ClassExplainer,
    prepared: Any,
    label: int,
    heats: Sequence[FloatArray],
    options: LocalisationOptions,
) -> FloatArray:
    """(m, 2) areas under deletion and insertion of the class's probability; (m, 0) where these are left out."""
    if not options.points:
        return np.zeros((len(heats), 0))
    image = explainer.batch(prepared)[0]
    target = _Label(label)

    def score(versions: torch.Tensor, targets: Sequence[_Label]) -> torch.Tensor:
        return explainer.probabilities(versions, [one.label for one in targets])

    curves = removal_curves(
        image, heats, [target] * len(heats), score,
        points=options.points, seed=options.seed, batch_size=options.batch_size,
    )  # fmt: skip
    return curves.areas()


def _table_rows(
    explainer: ClassExplainer,
    pack: Pack,
    finding: _Finding,
    score: float,
    maps: Sequence[str],
    values: FloatArray,
) -> list[tuple[object, ...]]:
    """One row a finding and map, so that any other question can be asked of the same measurements."""
    first = (
        pack.ids[finding.row],
        pack.patient_codes[finding.row] or "",
        explainer.model.classes[finding.label],
        score,
        len(finding.boxes),
    )
    return [(*first, name, *own) for name, own in zip(maps, values.tolist(), strict=True)]


def _write(
    explainer: ClassExplainer, options: LocalisationOptions, record: dict[str, Any], out: Path
) -> list[Path]:
    names = ("localisation.json", "localisation.csv", FINDINGS, "localisation.png")
    paths = [out / name for name in names]
    write_json(paths[0], record, "localisation figures")
    write_text(paths[1], faithfulness_csv(record["maps"], options.measures), "table")
    title = (
        f"Heat maps of {explainer.model.path.resolve().name}: {record['n_findings']} findings with true boxes "
        f"on {record['n_images']} images of split {options.split}"
    )
    write_bytes(
        paths[3], as_png(faithfulness_chart(record["maps"], options.measures, title)), "chart"
    )
    console = Console()
    console.print(
        faithfulness_table(record["maps"], _ON_TERMINAL, ("boxed finding", "boxed findings"))
    )
    console.print(f"{', '.join(names)} in {out}", soft_wrap=True, markup=False)
    return paths
