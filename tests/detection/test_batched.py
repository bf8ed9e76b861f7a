"""Box operations over whole batches, against torchvision's own for one image at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import (
    BalancedPositiveNegativeSampler,
    BoxCoder,
    Matcher,
)
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from twinray.detection.batched import matching, suppression
from twinray.detection.batched.coding import clip, decode, encode, large
from twinray.detection.batched.matching import match, pairwise_iou, sample
from twinray.detection.batched.suppression import by_rounds, suppress
from twinray.detection.targets import BoxTargets


def random_boxes(*shape: int, seed: int = 0, whole: bool = False) -> Tensor:
    """Boxes within 64 pixels; with whole corners many overlaps are equal."""
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(seed)) * 64
    corners = (corners / 8).round() * 8 if whole else corners
    return torch.cat([corners.amin(-2), corners.amax(-2) + 1], dim=-1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_codes_are_torchvisions(weights) -> None:
    boxes, anchors = random_boxes(3, 7), random_boxes(3, 7, seed=1)
    coder = BoxCoder(weights)
    codes = encode(boxes, anchors, weights)
    expected = coder.encode_single(boxes.view(-1, 4), anchors.view(-1, 4))
    torch.testing.assert_close(codes.view(-1, 4), expected, rtol=0, atol=0)
    wild = torch.randn(3, 7, 5, 4, generator=torch.Generator().manual_seed(2)) * 20
    ours = decode(wild, anchors.unsqueeze(2), weights)
    theirs = coder.decode_single(wild.view(21, -1), anchors.view(-1, 4)).view(3, 7, 5, 4)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(decode(codes, anchors, weights), boxes, rtol=1e-4, atol=1e-3)


def test_boxes_are_cut_at_the_edges() -> None:
    boxes = random_boxes(2, 9) * 3 - 40
    for size in ((64, 64), (30, 90)):
        assert torch.equal(clip(boxes, size), clip_boxes_to_image(boxes, size))
    sides = clip(boxes, (64, 64))
    assert torch.equal(large(sides, 1.0), ((sides[..., 2:] - sides[..., :2]).amin(dim=-1) >= 1.0))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    n=st.integers(1, 40),
    shared=st.booleans(),
    low_quality=st.booleans(),
    pieces=st.booleans(),
)
def test_matches_are_torchvisions(seed, counts, n, shared, low_quality, pieces) -> None:
    truth = BoxTargets.from_lists(
        [random_boxes(c, seed=seed + i, whole=True) for i, c in enumerate(counts)],
        [torch.zeros(c) for c in counts],
    )
    boxes = random_boxes(*([] if shared else [len(counts)]), n, seed=seed + 9, whole=True)
    before = matching._MOST_PAIRS
    try:
        matching._MOST_PAIRS = 1 if pieces else before
        found = match(boxes, truth, low=0.3, high=0.6, low_quality=low_quality)
    finally:
        matching._MOST_PAIRS = before
    rule = Matcher(0.6, 0.3, allow_low_quality_matches=low_quality)
    for i, (known, _) in enumerate(truth.per_image()):
        own = boxes if shared else boxes[i]
        overlap = box_iou(known, own)
        if len(known) == 0:
            assert (found[i] == matching.BELOW).all()
            continue
        ours = pairwise_iou(truth.boxes[i : i + 1], own.unsqueeze(0))[0, : len(known)]
        torch.testing.assert_close(ours, overlap, rtol=0, atol=0)
        assert torch.equal(found[i], rule(overlap))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    size=st.integers(1, 40),
    share=st.sampled_from([0.25, 0.5]),
    rare=st.floats(0, 1),
)
def test_as_many_are_sampled_as_torchvision_takes(seed, n, size, share, rare) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.where(
        torch.rand(3, n, generator=generator) < rare,
        torch.randint(1, 4, (3, n), generator=generator),
        torch.randint(-1, 1, (3, n), generator=generator),
    )
    chosen = sample(labels, torch.rand(3, n, generator=generator), size, share)
    positive, negative = BalancedPositiveNegativeSampler(size, share)(list(labels))
    for i in range(3):
        place = chosen.place[i][chosen.taken[i]]
        assert len(place.unique()) == len(place)
        taken = labels[i][place]
        assert (taken >= 1).sum() == positive[i].sum() == chosen.positive[i].sum()
        assert (taken == 0).sum() == negative[i].sum()
        assert not (taken < 0).any()


def test_every_candidate_is_drawn_equally_often() -> None:
    labels = torch.tensor([[1] * 6 + [0] * 14 + [-1] * 4]).repeat(20_000, 1)
    keys = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    chosen = sample(labels, keys, 8, 0.5)
    drawn = torch.bincount(chosen.place[chosen.taken], minlength=24) / len(labels)
    torch.testing.assert_close(drawn[:6], torch.full((6,), 4 / 6), rtol=0, atol=0.015)
    torch.testing.assert_close(drawn[6:20], torch.full((14,), 4 / 14), rtol=0, atol=0.015)
    assert not drawn[20:].any()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    groups=st.integers(1, 4),
    n=st.integers(1, 150),
    limit=st.sampled_from([0.1, 0.5, 0.7]),
    parts=st.booleans(),
    pieces=st.booleans(),
)
def test_suppression_is_torchvisions(seed, groups, n, limit, parts, pieces) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(groups, n, seed=seed, whole=n % 2 == 0)
    valid = torch.rand(groups, n, generator=generator) < 0.9
    part = torch.randint(3, (groups, n), generator=generator) if parts else None
    before = suppression._MOST_PAIRS
    try:
        suppression._MOST_PAIRS = 1 if pieces else before
        found = by_rounds(boxes, valid, limit, part)
    finally:
        suppression._MOST_PAIRS = before
    assert torch.equal(found, suppress(boxes, valid, limit, part))
    order = torch.arange(n, 0, -1.0)
    for i in range(groups):
        kept = set()
        for which in range(3 if parts else 1):
            at = torch.where(valid[i] & (part[i] == which if part is not None else True))[0]
            kept |= set(at[nms(boxes[i, at], order[at], limit)].tolist())
        assert set(torch.where(found[i])[0].tolist()) == kept


def test_a_long_chain_of_boxes_takes_as_many_rounds_as_it_needs() -> None:
    """Each box overlaps its neighbours alone: every second one stays, whatever the length."""
    start = torch.arange(200.0) * 4
    boxes = torch.stack([start, torch.zeros(200), start + 10, torch.full((200,), 10.0)], dim=1)[
        None
    ]
    valid = torch.ones(1, 200, dtype=torch.bool)
    assert 4 * suppression.ROUNDS < 200
    for way in (by_rounds, suppress):
        assert way(boxes, valid, 0.3)[0].nonzero().squeeze(1).tolist() == list(range(0, 200, 2))


def test_targets_are_padded_and_come_back() -> None:
    boxes = [random_boxes(2), torch.zeros(0, 4), random_boxes(3, seed=1)]
    labels = [torch.tensor([1, 0]), torch.zeros(0), torch.tensor([2, 2, 1])]
    targets = BoxTargets.from_lists(boxes, labels)
    assert targets.boxes.shape == (3, 3, 4) and targets.n_images == 3
    for (b, y), box, label in zip(targets.per_image(), boxes, labels, strict=True):
        assert torch.equal(b, box) and torch.equal(y, label.long())
    none = BoxTargets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2)
    assert none.boxes.shape == (2, 1, 4) and not none.present.any()
    with pytest.raises(ValueError, match="as many labels as boxes"):
        BoxTargets.from_lists(boxes, labels[::-1])
