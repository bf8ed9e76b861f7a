"""Options of ``twinray classify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    MODEL,
    PLACE,
    PROBABILITY,
    RECORD,
    SEED,
    SPEED,
    START,
    Told,
    above,
    at_least,
    between,
    counts_with,
    different,
    each,
    goes_with,
    settle,
    zero_or,
)
from twinray.training.trackers import TrackerName

Policy = Literal["probe", "head", "surgical", "full"]
Protocol = Literal["sound", "as-published", "comparative-study"]
ChooseOn = Literal["auto", "val", "fraction", "last"]

GRADIENT: tuple[Policy, ...] = ("head", "surgical", "full")
TRAINED = counts_with(policy=GRADIENT)
AUTO = "auto"
PARTS = Told(
    "auto alone, or the names of parts",
    lambda parts: parts == (AUTO,) or AUTO not in parts,
    ((AUTO, "layer4"),),
)


@dataclass(frozen=True)
class ClassifyConfig:
    """Train a classifier on a backbone, pick its epoch on validation patients, test it once.

    The probe is convex and has no learning rate. Options of the other policies that are left out take the value of
    --protocol; the resolved configuration in the run's folder shows them all.
    """

    data: Annotated[Path, DATA]
    """A pack with labels."""
    out: Annotated[Path, PLACE]
    """Folder of the run; must be new or empty unless --resume is given."""
    init: Annotated[str, START] = "random"
    """Weights under test: random, a name that twinray weights lists (imagenet-v2, rad-dino), NAME=FILE
    for a local copy of its file, a run's folder or a weight file."""
    arch: Annotated[str, MODEL] = ""
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...) or timm/NAME with the extra timm; default that of the weights named by --init."""
    policy: Annotated[Policy, MODEL] = "probe"
    """probe: convex linear layer on frozen features; head: linear layer by gradient descent, augmented images, frozen backbone;
    surgical: that and the parts named by --tune; full: every layer."""
    protocol: Annotated[Protocol, MODEL] = "sound"
    """Preset of the options marked sound | as-published | comparative-study. The preset
    as-published holds linear evaluation and end-to-end fine-tuning of the chest X-ray paper.
    The preset comparative-study holds those of the study on CT and histology. Options that are
    given win."""
    tune: Annotated[tuple[str, ...], MODEL, goes_with(policy="surgical"), PARTS] = ()
    """Parts that learn under surgical: stages or blocks (stem, layer1 ... layer4; blocks.0 ...
    or blocks.8-11 of timm's), norms for every norm layer, or auto. Under auto each part learns at a rate in
    proportion to its relative gradient norm (Lee et al. 2023). The value is auto unless given."""
    fraction: Annotated[float, MODEL, above(0, up_to=1)] = 1.0
    """Share of the training patients' labels that may be used, 0..1; drawn by --seeds, stratified, nested."""
    seeds: Annotated[
        tuple[int, ...], SEED, different("numbers", 1), each("numbers", at_least(0))
    ] = (0,)
    """Seeds of the label fraction, and of head, order and transforms; with several, figures are means with an interval over seeds."""
    choose_on: Annotated[ChooseOn, MODEL, goes_with(policy=GRADIENT)] = "auto"
    """Images that the epoch is chosen on. The value val: the pack's. The value fraction: a
    patient-disjoint fifth of the labelled fraction, not learnt from. The value last: none, the
    last epoch is kept. The value auto: val, or fraction where the pack has no labelled val
    image."""
    size: Annotated[int, MODEL, zero_or(at_least(32, "pixels"))] = 0
    """Side of the network's input, pixels; default that of the weights named by --init."""
    batch_size: Annotated[int | None, MODEL, at_least(1), TRAINED] = None
    """Images in a batch (64 | 64 | 256); for the probe images at once through the frozen backbone, without effect on results (256)."""
    epochs: Annotated[int | None, MODEL, at_least(1), TRAINED] = None
    """Passes over the labelled fraction (30 | 30 | 30)."""
    least_steps: Annotated[int | None, MODEL, at_least(1), TRAINED] = None
    """Fewest updates an epoch: a small fraction is repeated until it has so many (10 | 1 | 1)."""
    optimizer: Annotated[Literal["adamw", "adam", "sgd"] | None, MODEL, TRAINED] = None
    """Rule of the updates; adam and sgd take weight decay as an L2 penalty (head: adam, else adamw | sgd | adam)."""
    lr_head: Annotated[float | None, MODEL, above(0), TRAINED] = None
    """Peak learning rate of the linear layer (0.001, head alone 0.003 | 0.5 | 0.001); with another batch size or optimiser another."""
    lr_backbone: Annotated[float | None, MODEL, at_least(0), TRAINED] = None
    """Peak learning rate of the backbone under surgical and full (0.0003 | 0.005 | 0.0001); with another batch size or optimiser another."""
    layer_decay: Annotated[float | None, MODEL, above(0, up_to=1), TRAINED] = None
    """Factor on the rate from each part of the backbone to the one before it, 0..1. Defaults by
    policy, network and protocol (full: 0.75 for networks with position embeddings, else 1 | 1 |
    1)."""
    weight_decay: Annotated[float | None, MODEL, at_least(0), TRAINED] = None
    """Weight decay of weights (head: 0.001, else 0.05 | 1e-6 | 0)."""
    weight_decay_biases: Annotated[float | None, MODEL, at_least(0), TRAINED] = None
    """Weight decay of biases and norm parameters (0 | 1e-6 | 0)."""
    warmup_steps: Annotated[int | None, MODEL, at_least(0), TRAINED] = None
    """Steps of linear warm-up (500, or a tenth of a run shorter than 5,000 steps | 0 | 0)."""
    schedule: Annotated[Literal["step", "epoch"] | None, MODEL, TRAINED] = None
    """Fall of the cosine: at every step after the warm-up, or once an epoch (step | epoch |
    epoch)."""
    final_lr: Annotated[float | None, MODEL, between(0, 1, "a share of the peak rate"), TRAINED] = (
        None
    )
    """Learning rate at the end, share of the peak (0.001 | 0 | 0)."""
    clip_norm: Annotated[float | None, MODEL, at_least(0), TRAINED] = None
    """Largest norm of the gradient; 0 is off (10, head alone 0 | 0 | 0)."""
    drop_path: Annotated[
        float,
        MODEL,
        between(0, 0.9, "a probability"),
        counts_with(policy=("surgical", "full")),
    ] = 0.0
    """Stochastic depth: probability that a step leaves out the last block's branch, for each image, rising to it from 0 at the first
    block; networks of timm."""
    norm: Annotated[Literal["trainable", "eval", "frozen"] | None, MODEL, TRAINED] = None
    """Batch norm of the parts that learn. trainable: batch statistics; eval: stored statistics, scale and shift learn; frozen: all stored
    (trainable | trainable | trainable)."""
    features: Annotated[Literal["standardised", "raw"] | None, MODEL, TRAINED] = None
    """Features that the head alone learns on (standardised | raw | raw). Standardised features
    are each scaled to mean 0 and deviation 1 over the labelled images. Raw features are used as
    they are."""
    crop_min: Annotated[float | None, MODEL, above(0, "of the image's area", up_to=1), TRAINED] = (
        None
    )
    """Smallest area of a random resized crop, share of the image; 1 is off (0.5 | 0.08 | 1)."""
    flip: Annotated[float | None, MODEL, PROBABILITY, TRAINED] = None
    """Probability of a left-right flip; 0 keeps laterality (0.5 | 0.5 | 0)."""
    brightness: Annotated[float | None, MODEL, at_least(0), TRAINED] = None
    """Largest random shift of brightness, share of the full range (0.1, head alone 0 | 0 | 0)."""
    contrast: Annotated[float | None, MODEL, between(0, 1), TRAINED] = None
    """Largest random change of contrast, relative (0.2, head alone 0 | 0 | 0)."""
    window_width: Annotated[float | None, MODEL, at_least(1), TRAINED] = None
    """Of packs of linear values (pack --pixels uint16): largest factor on the width of an image's window, and its inverse the
    smallest; 1 keeps it (1.5, head alone 1 | 1 | 1)."""
    window_shift: Annotated[float | None, MODEL, between(0, 1, "a share"), TRAINED] = None
    """Of packs of linear values: largest shift of an image's window, share of its width; 0 keeps it (0.1, head alone 0 | 0 | 0)."""
    cache: Annotated[bool, SPEED] = True
    """Compute the frozen features once where no transform changes the images (head); without, at every step, with the same result."""
    kept_features: Annotated[Path | None, PLACE, goes_with(policy="probe")] = None
    """Folder of features that a pass for all probes of these weights has kept; by default each run computes its own. A study fills it."""
    class_weights: Annotated[Literal["none", "balanced"], MODEL] = "none"
    """Weights of the labels in the loss. balanced: inverse to their frequency among the labels learnt from, on average 1."""
    uncertain: Annotated[Literal["ignore", "zero", "one"], MODEL] = "ignore"
    """What an uncertain label teaches: nothing, absent or present; figures are on certain labels either way."""
    blank: Annotated[Literal["unknown", "zero"], MODEL] = "unknown"
    """What a label that is not stated teaches, where others of its image are stated: nothing, or absent; figures are on stated labels either way."""
    folds: Annotated[int, MODEL, at_least(2), counts_with(policy="probe")] = 5
    """Folds inside the labelled fraction that choose the strength of the probe's L2 penalty."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of random initial weights and of the bootstrap."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "float32", "bf16"], MODEL] = "auto"
    """Of training; auto: bf16 where the processor computes in it, float32 for the probe. Features of frozen layers and final figures are always made in float32."""
    checkpoint_every: Annotated[int, SPEED, at_least(0, "steps")] = 0
    """Steps between checkpoints, besides those by time; 0: none."""
    checkpoint_minutes: Annotated[float, SPEED, above(0, "minutes")] = 10.0
    """Minutes between checkpoints; one is also written with every new best epoch, at the end, and when a signal asks to stop."""
    log_every: Annotated[int, RECORD, at_least(1, "steps")] = 10
    """Steps between lines in metrics.jsonl."""
    track: Annotated[tuple[TrackerName, ...], RECORD] = ()
    """Trackers that get a copy of metrics.jsonl, in a folder of theirs inside the run; each is an extra of its name."""
    track_online: Annotated[bool, RECORD] = False
    """Send what --track copies to the tracker's server: MLFLOW_TRACKING_URI's, or the one that W&B is logged in to."""
    seal: Annotated[bool, RECORD] = False
    """Write the predictions of the test images and measure nothing on them, until the study that the run belongs to is opened."""
    allow_seen: Annotated[bool, RECORD] = False
    """Go on where images to evaluate on, or their patients, were seen in the training of --init; the figures are marked."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the pack is not the one that was packed; the figures are marked."""
    resume: Annotated[bool, RECORD] = False
    """Continue an interrupted run in --out; with nothing there, start. A finished one is left as it is."""

    def __post_init__(self) -> None:
        settle(self)
