"""Options of ``twinray classify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ClassifyConfig:
    """Train and test a classifier on a backbone's features."""

    data: Path
    """A pack with labels."""
    out: Path
    """Folder of the run; must be new or empty unless --resume is given."""
    init: str = "random"
    """Weights under test: random, imagenet-v1, imagenet-v2, a run's folder or a weight file."""
    arch: str = ""
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...) or timm/NAME with the extra timm; default that of the run named by --init."""
    policy: Literal["probe"] = "probe"
    """probe: the backbone is frozen and one linear layer is fitted on its features."""
    fraction: float = 1.0
    """Share of the training patients' labels that may be used, 0..1; drawn by --seeds, stratified, nested."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the label fraction; with several, figures are means with an interval over seeds."""
    size: int = 0
    """Side of the network's input, pixels; default that of the run named by --init."""
    batch_size: int = 256
    """Images at once through the frozen backbone; no effect on results."""
    folds: int = 5
    """Folds inside the labelled fraction that choose the strength of the L2 penalty."""
    bootstrap: int = 1000
    """Resamples of patients for the intervals."""
    seed: int = 0
    """Seed of random initial weights and of the bootstrap."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """Of the frozen forward pass; the probe itself is float64."""
    allow_seen: bool = False
    """Go on where images to evaluate on, or their patients, were seen in the training of --init; the figures are marked."""
    resume: bool = False
    """Do an interrupted run in --out again (it takes minutes); a finished one is left as it is."""
