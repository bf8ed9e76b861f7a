"""Options of ``twinray classify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Policy = Literal["probe", "head", "surgical", "full"]
Protocol = Literal["sound", "as-published", "comparative-study"]
ChooseOn = Literal["auto", "val", "fraction", "last"]


@dataclass(frozen=True)
class ClassifyConfig:
    """Train a classifier on a backbone, pick its epoch on validation patients, test it once.

    The probe is convex and has no learning rate. Options of the other policies that are left out take the value of
    --protocol; the resolved configuration in the run's folder shows them all.
    """

    data: Path
    """A pack with labels."""
    out: Path
    """Folder of the run; must be new or empty unless --resume is given."""
    init: str = "random"
    """Weights under test: random, imagenet-v1, imagenet-v2, a run's folder or a weight file."""
    arch: str = ""
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...) or timm/NAME with the extra timm; default that of the run named by --init."""
    policy: Policy = "probe"
    """probe: convex linear layer on frozen features; head: linear layer by gradient descent, augmented images, frozen backbone;
    surgical: that and the parts named by --tune; full: every layer."""
    protocol: Protocol = "sound"
    """Preset of the options marked sound | as-published | comparative-study. as-published: linear evaluation and end-to-end fine-tuning of
    the chest X-ray paper; comparative-study: those of the study on CT and histology. Options that are given win."""
    tune: tuple[str, ...] = ()
    """Parts that learn under surgical: stages or blocks (stem, layer1 ... layer4; blocks.0 ... of timm's), norms for every norm layer, or auto:
    each part at a rate in proportion to its relative gradient norm (Lee et al. 2023); auto unless given."""
    fraction: float = 1.0
    """Share of the training patients' labels that may be used, 0..1; drawn by --seeds, stratified, nested."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the label fraction, and of head, order and transforms; with several, figures are means with an interval over seeds."""
    choose_on: ChooseOn = "auto"
    """Images that the epoch is chosen on. val: the pack's; fraction: a patient-disjoint fifth of the labelled fraction, not learnt
    from; last: none, the last epoch is kept; auto: val, or fraction where the pack has no labelled val image."""
    size: int = 0
    """Side of the network's input, pixels; default that of the run named by --init."""
    batch_size: int | None = None
    """Images in a batch (64 | 64 | 256); for the probe images at once through the frozen backbone, without effect on results (256)."""
    epochs: int | None = None
    """Passes over the labelled fraction (30 | 30 | 30)."""
    least_steps: int | None = None
    """Fewest updates an epoch: a small fraction is passed over several times until it has so many (10 | 1 | 1)."""
    optimizer: Literal["adamw", "adam", "sgd"] | None = None
    """Rule of the updates; adam and sgd take weight decay as an L2 penalty (head: adam, else adamw | sgd | adam)."""
    lr_head: float | None = None
    """Peak learning rate of the linear layer (0.001, head alone 0.003 | 0.5 | 0.001); with another batch size or optimiser another."""
    lr_backbone: float | None = None
    """Peak learning rate of the backbone under surgical and full (0.0003 | 0.005 | 0.0001); with another batch size or optimiser another."""
    layer_decay: float | None = None
    """Factor on the rate from each part of the backbone to the one before it, 0..1 (full: 0.75 for networks with position embeddings,
    else 1 | 1 | 1)."""
    weight_decay: float | None = None
    """Weight decay of weights (head: 0.001, else 0.05 | 1e-6 | 0)."""
    weight_decay_biases: float | None = None
    """Weight decay of biases and norm parameters (0 | 1e-6 | 0)."""
    warmup_steps: int | None = None
    """Steps of linear warm-up (500, or a tenth of a run shorter than 5,000 steps | 0 | 0)."""
    schedule: Literal["step", "epoch"] | None = None
    """How the cosine falls: at every step after the warm-up, or once an epoch (step | epoch | epoch)."""
    final_lr: float | None = None
    """Learning rate at the end, share of the peak (0.001 | 0 | 0)."""
    clip_norm: float | None = None
    """Largest norm of the gradient; 0 is off (10, head alone 0 | 0 | 0)."""
    norm: Literal["trainable", "eval", "frozen"] | None = None
    """Batch norm of the parts that learn. trainable: batch statistics; eval: stored statistics, scale and shift learn; frozen: all stored
    (trainable | trainable | trainable)."""
    features: Literal["standardised", "raw"] | None = None
    """What the head alone learns on: each feature scaled to mean 0 and deviation 1 over the labelled images, or as it is
    (standardised | raw | raw)."""
    crop_min: float | None = None
    """Smallest area of a random resized crop, share of the image; 1 is off (0.5 | 0.08 | 1)."""
    flip: float | None = None
    """Probability of a left-right flip; 0 keeps laterality (0.5 | 0.5 | 0)."""
    brightness: float | None = None
    """Largest random shift of brightness, share of the full range (0.1, head alone 0 | 0 | 0)."""
    contrast: float | None = None
    """Largest random change of contrast, relative (0.2, head alone 0 | 0 | 0)."""
    cache: bool = True
    """Compute the frozen features once where no transform changes the images (head); without, at every step, with the same result."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the labels in the loss. balanced: inverse to their frequency among the labels learnt from, on average 1."""
    uncertain: Literal["ignore", "zero", "one"] = "ignore"
    """What an uncertain label teaches: nothing, absent or present; figures are on certain labels either way."""
    blank: Literal["unknown", "zero"] = "unknown"
    """What a label that is not stated teaches, where others of its image are stated: nothing, or absent; figures are on stated labels either way."""
    folds: int = 5
    """Folds inside the labelled fraction that choose the strength of the probe's L2 penalty."""
    bootstrap: int = 1000
    """Resamples of patients for the intervals."""
    seed: int = 0
    """Seed of random initial weights and of the bootstrap."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of training; auto: bf16 where the processor computes in it, float32 for the probe. Final figures are always made in float32."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at the end of each epoch."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    allow_seen: bool = False
    """Go on where images to evaluate on, or their patients, were seen in the training of --init; the figures are marked."""
    resume: bool = False
    """Continue an interrupted run in --out; with nothing there, start. A finished one is left as it is."""
