"""Options of ``twinray evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from twinray.checks import DATA, DEVICE, MODEL, PLACE, RECORD, SEED, SPEED, at_least, one_of, settle
from twinray.records import SPLITS


@dataclass(frozen=True)
class EvaluateConfig:
    """Test finished runs on a pack; with several, also each one's difference to the first on the same images."""

    runs: Annotated[tuple[Path, ...], DATA]
    """Folders of finished detect runs, or of finished classify runs."""
    data: Annotated[Path | None, DATA] = None
    """A pack made as the runs' own were. Without it each detector's own test predictions are read, and runs that differ only in
    their seed and in the fold of their pack (pack --folds) are taken together as one arm; --batch-size and --device do nothing then."""
    split: Annotated[str, MODEL, one_of(*SPLITS)] = "test"
    """train, val or test."""
    out: Annotated[Path | None, PLACE] = None
    """New folder for metrics.json, metrics.csv, differences.csv, curves, predictions and figures; without it tables are only printed."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the resamples."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 16
    """Images at once."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    allow_seen: Annotated[bool, RECORD] = False
    """Go on where images, or their patients, were seen in a run's training or pre-training; the figures are marked."""

    def __post_init__(self) -> None:
        settle(self)
