"""Packs of one version of twinray with their sources: ``tests/fixtures/generations/packs/NAME.tar.xz``.

    PYTHONPATH=CHECKOUT_OF_THAT_VERSION/src python scripts/make_generation_packs.py NAME

Every source is packed whole (``whole/``) and once more by a process that is killed on the way (``cut/``), so that later
versions can be asked to open the one, to go on with the other, and to make both again with the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "generations" / "packs"
PACKS: dict[str, tuple[object, ...]] = {
    "phantom": (
        "--format",
        "phantom",
        "--phantom-images",
        12,
        "--size",
        32,
        "--seed",
        5,
        "--phantom-labelled",
        0.8,
    ),
    "folder": ("sources/folder", "--size", 24, "--fit", "letterbox", "--patient-regex", r"(p\d+)_"),
    "coco": (
        "sources/coco/boxes.json",
        "--format",
        "coco",
        "--size",
        16,
        "--folds",
        3,
        "--fold",
        1,
    ),
}
"""Name of a pack -> how it is made; ``tests/test_generations.py`` makes it again in the same way."""
KILLED_AFTER = 5
KILLED = f"""
import os, sys
from twinray import cli
try:
    from twinray.data.packing.journal import Journal
except ImportError:
    from twinray.data.pack_journal import Journal
add = Journal.add
def add_or_die(self, index, packed, pixels):
    if self.rows == {KILLED_AFTER}:
        os._exit(9)
    add(self, index, packed, pixels)
Journal.add = add_or_die
cli.main(sys.argv[1:])
"""


def write_sources() -> None:
    """Smooth colours compress well; every picture is another."""
    y, x = np.mgrid[:30, :36]
    for i in range(12):
        picture = np.stack(
            [(7 * i + 3 * x) % 256, (11 * i + 4 * y) % 256, (x + y + 20 * i) % 256], axis=-1
        )
        path = Path("sources", "folder", "big" if i % 3 else "small", f"p{i // 2}_{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path)
    images, annotations = [], []
    Path("sources", "coco", "images").mkdir(parents=True)
    for i in range(12):
        Image.fromarray(((5 * x + 6 * y + 15 * i) % 256).astype(np.uint8)).save(
            f"sources/coco/images/{i}.png"
        )
        images.append(
            {
                "id": i + 1,
                "file_name": f"{i}.png",
                "width": 36,
                "height": 30,
                "patient_id": f"q{i // 2}",
            }
        )
        for j in range(i % 3):
            box = [2 + i, 3 + 2 * j, 10.5, 12 + j]
            annotations.append(
                {"id": len(annotations), "image_id": i + 1, "category_id": 3 + j, "bbox": box}
            )
    annotations.append(
        {"id": 99, "image_id": 1, "category_id": 3, "bbox": [2, 3, 90, 8]}
    )  # set aside: leaves its image
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
    }
    Path("sources", "coco", "boxes.json").write_text(json.dumps(content))


def main() -> None:
    """Make the fixture that the first argument names."""
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        write_sources()
        for name, arguments in PACKS.items():
            command = ("pack", *map(str, arguments), "--workers", "1", "--out")
            subprocess.run(
                [sys.executable, "-m", "twinray.cli", *command, f"whole/{name}"], check=True
            )
            done = subprocess.run(
                [sys.executable, "-c", KILLED, *command, f"cut/{name}"], check=False
            )
            assert done.returncode == 9
        FOLDER.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
            for part in ("sources", "whole", "cut"):
                archive.add(part)
        (FOLDER / f"{sys.argv[1]}.tar.xz").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
