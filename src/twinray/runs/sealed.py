"""Sealed test images: a run that wrote its predictions of them and measured nothing, until its study is opened.

``metrics.json`` of a sealed run has no test figures; under ``sealed`` it keeps what else belongs to them. Opening writes ``opened.json`` beside it,
with the figures. Both are records, no locks: who measures the predictions by other means is not found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.files import read_json, write_json

OPENED, KEY = "opened.json", "sealed"


def is_sealed(run: Path, metrics: Mapping[str, Any]) -> bool:
    """Whether nobody may know the test figures of a run yet.

    Args:
        run: its folder.
        metrics: what its ``metrics.json`` holds.
    """
    return bool(metrics.get(KEY)) and not (run / OPENED).is_file()


def check_open(runs: Iterable[tuple[Path, Mapping[str, Any]]], split: str) -> None:
    """Refuse to measure a run on test images before its study is opened.

    Args:
        runs: folders and their figures.
        split: images that will be measured.

    Raises:
        InputError: one of the runs is sealed.
    """
    for path, metrics in runs:
        if split == "test" and is_sealed(path, metrics):
            raise InputError(
                f"the test images of {path} are sealed until every planned run of its study is done; "
                "take --split val, or run twinray study with --open-anyway, which its report lists"
            )


def kept_marks(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Marks of the test figures (how many images training had seen) that a sealed run keeps for its opening."""
    own = metrics.get(KEY)
    marks = own.get("marks") if isinstance(own, Mapping) else None
    return marks if isinstance(marks, Mapping) else {}


def write_opened(run: Path, content: Mapping[str, Any]) -> None:
    """Write the test figures of a run whose study is opened.

    Raises:
        TwinrayError: the disk refuses.
    """
    write_json(run / OPENED, dict(content), "opened figures")


def read_opened(run: Path) -> dict[str, Any] | None:
    """What ``opened.json`` holds; None of a run that is sealed or never was.

    Raises:
        InputError: the file is damaged.
    """
    if not (run / OPENED).is_file():
        return None
    content = read_json(run / OPENED, "opened figures")
    if not isinstance(content, dict):
        raise InputError(f"expected an object in {run / OPENED}; was it edited? Restore the file")
    return content
