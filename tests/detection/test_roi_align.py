"""RoIAlign against torchvision's own operator, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign as TorchvisionPool
from torchvision.ops import roi_align as torchvision_roi_align

from twinray.detection.batched.roi_align import MultiScaleRoIAlign, pyramid_levels, roi_align


def random_rois(
    n: int, images: int, size: float, largest: float, generator: torch.Generator
) -> Tensor:
    """Boxes of all sizes from a fraction of a pixel up, their centres up to half a box outside the image."""
    centre = torch.rand(n, 2, generator=generator) * size
    sides = largest ** torch.rand(n, 2, generator=generator) * 0.3
    index = torch.randint(images, (n, 1), generator=generator).float()
    return torch.cat([index, centre - sides / 2, centre + sides / 2], dim=1)


def value_and_gradient(pool, feature: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    feature = feature.clone().requires_grad_(True)
    pooled = pool(feature)
    (gradient,) = torch.autograd.grad(pooled, feature, upstream)
    return pooled.detach(), gradient


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    stride=st.sampled_from([4, 8, 16, 32]),
    largest=st.sampled_from([3.0, 100.0, 3000.0]),
)
def test_value_and_gradient_equal_torchvision(
    seed: int, n: int, height: int, width: int, stride: int, largest: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, 5, height, width, generator=generator)
    rois = random_rois(n, 2, max(height, width) * stride, largest, generator)
    upstream = torch.randn(n, 5, 7, 7, generator=generator)
    ours = value_and_gradient(lambda f: roi_align(f, rois, 1 / stride), feature, upstream)
    theirs = value_and_gradient(
        lambda f: torchvision_roi_align(
            f, rois, (7, 7), spatial_scale=1 / stride, sampling_ratio=2
        ),
        feature,
        upstream,
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    scale = float(theirs[1].abs().max().clamp(min=1))
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5 * scale)


def test_a_box_outside_the_image_pools_zeros_and_the_border_is_clamped() -> None:
    feature = torch.ones(1, 3, 8, 8, requires_grad=True)
    outside = torch.tensor([[0.0, 400, 400, 500, 500]])
    half = torch.tensor(
        [[0.0, -3.5, -3.5, 32.5, 32.5]]
    )  # every sample within [-1, 8] feature pixels
    assert roi_align(feature, outside, 0.25).abs().max() == 0
    torch.testing.assert_close(roi_align(feature, half, 0.25), torch.ones(1, 3, 7, 7))


def test_same_bytes_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 16, 30, 30, generator=generator)
    rois = random_rois(200, 2, 120, 400, generator)
    upstream = torch.randn(200, 16, 7, 7, generator=generator)
    first = value_and_gradient(lambda f: roi_align(f, rois, 0.25), feature, upstream)
    second = value_and_gradient(lambda f: roi_align(f, rois, 0.25), feature, upstream)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_levels_together_equal_torchvisions_pool() -> None:
    generator = torch.Generator().manual_seed(1)
    names = ("p2", "p3", "p4", "p5")
    features = {
        name: torch.randn(2, 4, 1024 >> i, 1024 >> i, generator=generator, requires_grad=True)
        for name, i in zip(names, (2, 3, 4, 5), strict=True)
    }
    centre = torch.rand(60, 2, generator=generator) * 1024
    sides = torch.exp(torch.rand(60, 1, generator=generator) * 4 + 3)
    boxes = list(
        torch.cat([centre - sides / 2, centre + sides / 2], dim=1).clamp(0, 1024).split([40, 20])
    )
    shapes = [(1024, 1024)] * 2
    ours = MultiScaleRoIAlign(names, (4, 8, 16, 32))(features, boxes, shapes)
    theirs = TorchvisionPool(list(names), 7, 2)(features, boxes, shapes)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len(set(pyramid_levels(torch.cat(boxes), 4).tolist())) == 4
    upstream = torch.randn(ours.shape, generator=generator)
    for a, b in zip(
        torch.autograd.grad(ours, list(features.values()), upstream),
        torch.autograd.grad(theirs, list(features.values()), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_no_boxes_keep_the_graph() -> None:
    features = {"p2": torch.randn(2, 4, 8, 8, requires_grad=True)}
    pooled = MultiScaleRoIAlign(("p2",), (4,))(
        features, [torch.zeros(0, 4), torch.zeros(0, 4)], [(32, 32)] * 2
    )
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert features["p2"].grad is not None
    assert features["p2"].grad.abs().max() == 0


def test_float64_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    feature = torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 1, 24, 50, generator).double()
    assert torch.autograd.gradcheck(lambda f: roi_align(f, rois, 0.25, 2), feature)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_pooled_in_float32(dtype: torch.dtype) -> None:
    feature = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    pool = MultiScaleRoIAlign(("p2",), (4,))
    boxes = [torch.tensor([[3.3, 4.4, 40.0, 50.0]])]
    pooled = pool({"p2": feature}, boxes, [(64, 64)])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(
        pooled, pool({"p2": feature.float()}, boxes, [(64, 64)]), rtol=0, atol=0
    )
