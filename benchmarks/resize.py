"""Does it matter to a detector which filter brings packed images to the network's side? Bicubic against bilinear.

    python benchmarks/resize.py --out DIR [--data PACK] [--init RUN] [--seeds 0 1 2]

Without ``--data`` a pack of the phantom at 256 pixels is drawn. A detector learns from it with each filter and each seed (everything
else equal), and its figures on the validation images are compared, seed by seed. Then each detector sees the validation
images through the other filter, which tells what a mismatch between training and use would cost. Some minutes a seed on one core.
Runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from twinray.data.pack import open_pack
from twinray.detection.data import annotated
from twinray.detection.on_pack import detect_rows
from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.inference.model import load_model

FILTERS = ("bilinear", "bicubic")
MEASURES = ("map50", "map", "froc")


def twinray(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "twinray.cli", *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def pack(options: argparse.Namespace) -> Path:
    if options.data is not None:
        return Path(options.data)
    out = options.out / "pack"
    if not (out / "pack.json").is_file():
        shares = ("--val", 0.25, "--test", 0.05)
        phantom = ("pack", "--format", "phantom", "--phantom-images", options.images, "--seed", 1)
        twinray(*phantom, *shares, "--size", options.packed, "--out", out, "--resume")
    return out


def train(options: argparse.Namespace, data: Path, how: str, seed: int) -> Path:
    out: Path = options.out / f"{how}-{seed}"
    if not (out / "metrics.json").is_file():
        network = (
            "--arch",
            "resnet18",
            "--fpn-channels",
            64,
            "--box-head-width",
            256,
            "--rois-per-image",
            64,
        )
        training = (
            "--batch-size",
            8,
            "--epochs",
            options.epochs,
            "--precision",
            "float32",
            "--device",
            options.device,
        )
        twinray(
            *(
                "detect",
                "--data",
                data,
                "--init",
                options.init,
                *network,
                "--anchor-scale",
                4,
                "--size",
                options.size,
            ),
            *(
                *training,
                "--bootstrap",
                0,
                "--seed",
                seed,
                "--resize",
                how,
                "--out",
                out,
                "--resume",
            ),
        )
    return out


def figures(run: Path, data: Path, how: str, device: str) -> dict[str, float]:
    """Figures on the validation images, seen through a filter."""
    model, images = load_model(run, device), open_pack(data)
    part = annotated(images, "val")
    detector = model.detector
    detector.options = dataclasses.replace(detector.options, resize=how)
    found = detect_rows(
        detector,
        images,
        part.rows,
        machine=model.machine,
        batch_size=8,
        label=f"{run.name} as {how}",
    )
    report = evaluate_boxes(
        part.truth_by_id(), found, images.info.box_classes, resampling=Resampling(0)
    )
    return {name: report.as_json()[name]["value"] for name in MEASURES}


def told(name: str, values: np.ndarray) -> str:
    spread = (
        f" ± {stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5:.3f}"
        if len(values) > 1
        else ""
    )
    return f"{name:<34} {values.mean():+.3f}{spread}   (by seed: {', '.join(f'{value:+.3f}' for value in values)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for packs and runs")
    parser.add_argument(
        "--data", type=Path, help="a pack with boxes and val images (default: the phantom)"
    )
    parser.add_argument("--init", default="random", help="initial weights, as for twinray detect")
    parser.add_argument("--images", type=int, default=320, help="images of the phantom")
    parser.add_argument(
        "--packed", type=int, default=256, help="side of the phantom's pack, pixels"
    )
    parser.add_argument("--size", type=int, default=96, help="side of the network's input, pixels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    data = pack(options)
    if open_pack(data).info.size == options.size:
        parser.error(f"the pack is of {options.size} pixels already: nothing would be resized")
    seen = {
        (learnt, used, seed): figures(
            train(options, data, learnt, seed), data, used, options.device
        )
        for seed in options.seeds
        for learnt in FILTERS
        for used in FILTERS
    }
    for name in MEASURES:
        own = {
            how: np.array([seen[how, how, seed][name] for seed in options.seeds]) for how in FILTERS
        }
        other = {
            how: np.array(
                [seen[how, FILTERS[how == FILTERS[0]], seed][name] for seed in options.seeds]
            )
            for how in FILTERS
        }
        print(f"\n{name} on the validation images, mean over seeds with the 95 % interval of t")
        for how in FILTERS:
            print(told(how, own[how]))
        print(told("bicubic - bilinear", own["bicubic"] - own["bilinear"]))
        for how in FILTERS:
            print(told(f"learnt {how}, used the other", other[how] - own[how]))


if __name__ == "__main__":
    main()
