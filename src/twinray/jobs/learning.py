"""The training verbs with a picture of how they go: ``curves.svg`` in the run's folder, drawn anew while they train."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from twinray.detection import run as detection
from twinray.detection.config import DetectConfig
from twinray.files import write_bytes
from twinray.pretraining import run as pretraining
from twinray.pretraining.config import PretrainConfig
from twinray.report.figures import ArmCurve, detector_curves, pretraining_curves
from twinray.training.rundir import RunFolder

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
