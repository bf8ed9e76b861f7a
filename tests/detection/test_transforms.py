"""Batched image-and-box transforms: a bright rectangle must stay under its box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from twinray.backbones.pixels import MEAN, STD, Filter, network_input
from twinray.data.fit import fit_pixels
from twinray.detection.targets import BoxTargets
from twinray.detection.transforms import (
    TransformOptions,
    evaluation_batch,
    flip,
    photometric,
    resize_with_boxes,
    training_batch,
    without_degenerate,
    zoom,
)
from twinray.geometry import Fit, geometry

ALL = TransformOptions(scale=(0.6, 1.7), brightness=0.1, contrast=0.2)


def painted(boxes: list[list[float]], size: int) -> tuple[Tensor, BoxTargets]:
    """Black uint8 (b, size, size) images with one white rectangle each, and their boxes."""
    pixels = torch.zeros(len(boxes), size, size, dtype=torch.uint8)
    for image, (x1, y1, x2, y2) in zip(pixels, boxes, strict=True):
        image[int(y1) : int(y2), int(x1) : int(x2)] = 255
    return pixels, BoxTargets.from_lists(
        [torch.tensor([b]) for b in boxes], [torch.tensor([i % 3]) for i in range(len(boxes))]
    )


def extent(image: Tensor) -> Tensor:
    """xyxy of what is brighter than half in an (s, s) image."""
    rows, columns = torch.where(image > 0.5)
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


def unnormalised(images: Tensor) -> Tensor:
    return (images * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1))[:, 0]


@pytest.mark.parametrize("size", [64, 128, 96])
def test_boxes_stay_on_what_they_mark(size: int) -> None:
    boxes = [[10.0 + i, 20.0, 60.0, 50.0 + i] for i in range(24)]
    pixels, targets = painted(boxes, 128)
    generator = torch.Generator().manual_seed(0)
    images, moved = training_batch(
        pixels, targets, size, TransformOptions(scale=(0.6, 1.7)), generator
    )
    assert images.shape == (24, 3, size, size)
    assert moved.present.sum() > 15
    for (found, _), image in zip(moved.per_image(), unnormalised(images), strict=True):
        for box in found:
            torch.testing.assert_close(extent(image), box, rtol=0, atol=1.6)


def test_flip_is_its_own_inverse_and_exact() -> None:
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    targets = BoxTargets.from_lists([torch.tensor([[1.0, 2, 5, 9]])] * 4, [torch.tensor([0])] * 4)
    which = torch.tensor([True, False, True, False])
    once, moved = flip(images, targets, which)
    twice, back = flip(once, moved, which)
    assert torch.equal(twice, images)
    assert torch.equal(back.boxes, targets.boxes)
    assert moved.boxes[0].tolist() == [[11, 2, 15, 9]]
    assert moved.boxes[1].tolist() == [[1, 2, 5, 9]]


def test_zoom_by_one_changes_nothing() -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = BoxTargets.from_lists([torch.tensor([[1.0, 2, 5, 9]])] * 3, [torch.tensor([0])] * 3)
    moved, boxes = zoom(images, targets, torch.ones(3), torch.rand(3, 2))
    torch.testing.assert_close(moved, images, rtol=0, atol=1e-5)
    torch.testing.assert_close(boxes.boxes, targets.boxes)


def test_boxes_that_leave_the_window_are_dropped() -> None:
    images = torch.rand(2, 1, 32, 32)
    targets = BoxTargets.from_lists(
        [torch.tensor([[0.0, 0, 8, 8], [20, 20, 30, 30]])] * 2, [torch.tensor([0, 1])] * 2
    )
    # Twice as large, image 0 shows its top left quarter and image 1 its bottom right one.
    _, moved = zoom(images, targets, torch.full((2,), 2.0), torch.tensor([[0.0, 0], [1, 1]]))
    (first, label), (second, other) = moved.per_image()
    assert (label.tolist(), other.tolist()) == ([0], [1])
    assert (first.tolist(), second.tolist()) == ([[0, 0, 16, 16]], [[8, 8, 28, 28]])


def test_images_without_boxes_and_degenerate_boxes() -> None:
    pixels = torch.zeros(3, 64, 64, dtype=torch.uint8)
    boxes = [
        torch.zeros(0, 4),
        torch.tensor([[5.0, 5, 5.2, 40], [5, 5, 40, 40]]),
        torch.zeros(0, 4),
    ]
    targets = BoxTargets.from_lists(boxes, [torch.zeros(0), torch.tensor([0, 1]), torch.zeros(0)])
    images, moved = training_batch(
        pixels, targets, 64, TransformOptions(flip=0.0), torch.Generator().manual_seed(0)
    )
    assert images.shape == (3, 3, 64, 64)
    assert [len(b) for b, _ in moved.per_image()] == [0, 1, 0]
    assert moved.per_image()[1][1].tolist() == [1]
    assert without_degenerate(moved).present.sum() == 1


def test_same_seed_same_bytes_and_another_seed_other_bytes() -> None:
    pixels, targets = painted([[10.0, 10, 40, 40]] * 4, 64)
    runs = [
        training_batch(pixels, targets, 64, ALL, torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1].boxes, runs[1][1].boxes)
    assert not torch.equal(runs[0][0], runs[2][0])


def test_switching_one_operation_off_does_not_change_the_other_draws() -> None:
    pixels, targets = painted([[10.0, 10, 40, 40]] * 8, 64)
    full = training_batch(pixels, targets, 64, ALL, torch.Generator().manual_seed(1))[1]
    plain = training_batch(
        pixels, targets, 64, TransformOptions(scale=ALL.scale), torch.Generator().manual_seed(1)
    )[1]
    assert torch.equal(full.boxes, plain.boxes)


def test_photometric_keeps_the_range_and_neutral_values_change_nothing() -> None:
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    one = torch.ones(5)
    torch.testing.assert_close(photometric(images, one * 0, one), images)
    changed = photometric(images, one * 0.5, one * 1.8)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_resize_scales_boxes_and_evaluation_draws_nothing() -> None:
    pixels, targets = painted([[16.0, 32, 64, 96]], 128)
    _, moved = resize_with_boxes(pixels[:, None].float(), targets, 32, "bicubic")
    assert moved.boxes.tolist() == [[[4, 8, 16, 24]]]
    first, second = evaluation_batch(pixels, 64, "bicubic"), evaluation_batch(pixels, 64, "bicubic")
    assert torch.equal(first, second)
    assert first.shape == (1, 3, 64, 64)
    rgb = pixels[..., None].expand(-1, -1, -1, 3)
    torch.testing.assert_close(evaluation_batch(rgb, 64, "bicubic"), first)


@pytest.mark.parametrize(
    ("how", "pillow"),
    [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)],
)
def test_detectors_see_what_pillow_resamples_and_other_stages_see_the_same(
    how: Filter, pillow: int
) -> None:
    rng = np.random.default_rng(0)
    packed = rng.integers(
        90, 160, (2, 100, 100), dtype=np.uint8
    )  # no overshoot, which Pillow cuts after each axis
    seen = unnormalised(evaluation_batch(torch.from_numpy(packed), 64, how))
    theirs = np.stack([np.asarray(Image.fromarray(one).resize((64, 64), pillow)) for one in packed])
    np.testing.assert_allclose(
        seen.numpy() * 255, theirs, atol=1.01
    )  # Pillow rounds to whole grey levels, twice
    if how == "bicubic":
        torch.testing.assert_close(
            evaluation_batch(torch.from_numpy(packed), 64, how),
            network_input(torch.from_numpy(packed), 64, torch.device("cpu")).contiguous(),
        )


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(90, 300),
    height=st.integers(90, 300),
    fit=st.sampled_from(["squash", "letterbox"]),
    corner=st.tuples(st.floats(0.05, 0.5), st.floats(0.05, 0.5)),
    sides=st.tuples(st.floats(0.25, 0.45), st.floats(0.25, 0.45)),
    size=st.sampled_from([64, 96, 160]),
    mirrored=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_resizing_padding_and_flipping_keep_boxes_on_the_same_pixels(
    width: int,
    height: int,
    fit: Fit,
    corner: tuple[float, float],
    sides: tuple[float, float],
    size: int,
    mirrored: bool,
    seed: int,
) -> None:
    """From the original image through the pack to the network's input, with a random zoom, and the boxes back."""
    x1, y1 = int(corner[0] * width), int(corner[1] * height)
    x2, y2 = x1 + int(sides[0] * width), y1 + int(sides[1] * height)
    original = np.zeros((height, width), dtype=np.uint8)
    original[y1:y2, x1:x2] = 255
    place = geometry(width, height, 128, fit)
    scale = np.array([place.scale_x, place.scale_y] * 2)
    offset = np.array([place.offset_x, place.offset_y] * 2)
    box = np.array([[x1, y1, x2, y2]]) * scale + offset
    pixels = torch.tensor(fit_pixels(original, 128, fit))[None]
    targets = BoxTargets.from_lists([torch.from_numpy(box)], [torch.tensor([0])])
    options = TransformOptions(flip=float(mirrored), scale=(0.7, 1.0))
    images, moved = training_batch(
        pixels, targets, size, options, torch.Generator().manual_seed(seed)
    )
    torch.testing.assert_close(extent(unnormalised(images)[0]), moved.boxes[0, 0], rtol=0, atol=1.6)
    still = TransformOptions(flip=0.0)
    _, resized = training_batch(pixels, targets, size, still, torch.Generator().manual_seed(seed))
    back = (resized.boxes[0].double().numpy() * (128 / size) - offset) / scale
    np.testing.assert_allclose(back, [[x1, y1, x2, y2]], atol=1e-3)
