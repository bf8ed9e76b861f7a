"""A detector with a feature pyramid on any backbone, built the same way for every initial weight.

Faster R-CNN (Ren et al. 2015), RetinaNet and FCOS on feature pyramids (Lin et al. 2017; of plain transformers Li et al.
2022), from torchvision's components. Only the backbone's initial tensors differ between the arms of a comparison: everything else is
drawn from the seed alone. Images arrive as one normalised square batch, so torchvision's per-image resizing
is left out.

Shapes: b batch, s side of the square images in pixels, n boxes, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.backbones.contract import PATCH_STRIDES
from twinray.backbones.norm import NormPolicy, apply_norm_policy, is_batch_norm, set_norm_modes
from twinray.backbones.pixels import Filter
from twinray.detection.batched.roi_align import MultiScaleRoIAlign
from twinray.detection.one_stage import OneStage
from twinray.detection.postprocess import Detection, Detections, Limits, select_detections
from twinray.detection.pyramid import POOLED_LEVELS, STRIDES, Features, Pyramid
from twinray.detection.targets import BoxTargets
from twinray.detection.transforms import evaluation_batch
from twinray.detection.two_stage import Outputs, box_heads, proposal_network
from twinray.errors import InputError
from twinray.runs.description import Normalisation

DetectorKind = Literal["faster-rcnn", "retinanet", "fcos"]
LEAST_SIZE = 64
P5_STRIDE = STRIDES[len(POOLED_LEVELS) - 1]
Dense: TypeAlias = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Pyramid maps by level, and the outputs of the head that looks at every place."""


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is built; the same for every arm of a comparison.

    Attributes:
        detector: faster-rcnn, retinanet or fcos; options of proposals and box head are faster-rcnn's.
        size: side of the square input in pixels, a multiple of p5's stride: 32, or 28 for patches of 14 pixels.
        resize: filter that brings packed images to that side.
        norm: backbone normalisation: frozen, eval, trainable or group.
        trainable_stages: backbone stages that learn, from the last: 5 all, 3 without stem and layer1, 0 none.
        trainable_blocks: blocks of a plain transformer that learn, from the last, in place of stages.
        fpn_channels: channels of the feature pyramid.
        box_head_width: width of the two fully connected layers of the box head.
        anchor_scale: side of the smallest square anchor in strides. On strides from 4, 8 gives 32,
            64, 128, 256, 512 pixels. On RetinaNet's strides from 8, 4 gives the same (with two
            sizes between each). For fcos it is the side of a point's cell, 1.
        anchor_ratios: heights / widths of the anchors.
        round_anchors: anchors of whole pixels, as torchvision's.
        norm_eps: what the backbone's batch norms add to the variance; None for the network's own value.
        proposals_before_nms: (training, evaluation) proposals kept per level before suppression; for one-stage
            detectors the second counts pairs of place and class.
        proposals: (training, evaluation) proposals kept per image.
        anchors_per_image: anchors sampled per image for the proposal loss.
        rois_per_image: proposals sampled per image for the box loss.
        score_threshold: boxes below it are dropped. Low on purpose: average precision and FROC need the
            tail of the precision-recall curve, which the usual 0.05 cuts off. Raise it to 0.05 to follow
            torchvision and MMDetection.
        nms: IoU above which the weaker of two boxes of one class is dropped.
        detections_per_image: largest number of boxes an image.
        aligned: whether maps of networks with TensorFlow's padding are moved to where anchors and boxes look; runs of versions
            before were not.
    """

    detector: DetectorKind = "faster-rcnn"
    size: int = 224
    resize: Filter = "bicubic"
    norm: NormPolicy = "trainable"
    trainable_stages: int = 5
    trainable_blocks: int | None = None
    fpn_channels: int = 256
    box_head_width: int = 1024
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    round_anchors: bool = False
    norm_eps: float | None = None
    proposals_before_nms: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1000, 1000)
    anchors_per_image: int = 256
    rois_per_image: int = 512
    score_threshold: float = 0.001
    nms: float = 0.5
    detections_per_image: int = 100
    aligned: bool = False


@final
class Detector(nn.Module):
    """The detector. Its state-dict names are those of torchvision's ``FasterRCNN``, ``RetinaNet`` or ``FCOS``.

    Only ``options.detector`` faster-rcnn has ``rpn`` and ``roi_heads``, and with them ``pool_level`` and
    ``class_scores``; the others have ``head``.

    Attributes:
        options: options that it was built with.
        box_classes: names that labels index from 0; the background is added inside.
    """

    def __init__(
        self, backbone: Backbone, options: DetectorOptions, box_classes: Sequence[str]
    ) -> None:
        super().__init__()
        self.options = options
        self.box_classes = tuple(box_classes)
        backbone.aligned = options.aligned
        apply_norm_policy(
            backbone, options.norm, options.trainable_stages, options.trainable_blocks
        )
        for module in backbone.modules():
            if options.norm_eps is not None and isinstance(module, nn.BatchNorm2d):
                module.eps = options.norm_eps
        self.backbone = Pyramid(
            backbone, options.fpn_channels, one_stage=options.detector != "faster-rcnn"
        )
        self.one_stage: OneStage | None = None
        if options.detector != "faster-rcnn":
            self.one_stage = OneStage(
                options.detector,
                options.fpn_channels,
                len(self.box_classes),
                options.anchor_scale,
                options.anchor_ratios,
                self.backbone.strides,
            )
            self.head = self.one_stage.head
            self.one_stage.anchors.rounded = options.round_anchors
            return
        self.rpn = proposal_network(
            options.fpn_channels,
            options.anchor_scale,
            options.anchor_ratios,
            self.backbone.strides,
            sampled=options.anchors_per_image,
            before_nms=options.proposals_before_nms,
            after_nms=options.proposals,
        )
        self.rpn.anchor_generator.rounded = options.round_anchors
        self.roi_heads = box_heads(
            options.fpn_channels,
            options.box_head_width,
            len(self.box_classes) + 1,
            self.backbone.strides,
            sampled=options.rois_per_image,
            score_threshold=options.score_threshold,
            nms=options.nms,
            per_image=options.detections_per_image,
        )

    @property
    def normalisation(self) -> Normalisation:
        """Pixels that the backbone's weights take."""
        return self.backbone.body.normalisation

    def network_input(self, pixels: Tensor) -> Tensor:
        """Packed pixels (b, p, p[, 3]) -> (b, 3, s, s) normalised, channels last; nothing is drawn."""
        seen = evaluation_batch(pixels, self.options.size, self.options.resize, self.normalisation)
        return seen.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Detector:
        """Training or evaluation mode; statistics that the norm policy freezes stay frozen in both."""
        super().train(mode)
        set_norm_modes(self.backbone.body, self.options.norm, self.options.trainable_stages)
        return self

    def dense(self, images: Tensor) -> Dense:
        """Everything whose shape the images' alone decides: backbone, pyramid and the head on every place of it.

        Args:
            images: (b, 3, s, s) normalised.
        """
        maps = self.backbone(images).pyramid
        levels = list(maps.values())
        if self.one_stage is not None:
            return maps, self.one_stage.outputs(levels)
        return maps, self.rpn.outputs(levels)

    def forward(
        self, images: Tensor, targets: BoxTargets, dense: Callable[[Tensor], Dense] | None = None
    ) -> dict[str, Tensor]:
        """The losses of the detector (four of Faster R-CNN, two of RetinaNet, three of FCOS), to be summed.

        Args:
            images: (b, 3, s, s) normalised.
            targets: true boxes in pixels of ``images``; images without any are negatives.
            dense: :meth:`dense`, compiled perhaps; None for the method itself.

        Raises:
            ValueError: the detector is in evaluation mode, or the batch sizes disagree.
        """
        if not self.training:
            raise ValueError(
                "losses need training mode: call train() first; for boxes call detect()"
            )
        if targets.n_images != len(images):
            raise ValueError(f"expected targets of {len(images)} images, got {targets.n_images}")
        maps, outputs = (dense or self.dense)(images)
        levels = list(maps.values())
        if self.one_stage is not None:
            return self.one_stage.losses(outputs, levels, targets)
        found = Outputs(**outputs, counts=self.rpn.counts(levels))
        anchors = self.rpn.anchor_generator.on(levels)
        size = (images.shape[2], images.shape[3])
        losses = self.rpn.losses(found, anchors, targets)
        chosen = self.roi_heads.sampled(self.rpn.propose(found, anchors, size), targets)
        return {**losses, **self.roi_heads.losses(maps, chosen)}

    def detect(self, images: Tensor) -> list[Detection]:
        """Final boxes of (b, 3, s, s) normalised images, in their pixels; evaluation mode only."""
        return self.detect_with_features(images)[0]

    @torch.no_grad()
    def detect_batch(self, images: Tensor) -> Detections:
        """``detect``, as many rows for every image.

        Raises:
            ValueError: the detector is in training mode.
        """
        self._check_evaluation()
        return self._found(self.backbone(images).pyramid, (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def detect_with_features(self, images: Tensor) -> tuple[list[Detection], Features]:
        """``detect``, and the feature maps that explanations need.

        Raises:
            ValueError: the detector is in training mode.
        """
        self._check_evaluation()
        features = self.backbone(images)
        found = self._found(features.pyramid, (images.shape[2], images.shape[3]))
        return found.per_image(), features

    @torch.no_grad()
    def detect_on_pyramid(
        self, pyramid: Mapping[str, Tensor], image_size: tuple[int, int]
    ) -> list[Detection]:
        """Final boxes from the maps of every level, (b, c, h, w) each, of images of ``image_size`` (height, width)."""
        return self._found(pyramid, image_size).per_image()

    def _check_evaluation(self) -> None:
        if self.training:
            raise ValueError("boxes need evaluation mode: call eval() first")

    def _found(self, maps: Mapping[str, Tensor], image_size: tuple[int, int]) -> Detections:
        options, levels = self.options, list(maps.values())
        limits = Limits(options.score_threshold, options.nms, options.detections_per_image)
        if self.one_stage is not None:
            return self.one_stage.detections(
                self.one_stage.outputs(levels),
                levels,
                image_size,
                limits,
                options.proposals_before_nms[1],
            )
        found = Outputs(**self.rpn.outputs(levels), counts=self.rpn.counts(levels))
        proposed = self.rpn.propose(found, self.rpn.anchor_generator.on(levels), image_size)
        logits, codes = self.roi_heads.outputs(maps, proposed.boxes, proposed.valid)
        boxes = self.roi_heads.decoded(codes, proposed.boxes)
        probabilities = logits.softmax(dim=2)
        return select_detections(
            probabilities[..., 1:],
            boxes[:, :, 1:],
            proposed.boxes,
            proposed.valid,
            image_size,
            limits,
            len(POOLED_LEVELS),
        )

    def pool_level(self, feature: Tensor, rois: Tensor, level: int) -> Tensor:
        """Pool ``rois`` (n, 5: image, xyxy) from pyramid level 0..3's map (b, c, h, w): (n, c, 7, 7)."""
        pool: MultiScaleRoIAlign = self.roi_heads.box_roi_pool
        return pool.pool_level(feature, rois, level)

    def class_scores(self, hidden: Tensor) -> Tensor:
        """Class probabilities (n, k), without the background's, of the box head's output (n, width)."""
        logits: Tensor = self.roi_heads.box_predictor.cls_score(hidden)
        return logits.softmax(dim=1)[:, 1:]


def build_detector(
    backbone: Backbone, options: DetectorOptions, box_classes: Sequence[str], seed: int
) -> Detector:
    """A detector on ``backbone``, which it takes over and changes in place (norms, frozen stages).

    Args:
        backbone: already initialised; its weights are kept.
        options: options to build it with.
        box_classes: names of the classes, without a background.
        seed: everything outside the backbone is drawn from it, whatever was drawn before.

    Raises:
        InputError: options that no detector can be built from.
    """
    _check(options, box_classes, backbone)
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
        detector: detector as built, before training.
        init_is_random: whether the backbone kept its random initial weights.
    """
    if not init_is_random:
        return []
    found = []
    was_training = detector.training
    detector.train()
    body = detector.backbone.body
    for name, module in body.named_modules():
        frozen = any(
            not p.requires_grad and body.stage_of(f"{name}.{own}".lstrip(".")) is not None
            for own, p in module.named_parameters(recurse=False)
        )
        stale = is_batch_norm(module) and not module.training
        if (frozen or stale) and body.stage_of(name) is not None:
            found.append(name)
    detector.train(was_training)
    return found


def size_step(backbone: Backbone) -> int:
    """What the side of a detector's input must be a multiple of: p5's stride, so that every cell has its pixels."""
    patch = backbone.patch
    return P5_STRIDE * patch // PATCH_STRIDES[patch] if patch else P5_STRIDE


def _check(options: DetectorOptions, box_classes: Sequence[str], backbone: Backbone) -> None:
    if not box_classes or len(set(box_classes)) != len(box_classes):
        raise InputError(
            f"expected at least one box class and no name twice, got {list(box_classes)}; check the pack's classes"
        )
    step = size_step(backbone)
    if options.size < LEAST_SIZE or options.size % step:
        of = f" for patches of {backbone.patch} pixels" if step != P5_STRIDE else ""
        below = max(options.size // step, -(-LEAST_SIZE // step)) * step
        raise InputError(
            f"expected a size that is a multiple of {step}{of} and at least {LEAST_SIZE} pixels, got {options.size}; "
            f"try {below} or {below + step}"
        )
    if options.detector == "fcos" and (options.fpn_channels % 32 or options.fpn_channels < 64):
        raise InputError(  # its group norms have 32 groups: of more than one channel, or a level of one pixel is lost
            f"fcos needs fpn_channels that 32 divides, 64 or more, got {options.fpn_channels}; try 256"
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
            raise InputError(
                f"expected {name} above 0, got {getattr(options, name)}; choose another value"
            )
    for name in ("score_threshold", "nms"):
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(
                f"expected {name} between 0 and 1, got {getattr(options, name)}; choose another value"
            )
