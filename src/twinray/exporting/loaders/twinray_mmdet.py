"""What torchvision does otherwise than MMDetection, as types that MMDetection's configurations name.

The weights learned under torchvision's rules. Under MMDetection's own types they load and run too, and give other boxes where the two
differ; each type below says where.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.models.dense_heads import FCOSHead, RPNHead
from mmdet.models.detectors import FCOS, FasterRCNN, RetinaNet
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures.bbox import scale_boxes
from mmengine.structures import InstanceData
from twinray_square import Place, fit

LARGEST_LOG = math.log(1000 / 16)
SMALLEST = 1e-2


@TRANSFORMS.register_module()
class TwinraySquare(BaseTransform):
    """An image as the run's pack held it, at the network's side.

    MMDetection's Resize has OpenCV's filter, which looks at few pixels of a large image, and its Pad adds at the right and below.

    Args:
        size: side of the network's input.
        pack: side of the pack's square, way into it and channels (``twinray_square.py``).
        resize: filter from the pack's side to the network's.
    """

    def __init__(self, size: int, pack: dict, resize: str) -> None:
        self.size, self.pack, self.resize = size, dict(pack), resize

    def transform(self, results: dict) -> dict:
        """``img`` (h, w) or (h, w, 3), blue first, uint8 or floating point numbers in 0..255 -> (s, s, 3) of the same range."""
        image = results["img"]
        if image.ndim == 3:
            image = image[..., 0] if image.shape[2] == 1 else image[..., ::-1]
        if image.dtype != np.uint8:
            if image.dtype.kind != "f":
                raise ValueError(
                    f"expected uint8 or floating point numbers in 0..255, got {image.dtype}"
                )
            image = image.astype(np.float32) / np.float32(255)
        square, place = fit(image, self.pack)
        if square.ndim == 2:
            square = square[..., None]
        unit = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None]
        unit = unit.float() / 255 if square.dtype == np.uint8 else unit.clamp(0, 1)
        if unit.shape[-1] != self.size:
            side = (self.size, self.size)
            unit = F.interpolate(unit, side, mode=self.resize, antialias=True, align_corners=False)
            unit = unit.clamp(0, 1)
        red_first = (unit * 255).expand(-1, 3, -1, -1)[0]
        results["img"] = red_first.flip(0).permute(1, 2, 0).contiguous().numpy()
        results["img_shape"] = (self.size, self.size)
        grown = self.size / place.side
        results["scale_factor"] = tuple(grown * one for one in place.scale)
        results["place"] = tuple(place)
        return results


class _BackToImages:
    """Boxes in pixels of the image: MMDetection knows its scale, but no picture in the middle of its square."""

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        """As MMDetection's."""
        found = super().predict(batch_inputs, batch_data_samples, rescale=rescale)
        for one in found if rescale else ():
            place = one.get("place")
            if place is None:  # of another pipeline, which scales alone
                continue
            (height, width), _, scale, corner = Place(*place)
            boxes = one.pred_instances.bboxes
            boxes = boxes - boxes.new_tensor(
                [a / b for a, b in zip(corner, scale, strict=True)] * 2
            )
            one.pred_instances.bboxes = boxes.clamp(min=0).minimum(
                boxes.new_tensor([width, height] * 2)
            )
        return found


@MODELS.register_module()
class TwinrayFasterRCNN(_BackToImages, FasterRCNN):
    """Faster R-CNN whose boxes come back from :class:`TwinraySquare`."""


@MODELS.register_module()
class TwinrayRetinaNet(_BackToImages, RetinaNet):
    """RetinaNet, the same."""


@MODELS.register_module()
class TwinrayFCOS(_BackToImages, FCOS):
    """FCOS, the same."""


@TASK_UTILS.register_module()
class TwinrayBoxCoder(DeltaXYWHBBoxCoder):
    """Boxes grow 62.5 times at most and shrink without an end.

    MMDetection's coder ends both at 62.5.
    """

    def decode(self, bboxes, pred_bboxes, max_shape=None, wh_ratio_clip=None):
        """As MMDetection's, without the lower end."""
        boxes, n = bboxes, len(bboxes)
        shift, growth = (
            pred_bboxes.view(-1, 4) * pred_bboxes.new_tensor(self.stds)
            + pred_bboxes.new_tensor(self.means)
        ).split(2, dim=1)
        boxes = boxes.repeat_interleave(pred_bboxes.shape[-1] // 4, dim=0)
        side = boxes[:, 2:] - boxes[:, :2]
        centre = shift * side + (boxes[:, :2] + 0.5 * side)
        reach = 0.5 * (growth.clamp(max=LARGEST_LOG).exp() * side)
        found = torch.cat([centre - reach, centre + reach], dim=1)
        if self.clip_border and max_shape is not None:
            found[:, 0::2].clamp_(0, max_shape[1])
            found[:, 1::2].clamp_(0, max_shape[0])
        return found.view(n, -1)


@MODELS.register_module()
class TwinrayRPNHead(RPNHead):
    """Proposals in the order of their logits.

    MMDetection orders them by sigmoids in float32. Logits of 10 that differ by 0.001 have one sigmoid there, so either proposal may
    suppress the other.
    """

    def _predict_by_feat_single(self, cls_score_list, *args, **kwargs):
        fine = [one.double() for one in cls_score_list]
        return super()._predict_by_feat_single(fine, *args, **kwargs)

    def _bbox_post_process(self, results, *args, **kwargs):
        # MMCV's suppression takes float32 alone, which holds places in the order exactly
        n = len(results)
        order = results.scores.argsort(descending=True, stable=True)
        results.sigmoids = results.scores.float()
        place = torch.arange(n, device=order.device, dtype=torch.float32)
        results.scores = torch.empty_like(place).index_copy_(0, order, 1 - place / max(n, 1))
        found = super()._bbox_post_process(results, *args, **kwargs)
        if "sigmoids" in found:
            found.scores = found.pop("sigmoids")
        return found


@MODELS.register_module()
class TwinrayBBoxHead(Shared2FCBBoxHead):
    """No box whose side is below 0.01 pixels, as those that lie beyond the border are after they were cut.

    MMDetection keeps them.
    """

    def _predict_by_feat_single(
        self, roi, cls_score, bbox_pred, img_meta, rescale=False, rcnn_test_cfg=None
    ):
        if rcnn_test_cfg is None or not len(roi):
            return super()._predict_by_feat_single(
                roi, cls_score, bbox_pred, img_meta, rescale, rcnn_test_cfg
            )
        found = super()._predict_by_feat_single(roi, cls_score, bbox_pred, img_meta)
        boxes, scores = found.bboxes.view(len(roi), -1, 4), found.scores.clone()
        small = (boxes[..., 2:] - boxes[..., :2] < SMALLEST).any(dim=-1)
        scores[:, :-1][small] = -1.0
        if rescale:
            boxes = scale_boxes(boxes.flatten(0, 1), [1 / one for one in img_meta["scale_factor"]])
        cfg = rcnn_test_cfg
        best, labels = multiclass_nms(
            boxes.reshape(len(roi), -1), scores, cfg.score_thr, cfg.nms, cfg.max_per_img
        )
        return InstanceData(bboxes=best[:, :4], scores=best[:, 4], labels=labels)


@MODELS.register_module()
class TwinrayFCOSHead(FCOSHead):
    """Points on the corners of cells, scores as geometric means.

    MMDetection's head has points half a stride further and drops boxes by their class score alone.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.prior_generator = MlvlPointGenerator(self.strides, offset=0.0)

    def predict_by_feat(self, cls_scores, bbox_preds, score_factors=None, **kwargs):
        """As MMDetection's, with sqrt(class x centredness) as the score."""
        logits = []
        for one, centred in zip(cls_scores, score_factors, strict=True):
            score = (one.sigmoid() * centred.sigmoid()).sqrt()
            logits.append(torch.logit(score.double()).to(one.dtype))
        return super().predict_by_feat(logits, bbox_preds, score_factors=None, **kwargs)
