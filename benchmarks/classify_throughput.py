"""Speed of classifiers, in one run: features that are cached, and full fine-tuning against a usual PyTorch loop.

    python benchmarks/classify_throughput.py [--images DIR] [--threads 2] [--json OUT.json]

1. 30 epochs of the linear layer on frozen features: computed once (``--cache``) and at every step (``--no-cache``), the whole verb each
   time, test images included. Without transforms, so both learn the same.
2. Full fine-tuning of a ResNet-18 at 224 pixels, batch 64: the training step of ``twinray classify --policy full`` on a pack, in the
   precision that ``auto`` picks and in float32, against torchvision's ``ImageFolder`` on the same JPEG files (Pillow, RandomResizedCrop,
   RandomHorizontalFlip, ToTensor, Normalize), a ``DataLoader`` with two workers and a plain float32 loop. Same network, same
   initial tensors, same transforms. The arms take turns in short rounds, so that a slow moment of the machine meets all of them.

``--images``: a folder of class folders with JPEG files, such as Kermany's; without it images are drawn. Packing (once) is not counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torchvision import transforms

from detect_throughput import Arm, ours
from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import MEAN, STD
from twinray.classification.config import ClassifyConfig
from twinray.classification.finetune import Draw, Task, prepare_layers
from twinray.classification.options import resolve
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.runs.folder import RunFolder
from twinray.training.device import Machine, choose_machine


def draw_images(folder: Path, n: int, side: int) -> Path:
    """Smooth random JPEG files of two classes."""
    rng = np.random.default_rng(0)
    for i in range(n):
        name = ("bright", "dark")[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (side // 8, side // 8), dtype=np.uint8)
        image = (
            Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
        )
        image.save(folder / name / f"{name}{i}.jpg", quality=90)
    return folder


def few(folder: Path, n: int, out: Path) -> Path:
    """Links to about n images of a folder of class folders, in their shares."""
    files = {path: sorted(path.iterdir()) for path in sorted(folder.iterdir()) if path.is_dir()}
    share = min(1.0, n / sum(map(len, files.values())))
    for path, own in files.items():
        (out / path.name).mkdir(parents=True)
        for file in own[: max(1, round(share * len(own)))]:
            (out / path.name / file.name).symlink_to(file.resolve())
    return out


def pack_of(images: Path, out: Path, side: int, workers: int, test: float) -> Path:
    pack_images(PackConfig(source=(images,), out=out, size=side, val=0, test=test, workers=workers))
    return out


def heads(arguments: argparse.Namespace, work: Path, images: Path) -> dict[str, Any]:
    """Seconds of the whole verb with features computed once and at every step."""
    pack = pack_of(images, work / "heads", arguments.head_size, arguments.threads, test=0.1)
    seconds = {}
    for cache in (True, False):
        config = ClassifyConfig(
            data=pack,
            out=work / f"head-{cache}",
            arch=arguments.arch,
            size=arguments.head_size,
            policy="head",
            epochs=arguments.head_epochs,
            least_steps=1,
            crop_min=1.0,
            flip=0.0,
            choose_on="last",
            cache=cache,
            bootstrap=0,
            precision="float32",
            device=arguments.device,
        )
        start = time.perf_counter()
        classify(config)
        seconds[cache] = time.perf_counter() - start
    return {
        "images": len(open_pack(pack).where("train")),
        "epochs": arguments.head_epochs,
        "cached_s": seconds[True],
        "uncached_s": seconds[False],
        "ratio": seconds[False] / seconds[True],
    }


def reference(arguments: argparse.Namespace, images: Path, device: torch.device) -> Arm:
    """What most people would write."""
    net = torchvision.models.resnet18(weights=None, num_classes=2)
    net.load_state_dict(build_backbone("resnet18", 0).state_dict(), strict=False)
    net = net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(arguments.size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(str(images), change),
        batch_size=arguments.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
        generator=torch.Generator().manual_seed(0),
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    def step(batch: Any, number: int) -> None:
        loss = F.cross_entropy(net(batch[0].to(device)), batch[1].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # most loops add the loss up for their progress bar

    return Arm("ImageFolder + DataLoader, float32", batches(), step)


def full(arguments: argparse.Namespace, work: Path, images: Path) -> dict[str, Any]:
    """Images a second of full fine-tuning."""
    packed = pack_of(images, work / "full", arguments.size, arguments.threads, test=0)
    pack = open_pack(packed)
    chosen = choose_machine(arguments.device, "auto")
    arms = []
    for bf16 in dict.fromkeys((chosen.bf16, False)):
        machine = Machine(chosen.device, bf16)
        config = resolve(
            ClassifyConfig(
                data=packed,
                out=work / "run",
                arch="resnet18",
                size=arguments.size,
                policy="full",
                batch_size=arguments.batch_size,
                crop_min=0.08,
                flip=0.5,
                brightness=0.0,
                contrast=0.0,
            )
        )
        rows = pack.where("train")
        task = Task(
            config, pack, pack.labels, build_backbone("resnet18", 0), rows[:0], rows[:0], machine
        )
        loop = prepare_layers(task, Draw(0, rows, rows[:0], "", RunFolder(work / "run"))).loop
        arms.append(ours(f"twinray, {machine.precision}", loop))
    arms.append(reference(arguments, images, chosen.device))
    for number in range(arguments.rounds + 1):
        for arm in arms:
            arm.round(arguments.steps, arguments.batch_size, chosen.device, counted=number > 0)
    for arm in arms:
        arm.batches.close()  # type: ignore[attr-defined]
    base = arms[-1].rate
    return {
        arm.name: {
            "images_per_s": arm.rate,
            "data_wait": arm.waited / arm.seconds,
            "ratio": arm.rate / base,
        }
        for arm in arms
    }


def show(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    own = found["heads"]
    print(
        f"\n{own['epochs']} epochs of the linear layer on {own['images']} images: features once {own['cached_s']:.1f} s, "
        f"at every step {own['uncached_s']:.1f} s, ratio {own['ratio']:.1f}"
    )
    print(
        f"full fine-tuning, resnet18, {arguments.size} pixels, batch {arguments.batch_size}, {arguments.threads} threads:"
    )
    for name, row in found["full"].items():
        print(
            f"  {name:36}{row['images_per_s']:9.1f} images/s{row['data_wait']:9.1%} data wait{row['ratio']:7.2f} x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, help="folder of class folders with JPEG files; default: drawn images"
    )
    parser.add_argument("--arch", default="resnet18", help="of the first part")
    parser.add_argument("--head-images", type=int, default=768)
    parser.add_argument("--head-size", type=int, default=160)
    parser.add_argument("--head-epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--full-images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps of an arm in each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the reference's DataLoader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument(
        "--toy", action="store_true", help="the same in small: says only that it runs"
    )
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.head_images, arguments.head_size, arguments.head_epochs = 24, 32, 2
        arguments.full_images, arguments.size, arguments.batch_size = 16, 32, 8
        arguments.rounds, arguments.steps = 1, 1
    torch.set_num_threads(arguments.threads)
    steps = arguments.steps * (arguments.rounds + 1)
    print(
        f"1. {arguments.head_epochs} epochs of a linear layer on {arguments.head_images} images of {arguments.head_size} pixels, features "
        f"cached and not; 2. {steps} steps of full fine-tuning at {arguments.size} pixels for each of up to three arms. "
        f"{'Seconds' if arguments.toy else 'About ten minutes on two cores'}.",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.images:
            one = few(arguments.images, arguments.head_images, work / "few")
            other = few(arguments.images, arguments.full_images, work / "more")
        else:
            one = draw_images(work / "few", arguments.head_images, max(arguments.head_size, 32))
            other = draw_images(work / "more", arguments.full_images, max(arguments.size, 32))
        found = {"heads": heads(arguments, work, one), "full": full(arguments, work, other)}
    found |= {"torch": torch.__version__, "threads": arguments.threads}
    show(found, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
