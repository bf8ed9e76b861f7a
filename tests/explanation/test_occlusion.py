"""Occlusion of bins against a head that is really run on really zeroed bins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import roi_align

from twinray.explanation.occlusion import WINDOW, bin_occlusion, occluded_scores
from twinray.explanation.scoring import BoxScorer, FixedBox

SIZE, CHANNELS = 64, 6


def pool(maps: Tensor, rois: Tensor, level: int) -> Tensor:
    return roi_align(maps, rois, (7, 7), spatial_scale=1 / (4 << level), sampling_ratio=2)


def make_scorer(seed: int) -> BoxScorer:
    torch.manual_seed(seed)
    last = nn.Linear(16, 4)
    nn.init.normal_(last.weight, std=2.0)
    first = nn.Linear(CHANNELS * 49, 32)
    return BoxScorer(pool, first, nn.Linear(32, 16), lambda hidden: last(hidden).softmax(1)[:, 1:])


@pytest.mark.parametrize("window", [1, 3, 5])
@given(seed=st.integers(0, 1000))
@torch.no_grad()
def test_scores_are_those_of_really_zeroed_bins(window: int, seed: int) -> None:
    scorer = make_scorer(seed)
    several = torch.randn(2, CHANNELS, 7, 7)
    boxes = [FixedBox(torch.tensor([1.0, 2, 30, 40]), label, 0) for label in (seed % 2, 2)]
    scores, fast_scores = occluded_scores(several, boxes, scorer, window)
    which = seed // 2 % 2
    pooled, box, score = several[which : which + 1], boxes[which], scores[which]
    reach = window // 2
    for place, fast in enumerate(fast_scores[which]):
        row, column = divmod(place, 7)
        without = pooled.clone()
        without[
            :, :, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
        ] = 0
        really = scorer.from_fc6(scorer.fc6(without.flatten(1)), box.label)[0]
        torch.testing.assert_close(fast, really, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(score, scorer.from_fc6(scorer.fc6(pooled.flatten(1)), box.label)[0])


@torch.no_grad()
def test_the_map_shows_the_part_that_the_score_leans_on() -> None:
    """A head that counts what lies in the proposal's lower left, on features that are negative: signs do not matter."""
    first = nn.Linear(CHANNELS * 49, 8, bias=False)
    first.weight.zero_()
    first.weight.view(8, CHANNELS, 7, 7)[:, :, 5, 1] = -1
    second = nn.Linear(8, 8, bias=False)
    second.weight.copy_(torch.eye(8))
    scorer = BoxScorer(pool, first, second, lambda hidden: torch.sigmoid(hidden[:, :1] - 3))
    pyramid = [
        -torch.ones(1, CHANNELS, SIZE // (4 << level), SIZE // (4 << level)) for level in range(2)
    ]
    box = FixedBox(torch.tensor([8.0, 4, 50, 60]), 0, 0)
    (heat,) = bin_occlusion(pyramid, [box], scorer, (SIZE, SIZE))
    assert heat.map.shape == (SIZE, SIZE) and heat.map.dtype == np.float32
    assert heat.map.max() == 1 and heat.map.min() == 0
    rows, columns = np.nonzero(heat.map > 0.99)
    assert 4 + 56 * 4 / 7 < rows.mean() + 0.5 < 4 + 56 * 7 / 7
    assert 8 < columns.mean() + 0.5 < 8 + 42 * 3 / 7
    outside = heat.map.copy()
    outside[4:60, 8:50] = 0
    assert not outside.any()
    assert heat.weights.shape == (49,)
    drops = heat.weights.reshape(7, 7)
    reach = WINDOW // 2
    assert (drops[5 - reach : 7, 0 : 2 + reach] > 0).all()
    assert drops[0, 6] == 0


@torch.no_grad()
def test_boxes_of_several_levels_and_none() -> None:
    pyramid = [
        torch.randn(1, CHANNELS, SIZE // (4 << level), SIZE // (4 << level)) for level in range(2)
    ]
    scorer = make_scorer(1)
    boxes = [
        FixedBox(torch.tensor([8.0, 4, 50, 60]), 0, 0),
        FixedBox(torch.tensor([1.0, 2, 60, 40]), 2, 1),
    ]
    together = bin_occlusion(pyramid, boxes, scorer, (SIZE, SIZE))
    for box, heat in zip(boxes, together, strict=True):
        (alone,) = bin_occlusion(pyramid, [box], scorer, (SIZE, SIZE))
        np.testing.assert_allclose(heat.map, alone.map, atol=1e-5)
        assert heat.score == pytest.approx(float(scorer.score(pyramid[box.level], box)))
    assert bin_occlusion(pyramid, [], scorer, (SIZE, SIZE)) == []


@torch.no_grad()
def test_what_nothing_speaks_for_has_an_empty_map_and_proposals_may_leave_the_image() -> None:
    flat = BoxScorer(
        pool,
        nn.Linear(CHANNELS * 49, 4),
        nn.Linear(4, 4),
        lambda hidden: torch.full((len(hidden), 1), 0.5),
    )
    pyramid = [torch.randn(1, CHANNELS, 16, 16), torch.randn(1, CHANNELS, 8, 8)]
    boxes = [
        FixedBox(torch.tensor([-5.0, -5, 30, 80]), 0, 1),
        FixedBox(torch.tensor([10.0, 10, 10, 10]), 0, 0),
    ]
    for heat in bin_occlusion(pyramid, boxes, flat, (SIZE, SIZE)):
        assert not heat.map.any() and heat.score == 0.5
    for heat in bin_occlusion(pyramid, boxes, make_scorer(0), (SIZE, SIZE)):
        assert np.isfinite(heat.map).all() and 0 <= heat.map.min() <= heat.map.max() <= 1
