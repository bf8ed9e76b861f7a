"""Options of ``twinray detect``."""

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
    Told,
    above,
    at_least,
    between,
    counts_with,
    settle,
)
from twinray.training.trackers import TrackerName

MAGNIFICATION = Told(
    "two numbers above 0, ascending",
    lambda ends: len(ends) == 2 and 0 < ends[0] <= ends[1],
    ((1.2, 0.8), (1.0,), (0, 1)),
)


@dataclass(frozen=True)
class DetectConfig:
    """Train a detector with a feature pyramid, pick its epoch on val, test it once.

    Options without a default take the value that --protocol gives them; the resolved configuration in the run's
    folder shows them all.
    """

    data: Annotated[Path, DATA]
    """A pack with boxes."""
    out: Annotated[Path, PLACE]
    """Folder of the run; must be new or empty unless --resume is given."""
    init: Annotated[str, START] = "random"
    """Weights under test: random, a name that twinray weights lists (imagenet-v2, rad-dino), NAME=FILE
    for a local copy of its file, a run's folder or a weight file."""
    arch: Annotated[str, MODEL] = ""
    """Architecture: a torchvision ResNet (resnet18, resnet50, ...) or timm/NAME (four stages, or a plain transformer
    with patches of 8, 14 or 16 pixels; extra timm); default that of the weights named by --init."""
    init_part: Annotated[Literal["auto", "backbone", "detector"], MODEL] = "auto"
    """Part of a detector named by --init: detector (all but the layers of its classes where these differ) or
    backbone; auto: detector where --init names one."""
    detector: Annotated[Literal["faster-rcnn", "retinanet", "fcos"], MODEL] = "faster-rcnn"
    """Two stages (faster-rcnn) or one, with anchors (retinanet) or without (fcos). Heat maps need faster-rcnn."""
    protocol: Annotated[Literal["sound", "as-published"], MODEL] = "sound"
    """Preset of the options marked sound | published. Under sound every layer learns, whatever
    the initial weights. Under as-published the values are the chest X-ray paper's, which keep a
    frozen random stem under random weights. Options that are given win."""
    fraction: Annotated[float, MODEL, above(0, up_to=1)] = 1.0
    """Share of the training images that may be used, 0..1: whole patients, stratified by class, nested for one --fraction-seed."""
    fraction_seed: Annotated[int, SEED, at_least(0), counts_with(fraction=above(0, below=1))] = 0
    """Seed of the order in which patients enter the fraction."""
    size: Annotated[int, MODEL, at_least(64, "pixels")] = 224
    """Side of the network's input, pixels; a multiple of 32, for patches of 14 pixels of 28 (224, 448, 672 and 896 are both)."""
    resize: Annotated[Literal["bicubic", "bilinear"], MODEL, Older("bilinear")] = "bicubic"
    """Filter that brings packed images to --size, antialiased: bicubic as in every other stage.
    The value bilinear goes on with runs of versions that had no such option."""
    batch_size: Annotated[int | None, MODEL, at_least(1)] = None
    """Images in a batch (8 | 32)."""
    epochs: Annotated[int | None, MODEL, at_least(1)] = None
    """Passes over the training images (50 | 50)."""
    optimizer: Annotated[Literal["adamw", "sgd"] | None, MODEL] = None
    """Rule of the updates (adamw | sgd)."""
    lr: Annotated[float | None, MODEL, above(0)] = None
    """Peak learning rate; by optimiser and batch: AdamW 0.0002 * sqrt(batch / 8), SGD 0.005 * batch / 32."""
    layer_decay: Annotated[float | None, MODEL, above(0, up_to=1), Older(1.0)] = None
    """Factor on the rate from each block or stage of the backbone to the one before it, 0..1; pyramid and heads have the
    full rate. Default by the network (plain transformers: 0.7 up to 12 blocks, 0.8 up to 24, else 0.9; others: 1 | 1)."""
    weight_decay: Annotated[float | None, MODEL, at_least(0)] = None
    """Weight decay of weights; by optimiser: AdamW 0.05, SGD 1e-4."""
    weight_decay_biases: Annotated[float | None, MODEL, at_least(0)] = None
    """Weight decay of biases, norm parameters, tokens and position embeddings; by optimiser: AdamW 0, SGD 1e-4."""
    warmup_steps: Annotated[int | None, MODEL, at_least(0)] = None
    """Steps of linear warm-up (500, or a tenth of a run shorter than 5,000 steps | 500)."""
    schedule: Annotated[Literal["step", "epoch"] | None, MODEL] = None
    """Fall of the cosine: at every step after the warm-up, or once an epoch from the first on (step
    | epoch)."""
    final_lr: Annotated[float | None, MODEL, between(0, 1, "a share of the peak rate")] = None
    """Learning rate at the end, share of the peak (0.001 | 0.02)."""
    clip_norm: Annotated[float | None, MODEL, at_least(0)] = None
    """Largest norm of the gradient; 0 is off (10 | 0)."""
    norm: Annotated[Literal["trainable", "eval", "frozen", "group"] | None, MODEL] = None
    """Backbone normalisation. trainable: batch statistics; eval: stored statistics; frozen: all stored; group: group norm instead
    (trainable | eval)."""
    trainable_stages: Annotated[int | None, MODEL, between(0, 5)] = None
    """Backbone stages that learn, from the last: 5 all, 3 without stem and layer1, 0 none (5 | 3).
    Those of a plain transformer are the quarters of its blocks."""
    trainable_blocks: Annotated[int | None, MODEL, at_least(0)] = None
    """Blocks of a plain transformer that learn, from the last, in place of --trainable-stages; the stem does not."""
    drop_path: Annotated[float, MODEL, between(0, 0.9, "a probability")] = 0.0
    """Stochastic depth: probability that a step leaves out the last block's branch, for each image, rising to it from 0 at the first
    block; networks of timm."""
    fpn_channels: Annotated[int, MODEL, at_least(1)] = 256
    """Channels of the feature pyramid; for fcos a multiple of 32, 64 or more."""
    box_head_width: Annotated[int, MODEL, at_least(1), counts_with(detector="faster-rcnn")] = 1024
    """Width of the two fully connected layers of the box head (faster-rcnn)."""
    rois_per_image: Annotated[int, MODEL, at_least(1), counts_with(detector="faster-rcnn")] = 512
    """Proposals sampled per image for the box loss (faster-rcnn)."""
    anchor_scale: Annotated[float | None, MODEL, above(0)] = None
    """Side of the smallest square anchor in strides; default 8 (faster-rcnn), 4 (retinanet), 1
    (fcos). For faster-rcnn that gives 32, 64, 128, 256, 512 pixels. For retinanet it gives the
    same, and two sizes between each. The detector fcos has points: the side is that of a
    point's cell."""
    round_anchors: Annotated[bool, MODEL] = False
    """Anchors of whole pixels, as torchvision's detectors have. Always on where the initial weights are one of
    them, or a run that has them; give it to the other arms of a comparison too."""
    flip: Annotated[float | None, MODEL, PROBABILITY] = None
    """Probability of a left-right flip; 0 keeps laterality (0.5 | 0.5)."""
    scale: Annotated[tuple[float, ...], MODEL, MAGNIFICATION] = ()
    """Smallest and largest random magnification; 1 1 is off (0.8 1.25 | 1 1)."""
    brightness: Annotated[float | None, MODEL, at_least(0)] = None
    """Largest random shift of brightness, share of the full range (0.1 | 0)."""
    contrast: Annotated[float | None, MODEL, between(0, 1)] = None
    """Largest random change of contrast, relative (0.2 | 0)."""
    window_width: Annotated[float | None, MODEL, at_least(1)] = None
    """Of packs of linear values (pack --pixels uint16): largest factor on the width of an image's window, and its inverse the
    smallest; 1 keeps it (1.5 | 1)."""
    window_shift: Annotated[float | None, MODEL, between(0, 1, "a share")] = None
    """Of packs of linear values: largest shift of an image's window, share of its width; 0 keeps it (0.1 | 0)."""
    images: Annotated[Literal["all", "with_boxes"] | None, MODEL] = None
    """Images to learn from, and those of val that choose the epoch (all | with_boxes). The
    value all: all annotated images, those without a box as negatives. The value with_boxes:
    only those with a box. Figures and thresholds are on all annotated images either way."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals."""
    froc_hit: Annotated[Literal["iou", "centre"], RECORD] = "iou"
    """What hits in FROC: an overlap of --froc-iou with a true box of the class, or a centre that lies in one (LUNA16, CAMELYON16)."""
    froc_iou: Annotated[float, RECORD, above(0, up_to=1), counts_with(froc_hit="iou")] = 0.5
    """Least IoU of a hit in FROC; does nothing with --froc-hit centre."""
    froc_repeats: Annotated[Literal["false-positive", "ignore"], RECORD] = "false-positive"
    """Further boxes on a found one in FROC: false-positive, as nnDetection counts, or ignore (LUNA16, CAMELYON16, MONAI, picai_eval)."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of all random weights, of the order, the transforms and the bootstrap."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "float32", "bf16"], MODEL] = "auto"
    """Of training; auto: bf16 where the processor computes in it. Final figures are always made in float32."""
    compile: Annotated[Literal["auto", "on", "off"], SPEED] = "auto"
    """torch.compile of backbone, pyramid and the head on their maps; auto: on a GPU, where steps are many and large enough to gain by it. Where it fails the run says so and goes on without."""
    deterministic: Annotated[bool, SPEED] = False
    """Same bytes every time on a GPU too, at some cost in speed; processors are so anyway."""
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
    """Continue an interrupted run in --out; with nothing there, start."""

    def __post_init__(self) -> None:
        settle(self)
