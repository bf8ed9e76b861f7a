"""Detectors that were pickled, or traced by torch.export, go on as they were."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from twinray.backbones.build import build_backbone
from twinray.detection.model import DetectorOptions, build_detector


class Dense(nn.Module):
    """The part whose shapes the images' alone decide."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        return tuple(self.detector.dense(images)[1].values())


@pytest.mark.parametrize(
    ("kind", "scale"), [("faster-rcnn", 8.0), ("retinanet", 4.0), ("fcos", 1.0)]
)
def test_a_pickled_or_traced_detector_finds_the_same(kind, scale):
    options = DetectorOptions(
        detector=kind, anchor_scale=scale, size=64, fpn_channels=64, box_head_width=64
    )
    detector = build_detector(build_backbone("resnet18", 0), options, ("a", "b"), 0).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = detector.detect(images)[0]
    assert len(wanted)
    kept = io.BytesIO()
    torch.save(detector, kept)
    kept.seek(0)
    found = torch.load(kept, weights_only=False).detect(images)[0]
    assert torch.equal(found.boxes, wanted.boxes) and torch.equal(found.scores, wanted.scores)
    with torch.no_grad():
        traced = torch.export.export(Dense(detector), (images,)).module()(images)
        own = Dense(detector)(images)
    assert all(torch.equal(one, other) for one, other in zip(traced, own, strict=True))
    assert torch.equal(detector.detect(images)[0].boxes, wanted.boxes)
