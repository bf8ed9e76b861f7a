"""Training throughput of our detector against torchvision's own reference-style loop, on one data set, in one run.

    python benchmarks/detect_throughput.py ANNOTATIONS.json [--images DIR] [--threads 2] [--json OUT.json]

Same network (Faster R-CNN, FPN), same initial tensors, same images, same batch and number of sampled proposals. Ours:
a pack, whole batches through batched transforms, the training step of ``twinray detect`` under its ``sound`` protocol,
in the precision that ``auto`` picks, on a GPU with and without ``torch.compile``, and in float32. Theirs: ``FasterRCNN`` with its own per-image resizing, files
opened with Pillow for every image, transforms of ``torchvision.transforms.v2`` (a flip, float conversion), a DataLoader
that collates with ``tuple(zip(*batch))``, float32, SGD. The arms take turns in short rounds, so that a slow moment of the
machine meets all of them; rates are images over the sum of the rounds' seconds, after one round that is not counted.

Packing (once, before training) is not counted; its rate is in ``benchmarks/pack.py``. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.transforms import v2

from turns import one_step, packed_batches
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated
from twinray.detection.model import Detector
from twinray.detection.options import resolve
from twinray.detection.run import make_detector, make_loop
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.training.device import Machine, choose_machine
from twinray.training.engine import Loop


class ReferenceImages(torch.utils.data.Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Annotated files as torchvision's detection references read them: one image at a time, with Pillow."""

    def __init__(self, annotations: Path, images: Path) -> None:
        data = json.loads(annotations.read_text())
        self.folder, self.images = images, data["images"]
        labels = {category["id"]: i + 1 for i, category in enumerate(data["categories"])}
        self.boxes: dict[int, list[tuple[list[float], int]]] = {}
        for a in data["annotations"]:
            x, y, w, h = a["bbox"]
            self.boxes.setdefault(a["image_id"], []).append(
                ([x, y, x + w, y + h], labels[a["category_id"]])
            )
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomHorizontalFlip(0.5),
                v2.ToDtype(torch.float32, scale=True),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        record = self.images[index]
        with Image.open(self.folder / record["file_name"]) as file:
            image = file.convert("RGB")
        found = self.boxes.get(record["id"], [])
        boxes = torch.tensor([box for box, _ in found], dtype=torch.float32).reshape(-1, 4)
        target = {
            "boxes": tv_tensors.BoundingBoxes(
                boxes, format="XYXY", canvas_size=(image.height, image.width)
            ),  # type: ignore[call-overload]
            "labels": torch.tensor([label for _, label in found], dtype=torch.int64),
        }
        image, target = self.transform(image, target)
        return image, target


@dataclass
class Arm:
    """One way to train: an endless source of batches and a whole step; and what it took."""

    name: str
    batches: Iterator[Any]
    step: Callable[[Any, int], None]
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    warming: float = 0.0  # seconds of the rounds that do not count

    def round(self, steps: int, batch_size: int, device: torch.device, counted: bool) -> None:
        _finish(device)
        start, waited = time.perf_counter(), 0.0
        for i in range(steps):
            before = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - before
            self.step(batch, self.images + i)
        _finish(device)
        if counted:
            self.images += steps * batch_size
            self.seconds += time.perf_counter() - start
            self.waited += waited
        else:
            self.warming += time.perf_counter() - start

    @property
    def rate(self) -> float:
        return self.images / self.seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(name: str, loop: Loop) -> Arm:
    """The steps of the training loop, without its log and checkpoints."""

    loop.model.train()
    return Arm(name, packed_batches(loop), partial(one_step, loop))


def reference(
    arguments: argparse.Namespace, detector: Detector, images: Path, device: torch.device
) -> Arm:
    """torchvision's loop on torchvision's network with our detector's tensors."""
    body = resnet_fpn_backbone(
        backbone_name=arguments.arch, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    sides = tuple((int(detector.options.anchor_scale * stride),) for stride in (4, 8, 16, 32, 64))
    model = FasterRCNN(
        body,
        num_classes=len(detector.box_classes) + 1,
        min_size=arguments.size,
        max_size=arguments.size,
        rpn_anchor_generator=AnchorGenerator(sides, (detector.options.anchor_ratios,) * len(sides)),
        rpn_pre_nms_top_n_train=detector.options.proposals_before_nms[0],
        rpn_post_nms_top_n_train=detector.options.proposals[0],
        box_batch_size_per_image=arguments.rois,
    )
    model.load_state_dict(detector.state_dict(), strict=True)
    model = model.to(device).train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9, weight_decay=1e-4
    )
    loader = torch.utils.data.DataLoader(
        ReferenceImages(arguments.annotations, images),
        batch_size=arguments.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        persistent_workers=arguments.workers > 0,
        generator=torch.Generator().manual_seed(0),
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    def step(batch: Any, number: int) -> None:
        pixels = [image.to(device) for image in batch[0]]
        targets = [
            {name: value.to(device) for name, value in target.items()} for target in batch[1]
        ]
        losses = model(pixels, targets)
        loss = sum(losses.values())
        float(loss)  # the reference reduces and checks the loss of every step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Arm("torchvision, reference-style, float32", batches(), step)


def make_arms(arguments: argparse.Namespace, work: Path) -> tuple[list[Arm], Machine]:
    images = arguments.images or arguments.annotations.parent / "images"
    packed = work / "pack"
    side = arguments.pack_size or max(256, arguments.size)
    pack_images(
        PackConfig(
            source=(arguments.annotations,),
            format="coco",
            images=images,
            out=packed,
            size=side,
            val=0,
            test=0,
            workers=arguments.threads,
        )
    )
    pack = open_pack(packed)
    arms: list[Arm] = []
    chosen = choose_machine(arguments.device, arguments.precision)
    compiled = "on" if chosen.device.type == "cuda" else "off"
    ways = [(chosen.bf16, compiled), (chosen.bf16, "off"), (False, "off")]
    for bf16, compile_ in dict.fromkeys(ways):
        machine = Machine(chosen.device, bf16)
        config = resolve(
            DetectConfig(
                data=packed,
                out=work / "run",
                arch=arguments.arch,
                size=arguments.size,
                batch_size=arguments.batch_size,
                rois_per_image=arguments.rois,
                lr=1e-4,
                compile=compile_,
            )
        )
        detector, _ = make_detector(config, pack)
        if not arms:
            other = reference(arguments, detector, images, machine.device)
        detector = detector.to(machine.device, memory_format=torch.channels_last)
        data = {split: annotated(pack, split) for split in ("train", "val", "test")}
        name = f"twinray, {machine.precision}" + (", compiled" if compile_ == "on" else "")
        arms.append(ours(name, make_loop(config, detector, data, machine)))
    return [*arms, other], chosen


def results(arms: list[Arm], arguments: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    base = arms[-1].rate
    return {
        "device": torch.cuda.get_device_name(machine.device)
        if machine.device.type == "cuda"
        else "cpu",
        "threads": arguments.threads,
        "workers_of_reference": arguments.workers,
        "network": f"faster-rcnn {arguments.arch}, FPN, {arguments.size} pixels, batch {arguments.batch_size}, "
        f"{arguments.rois} sampled proposals an image",
        "torch": torch.__version__,
        "arms": {
            arm.name: {
                "images_per_s": arm.rate,
                "seconds_per_step": arm.seconds / (arm.images / arguments.batch_size),
                "data_wait": arm.waited / arm.seconds,
                "ratio_to_reference": arm.rate / base,
                "images": arm.images,
            }
            for arm in arms
        },
        "minutes_of_50_epochs_of_3075_images": 50 * 3075 / arms[0].rate / 60,
    }


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['network']}; {found['device']}, {found['threads']} threads; torch {found['torch']}"
    )
    print(f"{'':42}{'images/s':>10}{'s a step':>10}{'data wait':>11}{'ratio':>8}")
    for name, row in found["arms"].items():
        print(
            f"{name:42}{row['images_per_s']:10.2f}{row['seconds_per_step']:10.2f}{row['data_wait']:11.1%}"
            f"{row['ratio_to_reference']:8.2f}"
        )
    minutes = found["minutes_of_50_epochs_of_3075_images"]
    print(
        f"50 epochs of 3,075 images at the first row's rate (extrapolated, without validation): {minutes:.0f} minutes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="COCO file")
    parser.add_argument(
        "--images", type=Path, help="folder of its images; default images/ beside it"
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument(
        "--pack-size",
        type=int,
        default=0,
        help="side of packed images; default 256, or --size if larger",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="steps of an arm in each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the reference's DataLoader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bf16"))
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as work:
        arms, machine = make_arms(arguments, Path(work))
        for number in range(arguments.rounds + 1):
            for arm in arms:
                arm.round(arguments.steps, arguments.batch_size, machine.device, counted=number > 0)
        found = results(arms, arguments, machine)
        for arm in arms:
            arm.batches.close()  # type: ignore[attr-defined]
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
