"""The training verbs with a picture of how they go.

The picture is ``curves.svg`` in the run's folder, redrawn while they train.

On the command line they end with a few lines that say what came out and where; as functions they stay silent.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.classification import run as classification
from twinray.classification.config import ClassifyConfig
from twinray.classification.draws import histories
from twinray.classification.results import TUNE
from twinray.detection import run as detection
from twinray.detection.config import DetectConfig
from twinray.errors import InputError
from twinray.evaluation.record import SEEDS, read_split
from twinray.files import read_json, write_bytes
from twinray.jobs.preview import run as preview
from twinray.pretraining import run as pretraining
from twinray.pretraining.config import PretrainConfig
from twinray.report.charts.curves import (
    ArmCurve,
    classifier_curves,
    detector_curves,
    pretraining_curves,
)
from twinray.report.charts.tuning import tuning_chart
from twinray.report.numbers import count, duration, interval, interval_of, number, value_of
from twinray.report.pictures.single import DISCLAIMER
from twinray.runs.folder import RunFolder, read_config, read_metrics
from twinray.runs.results import split_figures
from twinray.runs.seen import told_seen
from twinray.training.ranks import launched_rank
from twinray.training.trackers import Lines, LinesOf, Trackers, check_trackers

CURVES, TUNING = "curves.svg", "tune.svg"
_SECONDS = 20.0
"""Least time between two drawings: one takes a fraction of a second, an epoch of few images too."""


@dataclass
class _Sketch:
    """Draws at the end of an epoch, not too often, and once more when all is done."""

    picture: Callable[[RunFolder, int], bytes]
    drawn: float = float("-inf")

    def __call__(self, run: RunFolder, best_epoch: int) -> None:
        if time.monotonic() - self.drawn >= _SECONDS:
            self.draw(run, best_epoch)
            self.drawn = time.monotonic()

    def draw(self, run: RunFolder, best_epoch: int) -> None:
        """Never ends a training: what cannot be drawn is said in one line."""
        try:
            write_bytes(run.path / CURVES, self.picture(run, best_epoch), "training curves")
        except Exception as error:
            print(f"note: {CURVES} could not be drawn ({error})", file=sys.stderr)


@dataclass
class _Watch:
    """What is told of a run at the end of every epoch, and at its own: the picture, and copies for trackers."""

    sketch: _Sketch
    trackers: Trackers

    def __call__(self, run: RunFolder, best_epoch: int) -> None:
        self.sketch(run, best_epoch)
        self.trackers(run, best_epoch)

    def finish(self, run: RunFolder, best_epoch: int) -> None:
        """Once more when all is done."""
        self.sketch.draw(run, best_epoch)
        self.trackers.finish(run, best_epoch)


def _watch(
    config: DetectConfig | PretrainConfig | ClassifyConfig,
    picture: Callable[[RunFolder, int], bytes],
    lines_of: LinesOf = lambda run, _: {"": run.history()},
) -> _Watch:
    """What watches a run.

    Raises:
        InputError: a tracker that is not installed.
    """
    try:
        check_trackers(config.track, config.track_online)
    except InputError as refused:
        refused.told = launched_rank()[0] > 0
        raise
    return _Watch(_Sketch(picture), Trackers(config.track, config.track_online, lines_of))


def _of_detector(run: RunFolder, best_epoch: int) -> bytes:
    return detector_curves(
        [ArmCurve(run.path.resolve().name, run.history(), best_epoch if best_epoch >= 0 else None)]
    )


def _of_pretraining(run: RunFolder, best_epoch: int) -> bytes:
    del best_epoch
    return pretraining_curves(run.history())


def _of_classifier(run: RunFolder, best_epoch: int) -> bytes:
    return classifier_curves(
        [ArmCurve(name, *drawn) for name, drawn in histories(run, best_epoch).items()]
    )


def _by_draw(run: RunFolder, best_epoch: int) -> Mapping[str, Lines]:
    """Lines of each draw under its name; of a run without draws under none."""
    own = run.path.resolve().name
    found = histories(run, best_epoch)
    return {"" if name == own else name: lines for name, (lines, _) in found.items()}


def detect(config: DetectConfig) -> RunFolder:
    """Train a detector on the boxes of a pack, test it once, and draw how the training went.

    Returns:
        The run's folder: weights, figures, predictions, curves and what was seen.

    Raises:
        InputError: bad options, packs or weights, or a folder that holds another run.
        TwinrayError: a training that failed or was stopped; its last checkpoint stays.
    """
    watch = _watch(config, _of_detector)
    return detection.run(config, watch=watch, finished=watch.finish)


def pretrain(config: PretrainConfig) -> RunFolder:
    """Pre-train a backbone without labels, and draw how the training went; with ``preview`` a look at the views only.

    Returns:
        The run's folder: the backbone, its curves and what was seen. With ``preview`` the folder of the pictures.

    Raises:
        InputError: bad options, packs or weights, or a folder that holds another run.
        TwinrayError: a training that failed or was stopped; its last checkpoint stays.
    """
    if config.preview is not None:
        rank, world, _ = launched_rank()
        if world > 1:
            refused = InputError(
                f"--preview looks at images in one process, and torchrun started {world}; start it without torchrun"
            )
            refused.told = rank > 0
            raise refused
        preview(config)
        return RunFolder(config.preview)
    watch = _watch(config, _of_pretraining)
    return pretraining.run(config, watch=watch, finished=watch.finish)


def classify(config: ClassifyConfig) -> RunFolder:
    """Train a classifier, once for each seed, test it once, and draw how the training went.

    Returns:
        The run's folder: weights, figures, predictions, curves and what was seen.

    Raises:
        InputError: bad options, packs or weights, or a folder that holds another run.
        TwinrayError: a training that failed or was stopped; its last checkpoint stays.
    """
    watch = _watch(config, _of_classifier, _by_draw)
    if config.policy == "probe":
        run = classification.run(config)
        if launched_rank()[0] == 0:
            watch.trackers.finish(run, -1)
        return run

    def finished(run: RunFolder, best_epoch: int) -> None:
        watch.finish(run, best_epoch)
        draw_tuning(run)

    return classification.run(config, watch=watch, finished=finished)


def draw_tuning(run: RunFolder) -> None:
    """Draw the rates that a surgical run left; nothing where it left none. Never ends a run."""
    if not (run.path / TUNE).is_file():
        return
    try:
        kept = read_json(run.path / TUNE, "rates of the parts")
        rates = {f"seed {seed}": own["parts"] for seed, own in kept.items()}
        write_bytes(run.path / TUNING, tuning_chart(rates), "rates of the parts")
    except Exception as error:
        print(f"note: {TUNING} could not be drawn ({error})", file=sys.stderr)


def detect_and_tell(config: DetectConfig) -> None:
    """The verb ``detect``: :func:`detect`, then its result in a few lines.

    Raises:
        InputError, TwinrayError: as there.
    """
    _and_tell(config.out, lambda: detect(config), _detector_lines)


def pretrain_and_tell(config: PretrainConfig) -> None:
    """The verb ``pretrain``: :func:`pretrain`, then what it made and what it is for, in a few lines.

    Raises:
        InputError, TwinrayError: as there.
    """
    if config.preview is not None or config.out is None:
        pretrain(config)
        return
    _and_tell(config.out, lambda: pretrain(config), _pretraining_lines)


def classify_and_tell(config: ClassifyConfig) -> None:
    """The verb ``classify``: :func:`classify`, then its result in a few lines.

    Raises:
        InputError, TwinrayError: as there.
    """
    _and_tell(config.out, lambda: classify(config), _classifier_lines)


def _and_tell(
    out: Path,
    train: Callable[[], RunFolder],
    lines: Callable[[Path, Mapping[str, Any]], Sequence[str]],
) -> None:
    """Train, then say folder, result and disclaimer; once, whatever the number of ranks."""
    before = RunFolder(out).finished
    run = train()
    if launched_rank()[0] != 0:
        return
    metrics = read_metrics(run.path)
    seconds = _seconds(run.path, metrics)
    trained = "finished" if seconds is None else f"finished, {duration(seconds)} of training"
    how = "finished already, nothing was trained anew" if before else trained
    told = [f"{run.path}: {how}", *lines(run.path, metrics), f"{DISCLAIMER}."]
    console = Console()
    for line in told:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _seconds(run: Path, metrics: Mapping[str, Any]) -> object:
    """Of training; None where a run keeps none. A pre-training's stand among the figures of its training images."""
    train = split_figures(run, metrics).get("train")
    return metrics.get("seconds") or (None if train is None else value_of(train.get("seconds")))


def _detector_lines(run: Path, metrics: Mapping[str, Any]) -> list[str]:
    epochs, lines = read_config(run).get("epochs"), []
    split = next((name for name in ("test", "val", "train") if name in metrics), None)
    if split is not None:
        figures = split_figures(run, metrics)[split]
        ends = (
            f" (95 % interval {interval(figures.get('map50'))})"
            if interval_of(figures.get("map50"))
            else ""
        )
        where = (
            "of the test split"
            if split == "test"
            else f"of the split {split}: there is no test image"
        )
        images = count(figures.counts.get("n_images"), "image")
        lines.append(f"mAP50 {number(value_of(figures.get('map50')))}{ends} on {images} {where}")
    return [
        *lines,
        f"best epoch {metrics['best_epoch'] + 1} of {epochs}, chosen by: {metrics['selected_on']}",
    ]


def _pretraining_lines(run: Path, metrics: Mapping[str, Any]) -> list[str]:
    del metrics
    return [
        f"a backbone after {count(read_config(run).get('epochs'), 'epoch')}",
        f"next: twinray detect --data PACK --init {shlex.quote(str(run))} --out RUN",
    ]


def _classifier_lines(run: Path, metrics: Mapping[str, Any]) -> list[str]:
    lines = [summary(metrics)]
    if "best_epoch" in metrics:
        epochs = ", ".join(str(epoch + 1) for epoch in metrics["best_epoch"])
        plural, of = "s" if len(metrics["best_epoch"]) > 1 else "", read_config(run).get("epochs")
        lines.append(f"best epoch{plural} {epochs} of {of}, chosen by: {metrics['selected_on'][0]}")
    return lines


def summary(metrics: Mapping[str, Any]) -> str:
    """AUC of the test images in one line, with its interval and what limits it."""
    if "test" not in metrics:
        return "the test images are sealed until the study that the run belongs to is opened"
    figures = read_split(metrics["test"], "test")
    auc = figures.get("auc")
    images = f"on {count(figures.counts.get('n_images'), 'image')} of the test split"
    mark = f"; {note}" if (note := told_seen(figures.seen)) else ""
    over = "" if auc is None else f" over {auc.n:,} {auc.over}"
    ends = f" (95 % interval{over} {interval(auc)})" if interval_of(auc) else ""
    drawn = len(metrics.get("seeds", ()))
    alike = drawn > 1 and auc is not None and auc.over != SEEDS
    same = f"; its {drawn} seeds make one and the same model" if alike else ""
    return f"test AUC {number(value_of(auc))}{ends} {images}{same}{mark}"
