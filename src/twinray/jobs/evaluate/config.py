"""Options of ``twinray evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    GIVEN,
    MODEL,
    PLACE,
    RECORD,
    SEED,
    SPEED,
    above,
    at_least,
    counts_with,
    goes_with,
    one_of,
    settle,
)
from twinray.records import SPLITS


@dataclass(frozen=True)
class EvaluateConfig:
    """Test finished runs side by side, on a pack or on the test images that they kept; later arms are compared with the first.

    Runs that differ only by chance (seed, label draw, seed of the pre-training, fold of pack --folds) are one arm. Arms that differ
    only in --fraction are points of one curve.
    """

    runs: Annotated[tuple[Path, ...], DATA]
    """Folders of finished detect runs, or of finished classify runs."""
    data: Annotated[Path | None, DATA] = None
    """A pack made as the runs' own were. Without it the predictions that each run kept of its own test images are read; --batch-size and
    --device do nothing then."""
    split: Annotated[str, MODEL, one_of(*SPLITS)] = "test"
    """train, val or test."""
    out: Annotated[Path | None, PLACE] = None
    """New folder for report.html, metrics.json, CSV tables, predictions and figures; without it tables are only printed."""
    overwrite: Annotated[bool, RECORD, goes_with(out=GIVEN)] = False
    """Begin again in a folder that evaluate wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the resamples."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 16
    """Images at once."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    allow_seen: Annotated[bool, RECORD] = False
    """Go on where images, or their patients, were seen in a run's training or pre-training; the figures are marked."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of a run or of the pack is not the one that was written; the figures are marked."""
    apart: Annotated[bool, RECORD] = False
    """Make every run an arm of its own, also where runs differ only by chance."""
    pictures: Annotated[int, RECORD, at_least(0), goes_with(data=GIVEN, out=GIVEN)] = 0
    """With --data and --out: so many test images in the page, with true boxes and those of each arm side by side."""
    png: Annotated[bool, RECORD, goes_with(out=GIVEN)] = False
    """Write every figure as a PNG beside its SVG."""
    checklists: Annotated[bool, RECORD, goes_with(out=GIVEN)] = False
    """With --out: CLAIM 2024, TRIPOD+AI and MI-CLAIM as Markdown and JSON in checklists/, filled from the records of runs and packs with
    pointers, or yours to write."""
    by: Annotated[tuple[str, ...], RECORD, goes_with(data=GIVEN)] = ()
    """With --data: attributes of the pack whose groups are measured on their own too, and the
    largest gap between them. Examples are sex, view, age:0,40,60,80 (lower ends of groups). Images
    that do not state the attribute are a group. May be given several times."""
    froc_hit: Annotated[Literal["iou", "centre"], RECORD] = "iou"
    """What hits in FROC: an overlap of --froc-iou with a true box of the class, or a centre that lies in one (LUNA16, CAMELYON16)."""
    froc_iou: Annotated[float, RECORD, above(0, up_to=1), counts_with(froc_hit="iou")] = 0.5
    """Least IoU of a hit in FROC; does nothing with --froc-hit centre."""
    froc_repeats: Annotated[Literal["false-positive", "ignore"], RECORD] = "false-positive"
    """Further boxes on a found one in FROC: false-positive, as nnDetection counts, or ignore (LUNA16, CAMELYON16, MONAI, picai_eval)."""
    size_limits: Annotated[tuple[float, float], RECORD] = (32.0, 96.0)
    """Sides, in pixels of the original image, of the squares that part small from medium and medium from large true boxes; COCO's unless given."""

    def __post_init__(self) -> None:
        settle(self)
