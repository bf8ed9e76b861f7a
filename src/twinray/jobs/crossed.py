"""``twinray evaluate`` without ``--data``: runs over seeds and folds, each on its own test images, taken together by arm.

Runs that differ only in their seed and in the fold of their pack are one arm. What is read is what the runs wrote
themselves (``truth.json``, ``predictions.json``), so no image is looked at again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.data.seen import MARK, footnote
from twinray.detection.config import DetectConfig
from twinray.detection.protocols import default_warmup
from twinray.errors import InputError
from twinray.evaluation.coco_json import CocoTruth, read_predictions, read_truth
from twinray.evaluation.crossed import CrossedReport, FoldRun, crossed_boxes
from twinray.files import claim_folder, read_json, write_bytes, write_json, write_text
from twinray.report.figures import class_bars, froc_curves, interval_plot
from twinray.report.numbers import count
from twinray.report.run_figures import run_dots
from twinray.report.tables import TITLES, arms_csv, arms_table, difference_table
from twinray.training.rundir import MAY_CHANGE, plain, read_config, read_metrics

MEASURES = ("map50", "map40", "map", "froc")
_NOT_OF_THE_ARM = MAY_CHANGE | {
    "init",
    "seed",
    "fraction_seed",
    "data",
    "allow_seen",
    "log_every",
    "checkpoint_every",
    "bootstrap",
    "job",
}
"""Options that make no other arm: which of its runs it is, and what does not change a model."""


@dataclass(frozen=True)
class _Run:
    """What a finished run left: its options but for those above, its test images and boxes."""

    path: Path
    init: str
    options: Mapping[str, Any]
    seed: int
    fraction_seed: object
    truth: CocoTruth
    predictions: Path
    packs: str
    mark: Mapping[str, Any] | None

    @property
    def images(self) -> tuple[str, ...]:
        """What tells its fold."""
        return tuple(sorted(map(str, self.truth.boxes)))


def run(runs: Sequence[Path], split: str, out: Path | None, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Evaluate arms, print tables, and write them if ``out`` is given.

    Returns:
        ``{"folds": number, "seeds": [...], "notes": [...], "arms": {arm: {split: figures, "runs": [paths]}}}``; every
        figure carries ``over_seeds`` and ``runs``, the values by fold and seed; later arms have ``difference_to_first``.

    Raises:
        InputError: runs that did not finish or are no detectors, arms that lack a fold or a seed.
    """
    found = [_read(path, split) for path in runs]
    classes = found[0].truth.classes
    for one in found:
        if one.truth.classes != classes:
            raise InputError(
                f"expected runs of the same box classes, got {list(classes)} in {found[0].path} and "
                f"{list(one.truth.classes)} in {one.path}"
            )
    arms = _arms(found)
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
            for one in members
        ]
        for name, members in arms.items()
    }
    report = crossed_boxes(tested, classes, bootstrap=bootstrap, seed=seed)
    with_boxes = (
        crossed_boxes(tested, classes, images="with_boxes", bootstrap=bootstrap, seed=seed)
        if all(any(len(boxes) for boxes in one.truth.boxes.values()) for one in found)
        else None
    )
    results = _as_json(report, with_boxes, arms, split)
    results["notes"] = _notes(found, arms)
    if out is not None:
        claim_folder(out, False, "evaluation")
        _write(out, report, results, split)
    _print(report, results, split)
    return results


def _read(path: Path, split: str) -> _Run:
    config, metrics = read_config(path), read_metrics(path)
    if (verb := config.get("job", "detect")) != "detect":
        advice = "give --data to evaluate classifiers" if verb == "classify" else "train a detector from it first"
        raise InputError(f"expected runs of detectors, {path} is a {verb} run; {advice}")
    description = read_json(path / "model.json", "weight description")
    if not isinstance(description, dict) or description.get("kind") != "detector":
        raise InputError(f"expected runs of detectors, {path} is none; give --data to evaluate classifiers")
    suffix = "" if split == "test" else f"_{split}"
    truth, predictions = path / f"truth{suffix}.json", path / f"predictions{suffix}.json"
    if not truth.is_file() or not predictions.is_file():
        raise InputError(f"{path} kept no predictions of split {split}; give --data to make them now")
    seed, figures = config.get("seed", 0), metrics.get(split)
    if not isinstance(seed, int):
        raise InputError(f"expected a whole number as seed in {path / 'config.yaml'}, got {seed!r}; was it edited?")
    return _Run(
        path,
        str(config.get("init", "")),
        _options(config, metrics),
        seed,
        config.get("fraction_seed", 0) if config.get("fraction", 1.0) != 1 else None,
        read_truth(truth),
        predictions,
        _checksums(description),
        figures.get(MARK) if isinstance(figures, dict) else None,
    )


def _checksums(description: Mapping[str, Any]) -> str:
    """Of the packs that a run was trained on; empty where it does not say."""
    packs = description.get("data")
    return repr([p.get("checksums") for p in packs if isinstance(p, dict)]) if isinstance(packs, list) else ""


def _options(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm is: the options, with today's defaults for those that came after the run.

    A warm-up that follows from the run's length is the default's, though folds of other sizes have other lengths.
    """
    missing = dataclasses.MISSING
    defaults = {f.name: plain(f.default) for f in dataclasses.fields(DetectConfig) if f.default is not missing}
    options = {k: v for k, v in {**defaults, **config}.items() if k not in _NOT_OF_THE_ARM}
    length = [options.get("batch_size"), options.get("epochs"), metrics.get("training_images")]
    known = [n for n in length if isinstance(n, int) and n > 0]
    if len(known) == len(length) and options.get("warmup_steps") == default_warmup(known[0], known[1], known[2]):
        options["warmup_steps"] = None
    return options


def _arms(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Runs by arm, in the order of their first run; named by their initial weights and by what else differs."""
    keys: dict[str, list[_Run]] = {}
    for run in runs:
        keys.setdefault(repr((run.init, sorted(run.options.items()))), []).append(run)
    arms = list(keys.values())
    options = dict.fromkeys(name for arm in arms for name in arm[0].options)
    differing = [name for name in options if len({repr(arm[0].options.get(name)) for arm in arms}) > 1]
    inits = {arm[0].init for arm in arms}
    short = {init: Path(init).name for init in inits} if len({Path(i).name for i in inits}) == len(inits) else {}
    named: dict[str, list[_Run]] = {}
    for arm in arms:
        init = arm[0].init
        also = ", ".join(f"{option} {arm[0].options.get(option)}" for option in differing)
        named[", ".join(part for part in (short.get(init, init), also) if part)] = arm
    return named


def _notes(runs: Sequence[_Run], arms: Mapping[str, Sequence[_Run]]) -> list[str]:
    """What a reader must know to read the figures rightly."""
    notes = [
        f"{name}: {one.path} {footnote({MARK: one.mark})}"
        for name, members in arms.items()
        for one in members
        if one.mark
    ]
    unknown = sum(None in one.truth.patients.values() for one in runs)
    if unknown:
        notes.append(f"{count(unknown, 'run')} with images of unknown patients; each such image counts as a patient")
    of_images: dict[tuple[str, ...], _Run] = {}
    for one in runs:
        first = of_images.setdefault(one.images, one)
        if one.packs != first.packs:
            notes.append(f"{first.path} and {one.path} are of one fold but were not trained on the same pack")
    labelled: dict[tuple[int, tuple[str, ...], object], _Run] = {}
    for one in runs:
        first = labelled.setdefault((one.seed, one.images, one.options.get("fraction")), one)
        if one.fraction_seed != first.fraction_seed:
            notes.append(
                f"{first.path} and {one.path} are of one fold and seed but were trained on other labelled images"
            )
    options = {repr(sorted(members[0].options.items())) for members in arms.values()}
    if len(options) > 1:
        notes.append("the arms differ in more than their initial weights: see their names")
    return notes


def _as_json(
    report: CrossedReport, with_boxes: CrossedReport | None, arms: Mapping[str, Sequence[_Run]], split: str
) -> dict[str, Any]:
    results: dict[str, Any] = {"folds": len(report.folds), "seeds": list(report.seeds), "arms": {}}
    for name, members in arms.items():
        figures = report.arm_as_json(name)
        figures["with_boxes"] = None if with_boxes is None else with_boxes.arm_as_json(name)
        marks = [one.mark for one in members if one.mark]
        if marks:
            total = sum(len(one.truth.boxes) for one in members)
            figures[MARK] = {"value": sum(mark.get("value", 0) for mark in marks), "n": total}
        results["arms"][name] = {split: figures, "runs": [str(one.path) for one in members]}
        if name in report.differences:
            results["arms"][name]["difference_to_first"] = report.difference_as_json(name)
    return results


def _write(out: Path, report: CrossedReport, results: Mapping[str, Any], split: str) -> None:
    write_json(out / "metrics.json", results, "metrics")
    figures = {name: arm[split] for name, arm in results["arms"].items()}
    marked = (MARK,) if any(MARK in f for f in figures.values()) else ()
    write_text(out / "metrics.csv", arms_csv(list(figures.items()), MEASURES + marked), "table")
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
    seeds = [(name, {m: f[m]["over_seeds"] for m in MEASURES}) for name, f in figures]
    console.print(
        f"means over {count(len(report.folds), 'fold')} and {count(len(report.seeds), 'seed')}; research software, not a medical device"
    )
    console.print("Intervals over patients (the trained runs as they are):", highlight=False)
    console.print(arms_table(figures, MEASURES))
    if several:
        console.print("Intervals over seeds (the images as they are):", highlight=False)
        console.print(arms_table(seeds, MEASURES))
    first = next(iter(report.arms))
    for name in report.differences:
        found = results["arms"][name]["difference_to_first"]
        told = f"{name} minus {first}; interval over"
        console.print(difference_table({TITLES[m]: found[m] for m in MEASURES}, f"{told} patients."))
        if several:
            named = {TITLES[m]: found[m]["over_seeds"] for m in MEASURES}
            console.print(difference_table(named, f"{told} seeds.", share_of="seeds"))
    for note in results["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
