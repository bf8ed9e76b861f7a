"""The fast scores against the detector's own parts, really run on really zeroed channels, box by box."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.detection.batched.roi_align import pyramid_levels
from twinray.detection.model import Detector, DetectorOptions, build_detector
from twinray.detection.pyramid import POOLED_LEVELS, Features
from twinray.explanation.ablation_cam import last_stage_channel_scores, pyramid_channel_scores
from twinray.explanation.gradient_cams import gradient_cam
from twinray.explanation.occlusion import WINDOW, bin_occlusion
from twinray.explanation.scoring import FixedBox
from twinray.inference.heat_maps import box_scorer

SIZE, BOXES = 256, 20
SETTINGS = [
    pytest.param(("resnet18", 16, 32), id="small"),
    pytest.param(("timm/tf_efficientnet_lite0", 16, 32), id="efficientnet"),
    pytest.param(
        ("resnet50", 256, 1024),
        marks=[pytest.mark.long, pytest.mark.timeout(3600)],
        id="as published",
    ),
]
Parts = tuple[Detector, Features, list[FixedBox]]


@pytest.fixture(scope="module", params=SETTINGS)
def parts(request) -> Parts:
    """A random detector whose scores lean on their features, one image's features, and boxes of three levels."""
    arch, channels, width = request.param
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    options = DetectorOptions(aligned=True, size=SIZE, fpn_channels=channels, box_head_width=width)
    detector = build_detector(build_backbone(arch), options, ("a", "b", "c"), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        _, features = detector.detect_with_features(
            torch.randn(1, 3, SIZE, SIZE, generator=generator)
        )
    centre = torch.rand(BOXES, 2, generator=generator) * SIZE
    sides = torch.exp(torch.rand(BOXES, 2, generator=generator) * 2.5 + 3)
    proposals = torch.cat([centre - sides / 2, centre + sides / 2], dim=1).clamp(0, SIZE)
    proposals[-2:] = torch.tensor([[0.0, 0, SIZE, SIZE], [9, 3, SIZE - 5, SIZE]])
    levels = pyramid_levels(proposals, len(POOLED_LEVELS)).tolist()
    assert set(levels) == {0, 1, 2}
    boxes = [
        FixedBox(p, i % 3, level)
        for i, (p, level) in enumerate(zip(proposals, levels, strict=True))
    ]
    with torch.no_grad():
        logits = really_seen(detector, features.pyramid, boxes)
        detector.roi_heads.box_predictor.cls_score.weight.mul_(
            2 / logits.std()
        )  # neither flat nor saturated
    return detector, features, boxes


def really_seen(detector: Detector, pyramid: dict[str, Tensor], boxes: list[FixedBox]) -> Tensor:
    """(b, boxes, k + 1) logits on b versions of the pyramid, by the detector's own pooling, head and classifier."""
    n = len(pyramid["p2"])
    proposals = torch.stack([box.proposal for box in boxes])
    pooled = detector.roi_heads.box_roi_pool(pyramid, [proposals] * n, [(SIZE, SIZE)] * n)
    return detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))[0].view(
        n, len(boxes), -1
    )


def really_scored(detector: Detector, pyramid: dict[str, Tensor], boxes: list[FixedBox]) -> Tensor:
    """(b, boxes) scores on b versions of the pyramid."""
    labels = torch.tensor([1 + box.label for box in boxes])
    return really_seen(detector, pyramid, boxes).softmax(dim=2)[:, torch.arange(len(boxes)), labels]


def without_each(feature: Tensor, channels: Tensor) -> Tensor:
    versions = feature.repeat(len(channels), 1, 1, 1)
    versions[torch.arange(len(channels)), channels] = 0
    return versions


@torch.no_grad()
def test_pyramid_channels(parts: Parts) -> None:
    detector, features, boxes = parts
    levels = [features.pyramid[name] for name in POOLED_LEVELS]
    drops = []
    scores, fast = pyramid_channel_scores(levels, boxes, box_scorer(detector))
    for box, score, row in zip(boxes, scores, fast, strict=True):
        name = POOLED_LEVELS[box.level]
        torch.testing.assert_close(
            score, really_scored(detector, features.pyramid, [box])[0, 0], rtol=1e-4, atol=0
        )
        slow = []
        for channels in torch.arange(len(row)).split(32):
            versions = {n: f.expand(len(channels), -1, -1, -1) for n, f in features.pyramid.items()}
            versions[name] = without_each(features.pyramid[name], channels)
            slow.append(really_scored(detector, versions, [box])[:, 0])
        torch.testing.assert_close(row, torch.cat(slow), rtol=1e-4, atol=0)
        drops.append((row / score - 1).abs().max())
    assert torch.stack(drops).median() > 1e-2  # something to be exact about


@torch.no_grad()
def test_last_stage_channels(parts: Parts) -> None:
    detector, features, boxes = parts
    fpn, scorer = detector.backbone.fpn, box_scorer(detector)
    n_channels = features.stages["c5"].shape[1]
    slow = torch.empty(len(boxes), n_channels)
    for channels in torch.arange(n_channels).split(8 if n_channels > 1000 else 32):
        stages = {n: f.expand(len(channels), -1, -1, -1) for n, f in features.stages.items()}
        stages["c5"] = without_each(features.stages["c5"], channels)
        versions = detector.backbone.pyramid(stages)
        slow[:, channels] = really_scored(detector, versions, boxes).T
    drops = []
    for box, row in zip(boxes, slow, strict=True):
        feature = features.pyramid[POOLED_LEVELS[box.level]]
        score, fast = last_stage_channel_scores(features.stages, fpn, feature, box, scorer)
        torch.testing.assert_close(fast, row, rtol=1e-4, atol=0)
        drops.append((row / score - 1).abs().max())
    assert torch.stack(drops).median() > 1e-3


@torch.no_grad()
def test_occluded_bins(parts: Parts) -> None:
    """The weights of an occlusion map are drops of scores of bins that are really zeroed before the detector's own head."""
    detector, features, boxes = parts
    levels = [features.pyramid[name] for name in POOLED_LEVELS]
    heads, reach = detector.roi_heads, WINDOW // 2
    for box, heat in zip(
        boxes, bin_occlusion(levels, boxes, box_scorer(detector), (SIZE, SIZE)), strict=True
    ):
        pooled = heads.box_roi_pool(features.pyramid, [box.proposal[None]], [(SIZE, SIZE)])
        covered = pooled.repeat(1 + 49, 1, 1, 1)
        for at in range(49):
            row, column = divmod(at, 7)
            rows, columns = (slice(max(i - reach, 0), i + reach + 1) for i in (row, column))
            covered[1 + at, :, rows, columns] = 0
        scores = heads.box_predictor(heads.box_head(covered))[0].softmax(dim=1)[:, 1 + box.label]
        assert heat.score == pytest.approx(float(scores[0]), rel=1e-4)
        torch.testing.assert_close(
            torch.from_numpy(heat.weights),
            (scores[0] - scores[1:]) / scores[0],
            rtol=1e-3,
            atol=2e-5,
        )


@pytest.mark.parametrize("method", ["odam", "grad-cam"])
def test_gradient_maps(parts: Parts, method: Literal["odam", "grad-cam"]) -> None:
    """Gradient times activation of the level that a box pools from, the gradient through the detector's own parts."""
    detector, features, boxes = parts
    levels = [features.pyramid[name] for name in POOLED_LEVELS]
    drawn = gradient_cam(method, levels, boxes, box_scorer(detector), (SIZE, SIZE))
    for box, heat in zip(boxes, drawn, strict=True):
        name = POOLED_LEVELS[box.level]
        leaf = features.pyramid[name].detach().clone().requires_grad_(True)
        score = really_scored(detector, {**features.pyramid, name: leaf}, [box])[0, 0]
        (gradient,) = torch.autograd.grad(score, leaf)
        activation = leaf.detach()
        weight = gradient if method == "odam" else gradient.mean(dim=(2, 3), keepdim=True)
        raw = (weight * activation).sum(dim=1, keepdim=True).clamp(min=0)
        plain = F.interpolate(raw, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
        plain = plain / plain.max() if plain.max() > 0 else plain
        torch.testing.assert_close(torch.from_numpy(heat.map), plain, rtol=1e-3, atol=1e-3)
