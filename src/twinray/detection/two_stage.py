"""Proposals and box head of Faster R-CNN (Ren et al. 2015), from torchvision's components.

What differs is where time goes, never a value. Proposals of several images are suppressed on
several threads. The box head reads pooled maps in the order in which RoIAlign wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from twinray.detection.pyramid import (
    POOLED_LEVELS,
    STRIDES,
    Anchors,
    Float32Predictor,
    Float32RPNHead,
)
from twinray.detection.roi_align import MultiScaleRoIAlign

POOLED_SIDE = 7


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposal network; on a CPU its suppression, which is serial, runs one image a thread."""

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes and scores kept of each image.

        Args:
            proposals: (b, a, 4). objectness: b * a logits. image_shapes: b. num_anchors_per_level: summing to a.
        """
        keep = super().filter_proposals
        n, threads = len(proposals), torch.get_num_threads()
        if proposals.device.type != "cpu" or min(n, threads) < 2:
            boxes, scores = keep(proposals, objectness, image_shapes, num_anchors_per_level)
            return boxes, scores
        logits = objectness.detach().view(n, -1)

        def one(i: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():  # a thread starts with gradients on
                (box,), (score,) = keep(
                    proposals[i : i + 1],
                    logits[i : i + 1],
                    image_shapes[i : i + 1],
                    num_anchors_per_level,
                )
            return box, score

        found = list(_threads(threads).map(one, range(n)))
        return [box for box, _ in found], [score for _, score in found]


class BoxHead(TwoMLPHead):  # type: ignore[misc]
    """torchvision's two fully connected layers, without rewriting pooled maps that lie channels-last.

    Our RoIAlign writes (n, side, side, c). The first layer's weight has the order (n, c, side,
    side). Turning the maps into it costs a pass over all pooled values, forwards and backwards.
    Turning the weight costs far less.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pooled maps (n, c, s, s) to (n, width)."""
        n, channels, height, width = x.shape
        last = x.permute(0, 2, 3, 1)
        if n < self.fc6.out_features or not last.is_contiguous():
            hidden: Tensor = super().forward(x)
            return hidden
        weight = self.fc6.weight.view(-1, channels, height * width).transpose(1, 2).flatten(1)
        hidden = F.relu(F.linear(last.flatten(1), weight, self.fc6.bias))
        return F.relu(self.fc7(hidden))


def proposal_network(
    channels: int,
    scale: float,
    ratios: Sequence[float],
    *,
    sampled: int,
    before_nms: tuple[int, int],
    after_nms: tuple[int, int],
) -> Proposals:
    """The proposal network of all levels; pairs are (training, evaluation)."""
    return Proposals(
        Anchors(scale, ratios),
        Float32RPNHead(channels, len(ratios)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=sampled,
        positive_fraction=0.5,
        pre_nms_top_n={"training": before_nms[0], "testing": before_nms[1]},
        post_nms_top_n={"training": after_nms[0], "testing": after_nms[1]},
        nms_thresh=0.7,
    )


def box_heads(
    channels: int,
    width: int,
    n_outputs: int,
    *,
    sampled: int,
    score_threshold: float,
    nms: float,
    per_image: int,
) -> RoIHeads:
    """RoIAlign, the box head and its class and box layers; ``n_outputs`` counts the background."""
    return RoIHeads(
        MultiScaleRoIAlign(POOLED_LEVELS, STRIDES[: len(POOLED_LEVELS)], POOLED_SIDE),
        BoxHead(channels * POOLED_SIDE**2, width),
        Float32Predictor(width, n_outputs),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=sampled,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=score_threshold,
        nms_thresh=nms,
        detections_per_img=per_image,
    )


@lru_cache(maxsize=1)
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="twinray-proposals")
