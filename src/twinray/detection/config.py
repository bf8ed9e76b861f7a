"""Options of ``twinray detect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DetectConfig:
    """Train a Faster R-CNN with a feature pyramid, pick its epoch on val, test it once."""

    data: Path
    """A pack with boxes."""
    out: Path
    """Folder of the run; must be new or empty unless --resume is given."""
    init: str = "random"
    """Weights under test: random, imagenet-v1, imagenet-v2, a run's folder or a weight file."""
    arch: str = ""
    """Architecture: resnet18, resnet34 or resnet50; default that of the run named by --init."""
    size: int = 224
    """Side of the network's input, pixels; a multiple of 32."""
    batch_size: int = 8
    """Images in a batch."""
    epochs: int = 50
    """Passes over the training images."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Rule of the updates."""
    lr: float | None = None
    """Peak learning rate; default by optimiser and batch: AdamW 0.0002 * sqrt(batch / 8), SGD 0.005 * batch / 32."""
    weight_decay: float | None = None
    """Weight decay of weights; default: AdamW 0.05, SGD 1e-4."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; default 500, or a tenth of a run shorter than 5,000 steps."""
    clip_norm: float = 10.0
    """Largest norm of the gradient."""
    norm: Literal["trainable", "eval", "frozen", "group"] = "trainable"
    """Backbone normalisation. trainable: batch statistics; eval: stored statistics; frozen: all stored; group: group norm instead."""
    trainable_stages: int = 5
    """Backbone stages that learn, from the last: 5 all, 3 without stem and layer1, 0 none."""
    fpn_channels: int = 256
    """Channels of the feature pyramid."""
    box_head_width: int = 1024
    """Width of the two fully connected layers of the box head."""
    rois_per_image: int = 512
    """Proposals sampled per image for the box loss."""
    anchor_scale: float = 8.0
    """Side of the square anchor in strides: 8 gives 32, 64, 128, 256 and 512 pixels."""
    flip: float = 0.5
    """Probability of a left-right flip; 0 keeps laterality."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest random magnification; 1 1 is off."""
    brightness: float = 0.1
    """Largest random shift of brightness, share of the full range."""
    contrast: float = 0.2
    """Largest random change of contrast, relative."""
    images: Literal["all", "with_boxes"] = "all"
    """Which training images: all annotated ones, those without a box as negatives, or only those with a box."""
    bootstrap: int = 1000
    """Resamples of patients for the intervals."""
    seed: int = 0
    """Seed of all random weights, of the order, the transforms and the bootstrap."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of training; auto: bf16 where the processor computes in it. Final figures are always made in float32."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at the end of each epoch."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    resume: bool = False
    """Continue an interrupted run in --out; with nothing there, start."""
