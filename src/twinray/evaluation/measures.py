"""Every measure that the product reports: what it is called, what it means, and where it is shown.

Tables, CSV files, charts and pages read this table and know no measure by themselves. A measure that is not in it is still
written to every file, under its own name; to show it, add a row here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["detector", "classifier"]
Better: TypeAlias = Literal["higher", "lower"]
KINDS: tuple[Kind, ...] = ("detector", "classifier")


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        name: key in ``metrics.json``; a family of measures ends in ``@``, and what follows it is the operating point.
        title: name as papers write it; ``{}`` stands for the operating point.
        what: meaning in a few words, for people who read the figures.
        kinds: models that have it.
        better: direction of a better model.
        digits: decimals that are shown.
        overall, by_class: tables that show it: that of the figures over all classes, and that of each class.
        unit: unit of the value; empty for a share of 1.
        upper: greatest possible value, for axes; None where there is none.
    """

    name: str
    title: str
    what: str
    kinds: tuple[Kind, ...]
    better: Better = "higher"
    digits: int = 3
    overall: bool = False
    by_class: bool = False
    unit: str = ""
    upper: float | None = 1.0


_DETECTOR: tuple[Kind, ...] = ("detector",)
_CLASSIFIER: tuple[Kind, ...] = ("classifier",)

_TABLE: tuple[Measure, ...] = (
    Measure("map50", "mAP50", "mean average precision over classes, IoU 0.5 or more", _DETECTOR, overall=True),
    Measure("map40", "mAP40", "mean average precision over classes, IoU 0.4 or more", _DETECTOR, overall=True),
    Measure("map", "mAP", "mean average precision over classes and IoU 0.5 to 0.95", _DETECTOR, overall=True),
    Measure("map75", "mAP75", "mean average precision over classes, IoU 0.75 or more", _DETECTOR),
    Measure("map_small", "mAP small", "mAP of small true boxes; predictions on others are ignored", _DETECTOR),
    Measure("map_medium", "mAP medium", "mAP of true boxes of middle size", _DETECTOR),
    Measure("map_large", "mAP large", "mAP of large true boxes", _DETECTOR),
    Measure("ar1", "AR1", "share of true boxes that the best box of an image and class finds, over IoU 0.5 to 0.95", _DETECTOR),
    Measure("ar10", "AR10", "share of true boxes that the best 10 boxes find, over IoU 0.5 to 0.95", _DETECTOR),
    Measure("ar100", "AR100", "share of true boxes that the best 100 boxes find, over IoU 0.5 to 0.95", _DETECTOR),
    Measure("ar_small", "AR small", "AR100 of small true boxes", _DETECTOR),
    Measure("ar_medium", "AR medium", "AR100 of true boxes of middle size", _DETECTOR),
    Measure("ar_large", "AR large", "AR100 of large true boxes", _DETECTOR),
    Measure("froc", "FROC", "mean sensitivity at 1/8 to 8 false positives per image", _DETECTOR, overall=True),
    Measure("froc@", "FROC at {}", "sensitivity at {} false positives per image", _DETECTOR),
    Measure("ap50", "AP50", "average precision, IoU 0.5 or more", _DETECTOR, by_class=True),
    Measure("ap40", "AP40", "average precision, IoU 0.4 or more", _DETECTOR),
    Measure("ap75", "AP75", "average precision, IoU 0.75 or more", _DETECTOR),
    Measure("ap_small", "AP small", "average precision of small true boxes, over IoU 0.5 to 0.95", _DETECTOR),
    Measure("ap_medium", "AP medium", "average precision of true boxes of middle size", _DETECTOR),
    Measure("ap_large", "AP large", "average precision of large true boxes", _DETECTOR),
    Measure("ap", "AP", "average precision over IoU 0.5 to 0.95", _DETECTOR),
    Measure("auc", "AUC", "how often a positive image scores above a negative one; 0.5 is chance", _CLASSIFIER, overall=True, by_class=True),
    Measure("average_precision", "average precision", "area under precision against recall", _CLASSIFIER, overall=True),
    Measure("accuracy", "accuracy", "share of right decisions", _CLASSIFIER, overall=True),
    Measure("balanced_accuracy", "balanced accuracy", "mean share of right decisions over the kinds of label", _CLASSIFIER, overall=True),
    Measure("recall", "recall", "share of a class's images that are found", _CLASSIFIER),
    Measure("macro_f1", "F1 of the highest class", "precision and recall in one figure, the highest class decides", _CLASSIFIER),
    Measure("sensitivity@", "sensitivity at {} % specificity", "share of positive images found at {} % specificity, read off the ROC curve", _CLASSIFIER),
    Measure("f1", "F1", "precision and recall in one figure, threshold chosen on validation", _CLASSIFIER),
    Measure("youden", "Youden's index", "sensitivity + specificity - 1, threshold chosen on validation", _CLASSIFIER),
    Measure("sensitivity", "sensitivity", "share of positive images called positive, threshold of Youden's index", _CLASSIFIER),
    Measure("specificity", "specificity", "share of negative images called negative, threshold of Youden's index", _CLASSIFIER),
    Measure("ppv", "positive predictive value", "share of positive calls that are right, threshold of Youden's index", _CLASSIFIER),
    Measure("npv", "negative predictive value", "share of negative calls that are right, threshold of Youden's index", _CLASSIFIER),
    Measure("brier", "Brier score", "mean squared error of the probability", _CLASSIFIER, "lower", overall=True, upper=None),
    Measure("ece", "ECE", "expected calibration error: how far probabilities are from frequencies, 15 bins", _CLASSIFIER, "lower", overall=True),
)  # fmt: skip
_BY_NAME = {one.name: one for one in _TABLE}

_COUNTS = {
    "n_images": ("image", "images"),
    "n_boxes": ("true box", "true boxes"),
    "n_positive": ("image with it", "images with it"),
    "n_negative": ("image without it", "images without it"),
    "n_patients_positive": ("patient with it", "patients with it"),
    "n_patients_negative": ("patient without it", "patients without it"),
}
COUNT_OF_CLASS: dict[Kind, str] = {"detector": "n_boxes", "classifier": "n_positive"}
"""What shows how much a class's figures rest on."""


def measure(name: str) -> Measure:
    """The entry of a measure; of one that is not in the table an entry that says no more than its name.

    >>> measure("froc@0.125").title
    'FROC at 0.125'
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    family, at, point = name.partition("@")
    if at and family + at in _BY_NAME:
        whole = _BY_NAME[family + at]
        return replace(
            whole, name=name, title=whole.title.format(point), what=whole.what.format(point)
        )
    return Measure(name, name.replace("_", " "), "", KINDS)


def ends(name: str, *, difference: bool = False) -> tuple[float, float]:
    """The least and the greatest value that a measure, or a difference in it, can have.

    >>> ends("auc"), ends("youden"), ends("auc", difference=True)
    ((0.0, 1.0), (-1.0, 1.0), (-1.0, 1.0))
    """
    if name not in _BY_NAME and name.partition("@")[0] + "@" not in _BY_NAME:
        return -math.inf, math.inf
    upper = measure(name).upper
    high = math.inf if upper is None else upper
    low = -1.0 if name == "youden" else 0.0
    return (low - high, high - low) if difference else (low, high)


def title(name: str) -> str:
    """A measure as papers write it."""
    return measure(name).title


def shown_overall(kind: Kind) -> tuple[str, ...]:
    """Measures over all classes that tables show, the main one first."""
    return tuple(one.name for one in _TABLE if one.overall and kind in one.kinds)


def shown_by_class(kind: Kind) -> tuple[str, ...]:
    """Measures of each class that tables show, the main one first."""
    return tuple(one.name for one in _TABLE if one.by_class and kind in one.kinds)


def main_measure(kind: Kind) -> str:
    """The measure that a comparison is about unless somebody says otherwise."""
    return shown_overall(kind)[0]


def count_title(name: str, *, plural: bool = True) -> str:
    """A count in words: ``true boxes`` for ``n_boxes``."""
    return _COUNTS.get(name, (name.removeprefix("n_").replace("_", " "),) * 2)[plural]


def count_head(name: str) -> str:
    """A count as the head of a narrow column: ``boxes`` for ``n_boxes``, ``images`` for all others."""
    return "boxes" if name == "n_boxes" else "images"
