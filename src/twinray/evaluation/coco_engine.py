"""Average precision by faster-coco-eval, the engine of the figures that are reported.

The intervals come from ``accumulate`` over cached matches; both follow pycocotools to rounding, which the
tests check. Conventions are those of ``matching``: COCO's 101-point interpolation, 100 predictions per
image and class, every box size, no crowd regions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from twinray.evaluation.matching import MAX_DETECTIONS, FlatBoxes
from twinray.records import FloatArray, IntArray

COCO_IOUS = tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))
"""0.5, 0.55, ..., 0.95"""

IOUS = (0.4, *COCO_IOUS)
"""All thresholds that are reported: VinBigData's 0.4 and COCO's ten."""


def coco_average_precision(flat: FlatBoxes, ious: tuple[float, ...] = IOUS) -> npt.NDArray[np.float64]:
    """Average precision of every class at every IoU threshold.

    Args:
        flat: checked boxes.
        ious: thresholds above 0.

    Returns:
        (t, k) in 0..1; NaN for a class without any true box.
    """
    n_classes = len(flat.box_classes)
    result = np.full((len(ious), n_classes), np.nan)
    present = flat.truth_counts().sum(axis=0) > 0
    if not present.any():
        return result
    if not len(flat.score):
        result[:, present] = 0.0
        return result
    # Not through the engine's loadRes: it adds a polygon to every box, which costs more than the evaluation.
    true = _dataset(flat, flat.truth_image, flat.truth_label, flat.truth_xywh, np.ones(len(flat.truth_image)))
    predicted = _dataset(flat, flat.image, flat.label, flat.xywh, flat.score)
    evaluation = COCOeval_faster(COCO(true), COCO(predicted), iouType="bbox", print_function=_silent)
    evaluation.params.iouThrs = np.asarray(ious, dtype=np.float64)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [[0.0, np.inf]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]  # thresholds, recalls, classes
    result[:, present] = precision.mean(axis=1)[:, present]
    return result


def _silent(*_: object) -> None:
    """The engine reports its steps; nobody asked."""


def _dataset(
    flat: FlatBoxes, image: IntArray, label: IntArray, xywh: FloatArray, score: FloatArray
) -> dict[str, object]:
    """COCO's dictionary; annotation ids from 1, since the engine takes 0 for "unmatched"."""
    area = xywh[:, 2] * xywh[:, 3]
    columns = zip(image.tolist(), label.tolist(), xywh.tolist(), area.tolist(), score.tolist(), strict=True)
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(flat.ids))],
        "annotations": [
            {"id": i, "image_id": im, "category_id": c, "bbox": box, "area": a, "iscrowd": 0, "score": s}
            for i, (im, c, box, a, s) in enumerate(columns, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(flat.box_classes)],
    }
