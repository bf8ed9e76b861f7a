"""Exactness of the fast heat map: against really zeroing every channel and running what follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork, roi_align

from rerun_oracle import (
    ablation_cam_rerun,
    rerun_channel_scores,
    rescore_from_last_stage,
    rescore_from_level,
)
from twinray.explanation.ablation_cam import (
    ablation_cam_fpn,
    ablation_cam_last_stage,
    last_stage_channel_scores,
    pyramid_channel_scores,
)
from twinray.explanation.scoring import BoxScorer, FixedBox, footprint, render

SIZE = 64
CHANNELS = 64
STAGE_CHANNELS = (8, 16, 32, 64)
CLASSES = 3


def torchvision_pool(maps: Tensor, rois: Tensor, level: int) -> Tensor:
    return roi_align(maps, rois, (7, 7), spatial_scale=1 / (4 << level), sampling_ratio=2)


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Tensor], FeaturePyramidNetwork, BoxScorer]:
    """A small random detector's stages, a pyramid of few channels, and its box head."""
    torch.manual_seed(0)
    stages = {
        f"c{i + 2}": torch.randn(1, c, SIZE >> (i + 2), SIZE >> (i + 2)).relu()
        for i, c in enumerate(STAGE_CHANNELS)
    }
    fpn = FeaturePyramidNetwork(list(STAGE_CHANNELS), CHANNELS)
    fc6, fc7, last = nn.Linear(CHANNELS * 49, 64), nn.Linear(64, 64), nn.Linear(64, CLASSES + 1)
    for parameter in [*fpn.parameters(), *last.parameters()]:
        nn.init.normal_(parameter, std=0.2 if parameter.ndim < 3 else 0.05)  # biases too
    return (
        stages,
        fpn,
        BoxScorer(torchvision_pool, fc6, fc7, lambda hidden: last(hidden).softmax(1)[:, 1:]),
    )


@pytest.fixture(scope="module")
def boxes() -> list[FixedBox]:
    """Twenty boxes, five on each level, some up to the image's edges and beyond."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand(20, 2, generator=generator) * SIZE
    sides = torch.exp(torch.rand(20, 2, generator=generator) * 2.5 + 2)
    proposals = torch.cat([centre - sides / 2, centre + sides / 2], dim=1).clamp(-8, SIZE + 8)
    return [FixedBox(p, i % CLASSES, i % 4) for i, p in enumerate(proposals)]


@torch.no_grad()
def test_every_pyramid_channel_of_twenty_boxes_equals_the_rerun(parts, boxes) -> None:
    stages, fpn, scorer = parts
    pyramid = list(fpn(stages).values())
    scores, ablated = pyramid_channel_scores(pyramid, boxes, scorer)
    for box, score, fast in zip(boxes, scores, ablated, strict=True):
        rescore = rescore_from_level(box, scorer)
        slow = rerun_channel_scores(pyramid[box.level], rescore, 64)
        assert fast.shape == (CHANNELS,)
        assert (slow / score - 1).abs().max() > 1e-3  # something to be exact about
        torch.testing.assert_close(score, rescore(pyramid[box.level])[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=0)


@torch.no_grad()
def test_every_last_stage_channel_of_twenty_boxes_equals_the_rerun(parts, boxes) -> None:
    stages, fpn, scorer = parts
    pyramid = list(fpn(stages).values())
    for box in boxes:
        score, fast = last_stage_channel_scores(stages, fpn, pyramid[box.level], box, scorer)
        slow = rerun_channel_scores(
            stages["c5"], rescore_from_last_stage(stages, fpn, box, scorer), 32
        )
        assert fast.shape == (STAGE_CHANNELS[-1],)
        assert (slow / score - 1).abs().max() > 1e-4
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=0)


@torch.no_grad()
def test_sizes_that_do_not_halve_evenly_are_repeated_as_the_pyramid_does(parts) -> None:
    _, fpn, scorer = parts
    generator = torch.Generator().manual_seed(3)
    shapes = [(23, 25), (12, 13), (6, 7), (3, 4)]
    stages = {
        f"c{i}": torch.randn(1, c, *s, generator=generator)
        for i, (c, s) in enumerate(zip(STAGE_CHANNELS, shapes, strict=True))
    }
    pyramid = list(fpn(stages).values())
    for level in range(4):
        box = FixedBox(torch.tensor([3.0, 7, 71, 88]), 0, level)
        _, fast = last_stage_channel_scores(stages, fpn, pyramid[level], box, scorer)
        slow = rerun_channel_scores(
            stages["c3"], rescore_from_last_stage(stages, fpn, box, scorer), 32
        )
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=0)


def test_heat_maps_of_both_ways_agree_and_say_what_they_are(parts, boxes) -> None:
    stages, fpn, scorer = parts
    with torch.no_grad():
        pyramid = list(fpn(stages).values())
    chosen = boxes[:4]
    fast = ablation_cam_fpn(pyramid, chosen, scorer, (SIZE, SIZE))
    for box, heat in zip(chosen, fast, strict=True):
        seen = footprint(box, tuple(pyramid[box.level].shape[2:]), (SIZE, SIZE))
        rescore = rescore_from_level(box, scorer)
        slow = ablation_cam_rerun(pyramid[box.level], rescore, box, (SIZE, SIZE), "slow", seen=seen)
        assert heat.map.shape == (SIZE, SIZE)
        assert heat.map.dtype == np.float32
        assert heat.map.min() >= 0
        assert heat.map.max() in (0, 1)
        assert heat.level == box.level
        assert "fixed box" in heat.definition
        assert "zeroed channels" in heat.definition
        np.testing.assert_allclose(heat.weights, slow.weights, atol=1e-4)
        np.testing.assert_allclose(heat.map, slow.map, atol=0.02)
        assert heat.score == pytest.approx(slow.score, rel=1e-5)
    last = ablation_cam_last_stage(stages, fpn, chosen, scorer, (SIZE, SIZE))
    assert [heat.weights.shape for heat in last] == [(STAGE_CHANNELS[-1],)] * 4
    assert "last stage" in last[0].definition


def test_a_channel_that_carries_the_score_gets_the_weight_and_the_map() -> None:
    """A head that only looks at channel 2: its weight is the only one, its blob is the map."""
    feature = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    feature[0, 2] = 0
    feature[0, 2, 4:8, 4:8] = 5
    fc6, fc7 = nn.Linear(4 * 49, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        fc6.weight.view(4, 49).copy_(torch.tensor([0.0, 0, 1, 0])[:, None].expand(4, 49))
        fc7.weight.fill_(0.05)
    scorer = BoxScorer(torchvision_pool, fc6, fc7, lambda hidden: hidden.tanh())
    (heat,) = ablation_cam_fpn(
        [feature], [FixedBox(torch.tensor([8.0, 8, 40, 40]), 0, 0)], scorer, (64, 64)
    )
    np.testing.assert_allclose(heat.weights, [0, 0, 1, 0], atol=1e-6)
    rows, columns = np.where(heat.map > 0.5)
    assert 14 <= rows.min() <= 18
    assert 30 <= rows.max() <= 34
    assert (rows.min(), rows.max()) == (columns.min(), columns.max())


def test_no_boxes_give_no_maps(parts) -> None:
    stages, fpn, scorer = parts
    with torch.no_grad():
        assert ablation_cam_fpn(list(fpn(stages).values()), [], scorer, (SIZE, SIZE)) == []


def test_nothing_that_speaks_for_the_box_gives_an_empty_map() -> None:
    heat = render(torch.ones(2, 4, 4), torch.tensor([-1.0, 0.0]), (32, 32))
    assert heat.shape == (32, 32)
    assert not heat.any()


def test_a_pyramid_with_norm_layers_is_refused(parts, boxes) -> None:
    stages, _, scorer = parts
    normed = FeaturePyramidNetwork(list(STAGE_CHANNELS), CHANNELS, norm_layer=nn.BatchNorm2d).eval()
    with pytest.raises(ValueError, match="without norm"):
        ablation_cam_last_stage(stages, normed, boxes[:1], scorer, (SIZE, SIZE))


def test_scores_see_the_whole_head(parts, boxes) -> None:
    stages, fpn, scorer = parts
    with torch.no_grad():
        feature = fpn(stages)["c2"]
        box = FixedBox(boxes[0].proposal, 1, 0)
        pooled = torchvision_pool(feature, box.roi(), 0).flatten(1)
        expected = scorer.probabilities(F.relu(scorer.fc7(F.relu(scorer.fc6(pooled)))))[0, 1]
        assert pyramid_channel_scores([feature], [box], scorer)[0].item() == pytest.approx(
            float(expected), rel=1e-6
        )


def test_the_footprint_is_the_share_of_each_cell_in_the_box() -> None:
    box = FixedBox(torch.tensor([10.0, 16, 28, 40]), 0, 0)
    seen = footprint(box, (4, 8), (64, 64))  # cells of 16 x 8 pixels
    rows, columns = torch.tensor([0.0, 1, 0.5, 0]), torch.tensor([0, 0.75, 1, 0.5, 0, 0, 0, 0])
    torch.testing.assert_close(seen, rows[:, None] * columns)
    wider = footprint(box, (4, 8), (64, 64), margin=4)
    torch.testing.assert_close(wider[:, 0] > 0, torch.tensor([True, True, True, False]))
    small = footprint(FixedBox(torch.tensor([1.0, 1, 3, 3]), 0, 0), (4, 4), (64, 64))
    assert small[0, 0] == small.sum() == 1
    outside = footprint(FixedBox(torch.tensor([-9.0, -9, -1, -1]), 0, 0), (4, 4), (64, 64))
    assert outside.sum() == 0


def test_the_footprint_is_what_dense_sampling_pools(boxes) -> None:
    """RoIAlign with many points a bin, of maps of one cell: the same shares, but for its blur over half a cell."""
    for box in boxes:
        side = SIZE >> (box.level + 2)
        if (box.proposal[2:] - box.proposal[:2]).min() < 3 * 4 << box.level:
            continue  # of few cells: the blur is most of it
        inner = FixedBox(box.proposal.clamp(0, SIZE), 0, box.level)
        cells = torch.eye(side * side).view(1, -1, side, side)
        dense = roi_align(
            cells, inner.roi(), (7, 7), 1 / (4 << box.level), sampling_ratio=16, aligned=True
        )
        share = dense[0].flatten(1).sum(dim=1).view(side, side)
        seen = footprint(inner, (side, side), (SIZE, SIZE))
        assert float((share / share.sum() - seen / seen.sum()).abs().sum()) < 0.5
        assert float(share[seen == 0].sum() / share.sum()) < 0.2


def test_nothing_is_drawn_where_the_box_has_not_looked(parts) -> None:
    stages, fpn, scorer = parts
    with torch.no_grad():
        pyramid = list(fpn(stages).values())
    box = FixedBox(torch.tensor([4.0, 4, 20, 20]), 0, 0)
    (heat,) = ablation_cam_fpn(pyramid, [box], scorer, (SIZE, SIZE))
    assert heat.map.max() == 1
    assert heat.map[32:].max() == heat.map[:, 32:].max() == 0
    (heat,) = ablation_cam_last_stage(stages, fpn, [box], scorer, (SIZE, SIZE))
    assert heat.map[48:].max() == heat.map[:, 48:].max() == 0
