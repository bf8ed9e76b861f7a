"""Options of ``twinray pretrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-train a backbone on unlabelled images with Barlow Twins."""

    data: tuple[Path, ...]
    """One pack or several, with the same size and channels."""
    out: Path
    """Folder of the run; must be new or empty unless --resume is given."""
    splits: tuple[str, ...] = ("train",)
    """Which splits of the packs to learn from; labels are never read."""
    arch: str = "resnet50"
    """Architecture: resnet18, resnet34 or resnet50."""
    init: str = "random"
    """Initial weights: random, imagenet-v1, imagenet-v2, a run's folder or a weight file."""
    size: int = 224
    """Side of a view, pixels."""
    batch_size: int = 256
    """Images in a batch; the correlations are estimated over all of them."""
    epochs: int = 100
    """Passes over the images."""
    projector: tuple[int, ...] = ()
    """Widths of the projector's layers; default 2048 2048 2048 for resnet18 and resnet34, 8192 8192 8192 for resnet50."""
    lam: float | None = None
    """Weight of the redundancy term; default 0.0051 as published; for fewer than 100 epochs 1 / width of the embedding, so that views agree soon."""
    optimizer: Literal["auto", "lars", "adamw", "sgd"] = "auto"
    """auto: LARS from a batch of 512 up, AdamW below."""
    lr: float | None = None
    """Peak learning rate of weights; default by optimiser and batch: LARS 0.2 * batch / 256, AdamW 0.001 * batch / 256, SGD 0.1 * batch / 256."""
    lr_biases: float | None = None
    """Peak learning rate of biases and norm parameters; default: LARS 0.0048 * batch / 256, else that of weights."""
    weight_decay: float | None = None
    """Weight decay of weights; default: LARS 1e-6, AdamW 0.01, SGD 1e-4."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; default 10, or a tenth of a run shorter than 100 epochs."""
    flip: float = 0.5
    """Probability of a left-right flip; 0 keeps laterality."""
    crop_min: float | None = None
    """Smallest area of a crop as a share of the image, 0..1; default 0.08 as published, 0.5 for fewer than 100 epochs."""
    seed: int = 0
    """Seed of the random initial weights, of the order and of the views."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of convolutions and matrix products; auto: bf16 where the processor computes in it. The loss is always float32."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at the end of each epoch."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    resume: bool = False
    """Continue an interrupted run in --out; with nothing there, start."""
