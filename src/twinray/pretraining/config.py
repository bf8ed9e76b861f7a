"""Options of ``twinray pretrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-train a backbone on unlabelled images with Barlow Twins, or with an objective to compare it with."""

    data: tuple[Path, ...]
    """One pack or several, with the same size and channels."""
    out: Path
    """Folder of the run; must be new or empty unless --resume is given."""
    splits: tuple[str, ...] = ("train",)
    """Which splits of the packs to learn from; training never reads labels, only the k-NN monitor does."""
    leave_out: tuple[Path, ...] = ()
    """Packs to be tested on later, all splits: images that share a patient, an id or (where packed alike) their pixels with these are not learnt from."""
    arch: str = "resnet50"
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...), or timm/NAME with the extra timm."""
    init: str = "random"
    """Initial weights: random, imagenet-v1, imagenet-v2, a run's folder or a weight file."""
    size: int = 224
    """Side of a view, pixels."""
    batch_size: int = 256
    """Images in a batch, over all ranks; the correlations are estimated over all of them."""
    accumulate: int = 1
    """Pieces in which each rank embeds its share of a batch, to fit a small memory; the loss stays that of the whole batch. BatchNorm is per piece."""
    epochs: int = 100
    """Passes over the images."""
    projector: tuple[int, ...] = ()
    """Widths of the projector's layers; default 8192 8192 8192 from resnet50 up, 2048 2048 2048 for resnet18, resnet34 and timm's."""
    objective: Literal["barlow-twins", "vicreg", "simclr", "byol"] = "barlow-twins"
    """What makes the two views agree: Barlow Twins, or one of those that papers compare it with."""
    lam: float | None = None
    """Weight of the redundancy term; default 0.0051 as published; for fewer than 100 epochs 1 / width of the embedding, so that views agree soon."""
    optimizer: Literal["auto", "lars", "adamw", "adam", "sgd"] = "auto"
    """auto: LARS from a batch of 512 up, AdamW below."""
    lr: float | None = None
    """Peak learning rate of weights; default by optimiser and batch: LARS 0.2 * batch / 256, AdamW and Adam 0.001 * batch / 256, SGD 0.1 * batch / 256."""
    lr_biases: float | None = None
    """Peak learning rate of biases and norm parameters; default: LARS 0.0048 * batch / 256, else that of weights."""
    weight_decay: float | None = None
    """Weight decay of weights; default: LARS 1e-6, AdamW 0.01, Adam 0, SGD 1e-4."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; default 10, or a tenth of a run shorter than 100 epochs."""
    flip: float = 0.5
    """Probability of a left-right flip; 0 keeps laterality."""
    crop_min: float | None = None
    """Smallest area of a crop as a share of the image, 0..1; default 0.08 as published, 0.5 for fewer than 100 epochs."""
    jitter: float = 0.8
    """Probability of a jitter of brightness, contrast, saturation and hue."""
    brightness: float = 0.4
    """Strength of the jitter of brightness: factors 1 - b to 1 + b."""
    contrast: float = 0.4
    """Strength of the jitter of contrast: factors 1 - c to 1 + c."""
    saturation: float = 0.2
    """Strength of the jitter of saturation; nothing on grey images."""
    hue: float = 0.1
    """Strength of the jitter of hue, in turns, 0..0.5; nothing on grey images."""
    grey: float = 0.2
    """Probability of taking the colour away; nothing on grey images."""
    blur: tuple[float, float] = (1.0, 0.1)
    """Probabilities of a Gaussian blur of the first and of the second view."""
    solarise: tuple[float, float] = (0.0, 0.2)
    """Probabilities of inverting what is brighter than one half, in the first and in the second view."""
    seed: int = 0
    """Seed of the random initial weights, of the order and of the views."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of convolutions and matrix products; auto: bf16 where the processor computes in it. The loss is always float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the network; auto: on a GPU. Where it fails the run says so and goes on without."""
    deterministic: bool = False
    """Same bytes every time on a GPU too, at some cost in speed; processors are so anyway."""
    knn_every: int = 10
    """Epochs between looks at a k-nearest-neighbour classifier of the images learnt from, where they have labels; 0: never."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at the end of each epoch."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    keep_every: int = 0
    """Epochs between checkpoints that stay for ever; 0: none."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    resume: bool = False
    """Continue an interrupted run in --out; with nothing there, start."""
