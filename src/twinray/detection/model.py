"""Faster R-CNN with a feature pyramid on any backbone, built the same way for every initial weight.

Ren et al. 2015 and Lin et al. 2017, from torchvision's components. Only the backbone's initial tensors
differ between the arms of a comparison: everything else is drawn from the seed alone. Images arrive as
one normalised square batch, so torchvision's per-image resizing is left out.

Shapes: b batch, s side of the square images in pixels, n boxes, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from twinray.backbones.build import Backbone
from twinray.detection.norm import NormPolicy, apply_norm_policy, set_norm_modes
from twinray.detection.postprocess import Detection, Limits, select_detections
from twinray.detection.pyramid import (
    POOLED_LEVELS,
    STRIDES,
    Anchors,
    Features,
    Float32Predictor,
    Float32RPNHead,
    Pyramid,
)
from twinray.detection.roi_align import MultiScaleRoIAlign
from twinray.detection.targets import BoxTargets
from twinray.errors import InputError

POOLED_SIDE = 7


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is built; the same for every arm of a comparison.

    Attributes:
        size: side of the square input in pixels, a multiple of 32.
        norm: backbone normalisation: frozen, eval, trainable or group.
        trainable_stages: backbone stages that learn, from the last: 5 all, 3 without stem and layer1, 0 none.
        fpn_channels: channels of the feature pyramid.
        box_head_width: width of the two fully connected layers of the box head.
        anchor_scale: side of the square anchor in strides: 8 gives 32, 64, 128, 256, 512 pixels.
        anchor_ratios: heights / widths of the anchors.
        proposals_before_nms: (training, evaluation) proposals kept per level before suppression.
        proposals: (training, evaluation) proposals kept per image.
        anchors_per_image: anchors sampled per image for the proposal loss.
        rois_per_image: proposals sampled per image for the box loss.
        score_threshold: boxes below it are dropped. Low on purpose: average precision and FROC need the
            tail of the precision-recall curve, which the usual 0.05 cuts off. Raise it to 0.05 to follow
            torchvision and MMDetection.
        nms: IoU above which the weaker of two boxes of one class is dropped.
        detections_per_image: at most this many boxes an image.
    """

    size: int = 224
    norm: NormPolicy = "trainable"
    trainable_stages: int = 5
    fpn_channels: int = 256
    box_head_width: int = 1024
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals_before_nms: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1000, 1000)
    anchors_per_image: int = 256
    rois_per_image: int = 512
    score_threshold: float = 0.001
    nms: float = 0.5
    detections_per_image: int = 100


@final
class Detector(nn.Module):
    """The detector. Its state-dict names are those of torchvision's ``FasterRCNN``.

    Attributes:
        options: how it was built.
        box_classes: names that labels index from 0; the background is added inside.
    """

    def __init__(self, backbone: Backbone, options: DetectorOptions, box_classes: Sequence[str]) -> None:
        super().__init__()
        self.options = options
        self.box_classes = tuple(box_classes)
        apply_norm_policy(backbone, options.norm, options.trainable_stages)
        self.backbone = Pyramid(backbone, options.fpn_channels)
        self.rpn = _proposal_network(options)
        self.roi_heads = _box_heads(options, len(self.box_classes) + 1)

    def train(self, mode: bool = True) -> Detector:
        """Training or evaluation mode; statistics that the norm policy freezes stay frozen in both."""
        super().train(mode)
        set_norm_modes(self.backbone.body, self.options.norm, self.options.trainable_stages)
        return self

    def forward(self, images: Tensor, targets: BoxTargets) -> dict[str, Tensor]:
        """The four losses of Faster R-CNN, to be summed.

        Args:
            images: (b, 3, s, s) normalised.
            targets: true boxes in pixels of ``images``; images without any are negatives.

        Raises:
            ValueError: the detector is in evaluation mode, or the batch sizes disagree.
        """
        if not self.training:
            raise ValueError("losses need training mode: call train() first; for boxes call detect()")
        if targets.n_images != len(images):
            raise ValueError(f"expected targets of {len(images)} images, got {targets.n_images}")
        image_list = _as_image_list(images)
        # Here the background enters: torchvision's label 0.
        truth = [{"boxes": boxes, "labels": labels + 1} for boxes, labels in targets.per_image()]
        pyramid = self.backbone(images).pyramid
        proposals, losses = self.rpn(image_list, pyramid, truth)
        _, box_losses = self.roi_heads(pyramid, proposals, image_list.image_sizes, truth)
        return {**losses, **box_losses}

    def detect(self, images: Tensor) -> list[Detection]:
        """Final boxes of (b, 3, s, s) normalised images, in their pixels; evaluation mode only."""
        return self.detect_with_features(images)[0]

    @torch.no_grad()
    def detect_with_features(self, images: Tensor) -> tuple[list[Detection], Features]:
        """``detect``, and the feature maps that explanations need.

        Raises:
            ValueError: the detector is in training mode.
        """
        if self.training:
            raise ValueError("boxes need evaluation mode: call eval() first")
        image_list = _as_image_list(images)
        features = self.backbone(images)
        proposals, _ = self.rpn(image_list, features.pyramid, None)
        pooled = self.roi_heads.box_roi_pool(features.pyramid, proposals, image_list.image_sizes)
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        boxes = self.roi_heads.box_coder.decode(deltas, proposals)[:, 1:]
        size = (images.shape[2], images.shape[3])
        limits = Limits(self.options.score_threshold, self.options.nms, self.options.detections_per_image)
        probabilities = logits.softmax(dim=1)[:, 1:]
        return select_detections(probabilities, boxes, proposals, size, limits, len(POOLED_LEVELS)), features

    def pool_level(self, feature: Tensor, rois: Tensor, level: int) -> Tensor:
        """Pool ``rois`` (n, 5: image, xyxy) from pyramid level 0..3's map (b, c, h, w): (n, c, 7, 7)."""
        pool: MultiScaleRoIAlign = self.roi_heads.box_roi_pool
        return pool.pool_level(feature, rois, level)

    def class_scores(self, hidden: Tensor) -> Tensor:
        """Class probabilities (n, k), without the background's, of the box head's output (n, width)."""
        logits: Tensor = self.roi_heads.box_predictor.cls_score(hidden)
        return logits.softmax(dim=1)[:, 1:]


def build_detector(backbone: Backbone, options: DetectorOptions, box_classes: Sequence[str], seed: int) -> Detector:
    """A detector on ``backbone``, which it takes over and changes in place (norms, frozen stages).

    Args:
        backbone: already initialised; its weights are kept.
        options: how to build it.
        box_classes: names of the classes, without a background.
        seed: everything outside the backbone is drawn from it, whatever was drawn before.

    Raises:
        InputError: options that no detector can be built from.
    """
    _check(options, box_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(backbone, options, box_classes)


def layer_report(detector: Detector) -> dict[str, dict[str, int]]:
    """For a run's record: number of values in each layer that learns and in each that does not."""
    report: dict[str, dict[str, int]] = {"trainable": {}, "frozen": {}}
    for name, parameter in detector.named_parameters():
        layers = report["trainable" if parameter.requires_grad else "frozen"]
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, 0) + parameter.numel()
    return report


def frozen_random_layers(detector: Detector, init_is_random: bool) -> list[str]:
    """Backbone layers that hold random values and never learn: such an arm is no fair floor.

    Counts layers with frozen parameters and batch norms whose statistics were never estimated and are
    never updated. Empty when the backbone's weights were loaded.

    Args:
        detector: as built, before training.
        init_is_random: whether the backbone kept its random initial weights.
    """
    if not init_is_random:
        return []
    found = []
    was_training = detector.training
    detector.train()
    for name, module in detector.backbone.body.named_modules():
        frozen = any(not p.requires_grad for p in module.parameters(recurse=False))
        stale = isinstance(module, nn.BatchNorm2d) and not module.training
        if frozen or stale:
            found.append(name)
    detector.train(was_training)
    return found


def _proposal_network(options: DetectorOptions) -> RegionProposalNetwork:
    anchors = Anchors(options.anchor_scale, options.anchor_ratios)
    before, after = options.proposals_before_nms, options.proposals
    return RegionProposalNetwork(
        anchors,
        Float32RPNHead(options.fpn_channels, len(options.anchor_ratios)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=options.anchors_per_image,
        positive_fraction=0.5,
        pre_nms_top_n={"training": before[0], "testing": before[1]},
        post_nms_top_n={"training": after[0], "testing": after[1]},
        nms_thresh=0.7,
    )


def _box_heads(options: DetectorOptions, n_outputs: int) -> RoIHeads:
    return RoIHeads(
        MultiScaleRoIAlign(POOLED_LEVELS, STRIDES[: len(POOLED_LEVELS)], POOLED_SIDE),
        TwoMLPHead(options.fpn_channels * POOLED_SIDE**2, options.box_head_width),
        Float32Predictor(options.box_head_width, n_outputs),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=options.rois_per_image,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=options.score_threshold,
        nms_thresh=options.nms,
        detections_per_img=options.detections_per_image,
    )


def _as_image_list(images: Tensor) -> ImageList:
    return ImageList(images, [(images.shape[2], images.shape[3])] * len(images))


def _check(options: DetectorOptions, box_classes: Sequence[str]) -> None:
    if not box_classes or len(set(box_classes)) != len(box_classes):
        raise InputError(
            f"expected at least one box class and no name twice, got {list(box_classes)}; check the pack's classes"
        )
    if options.size < 64 or options.size % 32:
        raise InputError(
            f"expected a size that is a multiple of 32 and at least 64 pixels, got {options.size}; try 224 or 640"
        )
    positive = {
        "fpn_channels": options.fpn_channels,
        "box_head_width": options.box_head_width,
        "anchor_scale": options.anchor_scale,
        "anchors_per_image": options.anchors_per_image,
        "rois_per_image": options.rois_per_image,
        "detections_per_image": options.detections_per_image,
        "proposals_before_nms": min(options.proposals_before_nms),
        "proposals": min(options.proposals),
        "anchor_ratios": min(options.anchor_ratios, default=0),
    }
    for name, value in positive.items():
        if value <= 0:
            raise InputError(f"expected {name} above 0, got {getattr(options, name)}; choose another value")
    for name in ("score_threshold", "nms"):
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(f"expected {name} between 0 and 1, got {getattr(options, name)}; choose another value")
