"""Decode files in worker processes that a decompression bomb or a crashing decoder cannot take down.

Each worker is a fresh Python process (no fork of this one, no import of its main script, so no torch)
that limits itself: an alarm ends it when one task takes too long, even inside a C decoder, and an
address-space limit makes a bomb fail instead of the machine swap. The parent keeps the order of tasks,
a bounded number in flight, and says of exactly the task that failed why; a lost worker is replaced.

Needs POSIX (Linux, macOS; macOS does not enforce the memory limit). Workers' standard output and error
are discarded: decoders print about every oddity they meet.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from twinray.data.bounded_file import one_line
from twinray.errors import InputError, TwinrayError

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_MEMORY_BYTES = 2 << 30
"""Address space a worker may take beyond what it has once its imports are done."""

_QUEUED = 4
"""Tasks handed to one worker at a time: the next ones wait in its pipe while the parent is busy."""
_WINDOW = 16
"""Tasks per worker that may be taken from the source ahead of the last result given out."""
_PIPE_BYTES = 1 << 20
_PARENT_CHECK_SECONDS = 0.25

_BOOT = "import sys; sys.path[:] = sys.argv[4:]; from twinray.data.sandbox import _worker; _worker()"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of one task: ``value`` if ``error`` is None, otherwise ``error`` says why in one line."""

    value: R | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return self.error is None

    def result(self) -> R:
        """The value. Raises InputError with the reason if the task failed."""
        if self.error is not None:
            raise InputError(self.error)
        return cast(R, self.value)


def map_in_workers(
    function: Callable[[T], R],
    tasks: Iterable[T],
    *,
    workers: int,
    timeout_s: float = 60.0,
    memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Outcome[R]]:
    """Apply ``function`` to every task in worker processes, outcomes in the order of the tasks.

    Args:
        function: importable by name from a module (not ``__main__``); runs in the workers.
        tasks: picklable; taken lazily, at most ``16 * workers`` ahead of the last outcome given out.
        workers: number of processes; 0 runs in this process, without limits, for debugging.
        timeout_s: wall-clock seconds that one task may take.
        memory_bytes: address space that a worker may take beyond its start; None sets no limit.
        initializer: called once in every worker, with ``initargs``, before its first task.
        initargs: arguments of ``initializer``.

    Yields:
        One Outcome a task. An exception of ``function`` is an outcome with ``error`` (an InputError's own
        line; otherwise its type and message); so is a task that took too long or too much memory, or whose
        worker died. Closing the iterator ends all workers.

    Raises:
        TwinrayError: workers cannot be started (the function or initializer cannot be loaded there).
        ValueError: a negative number of workers, or no time.
    """
    if workers < 0 or timeout_s <= 0:
        raise ValueError(f"expected workers >= 0 and timeout_s > 0, got {workers} and {timeout_s}")
    if workers == 0:
        return _map_here(function, tasks, initializer, initargs)
    job = pickle.dumps((function, initializer, initargs, timeout_s, memory_bytes), protocol=5)
    return _Pool(job, workers, timeout_s).run(tasks)


def _map_here(
    function: Callable[[T], R],
    tasks: Iterable[T],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> Iterator[Outcome[R]]:
    if initializer is not None:
        initializer(*initargs)
    for task in tasks:
        yield _attempt(function, task)


def _attempt(function: Callable[[T], R], task: T) -> Outcome[R]:
    try:
        return Outcome(value=function(task))
    except InputError as error:
        return Outcome(error=one_line(error, 2000))
    except MemoryError:
        return Outcome(error="needed more memory than one task may take")
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {one_line(error, 1000)}")


class _Handle:
    """One worker process as the parent sees it: its pipes and the task numbers that it still owes, oldest first."""

    def __init__(self, job: bytes) -> None:
        task_read, self.task_write = os.pipe()
        self.result_read, result_write = os.pipe()
        for fd in (self.task_write, result_write):
            _enlarge(fd)
        command = [sys.executable, "-c", _BOOT, str(task_read), str(result_write), str(os.getpid()), *sys.path]
        # One decode a worker: thread pools of numeric libraries would only fight over the cores and count as memory.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=(task_read, result_write),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **threads},
            )
        except BaseException:
            os.close(self.task_write)
            os.close(self.result_read)
            raise
        finally:
            os.close(task_read)
            os.close(result_write)
        self.owed: deque[int] = deque()
        self.ready = False
        self._send(job)

    def give(self, number: int, payload: bytes) -> None:
        self.owed.append(number)
        self._send(payload)

    def _send(self, payload: bytes) -> None:
        try:
            _write_message(self.task_write, [payload])
        except BrokenPipeError:
            pass  # the worker is gone; its result pipe ends, which is where that is handled

    def end(self) -> int:
        """Kill and reap; the exit status, negative for a signal. Safe to call twice."""
        for fd in (self.task_write, self.result_read):
            if fd >= 0:
                os.close(fd)
        self.task_write = self.result_read = -1
        self.process.kill()
        return self.process.wait()


class _Pool:
    """The parent's side of one call of :func:`map_in_workers`."""

    def __init__(self, job: bytes, workers: int, timeout_s: float) -> None:
        self._job, self._workers, self._timeout_s = job, workers, timeout_s
        self._handles: list[_Handle] = []
        self._selector = selectors.DefaultSelector()
        self._pending: dict[int, bytes] = {}  # tasks in flight, for a second try in another worker
        self._again: deque[int] = deque()
        self._done: dict[int, Outcome[Any]] = {}
        self._started = False

    def run(self, tasks: Iterable[T]) -> Iterator[Outcome[R]]:
        source, taken, given, more = iter(tasks), 0, 0, True
        try:
            while True:
                while more and taken - given < _WINDOW * self._workers and (handle := self._idlest()):
                    if self._again:
                        number = self._again.popleft()
                    else:
                        try:
                            task = next(source)
                        except StopIteration:
                            more = False
                            break
                        number, taken = taken, taken + 1
                        self._pending[number] = pickle.dumps(task, protocol=5)
                    handle.give(number, self._pending[number])
                while self._again and (handle := self._idlest()):
                    number = self._again.popleft()
                    handle.give(number, self._pending[number])
                if given == taken and not more:
                    return
                # Collect what is there even if the next outcome is: it empties the workers' pipes.
                self._collect(block=given not in self._done)
                if given in self._done:
                    outcome = self._done.pop(given)
                    given += 1
                    yield outcome
        finally:
            self._close()

    def _idlest(self) -> _Handle | None:
        """A worker that can take a task, or None; starts and replaces workers as they are needed."""
        free = [handle for handle in self._handles if len(handle.owed) < _QUEUED]
        best = min(free, key=lambda handle: len(handle.owed), default=None)
        if len(self._handles) < self._workers and (best is None or best.owed):
            best = _Handle(self._job)
            self._handles.append(best)
            self._selector.register(best.result_read, selectors.EVENT_READ, best)
        return best

    def _collect(self, *, block: bool) -> None:
        for key, _ in self._selector.select(None if block else 0):
            handle = cast(_Handle, key.data)
            parts = _read_message(handle.result_read)
            if parts is None:
                self._bury(handle)
            elif not handle.ready:
                self._greet(handle, parts)
            else:
                number = handle.owed.popleft()
                del self._pending[number]
                self._done[number] = pickle.loads(parts[0], buffers=parts[1:])

    def _greet(self, handle: _Handle, parts: list[bytearray]) -> None:
        """The first message of a worker: empty, or why it cannot work."""
        if parts[0]:
            raise TwinrayError(f"a decoding worker could not start: {parts[0].decode(errors='replace')}")
        handle.ready = self._started = True

    def _bury(self, handle: _Handle) -> None:
        """Set aside the task that a dead worker was at; hand its waiting tasks to others."""
        self._selector.unregister(handle.result_read)
        self._handles.remove(handle)
        # The pipe ends a moment before the process does; do not kill it before its own status is known.
        try:
            status = handle.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            status = 0
        handle.end()
        if not handle.ready and not self._started:
            raise TwinrayError(f"a decoding worker could not start: the process ended with status {status}")
        if handle.owed:
            number = handle.owed.popleft()
            del self._pending[number]
            self._done[number] = Outcome(error=self._cause(status))
        self._again.extendleft(reversed(handle.owed))

    def _cause(self, status: int) -> str:
        if status == -signal.SIGALRM:
            return f"took longer than {self._timeout_s:g} s and was stopped"
        if status == _OUT_OF_MEMORY:
            return "needed more memory than one task may take"
        if status == -signal.SIGKILL:
            return "its worker process was killed (by the system, for lack of memory?)"
        if status < 0:
            return f"the decoder crashed ({signal.Signals(-status).name})"
        return f"its worker process ended by itself (status {status})"

    def _close(self) -> None:
        self._selector.close()
        for handle in self._handles:
            handle.process.kill()
        for handle in self._handles:
            handle.end()
        self._handles.clear()


_OUT_OF_MEMORY = 77
"""Exit status of a worker that ran out of memory, and so cannot be trusted to go on."""


def _worker() -> None:
    """The life of a worker process: read tasks until the pipe ends."""
    task_read, result_write, parent = (int(value) for value in sys.argv[1:4])
    # Ctrl-C reaches the whole group; the parent decides. The alarm must kill, even inside C code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    _enlarge(result_write)
    message = _read_message(task_read)
    if message is None:
        os._exit(0)
    try:
        function, initializer, initargs, timeout_s, memory_bytes = pickle.loads(message[0])
        if initializer is not None:
            initializer(*initargs)
        _limit_memory(memory_bytes)
    except BaseException as error:
        _write_message(result_write, [f"{type(error).__name__}: {one_line(error, 1000)}".encode()])
        os._exit(1)
    _write_message(result_write, [b""])
    while (message := _read_message(task_read)) is not None:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            outcome = _attempt(function, pickle.loads(message[0]))
            buffers: list[pickle.PickleBuffer] = []
            body = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception as error:
            body, buffers = pickle.dumps(Outcome[Any](error=f"the result cannot be sent: {one_line(error)}")), []
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write_message(result_write, [body, *(buffer.raw() for buffer in buffers)])
        del outcome, body, buffers
    os._exit(0)


def _limit_memory(memory_bytes: int | None) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is None or not os.path.exists("/proc/self/statm"):
        return
    with open("/proc/self/statm") as file:
        base = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = base + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _die_with_parent(parent: int) -> None:
    # Not PR_SET_PDEATHSIG: that fires when the *thread* that started the worker ends. A pipe's end does not
    # tell either while a sibling that was forked from the parent still holds it.
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(0)


def _enlarge(fd: int) -> None:
    """Let a pipe hold a whole image, so that a worker need not wait for the parent to read it."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # the system's limit for pipes is used up; smaller pipes work too, only slower


def _write_message(fd: int, parts: list[Any]) -> None:
    """Count, sizes, parts. Arrays are written from where they lie, without a copy."""
    views = [memoryview(part).cast("B") for part in parts]
    header = struct.pack(f"<{1 + len(views)}Q", len(views), *(len(view) for view in views))
    for view in (memoryview(header), *views):
        while len(view):
            view = view[os.write(fd, view) :]


def _read_message(fd: int) -> list[bytearray] | None:
    """The next message, or None at the end of the pipe (also in the middle of a message)."""
    count = _read_exactly(fd, 8)
    if count is None:
        return None
    sizes = _read_exactly(fd, 8 * struct.unpack("<Q", count)[0])
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
