"""FCOS as torchvision has it, for MMDetection: points on the corners of cells, scores as geometric means.

MMDetection's own head puts points half a stride further and drops boxes by their class score alone.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.registry import MODELS


@MODELS.register_module()
class TwinrayFCOSHead(FCOSHead):
    """MMDetection's head with torchvision's points and scores."""

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
