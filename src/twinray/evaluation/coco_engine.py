"""Average precision and recall by faster-coco-eval, the engine of the figures that are reported.

The intervals come from ``accumulate`` over cached matches; both follow pycocotools to rounding, which the
tests check. Conventions are those of ``matching``: COCO's 101-point interpolation, 100 predictions per
image and class, crowd regions ignored, sizes by the area of true boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from twinray.evaluation.accumulate import RECALL_DETECTIONS
from twinray.evaluation.matching import EVERY_AREA, Areas, FlatBoxes
from twinray.records import FloatArray, IntArray

COCO_IOUS = tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))
"""0.5, 0.55, ..., 0.95"""

IOUS = (0.4, *COCO_IOUS)
"""All thresholds that are reported: VinBigData's 0.4 and COCO's ten."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoTables:
    """What the engine worked out.

    Attributes:
        precision: (t, k, areas) average precision; NaN for a class without any true box of these areas.
        recall: (t, k, areas, RECALL_DETECTIONS) share of true boxes found by the first 1, 10 or 100 predictions an image.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]


def coco_average_precision(
    flat: FlatBoxes, ious: tuple[float, ...] = IOUS
) -> npt.NDArray[np.float64]:
    """Average precision of every class at every IoU threshold, boxes of every size.

    Args:
        flat: checked boxes.
        ious: thresholds above 0.

    Returns:
        (t, k) in 0..1; NaN for a class without any true box.
    """
    return np.asarray(coco_tables(flat, ious).precision[:, :, 0])


def coco_tables(
    flat: FlatBoxes, ious: tuple[float, ...] = IOUS, areas: Sequence[Areas] = (EVERY_AREA,)
) -> CocoTables:
    """Average precision and recall of every class at every IoU threshold and range of areas.

    Args:
        flat: checked boxes.
        ious: thresholds above 0.
        areas: ranges of the true boxes' areas.
    """
    shape = (len(ious), len(flat.box_classes), len(areas))
    precision, recall = np.full(shape, np.nan), np.full((*shape, len(RECALL_DETECTIONS)), np.nan)
    present = np.stack(
        [flat.truth_counts(one).sum(axis=0) > 0 for one in areas], axis=1
    )  # k, areas
    if not present.any():
        return CocoTables(precision, recall)
    if not len(flat.score):
        precision[:, present] = recall[:, present] = 0.0
        return CocoTables(precision, recall)
    # Not through the engine's loadRes: it adds a polygon to every box, which costs more than the evaluation.
    own = flat.xywh[:, 2] * flat.xywh[:, 3]
    n_true, n = len(flat.truth_image), len(flat.image)
    true = _dataset(
        flat,
        flat.truth_image,
        flat.truth_label,
        flat.truth_xywh,
        np.ones(n_true),
        flat.truth_area,
        flat.truth_crowd,
    )
    predicted = _dataset(
        flat, flat.image, flat.label, flat.xywh, flat.score, own, np.zeros(n, dtype=bool)
    )
    evaluation = COCOeval_faster(
        COCO(true), COCO(predicted), iouType="bbox", print_function=_silent
    )
    evaluation.params.iouThrs = np.asarray(ious, dtype=np.float64)
    evaluation.params.maxDets = list(RECALL_DETECTIONS)
    evaluation.params.areaRng = [list(one) for one in areas]
    evaluation.params.areaRngLbl = [str(i) for i in range(len(areas))]
    evaluation.evaluate()
    evaluation.accumulate()
    mean = np.asarray(evaluation.eval["precision"])[..., -1].mean(
        axis=1
    )  # thresholds, classes, areas
    precision[:, present] = mean[:, present]
    recall[:, present] = np.asarray(evaluation.eval["recall"])[:, present]
    return CocoTables(precision, recall)


def _silent(*_: object) -> None:
    """The engine reports its steps; nobody asked."""


def _dataset(
    flat: FlatBoxes,
    image: IntArray,
    label: IntArray,
    xywh: FloatArray,
    score: FloatArray,
    area: FloatArray,
    crowd: npt.NDArray[np.bool_],
) -> dict[str, object]:
    """COCO's dictionary; annotation ids from 1, since the engine takes 0 for "unmatched"."""
    columns = zip(
        image.tolist(),
        label.tolist(),
        xywh.tolist(),
        area.tolist(),
        crowd.tolist(),
        score.tolist(),
        strict=True,
    )
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(flat.ids))],
        "annotations": [
            {
                "id": i,
                "image_id": im,
                "category_id": c,
                "bbox": box,
                "area": a,
                "iscrowd": int(crowd),
                "score": s,
            }
            for i, (im, c, box, a, crowd, s) in enumerate(columns, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(flat.box_classes)],
    }
