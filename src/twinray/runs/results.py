"""What a finished run keeps of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twinray.errors import InputError
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.thresholds import Thresholds, choose_thresholds
from twinray.runs.classes import difference


def thresholds_on_val(run: Path, box_classes: Sequence[str], fp_per_image: float) -> Thresholds | None:
    """Thresholds for one number of false positives per image, from what a run kept of val; None where it kept nothing.

    Raises:
        InputError: a number that is not finite and above 0, or files that are damaged or of other classes.
    """
    truth_file, predictions_file = run / "truth_val.json", run / "predictions_val.json"
    if not (truth_file.is_file() and predictions_file.is_file()):
        return None
    truth = read_truth(truth_file)
    if what := difference(box_classes, truth.classes, "model", "file"):
        raise InputError(f"classes of {truth_file} and of the run's model differ ({what}); restore the file")
    found = read_predictions(predictions_file, truth.image_ids, len(box_classes))
    return choose_thresholds(truth.boxes, found, box_classes, default=fp_per_image, rates=())
