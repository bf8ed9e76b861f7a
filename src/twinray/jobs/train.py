"""The training verbs with a picture of how they go: ``curves.svg`` in the run's folder, drawn anew while they train.

On the command line they end with a few lines that say what came out and where; as functions they stay silent.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from twinray.detection import run as detection
from twinray.detection.config import DetectConfig
from twinray.files import write_bytes
from twinray.pretraining import run as pretraining
from twinray.pretraining.config import PretrainConfig
from twinray.report.charts.curves import ArmCurve, detector_curves, pretraining_curves
from twinray.report.numbers import count, duration, interval, interval_of, number, value_of
from twinray.report.pictures.single import DISCLAIMER
from twinray.runs.folder import RunFolder, read_config, read_metrics
from twinray.training.ranks import launched_rank

CURVES = "curves.svg"
_SECONDS = 20.0
"""Least time between two drawings: one takes a fraction of a second, an epoch of few images too."""


@dataclass
class _Sketch:
    """Draws at the end of an epoch, not too often, and once more when all is done."""

    detector: bool
    drawn: float = float("-inf")

    def __call__(self, run: RunFolder, best_epoch: int) -> None:
        if time.monotonic() - self.drawn >= _SECONDS:
            self.draw(run, best_epoch)
            self.drawn = time.monotonic()

    def draw(self, run: RunFolder, best_epoch: int) -> None:
        """Never ends a training: what cannot be drawn is said in one line."""
        try:
            lines = run.history()
            if self.detector:
                svg = detector_curves(
                    [ArmCurve(run.path.resolve().name, lines, best_epoch if best_epoch >= 0 else None)]
                )
            else:
                svg = pretraining_curves(lines)
            write_bytes(run.path / CURVES, svg, "training curves")
        except Exception as error:
            print(f"note: {CURVES} could not be drawn ({error})", file=sys.stderr)


def detect(config: DetectConfig) -> RunFolder:
    """``detection.run.run`` with the curves of validation mAP50 and of the loss.

    Raises:
        InputError, TwinrayError: as there.
    """
    sketch = _Sketch(detector=True)
    return detection.run(config, watch=sketch, finished=sketch.draw)


def pretrain(config: PretrainConfig) -> RunFolder:
    """``pretraining.run.run`` with the curves of the loss, of C and of the effective rank.

    Raises:
        InputError, TwinrayError: as there.
    """
    sketch = _Sketch(detector=False)
    return pretraining.run(config, watch=sketch, finished=sketch.draw)


def detect_and_tell(config: DetectConfig) -> None:
    """The verb ``detect``: :func:`detect`, then its result in a few lines.

    Raises:
        InputError, TwinrayError: as there.
    """
    before = RunFolder(config.out).finished
    run = detect(config)
    metrics, epochs = read_metrics(run.path), read_config(run.path).get("epochs")
    split = next((name for name in ("test", "val", "train") if name in metrics), None)
    lines = []
    if split is not None:
        figures = metrics[split]
        ends = f" (95 % interval {interval(figures['map50'])})" if interval_of(figures["map50"]) else ""
        where = "of the test split" if split == "test" else f"of the split {split}: there is no test image"
        images = count(figures.get("n_images"), "image")
        lines.append(f"mAP50 {number(value_of(figures['map50']))}{ends} on {images} {where}")
    lines.append(f"best epoch {metrics['best_epoch'] + 1} of {epochs}, chosen by: {metrics['selected_on']}")
    _tell(run, lines, metrics.get("seconds"), before)


def pretrain_and_tell(config: PretrainConfig) -> None:
    """The verb ``pretrain``: :func:`pretrain`, then what it made and what it is for, in a few lines.

    Raises:
        InputError, TwinrayError: as there.
    """
    before = RunFolder(config.out).finished
    run = pretrain(config)
    lines = [
        f"a backbone after {count(read_config(run.path).get('epochs'), 'epoch')}",
        f"next: twinray detect --data PACK --init {shlex.quote(str(run.path))} --out RUN",
    ]
    _tell(run, lines, value_of(read_metrics(run.path).get("train", {}).get("seconds")), before)


def _tell(run: RunFolder, lines: Sequence[str], seconds: object, before: bool) -> None:
    """Folder, result and disclaimer; said once, whatever the number of ranks."""
    if launched_rank()[0] != 0:
        return
    how = "finished already, nothing was trained anew" if before else f"finished, {duration(seconds)} of training"
    console = Console()
    for line in (f"{run.path}: {how}", *lines, f"{DISCLAIMER}."):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
