"""``twinray evaluate`` without ``--data``: runs over seeds and folds, each on its own test images, taken together by arm.

Runs that differ only in their seed and in the fold of their pack are one arm. What is read is what the runs wrote
themselves (``truth.json``, ``predictions.json``), so no image is looked at again. Curves, calibration and confusion stay
with their run: scores of different runs are on different scales, so an arm has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.errors import InputError
from twinray.evaluation.coco_json import read_predictions
from twinray.evaluation.folds import CrossedReport, FoldRun, crossed_boxes
from twinray.files import claim_folder, write_bytes, write_json, write_text
from twinray.jobs.evaluate.arms import Arm, arms_of
from twinray.jobs.evaluate.diagnose import Detected, diagnose
from twinray.jobs.evaluate.output import curves_csv, say, show_difference, show_figures, show_over_seeds
from twinray.jobs.evaluate.stored import ArmRun, read_run
from twinray.report.charts.curves import class_bars, froc_curves, interval_plot
from twinray.report.charts.diagnostics import run_dots
from twinray.report.figures_csv import differences_csv, figures_csv
from twinray.report.numbers import count
from twinray.runs.names import run_names
from twinray.runs.notes import UNKNOWN_SEEN, told_once
from twinray.runs.seen import MARK, footnote


def run(runs: Sequence[Path], split: str, out: Path | None, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Evaluate arms, print tables, and write them if ``out`` is given.

    Returns:
        ``{"folds": number, "seeds": [...], "notes": [...], "arms": {arm: {split: figures, "runs": [paths], "seen": ...,
        "options": {...}}}, "runs": {run: {"arm", "fold", "seed", "diagnostics"}}}``; every figure carries ``over_seeds`` and ``runs``,
        the values by fold and seed; later arms have ``difference_to_first``; ``options`` are those in which arms differ.

    Raises:
        InputError: runs that did not finish or are no detectors, arms that lack a fold or a seed.
    """
    found = [read_run(path, split) for path in runs]
    classes = found[0].truth.classes
    for one in found:
        if one.truth.classes != classes:
            raise InputError(
                f"expected runs of the same box classes, got {list(classes)} in {found[0].path} and "
                f"{list(one.truth.classes)} in {one.path}"
            )
    arms = arms_of(found)
    fold_of = {images: number for number, images in enumerate(dict.fromkeys(one.images for one in found))}
    tested = {
        name: [
            FoldRun(
                fold_of[one.images],
                one.seed,
                one.truth.boxes,
                read_predictions(one.predictions, one.truth.image_ids, len(classes)),
                one.truth.patients,
            )
            for one in arm.runs
        ]
        for name, arm in arms.items()
    }
    report = crossed_boxes(tested, classes, bootstrap=bootstrap, seed=seed)
    with_boxes = (
        crossed_boxes(tested, classes, images="with_boxes", bootstrap=bootstrap, seed=seed)
        if all(any(len(boxes) for boxes in one.truth.boxes.values()) for one in found)
        else None
    )
    detected, places = _by_run(runs, found, arms, tested)
    results = _as_json(report, with_boxes, arms, split)
    results["notes"] = _notes(found, arms)
    results["runs"] = {name: {**places[name], "diagnostics": one.as_json()} for name, one in detected.items()}
    if out is not None:
        claim_folder(out, False, "evaluation")
        write_text(out / "curves.csv", curves_csv(detected), "curves")
        _write(out, report, results, split)
    _print(report, results, split)
    return results


def _by_run(
    paths: Sequence[Path], found: Sequence[ArmRun], arms: Mapping[str, Arm], tested: Mapping[str, Sequence[FoldRun]]
) -> tuple[dict[str, Detected], dict[str, dict[str, Any]]]:
    """Curves and tables of every run, in the order given, and which run it is."""
    of_path = {
        one.path: (name, part) for name, arm in arms.items() for one, part in zip(arm.runs, tested[name], strict=True)
    }
    detected: dict[str, Detected] = {}
    places: dict[str, dict[str, Any]] = {}
    for name, one in zip(run_names(paths), found, strict=True):
        arm, part = of_path[one.path]
        detected[name] = diagnose(part.truth, part.predictions, one.truth.classes, one.thresholds, str(one.path))
        places[name] = {"arm": arm, "fold": part.fold, "seed": part.seed}
    return detected, places


def _notes(runs: Sequence[ArmRun], arms: Mapping[str, Arm]) -> list[str]:
    """What a reader must know to read the figures rightly."""
    notes = [
        f"{name}: {one.path} {footnote({MARK: one.mark})}" for name, arm in arms.items() for one in arm.runs if one.mark
    ]
    unseen = {n: [(UNKNOWN_SEEN,) if one.seen == "unknown" else () for one in arm.runs] for n, arm in arms.items()}
    notes += told_once(unseen)
    notes += told_once({name: [one.notes for one in arm.runs] for name, arm in arms.items()})
    unknown = sum(None in one.truth.patients.values() for one in runs)
    if unknown:
        notes.append(f"{count(unknown, 'run')} with images of unknown patients; each such image counts as a patient")
    notes += _of_one_start(arms)
    of_images: dict[tuple[str, ...], ArmRun] = {}
    for one in runs:
        first = of_images.setdefault(one.images, one)
        if one.packs != first.packs:
            notes.append(f"{first.path} and {one.path} are of one fold but were not trained on the same pack")
    labelled: dict[tuple[int, tuple[str, ...], object], ArmRun] = {}
    for one in runs:
        first = labelled.setdefault((one.seed, one.images, one.options.get("fraction")), one)
        if one.fraction_seed != first.fraction_seed:
            notes.append(
                f"{first.path} and {one.path} are of one fold and seed but were trained on other labelled images"
            )
    return notes + _differing(arms)


def _of_one_start(arms: Mapping[str, Arm]) -> list[str]:
    """Arms of several seeds that share one weight file: the luck of making that file is in none of their intervals."""
    return [
        f"all runs of {name} start from one pre-training, so its interval over seeds holds no luck of the pre-training"
        for name, arm in arms.items()
        if len({one.seed for one in arm.runs}) > 1
        and len({one.init_hash for one in arm.runs}) == 1
        and arm.runs[0].init_hash
    ]


def _differing(arms: Mapping[str, Arm]) -> list[str]:
    """That arms differ in options, and in which where their names do not say it."""
    if not any(arm.differing for arm in arms.values()):
        return []
    sets = {arm.letter: arm.differing for arm in arms.values() if arm.letter}
    where = "options are listed by letter" if sets else "see their names"
    return [
        f"the arms differ in more than their initial weights: {where}",
        *(f"options {letter}: {', '.join(f'{k} {v}' for k, v in own.items())}" for letter, own in sets.items()),
    ]


def _as_json(
    report: CrossedReport, with_boxes: CrossedReport | None, arms: Mapping[str, Arm], split: str
) -> dict[str, Any]:
    results: dict[str, Any] = {"folds": len(report.folds), "seeds": list(report.seeds), "arms": {}}
    for name, arm in arms.items():
        figures = report.arm_as_json(name)
        figures["with_boxes"] = None if with_boxes is None else with_boxes.arm_as_json(name)
        marks = [one.mark for one in arm.runs if one.mark]
        if marks:
            total = sum(len(one.truth.boxes) for one in arm.runs)
            figures[MARK] = {"value": sum(mark.get("value", 0) for mark in marks), "n": total}
        known = {one.seen for one in arm.runs}
        results["arms"][name] = {
            split: figures,
            "runs": [str(one.path) for one in arm.runs],
            "seen": next(status for status in ("unknown", "recorded", "nothing") if status in known),
            "options": dict(arm.differing),
        }
        if name in report.differences:
            difference = report.difference_as_json(name)
            difference["with_boxes"] = None if with_boxes is None else with_boxes.difference_as_json(name)
            results["arms"][name]["difference_to_first"] = difference
    return results


def _write(out: Path, report: CrossedReport, results: Mapping[str, Any], split: str) -> None:
    write_json(out / "metrics.json", results, "metrics")
    figures = {name: arm[split] for name, arm in results["arms"].items()}
    write_text(out / "metrics.csv", figures_csv(list(figures.items())), "table")
    differences = [(name, results["arms"][name]["difference_to_first"]) for name in report.differences]
    if differences:
        write_text(out / "differences.csv", differences_csv(next(iter(figures)), differences), "table")
    values = {name: arm.runs[None, "map50"] for name, arm in report.arms.items()}
    charts = {
        "froc": froc_curves(figures),
        "classes": class_bars(figures),
        "runs": run_dots(values, [str(f) for f in report.folds], "mAP50"),
    }
    if len(figures) == 2:
        difference = results["arms"][list(figures)[1]]["difference_to_first"]["map50"]
        charts["map50"] = interval_plot({name: f["map50"] for name, f in figures.items()}, difference)
    (out / "figures").mkdir(exist_ok=True)
    for title, svg in charts.items():
        write_bytes(out / "figures" / f"{title}.svg", svg, "figure")


def _print(report: CrossedReport, results: Mapping[str, Any], split: str) -> None:
    console = Console()
    several = len(report.seeds) > 1
    figures = [(f"{n} *" if MARK in arm[split] else n, arm[split]) for n, arm in results["arms"].items()]
    say(
        console,
        f"means over {count(len(report.folds), 'fold')} and {count(len(report.seeds), 'seed')}; research software, not a medical device",
    )
    say(console, "Intervals over patients (the trained runs as they are):")
    show_figures(console, figures, "detector")
    if several:
        say(console, "Intervals over seeds (the images as they are):")
        show_over_seeds(console, figures, "detector")
    first = next(iter(report.arms))
    for name in report.differences:
        found = results["arms"][name]["difference_to_first"]
        for over in ("patients", "seeds") if several else ("patients",):
            show_difference(console, found, "detector", f"{name} minus {first}", over)
    for note in results["notes"]:
        say(console, f"note: {note}")
