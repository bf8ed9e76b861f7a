"""The scale of each source's deep images: declared, or found by one look at all of them.

Most sources have 8 bits and pay nothing. The look begins when the first image of more than 8 bits
is met. It goes over the rest of that source, and reads only headers where there are 8 bits. What it
finds is kept a line an image beside the journal. A pack that is cut off goes on with it, and every
pack of a source has the same scale.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from twinray.data.decoding.options import Decoded, Decoding
from twinray.data.decoding.sandbox import map_in_workers
from twinray.data.decoding.scale import Scale, Spread, Survey
from twinray.data.packing.journal import Journal
from twinray.data.packing.mix import Mix
from twinray.data.packing.options import PackOptions
from twinray.data.packing.worker import SpreadOf
from twinray.errors import InputError
from twinray.files import clear_disk_errors
from twinray.progress import progress

_SCALED = re.compile(r"grey, (\S+\.\.\S+ scaled|constant)")
"""What ``how`` says of an image of more than 8 bits."""


class Scales:
    """How the files of each collection are decoded, as far as is known."""

    def __init__(
        self, folder: Path, mix: Mix, options: PackOptions, limits: dict[str, Any]
    ) -> None:
        """Take up what an earlier, cut-off call left in ``folder``."""
        self._folder, self._mix, self._options, self._limits = folder, mix, options, limits
        self._declared = options.scale
        self._surveys: dict[int, Survey] = {}
        for k in range(len(mix.collections)):
            found, whole = self._read(k)
            if whole:
                self._surveys[k] = self._survey_of(found)

    def check(self, journal: Journal) -> None:
        """Refuse to go on with what an earlier version began, which scaled every deep image by itself.

        Raises:
            InputError: the journal holds an image of more than 8 bits whose source has no scale.
        """
        if self._declared is not None:
            return
        for entry in journal.entries():
            deep = entry.packed is not None and _SCALED.search(entry.packed.how)
            if deep and self._mix.collection_of(entry.index) not in self._surveys:
                raise InputError(
                    f"{self._folder.parent} holds an unfinished pack of an earlier version, which scaled "
                    f"{self._mix.where(entry.index)} by its own brightest pixel; start again in another --out"
                )

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """For each collection; a scale that covers nothing where none is known."""
        return tuple(self._decoding(k) for k in range(len(self._mix.collections)))

    def _decoding(self, k: int) -> Decoding:
        survey = self._surveys.get(k)
        scale = self._declared or (Scale() if survey is None else survey.scale())
        options = self._options
        return Decoding(scale, options.exif, options.lenient, options.pixels == "uint16")

    @property
    def decoded(self) -> Decoded:
        """What ``pack.json`` says of it."""
        names = self._mix.names
        if self._declared is not None:
            scales = dict.fromkeys(names, self._declared)
        else:
            scales = {names[k]: survey.scale() for k, survey in self._surveys.items()}
        return Decoded(self._options.exif, self._options.lenient, scales)

    def notes(self) -> list[str]:
        """What users must know of the scales that were found."""
        return [
            f"{self._mix.names[k]}: {note}" if self._mix.several else note
            for k, survey in sorted(self._surveys.items())
            for note in survey.notes()
        ]

    def find(self, index: int) -> None:
        """Look at image ``index``, which has more than 8 bits, and at all that follow it in its collection."""
        k = self._mix.collection_of(index)
        end = self._mix.starts[k + 1]
        found, _ = self._read(k)
        start = max(found, default=index - 1) + 1
        function = SpreadOf(
            self._mix.loaders(
                [Decoding(Scale(), self._options.exif, self._options.lenient)]
                * len(self._mix.collections)
            )
        )
        outcomes = map_in_workers(function, self._mix.tasks(start, end), **self._limits)
        path = self._path(k)
        with (
            clear_disk_errors(path, "the look at depths"),
            path.open("a", encoding="ascii") as file,
            progress("looking at depths", end - index, done=start - index) as meter,
            closing(cast(Any, outcomes)),
        ):
            for number, outcome in enumerate(outcomes, start):
                one = (
                    outcome.value if outcome.error is None else None
                )  # packing will say why it is refused
                found[number] = one
                line = (
                    [number] if one is None else [number, one.numbers, one.low, one.high, one.white]
                )
                file.write(json.dumps(line) + "\n")
                meter.advance()
            file.write("true\n")
        self._surveys[k] = self._survey_of(found)

    def _survey_of(self, found: dict[int, Spread | None]) -> Survey:
        named = (
            (self._mix.sample(index).source, one) for index, one in found.items() if one is not None
        )
        return Survey.of(named)

    def _path(self, k: int) -> Path:
        return self._folder / f"depths-{k}.jsonl"

    def _read(self, k: int) -> tuple[dict[int, Spread | None], bool]:
        """What was seen before, by image, and whether all of it; a last line that was cut off is dropped."""
        found: dict[int, Spread | None] = {}
        path = self._path(k)
        if not path.is_file():
            return found, False
        with clear_disk_errors(path, "the look at depths"):
            lines = path.read_bytes().splitlines(keepends=True)
            end = 0
            for line in lines:
                content = _parsed(line)
                if content is True:
                    return found, True
                if not isinstance(content, list) or not content:
                    break
                found[int(content[0])] = Spread(*content[1:]) if len(content) == 5 else None
                end += len(line)
            with path.open("r+b") as file:
                file.truncate(end)
        return found, False


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
