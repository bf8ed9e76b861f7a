"""The linear probe: one linear layer on frozen features (linear evaluation protocol).

Shape legend: n images, d features, k classes.

The penalty is chosen by cross-validation inside the labelled images and nowhere else. A probe at 1
% of the labels must not see the other 99 % through its validation set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from twinray.records import FloatArray, IntArray, Task
from twinray.seeds import within

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe on raw features; standardisation is folded into the weights.

    Attributes:
        weight: (k, d) float64. bias: (k,) float64.
        penalty: the L2 strength that was used.
        held_out: (n, k) probabilities of the images that it was fitted on. Each comes from a probe
            of the same penalty that was fitted without its patient's fold. Images of no fold have
            NaN. The value is None where there were too few patients for folds.
    """

    weight: Tensor
    bias: Tensor
    task: Task
    penalty: float
    held_out: FloatArray | None = None

    def scores(self, features: FloatArray) -> FloatArray:
        """(n, d) features -> (n, k) probabilities."""
        logits = (
            torch.from_numpy(np.asarray(features, dtype=np.float64)) @ self.weight.T + self.bias
        )
        scores = logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()
        return np.asarray(scores.numpy())


def fit_probe(
    features: FloatArray,
    labels: FloatArray,
    groups: IntArray,
    task: Task,
    *,
    folds: int = 5,
    seed: int = 0,
    weights: FloatArray | None = None,
) -> LinearProbe:
    """Fit a probe, choosing the penalty by patient-disjoint cross-validation.

    Args:
        features: (n, d).
        labels: (n, k) of 1, 0; any other value (uncertain, not stated) leaves that label of that image out.
        groups: (n,) patient of each image, as numbers.
        task: multiclass (softmax) or multilabel (a sigmoid each).
        folds: number of folds; fewer where there are fewer patients.
        seed: seed of the assignment to folds.
        weights: (n, k) of the single losses; None for 1.
    """
    penalty, held_out = _choose_penalty(features, labels, groups, task, folds, seed, weights)
    return replace(fit_linear(features, labels, task, penalty, weights), held_out=held_out)


def _choose_penalty(
    features: FloatArray,
    labels: FloatArray,
    groups: IntArray,
    task: Task,
    folds: int,
    seed: int,
    weights: FloatArray | None,
) -> tuple[float, FloatArray | None]:
    strata = (
        labels.argmax(axis=1)
        if task == "multiclass"
        else (labels == 1).any(axis=1).astype(np.int64)
    )
    folds = min(folds, len(np.unique(groups)), int(np.bincount(strata)[np.unique(strata)].min()))
    if folds < 2:
        return 1.0, None  # too few patients to choose; a strong penalty is the safe side
    losses = np.zeros(len(PENALTIES))
    scores = np.full((len(PENALTIES), *labels.shape), np.nan)
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=within(seed, 32))
    for train, held_out in cut.split(features, strata, groups):
        if len(train) == 0 or len(held_out) == 0:
            continue
        warm: tuple[Tensor, Tensor] | None = None
        for i, penalty in enumerate(PENALTIES):  # strong to weak: each solution starts the next
            of_train, of_rest = (
                (None, None) if weights is None else (weights[train], weights[held_out])
            )
            probe, warm = _fit(features[train], labels[train], task, penalty, warm, of_train)
            logits = (
                torch.from_numpy(features[held_out].astype(np.float64)) @ probe.weight.T
                + probe.bias
            )
            losses[i] += float(_loss(logits, _targets(labels[held_out]), task, of_rest)) * len(
                held_out
            )
            scores[i, held_out] = (
                logits.softmax(dim=1) if task == "multiclass" else logits.sigmoid()
            ).numpy()
    best = int(np.argmin(losses))
    return PENALTIES[best], scores[best]


def fit_linear(
    features: FloatArray,
    labels: FloatArray,
    task: Task,
    penalty: float,
    weights: FloatArray | None = None,
) -> LinearProbe:
    """Minimise mean cross-entropy + penalty / 2 * ||W||^2 on standardised features (L-BFGS, float64)."""
    return _fit(features, labels, task, penalty, None, weights)[0]


def _fit(
    features: FloatArray,
    labels: FloatArray,
    task: Task,
    penalty: float,
    warm: tuple[Tensor, Tensor] | None,
    weights: FloatArray | None,
) -> tuple[LinearProbe, tuple[Tensor, Tensor]]:
    x = torch.from_numpy(np.asarray(features, dtype=np.float64))
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    x, y = (x - mean) / std, _targets(labels)
    weight = (
        warm[0].clone() if warm else torch.zeros(labels.shape[1], x.shape[1], dtype=torch.float64)
    )
    bias = warm[1].clone() if warm else torch.zeros(labels.shape[1], dtype=torch.float64)
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-11,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = _loss(x @ weight.T + bias, y, task, weights) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    weight, bias = weight.detach(), bias.detach()
    folded = weight / std
    return LinearProbe(folded, bias - folded @ mean, task, penalty), (weight, bias)


def _targets(labels: FloatArray) -> Tensor:
    return torch.from_numpy(np.asarray(labels, dtype=np.float64))


def _loss(logits: Tensor, y: Tensor, task: Task, weights: FloatArray | None) -> Tensor:
    """Mean over images of the cross-entropy; labels that are neither 0 nor 1 count for nothing."""
    factors = None if weights is None else torch.from_numpy(np.asarray(weights, dtype=np.float64))
    if task == "multiclass":
        if factors is None:
            return F.cross_entropy(logits, y.argmax(dim=1))
        each = F.cross_entropy(logits, y.argmax(dim=1), reduction="none")
        return (each * factors.gather(1, y.argmax(dim=1, keepdim=True)).squeeze(1)).sum() / max(
            len(y), 1
        )
    known = (y == 0) | (y == 1)
    each = F.binary_cross_entropy_with_logits(
        logits, torch.where(known, y, torch.zeros_like(y)), reduction="none"
    )
    return (each * (known if factors is None else factors)).sum() / max(len(y), 1)
