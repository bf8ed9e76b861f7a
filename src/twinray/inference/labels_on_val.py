"""What thresholds and scores of a classifier mean on its validation images, for a reader who is shown them. No torch.

By rule that chooses thresholds: of the images that have a class the share that is called (sensitivity), and of those without it
the share that is not (specificity). By band of scores: the share of images that had the class. All come with the numbers behind
them, from the labels and scores of validation images that a run keeps; images whose label is uncertain or not stated are left
out. Thresholds and epoch were chosen on these images, so the figures are a little too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.inference.label_rule import LabelRule, label_rule
from twinray.inference.methods import OperatingPoint
from twinray.records import ABSENT, PRESENT, FloatArray
from twinray.runs.checksums import check_files
from twinray.runs.classes import difference
from twinray.runs.description import ModelDescription
from twinray.runs.results import PREDICTIONS, read_label_predictions

BANDS: Final = 10


def rules_of(description: ModelDescription, run: Path) -> dict[str, LabelRule]:
    """Rules by which a classifier's labels can be called, the default one first: one for each way to choose thresholds, or one.

    Args:
        description: description of a classifier.
        run: its folder, for messages.

    Raises:
        InputError: thresholds that are damaged.
    """
    first = label_rule(description, run, None, None)
    if first.highest or description.thresholds is None:
        return {"highest" if first.highest else "fixed": first}
    points: tuple[OperatingPoint, ...] = get_args(OperatingPoint)
    return {point: label_rule(description, run, point, None) for point in points}


def labels_on_val(
    description: ModelDescription, run: Path, *, allow_edited: bool = False
) -> dict[str, Any]:
    """Rules with their figures, and bands of scores, as ``GET /api/models`` of a server tells them.

    Returns:
        ``rules``: rule -> words and, by class, threshold (None where the highest score decides), sensitivity and specificity
        with counts (None without validation images). ``validation``: number of images and bands by class, or ``why_none``.

    Raises:
        InputError: files that are damaged, edited or of other classes.
    """
    rules = rules_of(description, run)
    found = _on_val(description, run, allow_edited=allow_edited)
    told = {
        name: {
            "words": rule.words,
            "by_class": {
                label: {
                    "threshold": None if rule.highest else float(rule.thresholds[k]),
                    **(_counted(rule.calls(found[1])[:, k], found[0][:, k]) if found else _NONE),
                }
                for k, label in enumerate(rule.classes)
            },
        }
        for name, rule in rules.items()
    }
    if found is None:
        return {
            "rules": told,
            "validation": {"why_none": "the run kept no scores of validation images"},
        }
    truth, scores = found
    bands = {
        label: {"by_score": _bands(scores[:, k], truth[:, k])}
        for k, label in enumerate(description.classes)
    }
    return {
        "rules": told,
        "validation": {"why_none": None, "n_images": len(truth), "by_class": bands},
    }


_NONE: Final[dict[str, Any]] = dict.fromkeys(
    ("sensitivity", "n_called", "n_with", "specificity", "n_false", "n_without")
)


def _on_val(
    description: ModelDescription, run: Path, *, allow_edited: bool
) -> tuple[FloatArray, FloatArray] | None:
    """(n, k) labels and scores of the model that was kept; None where the run kept none of validation images."""
    if not (run / PREDICTIONS).is_file():
        return None
    check_files(run, [PREDICTIONS], allow_edited=allow_edited)
    kept = read_label_predictions(run, "val")
    if kept is None or not len(kept.images) or description.seed not in kept.scores:
        return None
    if what := difference(description.classes, kept.classes, "model", "file"):
        raise InputError(
            f"classes of {run / PREDICTIONS} and of the run's model differ ({what}); restore the file"
        )
    return kept.truth, kept.scores[description.seed]


def _counted(called: npt.NDArray[np.bool_], truth: FloatArray) -> dict[str, Any]:
    there, absent = truth == PRESENT, truth == ABSENT
    n_with, n_without = int(there.sum()), int(absent.sum())
    n_called, n_false = int((called & there).sum()), int((called & absent).sum())
    return {
        "sensitivity": n_called / n_with if n_with else None,
        "n_called": n_called,
        "n_with": n_with,
        "specificity": 1 - n_false / n_without if n_without else None,
        "n_false": n_false,
        "n_without": n_without,
    }


def _bands(scores: FloatArray, truth: FloatArray) -> Sequence[dict[str, Any]]:
    known = (truth == PRESENT) | (truth == ABSENT)
    scores, there = scores[known], truth[known] == PRESENT
    band = np.minimum((scores * BANDS).astype(int), BANDS - 1)
    return [
        {
            "low": i / BANDS,
            "high": (i + 1) / BANDS,
            "share_with": float(there[band == i].mean()),
            "n_with": int(there[band == i].sum()),
            "n": int((band == i).sum()),
        }
        for i in range(BANDS)
        if (band == i).any()
    ]
