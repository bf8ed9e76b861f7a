"""Heat maps of a classifier: against really zeroing channels, the grad-cam package, and the network run on covered images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from twinray.backbones.build import build_backbone
from twinray.explanation.class_maps import (
    CLASS_METHODS,
    ClassScorer,
    ablated_log_odds,
    class_maps,
    last_map_is_pooled,
    log_odds,
    occlusion_places,
)

SIDE = 96


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", 3).eval()
    linear = nn.Linear(backbone.features, 4)
    return backbone, linear


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(
        np.random.default_rng(1).normal(size=(3, SIDE, SIDE)).astype(np.float32)
    )


def scorer(network, exclusive):
    backbone, linear = network
    return ClassScorer(
        lambda x: backbone.stages(x)["c5"], linear, lambda x: linear(backbone(x)), exclusive
    )


@pytest.mark.parametrize("exclusive", [True, False])
def test_log_odds_are_of_the_probability(exclusive):
    logits = torch.randn(5, 4, dtype=torch.float64)
    p = (logits.softmax(1) if exclusive else logits.sigmoid())[:, 2]
    torch.testing.assert_close(log_odds(logits, 2, exclusive), torch.log(p / (1 - p)))


@pytest.mark.parametrize("exclusive", [True, False])
@torch.no_grad()
def test_closed_form_equals_really_zeroing_each_channel(network, image, exclusive):
    backbone, linear = network
    feature = backbone.stages(image[None])["c5"]
    label = int(linear(backbone(image[None])).argmax())
    whole, without = ablated_log_odds(feature[0], label, linear, exclusive)
    for channel in range(0, feature.shape[1], 17):
        zeroed = feature.clone()
        zeroed[:, channel] = 0
        expected = log_odds(linear(zeroed.mean(dim=(2, 3))), label, exclusive)[0]
        assert float(without[channel]) == pytest.approx(float(expected), abs=1e-5)
    (found,) = class_maps("ablation", image, [label], scorer(network, exclusive))
    assert found.log_odds == pytest.approx(float(whole), abs=1e-5)
    np.testing.assert_allclose(found.weights, (whole - without).numpy(), atol=1e-6)
    # The map is the weighted sum of the channels, enlarged, and 1 at its peak.
    raw = torch.einsum("c,chw->hw", whole - without, feature[0]).clamp(min=0)
    large = torch.nn.functional.interpolate(raw[None, None], size=(SIDE, SIDE), mode="bilinear")[
        0, 0
    ]
    np.testing.assert_allclose(found.map, (large / large.max()).numpy(), atol=1e-6)


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_gradient_maps_equal_the_grad_cam_package(network, image, method, exclusive):
    cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    backbone, linear = network[0], nn.Linear(512, 4)
    with (
        torch.no_grad()
    ):  # steep enough for the 1e-6 that the package adds to its denominators to count for nothing
        linear.weight.copy_(40 * network[1].weight), linear.bias.copy_(network[1].bias)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.linear = backbone, linear

        def forward(self, x):
            return self.linear(self.backbone(x))

    kind = cam.GradCAM if method == "grad-cam" else cam.GradCAMPlusPlus
    with kind(model=Whole(), target_layers=[backbone.layer4[-1]]) as library:
        expected = library(
            image[None], targets=[lambda logits: log_odds(logits[None], 2, exclusive)[0]]
        )[0]
    (found,) = class_maps(method, image, [2], scorer((backbone, linear), exclusive))
    least = found.map.min()  # the package takes the least value for zero
    np.testing.assert_allclose((found.map - least) / (1 - least), expected, atol=2e-3)


def test_grad_cam_and_ablation_agree_where_labels_stand_alone(network, image):
    """Of a linear layer on means, the drop without a channel is its gradient times its mean (Ablation-CAM, equation 7)."""
    ours = scorer(network, False)
    (ablation,), (gradient,) = (class_maps(m, image, [0], ours) for m in ("ablation", "grad-cam"))
    backbone, _ = network
    with torch.no_grad():
        mean = backbone.stages(image[None])["c5"].sum(dim=(2, 3))[0].numpy()
    np.testing.assert_allclose(ablation.weights, gradient.weights * mean, atol=1e-5)


@torch.no_grad()
def test_occlusion_is_the_network_on_covered_images(network, image):
    ours = scorer(network, True)
    (found,) = class_maps("occlusion", image, [3], ours, batch_size=7)
    places = occlusion_places(SIDE)
    for number in (0, 40, len(places) - 1):
        x1, y1, x2, y2 = places[number]
        covered = image.clone()
        covered[:, y1:y2, x1:x2] = 0
        drop = found.log_odds - float(log_odds(ours.logits(covered[None]), 3, True)[0])
        assert found.weights[number] == pytest.approx(drop, abs=1e-4)
    seen = np.zeros((SIDE, SIDE), dtype=int)
    for x1, y1, x2, y2 in places:
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1
    assert found.map.shape == (SIDE, SIDE) and found.map.max() == pytest.approx(1)


@torch.no_grad()
def test_evidence_in_one_place_is_found_there():
    """A network that looks at the brightest corner alone."""
    linear = nn.Linear(1, 1)
    linear.weight.fill_(1), linear.bias.fill_(0)
    image = torch.zeros(3, SIDE, SIDE)
    image[:, 60:80, 10:30] = 1

    def last_map(x):
        return torch.nn.functional.avg_pool2d(x[:, :1], 8)

    ours = ClassScorer(last_map, linear, lambda x: linear(last_map(x).mean(dim=(2, 3))), False)
    for method in CLASS_METHODS:
        (found,) = class_maps(method, image, [0], ours)
        y, x = np.unravel_index(found.map.argmax(), found.map.shape)
        assert 55 <= y < 85 and 5 <= x < 35, method


def test_a_network_without_a_pooled_map(network, image):
    whole = scorer(network, True)
    bare = ClassScorer(None, whole.linear, whole.logits, True)
    assert class_maps("occlusion", image, [0], bare)[0].map.max() == pytest.approx(1)
    with pytest.raises(ValueError, match="needs a last feature map"):
        class_maps("ablation", image, [0], bare)
    with pytest.raises(ValueError, match="one of ablation, grad-cam"):
        class_maps("odam", image, [0], whole)
    feature = torch.rand(2, 5, 3, 3)
    assert last_map_is_pooled(feature, feature.mean(dim=(2, 3)))
    assert not last_map_is_pooled(feature, feature.amax(dim=(2, 3)))
