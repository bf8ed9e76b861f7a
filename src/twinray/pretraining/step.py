"""The training step of pre-training: two views of each image, two embeddings, one loss, its gradient.

The loss is that of the whole batch, wherever its rows are:

- on several ranks each embeds its share; the embeddings are gathered, and gradients summed
  (:mod:`twinray.training.ranks`);
- with ``accumulate`` above 1 a rank embeds its share in that many pieces, in two passes (as Gao et
  al. 2021, arXiv:2101.06983). The first pass, without gradient, gives the embeddings of the whole
  batch and the loss's gradient with respect to them. The second pass, with gradient, goes piece by
  piece, each fed its rows of that gradient. Memory is that of one piece; the loss and its gradient
  are those of the whole batch.

What changes with the pieces is BatchNorm, whose statistics are then a piece's, as in any
accumulation. The result is the exact gradient of a network that normalises per piece. (Over ranks
BatchNorm is synchronised, so there nothing changes.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from twinray.backbones.pixels import normalise, pixels_to_levels, pixels_to_unit
from twinray.pretraining.model import BarlowTwins, Byol
from twinray.pretraining.objective import Objective, ObjectiveValue
from twinray.pretraining.other_objectives import byol
from twinray.pretraining.views import ViewMaker, ViewParameters
from twinray.seeds import within
from twinray.training.device import Machine
from twinray.training.monitor import embedding_health
from twinray.training.ranks import Ranks

_Two: TypeAlias = tuple[Tensor, Tensor]
"""(b, c, s, s) images of the first views and of the second; the same tensor twice where each image makes both."""


@dataclass(frozen=True, eq=False)
class Step:
    """What the training loop calls.

    Attributes:
        model: gives (features, embedding) of a view.
        machine: device and precision.
        views: makers of the two views.
        objective: the loss of two (b, d) embeddings of the whole batch; not asked for BYOL's network, which has its own.
        seed: seed of the views, combined with the step's number.
        health_every: steps between looks at the embedding's health (an eigenvalue problem).
        ranks: this process's place; ``pixels`` are its share of the batch.
        accumulate: pieces in which the share is embedded.
        forward: the model's forward pass, compiled perhaps; None for the model itself.
        paired: flag of pixels that hold the images of the first views, then as many of the second
            (``pretraining.pairs``).
    """

    model: BarlowTwins | Byol
    machine: Machine
    views: tuple[ViewMaker, ViewMaker]
    objective: Objective
    seed: int
    health_every: int
    ranks: Ranks = field(default_factory=Ranks)
    accumulate: int = 1
    forward: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    paired: bool = False

    def __call__(self, pixels: Tensor, step: int) -> Mapping[str, Tensor]:
        """Packed (b, s, s[, 3]) pixels, (2 b, s, s[, 3]) where paired -> loss and monitors; gradients are left in ``.grad``."""
        there = pixels.to(self.machine.device, non_blocking=True)
        # views that draw windows cut levels off at the ends of theirs
        drawn_windows = self.views[0].options.windows is not None
        unit = pixels_to_levels(there) if drawn_windows else pixels_to_unit(there)
        images: _Two = tuple(unit.chunk(2)) if self.paired else (unit, unit)  # type: ignore[assignment]
        drawn = self._draw(images[0], step)
        if self.accumulate == 1:
            z1, z2 = (
                self._embed(view, own, p)
                for view, own, p in zip(self.views, images, drawn, strict=True)
            )
        else:
            z1, z2 = self._first_pass(images, drawn)
        value, watched = self._loss(z1, z2, images, drawn)
        value.loss.backward()  # type: ignore[no-untyped-call]
        if self.accumulate > 1:
            assert z1.grad is not None and z2.grad is not None
            self._second_pass(images, drawn, (z1.grad, z2.grad))
        figures = {
            "loss": value.loss.detach(),
            "mean_c_ii": value.invariance,
            "rms_c_ij": value.redundancy,
        }
        if step % self.health_every == 0:
            figures |= embedding_health(watched)
        return figures

    def _loss(
        self, z1: Tensor, z2: Tensor, images: _Two, drawn: list[ViewParameters]
    ) -> tuple[ObjectiveValue, Tensor]:
        """The loss of all ranks' embeddings, whose gradients reach this rank's rows, and the embeddings to keep an eye on."""
        first, second = self.ranks.gather(z1), self.ranks.gather(z2)
        if not isinstance(self.model, Byol):
            return self.objective(first, second), first.detach()
        t1, t2 = (self.ranks.gather(t) for t in self._targets(self.model, images, drawn))
        return byol(
            first, second, t1, t2
        ), t1  # predictions may differ where every embedding is one point

    @torch.no_grad()
    def _targets(self, model: Byol, images: _Two, drawn: list[ViewParameters]) -> list[Tensor]:
        """The twin's embeddings (b, d) of both views."""
        found: list[list[Tensor]] = [[], []]
        for rows in self._pieces(len(images[0])):
            for embeddings, view, own, parameters in zip(
                found, self.views, images, drawn, strict=True
            ):
                made = self._view(view, own[rows], _rows(parameters, rows))
                with self.machine.autocast(), _same_draws():
                    embeddings.append(model.target(made))
        return [torch.cat(embeddings) for embeddings in found]

    def _draw(self, images: Tensor, step: int) -> list[ViewParameters]:
        """This rank's parameters of both views, from those of the whole batch: the same however it is shared out."""
        generator = torch.Generator().manual_seed(within(self.seed * 1_000_003 + step))
        n, height, width = len(images) * self.ranks.world, images.shape[-2], images.shape[-1]
        return [
            _rows(view.draw(n, height, width, generator), self.ranks.share(n))
            for view in self.views
        ]

    def _embed(self, view: ViewMaker, images: Tensor, parameters: ViewParameters) -> Tensor:
        made = self._view(view, images, parameters)
        with self.machine.autocast():
            return (self.forward or self.model)(made)[1]

    def _view(self, view: ViewMaker, images: Tensor, parameters: ViewParameters) -> Tensor:
        return normalise(
            view.apply(images, parameters), self.model.backbone.normalisation
        ).contiguous(memory_format=torch.channels_last)

    def _pieces(self, n: int) -> list[slice]:
        each = n // self.accumulate
        return [slice(i * each, (i + 1) * each) for i in range(self.accumulate)]

    @torch.no_grad()
    def _first_pass(self, images: _Two, drawn: list[ViewParameters]) -> tuple[Tensor, Tensor]:
        """Embeddings (b, d) of both views as leaves that collect the loss's gradient."""
        found: list[list[Tensor]] = [[], []]
        with _running_statistics_kept(self.model):
            for rows in self._pieces(len(images[0])):
                for embeddings, view, own, parameters in zip(
                    found, self.views, images, drawn, strict=True
                ):
                    with _same_draws():
                        embeddings.append(self._embed(view, own[rows], _rows(parameters, rows)))
        z1, z2 = (torch.cat(embeddings).requires_grad_() for embeddings in found)
        return z1, z2

    def _second_pass(
        self, images: _Two, drawn: list[ViewParameters], gradients: tuple[Tensor, Tensor]
    ) -> None:
        for rows in self._pieces(len(images[0])):
            for view, own, parameters, gradient in zip(
                self.views, images, drawn, gradients, strict=True
            ):
                with _same_draws():
                    z = self._embed(view, own[rows], _rows(parameters, rows))
                z.backward(gradient[rows])  # type: ignore[no-untyped-call]


def _rows(parameters: ViewParameters, rows: slice) -> ViewParameters:
    return ViewParameters(
        **{f.name: getattr(parameters, f.name)[rows] for f in dataclasses.fields(parameters)}
    )


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm computes as in training and leaves its running statistics alone: the second pass counts, not both."""
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def _same_draws() -> Iterator[None]:
    """Networks that draw (dropout, stochastic depth) draw the same in both passes.

    Every piece starts from the generators' state at the step's beginning, which the loop seeded from (seed, step).
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
