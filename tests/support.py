"""What tests share besides fixtures: the real command line, and small data drawn on the spot."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

import warm_process

REAL_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

DETECT = (
    "--arch", "resnet18", "--size", 64, "--batch-size", 4, "--fpn-channels", 32, "--box-head-width", 64,
    "--rois-per-image", 32, "--anchor-scale", 4, "--bootstrap", 50, "--precision", "float32",
)  # fmt: skip
PRETRAIN = (
    "--arch",
    "resnet18",
    "--size",
    32,
    "--batch-size",
    8,
    "--projector",
    32,
    32,
    "--precision",
    "float32",
)


def twinray(
    *arguments: object, check: bool = False, limit: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run the real command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = warm_process.run(["-m", "twinray.cli", *arguments], environment, limit)
    if check and done.returncode != 0:
        raise AssertionError(
            f"{done.args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done


def draw_blob(
    rng: np.random.Generator, side: int = 64
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A noisy grey image with one bright disc, and the disc's box as x, y, width, height."""
    image = rng.normal(70, 12, (side, side))
    radius = int(rng.integers(8, 14))
    x, y = rng.integers(radius + 1, side - radius - 1, 2)
    yy, xx = np.mgrid[:side, :side]
    image[(xx - x) ** 2 + (yy - y) ** 2 <= radius**2] += 110
    return image.clip(0, 255).astype(np.uint8), (
        int(x - radius),
        int(y - radius),
        2 * radius + 1,
        2 * radius + 1,
    )


def write_coco(folder: Path, n: int = 24, empty_every: int = 4, seed: int = 0) -> Path:
    """A COCO source of blobs: ``n`` images of ``n / 2`` patients, every fourth without a box."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(n):
        pixels, box = draw_blob(rng)
        if i % empty_every == 3:
            pixels = rng.normal(70, 12, (64, 64)).clip(0, 255).astype(np.uint8)
        else:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i + 1, "category_id": 7, "bbox": list(box)}
            )
        name = f"im{i:03d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append(
            {"id": i + 1, "file_name": name, "width": 64, "height": 64, "patient_id": f"p{i // 2}"}
        )
    path = folder / "annotations.json"
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 7, "name": "blob"}],
            }
        )
    )
    return path


def ranks(
    n: int,
    arguments: list[object],
    *,
    start_only: bool = False,
    limit: float = 240,
    **environment: str,
) -> list[warm_process.Process]:
    """Start ``python ARGUMENTS`` as n ranks, with the variables that torchrun sets; waits for all unless told not to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(n):
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": n,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            **{k: str(v) for k, v in own.items()},
            **environment,
        }
        started.append(warm_process.Process(arguments, variables))
    if not start_only:
        # the rank that finds the fault and those that lose it may end in any order
        errors = [process.communicate(timeout=limit)[1] for process in started]
        if any(process.returncode for process in started):
            raise AssertionError("a rank ended with an error:\n" + "\n".join(errors))
    return started


def script_module(path: Path) -> ModuleType:
    """A script of the project that is no part of the package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
