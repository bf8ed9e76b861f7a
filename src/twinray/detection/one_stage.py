"""Detectors without proposals: RetinaNet (Lin et al. 2017, Focal Loss) and FCOS (Tian et al. 2019).

Heads, target assignment and losses are torchvision's; features and anchors are ours. The strides
are therefore true at every image size. Box arithmetic and losses are in float32 whatever the
precision of the convolutions. Labels count from 0 without a background: both score every class by a
sigmoid of its own.

Shapes: b batch, a anchors (FCOS: points) of all levels, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image

from twinray.detection.postprocess import Detection, Limits
from twinray.detection.pyramid import ONE_STAGE_STRIDES, Anchors

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
    """

    def __init__(
        self,
        kind: Literal["retinanet", "fcos"],
        channels: int,
        n_classes: int,
        anchor_scale: float,
        ratios: Sequence[float],
    ) -> None:
        place = (
            nn.Identity()
        )  # torchvision asks a backbone for its channels; the maps come from ours
        place.out_channels = channels  # type: ignore[assignment]
        self.network: RetinaNet | FCOS
        if kind == "retinanet":
            self.anchors = Anchors(anchor_scale, ratios, ONE_STAGE_STRIDES, OCTAVE_STEPS)
            shapes = AnchorGenerator(
                ((1,) * OCTAVE_STEPS,) * len(ONE_STAGE_STRIDES), (tuple(ratios),) * 5
            )
            self.network = RetinaNet(place, n_classes, anchor_generator=shapes)
        else:
            self.anchors = Anchors(anchor_scale, (1.0,), ONE_STAGE_STRIDES)
            self.network = FCOS(place, n_classes)
        self.head: nn.Module = self.network.head

    def losses(
        self, images: ImageList, maps: Sequence[Tensor], truth: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses to be summed, float32.

        Args:
            images: the batch.
            maps: p3..p7, (b, c, h, w) each.
            truth: per image ``boxes`` (n, 4) in input pixels and ``labels`` (n,) from 0; n may be 0.
        """
        outputs = self._outputs(maps)
        anchors = self.anchors(images, list(maps))
        with torch.autocast(maps[0].device.type, enabled=False):
            if isinstance(self.network, FCOS):
                losses = self.network.compute_loss(truth, outputs, anchors, self._per_level(maps))
            else:
                losses = self.network.compute_loss(truth, outputs, anchors)
        return {f"loss_{name}": value for name, value in losses.items()}

    def detections(
        self, images: ImageList, maps: Sequence[Tensor], limits: Limits, candidates: int
    ) -> list[Detection]:
        """Final boxes of each image, best first.

        Args:
            images: the batch.
            maps: p3..p7.
            limits: what survives.
            candidates: pairs of place and class that a level keeps before suppression.
        """
        outputs = self._outputs(maps)
        anchors = self.anchors(images, list(maps))[0]
        scores = outputs["cls_logits"].sigmoid()
        if "bbox_ctrness" in outputs:
            scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
        n_classes = scores.shape[2]
        counts = self._per_level(maps)
        first, kept, found = 0, [], []
        for n in counts:
            flat = scores[:, first : first + n].flatten(1)
            best, place = flat.topk(min(candidates, flat.shape[1]), dim=1)
            kept.append(best)
            found.append(place + first * n_classes)
            first += n
        best, place = torch.cat(kept, dim=1), torch.cat(found, dim=1)
        source, labels = place // n_classes, place % n_classes
        deltas = outputs["bbox_regression"].gather(1, source[:, :, None].expand(-1, -1, 4))
        boxes = clip_boxes_to_image(self._decode(deltas, anchors[source]), images.image_sizes[0])
        level = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(
            boxes.device
        )
        chosen = []
        for b, s, y, a in zip(boxes, best, labels, source, strict=True):
            above = s > limits.score
            b, s, y, a = b[above], s[above], y[above], a[above]
            last = batched_nms(b, s, y, limits.nms)[: limits.per_image]
            chosen.append(Detection(b[last], y[last], s[last], anchors[a[last]], level[a[last]]))
        return chosen

    def _outputs(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {name: value.float() for name, value in self.head(list(maps)).items()}

    def _per_level(self, maps: Sequence[Tensor]) -> list[int]:
        at_place = self.anchors.num_anchors_per_location()[0]
        return [m.shape[2] * m.shape[3] * at_place for m in maps]

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        if isinstance(self.network, FCOS):
            decoded: Tensor = self.network.box_coder.decode(deltas, anchors)
            return decoded
        flat: Tensor = self.network.box_coder.decode_single(
            deltas.reshape(-1, 4), anchors.reshape(-1, 4)
        )
        return flat.view_as(deltas)
