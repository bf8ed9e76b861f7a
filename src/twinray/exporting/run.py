"""``twinray export``: a finished run -> files for another tool, checked there on real images, with a model card."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from twinray.exporting import to_mmdet, to_onnx, to_timm, to_torchvision
from twinray.exporting.card import card
from twinray.exporting.config import ExportConfig
from twinray.exporting.files import Exported
from twinray.exporting.images import Sample, sample
from twinray.exporting.parity import Parity
from twinray.exporting.subject import Subject, open_subject
from twinray.files import frees_folders, rename_file, write_json, write_text
from twinray.runs.output import open_output, run_fact

_WRITERS: Mapping[str, Callable[[Subject, Path], Exported]] = {
    "torchvision": to_torchvision.write,
    "timm": to_timm.write,
    "onnx": to_onnx.write,
}
_UNCHECKED = "unchecked"
"""Folder that holds the files until the check has passed: what a kill leaves there says so."""


@frees_folders
def run(config: ExportConfig) -> Path:
    """Write the files, check them through the foreign loader, and write the card; return the folder.

    Raises:
        InputError: not a finished run, a target that does not take its network, or no real image for the check.
        TwinrayError: the other tool does not give what the run gives; nothing is kept then.
    """
    subject = open_subject(config.run, allow_edited=config.allow_edited)
    images = sample(subject, config.images, config.parity_images)
    reads = [config.run, *config.images]
    with open_output(
        config, "export", config.out, {"run": run_fact(config.run)}, reads=reads
    ) as output:
        exported, parity = _checked(subject, config.out, _writer(config), images)
        write_json(output.path / "parity.json", parity.as_json(), "figures of the check")
        text = card(subject, config.to, exported, parity, images.source)
        write_text(output.path / "README.md", text, "the model card")
    print(f"{config.out}: {parity.told()}", file=sys.stderr)
    return config.out


def _writer(config: ExportConfig) -> Callable[[Subject, Path], Exported]:
    if config.to == "mmdet":
        return partial(to_mmdet.write, python=config.foreign_python)
    return _WRITERS[config.to]


def _checked(
    subject: Subject, out: Path, write: Callable[[Subject, Path], Exported], images: Sample
) -> tuple[Exported, Parity]:
    """Write beside, check, and give the files their places; nothing stays where the check fails."""
    beside = out / _UNCHECKED
    beside.mkdir(exist_ok=True)
    try:
        exported = write(subject, beside)
        parity = exported.check(images.pixels)
        parity.check()
        for name in exported.names:
            rename_file(beside / name, out / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return exported, parity
