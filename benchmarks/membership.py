"""Does the membership check find what it should? A run that trained far too long, and one of five epochs, on real images.

    python benchmarks/membership.py --kermany KERMANY/train --out DIR

Classifiers (ResNet-18, 64 pixels, all layers) of few labelled images. The long one is trained without changes to the images, and both
without validation images, which would end either where new patients are still met best. Each is exported with ``--membership on``.
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
    parser.add_argument("--epochs", type=int, nargs="+", default=(5, 60))
    parser.add_argument("--images", type=int, default=600, help="images of each class")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source, packed = options.out / "source", options.out / "pack"
    if not packed.is_dir():
        for folder in ("NORMAL", "PNEUMONIA"):
            (source / folder).mkdir(parents=True, exist_ok=True)
            files = sorted((options.kermany / folder).iterdir())
            for file in files[:: max(1, len(files) // options.images)][: options.images]:
                shutil.copy(file, source / folder)
        run(
            "pack",
            source,
            "--format",
            "folder",
            "--patient-regex",
            PATIENTS,
            "--size",
            64,
            "--val",
            0,
            "--test",
            0.5,
            "--out",
            packed,
        )
    rows = [
        "| epochs | loss (Yeom) | trained attack | control, pixels alone | members | others |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for epochs in options.epochs:
        made, out = options.out / f"run-{epochs}", options.out / f"export-{epochs}"
        run("classify", "--data", packed, "--arch", "resnet18", "--init", "random", "--size", 64, "--policy", "full",
            "--epochs", epochs, "--out", made, "--resume", *(PLAIN if epochs > 20 else ()))  # fmt: skip
        if not (out / "membership.json").exists():
            run(
                "export",
                made,
                "--to",
                "hub",
                "--membership",
                "on",
                "--membership-images",
                500,
                "--out",
                out,
            )
        found = json.loads((out / "membership.json").read_text())
        cells = [
            f"{found[k]['value']:.3f} ({found[k]['low']:.3f} to {found[k]['high']:.3f})"
            for k in ("loss", "trained", "control")
        ]
        rows.append(
            f"| {epochs} | {' | '.join(cells)} | {found['n_members']} | {found['n_others']} |"
        )
        (options.out / "table.md").write_text("\n".join(rows) + "\n")


def run(*arguments: object) -> None:
    try:
        cli([str(one) for one in arguments])
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":
    main()
