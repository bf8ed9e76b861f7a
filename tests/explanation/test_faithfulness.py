"""Measures of a map: what they must be where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import roi_align

from twinray.explanation.faithfulness import (
    box_floor,
    energy_inside,
    gaussian_floor,
    is_empty,
    pointing_hit,
    removal_curves,
    removal_ranks,
    removal_shares,
    versions_scorer,
)
from twinray.explanation.scoring import BoxScorer, FixedBox

BOX = np.array([8.0, 10, 24, 40])


def test_the_peak_decides_and_equal_peaks_share() -> None:
    heat = np.zeros((48, 32))
    assert pointing_hit(heat, BOX) == 0  # points nowhere
    heat[20, 12] = 1
    assert pointing_hit(heat, BOX) == 1
    heat[2, 2] = 1
    assert pointing_hit(heat, BOX) == 0.5
    heat[2, 2] = 2
    assert pointing_hit(heat, BOX) == 0


def test_a_pixel_is_inside_by_its_centre() -> None:
    heat = np.zeros((4, 4))
    heat[1, 1] = 1
    assert pointing_hit(heat, np.array([1.5, 1.5, 3, 3])) == 1
    assert pointing_hit(heat, np.array([1.6, 1, 3, 3])) == 0


@given(st.floats(0, 31), st.floats(0, 47), st.integers(0, 2**32 - 1))
def test_energy_of_four_quarters_is_all(x: float, y: float, seed: int) -> None:
    heat = np.random.default_rng(seed).random((48, 32))
    quarters = [(0, 0, x, y), (x, 0, 32, y), (0, y, x, 48), (x, y, 32, 48)]
    parts = [energy_inside(heat, np.array(quarter, dtype=float)) for quarter in quarters]
    assert sum(parts) == pytest.approx(1)
    assert all(0 <= part <= 1 for part in parts)


def test_floors_lie_in_their_box() -> None:
    odd = np.array([8.3, 10.6, 24.2, 40.9])
    filled, bell = box_floor(odd, (48, 32)), gaussian_floor(odd, (48, 32))
    assert filled.sum() == pytest.approx((24.2 - 8.3) * (40.9 - 10.6), rel=1e-5)
    whole = np.array([8.0, 10, 25, 41])
    assert energy_inside(filled, whole) == pytest.approx(1)
    assert energy_inside(bell, odd) == pytest.approx(
        0.9545**2, abs=0.01
    )  # two standard deviations either way
    assert pointing_hit(filled, whole) == pointing_hit(bell, odd) == 1
    assert bell.min() > 0 or bell[0, -1] >= 0
    assert energy_inside(np.zeros((48, 32)), odd) == 0


def test_ranks_are_an_order_with_the_strongest_first_and_ties_drawn() -> None:
    heat = np.random.default_rng(0).random((48, 32)).round(1)
    ranks = removal_ranks(heat, 3)
    assert sorted(ranks.ravel().tolist()) == list(range(heat.size))
    by_rank = heat.ravel()[np.argsort(ranks.ravel())]
    assert (np.diff(by_rank) <= 0).all()
    np.testing.assert_array_equal(ranks, removal_ranks(heat, 3))
    flat = np.zeros((48, 32))
    first = removal_ranks(flat, 0) < flat.size // 2
    assert 0.3 < first[:24].mean() < 0.7  # not the upper half
    assert (first[:3, :2] == first[0, 0]).all()  # block by block, not dot by dot
    assert not np.array_equal(removal_ranks(flat, 0), removal_ranks(flat, 1))


def mean_inside(versions: Tensor, boxes: list[np.ndarray]) -> Tensor:
    """A detector that sees how bright the box is, and nothing else."""
    values = []
    for version, box in zip(versions, boxes, strict=True):
        x1, y1, x2, y2 = (int(v) for v in box)
        values.append(version[:, y1:y2, x1:x2].mean())
    return torch.stack(values)


def test_curves_start_and_end_where_they_must_and_good_maps_win() -> None:
    image = torch.zeros(3, 48, 32)
    image[:, 10:40, 8:24] = 1
    heats = [box_floor(BOX, (48, 32)), 1 - box_floor(BOX, (48, 32)), np.zeros((48, 32), np.float32)]
    curves = removal_curves(image, heats, [BOX] * 3, mean_inside, points=9, batch_size=5)
    np.testing.assert_allclose(curves.shares, removal_shares(9))
    assert curves.shares[0] == 0 and curves.shares[-1] == 1
    np.testing.assert_allclose(curves.deletion[:, 0], 1)
    np.testing.assert_allclose(curves.deletion[:, -1], 0)
    np.testing.assert_allclose(curves.insertion[:, -1], 1, rtol=1e-6)
    assert (
        np.ptp(curves.insertion[:, 0]) < 1e-6 and 0 < curves.insertion[0, 0] < 1
    )  # the blurred image
    deletion, insertion = curves.areas().T
    assert deletion[0] < deletion[2] < deletion[1]
    assert insertion[0] > insertion[2] > insertion[1]
    versions = 0

    def counted(images: Tensor, boxes: list[np.ndarray]) -> Tensor:
        nonlocal versions
        versions += len(images)
        return mean_inside(images, boxes)

    again = removal_curves(image, heats, [BOX] * 3, counted, points=9, batch_size=64)
    assert versions == 3 * 2 * 7 + 3  # the ends are alike for all maps of a box
    np.testing.assert_array_equal(curves.deletion, again.deletion)
    np.testing.assert_array_equal(curves.insertion, again.insertion)
    with pytest.raises(ValueError, match="2 points"):
        removal_curves(image, heats, [BOX] * 3, mean_inside, points=1)
    with pytest.raises(ValueError, match="box for each map"):
        removal_curves(image, heats, [BOX], mean_inside)


def test_scores_of_versions_are_those_of_each_alone() -> None:
    torch.manual_seed(0)

    def pool(maps: Tensor, rois: Tensor, level: int) -> Tensor:
        return roi_align(maps, rois, (7, 7), spatial_scale=1 / (4 << level), sampling_ratio=2)

    convolutions = [nn.Conv2d(3, 4, 4 << level, stride=4 << level) for level in range(2)]
    last = nn.Linear(16, 3)
    scorer = BoxScorer(
        pool,
        nn.Linear(4 * 49, 16),
        nn.Linear(16, 16),
        lambda hidden: last(hidden).softmax(1)[:, 1:],
    )
    score = versions_scorer(lambda images: [c(images) for c in convolutions], scorer)
    versions = torch.randn(5, 3, 64, 64)
    boxes = [
        FixedBox(torch.tensor([4.0 + i, 6, 40 + 3 * i, 50]), i % 2, (i + 1) % 2) for i in range(5)
    ]
    with torch.no_grad():
        together = score(versions, boxes)
        for i, box in enumerate(boxes):
            alone = scorer.score(convolutions[box.level](versions[i : i + 1]), box)[0]
            torch.testing.assert_close(together[i], alone)


def test_an_empty_map_is_told_from_a_faint_one() -> None:
    heat = np.zeros((8, 8), np.float32)
    assert (is_empty(heat), pointing_hit(heat, BOX), energy_inside(heat, BOX)) == (1.0, 0.0, 0.0)
    heat[3, 3] = 1e-6
    assert is_empty(heat) == 0.0


@pytest.mark.parametrize("points", [2, 3])
def test_few_points_have_ends_too(points: int) -> None:
    image = torch.zeros(3, 48, 32)
    image[:, 10:40, 8:24] = 1
    boxes = [BOX, BOX + 2.0]
    curves = removal_curves(
        image, [box_floor(box, (48, 32)) for box in boxes], boxes, mean_inside, points=points
    )
    for i, box in enumerate(boxes):
        assert (
            curves.deletion[i, 0]
            == curves.insertion[i, -1]
            == float(mean_inside(image[None], [box]))
        )
        assert curves.deletion[i, -1] == 0
