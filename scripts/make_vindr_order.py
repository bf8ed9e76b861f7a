"""Make ``src/twinray/data/readers/vindr/vindr_order.json`` from VinDr-CXR's published rows.

    python scripts/make_vindr_order.py train.csv          # or vinbigdata-train.csv.gz from the torchxrayvision wheel

The file must be the published one, in its own order of rows. Recorded are the groups of one image and class whose
fused boxes at IoU 0.5 differ between the published order (last row first) and the order by content, each as a hash of
its content and the order in which its boxes, numbered by content, are taken.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from twinray.data.fusion import FusedTable, fuse_table
from twinray.data.readers.tabular import read_rows
from twinray.data.readers.vindr.order import PUBLISHED_IOU, groups

OUT = (
    Path(__file__).resolve().parents[1]
    / "src"
    / "twinray"
    / "data"
    / "readers"
    / "vindr"
    / "vindr_order.json"
)
SIDES = ("x_min", "y_min", "x_max", "y_max")


def main() -> None:
    """Write the file and say how much is in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, help="the published train.csv, plain or gzipped")
    rows = list(read_rows(parser.parse_args().rows, ("image_id", "class_name", "rad_id", *SIDES)))
    rows = [row for row in rows if row["class_name"] != "No finding"]
    images, names, readers = (
        [row[column] for row in rows] for column in ("image_id", "class_name", "rad_id")
    )
    xyxy = np.array([[float(row[side]) for side in SIDES] for row in rows])
    _, classes = np.unique(np.array(names), return_inverse=True)
    number = -np.arange(len(rows))  # the last row is taken first
    by_content = _boxes(fuse_table(images, classes, xyxy, readers, iou=PUBLISHED_IOU))
    published = _boxes(
        fuse_table(images, classes, xyxy, readers, iou=PUBLISHED_IOU, tie_order=number)
    )
    taken = {
        key: np.argsort(number[own]).tolist()
        for key, own in groups(images, names, xyxy, readers)
        if by_content[images[own[0]], classes[own[0]]] != published[images[own[0]], classes[own[0]]]
    }
    about = (
        "Hash of a group of boxes -> the order in which fusion takes them, numbered by content; see vindr_order.py. "
        "For use with VinDr-CXR's rows, which are not in here."
    )
    lines = ",\n".join(
        f'  "{key}": {json.dumps(taken[key], separators=(",", ":"))}' for key in sorted(taken)
    )
    OUT.write_text(
        f'{{\n "about": {json.dumps(about)},\n "iou": {PUBLISHED_IOU},\n "taken": {{\n{lines}\n }}\n}}\n'
    )
    print(
        f"{len(rows):,} boxes in {len(by_content):,} groups; {len(taken):,} depend on the order -> {OUT}"
    )


def _boxes(fused: FusedTable) -> dict[tuple[str, int], list[list[float]]]:
    """Fused boxes by image and class, to a thousandth of a pixel."""
    found: dict[tuple[str, int], list[list[float]]] = {}
    for image, label, box in zip(
        fused.image_ids.tolist(), fused.class_ids.tolist(), fused.xyxy.tolist(), strict=True
    ):
        found.setdefault((image, label), []).append([round(side, 3) for side in box])
    return {key: sorted(boxes) for key, boxes in found.items()}


if __name__ == "__main__":
    main()
