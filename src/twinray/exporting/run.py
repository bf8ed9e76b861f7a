"""``twinray export``: a finished run -> files for another tool, checked there on real images, with a model card."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from twinray.data.keyed import own_key
from twinray.errors import InputError
from twinray.exporting import to_hub, to_mmdet, to_onnx, to_timm, to_torchvision
from twinray.exporting.card.page import Facts, card
from twinray.exporting.config import ExportConfig
from twinray.exporting.files import Exported
from twinray.exporting.images import Sample, opened_packs, sample
from twinray.exporting.licences import chain, check_commercial, image_terms
from twinray.exporting.membership import membership, sides
from twinray.exporting.parity import Parity
from twinray.exporting.push import check_push, push
from twinray.exporting.subject import Subject, open_subject
from twinray.files import frees_folders, rename_file, write_json, write_text
from twinray.runs.output import open_output, run_fact
from twinray.runs.seen import Seen, read_seen, sealed, write_seen

_WRITERS: Mapping[str, Callable[[Subject, Path], Exported]] = {
    "torchvision": to_torchvision.write,
    "timm": to_timm.write,
    "onnx": to_onnx.write,
    "hub": to_hub.write,
}
_NEEDED: Mapping[str, Callable[[], object]] = {
    "timm": to_timm.installed_timm,
    "onnx": to_onnx.check_installed,
}
_UNCHECKED = "unchecked"
"""Folder that holds the files until the check has passed: what a kill leaves there says so."""
_NOT_CHECKED = "Whether training images can be told from others was not checked (--membership on)."


@frees_folders
def run(config: ExportConfig) -> Path:
    """Write the files, check them through the foreign loader, write the card and push; return the folder.

    Raises:
        InputError: a target whose extra is missing or that does not take the run's network, not a finished run, an ancestor whose
            licence forbids it, no real image for the check, or a detector that finds nothing on them.
        TwinrayError: the other tool does not give what the run gives; nothing is kept then. Or the hub refuses.
    """
    if config.push:
        check_push(config.push)
    if needed := _NEEDED.get(config.to):
        needed()
    subject = open_subject(config.run, allow_edited=config.allow_edited)
    if config.commercial:
        check_commercial(subject)
    images = sample(subject, config.images, config.parity_images)
    seen = read_seen(config.run)
    reads = [config.run, *config.images]
    with open_output(
        config, "export", config.out, {"run": run_fact(config.run)}, reads=reads
    ) as output:
        exported, parity = _checked(subject, config.out, _writer(config), images)
        write_json(output.path / "parity.json", parity.as_json(), "figures of the check")
        told = _membership(config, subject, seen, output.path)
        if config.to == "hub":
            write_seen(output.path, sealed(seen, own_key(config.key)))
        facts = Facts(config.to, config.license, images.source, told, seen)
        text = card(subject, exported, parity, facts)
        write_text(output.path / "README.md", text, "the model card")
    print(f"{config.out}: {parity.told()}", file=sys.stderr)
    for ancestor in chain(subject):
        print(f"note: {ancestor.told()}", file=sys.stderr)
    if config.commercial:
        # an ancestor's licence is refused above; of images it is told, since nothing says what it means for weights
        for terms in image_terms(seen):
            print(f"note: {terms}", file=sys.stderr)
    if config.push:
        where = push(config.out, config.push, private=config.private)
        print(f"pushed to {where}", file=sys.stderr)
    return config.out


def _membership(config: ExportConfig, subject: Subject, seen: Seen, out: Path) -> tuple[str, ...]:
    """Lines for the card on whether training images can be told from others; the figures in a file of their own."""
    if config.membership == "off" or (config.membership == "auto" and config.to != "hub"):
        return (_NOT_CHECKED,)
    packs = opened_packs(subject)
    why = "the packs that it learned from are not where they were"
    for pack in packs:
        both = sides(seen, pack, config.membership_images)
        if isinstance(both, str):
            why = both
            continue
        found = membership(subject, pack, both)
        write_json(out / "membership.json", found.as_json(), "figures of the membership check")
        return found.told()
    if config.membership == "on":
        raise InputError(
            f"{subject.run}: --membership on, but {why}; bring the pack, or leave it out"
        )
    return (f"Whether training images can be told from others could not be checked: {why}.",)


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
