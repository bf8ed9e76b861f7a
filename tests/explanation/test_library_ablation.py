"""The slow mode against the grad-cam package itself, on one detector and one image."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import pytorch_grad_cam as library
import torch
from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from twinray.backbones.build import build_backbone
from twinray.detection.model import Detector, DetectorOptions, build_detector
from twinray.detection.pyramid import LEVELS
from twinray.explanation.library_ablation import FinalBox, ablation_cam_library
from twinray.inference.heat_maps import heat_maps

SIZE = 256
NAMES = ("0", "1", "2", "3", "pool")


class LevelsAsNamed(nn.Module):
    """Backbone and pyramid under the names that the package expects."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.pyramid = detector.backbone

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(NAMES, self.pyramid(images).pyramid.values(), strict=True))


class AsTorchvision(nn.Module):
    """A detector as the package sees one; boxes come from torchvision's own post-processing."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = [
            detector
        ]  # in a list: not a child, as the package swaps modules by identity
        self.backbone = LevelsAsNamed(detector)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        detector = self.detector[0]
        named = dict(zip(LEVELS, self.backbone(images).values(), strict=True))
        image_list = ImageList(images, [(SIZE, SIZE)] * len(images))
        proposals, _ = detector.rpn(image_list, named, None)
        return detector.roi_heads(named, proposals, image_list.image_sizes)[0]


class FewChannels(AblationLayerFasterRCNN):
    """The package's layer counts on 256 channels a level; this one on fewer, all else as it is."""

    channels = 8

    def __call__(self, x: Tensor) -> OrderedDict[str, Tensor]:
        for i in range(len(self.activations["pool"])):
            level, channel = divmod(int(self.indices[i]), self.channels)
            self.activations[NAMES[level]][i, channel] = -1000
        return self.activations


@pytest.mark.parametrize(
    "channels",
    [8, pytest.param(256, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
    ids=["few", "all"],
)
def test_the_map_is_the_packages(channels: int) -> None:
    options = DetectorOptions(
        size=SIZE,
        fpn_channels=channels,
        box_head_width=32,
        proposals=(20, 20),
        anchor_scale=4,
        score_threshold=0.05,
    )
    detector = build_detector(build_backbone("resnet18"), options, ("a", "b"), seed=1).eval()
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight.mul_(20)
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (found,), features = detector.detect_with_features(image)
    view = AsTorchvision(detector).eval()
    with torch.no_grad():
        # several scores are 1 to the last bit of float32: their order says nothing
        theirs, own = (b[b[:, 0].argsort()] for b in (view(image)[0]["boxes"], found.boxes))
        torch.testing.assert_close(theirs, own)
    chosen = [0, min(3, len(found) - 1)]
    ours = heat_maps(detector, features, found, chosen, (SIZE, SIZE), "ablation-rerun")
    for i, heat in zip(chosen, ours, strict=True):
        target = FasterRCNNBoxScoreTarget(
            labels=[int(found.labels[i]) + 1], bounding_boxes=found.boxes[i : i + 1].numpy()
        )
        layer = AblationLayerFasterRCNN() if channels == 256 else FewChannels()
        cam = library.AblationCAM(
            view,
            [view.backbone],
            reshape_transform=fasterrcnn_reshape_transform,
            ablation_layer=layer,
            batch_size=4,
        )
        theirs = cam(image, targets=[target])[0]
        assert heat.weights.shape == (5 * channels,)
        assert np.abs(heat.weights).max() > 1e-3
        assert theirs.max() > 0.5
        np.testing.assert_allclose(heat.map, theirs, atol=2e-3)
        assert "-1000" in heat.definition


def test_a_box_that_is_gone_or_of_another_class_scores_nothing() -> None:
    """Channel 0 decides whether the box is found at all, channel 1 its class, channel 2 its score."""

    class Found:
        def __init__(self, there: bool, label: int, score: float) -> None:
            self.boxes = torch.tensor([[0.0, 0, 10, 10]] if there else []).view(-1, 4)
            self.labels = torch.tensor([label] if there else [], dtype=torch.int64)
            self.scores = torch.tensor([score] if there else [])

    def redetect(maps: list[Tensor]) -> list[Found]:
        on = [(one[0].mean() > 0, one[1].mean() > 0, one[2].mean() > 0) for one in maps[0]]
        return [Found(bool(a), 0 if b else 1, 0.8 if c else 0.4) for a, b, c in on]

    pyramid = [torch.ones(1, 4, 6, 6)]
    box = FinalBox(torch.tensor([0.0, 0, 10, 10]), 0, 0.8, 0)
    (heat,) = ablation_cam_library(pyramid, [box], redetect, (12, 12))
    np.testing.assert_allclose(heat.weights, [1, 1, 0.4 / 1.8, 0], atol=1e-6)
    assert not heat.map.any()  # flat: nothing stands out
    assert ablation_cam_library(pyramid, [], redetect, (12, 12)) == []
    lost = FinalBox(torch.tensor([50.0, 50, 60, 60]), 0, 0.8, 0)
    (none,) = ablation_cam_library(pyramid, [lost], redetect, (12, 12))
    assert not none.weights.any()
