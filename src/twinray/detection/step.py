"""One training step of a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from twinray.detection.model import Dense, Detector
from twinray.detection.targets import BoxTargets
from twinray.detection.transforms import TransformOptions, training_batch
from twinray.seeds import within
from twinray.training.device import Machine
from twinray.training.ranks import Ranks


@dataclass(frozen=True, eq=False)
class Step:
    """The training step: transform, forward, the sum of the losses, its gradient.

    Attributes:
        detector: network to train.
        machine: device and precision.
        transforms: what training images go through.
        seed: seed of the transforms, combined with the step's number.
        ranks: this process's place; batches are its share.
        dense: the detector's ``dense``, compiled perhaps; None for the method itself.
    """

    detector: Detector
    machine: Machine
    transforms: TransformOptions
    seed: int
    ranks: Ranks = field(default_factory=Ranks)
    dense: Callable[[Tensor], Dense] | None = None

    def __call__(self, batch: tuple[Tensor, BoxTargets], step: int) -> Mapping[str, Tensor]:
        """Packed pixels and targets -> losses; gradients are left in ``.grad``."""
        each = (
            self.seed * 1_000_003 + step
        ) * self.ranks.world + self.ranks.rank  # other draws on every rank
        generator = torch.Generator().manual_seed(within(each))
        pixels, targets = batch
        device = self.machine.device
        images, targets = training_batch(
            pixels.to(device, non_blocking=True),
            targets.to(device, non_blocking=True),
            self.detector.options.size,
            self.transforms,
            generator,
            self.detector.normalisation,
        )
        with self.machine.autocast():
            images = images.contiguous(memory_format=torch.channels_last)
            losses = self.detector(images, targets, self.dense)
        loss: Tensor = torch.stack([value.float() for value in losses.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}
