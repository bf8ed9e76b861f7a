"""Do exported weights give in other tools what the run gives? Every target, backbone, detector and size, on real images.

    python benchmarks/export_parity.py --images FOLDER --out DIR [--mmdet-python PYTHON]

Weights are random, statistics of batch norms are those of the images, class and box layers are spread so that boxes differ.
``table.md`` in DIR holds a line a combination; a finished line is not computed again. Where a difference is beyond the limit, the line
tells how far the tool and the run are from the same network in float64.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from export_support import made_run
from twinray.errors import TwinrayError
from twinray.exporting.config import ExportConfig
from twinray.exporting.run import run as export
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack

ARCHS = ("resnet18", "resnet50", "timm/convnext_tiny", "timm/vit_small_patch16_224")
DETECTORS = ("faster-rcnn", "retinanet", "fcos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mmdet-python", type=Path)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=(224, 640))
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--kinds", nargs="+", default=("backbone", *DETECTORS))
    parser.add_argument("--targets", nargs="+", default=("torchvision", "timm", "onnx", "mmdet"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "lines.jsonl"
    done = [json.loads(one) for one in lines.read_text().splitlines()] if lines.exists() else []
    known = {tuple(one["case"]) for one in done}
    for size in options.sizes:
        packed = options.out / f"pack-{size}"
        if not packed.is_dir():
            pack(
                PackConfig(source=options.images, format="folder", out=packed, size=size, workers=1)
            )
        for arch in options.archs:
            for kind in options.kinds:
                targets = (
                    ["torchvision", "timm", "onnx"]
                    if kind == "backbone"
                    else ["torchvision", "onnx"]
                )
                if (
                    options.mmdet_python and kind != "backbone"
                ):  # of others than ResNets it is refused
                    targets.append("mmdet")
                targets = [
                    t
                    for t in targets
                    if t in options.targets and (str(size), arch, kind, t) not in known
                ]
                if not targets:
                    continue
                work = options.out / "work"
                shutil.rmtree(work, ignore_errors=True)
                how = (
                    {"kind": "backbone"}
                    if kind == "backbone"
                    else {"detector": kind, "fpn_channels": 256}
                )
                made = made_run(
                    work / "run", packed, arch=arch, size=size, classes=("a", "b", "c"), **how
                )
                for target in targets:
                    config = ExportConfig(
                        run=made,
                        to=target,
                        out=work / target,
                        parity_images=options.n,
                        foreign_python=options.mmdet_python if target == "mmdet" else None,
                    )
                    try:
                        export(config)
                        found = json.loads((work / target / "parity.json").read_text())
                    except TwinrayError as error:
                        found = {"error": str(error)}
                    line = {"case": [str(size), arch, kind, target], **found}
                    with lines.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    done.append(line)
                    (options.out / "table.md").write_text(table(done))
                shutil.rmtree(work, ignore_errors=True)


def table(done: list[dict]) -> str:
    rows = [
        "| size | backbone | what | target | images | n | edge, px | edge, share of the side (or of the largest number) | score | in one alone | "
        "from float64, tool and run: share; score |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in done:
        head = " | ".join(one["case"])
        if "error" in one:
            rows.append(f"| {head} | refused: {one['error'][:600]} | | | | | | |")
            continue
        beside = ""
        if one.get("rounding"):
            run, other = one["rounding"]["run"], one["rounding"]["other"]
            beside = f"{other['share']:.1e}, {run['share']:.1e}; {other['score']:.1e}, {run['score']:.1e}"
        rows.append(
            f"| {head} | {one['n_images']} | {one['n_values']:,} | {one['largest']:.1e} | {one['largest_share']:.1e} | "
            f"{one['largest_score']:.1e} | {one['unmatched']} | {beside} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
