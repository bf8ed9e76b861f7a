"""Workers on this machine: started, watched, and started again where one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from twinray.errors import DiskFull
from twinray.files import make_folder
from twinray.studies.plan.nodes import Node
from twinray.studies.runner.claims import Claims, now
from twinray.studies.runner.place import Place
from twinray.studies.runner.worker import NO_ROOM, STOPPED

MOST_DEATHS = 3
"""Workers that may die over one run before it counts as failed: one that needs more memory than there is would go on for ever."""


def cores() -> int:
    """Cores that this process may use: those of its SLURM task, or those that it is bound to."""
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # fmt: skip
    # inside a job both are known; the smaller one holds
    return min(int(task), bound) if task.isdigit() and int(task) else bound


def threads_for(workers: int) -> int:
    """Threads of each worker, so that all of them together use every core once."""
    return max(1, cores() // workers)


def environment(threads: int) -> dict[str, str]:
    """Environment of a worker with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def start_worker(study: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a worker's process; where its parent is killed it goes on, and the next coordinator waits for what it holds."""
    place = Place(study)
    make_folder(place.logs)
    with (place.logs / "workers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "twinray.studies.runner.worker", str(study)],
            env=environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the coordinator, which asks the workers to stop
        )


def run_local(place: Place, workers: int, threads: int, tick: Callable[[], None]) -> None:
    """Keep workers going until nothing is left to do.

    Args:
        place: the study.
        workers: number of processes.
        threads: threads of each.
        tick: called now and then, to show how far it is.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers were asked to stop and have ended.
        DiskFull: the disk is full; the workers have ended.
    """
    with _asked_to_stop():
        _keep_going(place, workers, threads, tick)


@contextmanager
def _asked_to_stop() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does: the workers, which have sessions of their own, would go on unseen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_going(place: Place, workers: int, threads: int, tick: Callable[[], None]) -> None:
    deaths: Counter[str] = Counter()
    full = False
    since = now()
    running = [start_worker(place.path, threads) for _ in range(workers)]
    try:
        while running:
            time.sleep(0.2)
            tick()
            for process in [one for one in running if one.poll() is not None]:
                running.remove(process)
                full |= process.returncode == NO_ROOM
                if process.returncode in (0, STOPPED, NO_ROOM):
                    continue
                held = _held_by(place, process.pid, since)
                if held is not None:
                    deaths[held.id] += 1
                    if deaths[held.id] >= MOST_DEATHS:
                        _give_up(place, held, process.returncode)
                if held is not None or process.returncode < 0:
                    running.append(start_worker(place.path, threads))
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    if full:
        raise DiskFull(
            f"the disk of {place.path} is full (or the quota), so its workers ended; what was done is kept: free some space, and the "
            "same command goes on"
        )


def _held_by(place: Place, pid: int, since: str) -> Node | None:
    """The piece that a dead worker of this machine held, whoever holds it by now."""
    claims: Claims = place.claims
    for one in place.plan():
        if claims.state(one.id) in ("open", "running") and claims.left_by(one.id, pid, since):
            return one
    return None


def _give_up(place: Place, one: Node, status: int) -> None:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    reason = (
        f"{MOST_DEATHS} workers ended by {how} while they did it; is there enough memory? "
        "Take fewer --workers or a smaller batch, then --retry-failed"
    )
    if place.claims.fail_dead(one.id, reason):
        place.journal.append("failed", piece=one.id, reason=reason)
