"""Speed of the exact heat map against grad-cam's AblationCAM, on one detector and one image, in one run.

    python benchmarks/ablation_cam.py [--size 640] [--arch resnet50] [--channels 32] [--threads 2]

grad-cam zeroes nothing: it sets a channel of the pyramid to -1000 and runs proposals and heads again,
once for each of the 1,280 channels of its five levels. Only a fraction of its channels is timed and the
time scaled up, which is said in the output. Weights are random; so that suppression is not
flooded by boxes that no trained detector would keep, the library's score threshold is set to the least
score among the detector's best 100 boxes. Times are the best of several; run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from twinray.backbones.build import build_backbone
from twinray.detection.model import Detector, DetectorOptions, build_detector
from twinray.detection.postprocess import Detection
from twinray.detection.pyramid import LEVELS, POOLED_LEVELS, Pyramid
from twinray.explanation.ablation_cam import ablation_cam_fpn, ablation_cam_last_stage
from twinray.explanation.occlusion import bin_occlusion
from twinray.explanation.scoring import BoxScorer, FixedBox

CLASSES = tuple(f"class {i}" for i in range(14))


class LibraryBackbone(nn.Module):
    """Backbone and pyramid under the level names that grad-cam expects."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        names = ("0", "1", "2", "3", "pool")
        return OrderedDict(zip(names, self.pyramid(images).pyramid.values(), strict=True))


class LibraryView(nn.Module):
    """The same detector as grad-cam sees one: ``backbone`` to replace, a list of dicts as output."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = [
            detector
        ]  # kept out of the module tree: the library swaps modules by identity
        self.backbone = LibraryBackbone(detector.backbone)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        features = self.backbone(images)
        detector = self.detector[0]
        shape = (images.shape[2], images.shape[3])
        image_list = ImageList(images, [shape] * len(images))
        named = dict(zip(LEVELS, features.values(), strict=True))
        proposals, _ = detector.rpn(image_list, named, None)
        found, _ = detector.roi_heads(named, proposals, image_list.image_sizes)
        return found


class Fraction(AblationLayerFasterRCNN):
    """grad-cam's layer, ablating only the first few channels of its 1,280."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def activations_to_be_ablated(
        self, activations: Tensor, ratio_channels_to_ablate: float = 1.0
    ) -> np.ndarray:
        self.indices = np.arange(self.channels, dtype=np.int32)
        return self.indices


def best_time(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def library_seconds(detector: Detector, image: Tensor, found: Detection, channels: int) -> float:
    """Seconds of ``channels`` ablations, without the pass that finds the activations."""
    view = LibraryView(detector)
    targets = [
        FasterRCNNBoxScoreTarget(
            labels=[int(found.labels[0]) + 1], bounding_boxes=found.boxes[:1].numpy()
        )
    ]
    seconds = {}
    for n in (0, channels):
        cam = AblationCAM(
            view,
            [view.backbone],
            reshape_transform=fasterrcnn_reshape_transform,
            ablation_layer=Fraction(n),
            batch_size=4,
        )
        seconds[n] = best_time(lambda cam=cam: cam(image, targets=targets), 2)
    return seconds[channels] - seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument(
        "--channels", type=int, default=32, help="channels of grad-cam's 1,280 to time"
    )
    parser.add_argument("--boxes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = arguments.size
    detector = build_detector(
        build_backbone(arguments.arch), DetectorOptions(size=size), CLASSES, seed=0
    ).eval()
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    forward = best_time(lambda: detector.detect(image), 2)
    (found,), features = detector.detect_with_features(image)
    head = detector.roi_heads.box_head
    scorer = BoxScorer(detector.pool_level, head.fc6, head.fc7, detector.class_scores)
    levels = [features.pyramid[name] for name in POOLED_LEVELS]
    step = max(1, len(found) // arguments.boxes)
    boxes = [
        FixedBox(found.proposals[i], int(found.labels[i]), int(found.levels[i]))
        for i in range(0, len(found), step)[: arguments.boxes]
    ]
    occluded = best_time(lambda: bin_occlusion(levels, boxes, scorer, (size, size)), 5) / len(boxes)
    fast = best_time(lambda: ablation_cam_fpn(levels, boxes, scorer, (size, size)), 5) / len(boxes)
    fpn = detector.backbone.fpn
    last = best_time(
        lambda: ablation_cam_last_stage(features.stages, fpn, boxes, scorer, (size, size)), 2
    ) / len(boxes)
    detector.roi_heads.score_thresh = float(found.scores[-1])
    part = library_seconds(detector, image, found, arguments.channels)
    library = part / arguments.channels * 1280
    print(
        f"{arguments.arch}, {size} x {size}, {len(boxes)} boxes, {arguments.threads} threads, CPU"
    )
    print(f"forward pass with boxes                          {forward * 1e3:10.1f} ms")
    print(f"ours, 256 channels of the box's level            {fast * 1e3:10.1f} ms a box")
    print(f"ours, 49 windows of the box's bins               {occluded * 1e3:10.1f} ms a box")
    print(
        f"ours, {features.stages['c5'].shape[1]:4d} channels of the last stage            {last * 1e3:10.1f} ms a box"
    )
    print(f"grad-cam, 1,280 channels                         {library:10.1f} s a box")
    print(
        f"  (measured on {arguments.channels} channels: {part:.1f} s; scaled to 1,280, not run in full)"
    )
    print(f"ratio grad-cam / ours                            {library / fast:10.0f}")


if __name__ == "__main__":
    main()
