"""``twinray evaluate``: finished runs on a split of a pack, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from twinray.backbones.pixels import network_input
from twinray.data.pack import Pack, open_pack
from twinray.detection.data import DetectionData, annotated
from twinray.detection.on_pack import detect_rows
from twinray.errors import InputError
from twinray.evaluation.boxes import compare_boxes, evaluate_boxes
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.evaluation.labels import compare_labels, evaluate_labels
from twinray.files import claim_folder, write_json, write_text
from twinray.inference.model import Model, check_classes, check_pack, load_model
from twinray.jobs.evaluate import folds as crossed
from twinray.jobs.evaluate.diagnose import Detected, diagnose, write_figures
from twinray.jobs.evaluate.options import options_of
from twinray.jobs.evaluate.output import say, show_difference, show_figures
from twinray.jobs.run_notes import UNKNOWN_SEEN, metrics_of, own_notes, told_once
from twinray.progress import progress
from twinray.records import SPLITS, Boxes, FloatArray, IntArray
from twinray.report.figures_csv import differences_csv, figures_csv
from twinray.runs.names import file_names, run_names
from twinray.runs.seen import Checked, check_unseen, footnote, read_seen
from twinray.training.loader import PixelSource, prefetch
from twinray.training.record import read_config


@dataclass(frozen=True)
class EvaluateConfig:
    """Test finished runs on a pack; with several, also each one's difference to the first on the same images."""

    runs: tuple[Path, ...]
    """Folders of finished detect runs, or of finished classify runs."""
    data: Path | None = None
    """A pack made as the runs' own were. Without it each detector's own test predictions are read, and runs that differ only in
    their seed and in the fold of their pack (pack --folds) are taken together as one arm; --batch-size and --device do nothing then."""
    split: str = "test"
    """train, val or test."""
    out: Path | None = None
    """New folder for metrics.json, metrics.csv, differences.csv, curves, predictions and figures; without it tables are only printed."""
    bootstrap: int = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: int = 0
    """Seed of the resamples."""
    batch_size: int = 16
    """Images at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    allow_seen: bool = False
    """Go on where images, or their patients, were seen in a run's training or pre-training; the figures are marked."""


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print a table, and write it if ``out`` is given.

    Returns:
        Without ``data`` what ``crossed.run`` returns; with it ``{run: {split: figures}}``, with ``difference_to_first`` and ``differences_in_options`` beside the figures of
        every later run, ``probe_of_seed`` beside those of a classifier that was fitted with several seeds, ``seen``:
        whether it is known what the run's initial weights saw (``recorded``, ``nothing``, ``unknown``), and ``notes``.

    Raises:
        InputError: runs, pack or split that cannot be compared; images that a run's training saw.
    """
    if config.split not in SPLITS:
        raise InputError(f"expected --split to be one of {', '.join(SPLITS)}, got {config.split!r}")
    if not config.runs or config.seed < 0:
        raise InputError(f"expected at least one run and --seed of 0 or more, got {len(config.runs)} and {config.seed}")
    if config.bootstrap < 0 or config.batch_size < 1:
        raise InputError(
            f"expected --bootstrap 0 or more and --batch-size 1 or more, got {config.bootstrap} and {config.batch_size}"
        )
    _check_apart(config.runs)
    if config.data is None:
        return crossed.run(config.runs, config.split, config.out, bootstrap=config.bootstrap, seed=config.seed)
    pack = open_pack(config.data)
    models = [load_model(path, config.device) for path in config.runs]
    kinds = {model.kind for model in models}
    if len(kinds) != 1:
        raise InputError(
            f"expected runs of one kind, got {', '.join(f'{m.path} ({m.kind})' for m in models)}; evaluate them apart"
        )
    differences = [_differences_in_options(models[0], model) for model in models[1:]]
    kind = kinds.pop()
    for model in models:
        check_pack(model, pack)
        check_classes(model, pack.info.box_classes if kind == "detector" else pack.info.label_classes, pack.path)
    part = _annotated_part(config, pack) if kind == "detector" else None
    rows = _labelled_rows(config, pack) if part is None else part.rows
    checked = [_check_seen(config, model, pack, rows) for model in models]
    if config.out is not None:
        claim_folder(config.out, False, "evaluation")
    detected: dict[str, Detected] = {}
    if part is None:
        results = _evaluate_classifiers(config, models, pack, rows)
    else:
        results, detected = _evaluate_detectors(config, models, part)
    for name, differing in zip(list(results)[1:], differences, strict=True):
        results[name]["differences_in_options"] = differing
    for run_results, model, (status, found) in zip(results.values(), models, checked, strict=True):
        run_results[config.split] |= found.marks.get(config.split, {})
        run_results |= {"seen": status, "notes": _notes(model, found)}
    _print(results, config.split, kind)
    if config.out is not None:
        _write(config.out, results, config.split)
        if detected:
            write_figures(config.out, detected, {name: run[config.split] for name, run in results.items()}, results)
    return results


def _notes(model: Model, found: Checked) -> list[str]:
    """What evaluating it told of a run, then what the run itself has noted."""
    own = [note for note in own_notes(metrics_of(model.path)) if note not in found.notes]
    return [*found.notes, *(f"from its training: {note}" for note in own)]


def _write(out: Path, results: Mapping[str, Any], split: str) -> None:
    write_json(out / "metrics.json", results, "metrics")
    write_text(out / "metrics.csv", figures_csv([(name, run[split]) for name, run in results.items()]), "table")
    first, *others = results
    if others:
        differences = [(name, results[name]["difference_to_first"]) for name in others]
        write_text(out / "differences.csv", differences_csv(first, differences), "table")


def _check_apart(runs: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in runs]
    for path, real in zip(runs, resolved, strict=True):
        if resolved.count(real) > 1:
            raise InputError(f"the run {path} is given twice; leave one out")


def _differences_in_options(first: Model, other: Model) -> dict[str, Any]:
    """Options in which two runs differ and that can change a result, but for the initial weights under test.

    Packs are compared by their bytes, not by where they lie.

    Raises:
        InputError: a run without its options.
    """
    before, after = read_config(first.path), read_config(other.path)
    made, also = (options_of(c, metrics_of(m.path)) for c, m in ((before, first), (after, other)))
    same = {"init"}
    if _checksums(first) and _checksums(first) == _checksums(other):
        same |= {"data"}
    if made.get("fraction") == also.get("fraction") == 1:
        same |= {"fraction_seed"}  # all images: nothing is drawn
    differing = [n for n in dict.fromkeys([*made, *also]) if n not in same and made.get(n) != also.get(n)]
    told = {n: {"first": before.get(n, made.get(n)), "this": after.get(n, also.get(n))} for n in differing}
    return {name: values for name, values in told.items() if values["first"] != values["this"]}


def _checksums(model: Model) -> list[Any]:
    return [pack["checksums"] for pack in model.description.get("data", []) if "checksums" in pack]


def _print(results: Mapping[str, Any], split: str, kind: str) -> None:
    """The table, and below it what a reader must know to read it rightly."""
    console = Console()
    rows = [(f"{name} *" if footnote(run[split]) else name, run[split]) for name, run in results.items()]
    show_figures(console, rows, kind)
    first = next(iter(results))
    for name, run in results.items():
        if "difference_to_first" in run:
            show_difference(console, run["difference_to_first"], kind, f"{name} minus {first}")
    for name, run in results.items():
        if note := footnote(run[split]):
            say(console, f"{name} * {note}")
        if run["seen"] == "unknown":
            say(console, f"{name}: {UNKNOWN_SEEN}")
        for option, values in run.get("differences_in_options", {}).items():
            what = (
                "runs are of different seeds, so their difference holds the luck of the draw too"
                if option == "seed"
                else "runs differ in more than their initial weights"
            )
            say(console, f"warning: {what}: {option} {values['first']} vs {values['this']} ({first}, {name})")
        if "probe_of_seed" in run:
            say(
                console,
                f"{name}: probe of seed {run['probe_of_seed']}, the one that a run of several seeds keeps; "
                "the run's own metrics.json has all seeds",
            )
    for note in told_once({name: [run["notes"]] for name, run in results.items()}):
        say(console, note)


def _check_seen(config: EvaluateConfig, model: Model, pack: Pack, rows: IntArray) -> tuple[str, Checked]:
    """Whether it is known what the run's initial weights saw, and what of it is among the rows.

    On the pack that the run was made from, its own training images are what that pack's split says they are, and only
    the weights that it started from are asked for theirs.

    Raises:
        InputError: training saw some of the images.
    """
    seen = read_seen(model.path)
    own_pack = pack.info.checksums in _checksums(model)
    if own_pack and config.split == "train":
        return seen.before.status, Checked()
    asked = seen.before if own_pack else seen
    found = check_unseen(asked, pack, {config.split: rows}, weights=model.path, allow=config.allow_seen)
    return seen.before.status, found


def _annotated_part(config: EvaluateConfig, pack: Pack) -> DetectionData:
    part = annotated(pack, config.split)
    if len(part) == 0:
        raise InputError(f"no image of split {config.split} in {pack.path} is annotated with boxes; see --split")
    return part


def _labelled_rows(config: EvaluateConfig, pack: Pack) -> IntArray:
    rows = pack.where(config.split)
    rows = rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)] if pack.labels.shape[1] else rows[:0]
    if len(rows) == 0:
        raise InputError(f"no labelled image of split {config.split} in {pack.path}; see --split")
    return rows


def _evaluate_detectors(
    config: EvaluateConfig, models: Sequence[Model], part: DetectionData
) -> tuple[dict[str, Any], dict[str, Detected]]:
    pack, truth = part.pack, part.truth_by_id()
    results: dict[str, Any] = {}
    detected: dict[str, Detected] = {}
    first: Mapping[str | int, Boxes] = {}
    names = run_names(config.runs)
    ids, files = coco_image_ids(list(pack.ids[part.rows])), file_names(names)
    for name, model in zip(names, models, strict=True):
        found = detect_rows(
            model.detector, pack, part.rows, machine=model.machine, batch_size=config.batch_size, label=name
        )
        report = evaluate_boxes(
            truth, found, model.classes, part.patients(), bootstrap=config.bootstrap, seed=config.seed
        )
        detected[name] = diagnose(truth, found, model.classes, model.description.get("thresholds"), name)
        results[name] = {config.split: report.as_json(), "diagnostics": detected[name].as_json()}
        if first:
            results[name]["difference_to_first"] = _difference(config, part, model.classes, first, found)
        first = first or found
        if config.out is not None:
            file = f"predictions {files[name]}.json"
            write_predictions(config.out / file, found, len(model.classes), ids)
            results[name]["predictions"] = file
    if config.out is not None:
        write_json(config.out / "truth.json", truth_as_coco(truth, models[0].classes, image_ids=ids), "true boxes")
    return results, detected


def _difference(
    config: EvaluateConfig,
    part: DetectionData,
    classes: Sequence[str],
    first: Mapping[str | int, Boxes],
    found: Mapping[str | int, Boxes],
) -> dict[str, Any]:
    """Over all images, and under ``with_boxes`` over those with a box."""
    truth, patients = part.truth_by_id(), part.patients()
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "seed": config.seed}
    with_boxes = any(len(boxes) for boxes in truth.values())
    return {
        **compare_boxes(truth, first, found, classes, patients, **options).as_json(),
        "with_boxes": compare_boxes(truth, first, found, classes, patients, images="with_boxes", **options).as_json()
        if with_boxes
        else None,
    }


def _evaluate_classifiers(
    config: EvaluateConfig, models: Sequence[Model], pack: Pack, rows: IntArray
) -> dict[str, Any]:
    truth, patients = pack.labels[rows], pack.patients[rows].tolist()
    results: dict[str, Any] = {}
    first: FloatArray | None = None
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "seed": config.seed}
    for name, model in zip(run_names(config.runs), models, strict=True):
        scores = _scores(model, pack, rows, config.batch_size, name)
        report = evaluate_labels(truth, scores, model.classes, pack.info.task, patients, **options)
        results[name] = {config.split: report.as_json()}
        if len(read_config(model.path).get("seeds", ())) > 1:
            results[name]["probe_of_seed"] = model.description["seed"]
        if first is not None:
            compared = compare_labels(truth, first, scores, model.classes, pack.info.task, patients, **options)
            results[name]["difference_to_first"] = compared.as_json()
        first = scores if first is None else first
    return results


@torch.no_grad()
def _scores(model: Model, pack: Pack, rows: IntArray, batch_size: int, label: str) -> FloatArray:
    """Probabilities (n, k) of the given rows of a checked pack, whole batches straight from its memory map."""
    source = PixelSource([pack.images], np.stack([np.zeros_like(rows), rows], axis=1))
    batches = [np.arange(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    scores = np.empty((len(rows), len(model.classes)), dtype=np.float64)
    with progress(label, len(rows)) as meter:
        for batch, pixels in zip(batches, prefetch(source.gather, batches), strict=True):
            found = model.network(network_input(pixels, model.size, model.machine.device))
            scores[batch] = found.double().cpu().numpy()
            meter.advance(len(batch))
    return scores
