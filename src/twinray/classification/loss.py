"""The loss of labels, of which some may not be known."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from twinray.records import Task


def label_loss(logits: Tensor, targets: Tensor, weights: Tensor, task: Task) -> Tensor:
    """Weighted sum of the single losses: cross-entropy over classes, or binary cross-entropy of each.

    With weights that sum to 1 over a batch it is their mean; a label that is not known has weight 0.

    Args:
        logits: (b, k), any precision; the loss is float32.
        targets: (b, k) 1 or 0; multi-class: one 1 a row.
        weights: (b, k); multi-class: only that of the true class counts.
        task: multiclass or multilabel.
    """
    logits = logits.float()
    if task == "multiclass":
        return -(logits.log_softmax(dim=1) * targets * weights).sum()
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weights).sum()
