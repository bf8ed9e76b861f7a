"""What a score of a detector means on its validation images, for a reader who moves a threshold.

By threshold: false positives an image, and the share of readers' boxes that are found. By band of scores: the share of
predicted boxes that met a reader's box of their class (IoU of at least 0.5, also one that a better box took). Both come with
the numbers behind them, from the truth and the predictions of the validation images that a run keeps. The epoch was chosen on
these images, so the figures are a little too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.matching import BoxesByImage, BoxMatches, flatten, match
from twinray.evaluation.thresholds import MATCH_IOU
from twinray.records import FloatArray
from twinray.runs.checksums import check_files
from twinray.runs.classes import difference

MOST_STEPS = 200
BANDS = 10


@dataclass(frozen=True)
class Step:
    """What a threshold does: boxes of at least ``score`` are shown.

    Attributes:
        score: threshold. false: false positives on all images. found: readers' boxes that are found.
    """

    score: float
    false: int
    found: int


@dataclass(frozen=True)
class Band:
    """Predicted boxes with scores from ``low`` up to ``high``: ``n`` of them, ``met`` of which met a reader's box."""

    low: float
    high: float
    met: int
    n: int


@dataclass(frozen=True)
class Operating:
    """Figures of all classes together, or of one.

    Attributes:
        n_images: validation images. n_boxes: readers' boxes on them.
        steps: by falling score. bands: by rising score, those without a box left out.
    """

    n_images: int
    n_boxes: int
    steps: tuple[Step, ...]
    bands: tuple[Band, ...]

    def as_json(self) -> dict[str, Any]:
        """Shares beside the numbers that they are of; null where there is nothing to divide by."""
        return {
            "n_images": self.n_images,
            "n_boxes": self.n_boxes,
            "by_threshold": [
                {
                    "score": step.score,
                    "fp_per_image": step.false / self.n_images if self.n_images else None,
                    "share_found": step.found / self.n_boxes if self.n_boxes else None,
                    "n_false": step.false,
                    "n_found": step.found,
                }
                for step in self.steps
            ],
            "by_score": [
                {
                    "low": band.low,
                    "high": band.high,
                    "share_met": band.met / band.n,
                    "n_met": band.met,
                    "n": band.n,
                }
                for band in self.bands
            ],
        }


def operating(
    truth: BoxesByImage, predictions: BoxesByImage, box_classes: Sequence[str]
) -> dict[str, Operating]:
    """Figures of all classes together under ``""``, and of each class under its name.

    Args:
        truth: image id -> readers' boxes, for every validation image.
        predictions: image id -> boxes with scores.
        box_classes: names that labels index.

    Raises:
        InputError: boxes that do not fit, see :func:`twinray.evaluation.matching.flatten`.
    """
    matches = match(flatten(truth, predictions, box_classes), (MATCH_IOU,))
    whole = np.ones(len(matches.score), dtype=bool)
    found = {"": _figures(matches, whole, int(matches.truth_counts.sum()))}
    for label, name in enumerate(box_classes):
        own = int(matches.truth_counts[:, label].sum())
        found[name] = _figures(matches, matches.label == label, own)
    return found


def operating_on_val(
    run: Path, box_classes: Sequence[str], *, allow_edited: bool = False
) -> dict[str, Operating] | None:
    """The same from what a run kept of val; None where it kept nothing.

    Raises:
        InputError: files that are damaged, edited or of other classes.
    """
    truth_file, predictions_file = run / "truth_val.json", run / "predictions_val.json"
    if not (truth_file.is_file() and predictions_file.is_file()):
        return None
    check_files(run, [truth_file.name, predictions_file.name], allow_edited=allow_edited)
    truth = read_truth(truth_file)
    if what := difference(box_classes, truth.classes, "model", "file"):
        raise InputError(
            f"classes of {truth_file} and of the run's model differ ({what}); restore the file"
        )
    found = read_predictions(predictions_file, truth.image_ids, len(box_classes))
    return operating(truth.boxes, found, box_classes)


def _figures(matches: BoxMatches, chosen: Any, n_boxes: int) -> Operating:
    counted = chosen & matches.counted(0)
    score, hit, repeat = matches.score[counted], matches.hit[0][counted], matches.repeat[0][counted]
    order = np.argsort(-score, kind="stable")
    score, hit, repeat = score[order], hit[order], repeat[order]
    return Operating(matches.n_images, n_boxes, _steps(score, hit), _bands(score, hit | repeat))


def _steps(score: FloatArray, hit: Any) -> tuple[Step, ...]:
    """One step a different score, thinned where there are many: evenly over the boxes that are shown."""
    last = np.flatnonzero(np.diff(score, append=-np.inf))
    if len(last) > MOST_STEPS:
        last = last[np.unique(np.rint(np.linspace(0, len(last) - 1, MOST_STEPS)).astype(int))]
    found, false = np.cumsum(hit), np.cumsum(~hit)
    return tuple(Step(float(score[i]), int(false[i]), int(found[i])) for i in last)


def _bands(score: FloatArray, met: Any) -> tuple[Band, ...]:
    band = np.minimum((score * BANDS).astype(int), BANDS - 1)
    return tuple(
        Band(i / BANDS, (i + 1) / BANDS, int(met[band == i].sum()), int((band == i).sum()))
        for i in range(BANDS)
        if (band == i).any()
    )
