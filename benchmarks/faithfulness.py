"""Cost of heat maps and of their faithfulness, each measured in one run on one detector and image.

    python benchmarks/faithfulness.py [--size 224] [--arch resnet18] [--boxes 4] [--points 12] [--threads 2]

Every method explains the same boxes after one forward pass. Deletion and insertion run the network on 2 x points
versions of the image for each map; they are timed as the product runs them, many versions at a time, and as a loop of
one version at a time. Weights are random: times do not depend on them. Times are the best of several; run it on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from twinray.backbones.build import build_backbone
from twinray.detection.model import DetectorOptions, build_detector
from twinray.detection.pyramid import POOLED_LEVELS
from twinray.explanation.faithfulness import (
    energy_inside,
    pointing_hit,
    removal_curves,
    versions_scorer,
)
from twinray.inference.heat_maps import box_scorer, fixed_boxes, heat_maps
from twinray.inference.methods import METHODS


def best_time(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--boxes", type=int, default=4)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = (arguments.size, arguments.size)
    detector = build_detector(
        build_backbone(arguments.arch), DetectorOptions(size=size[0]), ("a", "b"), seed=0
    ).eval()
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    forward = best_time(lambda: detector.detect(image), arguments.repeats)
    (found,), features = detector.detect_with_features(image)
    chosen = list(range(min(arguments.boxes, len(found))))
    print(
        f"{arguments.arch}, {size[0]} x {size[0]}, {len(chosen)} boxes, {arguments.threads} threads, CPU"
    )
    print(f"forward pass with boxes                 {forward * 1e3:10.1f} ms")
    for method in METHODS:
        if method == "ablation-rerun":
            continue  # benchmarks/ablation_cam.py times a part of it
        seconds = best_time(
            lambda method=method: heat_maps(detector, features, found, chosen, size, method),
            arguments.repeats,
        )
        print(f"{method:<38}  {seconds / len(chosen) * 1e3:10.1f} ms a box")
    heats = [heat.map for heat in heat_maps(detector, features, found, chosen, size, "odam")]
    places = found.boxes[chosen].double().cpu().numpy()

    def inside() -> list[float]:
        pairs = list(zip(heats, places, strict=True))
        return [pointing_hit(heat, box) + energy_inside(heat, box) for heat, box in pairs]

    print(
        f"pointing game and energy                {best_time(inside, arguments.repeats) / len(chosen) * 1e3:10.1f} ms a map"
    )

    def pyramid(versions: torch.Tensor) -> list[torch.Tensor]:
        levels = detector.backbone(versions.contiguous(memory_format=torch.channels_last)).pyramid
        return [levels[name] for name in POOLED_LEVELS]

    score, boxes = versions_scorer(pyramid, box_scorer(detector)), fixed_boxes(found, chosen)

    def curves(batch_size: int) -> None:
        removal_curves(
            image[0], heats, boxes, score, points=arguments.points, batch_size=batch_size
        )

    together = best_time(lambda: curves(arguments.batch_size), arguments.repeats) / len(chosen)
    alone = best_time(lambda: curves(1), arguments.repeats) / len(chosen)
    print(
        f"deletion and insertion, {arguments.batch_size:3d} at a time     {together * 1e3:10.1f} ms a map"
    )
    print(f"deletion and insertion, one at a time   {alone * 1e3:10.1f} ms a map")
    print(f"ratio                                   {alone / together:10.2f}")


if __name__ == "__main__":
    main()
