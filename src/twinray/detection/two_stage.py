"""Proposals and box head of Faster R-CNN (Ren et al. 2015), over all images of a batch at once.

Layers and their names are torchvision's. Proposals, matching, sampling and losses are torchvision's in value and gradient. What
differs is where time goes: nothing is done image by image, and no device is asked how many there are. Samples are drawn by random
keys, torchvision's by random permutations. The box head reads pooled maps in the order in which RoIAlign wrote them.

Shapes: b batch, a anchors of all levels, n proposals and m true boxes an image, s sampled an image, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from twinray.detection.batched.coding import clip, decode, encode, large, rows
from twinray.detection.batched.matching import BELOW, BETWEEN, match, sample
from twinray.detection.batched.roi_align import MultiScaleRoIAlign
from twinray.detection.batched.suppression import suppress
from twinray.detection.pyramid import (
    POOLED_LEVELS,
    STRIDES,
    Anchors,
    Float32Predictor,
    Float32RPNHead,
)
from twinray.detection.targets import BoxTargets

POOLED_SIDE = 7
_BETA = 1 / 9
"""Where the loss of boxes turns from quadratic to linear, as in torchvision."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposed:
    """Proposals of a batch, as many rows for every image.

    Attributes:
        boxes: (b, n, 4) xyxy in input pixels, best first.
        valid: (b, n) whether the row is a proposal.
    """

    boxes: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the proposal head says of every anchor, float32.

    Attributes:
        logits: (b, a) of holding something.
        codes: (b, a, 4) the box, as seen from the anchor.
        counts: anchors of each level; their sum is a.
    """

    logits: Tensor
    codes: Tensor
    counts: tuple[int, ...]


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposal network; training and detection call what works on whole batches."""

    def outputs(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """``logits`` (b, a) and ``codes`` (b, a, 4) of every anchor, from the maps (b, c, h, w) of all levels."""
        logits, codes = self.head(list(maps))
        # channels are (anchor) and (anchor, coordinate); what comes out is rows, columns, anchors
        flat = [one.permute(0, 2, 3, 1).flatten(1) for one in logits]
        wide = [one.permute(0, 2, 3, 1).reshape(len(one), -1, 4) for one in codes]
        return {"logits": torch.cat(flat, dim=1), "codes": torch.cat(wide, dim=1)}

    def counts(self, maps: Sequence[Tensor]) -> tuple[int, ...]:
        """Anchors of each level."""
        at_place = self.anchor_generator.num_anchors_per_location()
        return tuple(n * one.shape[2] * one.shape[3] for n, one in zip(at_place, maps, strict=True))

    @torch.no_grad()
    def propose(self, found: Outputs, anchors: Tensor, size: tuple[int, int]) -> Proposed:
        """The best boxes of each image, without those that a better one of their level overlaps.

        Args:
            found: the head's outputs.
            anchors: (a, 4).
            size: (height, width) of the images.
        """
        first, best, places = 0, [], []
        for n in found.counts:
            score, place = found.logits.narrow(1, first, n).topk(
                min(self.pre_nms_top_n(), n), dim=1
            )
            best.append(score)
            places.append(place + first)
            first += n
        widths = [one.shape[1] for one in best]
        place, score = torch.cat(places, dim=1), torch.cat(best, dim=1)
        boxes = clip(decode(rows(found.codes, place), anchors[place]), size)
        valid = large(boxes, self.min_size)
        keep = _suppressed_by_level(boxes, valid, widths, self.nms_thresh)
        score = torch.where(keep, score, -torch.inf)
        score, order = score.topk(min(self.post_nms_top_n(), score.shape[1]), dim=1)
        return Proposed(rows(boxes, order), keep.gather(1, order))

    def losses(self, found: Outputs, anchors: Tensor, truth: BoxTargets) -> dict[str, Tensor]:
        """Losses of objectness and boxes on sampled anchors; draws from the global generator."""
        sampler = self.fg_bg_sampler
        matcher = self.proposal_matcher
        matched = match(
            anchors,
            truth,
            low=matcher.low_threshold,
            high=matcher.high_threshold,
            low_quality=matcher.allow_low_quality_matches,
        )
        labels = torch.where(matched >= 0, 1, torch.where(matched == BETWEEN, -1, 0))
        keys = torch.rand(labels.shape, device=labels.device)
        chosen = sample(labels, keys, sampler.batch_size_per_image, sampler.positive_fraction)
        n = chosen.taken.sum().clamp(min=1)
        true = rows(truth.boxes, matched.gather(1, chosen.place).clamp(min=0))
        boxes = _box_loss(
            rows(found.codes, chosen.place), encode(true, anchors[chosen.place]), chosen.positive
        )
        logits = found.logits.gather(1, chosen.place)
        each = F.binary_cross_entropy_with_logits(
            logits, chosen.positive.to(logits.dtype), reduction="none"
        )
        objectness = torch.where(chosen.taken, each, 0.0).sum() / n
        return {"loss_objectness": objectness, "loss_rpn_box_reg": boxes / n}


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Proposals that the box head learns from.

    Attributes:
        boxes: (b, s, 4) xyxy in input pixels.
        taken: (b, s) whether the row counts.
        labels: (b, s) int64: the class from 1, 0 for background.
        true: (b, s, 4) the true box of each where the label is above 0.
    """

    boxes: Tensor
    taken: Tensor
    labels: Tensor
    true: Tensor


class BoxHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's box head with its pooling and layers; training and detection call what works on whole batches."""

    def sampled(self, proposed: Proposed, truth: BoxTargets) -> Sampled:
        """Some of the proposals and of the true boxes of each image; draws from the global generator."""
        boxes = torch.cat([proposed.boxes, truth.boxes], dim=1)
        valid = torch.cat([proposed.valid, truth.present], dim=1)
        matcher, sampler = self.proposal_matcher, self.fg_bg_sampler
        matched = match(
            boxes,
            truth,
            low=matcher.low_threshold,
            high=matcher.high_threshold,
            low_quality=matcher.allow_low_quality_matches,
        )
        own = matched.clamp(min=0)
        # here the background enters: label 0
        labels = torch.where(matched >= 0, truth.labels.gather(1, own) + 1, 0)
        ignored = ~valid | ((matched != BELOW) & (matched < 0))
        keys = torch.rand(labels.shape, device=labels.device)
        chosen = sample(
            torch.where(ignored, -1, labels),
            keys,
            sampler.batch_size_per_image,
            sampler.positive_fraction,
        )
        return Sampled(
            rows(boxes, chosen.place),
            chosen.taken,
            torch.where(chosen.positive, labels.gather(1, chosen.place), 0),
            rows(truth.boxes, own.gather(1, chosen.place)),
        )

    def outputs(
        self, maps: Mapping[str, Tensor], boxes: Tensor, used: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Class logits (b, n, k + 1) and box codes (b, n, k + 1, 4) of boxes (b, n, 4); zeros where ``used`` (b, n) is not."""
        b, n = used.shape
        image = torch.arange(b, dtype=boxes.dtype, device=boxes.device).view(b, 1, 1)
        rois = torch.cat([image.expand(b, n, 1), boxes], dim=2).flatten(0, 1)
        # a processor computes what counts alone; asking another device how many that are would take longer
        some = used.flatten().nonzero().squeeze(1) if rois.device.type == "cpu" else None
        pooled = self.box_roi_pool.pool(maps, rois if some is None else rois[some])
        logits, codes = self.box_predictor(self.box_head(pooled))
        if some is not None and len(some) < b * n:
            logits = logits.new_zeros(b * n, logits.shape[1]).index_copy(0, some, logits)
            codes = codes.new_zeros(b * n, codes.shape[1]).index_copy(0, some, codes)
        return logits.view(b, n, -1), codes.view(b, n, -1, 4)

    def decoded(self, codes: Tensor, boxes: Tensor) -> Tensor:
        """The boxes (b, n, k + 1, 4) that codes of that shape mean on boxes (b, n, 4)."""
        return decode(codes, boxes.unsqueeze(2), self.box_coder.weights)

    def losses(self, maps: Mapping[str, Tensor], chosen: Sampled) -> dict[str, Tensor]:
        """Losses of classes and boxes on sampled proposals (Girshick 2015, Fast R-CNN)."""
        logits, codes = self.outputs(maps, chosen.boxes, chosen.taken)
        n = chosen.taken.sum().clamp(min=1)
        each = F.cross_entropy(logits.flatten(0, 1), chosen.labels.flatten(), reduction="none")
        classes = torch.where(chosen.taken.flatten(), each, 0.0).sum() / n
        own = chosen.labels[:, :, None, None].expand(-1, -1, 1, 4)
        boxes = _box_loss(
            codes.gather(2, own).squeeze(2),
            encode(chosen.true, chosen.boxes, self.box_coder.weights),
            chosen.labels > 0,
        )
        return {"loss_classifier": classes, "loss_box_reg": boxes / n}


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
    strides: Sequence[float],
    *,
    sampled: int,
    before_nms: tuple[int, int],
    after_nms: tuple[int, int],
) -> Proposals:
    """The proposal network of all levels of these strides; pairs are (training, evaluation)."""
    return Proposals(
        Anchors(scale, ratios, strides, measures=STRIDES),
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
    strides: Sequence[float],
    *,
    sampled: int,
    score_threshold: float,
    nms: float,
    per_image: int,
) -> BoxHeads:
    """RoIAlign on levels of these strides, the box head and its class and box layers.

    ``n_outputs`` counts the background.
    """
    return BoxHeads(
        MultiScaleRoIAlign(POOLED_LEVELS, strides[: len(POOLED_LEVELS)], POOLED_SIDE),
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


def _box_loss(codes: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    """Sum of the smooth L1 loss over the rows that count, (b, s, 4) each."""
    # a row that is no box may be wanted at infinity, which times zero is no number
    wanted = torch.where(counts.unsqueeze(-1), wanted, 0.0)
    each = F.smooth_l1_loss(codes, wanted, beta=_BETA, reduction="none")
    return torch.where(counts.unsqueeze(-1), each, 0.0).sum()


def _suppressed_by_level(
    boxes: Tensor, valid: Tensor, widths: Sequence[int], limit: float
) -> Tensor:
    """Which of the boxes (b, n, 4) stay, levels of ``widths`` boxes apart from each other: (b, n) bool.

    Overlaps are made for every pair of a group, so levels go side by side: a large one alone, small ones together.
    """
    lines: list[list[int]] = []
    for level, width in enumerate(widths):
        if lines and sum(widths[one] for one in lines[-1]) + width <= max(widths):
            lines[-1].append(level)
        else:
            lines.append([level])
    wide = max(widths)
    starts = [sum(widths[:level]) for level in range(len(widths))]
    spans = [(starts[line[0]], sum(widths[one] for one in line)) for line in lines]
    level_of = torch.cat(
        [
            torch.full((n,), level, dtype=torch.int32, device=boxes.device)
            for level, n in enumerate(widths)
        ]
    )
    stacked = (
        torch.cat([F.pad(boxes.narrow(1, at, n), (0, 0, 0, wide - n)) for at, n in spans]),
        torch.cat([F.pad(valid.narrow(1, at, n), (0, wide - n)) for at, n in spans]),
    )
    parts = torch.stack([F.pad(level_of.narrow(0, at, n), (0, wide - n)) for at, n in spans])
    keep = suppress(*stacked, limit, parts.repeat_interleave(len(boxes), dim=0))
    return torch.cat(
        [one[:, :n] for one, (_, n) in zip(torch.split(keep, len(boxes)), spans, strict=True)],
        dim=1,
    )
