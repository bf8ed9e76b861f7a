"""What a process of work is told when it starts, and the messages that go between it and the server.

Messages on the socket between them are a count of bytes, JSON, a second count and bytes. The server speaks to a process that
analyses only to wake it; a process that shows is asked one thing at a time and answers it. When the socket ends, so does the
process: no work goes on after a server that was killed.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["analyse", "show"]
_HEAD = struct.Struct("<II")
_MOST = 1 << 30


@dataclass(frozen=True)
class Job:
    """What a process needs to know; it comes as the first message, since a URL may hold a password.

    Attributes:
        name: name of the process. role: ``analyse`` takes images from the queue; ``show`` answers for pixels and heat maps.
        store: folder or URL. folder: folder of the image files. runs: folders of the runs, the one shown first leading.
        device, timeout, memory, depth, value_range, max_cache, allow_edited: options of ``twinray serve``.
        log: file of the log; empty for standard error.
        threads: threads that a network may use.
    """

    name: str
    role: Role
    store: str
    folder: str
    runs: tuple[str, ...]
    device: str
    timeout: float
    memory: int
    depth: int | None
    value_range: tuple[float, float] | None
    max_cache: int
    allow_edited: bool
    log: str
    threads: int


def send(link: socket.socket, content: dict[str, Any], data: bytes = b"") -> None:
    """Send one message.

    Raises:
        OSError: the other side has gone.
    """
    body = json.dumps(content).encode()
    link.sendall(_HEAD.pack(len(body), len(data)) + body)
    if data:
        link.sendall(data)


def receive(link: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None where the other side has gone.

    Raises:
        TimeoutError: it took longer than the socket waits.
    """
    head = _exactly(link, _HEAD.size)
    if head is None:
        return None
    n, m = _HEAD.unpack(head)
    if n + m > _MOST:
        return None
    body, data = _exactly(link, n), _exactly(link, m)
    if body is None or data is None:
        return None
    content: dict[str, Any] = json.loads(body)
    return content, bytes(data)


def as_message(job: Job) -> dict[str, Any]:
    """A job as a message."""
    return dataclasses.asdict(job)


def from_message(content: dict[str, Any]) -> Job:
    """The job that a message holds."""
    span = content["value_range"]
    return Job(
        **{
            **content,
            "runs": tuple(content["runs"]),
            "value_range": None if span is None else (span[0], span[1]),
        }
    )


def _exactly(link: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        try:
            got = link.recv_into(view)
        except ConnectionError:
            return None
        if got == 0:
            return None
        view = view[got:]
    return data
