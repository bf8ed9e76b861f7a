"""Unfinished packs: cut off anywhere, out of space, damaged - a resumed pack has the bytes of one that never was."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twinray.data.pack import open_pack
from twinray.data.packing import finish as pack_finish
from twinray.data.packing import journal as pack_journal
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
from twinray.errors import InputError, TwinrayError
from twinray.records import Collection, Pixels, Sample

SMALL = PackOptions(size=16, val=0.2, test=0.2)


@dataclass(frozen=True)
class Drawn:
    """Makes images without any file; ids with ``bad`` are refused, those with ``rgb`` are in colour."""

    height: int = 20
    width: int = 30

    def __call__(self, sample: Sample) -> Pixels:
        if "bad" in sample.id:
            raise InputError(f"{sample.source}: expected an image, got nothing; replace it")
        name = sample.source.split("#")[0]
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        shape = (self.height, self.width, 3) if "rgb" in sample.id else (self.height, self.width)
        return Pixels(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), "drawn")


def drawn(ids: list[str], name: str = "drawn", **more: Any) -> Collection:
    samples = [Sample(i, f"{i}.png", patient=f"p{k // 2}") for k, i in enumerate(ids)]
    return replace(Collection(name, (), (), "none", samples, Drawn()), **more)


def some(n: int, prefix: str = "i") -> list[str]:
    return [f"{prefix}{i:03}" for i in range(n)]


def files_of(pack: Path) -> dict[str, str]:
    return {
        str(p.relative_to(pack)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(pack.rglob("*"))
        if p.is_file()
    }


class Killed(BaseException):
    """Stands for a process that ends at once."""


def packed_until(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, stand_in: Any, ids: list[str], out: Path
) -> None:
    """Pack until ``place.name``, replaced by ``stand_in``, raises."""
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stand_in)
        write_pack([drawn(ids)], out, SMALL, workers=0)


def killed(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.mark.parametrize("rgb_at", [None, 2, 6])
@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_a_resumed_pack_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, rgb_at: int | None
) -> None:
    ids = [*some(3), "bad", *some(4, "j")]
    if rgb_at is not None:
        ids[rgb_at] = "rgb"
    write_pack([drawn(ids)], tmp_path / "whole", SMALL, workers=0)
    append, seen = pack_journal.Journal._append, []

    def cut_off(self: Any, line: Any) -> None:
        if len(seen) == stop:
            self._journal.write(b'[12,"half a li')  # pixels are there, the line is not whole
            raise Killed
        seen.append(line)
        append(self, line)

    with pytest.raises(Killed):
        packed_until(monkeypatch, pack_journal.Journal, "_append", cut_off, ids, tmp_path / "cut")
    with pytest.raises(InputError, match="not empty"):
        write_pack([drawn(ids)], tmp_path / "cut", SMALL, workers=0)
    write_pack([drawn(ids)], tmp_path / "cut", SMALL, workers=0, resume=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("step", ["finish", "write_json", "settle", "sha256"])
def test_cut_off_while_finishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ids = [*some(9), "bad"]
    write_pack([drawn(ids)], tmp_path / "whole", SMALL, workers=0)

    place = pack_journal.Journal if step == "finish" else pack_finish
    with pytest.raises(Killed):
        packed_until(monkeypatch, place, step, killed, ids, tmp_path / "cut")
    (tmp_path / "cut" / ".samples.parquet.1.tmp").write_bytes(b"left over")
    write_pack([drawn(ids)], tmp_path / "cut", SMALL, workers=0, resume=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_damaged_pixels_of_an_unfinished_pack_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pack([drawn(some(8))], tmp_path / "whole", SMALL, workers=0)

    with pytest.raises(Killed):
        packed_until(monkeypatch, pack_journal.Journal, "finish", killed, some(8), tmp_path / "cut")
    part = tmp_path / "cut" / ".unfinished" / "images.part"
    data = bytearray(part.read_bytes())
    data[128 + 3 * 256 + 5] ^= 255
    part.write_bytes(data)
    write_pack([drawn(some(8))], tmp_path / "cut", SMALL, workers=0, resume=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_resuming_another_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        packed_until(monkeypatch, pack_journal.Journal, "finish", killed, some(8), tmp_path / "p")
    with pytest.raises(InputError, match="unfinished pack of another source"):
        write_pack(
            [drawn(some(8))], tmp_path / "p", replace(SMALL, size=32), workers=0, resume=True
        )
    write_pack([drawn(some(8))], tmp_path / "p", SMALL, workers=0, resume=True)
    done = files_of(tmp_path / "p")
    write_pack([drawn(some(8))], tmp_path / "p", SMALL, workers=0, resume=True)
    assert files_of(tmp_path / "p") == done
    with pytest.raises(InputError, match="finished pack of another source"):
        write_pack([drawn(some(8))], tmp_path / "p", replace(SMALL, seed=5), workers=0, resume=True)


def test_more_workers_change_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(20):
        shape = (20, 24, 3) if i == 11 else (20, 24)
        pixels = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(source / f"{i:02}.png")
    (source / "05.png").write_text("no image")
    for name, workers in (("here", 0), ("one", 1), ("three", 3)):
        write_pack([read_folder(source)], tmp_path / name, SMALL, workers=workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three") == files_of(tmp_path / "here")
    assert open_pack(tmp_path / "one").info.channels == 3


@pytest.mark.parametrize("file", ["images.part", "journal.jsonl"])
def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write_pack([drawn(some(8))], tmp_path / "whole", SMALL, workers=0)
    write, n = pack_journal._write_all, 0

    def full(handle: Any, data: memoryview) -> None:
        nonlocal n
        n += Path(handle.name).name == file
        if n >= 5:
            write(handle, data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(handle, data)

    with pytest.raises(TwinrayError) as caught:
        packed_until(monkeypatch, pack_journal, "_write_all", full, some(8), tmp_path / "p")
    assert "the disk is full" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    write_pack([drawn(some(8))], tmp_path / "p", SMALL, workers=0, resume=True)
    assert files_of(tmp_path / "p") == files_of(tmp_path / "whole")


_SLOW = """
import sys, time
from pathlib import Path
from twinray.data.packing import journal as pack_journal
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
append = pack_journal.Journal._append
def slow(self, line):
    append(self, line)
    time.sleep(0.02)
if sys.argv[3] == "slow":
    pack_journal.Journal._append = slow
if __name__ == "__main__":
    write_pack([read_folder(Path(sys.argv[1]))], Path(sys.argv[2]), PackOptions(size=16), workers=2, resume=True)
"""


def test_killed_and_resumed_for_real(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(60):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)).save(
            source / f"{i:02}.png"
        )
    script = tmp_path / "job.py"
    script.write_text(_SLOW)
    write_pack([read_folder(source)], tmp_path / "whole", PackOptions(size=16), workers=1)
    job = subprocess.Popen(
        [sys.executable, str(script), str(source), str(tmp_path / "p"), "slow"],
        start_new_session=True,
    )
    journal = tmp_path / "p" / ".unfinished" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while (
        time.monotonic() < deadline
        and job.poll() is None
        and not (journal.is_file() and journal.read_bytes().count(b"\n") > 10)
    ):
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert journal.is_file()
    assert not (tmp_path / "p" / "pack.json").exists()
    subprocess.run(
        [sys.executable, str(script), str(source), str(tmp_path / "p"), "fast"], check=True
    )
    assert files_of(tmp_path / "p") == files_of(tmp_path / "whole")
