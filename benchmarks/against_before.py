"""Training a detector with this version and with another one, in turns, on the same images.

    git worktree add BEFORE COMMIT
    python benchmarks/against_before.py BEFORE [--precision bf16] [--size 224] [--batch-size 8] [--arch resnet18] [--threads 2] [--turns 3]

Each version runs in a process of its own and takes turns of a few steps: transforms, forward and backward pass and the optimiser of
``twinray detect``, without log and checkpoints. Told are seconds of processor time a step, which other work on the machine hardly
changes, and of the clock; the ratio is that of the versions' sums. With the defaults it takes about two minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="work tree of the other version")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "float32"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--pack", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pack:
        return _worker(options)
    own = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as work:
        sides = {"before": options.before.resolve(), "now": own}
        workers = {name: _started(root, Path(work) / name) for name, root in sides.items()}
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for turn in range(options.turns + 1):
            for name, worker in workers.items():
                row = _turn(worker)
                if turn:  # the first warms up
                    rows[name].append(row)
        for worker in workers.values():
            worker.communicate("")
    return _tell(options, rows)


def _drawn(options: argparse.Namespace) -> None:
    """Each version draws its own pack: an older one need not read that of a later one."""
    from rich.console import Console

    from twinray.jobs.pack import PackConfig, run

    config = PackConfig(
        format="phantom",
        out=options.pack,
        size=options.size,
        phantom_images=options.batch_size * 8,
        workers=1,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        run(config, Console(file=io.StringIO()))


def _started(root: Path, pack: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *sys.argv[1:], "--pack", str(pack)]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def _turn(worker: subprocess.Popen[str]) -> dict[str, float]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    row: dict[str, float] = json.loads(worker.stdout.readline())
    return row


def _worker(options: argparse.Namespace) -> None:
    import torch

    from twinray.data.pack import open_pack
    from twinray.detection import run as job
    from twinray.detection.config import DetectConfig
    from twinray.detection.data import annotated
    from twinray.detection.options import resolve
    from twinray.training.device import Machine
    from twinray.training.engine import seed_everything

    torch.set_num_threads(options.threads)
    _drawn(options)
    pack = open_pack(options.pack)
    machine = Machine(torch.device("cpu"), options.precision == "bf16")
    if hasattr(job, "set_arithmetic"):
        job.set_arithmetic(machine, deterministic=False)
    config = resolve(
        DetectConfig(
            data=options.pack,
            out=options.pack.parent / "none",
            arch=options.arch,
            size=options.size,
            batch_size=options.batch_size,
            lr=1e-4,
        )
    )
    detector, _ = job.make_detector(config, pack)
    detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    loop = job.make_loop(config, detector, data, machine)
    loop.model.train()
    batches = list(loop.batches(0, 0))
    number = 0
    for _ in sys.stdin:
        clock, times = time.perf_counter(), os.times()
        for _ in range(options.steps):
            seed_everything(0, number)
            loop.optimizer.zero_grad(set_to_none=True)
            loss = loop.step(batches[number % len(batches)], number)["loss"]
            loop.optimizer.step()
            number += 1
        now = os.times()
        row: dict[str, Any] = {
            "processor": now.user + now.system - times.user - times.system,
            "clock": time.perf_counter() - clock,
            "loss": float(loss),
        }
        print(json.dumps(row), flush=True)


def _tell(options: argparse.Namespace, rows: dict[str, list[dict[str, float]]]) -> None:
    steps = options.turns * options.steps
    found = {
        name: {kind: sum(row[kind] for row in turns) / steps for kind in ("processor", "clock")}
        for name, turns in rows.items()
    }
    print(
        f"faster-rcnn {options.arch}, {options.size} pixels, batch {options.batch_size}, {options.precision}, "
        f"{options.threads} thread(s), {steps} steps each"
    )
    for name, row in found.items():
        each = ", ".join(f"{turn['processor'] / options.steps:.2f}" for turn in rows[name])
        print(
            f"{name:7} {row['processor']:.2f} s of the processor a step ({each}), {row['clock']:.2f} s of the clock"
        )
    ratio = {kind: found["before"][kind] / found["now"][kind] for kind in ("processor", "clock")}
    print(f"ratio   {ratio['processor']:.2f} by the processor, {ratio['clock']:.2f} by the clock")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
