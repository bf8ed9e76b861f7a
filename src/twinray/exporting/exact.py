"""What a run's network gives in float64: what its own float32 and every other tool's are rounded from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from twinray.backbones.pixels import normalise, resize
from twinray.detection.model import Detector
from twinray.exporting.subject import Subject, boxes_of, outputs
from twinray.records import Boxes, FloatArray


@torch.no_grad()
def exact_boxes(subject: Subject, pixels: Tensor) -> list[Boxes]:
    """Boxes of a detector on packed pixels (n, p, p[, 3]), every step from the pixels on in float64."""
    fine = _fine(subject)
    assert isinstance(fine.network, Detector)
    return [boxes_of(fine.network.detect(_input(subject, one[None]))[0]) for one in pixels]


@torch.no_grad()
def exact_numbers(subject: Subject, pixels: Tensor) -> FloatArray:
    """Logits or features (n, d) of a classifier or backbone on packed pixels (n, p, p[, 3]), in float64."""
    fine = _fine(subject)
    made = [outputs(fine, _input(subject, one[None])) for one in pixels]
    return torch.cat(made).numpy()


def _fine(subject: Subject) -> Subject:
    network = copy.deepcopy(subject.network).double()
    return Subject(subject.run, subject.description, network, None)


def _input(subject: Subject, pixels: Tensor) -> Tensor:
    """(1, 3, s, s) normalised, in float64: as :meth:`Subject.network_input`, which rounds."""
    levels = pixels.double() / 255 if pixels.dtype == torch.uint8 else pixels.double().clamp(0, 1)
    planes = levels.unsqueeze(1) if levels.ndim == 3 else levels.permute(0, 3, 1, 2)
    how = subject.network.options.resize if isinstance(subject.network, Detector) else "bicubic"
    return normalise(resize(planes, subject.size, how), subject.normalisation).contiguous()
