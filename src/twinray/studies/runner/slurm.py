"""Workers as SLURM jobs, through submitit (extra ``slurm``): one array, each task one worker. SLURM schedules, claims share out the work."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError, TwinrayError
from twinray.files import write_text
from twinray.studies.runner.place import Place
from twinray.studies.runner.worker import work

SCRIPT = "workers.sbatch"
_WAIT_S = 5.0


@dataclass(frozen=True)
class Job:
    """What one worker asks of the scheduler.

    Attributes:
        workers: number of workers. threads: cores of each; 0 for what the cluster gives a task.
        gpus: GPUs of each; with several torchrun spreads a training over them.
        minutes: time limit. memory_gb: memory of each.
        partition: name of the partition; empty for the default one.
    """

    workers: int
    threads: int = 0
    gpus: int = 0
    minutes: int = 24 * 60
    memory_gb: int = 16
    partition: str = ""


def sbatch(place: Place, job: Job) -> str:
    """The script of the array, to be looked at or handed to ``sbatch``."""
    study = place.path.resolve()
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=twinray-study",
        f"#SBATCH --array=0-{job.workers - 1}",
        *([f"#SBATCH --cpus-per-task={job.threads}"] if job.threads else []),
        f"#SBATCH --mem={job.memory_gb}G",
        f"#SBATCH --time={job.minutes}",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@120",
        # a % in the path would be read as a field, a space as the end
        f"#SBATCH --output={shlex.quote(str(study).replace('%', '%%') + '/logs/slurm-%A-%a.log')}",
        *([f"#SBATCH --gpus-per-task={job.gpus}", "#SBATCH --ntasks=1"] if job.gpus else []),
        *([f"#SBATCH --partition={job.partition}"] if job.partition else []),
        "export " + " ".join(f"{k}={v}" for k, v in _environment(job).items()),
        f"exec {shlex.quote(sys.executable)} -m twinray.studies.runner.worker {shlex.quote(str(study))}",
    ]
    return "\n".join(lines) + "\n"


def write_sbatch(place: Place, job: Job) -> Path:
    """Write the script into the study's folder.

    Raises:
        TwinrayError: the disk refuses.
    """
    path = place.path / SCRIPT
    write_text(path, sbatch(place, job), "batch script")
    return path


def run_slurm(
    place: Place, job: Job, tick: Callable[[], None], *, executor: str = "slurm"
) -> list[str]:
    """Submit the workers and wait until all have ended; the study goes on where this process is killed.

    Args:
        place: the study, in a folder that every node sees.
        job: what each worker asks for.
        tick: called now and then.
        executor: executor of submitit: slurm, local (processes of this machine) or debug (this process).

    Returns:
        Ids of the jobs.

    Raises:
        InputError: submitit or SLURM is not installed.
        TwinrayError: every worker failed.
    """
    submitit = _submitit(executor)
    made = submitit.AutoExecutor(folder=place.logs / "submitit", cluster=executor)
    settings: dict[str, Any] = {"timeout_min": job.minutes, "name": "twinray-study"}
    if executor == "slurm":
        settings |= {
            **({"cpus_per_task": job.threads} if job.threads else {}),
            "mem_gb": job.memory_gb,
            **({"gpus_per_node": job.gpus} if job.gpus else {}),
            **({"slurm_partition": job.partition} if job.partition else {}),
            "slurm_setup": [f"export {k}={v}" for k, v in _environment(job).items()],
        }
    made.update_parameters(**settings)
    with made.batch():
        jobs = [made.submit(work, place.path.resolve()) for _ in range(job.workers)]
    while executor != "debug" and not all(one.done() for one in jobs):
        tick()
        time.sleep(min(_WAIT_S, 0.5 if executor == "local" else _WAIT_S))
    errors = [error for one in jobs if (error := one.exception()) is not None]
    if len(errors) == len(jobs):
        last = str(errors[0]).strip().splitlines()[-1:]
        raise TwinrayError(
            f"every worker ended with an error ({' '.join(last)}); their logs are in {place.logs / 'submitit'}"
        )
    return [str(one.job_id) for one in jobs]


def _environment(job: Job) -> Mapping[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    # known only inside the job; SLURM sets it where cores of a task were asked for, by the user or the cluster
    threads = str(job.threads) if job.threads else "${SLURM_CPUS_PER_TASK:-1}"
    return {**dict.fromkeys(names, threads), "TWINRAY_STUDY_RANKS": str(max(1, job.gpus))}


def _submitit(executor: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError(
            "--on slurm needs submitit: pip install 'twinray[slurm]', or take --sbatch and hand the script to sbatch"
        ) from None
    import shutil

    if executor == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "--on slurm needs sbatch, which is not on the PATH; run it where SLURM's commands are"
        )
    return submitit
