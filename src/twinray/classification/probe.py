"""The linear probe: one linear layer on frozen features (linear evaluation protocol).

Shape legend: n images, d features, k classes.

The penalty is chosen by cross-validation inside the labelled images and nowhere else: a probe at 1 %
of the labels must not see the other 99 % through its validation set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from twinray.records import FloatArray, IntArray, Task

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe on raw features; standardisation is folded into the weights.

    Attributes:
        weight: (k, d) float64. bias: (k,) float64.
        penalty: the L2 strength that was used.
    """

    weight: Tensor
    bias: Tensor
    task: Task
    penalty: float

    def scores(self, features: FloatArray) -> FloatArray:
        """(n, d) features -> (n, k) probabilities."""
        logits = torch.from_numpy(np.asarray(features, dtype=np.float64)) @ self.weight.T + self.bias
        scores = logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()
        return np.asarray(scores.numpy())


def fit_probe(
    features: FloatArray, labels: FloatArray, groups: IntArray, task: Task, *, folds: int = 5, seed: int = 0
) -> LinearProbe:
    """Fit a probe, choosing the penalty by patient-disjoint cross-validation.

    Args:
        features: (n, d).
        labels: (n, k) of 1, 0; any other value (uncertain, not stated) leaves that label of that image out.
        groups: (n,) patient of each image, as numbers.
        task: multiclass (softmax) or multilabel (a sigmoid each).
        folds: number of folds; fewer where there are fewer patients.
        seed: of the assignment to folds.
    """
    penalty = _choose_penalty(features, labels, groups, task, folds, seed)
    return fit_linear(features, labels, task, penalty)


def _choose_penalty(
    features: FloatArray, labels: FloatArray, groups: IntArray, task: Task, folds: int, seed: int
) -> float:
    strata = labels.argmax(axis=1) if task == "multiclass" else (labels == 1).any(axis=1).astype(np.int64)
    folds = min(folds, len(np.unique(groups)), int(np.bincount(strata)[np.unique(strata)].min()))
    if folds < 2:
        return 1.0  # too few patients to choose; a strong penalty is the safe side
    losses = np.zeros(len(PENALTIES))
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, held_out in cut.split(features, strata, groups):
        if len(train) == 0 or len(held_out) == 0:
            continue
        warm: tuple[Tensor, Tensor] | None = None
        for i, penalty in enumerate(PENALTIES):  # strong to weak: each solution starts the next
            probe, warm = _fit(features[train], labels[train], task, penalty, warm)
            logits = torch.from_numpy(features[held_out].astype(np.float64)) @ probe.weight.T + probe.bias
            losses[i] += float(_loss(logits, _targets(labels[held_out]), task)) * len(held_out)
    return PENALTIES[int(np.argmin(losses))]


def fit_linear(features: FloatArray, labels: FloatArray, task: Task, penalty: float) -> LinearProbe:
    """Minimise mean cross-entropy + penalty / 2 * ||W||^2 on standardised features (L-BFGS, float64)."""
    return _fit(features, labels, task, penalty, None)[0]


def _fit(
    features: FloatArray, labels: FloatArray, task: Task, penalty: float, warm: tuple[Tensor, Tensor] | None
) -> tuple[LinearProbe, tuple[Tensor, Tensor]]:
    x = torch.from_numpy(np.asarray(features, dtype=np.float64))
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    x, y = (x - mean) / std, _targets(labels)
    weight = warm[0].clone() if warm else torch.zeros(labels.shape[1], x.shape[1], dtype=torch.float64)
    bias = warm[1].clone() if warm else torch.zeros(labels.shape[1], dtype=torch.float64)
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-11, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = _loss(x @ weight.T + bias, y, task) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    weight, bias = weight.detach(), bias.detach()
    folded = weight / std
    return LinearProbe(folded, bias - folded @ mean, task, penalty), (weight, bias)


def _targets(labels: FloatArray) -> Tensor:
    return torch.from_numpy(np.asarray(labels, dtype=np.float64))


def _loss(logits: Tensor, y: Tensor, task: Task) -> Tensor:
    """Mean over images of the cross-entropy; labels that are neither 0 nor 1 count for nothing."""
    if task == "multiclass":
        return F.cross_entropy(logits, y.argmax(dim=1))
    known = (y == 0) | (y == 1)
    each = F.binary_cross_entropy_with_logits(logits, torch.where(known, y, torch.zeros_like(y)), reduction="none")
    return (each * known).sum() / max(len(y), 1)
