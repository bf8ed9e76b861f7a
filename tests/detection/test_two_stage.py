"""What was made faster in Faster R-CNN gives what torchvision's own parts give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from twinray.detection.roi_align import MultiScaleRoIAlign
from twinray.detection.two_stage import BoxHead, Proposals, proposal_network


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


@pytest.mark.parametrize("training", [False, True])
def test_proposals_on_several_threads_equal_torchvisions(training: bool) -> None:
    torch.manual_seed(0)
    network = proposal_network(
        8, 4.0, (0.5, 1.0, 2.0), sampled=16, before_nms=(60, 40), after_nms=(30, 20)
    )
    network.train(training)
    maps = {str(s): torch.randn(3, 8, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)}
    image_list = ImageList(torch.zeros(3, 3, 64, 64), [(64, 64)] * 3)
    truth = [
        {"boxes": torch.tensor([[5.0, 5, 30, 30]])},
        {"boxes": torch.zeros(0, 4)},
        {"boxes": torch.zeros(0, 4)},
    ]
    threads = torch.get_num_threads()
    results = []
    try:
        for n, kind in ((2, Proposals), (1, Proposals), (2, RegionProposalNetwork)):
            torch.set_num_threads(n)
            network.__class__ = kind
            torch.manual_seed(1)
            results.append(network(image_list, maps, truth if training else None))
    finally:
        torch.set_num_threads(threads)
    for boxes, losses in results[1:]:
        for a, b in zip(results[0][0], boxes, strict=True):
            assert torch.equal(a, b)
        assert losses.keys() == results[0][1].keys()
        for name, value in losses.items():
            torch.testing.assert_close(value, results[0][1][name])
