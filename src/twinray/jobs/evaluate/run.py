"""``twinray evaluate``: finished runs on a split of a pack, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.files import claim_folder, write_json, write_text
from twinray.inference.model import Model, check_classes, check_pack, load_model
from twinray.jobs.evaluate import folds as crossed
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.diagnose import Detected
from twinray.jobs.evaluate.fresh import (
    annotated_part,
    check_seen,
    evaluate_classifiers,
    evaluate_detectors,
    labelled_rows,
)
from twinray.jobs.evaluate.options import differences_in_options
from twinray.jobs.evaluate.output import say, show_difference, show_figures, write_figures
from twinray.report.figures_csv import differences_csv, figures_csv
from twinray.runs.notes import UNKNOWN_SEEN, metrics_of, own_notes, told_once
from twinray.runs.seen import Checked, footnote


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print a table, and write it if ``out`` is given.

    Returns:
        Without ``data`` what ``crossed.run`` returns; with it ``{run: {split: figures}}``, with ``difference_to_first`` and ``differences_in_options`` beside the figures of
        every later run, ``probe_of_seed`` beside those of a classifier that was fitted with several seeds, ``seen``:
        whether it is known what the run's initial weights saw (``recorded``, ``nothing``, ``unknown``), and ``notes``.

    Raises:
        InputError: runs, pack or split that cannot be compared; images that a run's training saw.
    """
    if not config.runs:
        raise InputError("expected at least one run, got none")
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
    differences = [differences_in_options(models[0], model) for model in models[1:]]
    kind = kinds.pop()
    for model in models:
        check_pack(model, pack)
        check_classes(model, pack.info.box_classes if kind == "detector" else pack.info.label_classes, pack.path)
    part = annotated_part(config, pack) if kind == "detector" else None
    rows = labelled_rows(config, pack) if part is None else part.rows
    checked = [check_seen(config, model, pack, rows) for model in models]
    if config.out is not None:
        claim_folder(config.out, False, "evaluation")
    detected: dict[str, Detected] = {}
    if part is None:
        results = evaluate_classifiers(config, models, pack, rows)
    else:
        results, detected = evaluate_detectors(config, models, part)
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
                if values["kind"] == "seed"
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
