"""The linear probe: one linear layer on frozen features (linear evaluation protocol).

Fits are by Newton's method with one factorisation of the features for all folds and penalties
(:mod:`twinray.classification.newton`), on the device where there is one.

Shape legend: n images, d features, k classes.

The penalty is chosen by cross-validation inside the labelled images and nowhere else. A probe at 1
% of the labels must not see the other 99 % through its validation set. Labels that do not exclude each
other are fits of their own, so each chooses its own, as scikit-learn's LogisticRegressionCV does class by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from twinray.classification.newton import LogisticLoss, Spectrum, minimise
from twinray.records import FloatArray, IntArray, Task
from twinray.seeds import within

CPU = torch.device("cpu")
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe on raw features; standardisation is folded into the weights.

    Attributes:
        weight: (k, d) float64. bias: (k,) float64.
        penalties: the L2 strengths that were used, of the multiclass task one, else (k) in the order of the labels.
        held_out: (n, k) probabilities of the images that it was fitted on. Each comes from a probe
            of the same penalties that was fitted without its patient's fold. Images of no fold have
            NaN. The value is None where there were too few patients for folds.
    """

    weight: Tensor
    bias: Tensor
    task: Task
    penalties: tuple[float, ...]
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
    device: torch.device = CPU,
) -> LinearProbe:
    """Fit a probe, choosing the penalty (multilabel: of each label) by patient-disjoint cross-validation.

    Args:
        features: (n, d).
        labels: (n, k) of 1, 0; any other value (uncertain, not stated) leaves that label of that image out.
        groups: (n,) patient of each image, as numbers.
        task: multiclass (softmax) or multilabel (a sigmoid each).
        folds: number of folds; fewer where there are fewer patients.
        seed: seed of the assignment to folds.
        weights: (n, k) of the single losses; None for 1.
        device: where it is computed; the probe comes back to the processor.
    """
    data = _Data.of(features, labels, task, weights, device)
    penalties, held_out = _choose_penalties(data, labels, groups, folds, seed)
    return replace(data.fit(penalties)[0], held_out=held_out)


def fit_linear(
    features: FloatArray,
    labels: FloatArray,
    task: Task,
    penalty: float | Sequence[float],
    weights: FloatArray | None = None,
    device: torch.device = CPU,
) -> LinearProbe:
    """Minimise mean cross-entropy + penalty / 2 * ||W||^2 on standardised features, to 1e-12 of the loss.

    ``penalty`` is one for all, or of the multilabel task one a label.

    Raises:
        ValueError: a penalty so weak that the solver loses it in rounding; 1e-4, the weakest that is tried, was fitted always.
    """
    return _Data.of(features, labels, task, weights, device).fit(penalty)[0]


@dataclass(frozen=True, eq=False)
class _Data:
    """Labelled features on the device, standardised, with what every fit shares.

    Attributes:
        x: (n, d) float64, standardised by ``mean`` and ``std`` (d,).
        y: (n, k) float64. weights: (n, k) of the single losses, or None.
        spectrum: eigenvalues of the covariance of all images, or of those that this is a part of.
    """

    x: Tensor
    y: Tensor
    weights: Tensor | None
    task: Task
    mean: Tensor
    std: Tensor
    spectrum: Spectrum

    @staticmethod
    def of(
        features: FloatArray,
        labels: FloatArray,
        task: Task,
        weights: FloatArray | None,
        device: torch.device,
    ) -> _Data:
        """Features standardised on the device, and their spectrum, worked out once for all penalties."""
        x, y = _on(features, device), _on(labels, device)
        mean, std = _statistics(x)
        x = (x - mean) / std
        factors = None if weights is None else _on(weights, device)
        return _Data(x, y, factors, task, mean, std, Spectrum.of(x))

    def part(self, indices: IntArray) -> _Data:
        """Some of the images, standardised by their own statistics."""
        at = torch.from_numpy(indices).to(self.x.device)
        x = self.x[at]
        mean, std = _statistics(x)
        return replace(
            self,
            x=(x - mean) / std,
            y=self.y[at],
            weights=None if self.weights is None else self.weights[at],
            mean=self.mean + mean * self.std,
            std=self.std * std,
        )

    @cached_property
    def loss(self) -> LogisticLoss:
        return LogisticLoss(self.x, self.y, self.task, self.weights)

    def fit(
        self, penalty: float | Sequence[float], start: Tensor | None = None
    ) -> tuple[LinearProbe, Tensor]:
        """The probe on raw features of one penalty, or of one a label, and the solution that the next may start from."""
        labels = 1 if self.task == "multiclass" else self.y.shape[1]
        penalties = (penalty,) * labels if isinstance(penalty, float | int) else tuple(penalty)
        strength = torch.tensor(penalties, dtype=self.x.dtype, device=self.x.device)[:, None]
        solution, _ = minimise(self.loss, self.spectrum, strength, start)
        folded = solution[:, :-1] / self.std
        bias = solution[:, -1] - folded @ self.mean
        return LinearProbe(folded.cpu(), bias.cpu(), self.task, penalties), solution

    def logits(self, solution: Tensor, others: _Data) -> Tensor:
        """Of the images of ``others``, which stand beside the statistics of all."""
        moved = (others.x * others.std + others.mean - self.mean) / self.std
        return moved @ solution[:, :-1].T + solution[:, -1]


def _choose_penalties(
    data: _Data, labels: FloatArray, groups: IntArray, folds: int, seed: int
) -> tuple[tuple[float, ...], FloatArray | None]:
    """Of least loss on images of patients who were left out, and the probabilities (n, k) of these images."""
    fits = 1 if data.task == "multiclass" else labels.shape[1]
    strata = (
        labels.argmax(axis=1)
        if data.task == "multiclass"
        else (labels == 1).any(axis=1).astype(np.int64)
    )
    folds = min(folds, len(np.unique(groups)), int(np.bincount(strata)[np.unique(strata)].min()))
    if folds < 2:
        # too few patients to choose; a strong penalty is the safe side
        return (1.0,) * fits, None
    losses = np.zeros((len(PENALTIES), fits))
    scores = np.full((len(PENALTIES), *labels.shape), np.nan)
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=within(seed, 32))
    for train, held_out in cut.split(np.zeros(len(labels)), strata, groups):
        if len(train) == 0 or len(held_out) == 0:
            continue
        learnt, rest = data.part(train), data.part(held_out)
        unseen = LogisticLoss(rest.x, rest.y, data.task, rest.weights)
        solution: Tensor | None = None
        for i, penalty in enumerate(PENALTIES):  # strong to weak: each solution starts the next
            _, solution = learnt.fit(penalty, solution)
            logits = learnt.logits(solution, rest)
            losses[i] += unseen.value(logits).cpu().numpy() * len(held_out)
            p, _, _ = unseen.slope(logits)
            scores[i, held_out] = p.cpu().numpy()
    # one penalty for all labels would be set by those that no feature tells apart: the strongest, which
    # takes from the others what they had
    # a label whose rarer value not every fold can hold goes by what suits all labels together
    rare = [_rarer(labels[:, k], groups) < folds for k in range(fits)]
    best = np.where(rare, losses.sum(axis=1).argmin(), losses.argmin(axis=0))
    held = scores[best[0]] if fits == 1 else scores[best, :, np.arange(fits)].T
    return tuple(PENALTIES[i] for i in best), held


def _rarer(label: FloatArray, groups: IntArray) -> int:
    """Number of patients with the value of a label that fewer have."""
    return min(len(np.unique(groups[label == value])) for value in (0, 1))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,); 1 for features that are constant."""
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(std > 1e-12, std, torch.ones_like(std))


def _on(values: FloatArray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(values)).to(device).to(torch.float64)
