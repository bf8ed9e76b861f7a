"""Files of a multipart body, taken as they stream in: to the disk piece by piece, never whole in memory."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from twinray.data.decoding.images import file_kind
from twinray.errors import InputError
from twinray.serving.store.files import ImageFiles, Incoming, Kept

MOST_NAME = 200
_MOST_HEADER = 64 << 10
_MOST_FIELD = 64 << 10
KNOWN = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PGM/PPM or DICOM"


@dataclass(frozen=True)
class Refused:
    """A file that was not taken, and why."""

    name: str
    reason: str


@dataclass
class Received:
    """What came of a body.

    Attributes:
        refused: files that were not taken, in order. broken: why the body ended early; empty where it did not.
        files: number of files that were seen.
    """

    refused: list[Refused] = field(default_factory=list)
    broken: str = ""
    files: int = 0


def plain_name(raw: bytes | str) -> str:
    """A file's name as it is kept: the last part of a path, without control characters, not longer than 200."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text.replace("\\", "/").rpartition("/")[2]
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text
    ).strip()
    return text[:MOST_NAME] or "unnamed"


def refusal_by_content(file: Incoming) -> tuple[str, str]:
    """Kind of a received file by its first bytes, and why it is refused; the latter empty where it is taken."""
    if file.size == 0:
        return "unknown", f"expected an image file ({KNOWN}), it is empty; send it again"
    try:
        kind = file_kind(Path(file.path))
    except InputError:
        return "unknown", f"expected an image file ({KNOWN}), it cannot be read; send it again"
    if kind == "unknown":
        what = "a zip archive" if file.head.startswith(b"PK\x03\x04") else "something else"
        return kind, f"expected {KNOWN}, its content is {what}; convert it or leave it out"
    return kind, ""


@final
class _Parts:
    """Takes the parser's events as a list, so that slow work can be done between them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._header: list[bytes] = [b"", b""]
        self._disposition = b""

    def callbacks(self) -> Any:
        def header(which: int) -> Callable[[bytes, int, int], None]:
            def take(data: bytes, start: int, end: int) -> None:
                self._header[which] += data[start:end]

            return take

        return {
            "on_part_begin": self._begin,
            "on_header_field": header(0),
            "on_header_value": header(1),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self.events.append(("data", data[start:end])),
            "on_part_end": lambda: self.events.append(("end", None)),
            "on_end": lambda: self.events.append(("over", None)),
        }

    def _begin(self) -> None:
        self._header, self._disposition = [b"", b""], b""

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self.events.append(("begin", (options.get(b"name", b""), options.get(b"filename"))))

    def take(self) -> list[tuple[str, Any]]:
        events, self.events = self.events, []
        return events


async def receive_files(
    request: Request,
    files: ImageFiles,
    *,
    most_bytes: int,
    most_files: int,
    refuse: Callable[[], str],
    taken: Callable[[Kept, str, str], None],
) -> Received:
    """Take the files of a multipart body, fields ``file``; other fields are passed over.

    Args:
        request: request whose body it is.
        files: where they go.
        most_bytes: bytes that one file may have.
        most_files: files that one body may have.
        refuse: called before each file; why none is taken at the moment, or an empty text.
        taken: called with what is on the disk now, name and kind; in a thread.

    Raises:
        FullError: the disk is full.
        ValueError: the body is not of this form.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise ValueError("expected a body of multipart/form-data with fields named file")
    received, parts = Received(), _Parts()
    state = _Current(received, files, most_bytes, most_files, refuse, taken)
    over = False
    try:
        parser = MultipartParser(
            boundary, parts.callbacks(), max_header_size=_MOST_HEADER, max_header_count=16
        )
        async for chunk in request.stream():
            try:
                parser.write(chunk)
            finally:
                for event, value in parts.take():
                    over = over or event == "over"
                    await state.on(event, value)
    except FormParserError:
        received.broken = "the body is not whole multipart/form-data; send the files again"
    finally:
        state.drop()
    if not over and not received.broken:
        received.broken = "the body ended in the middle of a file; send the files again"
    return received


@final
class _Current:
    """The part that is being received."""

    def __init__(
        self,
        received: Received,
        files: ImageFiles,
        most_bytes: int,
        most_files: int,
        refuse: Callable[[], str],
        taken: Callable[[Kept, str, str], None],
    ) -> None:
        self._received, self._files = received, files
        self._most_bytes, self._most_files = most_bytes, most_files
        self._refuse, self._taken = refuse, taken
        self._file: Incoming | None = None
        self._name, self._reason, self._is_file, self._extra = "", "", False, 0

    async def on(self, event: str, value: Any) -> None:
        if event == "begin":
            self._begin(*value)
        elif event == "data":
            self._data(value)
        elif event == "end":
            await self._end()

    def drop(self) -> None:
        if self._file is not None:
            self._file.__exit__()
            self._file = None

    def _begin(self, field_name: bytes, filename: bytes | None) -> None:
        self._is_file = field_name == b"file"
        self._reason = ""
        if not self._is_file:
            return
        self._name = plain_name(filename or b"")
        self._received.files += 1
        if self._received.files > self._most_files:
            self._reason = f"more than {self._most_files} files in one upload; send the others in a further one"
        else:
            self._reason = self._refuse()
        if not self._reason:
            self._file = self._files.receive().__enter__()

    def _data(self, data: bytes) -> None:
        if not self._is_file:
            self._extra += len(data)
            if self._extra > _MOST_FIELD:
                raise FormParserError("other fields are too long")
            return
        if self._file is None:
            return
        if self._file.size + len(data) > self._most_bytes:
            self._reason = f"larger than {self._most_bytes >> 20} MiB, the most that this server takes of a file"
            self.drop()
            return
        self._file.write(data)

    async def _end(self) -> None:
        if not self._is_file:
            return
        if self._file is not None:
            await asyncio.to_thread(self._keep, self._file)
            self.drop()
        if self._reason:
            self._received.refused.append(Refused(self._name, self._reason))
        self._is_file = False

    def _keep(self, file: Incoming) -> None:
        file.flush()
        kind, self._reason = refusal_by_content(file)
        if not self._reason:
            self._taken(file.keep(), self._name, kind)
