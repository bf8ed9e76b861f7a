"""``--to torchvision``: a state dict in torchvision's names, and a short module that builds torchvision's network for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinray.about import version_of
from twinray.backbones.contract import PATCH_STRIDES
from twinray.backbones.timm_backbone import TimmBackbone
from twinray.detection.model import Detector
from twinray.exporting.files import SQUARE, Exported, run_file, write_loader
from twinray.exporting.parity import Parity, of_boxes, of_numbers
from twinray.exporting.subject import Subject, boxes_of, limits_of, outputs, rgb, rgb_state
from twinray.files import write_bytes, write_json
from twinray.records import Boxes
from twinray.runs.description import ModelDescription

LOADER = "torchvision_model.py"
_LIMIT = 1e-5
_BATCH = 4


def write(subject: Subject, out: Path) -> Exported:
    """Write ``model.pth``, ``model.json`` and the loader.

    Raises:
        TwinrayError: the place cannot be written.
    """
    described = describe(subject)
    write_json(out / "model.json", described, "description of the weights")
    kept = io.BytesIO()
    torch.save(torchvision_state(subject), kept)
    write_bytes(out / "model.pth", kept.getbuffer(), "weights")
    loader = write_loader(LOADER, out)
    write_loader(SQUARE, out)
    asked = "found = model(seen[None])[0]"
    if isinstance(subject.network, Detector):
        asked = (
            "found = model([seen])[0]\n"
            f"boxes = place.to_image(found['boxes'].numpy(), {subject.size})  # in pixels of the image"
        )
    usage = (
        "```python\nimport numpy as np\nimport torch\nfrom PIL import Image\n\n"
        f"from {Path(LOADER).stem} import load, prepare  # beside the weights, with {SQUARE}; needs torch"
        f"{', torchvision and timm' if described['timm'] else ' and torchvision'}\n\n"
        "model = load('.')\nseen, place = prepare(np.asarray(Image.open('image.png').convert('RGB')), '.')\n"
        f"with torch.no_grad():\n    {asked}\n```"
    )

    def check(pixels: Tensor) -> Parity:
        return _check(subject, run_file(loader).load(out), pixels)

    return Exported(("model.pth", "model.json", LOADER, SQUARE), usage, check)


def torchvision_state(subject: Subject) -> dict[str, Tensor]:
    """The tensors by torchvision's names, for red, green and blue; a classifier's layer under the name that its library gives it."""
    state = rgb_state(subject.network, subject.normalisation.order)
    if subject.kind != "classifier":
        return state
    head = classifier_name(subject)
    renamed = {
        name.removeprefix("backbone."): value
        for name, value in state.items()
        if not name.startswith("head.")
    }
    return renamed | {f"{head}.{name}": state[f"head.{name}"] for name in ("weight", "bias")}


def classifier_name(subject: Subject) -> str:
    """What the library calls the last linear layer of the architecture."""
    backbone = subject.backbone
    if not isinstance(backbone, TimmBackbone):
        return "fc"
    import timm

    net = timm.create_model(backbone.name, num_classes=2, **backbone.options)
    last: Any = net.get_classifier()  # type: ignore[operator]
    return next(str(name) for name, module in net.named_modules() if module is last)


def describe(subject: Subject) -> dict[str, Any]:
    """``model.json``: how the network is built."""
    backbone, by = subject.backbone, subject.normalisation
    timm: dict[str, Any] | None = None
    if isinstance(backbone, TimmBackbone):
        timm = {"name": backbone.name, "options": backbone.options}
    own, description = subject.pack, subject.description
    options = subject.network.options if isinstance(subject.network, Detector) else None
    task = description.task if isinstance(description, ModelDescription) else "none"
    found: dict[str, Any] = {
        "kind": subject.kind,
        "arch": subject.arch,
        "classes": list(subject.classes),
        "size": subject.size,
        "mean": list(by.mean),
        "std": list(by.std),
        "timm": timm,
        "pack": {"size": own.size, "fit": own.fit, "channels": own.channels, "pixels": own.pixels},
        "resize": options.resize if options else "bicubic",
        "task": task,
    }
    if options is None or not isinstance(subject.network, Detector):
        return found
    pyramid = subject.network.backbone
    anchors = (
        subject.network.rpn.anchor_generator
        if subject.network.one_stage is None
        else subject.network.one_stage.anchors
    )
    if isinstance(backbone, TimmBackbone) and timm is not None:
        timm |= {
            "patch": backbone.patch,
            "indices": list(backbone.indices),
            "one_cell_on": backbone.moved and not subject.size % 32,
        }
    return {
        **found,
        "detector": options.detector,
        "group_norm": options.norm == "group",
        "norm_eps": options.norm_eps,
        "fpn_channels": options.fpn_channels,
        "box_head_width": options.box_head_width,
        "stage_channels": list(backbone.stage_channels),
        "patch_stride": PATCH_STRIDES[backbone.patch] if backbone.patch else 0,
        "strides": list(pyramid.strides),
        "anchors": {
            "scale": options.anchor_scale,
            "steps": len(anchors.scales),
            "ratios": list(anchors.ratios),
            "measures": list(anchors.measures),
            "rounded": bool(anchors.rounded),
        },
        "limits": {
            "score": options.score_threshold,
            "nms": options.nms,
            "per_image": options.detections_per_image,
            "candidates": options.proposals_before_nms[1],
            "proposals": options.proposals[1],
        },
    }


@torch.no_grad()
def _check(subject: Subject, model: nn.Module, pixels: Tensor) -> Parity:
    loader = f"torchvision {version_of('torchvision')}"
    if not isinstance(subject.network, Detector):
        what = "logits" if subject.kind == "classifier" else "features"
        ours, theirs = [], []
        for part in torch.split(pixels, _BATCH):
            seen = subject.network_input(part)
            ours.append(outputs(subject, seen))
            theirs.append(model(rgb(subject, seen)))
        both = (torch.cat(one).double().numpy() for one in (ours, theirs))
        return of_numbers(*both, loader=loader, what=what, limit=_LIMIT)
    first = int(subject.network.one_stage is None)
    own, other = [], []
    for part in torch.split(pixels, _BATCH):
        own += [boxes_of(one) for one in subject.network.detect(subject.network_input(part))]
        found = model(list(subject.unit_input(part)))
        other += [
            Boxes(
                one["boxes"].double().numpy(),
                one["labels"].numpy() - first,
                one["scores"].double().numpy(),
            )
            for one in found
        ]
    limits = limits_of(subject.network)
    return of_boxes(own, other, limits=limits, loader=loader, limit=_LIMIT)
