"""Copies of a finished run that say something else of themselves than it does."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import yaml

from twinray.runs.checksums import write_checksums


def copied(run: Path, folder: Path) -> None:
    """A copy of a run; its weights, which nothing changes, take no room."""

    def copy(old: str, new: str) -> None:
        os.link(old, new) if old.endswith(".safetensors") else shutil.copy(old, new)

    shutil.copytree(run, folder, copy_function=copy, ignore=shutil.ignore_patterns("checkpoints"))


def changed(run: Path, folder: Path, **options: object) -> Path:
    """A copy of a run that says it was made with other options."""
    copied(run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | options))
    return sealed(folder)


def sealed(run: Path) -> Path:
    """The run, with checksums of its files as they are now: a test changed them, and means it."""
    (run / "checksums.json").unlink()
    write_checksums(run, {})
    return run


def noted(run: Path, *notes: str) -> Path:
    """The run, with further notes of its own."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["notes"] += notes
    (run / "metrics.json").write_text(json.dumps(metrics))
    return sealed(run)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
