"""The same worker as Ray tasks (extra ``ray``): on a cluster that runs, or started on this machine. Ray places them, claims share out the work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twinray.errors import InputError, TwinrayError
from twinray.studies.runner.local import environment
from twinray.studies.runner.place import Place


def run_ray(
    place: Place, workers: int, threads: int, tick: Callable[[], None], gpus: int = 0
) -> None:
    """Start the workers as tasks and wait until all have ended.

    The address of a cluster comes from ``RAY_ADDRESS``, as for any Ray program; without it Ray starts on this machine and is
    stopped at the end. A worker that dies, or whose node does, is started again by Ray, three times.

    Args:
        place: the study, in a folder that every node sees.
        workers: number of workers.
        threads: threads and cores of each.
        tick: called now and then.
        gpus: GPUs of each.

    Raises:
        InputError: Ray is not installed.
        TwinrayError: every worker failed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--on ray needs Ray: pip install 'twinray[ray]'") from None
    variables = {k: v for k, v in environment(threads).items() if v != os.environ.get(k)}
    variables["TWINRAY_STUDY_RANKS"] = str(max(1, gpus))
    if "PYTHONPATH" in os.environ:
        variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
    own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {
        "num_cpus": workers * threads, "include_dashboard": False,
    }  # fmt: skip
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, runtime_env={"env_vars": variables}, **own)
    try:
        # a worker is a process of its own, whose death is an error of the task to Ray: it retries those when asked
        task = ray.remote(_work).options(
            num_cpus=threads, num_gpus=gpus or None, max_retries=3, retry_exceptions=True
        )
        left = [task.remote(str(place.path.resolve())) for _ in range(workers)]
        errors: list[str] = []
        while left:
            ready, left = ray.wait(left, timeout=1.0)
            for one in ready:
                try:
                    ray.get(one)
                except Exception as error:  # of the worker, or of its node
                    errors.append(str(error).strip().splitlines()[-1])
            tick()
        if len(errors) == workers:
            raise TwinrayError(f"every worker ended with an error ({errors[0]})")
    finally:
        if started:
            ray.shutdown()


def _work(study: str) -> int:
    """A worker in a process of Ray's; its own process writes logs, so nothing of Ray is in the results."""
    import subprocess
    import sys

    return subprocess.run(
        [sys.executable, "-m", "twinray.studies.runner.worker", study], check=True
    ).returncode
