"""Detectors without proposals: RetinaNet (Lin et al. 2017, Focal Loss) and FCOS (Tian et al. 2019).

Heads are torchvision's; features and anchors are ours. The strides are therefore true at every image
size. Target assignment and losses are torchvision's in value and gradient, over all images of a batch
at once. Box arithmetic and losses are in float32 whatever the precision of the convolutions. Labels
count from 0 without a background: both score every class by a sigmoid of its own.

Shapes: b batch, a anchors (FCOS: points) of all levels, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import sigmoid_focal_loss

from twinray.detection.batched.coding import clip, decode, encode, rows
from twinray.detection.batched.matching import BETWEEN, match
from twinray.detection.batched.roi_align import at_least_float32
from twinray.detection.batched.suppression import suppress
from twinray.detection.postprocess import Detections, Limits
from twinray.detection.pyramid import ONE_STAGE_STRIDES, Anchors
from twinray.detection.targets import BoxTargets

OCTAVE_STEPS = 3
"""RetinaNet's anchors of one shape at a place: 1, 2^(1/3) and 2^(2/3) times the smallest."""


@final
class OneStage:
    """What turns the maps p3..p7 into losses or boxes; its ``head`` holds the weights.

    Args:
        kind: name of one of the two.
        channels: channels of every map.
        n_classes: k.
        anchor_scale: side of the smallest square anchor in strides; for FCOS of a point's cell.
        ratios: height / width of RetinaNet's anchors.
        strides: strides of p3..p7, in input pixels.
    """

    def __init__(
        self,
        kind: Literal["retinanet", "fcos"],
        channels: int,
        n_classes: int,
        anchor_scale: float,
        ratios: Sequence[float],
        strides: Sequence[float] = ONE_STAGE_STRIDES,
    ) -> None:
        place = (
            nn.Identity()
        )  # torchvision asks a backbone for its channels; the maps come from ours
        place.out_channels = channels  # type: ignore[assignment]
        self.network: RetinaNet | FCOS
        if kind == "retinanet":
            self.anchors = Anchors(anchor_scale, ratios, strides, OCTAVE_STEPS, ONE_STAGE_STRIDES)
            shapes = AnchorGenerator(
                ((1,) * OCTAVE_STEPS,) * len(ONE_STAGE_STRIDES), (tuple(ratios),) * 5
            )
            self.network = RetinaNet(place, n_classes, anchor_generator=shapes)
        else:
            self.anchors = Anchors(anchor_scale, (1.0,), strides, measures=ONE_STAGE_STRIDES)
            self.network = FCOS(place, n_classes)
        self.head: nn.Module = self.network.head

    def outputs(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The head's outputs on the maps p3..p7, (b, c, h, w) each: (b, a, ...), float32 (float64 of float64)."""
        return {name: at_least_float32(value) for name, value in self.head(list(maps)).items()}

    def losses(
        self, outputs: Mapping[str, Tensor], maps: Sequence[Tensor], truth: BoxTargets
    ) -> dict[str, Tensor]:
        """The losses to be summed, float32.

        Args:
            outputs: the head's.
            maps: p3..p7, (b, c, h, w) each.
            truth: true boxes in input pixels.
        """
        anchors = self.anchors.on(maps)
        with torch.autocast(maps[0].device.type, enabled=False):
            if isinstance(self.network, FCOS):
                losses = self._fcos_losses(outputs, anchors, self._per_level(maps), truth)
            else:
                losses = self._retinanet_losses(outputs, anchors, truth)
        return {f"loss_{name}": value for name, value in losses.items()}

    def detections(
        self,
        outputs: Mapping[str, Tensor],
        maps: Sequence[Tensor],
        image_size: tuple[int, int],
        limits: Limits,
        candidates: int,
    ) -> Detections:
        """Final boxes of each image, best first.

        Args:
            outputs: the head's.
            maps: p3..p7.
            image_size: (height, width) of the images.
            limits: what survives.
            candidates: pairs of place and class that a level keeps before suppression.
        """
        anchors = self.anchors.on(maps)
        scores = outputs["cls_logits"].sigmoid()
        if "bbox_ctrness" in outputs:
            scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
        n_classes = scores.shape[2]
        first, kept, found, levels = 0, [], [], []
        for level, n in enumerate(self._per_level(maps)):
            flat = scores[:, first : first + n].flatten(1)
            best, place = flat.topk(min(candidates, flat.shape[1]), dim=1)
            kept.append(best)
            found.append(place + first * n_classes)
            levels.append(torch.full_like(place, level))
            first += n
        best, order = torch.cat(kept, dim=1).sort(dim=1, descending=True, stable=True)
        place, of_level = (torch.cat(one, dim=1).gather(1, order) for one in (found, levels))
        source, labels = place // n_classes, place % n_classes
        deltas = rows(outputs["bbox_regression"], source)
        boxes = clip(self._decode(deltas, anchors[source]), image_size)
        keep = suppress(boxes, best > limits.score, limits.nms, labels)
        best, last = torch.where(keep, best, -1.0).topk(min(limits.per_image, best.shape[1]), dim=1)
        return Detections(
            rows(boxes, last),
            labels.gather(1, last),
            best,
            anchors[source.gather(1, last)],
            of_level.gather(1, last),
            best >= 0,
        )

    def _retinanet_losses(
        self, outputs: Mapping[str, Tensor], anchors: Tensor, truth: BoxTargets
    ) -> dict[str, Tensor]:
        """Focal loss of all classes and L1 loss of the boxes, each image by its own number of positives."""
        rule = self.network.proposal_matcher
        matched = match(
            anchors,
            truth,
            low=rule.low_threshold,
            high=rule.high_threshold,
            low_quality=rule.allow_low_quality_matches,
        )
        positive, own = matched >= 0, matched.clamp(min=0)
        n = positive.sum(dim=1).clamp(min=1)
        classes = self._focal(outputs["cls_logits"], positive, truth.labels.gather(1, own))
        classes = torch.where((matched != BETWEEN).unsqueeze(2), classes, 0.0).sum(dim=(1, 2)) / n
        wanted = encode(rows(truth.boxes, own), anchors)
        wanted = torch.where(positive.unsqueeze(2), wanted, 0.0)
        boxes = (outputs["bbox_regression"] - wanted).abs()
        boxes = torch.where(positive.unsqueeze(2), boxes, 0.0).sum(dim=(1, 2)) / n
        return {"classification": classes.mean(), "bbox_regression": boxes.mean()}

    def _fcos_losses(
        self,
        outputs: Mapping[str, Tensor],
        points: Tensor,
        per_level: Sequence[int],
        truth: BoxTargets,
    ) -> dict[str, Tensor]:
        """Focal loss of all classes, GIoU loss of the boxes, and centredness, by the batch's number of positives."""
        matched = _points_in_boxes(points, per_level, truth, self.network.center_sampling_radius)
        positive, own = matched >= 0, matched.clamp(min=0)
        n = positive.sum().clamp(min=1)
        here = positive.unsqueeze(2)
        classes = self._focal(outputs["cls_logits"], positive, truth.labels.gather(1, own)).sum()
        # points of no box stand in with their own cell for both boxes: finite, and without a gradient
        cells = points.expand_as(outputs["bbox_regression"])
        wanted = torch.where(here, rows(truth.boxes, own), cells)
        boxes = torch.where(here, self._decode(outputs["bbox_regression"], points), cells)
        overlap = torch.where(positive, 1 - _generalised_iou(boxes, wanted), 0.0).sum()
        centre = (points[:, :2] + points[:, 2:]) / 2
        low, high = (centre - wanted[..., :2]), (wanted[..., 2:] - centre)
        ratio = torch.minimum(low, high) / torch.maximum(low, high)
        centred = torch.where(positive, ratio.prod(dim=2), 0.0).sqrt()
        centredness = F.binary_cross_entropy_with_logits(
            outputs["bbox_ctrness"].squeeze(2), centred, reduction="none"
        )
        centredness = torch.where(positive, centredness, 0.0).sum()
        return {
            "classification": classes / n,
            "bbox_regression": overlap / n,
            "bbox_ctrness": centredness / n,
        }

    @staticmethod
    def _focal(logits: Tensor, positive: Tensor, labels: Tensor) -> Tensor:
        """Focal loss (b, a, k) of logits (b, a, k), of which ``labels`` (b, a) holds where ``positive``."""
        classes = torch.arange(logits.shape[2], device=logits.device)
        wanted = (positive.unsqueeze(2) & (labels.unsqueeze(2) == classes)).to(logits.dtype)
        loss: Tensor = sigmoid_focal_loss(logits, wanted, reduction="none")
        return loss

    def _per_level(self, maps: Sequence[Tensor]) -> list[int]:
        at_place = self.anchors.num_anchors_per_location()[0]
        return [m.shape[2] * m.shape[3] * at_place for m in maps]

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        if isinstance(self.network, FCOS):
            decoded: Tensor = self.network.box_coder.decode(deltas, anchors)
            return decoded
        return decode(deltas, anchors)


def _points_in_boxes(
    points: Tensor, per_level: Sequence[int], truth: BoxTargets, radius: float
) -> Tensor:
    """The row of the smallest true box that each point is responsible for, or -1: (b, a) int64.

    A point's box holds it near its own centre, and its size suits the point's level (Tian et al. 2019, section 3.2).

    Args:
        points: (a, 4) cells, as large as the strides.
        per_level: points of each level.
        truth: true boxes.
        radius: largest distance from the box's centre, in strides.
    """
    boxes = truth.boxes.unsqueeze(1)  # (b, 1, m, 4)
    centre = ((points[:, :2] + points[:, 2:]) / 2).view(1, -1, 1, 2)
    size = (points[:, 2] - points[:, 0]).view(1, -1, 1)
    near = (centre - (boxes[..., :2] + boxes[..., 2:]) / 2).abs().amax(dim=3) < radius * size
    sides = torch.cat([centre - boxes[..., :2], boxes[..., 2:] - centre], dim=3)
    reach = sides.amax(dim=3)
    least, most = size * 4, size * 8
    least = torch.cat([torch.zeros_like(least[:, : per_level[0]]), least[:, per_level[0] :]], dim=1)
    last = least.shape[1] - per_level[-1]
    most = torch.cat([most[:, :last], torch.full_like(most[:, last:], torch.inf)], dim=1)
    holds = near & (sides.amin(dim=3) > 0) & (reach > least) & (reach < most)
    holds &= truth.present.unsqueeze(1)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    value, own = (holds.to(torch.float32) * (1e8 - area)).max(dim=2)
    return torch.where(value < 1e-5, -1, own)


def _generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al. 2019) of (..., 4) boxes with (..., 4) others: (...,).

    As in torchvision's loss, which picks out the boxes that meet and so asks the device how many do.
    """
    tiny = 1e-7
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    meet = (sides > 0).all(dim=-1)
    shared = torch.where(meet, sides.prod(dim=-1), 0.0)
    area_a, area_b = ((one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (a, b))
    union = area_a + area_b - shared
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull = around.prod(dim=-1)
    return shared / (union + tiny) - (hull - union) / (hull + tiny)
