"""Options of ``twinray pretrain``."""

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
    Older,
    above,
    at_least,
    between,
    counts_with,
    different,
    each,
    pair,
    settle,
    some_of,
    up_to,
)
from twinray.records import SPLITS
from twinray.training.trackers import TrackerName


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-train a backbone on unlabelled images with Barlow Twins, or with an objective to compare it with."""

    data: Annotated[tuple[Path, ...], DATA, different("packs", Path("a"))]
    """One pack or several, with the same size and channels."""
    out: Annotated[Path | None, PLACE] = None
    """Folder of the run; must be new or empty unless --resume is given."""
    preview: Annotated[Path | None, PLACE] = None
    """New folder for a look before training, in place of it: a sheet of images and their views, and for
    labelled packs what the views leave of the labels."""
    splits: Annotated[tuple[str, ...], MODEL, some_of(*SPLITS)] = ("train",)
    """Splits of the packs to learn from; training never reads labels, only the k-NN monitor
    does."""
    leave_out: Annotated[tuple[Path, ...], DATA] = ()
    """Packs to be tested on later, all splits. Images that share a patient, an id or (where
    packed alike) their pixels with these are not learnt from."""
    arch: Annotated[str, MODEL] = ""
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...), or timm/NAME with the extra timm; default that of
    the weights named by --init, else resnet50."""
    init: Annotated[str, START] = "random"
    """Initial weights: random, a name that twinray weights lists (imagenet-v2, rad-dino), NAME=FILE
    for a local copy of its file, a run's folder or a weight file."""
    zero_init_residual: Annotated[Literal["auto", "on", "off"], MODEL, Older("off")] = "auto"
    """Random ResNets begin as the authors' do: the last norm of every residual block has weight 0; auto: by recipe, on with published."""
    size: Annotated[int, MODEL, at_least(32, "pixels")] = 224
    """Side of a view, pixels."""
    batch_size: Annotated[int, MODEL, at_least(2, "images (statistics over one do not exist)")] = (
        256
    )
    """Images in a batch, over all ranks; the correlations are estimated over all of them."""
    accumulate: Annotated[int, MODEL, at_least(1, "pieces")] = 1
    """Pieces in which each rank embeds its share of a batch, to fit a small memory; the loss stays that of the whole batch. BatchNorm is per piece."""
    epochs: Annotated[int, MODEL, at_least(1)] = 100
    """Passes over the images."""
    projector: Annotated[tuple[int, ...], MODEL, each("widths", at_least(2))] = ()
    """Widths of the projector's layers; default 8192 8192 8192 from resnet50 up, 2048 2048 2048 for resnet18, resnet34 and timm's."""
    objective: Annotated[Literal["barlow-twins", "vicreg", "simclr", "byol"], MODEL] = (
        "barlow-twins"
    )
    """What makes the two views agree: Barlow Twins, or one of those that papers compare it with."""
    recipe: Annotated[Literal["auto", "published", "short"], MODEL] = "auto"
    """Defaults of --lam, --crop-min, --warmup-epochs, --average, --norm-statistics and --zero-init-residual: those of the authors of Barlow Twins, or
    those for short runs on grey images. auto: published from 100 epochs up, short below."""
    lam: Annotated[float | None, MODEL, above(0), counts_with(objective="barlow-twins")] = None
    """Weight of the redundancy term; default by recipe: published 0.0051, short 1 / width of the embedding, so that views agree soon."""
    optimizer: Annotated[Literal["auto", "lars", "adamw", "adam", "sgd"], MODEL] = "auto"
    """auto: LARS from a batch of 512 up, AdamW below and for transformers."""
    lr: Annotated[float | None, MODEL, above(0)] = None
    """Peak learning rate of weights. Defaults by optimiser and batch: LARS 0.2 * batch / 256,
    AdamW and Adam 0.001 * batch / 256 (transformers 0.00015 * batch / 256), SGD 0.1 * batch / 256."""
    lr_biases: Annotated[float | None, MODEL, above(0)] = None
    """Peak learning rate of biases and norm parameters; default: LARS 0.0048 * batch / 256, else that of weights."""
    weight_decay: Annotated[float | None, MODEL, at_least(0)] = None
    """Weight decay of weights; default: LARS 1e-6, AdamW 0.01 (transformers 0.1), Adam 0, SGD 1e-4."""
    drop_path: Annotated[float, MODEL, between(0, 0.9, "a probability")] = 0.0
    """Stochastic depth: probability that a step leaves out the last block's branch, for each image, rising to it from 0 at the first
    block; networks of timm."""
    warmup_epochs: Annotated[float | None, MODEL, up_to("epochs")] = None
    """Epochs of linear warm-up; default 10, or a tenth of a run shorter than 100 epochs."""
    average: Annotated[float | None, MODEL, between(0, 1, "a share of the run"), Older(0.0)] = None
    """Share of the run's steps over which the backbone's weights are averaged (exponentially) into those that are kept; 0: the
    last weights are kept. Default by recipe."""
    norm_statistics: Annotated[Literal["views", "whole"] | None, MODEL, Older("views")] = None
    """Images that the kept batch norms have their statistics of: the views learnt from, or whole images, measured at the end.
    Default by recipe."""
    pairs: Annotated[Literal["image", "patient", "study"], MODEL] = "image"
    """Image that the second view is made of: the same image, or another one of the same patient or
    study."""
    pair_share: Annotated[
        float,
        MODEL,
        above(0, "of the images with a partner", up_to=1),
        counts_with(pairs=("patient", "study")),
    ] = 0.5
    """Share of the images with a partner whose second view is their partner's; the others make both
    views."""
    flip: Annotated[float, MODEL, PROBABILITY] = 0.5
    """Probability of a left-right flip; 0 keeps laterality."""
    crop_min: Annotated[float | None, MODEL, above(0, "of the image's area", up_to=1)] = None
    """Smallest area of a crop as a share of the image, 0..1; default by recipe: published 0.08, short 0.5."""
    window_width: Annotated[float | None, MODEL, at_least(1)] = None
    """Of packs of linear values (pack --pixels uint16): largest factor on the width of an image's window, and its inverse the
    smallest; 1 keeps it (1.5)."""
    window_shift: Annotated[float | None, MODEL, between(0, 1, "a share")] = None
    """Of packs of linear values: largest shift of an image's window, share of its width; 0 keeps it (0.1)."""
    jitter: Annotated[float, MODEL, PROBABILITY] = 0.8
    """Probability of a jitter of brightness, contrast, saturation and hue."""
    brightness: Annotated[float, MODEL, between(0, 1, "a strength")] = 0.4
    """Strength of the jitter of brightness: factors 1 - b to 1 + b."""
    contrast: Annotated[float, MODEL, between(0, 1, "a strength")] = 0.4
    """Strength of the jitter of contrast: factors 1 - c to 1 + c."""
    saturation: Annotated[float, MODEL, between(0, 1, "a strength")] = 0.2
    """Strength of the jitter of saturation; nothing on grey images."""
    hue: Annotated[float, MODEL, between(0, 0.5, unit="turns")] = 0.1
    """Strength of the jitter of hue, in turns, 0..0.5; nothing on grey images."""
    grey: Annotated[float, MODEL, PROBABILITY] = 0.2
    """Probability of taking the colour away; nothing on grey images."""
    blur: Annotated[tuple[float, float], MODEL, pair("probabilities", between(0, 1))] = (1.0, 0.1)
    """Probabilities of a Gaussian blur of the first and of the second view."""
    solarise: Annotated[tuple[float, float], MODEL, pair("probabilities", between(0, 1))] = (
        0.0,
        0.2,
    )
    """Probabilities of inverting what is brighter than one half, in the first and in the second view."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the random initial weights, of the order and of the views."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "float32", "bf16"], MODEL] = "auto"
    """Of convolutions and matrix products; auto: bf16 where the processor computes in it. The loss is always float32."""
    compile: Annotated[Literal["auto", "on", "off"], SPEED] = "auto"
    """torch.compile of the network; auto: on a GPU, where steps are many and large enough to gain by it. Where it fails the run says so and goes on without."""
    deterministic: Annotated[bool, SPEED] = False
    """Same bytes every time on a GPU too, at some cost in speed; processors are so anyway."""
    knn_every: Annotated[int, RECORD, at_least(0, "epochs")] = 10
    """Epochs between looks at a k-nearest-neighbour classifier of the images learnt from, where they have labels; 0: never."""
    checkpoint_every: Annotated[int, SPEED, at_least(0, "steps")] = 0
    """Steps between checkpoints, besides those by time; 0: none."""
    checkpoint_minutes: Annotated[float, SPEED, above(0, "minutes")] = 10.0
    """Minutes between checkpoints; one is also written with every new best epoch, at the end, and when a signal asks to stop."""
    keep_checkpoints: Annotated[int, SPEED, at_least(1)] = 2
    """Number of the newest checkpoints that stay."""
    keep_every: Annotated[int, SPEED, at_least(0, "epochs")] = 0
    """Epochs between checkpoints that stay for ever; 0: none."""
    log_every: Annotated[int, RECORD, at_least(1, "steps")] = 10
    """Steps between lines in metrics.jsonl."""
    track: Annotated[tuple[TrackerName, ...], RECORD] = ()
    """Trackers that get a copy of metrics.jsonl, in a folder of theirs inside the run; each is an extra of its name."""
    track_online: Annotated[bool, RECORD] = False
    """Send what --track copies to the tracker's server: MLFLOW_TRACKING_URI's, or the one that W&B is logged in to."""
    resume: Annotated[bool, RECORD] = False
    """Continue an interrupted run in --out; with nothing there, start."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the pack is not the one that was packed; a note in metrics.json says so."""

    def __post_init__(self) -> None:
        settle(self)
