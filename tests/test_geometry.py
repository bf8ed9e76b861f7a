"""Maps between an image, its pack's square and a network's input; intersection over union against the field's tools."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from twinray.geometry import Geometry, box_iou, corner_iou, geometry, to_frame, to_xywh

SIDES = st.integers(1, 3000)
PLACES = st.builds(
    geometry, SIDES, SIDES, st.integers(16, 1024), st.sampled_from(["squash", "letterbox"])
)


def boxes(rng: np.random.Generator, n: int, limit: float = 100.0) -> np.ndarray:
    corners = np.sort(rng.uniform(0, limit, (n, 2, 2)), axis=1)
    return np.concatenate([corners[:, 0], corners[:, 1]], axis=1)


@settings(max_examples=100, deadline=None)
@given(PLACES, st.integers(16, 1024), st.integers(0, 2**31))
def test_boxes_go_to_any_square_and_back(place: Geometry, side: int, seed: int) -> None:
    width, height = place.original
    xyxy = boxes(np.random.default_rng(seed), 5, 1.0) * np.array([width, height] * 2)
    np.testing.assert_allclose(
        place.to_original(place.to_square(xyxy)), xyxy, atol=1e-6 * max(width, height)
    )
    np.testing.assert_allclose(
        place.to_original(place.to_square(xyxy, side), side), xyxy, atol=1e-6 * max(width, height)
    )
    whole = place.to_square(np.array([[0, 0, width, height]], dtype=float), side)[0]
    np.testing.assert_allclose(whole, place.picture_at(side), atol=1e-9 * side)
    assert whole.min() >= 0
    assert whole.max() <= side * (1 + 1e-9)
    np.testing.assert_array_equal(place.to_square(xyxy, place.side), place.to_square(xyxy))


@settings(max_examples=100, deadline=None)
@given(PLACES)
def test_the_picture_fills_what_the_maps_say(place: Geometry) -> None:
    rows, columns = place.picture
    assert (columns.stop - columns.start, rows.stop - rows.start) == place.inner
    assert max(place.inner) == place.side
    assert (columns.start, rows.start) == (place.offset_x, place.offset_y)
    assert place.picture_at(place.side) == (columns.start, rows.start, columns.stop, rows.stop)


def test_boxes_are_cut_at_the_image_and_moved_between_copies() -> None:
    place = geometry(100, 50, 64, "letterbox")
    np.testing.assert_array_equal(place.clip(np.array([[-5.0, 3, 120, 60]])), [[0, 3, 100, 50]])
    np.testing.assert_array_equal(
        to_frame(np.array([[10.0, 20, 30, 40]]), (100, 200), (50, 50)), [[5, 5, 15, 10]]
    )


def test_overlaps_are_those_of_pycocotools_and_torchvision() -> None:
    rng = np.random.default_rng(0)
    first, second = boxes(rng, 60), boxes(rng, 80)
    ours = box_iou(to_xywh(first), to_xywh(second))
    np.testing.assert_array_equal(
        ours, mask.iou(to_xywh(first), to_xywh(second), np.zeros(80, dtype=np.uint8))
    )
    theirs = torchvision.ops.box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(corner_iou(first[:, None], second), theirs, rtol=1e-14)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_empty_and_touching_boxes_do_not_overlap() -> None:
    empty = np.zeros((1, 4))
    touching = np.array([[0.0, 0, 10, 10], [10, 0, 20, 10]])
    for overlap in (
        box_iou(empty, empty),
        corner_iou(empty, empty),
        corner_iou(touching[0], touching[1]),
    ):
        assert not np.any(overlap)
    assert box_iou(touching[:1], touching[:1]) == 1
