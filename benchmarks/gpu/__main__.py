"""Run the groups of one part, each in a process of its own, and keep what they find as it comes.

    benchmarks/gpu.sh correctness|throughput [--seconds N] [--out DIR] [--device cuda|cpu] [--toy] [--groups NAME ...]

Files in ``--out``: ``PART.jsonl`` (a line a check, appended), ``PART.txt`` (the same to read, and how it ended), ``PART.log`` (all output).
The groups of ``correctness`` run side by side, since nothing of them is timed; those of ``throughput`` run one after the other, the most important
first, and one that no longer fits into the time is left out by name. Exit status: 0 all passed, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from gpu.groups import CORRECTNESS, THROUGHPUT, Group, load
from gpu.record import MARK, told

PARTS: dict[str, Sequence[Group]] = {"correctness": CORRECTNESS, "throughput": THROUGHPUT}
RESERVE = 12.0
"""Seconds that every group leaves to the last one, which sums up, and to the summary."""


def main() -> int:
    options = _parse()
    if options.group:
        return _one_group(options)
    groups = [g for g in PARTS[options.part] if not options.groups or g.name in options.groups]
    unknown = set(options.groups) - {g.name for g in PARTS[options.part]}
    if unknown:
        print(
            f"error: no group {', '.join(sorted(unknown))}; there are {', '.join(g.name for g in PARTS[options.part])}"
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="twinray-gpu-") as work:
        return Run(options, groups, Path(work), time.time() + options.seconds).all()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=540, help="the part ends within this time (540)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu-results"),
        help="folder for what is found (gpu-results)",
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script itself")
    parser.add_argument(
        "--toy", action="store_true", help="small sizes; their figures mean nothing"
    )
    parser.add_argument(
        "--groups", nargs="*", default=[], metavar="NAME", help="these groups alone"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="groups of correctness at a time; default: a third of the cores",
    )
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _one_group(options: argparse.Namespace) -> int:
    """In the group's own process."""
    import torch

    from gpu.record import Session

    if options.device == "cuda":
        torch.cuda.init()
    device = torch.device(options.device)
    load(options.place)(
        Session(options.group, device, options.toy, options.work, options.out, options.ends)
    )
    return 0


@dataclass
class Run:
    """The parent of all groups: starts them, reads their lines, ends them in time."""

    options: argparse.Namespace
    groups: list[Group]
    work: Path
    ends: float
    results: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    log: TextIO = sys.stdout

    def all(self) -> int:
        part, out = self.options.part, self.options.out
        jobs = self.jobs
        with (out / f"{part}.log").open("a") as self.log:
            self.say(
                f"{part}: {len(self.groups)} groups, {jobs} at a time, at most {self.options.seconds:.0f} s; results in {out}"
            )
            self.say(
                f"about {sum(g.seconds for g in self.groups) / jobs:.0f} s on an H100 with 16 cores; {_versions()}"
            )
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(self.group, self.groups))
            text = self.write_summary(over=True)
        bad = [told(r) for r in self.results if r["status"] not in ("passed", "measured")]
        print("\n" + text + "\n".join(["", "not passed:", *bad] if bad else []), flush=True)
        return (
            0 if all(r["status"] in ("passed", "measured", "skipped") for r in self.results) else 1
        )

    @property
    def jobs(self) -> int:
        """Groups at a time."""
        if self.options.part != "correctness":
            return 1
        return int(self.options.jobs or max((os.cpu_count() or 1) // 3, 1))

    def environment(self) -> dict[str, str]:
        """Side by side, the groups share the cores."""
        threads = str(max((os.cpu_count() or 1) // self.jobs, 1))
        return {"OMP_NUM_THREADS": threads, **os.environ} if self.jobs > 1 else dict(os.environ)

    def group(self, group: Group) -> None:
        """One group, from start to end."""
        left = self.ends - time.time() - 4 - (RESERVE if group is not self.groups[-1] else 0)
        least = min(group.least, 10) if self.options.toy else group.least
        if left < least:
            note = f"{left:.0f} s left, {least:.0f} s needed"
            self.keep({"group": group.name, "check": "start", "status": "skipped", "note": note})
            return
        limit = left if self.options.toy else min(left, group.most)
        command = [
            sys.executable,
            "-m",
            "gpu",
            self.options.part,
            "--group",
            group.name,
            "--place",
            group.place,
        ]
        command += ["--device", self.options.device]
        command += [
            "--work",
            str(self.work),
            "--out",
            str(self.options.out),
            "--ends",
            str(time.time() + limit - 3),
        ]
        command += ["--toy"] if self.options.toy else []
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=self.environment(),
        )
        over = threading.Timer(limit, _end, (process,))
        over.start()
        start = time.time()
        tail: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MARK):
                self.keep(json.loads(line.removeprefix(MARK)))
            else:
                tail = [*tail[-9:], line.rstrip()]
                self.say(f"[{group.name}] {line.rstrip()}", quiet=_is_noise(line))
        status = process.wait()
        over.cancel()
        if status != 0:
            late = time.time() - start >= limit
            why = (
                f"ended after its {limit:.0f} s"
                if late
                else f"ended with status {status}: {' | '.join(tail)[-400:]}"
            )
            self.keep({"group": group.name, "check": "end", "status": "ERROR", "note": why})

    def keep(self, result: dict[str, Any]) -> None:
        """Append a result to the files."""
        with self.lock:
            self.results.append(result)
            with (self.options.out / f"{self.options.part}.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
        self.say(told(result))
        self.write_summary(over=False)

    def write_summary(self, *, over: bool) -> str:
        """All results so far as text; also written to the part's file."""
        with self.lock:
            order = {g.name: i for i, g in enumerate(self.groups)}
            lines = [told(r) for r in sorted(self.results, key=lambda r: order.get(r["group"], 99))]
            counts = {
                s: sum(r["status"] == s for r in self.results)
                for s in ("passed", "measured", "FAILED", "ERROR", "skipped")
            }
            ended = ", ".join(f"{n} {s}" for s, n in counts.items() if n)
            text = (
                "\n".join(
                    [
                        f"{self.options.part}, {_versions()}",
                        *lines,
                        f"{'in all' if over else 'so far'}: {ended}",
                    ]
                )
                + "\n"
            )
            (self.options.out / f"{self.options.part}.txt").write_text(text)
            return text

    def say(self, text: str, *, quiet: bool = False) -> None:
        """A line to the log, and to whoever watches."""
        with self.lock:
            self.log.write(text + "\n")
            self.log.flush()
            if not quiet:
                print(text, flush=True)


def _is_noise(line: str) -> bool:
    """Library chatter that would push results out of a reader's last lines."""
    return any(
        mark in line
        for mark in (
            "Warning",
            "warnings.warn",
            "  return ",
            "_warn_once(",
            "USDT:",
            "gpuGetDeviceCount",
        )
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End a group and what it started; it leads a process session of its own."""
    os.killpg(process.pid, signal.SIGKILL)


def _versions() -> str:
    from importlib.metadata import version

    return f"torch {version('torch')}, torchvision {version('torchvision')}, Python {platform.python_version()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
