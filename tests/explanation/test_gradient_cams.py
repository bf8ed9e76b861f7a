"""Gradient maps against their formulas and against what they must single out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from twinray.explanation.gradient_cams import grad_cam_plus_plus, gradient_cam
from twinray.explanation.scoring import BoxScorer, FixedBox

METHODS = ("grad-cam", "grad-cam++", "eigen-cam", "eigen-cam-uncentred", "odam", "odam-smoothed")
BOX = FixedBox(torch.tensor([8.0, 8, 40, 40]), 0, 0)


def pool(maps: Tensor, rois: Tensor, level: int) -> Tensor:
    return roi_align(maps, rois, (7, 7), spatial_scale=1 / (4 << level), sampling_ratio=2)


def blob_and_head() -> tuple[Tensor, BoxScorer]:
    """Channel 2 holds a bright blob inside the box, and the head looks at that channel alone."""
    feature = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    feature[0, 2] = 0
    feature[0, 2, 4:8, 4:8] = 5
    fc6, fc7 = nn.Linear(4 * 49, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        fc6.weight.view(4, 49).copy_(torch.tensor([0.0, 0, 1, 0])[:, None].expand(4, 49))
        fc7.weight.fill_(0.005)
    return feature, BoxScorer(pool, fc6, fc7, lambda hidden: hidden.tanh())


@pytest.mark.parametrize("method", METHODS)
def test_the_channel_that_carries_the_score_makes_the_map(method: str) -> None:
    feature, scorer = blob_and_head()
    (heat,) = gradient_cam(method, [feature], [BOX], scorer, (64, 64))
    assert heat.map.shape == (64, 64)
    assert heat.map.max() == 1
    assert np.abs(heat.weights).argmax() == 2
    rows, columns = np.where(heat.map > 0.5)
    assert 13 <= rows.min() <= rows.max() <= 34
    assert 13 <= columns.min() <= columns.max() <= 34
    assert "fixed box" in heat.definition
    assert feature.grad is None


def test_odam_sums_to_the_first_order_change_of_a_linear_score() -> None:
    """For a score that is linear in the features, the raw map sums to the score itself."""
    feature, scorer = blob_and_head()
    linear = BoxScorer(pool, scorer.fc6, scorer.fc7, lambda hidden: hidden)
    leaf = feature.clone().requires_grad_(True)
    score = linear.score(leaf, BOX)[0]
    (gradient,) = torch.autograd.grad(score, leaf)
    assert float((gradient * feature).sum()) == pytest.approx(float(score.detach()), rel=1e-5)


def test_grad_cam_plus_plus_does_not_turn_on_rounding() -> None:
    """At a pole of equation 19 a change in the last bits may not move the map; with tiny gradients all shares are 1/2."""
    rng = torch.Generator().manual_seed(0)
    activation, gradient = (
        torch.randn(8, 12, 12, generator=rng),
        torch.randn(8, 12, 12, generator=rng) * 0.01,
    )
    activation[3] -= 1
    gradient[3, 5, 5] = -2 / activation[3].double().sum()
    raw, _ = grad_cam_plus_plus(activation, gradient)
    for sign in (-1, 1):
        moved, _ = grad_cam_plus_plus(activation, gradient * (1 + sign * 1e-6))
        assert float((moved - raw).abs().max()) < 1e-3 * float(raw.abs().max())
    small = gradient * 1e-20
    _, weights = grad_cam_plus_plus(activation, small)
    torch.testing.assert_close(
        weights * 1e20, gradient.clamp(min=0).sum(dim=(1, 2)) / 2, rtol=1e-4, atol=0
    )


def test_an_unknown_method_is_refused() -> None:
    feature, scorer = blob_and_head()
    with pytest.raises(ValueError, match="one of grad-cam"):
        gradient_cam("score-cam", [feature], [BOX], scorer, (64, 64))  # type: ignore[arg-type]


def test_smoothed_odam_of_a_large_box_is_smooth_and_stays_inside() -> None:
    """RoIAlign reads a few points of a large bin; the raw gradient is a lattice, the smoothed map is not."""
    feature = torch.ones(1, 4, 64, 64)
    _, scorer = blob_and_head()
    box = FixedBox(torch.tensor([32.0, 32, 224, 224]), 0, 0)
    (heat,) = gradient_cam("odam-smoothed", [feature], [box], scorer, (256, 256))
    assert heat.map[64:192, 64:192].min() > 0.5
    assert heat.map[:, :16].max() < 0.01
    leaf = feature.clone().requires_grad_(True)
    (raw,) = torch.autograd.grad(scorer.score(leaf, box)[0], leaf)
    inside = raw[0, 2, 16:48, 16:48]
    assert float((inside == 0).float().mean()) > 0.2
    (plain,) = gradient_cam("odam", [feature], [box], scorer, (256, 256))
    assert plain.map[64:192, 64:192].min() < 0.1


def test_odam_is_the_released_code() -> None:
    """``savefig_odam.py``: ReLU of the channels' sum of gradient times feature, resized, scaled by its extremes."""
    feature, scorer = random_head()
    leaf = feature.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(scorer.score(leaf, BOX)[0], leaf)
    theirs = torch.relu((gradient * leaf.detach()).sum(1))
    theirs = torch.nn.functional.interpolate(theirs[None], (64, 64), mode="bilinear")[0, 0]
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    (ours,) = gradient_cam("odam", [feature], [BOX], scorer, (64, 64))
    np.testing.assert_allclose(ours.map, theirs.numpy(), atol=1e-5)


def random_head() -> tuple[Tensor, BoxScorer]:
    torch.manual_seed(0)
    fc6, fc7, last = nn.Linear(6 * 49, 32), nn.Linear(32, 32), nn.Linear(32, 1)
    return torch.randn(1, 6, 16, 16), BoxScorer(pool, fc6, fc7, lambda hidden: last(hidden))


def test_eigen_cam_is_that_of_the_grad_cam_package() -> None:
    """Its projection, with the sign that the package's later function takes; its own sign is the library's luck."""
    from pytorch_grad_cam.utils.svd_on_activations import (
        get_2d_projection,
        get_2d_projection_with_sign_correction,
    )

    for seed in range(4):
        feature = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(seed)) + 1.0
        feature[0, 2, 4:8, 4:8] += 4
        _, scorer = random_head()
        (ours,) = gradient_cam("eigen-cam", [feature], [BOX], scorer, (16, 16))
        signed = get_2d_projection_with_sign_correction(feature.numpy())[0]
        np.testing.assert_allclose(ours.map, np.maximum(signed, 0) / signed.max(), atol=1e-4)
        free = get_2d_projection(feature.numpy())[0]
        np.testing.assert_allclose(np.abs(signed), np.abs(free), atol=1e-4)
        (uncentred,) = gradient_cam("eigen-cam-uncentred", [feature], [BOX], scorer, (16, 16))
        assert np.corrcoef(ours.map.ravel(), uncentred.map.ravel())[0, 1] < 0.999


@pytest.mark.parametrize(
    ("method", "name"), [("grad-cam", "GradCAM"), ("grad-cam++", "GradCAMPlusPlus")]
)
def test_maps_are_those_of_the_grad_cam_package(method: str, name: str) -> None:
    import pytorch_grad_cam as library

    torch.manual_seed(0)
    fc6, fc7, last = nn.Linear(6 * 49, 32), nn.Linear(32, 32), nn.Linear(32, 1)
    with torch.no_grad():
        for layer in (fc6, fc7, last):
            layer.weight.mul_(20)  # gradients well above the package's epsilon
    scorer = BoxScorer(pool, fc6, fc7, lambda hidden: last(hidden))

    class OneBox(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Conv2d(3, 6, 4, stride=4)

        def forward(self, images: Tensor) -> Tensor:
            return scorer.score(self.level(images), BOX)

    model, image = OneBox(), torch.randn(1, 3, 64, 64)
    cam = getattr(library, name)(model=model, target_layers=[model.level])
    theirs = cam(image, targets=[lambda score: score])[0]
    with torch.no_grad():
        feature = model.level(image)
    (ours,) = gradient_cam(method, [feature], [BOX], scorer, (64, 64))
    assert ours.map.max() == 1
    np.testing.assert_allclose(ours.map, theirs, atol=5e-3)
