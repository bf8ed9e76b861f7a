"""Names that options take: heat maps, and thresholds that call a label. No torch, so that a verb's help need not wait for it."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal[
    "ablation",
    "ablation-last-stage",
    "occlusion",
    "ablation-rerun",
    "grad-cam",
    "grad-cam++",
    "eigen-cam",
    "eigen-cam-uncentred",
    "odam",
    "odam-smoothed",
]
METHODS: tuple[Method, ...] = get_args(Method)

DEFAULT_MAP: Method = "occlusion"
"""Of a detector's boxes, chosen by measurement over four detectors (docs/benchmarks.md): seldom empty, and it points best."""

DEFAULT_CLASS_MAPS: tuple[Method, Method] = ("ablation", "occlusion")
"""Of a classifier's classes: the closed form, and what every network has where that one has no pooled map."""
ANY_DETECTOR: tuple[Method, ...] = ("ablation-rerun",)
"""Needs no box head to look into; all others explain Faster R-CNN's."""

OperatingPoint = Literal["youden", "f1", "specificity@90", "specificity@95"]
"""Thresholds of a classifier, by the rule that chose them on validation images."""
