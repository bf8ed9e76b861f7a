"""The same study on other engines ends with the same table."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from twinray.errors import InputError, TwinrayError
from twinray.studies import run as verb
from twinray.studies.config import StudyConfig
from twinray.studies.results.state import collect
from twinray.studies.runner import ray_engine
from twinray.studies.runner.local import cores, threads_for
from twinray.studies.runner.place import Place
from twinray.studies.runner.slurm import Job, run_slurm, sbatch
from twinray.studies.sealed.opening import open_study


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "study.yaml"
    options = {
        "arch": "resnet18",
        "size": 32,
        "precision": "float32",
        "bootstrap": 20,
        "device": "cpu",
    }
    study = {
        "study": "Engines",
        "packs": {"pack": {"format": "phantom", "size": 64, "val": 0.2, "test": 0.4, "phantom_images": 24}},
        "arms": ["random"],
        "tasks": {"labels": {"verb": "classify", "pack": "pack", "fractions": [0.5, 1], "options": options}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def table(file) -> bytes:
    """What the default engine gives."""
    return figures(file, file.parent / "local")


def figures(file: Path, out: Path, **more: object) -> bytes:
    state = verb.run(StudyConfig(file=file, out=out, threads=1, **more), Console(quiet=True))
    assert state is not None and state.opened
    return (out / "results" / "figures.csv").read_bytes()


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ray_gives_the_same_table(file, table, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert figures(file, tmp_path / "ray", on="ray", workers=2) == table
    hosts = {piece.done.claim for piece in collect(tmp_path / "ray").pieces}
    assert hosts == {0}  # nothing was begun twice


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_worker_that_dies_under_ray_is_started_again_three_times(tmp_path, monkeypatch):
    """Its death was an error of the task, which Ray retries only where it is told to."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    starts = tmp_path / "starts"

    def dies(until: int):
        def work(study: str) -> int:
            with starts.open("a") as file:
                file.write("x")
            code = f"import os; os.kill(os.getpid(), 9) if {starts.stat().st_size} < {until} else 0"
            return subprocess.run(["python3", "-S", "-c", code], check=True).returncode

        return work

    monkeypatch.setattr(ray_engine, "_work", dies(3))
    ray_engine.run_ray(Place(tmp_path), 1, 1, lambda: None)
    assert starts.read_text() == "xxx"
    monkeypatch.setattr(ray_engine, "_work", dies(100))
    with pytest.raises(TwinrayError, match="every worker ended with an error"):
        ray_engine.run_ray(Place(tmp_path), 1, 1, lambda: None)
    assert starts.read_text() == "xxx" + "xxxx"


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra slurm is not installed"
)
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("executor", ["debug", "local"])
def test_submitit_gives_the_same_table(file, table, tmp_path, executor):
    """Its executors without SLURM: the same pickled worker, in this process and in processes of its own."""
    out = tmp_path / executor
    config = StudyConfig(file=file, out=out, on="slurm", sbatch=True)
    assert verb.run(config, Console(quiet=True)) is None
    place = Place(out)
    job = Job(2 if executor == "local" else 1, 1, minutes=10)
    assert len(run_slurm(place, job, lambda: None, executor=executor)) == job.workers
    open_study(place, place.plan())
    assert figures(file, out) == table


def test_the_batch_script_asks_for_what_was_given(tmp_path):
    text = sbatch(Place(tmp_path), Job(3, 4, 2, 90, 24, "gpu"))
    for line in (
        "--array=0-2",
        "--cpus-per-task=4",
        "--mem=24G",
        "--time=90",
        "--gpus-per-task=2",
        "--partition=gpu",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "OMP_NUM_THREADS=4" in text and "TWINRAY_STUDY_RANKS=2" in text
    assert re.search(r"-m twinray.studies.runner.worker \S+\n$", text)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_a_folder_with_a_space_and_a_percent_sign_gets_its_logs(tmp_path):
    study = tmp_path / "50% of all labels"
    study.mkdir()
    (line,) = (x for x in sbatch(Place(study), Job(1)).splitlines() if "--output" in x)
    (option,) = shlex.split(line.removeprefix("#SBATCH "))
    fields = option.removeprefix("--output=").replace("%%", "\0")
    assert re.findall("%.", fields) == ["%A", "%a"]
    assert fields.replace("\0", "%").startswith(str(study.resolve()))


def test_without_threads_a_job_takes_what_the_cluster_gives_a_task(tmp_path, monkeypatch):
    text = sbatch(Place(tmp_path), Job(1))
    assert "--cpus-per-task" not in text
    line = next(line for line in text.splitlines() if line.startswith("export "))
    shown = f"{line}\necho $OMP_NUM_THREADS"
    for given, expected in (({"SLURM_CPUS_PER_TASK": "6"}, "6"), ({}, "1")):
        done = subprocess.run(
            ["bash", "-c", shown], env=given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
    bound = cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores() == 1 and threads_for(2) == 1
    monkeypatch.setenv(
        "SLURM_CPUS_PER_TASK", str(bound + 7)
    )  # no more than the process is bound to
    assert cores() == bound


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="SLURM is installed here")
def test_slurm_that_is_not_there_is_said(file, tmp_path):
    with pytest.raises(InputError, match=r"needs sbatch|needs submitit"):
        verb.run(StudyConfig(file=file, out=tmp_path / "out", on="slurm"), Console(quiet=True))


# --- a real SLURM ---


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """One node of Debian's ``slurm-wlm``, started in a temporary folder and ended by its process ids."""
    missing = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"SLURM cannot be started here: {', '.join(missing) or 'not root'}")
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    base = tmp_path / "slurm"
    (base / "state").mkdir(parents=True)
    (base / "spool").mkdir()
    host = os.uname().nodename.split(".")[0]
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) // 2048
    lines = [
        "ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", "AuthType=auth/munge", "ProctrackType=proctrack/pgid", "TaskPlugin=task/none",
        "SlurmUser=root", "SlurmdUser=root", f"StateSaveLocation={base}/state", f"SlurmdSpoolDir={base}/spool",
        f"SlurmctldPidFile={base}/ctld.pid", f"SlurmdPidFile={base}/d.pid", f"SlurmctldLogFile={base}/ctld.log", f"SlurmdLogFile={base}/d.log",
        "SlurmctldPort=16817", "SlurmdPort=16818", "ReturnToService=2", "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core",
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory}",
        f"PartitionName=test Nodes={host} Default=YES State=UP",
    ]  # fmt: skip
    conf = base / "slurm.conf"
    conf.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    running = [subprocess.Popen(["runuser", "-u", "munge", "--", "munged", "-F"])]
    time.sleep(1)
    running.append(subprocess.Popen(["slurmctld", "-D", "-f", str(conf)]))
    time.sleep(2)
    running.append(subprocess.Popen(["slurmd", "-D", "-f", str(conf)]))
    try:
        until = time.monotonic() + 60
        while b"idle" not in subprocess.run(["sinfo"], capture_output=True, check=False).stdout:
            if time.monotonic() > until:
                pytest.fail(f"no idle node:\n{(base / 'ctld.log').read_text()[-2000:]}")
            time.sleep(1)
        yield conf
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_slurm_gives_the_same_table(file, table, tmp_path, slurm):
    assert figures(file, tmp_path / "out", on="slurm", workers=1, memory=1, minutes=10) == table
