"""Options of ``twinray demo``, ``twinray study`` and ``twinray retrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    MODEL,
    PLACE,
    RECORD,
    SEED,
    SPEED,
    START,
    above,
    at_least,
    between,
    goes_with,
    multiple_of,
    no_repeat,
    settle,
    up_to,
)


@dataclass(frozen=True)
class DemoConfig:
    """A study of two arms on synthetic chest images: packs, a pre-training, two detectors, and the report of a study.

    The same command goes on after a kill at any moment.
    """

    out: Annotated[Path, PLACE] = Path("demo-output")
    """Folder of the study; its page is report/report.html, its file study.yaml."""
    init: Annotated[str, START] = "random"
    """Weights of the first arm, from which the pre-training of the second starts too: random, a name that twinray weights
    lists (efficientnet-lite0: ImageNet weights, with the extras imagenet and timm), or a run."""
    unlabelled: Annotated[int, MODEL, at_least(2)] = 1500
    """Images without labels, for pre-training only."""
    labelled: Annotated[int, MODEL, at_least(10)] = 800
    """Images with boxes; by patient 20 % train the detectors, 8 % choose their best epoch and 72 % test them."""
    size: Annotated[int, MODEL, multiple_of(32, least=64)] = 128
    """Side of the images for the detectors, pixels; a multiple of 32."""
    pretrain_size: Annotated[int, MODEL, at_least(32, "pixels")] = 64
    """Side of the views in pre-training, pixels."""
    pretrain_batch: Annotated[int, MODEL, up_to("unlabelled", low=2)] = 64
    """Images in a pre-training batch."""
    pretrain_epochs: Annotated[int, MODEL, at_least(1)] = 28
    """Passes of the pre-training over its images."""
    detect_batch: Annotated[int, MODEL, at_least(1)] = 8
    """Images in a detector's batch."""
    detect_epochs: Annotated[int, MODEL, at_least(1)] = 10
    """Passes of each detector over its training images."""
    examples: Annotated[int, RECORD, at_least(1)] = 5
    """Test images with boxes and heat maps in the report."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the images, the splits, the weights and the order."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class StudyConfig:
    """Do a whole comparison from one file: packs, pre-trainings, runs of every arm, and figures on sealed test images.

    The same command goes on after a kill at any moment. Test images stay sealed until every planned run is done.
    """

    file: Annotated[Path, DATA]
    """The study: a YAML file with packs, arms and tasks (docs/studies.md)."""
    out: Annotated[Path | None, PLACE] = None
    """Folder of the study; the same folder goes on with what it holds."""
    plan: Annotated[bool, RECORD] = False
    """Print what would be done, as a table and a tree, and do nothing."""
    estimate: Annotated[bool, RECORD] = False
    """Time a few steps of each kind of work on this machine, predict time, disk and GPU memory of what is left, and do nothing more."""
    workers: Annotated[int, SPEED, at_least(1)] = 1
    """Processes that work at once; on this machine the cores are shared out among them."""
    threads: Annotated[int, SPEED, at_least(0)] = 0
    """Threads of each worker; 0: the cores of this machine or of its SLURM task shared out, under slurm those that the cluster gives a
    task. Bytes of results depend on it, as sums are rounded in another order."""
    on: Annotated[Literal["local", "slurm", "ray"], PLACE] = "local"
    """Where the workers run: processes of this machine, SLURM jobs (extra slurm), or Ray tasks (extra ray; RAY_ADDRESS names a
    cluster). The folder and the results are the same."""
    sbatch: Annotated[bool, RECORD, goes_with(on="slurm")] = False
    """Write the batch script of the workers into the folder, and submit nothing."""
    gpus: Annotated[int, PLACE, at_least(0)] = 0
    """GPUs of each worker under slurm and ray; with several torchrun spreads each training over them."""
    minutes: Annotated[int, PLACE, at_least(1, "minutes"), goes_with(on="slurm")] = 1440
    """Time limit of a SLURM job; a job that ends goes on when the same command is given again."""
    memory: Annotated[int, PLACE, at_least(1, "GB"), goes_with(on="slurm")] = 16
    """Memory of a SLURM job."""
    partition: Annotated[str, PLACE, goes_with(on="slurm")] = ""
    """Partition of SLURM; default the cluster's."""
    retry_failed: Annotated[bool, RECORD] = False
    """Do failed runs again; the report lists them."""
    open_anyway: Annotated[bool, RECORD] = False
    """Open the test images although planned runs are not done; the report lists it."""

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class RetrainConfig:
    """Train a detector further on what readers corrected, and compare it with the old one on the same untouched test patients.

    The new model is put beside the old one in the viewer, never in its place.
    """

    store: Annotated[Path, DATA]
    """Folder of the store of twinray serve."""
    init: Annotated[Path, START]
    """The run whose boxes were corrected; training goes on from its weights."""
    out: Annotated[Path, PLACE]
    """Folder for pack, study and comparison; the same folder goes on with what it holds."""
    database: Annotated[str | None, DATA] = None
    """URL of the store's PostgreSQL database; --store is then its folder of files."""
    fusion_iou: Annotated[float, MODEL, between(0, 1, below=True)] = 0.5
    """Fuse several readers' boxes that overlap by more than this; 0 keeps every reader's boxes."""
    min_readers: Annotated[int, MODEL, at_least(1)] = 1
    """Drop labels and fused boxes on which fewer readers agree."""
    val: Annotated[float, MODEL, between(0, 1, "a share", below=True)] = 0.1
    """Share of patients for validation; as in earlier packs of the store."""
    test: Annotated[float, MODEL, between(0, 1, "a share", below=True)] = 0.2
    """Share of patients for the comparison; as in earlier packs of the store."""
    epochs: Annotated[int, MODEL, at_least(1)] = 10
    """Passes over the training images."""
    lr: Annotated[float | None, MODEL, above(0)] = None
    """Peak learning rate; default a tenth of the old run's, which had to learn more."""
    seeds: Annotated[tuple[int, ...], SEED, no_repeat("seeds", "0")] = (0,)
    """Seeds of the training; each is a run. The first one's model is put beside the old."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals."""
    pictures: Annotated[int, RECORD, at_least(0)] = 8
    """Test images in the comparison's page, with true boxes and those of both models."""
    workers: Annotated[int, SPEED, at_least(1)] = 1
    """Trainings at once."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    plan: Annotated[bool, RECORD] = False
    """Make the pack, print what would be trained, and train nothing."""

    def __post_init__(self) -> None:
        settle(self)
