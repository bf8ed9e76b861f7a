"""Load this folder's weights with torchvision (and timm, where the backbone is timm's): ``model = load(folder)``.

Needs torch, torchvision, NumPy and Pillow, nothing else of the tool that trained it. ``model.json`` says how the network is built.

- A detector is torchvision's ``FasterRCNN``, ``RetinaNet`` or ``FCOS``. It takes a list of (3, s, s) float tensors of red,
  green and blue in 0..1, s being ``size`` of ``model.json``, and gives boxes (xyxy, in those pixels), labels and scores.
  Labels of Faster R-CNN count from 1 (0 is the background), those of the others from 0: ``name_of`` tells the class.
- A classifier or backbone takes (b, 3, s, s), normalised with ``mean`` and ``std``, and gives logits or features.

``prepare(image, folder)`` makes either of a decoded image as the run did. torchvision's detectors stretch images of another shape
without a word.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import LevelMapper
from twinray_square import Place, fit  # type: ignore[import-not-found,unused-ignore]

STAGES = ("layer1", "layer2", "layer3", "layer4")


def load(folder: str | Path) -> nn.Module:
    """The network in evaluation mode, with its weights; every tensor is filled or it is an error."""
    folder = Path(folder)
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    model = build(described)
    state = torch.load(folder / "model.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(state, strict=True)
    return model.eval()


def prepare(image: Any, folder: str | Path) -> tuple[Tensor, Place]:
    """What the network takes of an image, and where the image lies in it.

    Args:
        image: (h, w) or (h, w, 3), red first: uint8, display-ready, or floating point levels, 0 black and 1 white.
        folder: this folder.

    Returns:
        (3, s, s) in 0..1 of a detector, normalised of the others; a place whose ``to_image(boxes, s)`` brings boxes back.
    """
    described = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    if image.dtype.kind != "f" and image.dtype != "uint8":
        raise ValueError(f"expected uint8, or floating point levels in 0..1, got {image.dtype}")
    square, place = fit(image, described["pack"])
    planes = torch.from_numpy(square)
    unit = (planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1))[None]
    unit = unit.float() / 255 if planes.dtype == torch.uint8 else unit.clamp(0, 1)
    size, how = described["size"], described["resize"]
    if unit.shape[-1] != size:
        unit = F.interpolate(unit, (size, size), mode=how, antialias=True, align_corners=False)
    unit = unit.clamp(0, 1).expand(-1, 3, -1, -1)[0].contiguous()
    if described["kind"] == "detector":
        return unit, place
    mean, std = (torch.tensor(described[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (unit - mean) / std, place


def name_of(described: dict[str, Any], label: int) -> str:
    """The class that a label of this model's predictions means."""
    return str(described["classes"][label - (described.get("detector") == "faster-rcnn")])


def build(described: dict[str, Any]) -> nn.Module:
    """The network that ``model.json`` describes, without its weights."""
    if described["kind"] == "detector":
        return _detector(described)
    k = len(described["classes"])
    if described["timm"] is not None:
        import timm

        made: nn.Module = timm.create_model(
            described["timm"]["name"], num_classes=k, **described["timm"]["options"]
        )
        return made
    net = torchvision.models.get_model(described["arch"], weights=None)
    net.fc = nn.Linear(net.fc.in_features, k) if k else nn.Identity()
    return cast(nn.Module, net)


class Body(nn.Module):
    """Feature maps c2..c5 of a torchvision ResNet, by number."""

    def __init__(self, arch: str, group_norm: bool, eps: float | None) -> None:
        super().__init__()
        norm: Any = nn.BatchNorm2d
        if group_norm:
            norm = lambda channels: nn.GroupNorm(32, channels)  # noqa: E731
        net = torchvision.models.get_model(arch, weights=None, norm_layer=norm)
        for name, module in net.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)
        for one in self.modules():
            if eps is not None and isinstance(one, nn.BatchNorm2d):
                one.eps = eps

    def forward(self, x: Tensor) -> list[Tensor]:
        """c2..c5, in order."""
        maps = []
        for name, module in self.named_children():
            x = module(x)
            maps += [x] if name in STAGES else []
        return maps


def timm_body(described: dict[str, Any]) -> nn.Module:
    """A network of timm that gives feature maps c2..c5, or the last map of a plain transformer."""
    import timm

    net = timm.create_model(described["name"], num_classes=0, **described["options"])
    patch, indices, moved = described["patch"], described["indices"], described["one_cell_on"]

    def forward(self: Any, x: Tensor) -> list[Tensor]:
        which = {"indices": 1, "norm": True} if patch else {"indices": indices}
        maps = self.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True, **which)
        # TensorFlow's padding looks a cell further right and down
        return [_one_cell_on(one) for one in maps] if moved else list(maps)

    net.__class__ = type("Maps", (type(net),), {"forward": forward})  # its names stay timm's
    return net


def _one_cell_on(maps: Tensor) -> Tensor:
    down = torch.cat([maps[..., :1, :], maps[..., :-1, :]], dim=-2)
    return torch.cat([down[..., :1], down[..., :-1]], dim=-1)


class Pyramid(nn.Module):
    """Backbone and feature pyramid, as torchvision's detectors take them."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        timm = described["timm"]
        self.body: nn.Module = (
            Body(described["arch"], described["group_norm"], described["norm_eps"])
            if timm is None
            else timm_body(timm)
        )
        self.out_channels = channels = described["fpn_channels"]
        one_stage = described["detector"] != "faster-rcnn"
        extra = LastLevelP6P7(channels, channels) if one_stage else LastLevelMaxPool()
        self.first = int(one_stage)
        widths = described["stage_channels"]
        self.plain = timm is not None and bool(timm["patch"])
        self.fpn: nn.Module
        if self.plain:
            levels = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
            wanted = dict(list(levels.items())[self.first :])
            stride = described["patch_stride"]
            self.fpn = SimplePyramid(widths[0], channels, stride, wanted, extra)
        else:
            self.fpn = FeaturePyramidNetwork(widths[self.first :], channels, extra_blocks=extra)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The levels, finest first."""
        maps = self.body(x)
        if self.plain:
            return cast("OrderedDict[str, Tensor]", self.fpn(maps[0]))
        named = OrderedDict((str(i), one) for i, one in enumerate(maps[self.first :]))
        return cast("OrderedDict[str, Tensor]", self.fpn(named))


class SimplePyramid(nn.Module):
    """The simple feature pyramid of a plain transformer (Li et al. 2022, ViTDet)."""

    def __init__(
        self, width: int, channels: int, stride: int, levels: dict[str, int], extra: nn.Module
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleDict(
            {name: _from_last(width, channels, stride, own) for name, own in levels.items()}
        )
        self.extra_blocks = extra

    def forward(self, last: Tensor) -> OrderedDict[str, Tensor]:
        """The levels by name, finest first."""
        maps = [make(last) for make in self.levels.values()]
        maps, names = self.extra_blocks(maps, [last], list(self.levels))
        return OrderedDict(zip(names, maps, strict=True))


def _from_last(width: int, channels: int, stride: int, wanted: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    while stride > wanted:
        if layers:
            layers += [LayerNorm2d(width, eps=1e-6), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        width, stride = width // 2, stride // 2
    if stride < wanted:
        layers.append(nn.MaxPool2d(wanted // stride))
    for side, before in ((1, width), (3, channels)):
        layers.append(nn.Conv2d(before, channels, side, padding=side // 2, bias=False))
        layers.append(LayerNorm2d(channels, eps=1e-6))
    return nn.Sequential(*layers)


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors centred on the pixels that each level's stride says.

    torchvision's own divides sides to find strides and rounds anchors to whole pixels; these weights learned on others.
    """

    def __init__(self, described: dict[str, Any], strides: list[float]) -> None:
        own = described["anchors"]
        ratios = tuple(own["ratios"])
        n = len(strides)
        super().__init__(sizes=((1,) * own["steps"],) * n, aspect_ratios=(ratios,) * n)
        self._ratios, self._strides, self._measures = ratios, strides, own["measures"]
        self._scales = [own["scale"] * 2 ** (i / own["steps"]) for i in range(own["steps"])]
        self._rounded = bool(own["rounded"])

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """(anchors, 4) xyxy of each image."""
        root = torch.tensor(self._ratios).sqrt()
        levels = []
        for stride, measure, feature in zip(self._strides, self._measures, features, strict=True):
            sizes = torch.tensor(self._scales) * measure
            half = (sizes.floor() if self._rounded else sizes) / 2
            wide, high = (half / root[:, None]).flatten(), (half * root[:, None]).flatten()
            if self._rounded:
                wide, high = wide.round(), high.round()
            cell = torch.stack([-wide, -high, wide, high], dim=1)
            y = torch.arange(feature.shape[-2]) * float(stride)
            x = torch.arange(feature.shape[-1]) * float(stride)
            y, x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            levels.append((centre + cell).view(-1, 4))
        return [torch.cat(levels).to(features[0].device)] * len(images.image_sizes)


def _detector(described: dict[str, Any]) -> nn.Module:
    pyramid, k, size = Pyramid(described), len(described["classes"]), described["size"]
    pixels = {
        "min_size": size,
        "max_size": size,
        "image_mean": described["mean"],
        "image_std": described["std"],
        "size_divisible": 1,
        "fixed_size": (size, size),
    }
    strides, limits = described["strides"], described["limits"]
    anchors = Anchors(described, strides)
    if described["detector"] != "faster-rcnn":
        kind = RetinaNet if described["detector"] == "retinanet" else FCOS
        one_stage: nn.Module = kind(
            pyramid,
            k,
            anchor_generator=anchors,
            score_thresh=limits["score"],
            nms_thresh=limits["nms"],
            detections_per_img=limits["per_image"],
            topk_candidates=limits["candidates"],
            **pixels,
        )
        return one_stage
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    pool.scales = [1.0 / stride for stride in strides[:4]]  # not to be guessed from rounded sides
    pool.map_levels = LevelMapper(2, 5)
    if pyramid.plain:
        pool.featmap_names = ["p2", "p3", "p4", "p5"]
    width = described["box_head_width"]
    two_stage: nn.Module = FasterRCNN(
        pyramid,
        None,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_test=limits["candidates"],
        rpn_post_nms_top_n_test=limits["proposals"],
        box_roi_pool=pool,
        box_head=TwoMLPHead(pyramid.out_channels * 49, width),
        box_predictor=FastRCNNPredictor(width, k + 1),
        box_score_thresh=limits["score"],
        box_nms_thresh=limits["nms"],
        box_detections_per_img=limits["per_image"],
        **pixels,
    )
    return two_stage
