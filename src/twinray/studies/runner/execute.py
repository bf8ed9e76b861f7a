"""One piece of work: the verb that it stands for, called as the command line calls it, always with --resume."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from twinray.checks import as_words
from twinray.errors import InputError, Stopped, TwinrayError
from twinray.files import folders_freed, make_folder, read_json, sha256, write_json
from twinray.runs.folder import METRICS, read_metrics
from twinray.studies.plan.nodes import Node, config_of

CHOICE = "choice.json"
RANKS = "TWINRAY_STUDY_RANKS"
"""Environment variable: number of processes that torchrun starts for one training; 1 unless set."""
STOP_S = 45.0
"""Time that torchrun has to end its processes when a worker is asked to stop, in seconds: less than the worker itself has."""
_RESULT = ("checksums.json", METRICS, "pack.json", CHOICE, "features.json")


def execute(one: Node, study: Path) -> Mapping[str, str]:
    """Do a piece of work, or what is left of it.

    Args:
        one: the piece; what it needs is done.
        study: folder of the study.

    Returns:
        SHA-256 of the files that stand for the result, by name.

    Raises:
        InputError, TwinrayError, Interrupted: as its verb.
    """
    folder = one.folder(study)
    with folders_freed():
        if one.kind == "choose":
            make_folder(folder)
            write_json(folder / CHOICE, choose(one, study), "choice of a search")
        elif one.kind == "pack":
            _pack(one, study)
        elif one.kind == "features":
            from twinray.classification.features.kept import (
                write_features,
            )  # torch: seconds to import

            write_features(config_of(one, study))
        else:
            _train(one, study)
    return result_files(folder)


def result_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that stand for a result, by name."""
    return {name: sha256(folder / name) for name in _RESULT if (folder / name).is_file()}


def chosen(one: Node, study: Path) -> dict[str, Any]:
    """Values that a search chose for a run; empty where none did."""
    for read in one.reads:
        if read.option == "choice":
            path = study / "runs" / read.node / CHOICE
            return dict(read_json(path, "choice of a search")["chosen"])
    return {}


def choose(one: Node, study: Path) -> dict[str, Any]:
    """The trial with the best figure on validation images; of equals the first.

    Raises:
        InputError: no trial has such a figure.
    """
    measure = one.options["measure"]
    rows = []
    for number, (read, values) in enumerate(zip(one.reads, one.options["trials"], strict=True)):
        own = (read_metrics(study / "runs" / read.node).get("val") or {}).get(measure) or {}
        rows.append(
            {"trial": number, "run": read.node, "values": values, measure: own.get("value")}
        )
    known = [row for row in rows if row[measure] is not None]
    if not known:
        raise InputError(
            f"no trial has {measure} on validation images: a search needs some; pack with --val above 0"
        )
    best = max(known, key=lambda row: (row[measure], -row["trial"]))
    return {"measure": measure, "split": "val", "budget": len(rows), "chosen": best["values"], "trial": best["trial"], "trials": rows}  # fmt: skip


def _pack(one: Node, study: Path) -> None:
    from twinray.jobs.pack import run as pack

    if (one.folder(study) / "pack.json").is_file():
        return  # a killed worker left the whole pack and no mark; pack.json is its last file
    pack(config_of(one, study), Console(file=StringIO()))


def _train(one: Node, study: Path) -> None:
    config = config_of(one, study, chosen(one, study))
    ranks = int(os.environ.get(RANKS, "1"))
    if ranks > 1 and getattr(config, "policy", "") != "probe":
        _torchrun(one, config, ranks)
        return
    from twinray.jobs import train  # torch: seconds to import

    if one.kind == "pretrain":
        train.pretrain(config)
    elif one.kind == "detect":
        train.detect(config)
    else:
        train.classify(config)


def _torchrun(one: Node, config: Any, ranks: int) -> None:
    """The same verb on several GPUs of this machine."""
    words = ["--standalone", "--nproc-per-node", str(ranks), "-m", "twinray", one.kind]
    command = [sys.executable, "-m", "torch.distributed.run", *words, *as_words(config)]
    with subprocess.Popen(command) as process:
        try:
            status = process.wait()
        except (
            BaseException
        ):  # torchrun hands the signal on; killed itself, it would leave its processes at work
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            process.kill()
            raise
    if status < 0:
        raise Stopped(f"torchrun was ended by signal {-status}")
    if status:
        raise TwinrayError(f"torchrun ended with status {status}; its output is in the run's log")
