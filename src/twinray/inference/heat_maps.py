"""Heat maps of boxes by every method, for a detector and one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torchvision.ops import FeaturePyramidNetwork

from twinray.detection.model import Detector
from twinray.detection.postprocess import Detection
from twinray.detection.pyramid import Features, SimplePyramid
from twinray.errors import InputError
from twinray.explanation.ablation_cam import ablation_cam_fpn, ablation_cam_last_stage
from twinray.explanation.gradient_cams import gradient_cam
from twinray.explanation.library_ablation import FinalBox, ablation_cam_library
from twinray.explanation.occlusion import bin_occlusion
from twinray.explanation.scoring import BoxScorer, FixedBox, HeatMap
from twinray.inference.methods import ANY_DETECTOR, DEFAULT_MAP, METHODS, Method
from twinray.records import Boxes


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture's worth of results for one image.

    Attributes:
        id: the image. image: (h, w) or (h, w, 3) uint8 for display.
        scale: (2,) factors from original pixels to pixels of ``image``.
        truth: true boxes in original pixels, None where unknown.
        predictions: all predicted boxes in original pixels, best first.
        top: indices into ``predictions`` that have a heat map.
        heat_maps: (len(top), h, w) float32 in 0..1.
        definition: what the heat map is, in words.
    """

    id: str
    image: npt.NDArray[np.uint8]
    scale: tuple[float, float]
    truth: Boxes | None
    predictions: Boxes
    top: tuple[int, ...]
    heat_maps: npt.NDArray[np.float32]
    definition: str


def heat_maps(
    detector: Detector,
    features: Features,
    found: Detection,
    chosen: Sequence[int],
    image_size: tuple[int, int],
    method: Method,
) -> list[HeatMap]:
    """Heat maps of some boxes of one image, by the chosen method.

    Args:
        detector: in evaluation mode.
        features: of a batch of that image alone, as ``detect_with_features`` gave them.
        found: the boxes found on it.
        chosen: indices of the boxes to explain.
        image_size: (height, width) of the network's input.
        method: name of the map.

    Raises:
        InputError: a method that does not exist, or one that this kind of detector has no use for.
    """
    check_method(detector, method)
    pyramid = list(features.pyramid.values())
    if method == "ablation-rerun":
        final = [
            FinalBox(
                found.boxes[i], int(found.labels[i]), float(found.scores[i]), int(found.levels[i])
            )
            for i in chosen
        ]
        names = list(features.pyramid)
        return ablation_cam_library(
            pyramid,
            final,
            lambda maps: detector.detect_on_pyramid(
                dict(zip(names, maps, strict=True)), image_size
            ),
            image_size,
        )
    boxes = fixed_boxes(found, chosen)
    scorer = box_scorer(detector)
    if method == "ablation":
        return ablation_cam_fpn(pyramid, boxes, scorer, image_size)
    if method == "ablation-last-stage":
        assert isinstance(detector.backbone.fpn, FeaturePyramidNetwork)  # checked above
        return ablation_cam_last_stage(
            features.stages, detector.backbone.fpn, boxes, scorer, image_size
        )
    if method == "occlusion":
        return bin_occlusion(pyramid, boxes, scorer, image_size)
    return gradient_cam(method, pyramid, boxes, scorer, image_size)


def check_method(detector: Detector, method: str) -> None:
    """Refuse a method that does not exist, or that this kind of detector has no use for.

    Raises:
        InputError: naming the methods that can be used.
    """
    if method not in METHODS:
        raise InputError(f"expected --method to be one of {', '.join(METHODS)}, got {method!r}")
    if reason := _no_use(detector, method):
        raise InputError(reason)


def usable(detector: Detector, methods: Sequence[Method]) -> tuple[Method, ...]:
    """Those of the methods that this kind of detector has a use for."""
    return tuple(method for method in methods if not _no_use(detector, method))


def _no_use(detector: Detector, method: str) -> str:
    """Why a detector has no use for a method, and what to use instead; empty where it has."""
    kind = detector.options.detector
    if kind != "faster-rcnn" and method not in ANY_DETECTOR:
        return (
            f"the method {method} looks into the box head of faster-rcnn, this run is a {kind}; "
            f"use --method {' or '.join(ANY_DETECTOR)}"
        )
    if method == "ablation-last-stage" and isinstance(detector.backbone.fpn, SimplePyramid):
        return (
            "the method ablation-last-stage needs a pyramid without norms, and that of a plain transformer has them: what a "
            f"channel of the last map adds to a box is no sum there; use --method {DEFAULT_MAP} or ablation"
        )
    return ""


def fixed_boxes(found: Detection, chosen: Sequence[int]) -> list[FixedBox]:
    """The source proposals of some detected boxes, which hold their scores."""
    return [
        FixedBox(found.proposals[i], int(found.labels[i]), int(found.levels[i])) for i in chosen
    ]


def box_scorer(detector: Detector) -> BoxScorer:
    """The detector's box head as explanations need it."""
    head = detector.roi_heads.box_head
    return BoxScorer(detector.pool_level, head.fc6, head.fc7, detector.class_scores)
