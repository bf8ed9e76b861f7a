"""Options of ``twinray evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
