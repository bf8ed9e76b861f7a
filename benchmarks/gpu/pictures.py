"""Files of phantom pictures, drawn by several processes.

Nothing here imports torch: every process that draws starts by importing this module, and sixteen that import torch at
once took longer than the drawing.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from twinray.data.phantom.images import CLASSES, PhantomConfig, phantom_collection, true_boxes

_FEW = 64
"""So many pictures are drawn sooner than a process starts."""


def phantom_files(folder: Path, images: int, size: int, seed: int = 0) -> Path:
    """PNG files of the phantom under ``images/`` and their boxes in one COCO file, whose path is returned."""
    config = PhantomConfig(images=images, size=size, seed=seed)
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    tasks = [(config, i, str(pictures / f"{i:05d}.png")) for i in range(images)]
    if images < _FEW:
        boxes = [_draw(task) for task in tasks]
    else:
        workers = min(os.cpu_count() or 1, images // 16)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            boxes = list(pool.map(_draw, tasks, chunksize=4))
    annotations: list[dict[str, Any]] = []
    for i, own in enumerate(boxes):
        for (x1, y1, x2, y2), label in own:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,
                    "bbox": box,
                }
            )
    records = [
        {"id": i + 1, "file_name": f"{i:05d}.png", "width": size, "height": size}
        for i in range(images)
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    path = folder / "annotations.json"
    path.write_text(
        json.dumps({"images": records, "annotations": annotations, "categories": categories})
    )
    return path


def _draw(task: tuple[PhantomConfig, int, str]) -> list[tuple[list[float], int]]:
    """Write one picture; its boxes (xyxy, pixels) and their labels."""
    config, i, path = task
    collection = phantom_collection(config)
    Image.fromarray(collection.load(collection.samples[i]).array).save(path)
    boxes = true_boxes(config, i)
    return list(zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True))
