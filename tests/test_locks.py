"""Two processes never work in one folder; a lock dies with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import twinray
from twinray.errors import InputError
from twinray.files import claim_folder, folders_freed

HOLD = "import sys, time; from pathlib import Path; from twinray.files import claim_folder; "
HOLD += "claim_folder(Path(sys.argv[1]), True, 'run'); print('held', flush=True); time.sleep(600)"


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that works in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_process_is_refused_in_one_line(holder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in" / "a.png")
    arguments = ("pack", tmp_path / "in", "--size", 16, "--resume", "--workers", 1)
    done = twinray(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    # the first test of all that packs makes the key, which is told
    lines = [x for x in done.stderr.splitlines() if not x.startswith("note: made the key")]
    assert len(lines) == 1
    assert f"{tmp_path / 'out'} is in use by" in lines[0]
    if Path("/proc/locks").is_file():
        assert f"process {holder.pid} on " in done.stderr
    assert not any((tmp_path / "out").iterdir())  # the lock leaves no file


def test_a_lock_dies_with_its_process(holder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is in use"):
        claim_folder(tmp_path / "out", True, "run")
    holder.kill()  # as kill -9
    holder.wait()
    with folders_freed():
        claim_folder(tmp_path / "out", True, "run")


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "seeds" / "0").mkdir(parents=True)
    stale = [out / ".model.safetensors.123.tmp", out / "seeds" / "0" / ".draw.json.9.tmp"]
    for path in (*stale, out / ".hidden", out / "model.tmp"):
        path.write_bytes(b"half")
    with folders_freed():
        claim_folder(out, True, "run")
    assert not any(path.exists() for path in stale)
    assert (out / ".hidden").is_file() and (out / "model.tmp").is_file()  # not ours to remove


def test_a_job_holds_its_folders_to_its_end_and_may_ask_twice(tmp_path: Path) -> None:
    def other() -> str:
        code = HOLD.replace("time.sleep(600)", "pass")
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True
        )
        return done.stdout or done.stderr.splitlines()[-1]

    with folders_freed():
        claim_folder(tmp_path / "out", True, "run")
        with folders_freed():
            claim_folder(tmp_path / "out", True, "run")
        assert f"in use by process {os.getpid()}" in other() or "in use by another" in other()
    assert other() == "held\n"
