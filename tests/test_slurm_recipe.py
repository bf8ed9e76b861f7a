"""The SLURM recipe of docs/training.md, run with a torchrun and a scontrol that only say what they were told."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "training.md"
TORCHRUN = """#!/bin/bash
echo $$ >> "$NOTES/started"
trap 'echo "TERM $$" >> "$NOTES/ended"; exit 1' TERM
for i in $(seq 600); do sleep 0.05; done
"""


def test_the_recipe_ends_its_own_torchrun_and_no_other_job(tmp_path):
    (recipe,) = re.findall(r"```\n(#!/bin/bash\n#SBATCH.*?)```", DOCS.read_text(), re.DOTALL)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (
        ("torchrun", TORCHRUN),
        ("scontrol", '#!/bin/bash\necho "$@" >> "$NOTES/scontrol"\n'),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(recipe)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "NOTES": str(tmp_path),
        "SLURM_JOB_ID": "4711",
    }
    other = subprocess.Popen([str(tools / "torchrun")], env=environment)
    job = subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=environment)
    try:
        started = tmp_path / "started"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if started.is_file() and len(started.read_text().split()) == 2:
                break
            time.sleep(0.05)
        time.sleep(0.5)  # until the trap stands
        job.send_signal(signal.SIGUSR1)
        job.wait(timeout=60)
        assert other.poll() is None
        (ended,) = (tmp_path / "ended").read_text().splitlines()
        (own,) = (p for p in started.read_text().split() if int(p) != other.pid)
        assert ended == f"TERM {own}"
        assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
    finally:
        for process in (other, job):
            process.kill()
            process.wait()
