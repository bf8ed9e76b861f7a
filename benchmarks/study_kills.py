"""A small study is killed at random moments, and the same command is given again, until it is done.

Who is killed is drawn each time: a worker, the coordinator, or all of them (SIGKILL, so nobody can tidy up). Then it is checked that

- the tables of figures, of runs and of deviations equal those of the same study done without a kill, byte for byte;
- every piece is done once in the journal, and none was begun again after it was done.

    python benchmarks/study_kills.py [--kills 10] [--seed 0] [--out FOLDER]

It draws its own images and needs no network and no GPU. Ten kills take about 4 minutes on two free cores. Exit status 1: a check failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from twinray.studies.runner.local import MOST_DEATHS
from twinray.studies.runner.place import PLAN, Place

STUDY = """
study: Killed at random moments
packs:
  lake: {format: phantom, phantom_images: 48, size: 32, val: 0, test: 0, seed: 1}
  chest: {format: phantom, phantom_images: 40, size: 64, val: 0.2, test: 0.4}
pretrainings:
  bt: {pack: lake, options: {arch: resnet18, size: 32, batch_size: 8, epochs: 3, projector: [32, 32], checkpoint_every: 2}}
arms: [{name: random, init: random, options: {arch: resnet18}}, {name: Barlow Twins, pretraining: bt}]
tasks:
  findings: {verb: classify, pack: chest, fractions: [0.5, 1], seeds: [0, 1], options: {size: 32}}
  lesions:
    verb: detect
    pack: chest
    options:
      {size: 64, epochs: 3, batch_size: 4, fpn_channels: 16, box_head_width: 32, rois_per_image: 16, anchor_scale: 4, checkpoint_every: 1}
options: {all: {bootstrap: 20, device: cpu, precision: float32}}
"""
TABLES = ("figures.csv", "figures.parquet", "runs.csv", "deviations.csv")
TARGETS = ("worker", "coordinator", "all")


def start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["study", str(file), "--out", str(out), "--workers", "2", "--threads", "1"]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "twinray", *words], stdout=log, stderr=log)


def workers(out: Path) -> list[int]:
    """Process ids of the workers that hold a piece now."""
    if not (out / PLAN).is_file():
        return []
    place, found = Place(out), []
    for one in place.plan():
        if place.claims.state(one.id) == "running":
            held = place.claims.holder(one.id)
            if held is not None:
                found.append(held.process.pid)
    return sorted(set(found))


def kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself a moment ago
        os.kill(process, signal.SIGKILL)


def repeated(out: Path) -> list[str]:
    """Pieces that were done twice, or begun after they were done."""
    done: Counter[str] = Counter()
    found = []
    for event in Place(out).journal.events():
        piece = str(event.about.get("piece"))
        if event.what == "begun" and done[piece]:
            found.append(f"{piece} begun again")
        if event.what == "done":
            done[piece] += 1
            if done[piece] > 1:
                found.append(f"{piece} done {done[piece]} times")
    missing = {one.id for one in Place(out).plan()} - set(done)
    return [*found, *(f"{piece} never done" for piece in sorted(missing))]


def killed(file: Path, out: Path, kills: int, draws: random.Random, usual: float) -> None:
    """Do the study with so many kills; the moments are spread over the time that it usually takes."""
    process, dealt, in_a_row = start(file, out), 0, 0
    while dealt < kills and process.poll() is None:
        until = time.monotonic() + draws.uniform(0.05, 1.6) * usual / kills
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        own = workers(out)
        # a run over which a coordinator loses MOST_DEATHS workers counts as failed, as it should
        whom = draws.choice(TARGETS if in_a_row < MOST_DEATHS - 1 else TARGETS[1:])
        if process.poll() is not None or not own:
            continue  # nobody holds a piece yet: a kill now would test nothing
        targets = [draws.choice(own)] if whom == "worker" else own if whom == "all" else []
        if whom != "worker":
            process.kill()
            process.wait()
        for target in targets:
            kill(target)
        dealt += 1
        in_a_row = in_a_row + 1 if whom == "worker" else 0
        print(f"kill {dealt}: {whom} {', '.join(map(str, targets)) or process.pid}", flush=True)
        if whom != "worker":
            process = start(file, out)
    if process.wait():
        raise SystemExit(f"the study ended with status {process.returncode}; see {out}.log")
    if dealt < kills:
        print(f"the study was done after {dealt} of {kills} kills; give a larger --kills its time")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="kills, 10 unless given")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and victims")
    parser.add_argument("--out", type=Path, help="new folder that is kept; default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="twinray-kills-") as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} holds files; choose another --out")
        file = folder / "study.yaml"
        file.write_text(STUDY, encoding="utf-8")
        print(
            f"a study of 13 pieces is done once in peace and once with {given.kills} kills, in {folder}; "
            "about 20 s for each kill on two free cores",
            flush=True,
        )
        began = time.monotonic()
        if start(file, folder / "peace").wait():
            raise SystemExit(f"the study failed without a kill; see {folder / 'peace.log'}")
        usual = time.monotonic() - began
        print(f"in peace: {usual:.0f} s", flush=True)
        killed(file, folder / "killed", given.kills, random.Random(given.seed), usual)
        faults = repeated(folder / "killed")
        for name in TABLES:
            one, other = (folder / part / "results" / name for part in ("peace", "killed"))
            if one.read_bytes() != other.read_bytes():
                faults.append(f"{name} differs")
        begun = sum(e.what == "begun" for e in Place(folder / "killed").journal.events())
        print(f"begun {begun} times, {len(Place(folder / 'killed').plan().nodes)} pieces")
        print("\n".join(faults) if faults else "tables equal byte for byte, no finished run twice")
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
