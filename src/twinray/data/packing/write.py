"""From collections to a pack: decode once, in parallel, so that it can be cut off and go on.

Worker processes decode and resample. The parent only appends what comes back to an unfinished pack
(:mod:`twinray.data.packing.journal`) and never holds more than a few images. When the last image is
in, the table is written in batches. Then ``images.npy`` takes its name, and ``pack.json`` comes
last. A folder with a ``pack.json`` is a whole pack. A pack that was cut off and resumed has the
same bytes as one that was not.

Two files are in the pack besides those of :mod:`twinray.data.pack`. ``skipped.csv`` holds
everything set aside (where, reason). ``splits.json`` holds which image is in which split, and how
that was decided.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from twinray.data.decoding.sandbox import Outcome, map_in_workers
from twinray.data.pack import IMAGES, PACK, PackInfo, read_info
from twinray.data.packing.finish import Finish, set_aside
from twinray.data.packing.journal import Journal, Packed
from twinray.data.packing.mix import Mix
from twinray.data.packing.options import PackOptions
from twinray.data.packing.scales import Scales
from twinray.data.packing.worker import PackOne
from twinray.errors import DiskFull, InputError
from twinray.files import claim_folder, frees_folders
from twinray.progress import Meter, progress
from twinray.records import Collection, Skipped

_One = tuple[Packed, npt.NDArray[Any]]
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class PackResult:
    """A finished pack's place and description; ``skipped`` things were set aside."""

    path: Path
    info: PackInfo

    @property
    def skipped(self) -> int:
        """How many images, rows and boxes were set aside."""
        return self.info.skipped


@frees_folders
def write_pack(
    collections: Sequence[Collection],
    out: Path,
    options: PackOptions | None = None,
    *,
    workers: int | None = None,
    strict: bool = False,
    resume: bool = False,
    timeout_s: float = 60.0,
    memory_bytes: int = 2 << 30,
) -> PackResult:
    """Pack collections into the folder ``out``.

    Images, rows and boxes that cannot be used are set aside and named in ``skipped.csv``; the rest goes on.

    Args:
        collections: collections that readers made of the sources; several go into one pack.
        out: new or empty folder.
        options: options that decide the pack's bytes.
        workers: processes that decode; by default one a core; 0 decodes in this process, without limits.
        strict: stop at the first thing that would be set aside.
        resume: go on with what an earlier, cut-off call left in ``out``.
        timeout_s: longest that decoding one image may take, in seconds.
        memory_bytes: most that decoding one image may take, in bytes.

    Raises:
        InputError: bad options, an ``out`` that is not empty, no image that can be decoded, ``strict`` and a bad file.
        TwinrayError: the disk is full or may not be written; what was packed stays, to be resumed.
    """
    options = options or PackOptions()
    options.check()
    mix = Mix.of(collections, options.given)
    chosen = (options.scale, options.exif, options.lenient)
    # nothing is added for the defaults, so that finished packs of earlier versions are recognised
    decoding = chosen if chosen != (None, "ignore", False) else ()
    linear = () if options.pixels == "uint8" else (options.pixels,)
    pixels_job = _checksum(
        "pixels", mix.checksum(), options.size, options.fit, options.channels, *decoding, *linear
    )
    folds = (options.folds, options.fold) if options.folds else ()
    given = () if options.given is None else (options.given.sha256,)
    job = _checksum(
        "pack",
        pixels_job,
        options.val,
        options.test,
        options.seed,
        *folds,
        *given,
        *options.attributes,
    )
    aside = [skipped for collection in mix.collections for skipped in collection.skipped]
    if strict and aside:
        raise _stop(aside[0])
    claim_folder(out, resume, "pack", can_resume=True)
    if (out / PACK).is_file():
        return _finished(out, job)
    work = out / UNFINISHED
    _clear_up(out, work)
    channels = 3 if options.channels == "rgb" else 1
    with Journal(work, pixels_job, options.size, channels, options.pixels) as journal:
        _check_space(out, journal.row_bytes * (len(mix) - journal.done))
        limits = {
            "workers": (os.cpu_count() or 1) if workers is None else workers,
            "timeout_s": timeout_s,
            "memory_bytes": memory_bytes,
        }
        scales = Scales(work, mix, options, limits)
        scales.check(journal)
        _decode(mix, journal, options, scales, strict, limits)
        if not journal.rows:
            first = (
                next((mix.where(e.index), e.reason) for e in journal.entries())
                if len(mix)
                else ("", "no image")
            )
            shutil.rmtree(work)
            raise InputError(
                f"none of the {len(mix)} images could be packed; first: {_told(*first)}"
            )
        info = Finish(mix, journal, options, scales, job).write(out)
    shutil.rmtree(work, ignore_errors=True)
    return PackResult(out, info)


def _clear_up(out: Path, work: Path) -> None:
    """After a call that was killed while it wrote a file, or between the last two steps."""
    for stale in out.glob(".*.tmp"):
        stale.unlink(missing_ok=True)
    if (out / IMAGES).is_file() and (work / "journal.jsonl").is_file():
        (out / IMAGES).replace(work / "images.part")


def _checksum(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _finished(out: Path, job: str) -> PackResult:
    info = read_info(out)
    if info.extra.get("job") != job:
        raise InputError(
            f"{out} holds a finished pack of another source or of other options; choose another --out"
        )
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return PackResult(out, info)


def _check_space(out: Path, needed: int) -> None:
    """A job of hours should not find out at its end that the disk is too small."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise DiskFull(
            f"could not pack into {out}: {needed / 1e6:,.1f} MB of pixels are to be written, "
            f"{free / 1e6:,.1f} MB are free; free some space, then run the same command with --resume, or choose another --out"
        )


def _decode(
    mix: Mix,
    journal: Journal,
    options: PackOptions,
    scales: Scales,
    strict: bool,
    limits: dict[str, Any],
) -> None:
    """Bring the journal to the last image."""
    if strict and (earlier := next(set_aside(mix, journal), None)):
        raise _stop(earlier)
    while journal.done < len(mix):
        function = PackOne(
            mix.loaders(scales.decodings),
            options.size,
            options.fit,
            options.channels,
            options.pixels,
        )
        outcomes = map_in_workers(function, mix.tasks(journal.done), **limits)
        with (
            progress("packing", len(mix), done=journal.done) as meter,
            closing(cast(Any, outcomes)),
        ):
            _pack(mix, journal, outcomes, strict, meter)
        if journal.done < len(mix):
            scales.find(journal.done)


def _pack(
    mix: Mix, journal: Journal, outcomes: Iterator[Outcome[_One | None]], strict: bool, meter: Meter
) -> None:
    """Add what comes back to the journal, up to the end or to an image whose source has no scale yet."""
    for index, outcome in enumerate(outcomes, journal.done):
        if outcome.error is not None:
            if strict:
                raise _stop(Skipped(mix.where(index), outcome.error))
            journal.skip(index, outcome.error)
        elif (one := outcome.result()) is None:
            return
        else:
            packed, pixels = one
            if strict and (bad := mix.boxes(index, packed.width, packed.height)[1]):
                raise _stop(bad[0])
            journal.add(index, packed, pixels)
        meter.advance(note=f"{journal.set_aside} set aside" if journal.set_aside else "")


def _stop(skipped: Skipped) -> InputError:
    return InputError(
        f"{_told(skipped.where, skipped.reason)} (--strict stops at the first thing to set aside)"
    )


def _told(where: str, reason: str) -> str:
    return reason if where in reason else f"{where}: {reason}"
