"""``twinray weights``: the ledger of public weights, and what a weight file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from twinray.backbones.build import ARCHITECTURES, build_backbone
from twinray.backbones.layouts import Match, best_match
from twinray.backbones.ledger import LEDGER, SOURCES, named
from twinray.backbones.ledger_row import UNKNOWN, Fact, PublicWeights
from twinray.backbones.weight_file import Tensors, check_values, read_tensors
from twinray.backbones.weights import read_description, weight_file
from twinray.errors import InputError
from twinray.files import sha256
from twinray.jobs.weights.config import WeightsConfig
from twinray.report.tables import Table

_SHOWN = 6
"""Names of tensors that a line lists."""


def run(config: WeightsConfig, console: Console | None = None) -> dict[str, Any]:
    """Print the table, one row of it, or what a file holds.

    Args:
        config: the options.
        console: where it goes; by default standard output.

    Returns:
        Name -> row as plain values, for the table and for a row; for a file what was found in it.

    Raises:
        InputError: neither a name of the table, nor a run, nor a file; a file that cannot be read.
    """
    console = console or Console()
    if not config.target:
        console.print(_table())
        console.print(
            "twinray weights NAME tells all facts of one, with their sources", markup=False
        )
        return {name: plain_row(row) for name, row in LEDGER.items()}
    if config.target in LEDGER:
        row = LEDGER[config.target]
        for line in _facts(row):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        return {row.name: plain_row(row)}
    found = look_into(config.target, config.arch)
    for name, value in found.items():
        console.print(f"{name}: {value}", soft_wrap=True, markup=False, highlight=False)
    return found


def plain_row(row: PublicWeights) -> dict[str, Any]:
    """A row as text and numbers: fact -> value, source and the day on which it was read."""
    return {
        fact: {"value": value, "source": source.value, "read": source.source}
        for fact, value, source in _cited(row)
    } | {
        "about": row.about,
        "refused": row.refused,
        "notes": list(row.notes),
    }


def look_into(target: str, arch: str = "") -> dict[str, Any]:
    """What a weight file holds.

    Args:
        target: a weight file, a run's folder, or NAME=FILE.
        arch: architecture to read it as; empty for the one that it fills.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    public = named(target)
    path = weight_file(target)
    assert path is not None  # a name without a file was answered before
    found: dict[str, Any] = {"file": str(path), "sha256": sha256(path)}
    dictionaries = read_tensors(path)
    found["tensors"] = _counted(dictionaries)
    described = None if public is not None else read_description(target)
    if described is not None:
        arch = arch or described.arch
        found["described as"] = f"{described.kind} of twinray, {described.arch}"
    if public is not None:
        if public.row.refused:
            found["refused"] = public.row.refused
            return found
        arch = arch or public.row.arch.value
    tried = [arch] if arch else _candidates()
    match, fitting = _best(dictionaries, tried, path, public.row.layouts if public else ())
    found["architecture"] = (
        fitting
        if match.complete
        else f"none that was tried ({len(tried)}) is filled; closest: {fitting}"
    )
    found["layout"] = match.layout
    found["place"] = match.place or "the file itself"
    found["prefix"] = match.prefix or "none"
    found["would load"] = f"{match.fitting} of {match.wanted} tensors of {fitting}"
    if match.missing:
        found["missing"] = _some(match.missing)
    if match.misshaped:
        found["of another shape"] = _some(match.misshaped)
    found["would not load"] = _some(match.unexpected) or "nothing"
    for note in match.notes:
        found["note"] = note
    try:
        check_values(dictionaries[match.place], str(path))
        found["values"] = "all finite"
    except InputError as error:
        found["values"] = str(error)
    if match.complete and public is None and described is None:
        rows = [row.name for row in LEDGER.values() if _could_be(row, fitting, match)]
        found["in the table, this layout is of"] = ", ".join(rows) or "none"
        found["note"] = (
            "licence, pixel statistics and what it saw are known only under a name: --init NAME=FILE"
        )
    return found


def _best(
    dictionaries: dict[str, Tensors], tried: list[str], path: Path, layouts: tuple[str, ...]
) -> tuple[Match, str]:
    """The reading that fills most of one of the architectures, complete ones first, and the architecture."""
    best: tuple[Match, str] | None = None
    for arch in tried:
        with torch.device("meta"):  # shapes alone
            backbone = build_backbone(arch, 0)
        match = best_match(backbone, dictionaries, str(path), layouts)
        if match.complete:
            return match, arch
        if best is None or match.fitting / match.wanted > best[0].fitting / best[0].wanted:
            best = match, arch
    assert best is not None  # there is an architecture at least
    return best


def _candidates() -> list[str]:
    """Architectures that a file is tried against: torchvision's, then those of the table, where timm is installed."""
    known = dict.fromkeys(
        row.arch.value for row in LEDGER.values() if row.arch.value and not row.refused
    )
    try:
        build_backbone("timm/resnet10t")
    except InputError:
        known = {arch: None for arch in known if not arch.startswith("timm/")}
    return list(dict.fromkeys((*ARCHITECTURES, *known)))


def _could_be(row: PublicWeights, arch: str, match: Match) -> bool:
    return (
        row.arch.value == arch
        and not row.refused
        and (not row.layouts or match.layout in row.layouts)
    )


def _counted(dictionaries: dict[str, Tensors]) -> str:
    return "; ".join(
        f"{len(tensors)} in {place or 'the file itself'}" for place, tensors in dictionaries.items()
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _table() -> Table:
    rows = tuple(
        (
            row.name,
            f"{row.about}; {row.arch.value or 'your --arch'}",
            row.licence.value.text,
            "refused" if row.refused else _saw(row),
        )
        for row in LEDGER.values()
    )
    columns = ("--init", "what it is; architecture", "licence", "saw in training")
    note = "ImageNet and other photographs hold no patient; what nobody says counts as seen."
    return Table("Public weights", columns, rows, note)


def _saw(row: PublicWeights) -> str:
    if row.saw.value is None:
        return UNKNOWN
    return ", ".join(one.told() for one in row.saw.value)


def _cited(row: PublicWeights) -> Iterator[tuple[str, Any, Fact[str]]]:
    """Each fact: its name, its value as plain text or numbers, and its source with the day."""
    place, pixels, terms = row.place.value, row.pixels.value, row.licence.value
    shown: tuple[tuple[str, Any, str], ...] = (
        ("published at", f"{place.how}: {place.where} {place.file}".strip(), row.place.source),
        ("architecture", row.arch.value or "yours, by --arch", row.arch.source),
        ("names of tensors", row.keys.value, row.keys.source),
        ("size", row.size.value or UNKNOWN, row.size.source),
        ("patch", row.patch.value or "none", row.patch.source),
        (
            "pixels",
            UNKNOWN
            if pixels is None
            else f"mean {_numbers(pixels.mean)}, std {_numbers(pixels.std)} on 0..1, {pixels.order}",
            row.pixels.source,
        ),
        ("scale as published", row.scale, row.pixels.source),
        ("licence", f"{terms.text}{f' ({terms.note})' if terms.note else ''}", row.licence.source),
        ("use", terms.use, row.licence.source),
        ("saw in training", _saw(row), row.saw.source),
    )
    for name, value, source in shown:
        yield name, value, Fact(SOURCES[source].what, SOURCES[source].read)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _facts(row: PublicWeights) -> Iterator[str]:
    yield f"{row.name}: {row.about}"
    for name, value, source in _cited(row):
        yield f"  {name}: {value}  [{source.value}; read {source.source}]"
    if row.refused:
        yield f"  cannot be loaded: {row.refused}"
    for note in row.notes:
        yield f"  note: {note}"
