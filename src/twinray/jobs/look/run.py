"""The verb ``look``: an archive of images -> what is wrong in it, sheets to see it by, and a list to exclude."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinray.about import DISCLAIMER
from twinray.data.decoding.sandbox import map_in_workers
from twinray.data.look.archive import CHECKS, Found, judge
from twinray.data.patients import PATIENT_DATA
from twinray.errors import InputError
from twinray.files import write_bytes, write_json, write_text
from twinray.jobs.image_files import find_images
from twinray.jobs.look.config import LookConfig
from twinray.jobs.look.file_facts import FileFacts, file_facts
from twinray.progress import progress
from twinray.records import Skipped
from twinray.runs.output import files_fact, open_output
from twinray.words import counted

_NOT_STATED = "not stated"
_ON_A_SHEET, _COLUMNS = 32, 4
_COLUMNS_OF_TABLE = (
    "file", "checks", "reasons", "device", "year", "view", "width", "height", "bits", "how", "contrast", "levels_used",
    "plain_black", "plain_white", "border", "text_lines",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LookResult:
    """What was found.

    Attributes:
        files: the images, as named in ``exclude.txt``.
        found: flags of each, and notes.
        skipped: files that could not be read.
        counts: images by check.
    """

    files: tuple[str, ...]
    found: Found
    skipped: tuple[Skipped, ...]
    counts: dict[str, int]


def run(config: LookConfig, console: Console | None = None) -> LookResult:
    """Look at every image, write what was found, and print how many images each check flags.

    Args:
        config: the options.
        console: where the table goes; by default standard output.

    Raises:
        InputError: bad options, a path without images, or an output folder that holds files.
        TwinrayError: the disk is full or may not be written.
    """
    patient = _pattern(config.patient_regex)
    listed = find_images(config.paths, leave_out=config.out)
    inputs = {"files": files_fact(listed.files)}
    with open_output(config, "look", config.out, inputs, reads=config.paths):
        names, facts, skipped = _measure(config, listed.files)
        skipped = [*listed.skipped, *skipped]
        if not facts:
            raise InputError(
                f"none of the {len(listed.files):,} files can be read; first: {skipped[0].where}: {skipped[0].reason}"
            )
        patients = [
            one.patient or _patient(patient, name) for name, one in zip(names, facts, strict=True)
        ]
        found = judge(
            [one.measures for one in facts],
            patients=patients,
            lateral=[one.lateral for one in facts],
            seed=config.seed,
        )
        counts = Counter(check for flags in found.flags for check in flags)
        result = LookResult(
            tuple(names), found, tuple(skipped), {check: counts[check] for check in CHECKS}
        )
        notes = [*listed.notes, *found.notes, *_own_notes(patients)]
        _write(config, result, facts, notes)
    _show(config, result, notes, console or Console())
    return result


def _pattern(expression: str | None) -> re.Pattern[str] | None:
    if expression is None:
        return None
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"expected a regular expression for --patient-regex, got {expression!r}: {error}"
        ) from error
    if not pattern.groups:
        raise InputError(
            f"expected a group in --patient-regex '{expression}': what is in (...) is the patient"
        )
    return pattern


def _patient(pattern: re.Pattern[str] | None, name: str) -> str | None:
    found = pattern.search(name) if pattern else None
    return next((group for group in found.groups() if group), None) if found else None


def _measure(
    config: LookConfig, files: Sequence[Path]
) -> tuple[list[str], list[FileFacts], list[Skipped]]:
    """Names, facts, and what could not be read."""
    roots = [path.resolve() if path.is_dir() else path.resolve().parent for path in config.paths]
    names: list[str] = []
    facts: list[FileFacts] = []
    skipped: list[Skipped] = []
    outcomes = map_in_workers(
        file_facts,
        files,
        workers=config.workers,
        timeout_s=config.timeout,
        memory_bytes=config.memory << 20,
    )
    with progress("looking", len(files), unit="files") as meter:
        for path, outcome in zip(files, outcomes, strict=True):
            name = _relative(path, roots)
            if outcome.error is not None or outcome.value is None:
                skipped.append(Skipped(name, f"{outcome.error}"))
            else:
                names.append(name)
                facts.append(outcome.value)
            meter.advance()
    return names, facts, skipped


def _relative(path: Path, roots: Sequence[Path]) -> str:
    """A path below the folder that it was found in, with ``/``: what ``pack`` calls the file."""
    whole = path.parent.resolve() / path.name
    root = next((root for root in roots if whole.is_relative_to(root)), whole.parent)
    return whole.relative_to(root).as_posix()


def _own_notes(patients: Sequence[str | None]) -> list[str]:
    notes = [f"look.csv, exclude.txt and the sheets name files and show images: {PATIENT_DATA}"]
    if unknown := sum(patient is None for patient in patients):
        notes.append(
            f"{unknown:,} of {len(patients):,} images are of unknown patients: near copies among them count as those of "
            "different people"
        )
    return notes


def _write(
    config: LookConfig, result: LookResult, facts: Sequence[FileFacts], notes: Sequence[str]
) -> None:
    rows = [
        [
            name, "; ".join(flags), "; ".join(f"{c}: {r}" for c, r in _named(flags, result.files).items()), one.device, one.year,
            one.view, one.measures.width, one.measures.height, one.bits or "", one.how, f"{one.measures.contrast:.3f}",
            f"{one.measures.occupancy:.3f}", f"{one.measures.clipped_low:.4f}", f"{one.measures.clipped_high:.4f}",
            f"{one.measures.border:.3f}", len(one.measures.text),
        ]
        for name, flags, one in zip(result.files, result.found.flags, facts, strict=True)
    ]  # fmt: skip
    write_text(config.out / "look.csv", _csv(_COLUMNS_OF_TABLE, rows), "the table")
    groups = _groups(result, facts)
    write_text(
        config.out / "by_device_and_year.csv",
        _csv(list(groups[0]), [list(g.values()) for g in groups]),
        "the table",
    )
    write_text(config.out / "exclude.txt", _exclude(config, result), "the list")
    if result.skipped:
        aside = [[one.where, one.reason] for one in result.skipped]
        write_text(config.out / "skipped.csv", _csv(("file", "reason"), aside), "the list")
    write_json(
        config.out / "summary.json",
        {
            "images": len(result.files),
            "set_aside": len(result.skipped),
            "flagged": result.counts,
            "excluded": len(_excluded(config, result)),
            "ways": dict(Counter(one.how for one in facts).most_common(20)),
            "bits": dict(Counter(str(one.bits) for one in facts if one.bits).most_common()),
            "notes": list(notes),
            "disclaimer": DISCLAIMER,
        },
        "the summary",
    )
    _write_sheets(config, result, facts)


def _named(flags: Mapping[str, str], files: Sequence[str]) -> dict[str, str]:
    """Reasons with the name of the image that another copies, in place of its number."""
    named = dict(flags)
    if "copy" in named:
        number = re.fullmatch(r"of image (\d+)", named["copy"])
        named["copy"] = f"of {files[int(number[1])]}" if number else named["copy"]
    return named


def _groups(result: LookResult, facts: Sequence[FileFacts]) -> list[dict[str, object]]:
    """A row for each device and year: how many images, how many each check flags, and medians."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k, one in enumerate(facts):
        members[one.device or _NOT_STATED, one.year or _NOT_STATED].append(k)
    rows: list[dict[str, object]] = []
    for (device, year), own in sorted(members.items()):
        flagged = Counter(check for k in own for check in result.found.flags[k])
        bits = Counter(facts[k].bits for k in own).most_common(1)[0][0]
        rows.append(
            {
                "device": device,
                "year": year,
                "images": len(own),
                **{check.replace(" ", "_"): flagged[check] for check in CHECKS},
                "median_width": median(facts[k].measures.width for k in own),
                "median_height": median(facts[k].measures.height for k in own),
                "usual_bits": bits or "",
                "median_contrast": round(median(facts[k].measures.contrast for k in own), 3),
                "median_border": round(median(facts[k].measures.border for k in own), 3),
            }
        )
    return rows


def _excluded(config: LookConfig, result: LookResult) -> list[int]:
    return [k for k, flags in enumerate(result.found.flags) if flags.keys() & set(config.exclude)]


def _exclude(config: LookConfig, result: LookResult) -> str:
    lines = [
        "# Files that twinray pack --exclude leaves out, one a line, up to the tab; the rest of a line is why.",
        "# Look at the sheets first, and take out the lines of images that are right.",
    ]
    for k in _excluded(config, result):
        reasons = _named(result.found.flags[k], result.files)
        told = "; ".join(f"{c}: {r}" for c, r in reasons.items() if c in config.exclude)
        lines.append(f"{result.files[k]}\t{told}")
    return "\n".join(lines) + "\n"


def _write_sheets(config: LookConfig, result: LookResult, facts: Sequence[FileFacts]) -> None:
    """A contact sheet of up to 32 images for every check that flags any."""
    from twinray.report.pictures.contact_sheet import (
        contact_sheet,
    )  # matplotlib takes a second to import
    from twinray.report.pictures.panels import Panel, as_png

    for check, n in result.counts.items():
        own = [k for k, flags in enumerate(result.found.flags) if check in flags]
        if not own:
            continue
        spread = [len(own) * i // _ON_A_SHEET for i in range(_ON_A_SHEET)]
        shown = own if len(own) <= _ON_A_SHEET else [own[i] for i in spread]
        columns = min(_COLUMNS, len(shown))
        panels = [
            Panel(
                f"{Path(result.files[k]).name}\n{result.found.flags[k][check]}",
                facts[k].measures.thumbnail,
            )
            for k in shown
        ]
        rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
        headings = [check, *[""] * (columns - 1)]
        note = f"{check}: {CHECKS[check]}. {len(panels)} of {n:,} flagged images. {DISCLAIMER}."
        sheet = contact_sheet(rows, headings, [()] * columns, inches=2.4, note=note)
        write_bytes(config.out / f"sheet_{check.replace(' ', '_')}.png", as_png(sheet), "the sheet")


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _show(config: LookConfig, result: LookResult, notes: Sequence[str], console: Console) -> None:
    table = Table(
        title=Text(f"{config.out} - {counted(len(result.files), 'image')}"),
        title_justify="left",
        box=None,
    )
    table.add_column("check", style="bold")
    table.add_column("images", justify="right")
    table.add_column("what it says", overflow="fold")
    for check, n in result.counts.items():
        table.add_row(check, f"{n:,}", CHECKS[check])
    table.add_row(
        "set aside",
        f"{len(result.skipped):,}",
        "could not be read (skipped.csv)" if result.skipped else "",
    )
    for note in notes:
        table.add_row("note", "", Text(note))
    n = len(_excluded(config, result))
    table.add_row(
        "exclude.txt", f"{n:,}", "look at the sheets, then: twinray pack ... --exclude exclude.txt"
    )
    console.print(table)
