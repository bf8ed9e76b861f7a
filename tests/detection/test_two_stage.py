"""What was made faster in Faster R-CNN gives what torchvision's own parts give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList

from twinray.detection import two_stage
from twinray.detection.batched.coding import encode
from twinray.detection.batched.roi_align import MultiScaleRoIAlign
from twinray.detection.batched.suppression import by_rounds
from twinray.detection.targets import BoxTargets
from twinray.detection.two_stage import BoxHead, Outputs, Proposed, box_heads, proposal_network


def pooled(n: int, channels_last: bool) -> Tensor:
    x = torch.randn(n, 8, 7, 7, generator=torch.Generator().manual_seed(n))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("n", [0, 3, 40])
@pytest.mark.parametrize("channels_last", [False, True])
def test_box_head_equals_torchvisions_in_value_and_gradient(n: int, channels_last: bool) -> None:
    torch.manual_seed(0)
    ours = BoxHead(8 * 49, 16)
    theirs = TwoMLPHead(8 * 49, 16)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    results = []
    for head in (ours, theirs):
        x = pooled(n, channels_last).requires_grad_(True)
        hidden = head(x)
        hidden.square().sum().backward()
        assert x.grad is not None
        results.append([hidden.detach(), x.grad, *(p.grad for p in head.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_pool_writes_what_the_box_head_reads_without_a_copy() -> None:
    maps = {
        name: torch.randn(1, 8, 64 // s, 64 // s, requires_grad=True)
        for name, s in (("p2", 4), ("p3", 8))
    }
    pool = MultiScaleRoIAlign(tuple(maps), (4, 8), 7)
    found = pool(maps, [torch.tensor([[3.0, 3, 40, 50], [0, 0, 20, 20]])], [(64, 64)])
    assert found.shape == (2, 8, 7, 7)
    assert found.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("way", ["on threads", "one by one", "by rounds"])
@pytest.mark.parametrize("training", [False, True])
def test_proposals_equal_torchvisions(training: bool, way: str, monkeypatch) -> None:
    torch.manual_seed(0)
    network = proposal_network(
        8,
        4.0,
        (0.5, 1.0, 2.0),
        (4, 8, 16, 32, 64),
        sampled=16,
        before_nms=(60, 40),
        after_nms=(30, 20),
    )
    torch.nn.init.normal_(network.head.cls_logits.weight, std=0.5)
    torch.nn.init.normal_(network.head.bbox_pred.weight, std=0.1)
    network.train(training)
    maps = {str(s): torch.randn(3, 8, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)}
    image_list = ImageList(torch.zeros(3, 3, 64, 64), [(64, 64)] * 3)
    truth = [{"boxes": torch.tensor([[5.0, 5, 30, 30]])}] * 3
    if way == "by rounds":
        monkeypatch.setattr(two_stage, "suppress", by_rounds)
    levels = list(maps.values())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if way == "on threads" else 1)
        outputs = Outputs(**network.outputs(levels), counts=network.counts(levels))
        found = network.propose(outputs, network.anchor_generator.on(levels), (64, 64))
    finally:
        torch.set_num_threads(threads)
    expected, _ = network(image_list, maps, truth if training else None)
    assert not found.valid.all() or len(expected[0]) == found.valid.shape[1]
    for boxes, valid, theirs in zip(found.boxes, found.valid, expected, strict=True):
        n = int(valid.sum())
        assert bool(valid[:n].all())
        torch.testing.assert_close(boxes[:n], theirs, rtol=0, atol=1e-4)


def test_samples_of_the_box_head_are_torchvisions_but_for_the_draw() -> None:
    """Proposals, labels and what is regressed, where everything fits into the sample."""
    heads = box_heads(
        8, 16, 4, (4, 8, 16, 32), sampled=4000, score_threshold=0.1, nms=0.5, per_image=10
    )
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 40, 2, 2, generator=generator) * 64
    boxes = torch.cat([corners.amin(2), corners.amax(2)], dim=2)
    valid = torch.rand(3, 40, generator=generator) < 0.8
    truth = BoxTargets.from_lists(
        [torch.tensor([[5.0, 5, 40, 40], [10, 10, 60, 30]]), torch.zeros(0, 4), boxes[2, :1]],
        [torch.tensor([0, 2]), torch.zeros(0), torch.tensor([1])],
    )
    found = heads.sampled(Proposed(boxes, valid), truth)
    lists = [b[v] for b, v in zip(boxes, valid, strict=True)]
    known = [{"boxes": b, "labels": y + 1} for b, y in truth.per_image()]
    proposals, _, labels, goals = heads.select_training_samples(lists, known)
    mine = encode(found.true, found.boxes, heads.box_coder.weights)
    for i, (theirs, label, goal) in enumerate(zip(proposals, labels, goals, strict=True)):
        taken = found.taken[i]
        ours = torch.cat([found.boxes[i], found.labels[i][:, None]], dim=1)[taken]
        other = torch.cat([theirs, label[:, None]], dim=1)
        assert sorted(ours.tolist()) == sorted(other.tolist())
        positive = found.labels[i] > 0
        assert bool(positive.any()) == (i != 1)
        assert (
            sorted(mine[i][positive].tolist())
            == pytest.approx(sorted(goal[label > 0].tolist()), abs=1e-6)
            if i == 1
            else torch.allclose(
                mine[i][positive].sort(dim=0).values, goal[label > 0].sort(dim=0).values, atol=1e-6
            )
        )
