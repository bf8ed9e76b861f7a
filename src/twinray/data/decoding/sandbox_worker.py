"""The worker's side of :mod:`twinray.data.decoding.sandbox`: one process that limits itself and answers tasks from a pipe.

Messages on the pipes are a count, that many sizes (8 bytes each, little endian) and the parts. A
result is a pickle followed by its arrays as they lie in memory. An image is therefore copied once
into and once out of the pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from twinray.data.decoding.bounded_file import one_line
from twinray.errors import InputError

R = TypeVar("R")

OUT_OF_MEMORY = "needed more memory than one task may take"
OUT_OF_MEMORY_STATUS = 77
"""Exit status of a worker that ran out of memory where it could not say so."""

_PIPE_BYTES = 1 << 20
_PARENT_CHECK_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of one task: ``value`` if ``error`` is None, otherwise ``error`` says why in one line."""

    value: R | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return self.error is None

    def result(self) -> R:
        """The value.

        Raises:
            InputError: the task failed; the message is ``error``.
        """
        if self.error is not None:
            raise InputError(self.error)
        return cast(R, self.value)


def attempt(call: Callable[[], R]) -> Outcome[R]:
    """The outcome of a call; any exception becomes one line."""
    try:
        return Outcome(value=call())
    except InputError as error:
        return Outcome(error=one_line(error, 2000))
    except MemoryError:
        return Outcome(error=OUT_OF_MEMORY)
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {one_line(error, 1000)}")


def work() -> None:
    """The life of a worker process: load the job, say that it is ready, answer tasks until the pipe ends.

    The command line names the pipe of tasks, the pipe of results and the parent's process id. The first
    message back is empty, or says why the job cannot be loaded; a later empty message says goodbye.
    """
    tasks, results, parent = (int(value) for value in sys.argv[1:4])
    # Ctrl-C reaches the whole group; the parent decides. The alarm must kill, even inside C code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    message = read_message(tasks)
    if message is None:
        os._exit(0)
    try:
        function, initializer, initargs, timeout_s, memory_bytes = pickle.loads(message[0])
        if initializer is not None:
            initializer(*initargs)
        _limit_memory(memory_bytes)
    except BaseException as error:
        write_message(results, [f"{type(error).__name__}: {one_line(error, 1000)}".encode()])
        os._exit(1)
    write_message(results, [b""])
    while (message := read_message(tasks)) is not None:
        leave = _answer(results, function, message[0], timeout_s)
        if leave:
            write_message(results, [b""])
            break
    os._exit(0)


def _answer(
    results: int, function: Callable[[Any], Any], task: bytearray, timeout_s: float
) -> bool:
    """Work on one task and send its outcome; True if this process had better not go on."""
    buffers: list[pickle.PickleBuffer] = []
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        outcome = attempt(lambda: function(pickle.loads(task)))
        body = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
        views = [_view(buffer) for buffer in buffers]
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
    except Exception as error:
        outcome = Outcome(error=f"the result cannot be sent: {one_line(error)}")
        body, views = pickle.dumps(outcome), []
    signal.setitimer(signal.ITIMER_REAL, 0)
    write_message(results, [body, *views])
    return outcome.error == OUT_OF_MEMORY


def _view(buffer: pickle.PickleBuffer) -> memoryview:
    return buffer.raw()


def _limit_memory(memory_bytes: int | None) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is None or not os.path.exists("/proc/self/statm"):
        return
    with open("/proc/self/statm") as file:
        base = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = base + memory_bytes
    resource.setrlimit(
        resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def _die_with_parent(parent: int) -> None:
    # Not PR_SET_PDEATHSIG: that fires when the *thread* that started the worker ends. A pipe's end does not
    # tell either while some other process that was forked from the parent still holds it.
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(0)


def enlarge_pipe(fd: int) -> None:
    """Let a pipe hold a whole image, so that a worker need not wait for the parent to read it (Linux)."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # Where the system's limit for pipes is used up, smaller pipes work too, only slower.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def write_message(fd: int, parts: list[bytes | memoryview]) -> None:
    """Write one message; blocks until the pipe took all of it."""
    views = [memoryview(part).cast("B") for part in parts]
    header = struct.pack(f"<{1 + len(views)}Q", len(views), *(len(view) for view in views))
    for view in (memoryview(header), *views):
        while len(view):
            view = view[os.write(fd, view) :]


def read_message(fd: int) -> list[bytearray] | None:
    """The parts of the next message, or None at the end of the pipe (also in the middle of a message)."""
    count = _read_exactly(fd, 8)
    if count is None:
        return None
    sizes = _read_exactly(fd, 8 * int(struct.unpack("<Q", count)[0]))
    if sizes is None:
        return None
    parts: list[bytearray] = []
    for size in struct.unpack(f"<{len(sizes) // 8}Q", sizes):
        part = _read_exactly(fd, size)
        if part is None:
            return None
        parts.append(part)
    return parts


def _read_exactly(fd: int, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        got = os.readv(fd, [view])
        if got == 0:
            return None
        view = view[got:]
    return data
