"""The pipeline on real chest X-rays: what pre-training is worth, on one machine, in minutes.

    python benchmarks/real_chest_xrays.py --kermany DIR --rsna annotations.json --out DIR

``--kermany``: folders NORMAL and PNEUMONIA (Kermany et al. 2018, CC BY 4.0). Patients by file name; 5 epochs of Barlow
Twins at 64 pixels; a linear probe on 1 % of the labels over 5 seeds on a patient-disjoint fifth, against random weights.

``--rsna``: a COCO file of the RSNA pneumonia boxes with ``patient_id`` in its images. A detector at 224 pixels from
random weights and from those of the first part; and one that must learn 16 positive images by heart (mAP50 of at least
0.9 on them shows that boxes, labels and losses are wired right).

Every step is the command line; a folder that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SMALL = ("--fpn-channels", 128, "--rois-per-image", 128)


def twinray(*arguments: object) -> None:
    print("\n$ twinray", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "twinray.cli", *map(str, arguments)], check=True)


def figure(run: Path, metric: str, split: str = "test") -> str:
    value = json.loads((run / "metrics.json").read_text())[split][metric]
    low, high = value["ci95"] or (float("nan"),) * 2
    return f"{value['value']:.4f} ({low:.4f} to {high:.4f})"


def probe(source: Path, out: Path, epochs: int, seed: int) -> Path:
    pack, pretrained = out / "kermany", out / "pretrained"
    if not pack.exists():
        regex = r"(person\d+)_|(IM-\d+)-"
        more = ("--patient-regex", regex, "--val", 0, "--test", 0.2, "--seed", seed)
        twinray("pack", source, "--format", "folder", *more, "--out", pack)
    more = ("--arch", "resnet18", "--size", 64, "--batch-size", 256, "--epochs", epochs)
    twinray("pretrain", "--data", pack, "--out", pretrained, *more, "--resume")
    for name, init in (("random", "random"), ("barlow-twins", pretrained)):
        more = ("--arch", "resnet18", "--size", 64, "--fraction", 0.01, "--seeds", 0, 1, 2, 3, 4)
        twinray(
            "classify",
            "--data",
            pack,
            "--init",
            init,
            "--out",
            out / f"probe-{name}",
            *more,
            "--resume",
        )
    for name in ("random", "barlow-twins"):
        print(
            f"probe, 1 % of the labels, mean test AUC over 5 seeds, {name}: {figure(out / f'probe-{name}', 'auc')}"
        )
    return pretrained


def detectors(annotations: Path, out: Path, pretrained: Path, epochs: int) -> None:
    pack = out / "rsna"
    if not pack.exists():
        twinray(
            "pack", annotations, "--format", "coco", "--val", 0.15, "--test", 0.3, "--out", pack
        )
    arms = {"random": "random", "barlow-twins": pretrained}
    for name, init in arms.items():
        more = ("--arch", "resnet18", "--size", 224, "--epochs", epochs, *SMALL)
        twinray(
            "detect",
            "--data",
            pack,
            "--init",
            init,
            "--out",
            out / f"detect-{name}",
            *more,
            "--resume",
        )
    twinray("evaluate", *(out / f"detect-{name}" for name in arms), "--data", pack)
    check_with_pycocotools([out / f"detect-{name}" for name in arms])


def check_with_pycocotools(runs: list[Path]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    for run in runs:
        truth = COCO(str(run / "truth.json"))
        theirs = COCOeval(truth, truth.loadRes(str(run / "predictions.json")), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        ours = json.loads((run / "metrics.json").read_text())["test"]["map50"]["value"]
        print(
            f"{run.name}: mAP50 {ours:.8f}, pycocotools {theirs.stats[1]:.8f}, difference {abs(ours - theirs.stats[1]):.1e}"
        )


def overfit(annotations: Path, out: Path) -> None:
    few, pack, run = out / "positive16.json", out / "positive16", out / "overfit16"
    data = json.loads(annotations.read_text())
    with_box = {a["image_id"] for a in data["annotations"]}
    seen: set[str] = set()
    images = []
    for image in data["images"]:
        if image["id"] in with_box and image["patient_id"] not in seen and len(images) < 16:
            images.append(image)
            seen.add(image["patient_id"])
    ids = {image["id"] for image in images}
    chosen = [a for a in data["annotations"] if a["image_id"] in ids]
    few.write_text(json.dumps({**data, "images": images, "annotations": chosen}))
    if not pack.exists():
        where = annotations.parent / "images"
        twinray(
            "pack",
            few,
            "--format",
            "coco",
            "--images",
            where,
            "--val",
            0,
            "--test",
            0,
            "--out",
            pack,
        )
    still = ("--flip", 0, "--scale", 1, 1, "--brightness", 0, "--contrast", 0, "--lr", 0.0005)
    more = ("--arch", "resnet18", "--size", 224, "--epochs", 90, *SMALL, *still)
    twinray("detect", "--data", pack, "--out", run, *more, "--resume")
    print(f"16 positive images by heart, mAP50 on them: {figure(run, 'map50', 'train')}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kermany", type=Path, required=True)
    parser.add_argument("--rsna", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seed", type=int, default=2, help="of the split; 0 and 1 served to choose the defaults"
    )
    parser.add_argument("--pretrain-epochs", type=int, default=5)
    parser.add_argument("--detect-epochs", type=int, default=15)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pretrained = probe(options.kermany, options.out, options.pretrain_epochs, options.seed)
    detectors(options.rsna, options.out, pretrained, options.detect_epochs)
    overfit(options.rsna, options.out)


if __name__ == "__main__":
    main()
