"""Detectors as initial weights: which part of one is taken, and what is new.

A detector's layers outside its backbone are taken too, but for those of its classes where the classes differ. What was
taken is always said: nobody shall believe that a whole detector went on when its backbone did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from torch import Tensor

from twinray.backbones.ledger import row_named
from twinray.backbones.norm import NormPolicy
from twinray.backbones.weights import Provenance, read_initial, read_model_description
from twinray.detection.model import Detector, DetectorKind
from twinray.errors import InputError
from twinray.runs.classes import difference
from twinray.runs.description import ModelDescription

InitPart = Literal["auto", "backbone", "detector"]

_OF_CLASSES: Final = ("roi_heads.box_predictor.", "head.classification_head.cls_logits.")
"""Layers whose shape the classes decide."""
_BODY: Final = "backbone.body."
_KINDS: Final[Mapping[str, DetectorKind]] = {
    "coco": "faster-rcnn",
    "coco-retinanet": "retinanet",
    "coco-fcos": "fcos",
}
_OTHER_LAYERS: Final = {
    "coco-v2": "its pyramid and box head have batch norms, whose statistics over sampled boxes differ between ranks and devices, "
    "and its proposal head a further convolution",
    "coco-retinanet-v2": "its heads have group norms, and p6 is made from c5",
}
"""Detectors whose layers are not those that are built here."""
_EPS_ZERO: Final = ("coco", "coco-retinanet")
"""Detectors whose frozen batch norms divide by the stored variance alone, nothing added (torchvision's first versions)."""
_OLD_SPELLING: Final = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
)
"""torchvision's older names, without an inner ``.0`` -> those of today."""


@dataclass(frozen=True)
class InitialDetector:
    """A whole detector to start from.

    Attributes:
        kind: its kind.
        name: what to call it in a message.
        description: description of the run that trained it; None for a published one.
        norm_eps: what its backbone's batch norms add to the variance; None for what they have anyway.
    """

    kind: DetectorKind
    name: str
    description: ModelDescription | None = None
    norm_eps: float | None = None

    @property
    def published(self) -> bool:
        """Whether it is torchvision's: its anchors are rounded to whole pixels."""
        return self.description is None


def initial_detector(init: str, part: InitPart, wanted: DetectorKind) -> InitialDetector | None:
    """The detector that a run starts from; None where it starts from a backbone alone.

    Args:
        init: initial weights.
        part: which part of a detector to take; ``auto``: all of it where there is one.
        wanted: kind of the detector to be built.

    Raises:
        InputError: a whole detector is asked for and there is none, or it is of another kind, or has layers that are not
            built here.
    """
    found = _detector_of(init)
    if found is None and part == "detector":
        raise InputError(
            f"expected --init to name a detector with --init-part detector, {init} is none; leave --init-part out"
        )
    if found is None or part == "backbone":
        return None
    row = row_named(init)
    if row is not None and row.name in _OTHER_LAYERS:
        raise InputError(
            f"the whole detector {row.name} cannot be taken: {_OTHER_LAYERS[row.name]}; take its backbone with "
            "--init-part backbone"
        )
    if found.kind != wanted:
        raise InputError(
            f"{found.name} is a {found.kind} detector, --detector is {wanted}; give --detector {found.kind}, or take its "
            "backbone with --init-part backbone"
        )
    return found


def _detector_of(init: str) -> InitialDetector | None:
    row = row_named(init)
    if row is not None:
        if not row.detector:
            return None
        kind = _KINDS.get(row.name, "faster-rcnn")
        return InitialDetector(kind, row.name, None, 0.0 if row.name in _EPS_ZERO else None)
    description = read_model_description(init)
    if description is None or description.kind != "detector":
        return None
    kind = description.options.get("detector", "faster-rcnn")
    if kind not in ("faster-rcnn", "retinanet", "fcos"):
        raise InputError(
            f"the description of {init} names no kind of detector ({kind!r}); was it edited?"
        )
    return InitialDetector(kind, f"the run {init}", description)


def fill_detector(detector: Detector, initial: InitialDetector, provenance: Provenance) -> str:
    """Fill all layers outside the backbone, in place, but for those of the classes where the classes differ.

    Args:
        detector: detector whose backbone is filled.
        initial: detector to start from.
        provenance: where the weights came from.

    Returns:
        What was taken and what is new, in one line.

    Raises:
        InputError: a layer that is missing or of another shape, with the option that decides it.
    """
    whole = read_initial(provenance.init)
    state = {_today(name): tensor for name, tensor in whole.items()}
    before = initial.description.classes if initial.description is not None else ()
    what = difference(before, detector.box_classes, "weights", "pack") if before else "COCO's 91"
    own = detector.state_dict()
    taken: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.startswith(_BODY) or (what and name.startswith(_OF_CLASSES)):
            continue
        tensor = state.get(name)
        if tensor is None or tensor.shape != value.shape:
            found = (
                "is missing"
                if tensor is None
                else f"has the shape {tuple(tensor.shape)}, not {tuple(value.shape)}"
            )
            raise InputError(
                f"the layers of {initial.name} are not those of the detector to train: {name} {found}; give the options that it "
                f"was built with{_built_with(initial)}, or take its backbone with --init-part backbone"
            )
        taken[name] = tensor
    detector.load_state_dict({**own, **taken}, strict=True)
    if what:
        return f"{initial.name} was taken whole but for the layers of its classes, which are new: the classes differ ({what})"
    return f"{initial.name} was taken whole, with the layers of its classes"


def norm_eps(initial: InitialDetector | None, norm: NormPolicy) -> float | None:
    """What the backbone's batch norms add to the variance, where stored statistics are used.

    Batch statistics always have the network's own: a channel without variance must not divide by zero.
    """
    if initial is None or norm not in ("frozen", "eval"):
        return None
    if initial.description is None:
        return initial.norm_eps
    kept = initial.description.options.get("norm_eps")
    return float(kept) if isinstance(kept, int | float) else None


def _today(name: str) -> str:
    for pattern, new in _OLD_SPELLING:
        name = re.sub(pattern, new, name)
    return name


def _built_with(initial: InitialDetector) -> str:
    if initial.description is None:
        return " (--fpn-channels 256, --box-head-width 1024)"
    options: dict[str, Any] = initial.description.options
    shown = [
        f"--{name.replace('_', '-')} {options[name]}"
        for name in ("fpn_channels", "box_head_width")
        if name in options
    ]
    return f" ({', '.join(shown)})" if shown else ""
