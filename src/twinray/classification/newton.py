"""The minimum of a penalised logistic loss in few passes over the features: Newton's method, its steps by conjugate gradients.

One factorisation of the features serves every fold and every penalty as preconditioner: the Hessian of a label is nearly the
features' covariance times the mean of p (1 - p). It decides the number of passes, never the minimum. Products with the Hessian are
in float32, gradients and losses in float64, so a step is a little off and the end is exact (Dembo, Eisenstat and Steihaug 1982,
Inexact Newton methods).

Shapes: n images, d features, k classes or labels, r eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.records import Task

GAP = 1e-12
"""Newton decrement at which a fit ends: about the loss that is left to gain."""
_STEPS, _CONJUGATE, _HALVINGS = 60, 40, 30
_FORCING = 0.1
"""Residual of a step's linear system at which it ends, as a share of the gradient."""
_LEAST = 1e-10
"""Least mean of p (1 - p) that counts: a label that nobody has would divide by 0."""


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvectors (d, r) and eigenvalues (r,) of the covariance of standardised features, float32."""

    vectors: Tensor
    values: Tensor

    @staticmethod
    def of(x: Tensor) -> Spectrum:
        """Of standardised features (n, d); by the smaller of the two Gram matrices."""
        n, d = x.shape
        x = x.float()
        if d <= n:
            values, vectors = torch.linalg.eigh(x.T @ x / n)
            return Spectrum(vectors, values.clamp(min=0))
        values, left = torch.linalg.eigh(x @ x.T / n)
        used = values > values[-1] * n * torch.finfo(x.dtype).eps
        values, left = values[used], left[:, used]
        return Spectrum(x.T @ left / (values * n).sqrt(), values)

    def solve(self, gradient: Tensor, scale: Tensor, penalty: Tensor) -> Tensor:
        """(scale * covariance + penalty)^-1 of each row of ``gradient`` (k, d); ``scale`` and ``penalty`` (k, 1) or (1, 1)."""
        inside = gradient @ self.vectors
        share = 1 / (scale * self.values + penalty) - 1 / penalty
        return (inside * share) @ self.vectors.T + gradient / penalty


@final
class LogisticLoss:
    """Mean over images of the cross-entropy, and its derivatives with respect to weights and bias.

    Args:
        x: (n, d) standardised features, float64.
        y: (n, k) targets, float64; of the multilabel task values that are neither 0 nor 1 count for nothing.
        task: multiclass (softmax) or multilabel (a sigmoid each).
        weights: (n, k) of the single losses; None for 1.
    """

    def __init__(self, x: Tensor, y: Tensor, task: Task, weights: Tensor | None) -> None:
        self.x, self.x32, self.multiclass = x, x.float(), task == "multiclass"
        n = max(len(x), 1)
        if self.multiclass:
            own = y.argmax(dim=1, keepdim=True)
            self.y = torch.zeros_like(y).scatter(1, own, 1.0)
            factors = (
                torch.ones_like(own, dtype=y.dtype) if weights is None else weights.gather(1, own)
            )
        else:
            known = (y == 0) | (y == 1)
            self.y = torch.where(known, y, 0.0)
            factors = known.to(y.dtype) if weights is None else known * weights
        self.factors = factors / n

    def value(self, logits: Tensor) -> Tensor:
        """The loss of logits (n, k): (k,) of labels that have nothing to do with each other, (1,) of classes."""
        if self.multiclass:
            each = -(logits.log_softmax(dim=1) * self.y).sum(dim=1, keepdim=True)
        else:
            each = F.binary_cross_entropy_with_logits(logits, self.y, reduction="none")
        return (each * self.factors).sum(dim=0)

    def slope(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(p, p (1 - p), the gradient with respect to the logits), each (n, k)."""
        if self.multiclass:
            p = logits.softmax(dim=1)
            return p, p * (1 - p), (p - self.y) * self.factors
        # a label that all images have drives p to 1, where 1 - p would round to 0 and end in 0 / 0
        p, rest = logits.sigmoid(), (-logits).sigmoid()
        return p, p * rest, torch.where(self.y == 1, -rest, p) * self.factors

    def curved(self, p: Tensor, spread: Tensor, factors: Tensor, t: Tensor) -> Tensor:
        """The Hessian with respect to the logits times ``t`` (n, k); ``spread`` is p (1 - p)."""
        if self.multiclass:
            pt = p * t
            return factors * (pt - p * pt.sum(dim=1, keepdim=True))
        return factors * spread * t

    def along(self, weight: Tensor) -> Tensor:
        """A scalar product for each problem, of a (k, d + 1) product: (k, 1), or (1, 1) of classes."""
        each = weight.sum(dim=1, keepdim=True)
        return each.sum(dim=0, keepdim=True) if self.multiclass else each


def minimise(
    loss: LogisticLoss, spectrum: Spectrum, penalty: Tensor, start: Tensor | None = None
) -> tuple[Tensor, int]:
    """Weights and bias (k, d + 1) float64 that minimise loss + penalty / 2 * ||weights||^2, and the passes that it took.

    A pass is one product with the features and one with their transpose.

    Args:
        loss: loss of some images.
        spectrum: preconditioner; that of other images of the same kind does as well.
        penalty: above 0, float64; (k, 1) of labels that have nothing to do with each other, (1, 1) of classes.
        start: (k, d + 1) to start from; None for 0.

    Raises:
        ValueError: a penalty so weak beside the features that the float32 preconditioner loses it in rounding.
    """
    x, k = loss.x, loss.y.shape[1]
    solution = x.new_zeros(k, x.shape[1] + 1) if start is None else start.clone()
    logits = x @ solution[:, :-1].T + solution[:, -1]
    passes = 1
    for _ in range(_STEPS):
        p, spread, slope = loss.slope(logits)
        gradient = torch.cat(
            [slope.T @ x + penalty * solution[:, :-1], slope.sum(0)[:, None]], dim=1
        )
        scale = (loss.factors * spread).sum(dim=0).clamp(min=_LEAST)[:, None].float()
        step, decrement, products = _step(loss, spectrum, penalty, (p, spread), gradient, scale)
        passes += products + 1
        # a step uphill is not the end: the fit would stay where it began
        if bool((decrement < -GAP).any()):
            lost = penalty.expand_as(decrement)[decrement < -GAP].min().item()
            raise ValueError(f"a penalty of {lost:g} is lost in rounding; take a stronger one")
        if bool((decrement <= GAP).all()):
            break
        step = torch.where(decrement > GAP, step, 0.0)  # labels that are done stay
        moved = x @ step[:, :-1].T + step[:, -1]
        length = _length(loss, penalty, solution, step, logits, moved, gradient)
        if not bool((length > 0).any()):
            break  # rounding is all that is left
        solution = solution + length * step
        logits = logits + length.T * moved
    return solution, passes


def _step(
    loss: LogisticLoss,
    spectrum: Spectrum,
    penalty: Tensor,
    chances: tuple[Tensor, Tensor],
    gradient: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, int]:
    """Newton's step (k, d + 1), its decrement for each problem, and the number of products with the Hessian."""

    def solved(r: Tensor) -> Tensor:
        return torch.cat([spectrum.solve(r[:, :-1], scale, penalty32), r[:, -1:] / scale], dim=1)

    def product(v: Tensor) -> Tensor:
        t = loss.curved(p32, spread32, factors, loss.x32 @ v[:, :-1].T + v[:, -1])
        return torch.cat([t.T @ loss.x32 + penalty32 * v[:, :-1], t.sum(dim=0)[:, None]], dim=1)

    penalty32 = penalty.float()
    # small gradients would vanish in the products of float32
    size = gradient.abs().amax().clamp(min=torch.finfo(gradient.dtype).tiny)
    residual = (-gradient / size).float()
    p32, spread32, factors = chances[0].float(), chances[1].float(), loss.factors.float()
    z = solved(residual)
    rz = loss.along(residual * z)
    decrement = loss.along((residual * z).double()) * size.square() / 2
    if bool((decrement <= GAP).all()):
        return torch.zeros_like(gradient), decrement, 0
    enough, direction, step = rz * _FORCING**2, z, torch.zeros_like(z)
    products = 0
    for _ in range(_CONJUGATE):
        if not bool((rz > enough).any()):
            break
        bent = product(direction)
        products += 1
        curvature = loss.along(direction * bent)
        goes = (rz > enough) & (curvature > 0)
        if not bool(goes.any()):
            break
        length = torch.where(goes, rz / curvature, 0.0)
        step = step + length * direction
        residual = residual - length * bent
        z = solved(residual)
        after = loss.along(residual * z)
        direction = z + torch.where(rz > 0, after / rz, 0.0) * direction
        rz = torch.where(goes, after, 0.0)
    return step.double() * size, decrement, products


def _length(
    loss: LogisticLoss,
    penalty: Tensor,
    solution: Tensor,
    step: Tensor,
    logits: Tensor,
    moved: Tensor,
    gradient: Tensor,
) -> Tensor:
    """How much of each problem's step is taken, (k, 1) or (1, 1): halved until the loss falls enough, 0 where it never does."""

    def total(length: Tensor) -> Tensor:
        weight = solution[:, :-1] + length * step[:, :-1]
        values = loss.value(logits + length.T * moved)[:, None]
        return values + penalty / 2 * loss.along(weight.square())

    slope = loss.along(gradient * step)
    length = torch.ones_like(slope)
    before = total(torch.zeros_like(slope))
    noise = before.abs() * 1e-15  # the last steps gain less than the sum can show
    for _ in range(_HALVINGS):
        falls = total(length) <= before + 1e-4 * length * slope + noise
        if bool(falls.all()):
            return length
        length = torch.where(falls, length, length / 2)
    return torch.where(falls, length, 0.0)
