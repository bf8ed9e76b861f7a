"""``twinray faithfulness`` of detectors: do the heat maps of a split's true positives show the finding?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from twinray.data.pack import Pack
from twinray.detection.postprocess import Detection
from twinray.detection.pyramid import POOLED_LEVELS, Features
from twinray.errors import InputError
from twinray.evaluation.intervals import group_index
from twinray.evaluation.matching import greedy
from twinray.explanation.faithfulness import (
    box_floor,
    energy_inside,
    gaussian_floor,
    is_empty,
    pointing_hit,
    removal_curves,
    versions_scorer,
)
from twinray.explanation.faithfulness_figures import (
    FLOORS,
    MEASURES,
    MeasuredMaps,
    faithfulness_figures,
)
from twinray.files import GrowingTable, write_bytes, write_json, write_text
from twinray.geometry import box_iou, to_xywh
from twinray.inference.heat_maps import box_scorer, check_method, fixed_boxes, heat_maps
from twinray.inference.methods import Method
from twinray.inference.model import Model, prepare_row
from twinray.progress import progress
from twinray.records import Boxes, FloatArray
from twinray.report.charts.faithfulness import (
    faithfulness_chart,
    faithfulness_csv,
    faithfulness_table,
)
from twinray.report.pictures.panels import as_png
from twinray.runs.output import Output

TRUE_POSITIVES = "true_positives.csv"
FLOOR_DEFINITIONS = {
    "box": "floor: the predicted box, filled",
    "gaussian": "floor: a Gaussian in the middle of the predicted box, its edges at two standard deviations",
    "proposal": "floor: the proposal, filled, that the box's score was pooled from",
}


@dataclass(frozen=True)
class FaithfulnessOptions:
    """What is measured.

    Attributes:
        methods: heat maps to compare; the floors always stand beside them.
        split: name, for the record.
        least_score: boxes that score less are left out, 0..1.
        iou: a box counts as found correctly if it hits a true box of its class at this IoU.
        points: points of the deletion and insertion curves; 0 leaves both measures out.
        bootstrap: resamples of patients.
        seed: seed of the resamples and of the order of equal values.
        batch_size: versions of an image at a time.
    """

    methods: tuple[Method, ...]
    split: str
    least_score: float
    iou: float
    points: int
    bootstrap: int
    seed: int
    batch_size: int

    @property
    def maps(self) -> tuple[str, ...]:
        """Methods, then floors."""
        return (*self.methods, *FLOORS)

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that are taken."""
        return MEASURES if self.points else MEASURES[:3]


@dataclass(frozen=True, eq=False)
class _Measured:
    """One true positive: which, and every measure of every map (m, k)."""

    row: int
    box: FloatArray
    label: int
    score: float
    values: FloatArray

    def as_state(self) -> list[Any]:
        """As JSON has it, to the last bit."""
        return [self.row, self.box.tolist(), self.label, self.score, self.values.tolist()]

    @staticmethod
    def of(state: Sequence[Any]) -> _Measured:
        """The inverse of :meth:`as_state`."""
        row, box, label, score, values = state
        return _Measured(row, np.array(box), label, score, np.array(values))


def true_positives(found: Boxes, truth: Boxes, iou: float) -> list[tuple[int, int]]:
    """(predicted, true) indices of the hits on one image: COCO's matching, class by class, best score first.

    Args:
        found: predicted boxes with scores, best first.
        truth: true boxes, in the same pixels.
        iou: that a hit must reach.
    """
    hits = []
    for label in np.unique(found.labels):
        mine, true = np.flatnonzero(found.labels == label), np.flatnonzero(truth.labels == label)
        overlap = box_iou(to_xywh(found.xyxy[mine]), to_xywh(truth.xyxy[true]))
        taken = greedy(overlap, np.array([min(iou, 1 - 1e-10)]))[0]
        hits += [(int(mine[i]), int(true[t])) for i, t in enumerate(taken) if t >= 0]
    return sorted(hits)


def check_measurable(model: Model, options: FaithfulnessOptions) -> None:
    """Refuse what cannot be measured, before any folder is made.

    Raises:
        InputError: a method that this detector has no use for, or a detector without fixed boxes.
    """
    for method in options.methods:
        check_method(model.detector, method)
    if model.detector.options.detector != "faster-rcnn":
        raise InputError(
            f"faithfulness needs the fixed boxes of faster-rcnn, {model.path} is a {model.detector.options.detector}"
        )


def measure_faithfulness(
    model: Model, pack: Pack, rows: Sequence[int], options: FaithfulnessOptions, output: Output
) -> list[Path]:
    """Explain every true positive of the rows; write JSON, two CSV files and a chart; return their paths.

    The table of true positives grows image by image, so that a stop loses no measurement.

    Raises:
        InputError: no box to measure.
    """
    out = output.path
    edited = (*model.edited, *pack.check_pixels(np.asarray(rows)))
    columns = (
        "image",
        "patient",
        "class",
        "score",
        "x1",
        "y1",
        "x2",
        "y2",
        "map",
        *options.measures,
    )
    table: GrowingTable | None = None  # none without a row: then nothing is written
    measured: list[_Measured] = []
    n_true = done = size = 0
    definitions: dict[str, str] = {}
    with output.reading():
        for state in output.progress:
            n_true, done, size = state["n_true"], state["done"], state["size"]
            definitions |= state["definitions"]
            measured += [_Measured.of(one) for one in state["measured"]]
        if size:
            table = GrowingTable(out / TRUE_POSITIVES, columns, size)
    with progress("measuring heat maps", len(rows), done=done) as meter:
        for number, row in enumerate(rows[done:], start=done + 1):
            truth = pack.boxes(row) or Boxes.empty()
            n_true += len(truth)
            with model.machine.autocast():
                own = list(_of_image(model, pack, row, truth, options, definitions))
            if own:
                table = table or GrowingTable(out / TRUE_POSITIVES, columns)
                table.append(_table_rows(model, pack, own, options))
                output.keep(
                    {
                        "done": number,
                        "n_true": n_true,
                        "size": table.size,
                        "definitions": definitions,
                        "measured": [one.as_state() for one in own],
                    }
                )
            measured += own
            meter.advance()
    if not measured:
        raise InputError(
            f"none of the {n_true} true boxes on {len(rows)} images of split {options.split} was found with a score of "
            f"{options.least_score} or more; lower --least-score, or train longer"
        )
    figures = _figures(model, pack, measured, options)
    record: dict[str, Any] = {
        "run": str(model.path),
        "data": str(pack.path),
        "split": options.split,
        "n_images": len(rows),
        "n_true_boxes": n_true,
        "n_true_positives": len(measured),
        "least_score": options.least_score,
        "iou": options.iou,
        "curve_points": options.points,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        **({"edited": list(edited)} if edited else {}),
        "definitions": {**definitions, **FLOOR_DEFINITIONS},
        "maps": figures,
    }
    return _write(model, len(measured), options, record, out)


def _of_image(
    model: Model,
    pack: Pack,
    row: int,
    truth: Boxes,
    options: FaithfulnessOptions,
    definitions: dict[str, str],
) -> Iterator[_Measured]:
    if len(truth) == 0:
        return
    prepared = prepare_row(model, pack, row)
    batch = model.batch([prepared])
    (detection,), features = model.detector.detect_with_features(batch)
    scores = detection.scores.double().cpu().numpy()
    kept = scores >= options.least_score  # best first, so these are the first few
    original = prepared.to_original(detection.boxes.double().cpu().numpy(), model.size)
    labels = detection.labels.cpu().numpy()
    hits = true_positives(Boxes(original[kept], labels[kept], scores[kept]), truth, options.iou)
    if not hits:
        return
    chosen = [predicted for predicted, _ in hits]
    maps = _all_maps(model, features, detection, chosen, options, definitions)
    areas = _areas(model, batch[0], detection, chosen, maps, options)
    true_in_input = prepared.place.to_square(truth.xyxy, model.size)
    for number, (predicted, true) in enumerate(hits):
        box = true_in_input[true]
        inside = np.array(
            [[pointing_hit(h, box), energy_inside(h, box), is_empty(h)] for h in maps[number]]
        )
        values = np.concatenate([inside, areas[number]], axis=1)
        yield _Measured(
            row, original[predicted], int(labels[predicted]), float(scores[predicted]), values
        )


def _all_maps(
    model: Model,
    features: Features,
    found: Detection,
    chosen: Sequence[int],
    options: FaithfulnessOptions,
    definitions: dict[str, str],
) -> list[list[FloatArray]]:
    """Of each chosen box, one map of every method and floor, in the order of ``options.maps``."""
    size = (model.size, model.size)
    by_method = []
    for method in options.methods:
        heats = heat_maps(model.detector, features, found, chosen, size, method)
        definitions[method] = heats[0].definition
        by_method.append([heat.map for heat in heats])
    maps: list[list[FloatArray]] = []
    for number, i in enumerate(chosen):
        box, proposal = (
            found.boxes[i].double().cpu().numpy(),
            found.proposals[i].double().cpu().numpy(),
        )
        floors = (box_floor(box, size), gaussian_floor(box, size), box_floor(proposal, size))
        maps.append([*(heats[number] for heats in by_method), *floors])
    return maps


@torch.no_grad()
def _areas(
    model: Model,
    image: torch.Tensor,
    found: Detection,
    chosen: Sequence[int],
    maps: Sequence[Sequence[FloatArray]],
    options: FaithfulnessOptions,
) -> FloatArray:
    """(boxes, m, 2) areas under deletion and insertion; (boxes, m, 0) where these are left out."""
    n_maps = len(options.maps)
    if not options.points:
        return np.zeros((len(chosen), n_maps, 0))
    detector = model.detector

    def pyramid(versions: torch.Tensor) -> list[torch.Tensor]:
        levels = detector.backbone(versions.contiguous(memory_format=torch.channels_last)).pyramid
        return [levels[name] for name in POOLED_LEVELS]

    boxes = [box for box in fixed_boxes(found, chosen) for _ in range(n_maps)]
    heats = [heat for of_box in maps for heat in of_box]
    score = versions_scorer(pyramid, box_scorer(detector))
    curves = removal_curves(
        image,
        heats,
        boxes,
        score,
        points=options.points,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    return curves.areas().reshape(len(chosen), n_maps, 2)


def _figures(
    model: Model, pack: Pack, measured: Sequence[_Measured], options: FaithfulnessOptions
) -> dict[str, Any]:
    rows = np.array([one.row for one in measured])
    images, image = np.unique(rows, return_inverse=True)
    groups = group_index(list(pack.patients[images]), list(pack.ids[images]))[image]
    stacked = np.stack([one.values for one in measured])
    labels = np.array([one.label for one in measured])
    table = MeasuredMaps(options.maps, options.measures, stacked, labels, groups)
    return faithfulness_figures(
        table, model.classes, bootstrap=options.bootstrap, seed=options.seed
    )


def _write(
    model: Model, n_measured: int, options: FaithfulnessOptions, record: dict[str, Any], out: Path
) -> list[Path]:
    names = ("faithfulness.json", "faithfulness.csv", TRUE_POSITIVES, "faithfulness.png")
    paths = [out / name for name in names]
    write_json(paths[0], record, "faithfulness figures")
    write_text(paths[1], faithfulness_csv(record["maps"], options.measures), "table")
    title = (
        f"Heat maps of {model.path.resolve().name}: {n_measured} of {record['n_true_boxes']} true boxes found, "
        f"on {record['n_images']} images with boxes of split {options.split}"
    )
    write_bytes(
        paths[3], as_png(faithfulness_chart(record["maps"], options.measures, title)), "chart"
    )
    console = Console()
    console.print(faithfulness_table(record["maps"], options.measures))
    console.print(f"{', '.join(names)} in {out}", soft_wrap=True, markup=False)
    return paths


def _table_rows(
    model: Model, pack: Pack, measured: Sequence[_Measured], options: FaithfulnessOptions
) -> list[tuple[object, ...]]:
    """One row a true positive and map, so that any other question can be asked of the same measurements."""
    rows: list[tuple[object, ...]] = []
    for one in measured:
        place = (*(round(float(v), 2) for v in one.box),)
        patient = pack.patient_codes[one.row] or ""
        for name, values in zip(options.maps, one.values.tolist(), strict=True):
            rows.append(
                (
                    pack.ids[one.row],
                    patient,
                    model.classes[one.label],
                    one.score,
                    *place,
                    name,
                    *values,
                )
            )
    return rows
