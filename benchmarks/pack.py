"""How fast packing is, against itself and against Pillow's bare decoder; and that its memory does not grow.

    python benchmarks/pack.py
    python benchmarks/pack.py --images 2000 --source FOLDER --memory-images 50000

Three figures, taken on one machine in one run, so that they are ratios and need no reference machine:

1. packing with several workers over packing with one;
2. packing over merely decoding the same files with Pillow in as many processes (no resize, nothing kept);
3. how much more memory the parent takes at its peak for many images than for 1,000.

The images are PNG files of --edge pixels, enlarged from those of a folder or from the built-in phantom.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.data.readers.folder import read_folder

_DISTINCT = 200
_PEAK = """
import sys
from pathlib import Path
from rich.console import Console
from twinray.jobs.pack import PackConfig, run
run(PackConfig(source=Path(sys.argv[1]), out=Path(sys.argv[2]), size=64, workers=int(sys.argv[3])), Console(quiet=True))
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


_BARE = """
import multiprocessing, pathlib, sys
from PIL import Image
def decode(path):
    with Image.open(path) as image:
        image.load()
files = sorted(str(path) for path in pathlib.Path(sys.argv[1]).glob("*.png"))
with multiprocessing.get_context("fork").Pool(int(sys.argv[2])) as pool:
    for _ in pool.imap(decode, files, chunksize=4):
        pass
"""


def enlarged_images(folder: Path, n: int, edge: int, source: Path | None) -> None:
    """Write n PNG files of edge x edge pixels, the first 200 distinct, the others copies of them (encoding is slow)."""
    folder.mkdir()
    found = (
        read_folder(source, layout="flat")
        if source
        else phantom_collection(PhantomConfig(images=min(n, 100)))
    )
    rng = np.random.default_rng(0)
    for i in range(min(n, _DISTINCT)):
        array = found.load(found.samples[i % len(found.samples)]).array
        image = Image.fromarray(array).convert("L").resize((edge, edge), Image.Resampling.BICUBIC)
        # a real detector has noise: without it enlarged images would decode faster than real ones
        noisy = np.asarray(image, dtype=np.int16) + rng.integers(
            -2, 3, (edge, edge), dtype=np.int16
        )
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.png")
    for i in range(_DISTINCT, n):
        shutil.copyfile(folder / f"{i % _DISTINCT:06}.png", folder / f"{i:06}.png")


def tiny_images(folder: Path, n: int) -> None:
    """Write n distinct PNG files of 64 x 64 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(n):
        pixels = np.kron(
            rng.integers(0, 256, (8, 8), dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)
        )
        Image.fromarray(pixels).save(folder / f"{i:06}.png", compress_level=1)


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def pure_decode(folder: Path, workers: int) -> None:
    """In an interpreter of its own that imports Pillow alone, so that its workers start as fast as they can."""
    subprocess.run([sys.executable, "-c", _BARE, str(folder), str(workers)], check=True)


def speeds(folder: Path, scratch: Path, workers: int, repeats: int) -> dict[str, float]:
    """Images per second, the best of several turns; the contestants take turns, so that a noisy neighbour hits all."""
    files = sorted(str(path) for path in folder.glob("*.png"))
    best = {
        "pack, 1 worker": 0.0,
        f"pack, {workers} workers": 0.0,
        f"Pillow decode, {workers} processes": 0.0,
    }
    for turn in range(repeats):

        def pack(n: int, turn: int = turn) -> None:
            write_pack(
                [read_folder(folder)], scratch / f"{n}-{turn}", PackOptions(size=256), workers=n
            )

        jobs: list[Callable[[], object]] = [
            lambda: pack(1),
            lambda: pack(workers),
            lambda: pure_decode(folder, workers),
        ]
        for name, job in zip(best, jobs, strict=True):
            best[name] = max(best[name], len(files) / seconds(job))
    return best


def peak_mb(folder: Path, out: Path, workers: int) -> float:
    """The parent's peak memory in MB (2**20 bytes) while it packs ``folder``, of a process of its own."""
    command = [sys.executable, "-c", _PEAK, str(folder), str(out), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="images for the speeds")
    parser.add_argument(
        "--ready", type=Path, help="folder of PNG files to use as they are, instead of making some"
    )
    parser.add_argument("--edge", type=int, default=1024, help="their side in pixels")
    parser.add_argument(
        "--source", type=Path, help="folder of images to enlarge (default: the phantom)"
    )
    parser.add_argument("--workers", type=int, default=2, help="the several workers")
    parser.add_argument("--repeats", type=int, default=2, help="turns; the best of each counts")
    parser.add_argument(
        "--memory-images",
        type=int,
        default=5000,
        help="the many images for the memory; 0 leaves it out",
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures: dict[str, object] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        images = args.ready or scratch / "images"
        if args.ready is None:
            enlarged_images(images, args.images, args.edge, args.source)
        rates = speeds(images, scratch, args.workers, args.repeats)
        one, several, bare = rates.values()
        for label, rate in rates.items():
            print(f"{label:32} {rate:8.1f} images/s")
        print(
            f"{args.workers} workers over 1: {several / one:.2f}   packing over bare decoding: {several / bare:.2f}"
        )
        figures |= {
            "images_per_second": rates,
            "workers_over_one": several / one,
            "over_bare_decode": several / bare,
        }
        if args.memory_images:
            sizes = (1000, args.memory_images)
            for n in sizes:
                tiny_images(scratch / f"tiny-{n}", n)
            few, many = (
                peak_mb(scratch / f"tiny-{n}", scratch / f"memory-{n}", args.workers) for n in sizes
            )
            print(
                f"parent's peak: {few:.0f} MB for {sizes[0]} images, {many:.0f} MB for {sizes[1]}: {many - few:+.0f} MB"
            )
            figures |= {"peak_mb": {str(sizes[0]): few, str(sizes[1]): many}}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
