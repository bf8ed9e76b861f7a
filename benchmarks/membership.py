"""Does the membership check find what it should? A run that trained far too long, and one of five epochs, on real images.

    python benchmarks/membership.py --kermany KERMANY/train --out DIR

Classifiers (ResNet-18, 64 pixels, all layers) of few labelled images. The long one is trained without changes to the images, and both
without validation images, which would end either where new patients are still met best. An epoch is one pass over the images
(``--least-steps 1``); as it comes, ``classify`` repeats few images until an epoch has ten steps. Each is exported with ``--membership on``.
``table.md`` in DIR holds the AUC of each attack with its interval over patients.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from classification_kermany import PATIENTS
from twinray.cli import main as cli

PLAIN = ("--crop-min", 1, "--flip", 0, "--brightness", 0, "--contrast", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kermany", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=(5, 360))
    parser.add_argument("--images", type=int, default=600, help="images of each class")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=(0,), help="of splits and trainings"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source = options.out / "source"
    if not source.is_dir():
        for folder in ("NORMAL", "PNEUMONIA"):
            (source / folder).mkdir(parents=True, exist_ok=True)
            files = sorted((options.kermany / folder).iterdir())
            for file in files[:: max(1, len(files) // options.images)][: options.images]:
                shutil.copy(file, source / folder)
    rows = [
        "| seed | epochs | loss (Yeom) | trained attack | control, pixels alone | members | others |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for seed in options.seeds:
        packed = options.out / f"pack-{seed}"
        if not packed.is_dir():
            run("pack", source, "--format", "folder", "--patient-regex", PATIENTS, "--size", 64,
                "--val", 0, "--test", 0.5, "--seed", seed, "--out", packed)  # fmt: skip
        for epochs in options.epochs:
            rows.append(f"| {seed} | {epochs} | {_attacked(packed, options.out, seed, epochs)} |")
            (options.out / "table.md").write_text("\n".join(rows) + "\n")


def _attacked(packed: Path, out: Path, seed: int, epochs: int) -> str:
    """The row of one training: the AUC of each attack, and numbers of images."""
    made, exported = out / f"run-{seed}-{epochs}", out / f"export-{seed}-{epochs}"
    run("classify", "--data", packed, "--arch", "resnet18", "--init", "random", "--size", 64, "--policy", "full", "--seed", seed,
        "--least-steps", 1, "--epochs", epochs, "--out", made, "--resume", *(PLAIN if epochs > 20 else ()))  # fmt: skip
    if not (exported / "membership.json").exists():
        run("export", made, "--to", "hub", "--membership", "on", "--membership-images", 500, "--out", exported)  # fmt: skip
    found = json.loads((exported / "membership.json").read_text())
    cells = [
        f"{found[k]['value']:.3f} ({found[k]['low']:.3f} to {found[k]['high']:.3f})"
        for k in ("loss", "trained", "control")
    ]
    return f"{' | '.join(cells)} | {found['n_members']} | {found['n_others']}"


def run(*arguments: object) -> None:
    try:
        cli([str(one) for one in arguments])
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":
    main()
