"""Finished runs made without training: any network, its norms calibrated on real or drawn images, its scores spread."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from twinray.backbones.build import build_backbone
from twinray.classification.model import Classifier
from twinray.data.pack import open_pack
from twinray.detection.model import DetectorOptions, build_detector
from twinray.runs.checksums import write_checksums
from twinray.runs.description import Normalisation
from twinray.runs.folder import RunFolder, plain
from twinray.training.record import save_weights


def made_run(
    folder: Path,
    pack: Path,
    *,
    kind: str = "detector",
    arch: str = "resnet18",
    detector: str = "faster-rcnn",
    size: int = 64,
    classes: tuple[str, ...] = (),
    by: Normalisation | None = None,
    seed: int = 0,
    change: Callable[[nn.Module], None] | None = None,
    **options: object,
) -> Path:
    """A folder that export takes for a finished run; ``change`` is done to the network before it is kept."""
    opened = open_pack(pack)
    torch.manual_seed(seed)
    backbone = build_backbone(arch, seed, size)
    backbone.normalisation = by or Normalisation()
    name = "model"
    description = {
        "kind": kind,
        "arch": arch,
        "size": size,
        "normalisation": plain(backbone.normalisation),
        "pack": {
            "size": opened.info.size,
            "fit": opened.info.fit,
            "channels": opened.info.channels,
            "decoded": plain(opened.info.decoded),
            "pixels": opened.info.pixels,
        },
        "data": [{"pack": str(pack), "names": list(opened.info.names), "checksums": {}}],
        "seed": seed,
        "init": {"init": "random", "sha256": "", "ancestors": []},
    }
    if kind == "detector":
        names = classes or opened.info.box_classes or ("finding", "other")
        chosen = DetectorOptions(
            **{
                "detector": detector,
                "size": size,
                "anchor_scale": {"faster-rcnn": 8.0, "retinanet": 4.0, "fcos": 1.0}[detector],
                "fpn_channels": 64,
                "box_head_width": 64,
                **options,
            }
        )
        network = build_detector(backbone, chosen, names, seed)
        description |= {"classes": list(names), "options": plain(dataclasses.asdict(chosen))}
        _spread(network)
    elif kind == "classifier":
        names = classes or opened.info.label_classes or ("a", "b")
        network = Classifier(backbone, len(names), "multilabel")
        nn.init.normal_(network.head.weight, 0, 0.5)
        description |= {"classes": list(names), "task": "multilabel"}
    else:
        network, name = backbone, "backbone"
        description |= {"features": backbone.features}
        if opened.info.pixels == "uint16":
            description |= {
                "windows": {"evaluation": "each image's own", "width": 1.5, "shift": 0.1}
            }
    _calibrate(network, opened, size)
    if change is not None:
        with torch.no_grad():
            change(network)
    folder.mkdir(parents=True)
    save_weights(RunFolder(folder), name, network.state_dict(), description)
    job = {"detector": "detect", "classifier": "classify", "backbone": "pretrain"}[kind]
    data = [str(pack)] if kind == "backbone" else str(pack)
    (folder / "config.yaml").write_text(yaml.safe_dump({"job": job, "data": data}))
    (folder / "metrics.json").write_text(json.dumps({"format": 2, "test": {"n_images": 3}}))
    write_checksums(folder, {})
    return folder


def _calibrate(network: nn.Module, pack: object, size: int) -> None:
    """Batch statistics of images of the pack: random weights alone would let activations grow or fade."""
    body = getattr(getattr(network, "backbone", network), "body", None)
    body = body if body is not None else getattr(network, "backbone", network)
    rows = np.linspace(0, len(pack) - 1, min(8, len(pack))).astype(int)
    pixels = torch.from_numpy(np.stack([pack.pixels[row] for row in rows]))
    from twinray.backbones.pixels import network_input

    seen = network_input(pixels, size, torch.device("cpu"), body.normalisation)
    body.train()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        body(seen)
    network.eval()


def _spread(network: nn.Module) -> None:
    """Class and box layers with large weights, so that scores and boxes differ from place to place."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "cls_score.weight" in name or "cls_logits.weight" in name:
                parameter.mul_(8)
            if "cls_logits.bias" in name:
                parameter.fill_(-3.0)
            if "bbox_pred.weight" in name or "bbox_reg.weight" in name:
                parameter.mul_(3)
