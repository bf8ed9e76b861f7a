"""``twinray evaluate`` without ``--data``: runs over seeds and folds, each on its own test images, taken together by arm.

Runs that differ only in their seed and in the fold of their pack are one arm. What is read is what the runs wrote
themselves (``truth.json``, ``predictions.json``), so no image is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.errors import InputError
from twinray.evaluation.coco_json import CocoTruth, read_predictions, read_truth
from twinray.evaluation.crossed import CrossedArm, CrossedReport, FoldRun, crossed_boxes
from twinray.files import claim_folder, read_json, write_bytes, write_json, write_text
from twinray.report.figures import froc_curves, interval_plot
from twinray.report.numbers import count
from twinray.report.run_figures import run_dots
from twinray.report.tables import TITLES, arms_csv, arms_table, difference_table
from twinray.training.rundir import MAY_CHANGE, read_config, read_metrics

MEASURES = ("map50", "map40", "map", "froc")
_NOT_OF_THE_ARM = MAY_CHANGE | {"seed", "data", "allow_seen", "log_every", "checkpoint_every"}


@dataclass(frozen=True)
class _Run:
    path: Path
    init: str
    options: Mapping[str, Any]
    seed: int
    truth: CocoTruth
    predictions: Path


def run(runs: Sequence[Path], split: str, out: Path | None, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Evaluate arms, print tables, and write them if ``out`` is given.

    Returns:
        ``{"folds": number, "seeds": [...], "arms": {arm: {split: figures}}}``; every figure carries ``over_seeds`` and
        ``runs``, the values by fold and seed; under ``difference_to_first`` those of later arms.

    Raises:
        InputError: runs that did not finish or are no detectors, arms that lack a fold or a seed.
    """
    found = [_read(path, split) for path in runs]
    arms = _arms(found)
    folds: dict[tuple[str | int, ...], int] = {}
    for one in found:
        folds.setdefault(tuple(sorted(one.truth.boxes, key=str)), len(folds))
    classes = found[0].truth.classes
    for one in found:
        if one.truth.classes != classes:
            raise InputError(
                f"expected runs of the same box classes, got {list(classes)} in {found[0].path} and {list(one.truth.classes)} in {one.path}"
            )
    tested = {
        name: [
            FoldRun(
                folds[tuple(sorted(one.truth.boxes, key=str))],
                one.seed,
                one.truth.boxes,
                read_predictions(one.predictions, one.truth.image_ids, len(classes)),
                one.truth.patients,
            )
            for one in members
        ]
        for name, members in arms.items()
    }
    report = crossed_boxes(tested, classes, bootstrap=bootstrap, seed=seed)
    results = _as_json(report, arms, split)
    if out is not None:
        claim_folder(out, False, "evaluation")
        _write(out, report, results, split)
    _print(report, results, arms, split)
    return results


def _read(path: Path, split: str) -> _Run:
    config = read_config(path)
    read_metrics(path)  # finished
    if read_json(path / "model.json", "weight description").get("kind") != "detector":
        raise InputError(f"expected runs of detectors, {path} is none; give --data to evaluate classifiers")
    suffix = "" if split == "test" else f"_{split}"
    truth, predictions = path / f"truth{suffix}.json", path / f"predictions{suffix}.json"
    if not truth.is_file() or not predictions.is_file():
        raise InputError(f"{path} kept no predictions of split {split}; give --data to make them now")
    options = {name: value for name, value in config.items() if name not in _NOT_OF_THE_ARM | {"init"}}
    return _Run(path, str(config.get("init", "")), options, int(config.get("seed", 0)), read_truth(truth), predictions)


def _arms(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Runs by arm, in the order of their first run; named by their initial weights and by what else differs."""
    keys: dict[str, list[_Run]] = {}
    for run in runs:
        keys.setdefault(repr((run.init, sorted(run.options.items(), key=str))), []).append(run)
    arms = list(keys.values())
    differing = [k for k in arms[0][0].options if len({repr(a[0].options.get(k)) for a in arms}) > 1]
    inits = {a[0].init for a in arms}
    short = {init: Path(init).name for init in inits} if len({Path(i).name for i in inits}) == len(inits) else {}
    named: dict[str, list[_Run]] = {}
    for arm in arms:
        init = arm[0].init
        also = ", ".join(f"{option} {arm[0].options.get(option)}" for option in differing)
        named[", ".join(part for part in (short.get(init, init), also) if part)] = arm
    return named


def _as_json(report: CrossedReport, arms: Mapping[str, Sequence[_Run]], split: str) -> dict[str, Any]:
    results: dict[str, Any] = {"folds": len(report.folds), "seeds": list(report.seeds), "arms": {}}
    for name, arm in report.arms.items():
        results["arms"][name] = {split: _figures(arm), "runs": [str(run.path) for run in arms[name]]}
        if name in report.differences:
            patients, seeds = report.differences[name]
            results["arms"][name]["difference_to_first"] = {
                measure: {**difference.as_json(), "over_seeds": seeds[measure].as_json()}
                for measure, difference in patients.items()
            }
    return results


def _figures(arm: CrossedArm) -> dict[str, Any]:
    return {
        measure: {
            **interval.as_json(),
            "over_seeds": arm.over_seeds[measure].as_json(),
            "runs": [[None if v != v else v for v in row] for row in arm.runs[measure].tolist()],
        }
        for measure, interval in arm.over_patients.items()
    }


def _write(out: Path, report: CrossedReport, results: Mapping[str, Any], split: str) -> None:
    write_json(out / "metrics.json", results, "metrics")
    figures = {name: arm[split] for name, arm in results["arms"].items()}
    write_text(out / "metrics.csv", arms_csv(list(figures.items()), MEASURES), "table")
    write_bytes(out / "froc.svg", froc_curves(figures), "figure")
    values = {name: arm.runs["map50"] for name, arm in report.arms.items()}
    write_bytes(out / "runs.svg", run_dots(values, [str(f) for f in report.folds], "mAP50"), "figure")
    last = next(reversed(results["arms"].values()))
    if len(figures) == 2:
        difference = last["difference_to_first"]["map50"]
        plot = interval_plot({name: f["map50"] for name, f in figures.items()}, difference)
        write_bytes(out / "map50.svg", plot, "figure")


def _print(report: CrossedReport, results: Mapping[str, Any], arms: Mapping[str, Sequence[_Run]], split: str) -> None:
    console = Console()
    figures = {name: arm[split] for name, arm in results["arms"].items()}
    seeds = {name: {m: f["over_seeds"] for m, f in measures.items()} for name, measures in figures.items()}
    console.print(
        f"{count(len(report.folds), 'fold')} x {count(len(report.seeds), 'seed')}, means; research software, not a medical device"
    )
    console.print("Intervals over patients (the trained runs as they are):", highlight=False)
    console.print(arms_table(list(figures.items()), MEASURES))
    if len(report.seeds) > 1:
        console.print("Intervals over seeds (the images as they are):", highlight=False)
        console.print(arms_table(list(seeds.items()), MEASURES))
    first = next(iter(report.arms))
    for name in report.differences:
        found = results["arms"][name]["difference_to_first"]
        for what, of in (("patients", found), ("seeds", {m: f["over_seeds"] for m, f in found.items()})):
            if what == "patients" or len(report.seeds) > 1:
                console.print(
                    difference_table(
                        {TITLES.get(m, m): of[m] for m in MEASURES}, f"{name} minus {first}; interval over {what}."
                    )
                )
    unknown = {run.path for members in arms.values() for run in members if None in run.truth.patients.values()}
    if unknown:
        console.print(
            f"note: {count(len(unknown), 'run')} with images of unknown patients; each counts as one", highlight=False
        )
