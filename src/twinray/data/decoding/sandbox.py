"""Decode files in worker processes that a decompression bomb or a crashing decoder cannot take down.

Each worker is a fresh Python process (no fork of this one, no import of its main script, so no
torch). It limits itself. An alarm ends it when one task takes too long, even inside a C decoder. An
address-space limit makes a bomb fail instead of the machine swap. The parent keeps the order of
tasks and a bounded number in flight. It says of exactly the task that failed why. A lost worker is
replaced.

Needs POSIX (Linux, macOS; macOS does not enforce the memory limit). Workers' standard output and error
are discarded: decoders print about every oddity they meet.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from twinray.data.decoding.sandbox_worker import (
    OUT_OF_MEMORY,
    OUT_OF_MEMORY_STATUS,
    Outcome,
    attempt,
    enlarge_pipe,
    read_message,
    write_message,
)
from twinray.errors import TwinrayError

__all__ = ["DEFAULT_MEMORY_BYTES", "KeptWorker", "Outcome", "map_in_workers"]

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_MEMORY_BYTES = 2 << 30
"""Address space a worker may take beyond what it has once its imports are done."""

_QUEUED = 4
"""Tasks handed to one worker at a time: the next ones wait in its pipe while the parent is busy."""
_QUEUED_BYTES = 8192
"""Bytes that may wait there: they always fit, so that parent and worker never block on each other."""
_WINDOW = 16
"""Tasks per worker that may be taken from the source ahead of the last outcome given out."""
_START_ATTEMPTS = 3

_BOOT = "import sys; sys.path[:] = sys.argv[4:]; from twinray.data.decoding.sandbox_worker import work; work()"


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
        function: function importable by name from a module (not ``__main__``); runs in the workers.
        tasks: picklable tasks, taken lazily, at most ``16 * workers`` ahead of the last outcome
            given out.
        workers: number of processes; 0 runs in this process, without limits, for debugging.
        timeout_s: wall-clock seconds that one task may take.
        memory_bytes: address space that a worker may take beyond its start; None sets no limit.
        initializer: function called once in every worker, with ``initargs``, before its first task.
        initargs: arguments of ``initializer``.

    Yields:
        One Outcome a task. An exception of ``function`` is an outcome with ``error``: an
        InputError's own line, otherwise its type and message. A task that took too long or too much
        memory, or whose worker died, is such an outcome too. Closing the iterator ends all workers.

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


class KeptWorker:
    """One worker process for tasks that come one by one; it is kept between them, and replaced after one ended it.

    Args:
        function: as of :func:`map_in_workers`, and so are ``timeout_s`` and ``memory_bytes``.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        timeout_s: float = 60.0,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    ) -> None:
        job = pickle.dumps((function, None, (), timeout_s, memory_bytes), protocol=5)
        self._pool = _Pool(job, 1, timeout_s)

    def __call__(self, task: Any) -> Outcome[Any]:
        """The outcome of a task, as :func:`map_in_workers` gives it.

        Raises:
            TwinrayError: the worker cannot be started.
        """
        return self._pool.one(task)

    def close(self) -> None:
        """End the worker."""
        self._pool.close()


def _map_here(
    function: Callable[[T], R],
    tasks: Iterable[T],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> Iterator[Outcome[R]]:
    if initializer is not None:
        initializer(*initargs)
    for task in tasks:
        yield attempt(lambda: function(task))  # noqa: B023 - called before the loop goes on


class _Handle:
    """One worker process as the parent sees it: its pipes and the tasks that it still owes, oldest first."""

    def __init__(self, job: bytes) -> None:
        task_read, self.task_write = os.pipe()
        self.result_read, result_write = os.pipe()
        enlarge_pipe(result_write)
        command = [
            sys.executable,
            "-c",
            _BOOT,
            str(task_read),
            str(result_write),
            str(os.getpid()),
            *sys.path,
        ]
        # One decode a worker: thread pools of numeric libraries would only fight over the cores and count as memory.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # glibc would give an image's memory back after each image and fault it in, page by page, for the next.
        heap = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=(task_read, result_write),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **threads, **heap},
            )
        except BaseException:
            os.close(self.task_write)
            os.close(self.result_read)
            raise
        finally:
            os.close(task_read)
            os.close(result_write)
        self.owed: deque[int] = deque()
        self.sizes: deque[int] = deque()
        self.ready = self.leaving = False
        self._job: bytes | None = job

    def takes(self, size: int) -> bool:
        """Whether a task of ``size`` bytes can be handed over without a risk that both sides wait for each other."""
        return not self.owed or (
            len(self.owed) < _QUEUED and sum(self.sizes) + size <= _QUEUED_BYTES
        )

    def give(self, number: int, payload: bytes) -> None:
        """Send task ``number``; the job itself is sent ahead of the first."""
        self.owed.append(number)
        self.sizes.append(len(payload) + 32)
        try:
            if self._job is not None:
                write_message(self.task_write, [self._job])
                self._job = None
            write_message(self.task_write, [payload])
        except BrokenPipeError:
            pass  # the worker is gone; its result pipe ends, which is where that is handled

    def settle(self) -> int:
        """The number of the task whose outcome came."""
        self.sizes.popleft()
        return self.owed.popleft()

    def end(self) -> None:
        """Kill and reap. Safe to call twice."""
        for fd in (self.task_write, self.result_read):
            if fd >= 0:
                os.close(fd)
        self.task_write = self.result_read = -1
        self.process.kill()
        self.process.wait()


class _Pool:
    """The parent's side of one call of :func:`map_in_workers`."""

    def __init__(self, job: bytes, workers: int, timeout_s: float) -> None:
        self._job, self._workers, self._timeout_s = job, workers, timeout_s
        self._handles: list[_Handle] = []
        self._selector = selectors.DefaultSelector()
        self._payloads: dict[int, bytes] = {}  # of tasks without an outcome
        self._waiting: deque[int] = deque()  # taken from the source, not handed to a worker
        self._done: dict[int, Outcome[Any]] = {}
        self._failed_starts = 0

    def run(self, tasks: Iterable[T]) -> Iterator[Outcome[R]]:
        """Outcomes in the order of the tasks, of which no more than a window is taken ahead."""
        source, taken, given, more = iter(tasks), 0, 0, True
        try:
            while True:
                while self._waiting or (more and taken - given < _WINDOW * self._workers):
                    if not self._waiting:
                        try:
                            task = next(source)
                        except StopIteration:
                            more = False
                            break
                        self._payloads[taken] = pickle.dumps(task, protocol=5)
                        self._waiting.append(taken)
                        taken += 1
                    if not self._hand_over():
                        break
                if given == taken and not more:
                    return
                # Collect what is there even if the next outcome is: it empties the workers' pipes.
                self._collect(block=given not in self._done)
                if given in self._done:
                    given += 1
                    yield self._done.pop(given - 1)
        finally:
            self.close()

    def one(self, task: Any) -> Outcome[Any]:
        """The outcome of a single task; nothing else may be under way."""
        self._collect(block=False)  # a worker that ended between two tasks did not end by this one
        self._payloads[0] = pickle.dumps(task, protocol=5)
        self._waiting.append(0)
        while 0 not in self._done:
            if self._waiting:
                self._hand_over()
            self._collect(block=True)
        return self._done.pop(0)

    def close(self) -> None:
        """End all workers."""
        self._selector.close()
        for handle in self._handles:
            handle.process.kill()
        for handle in self._handles:
            handle.end()

    def _hand_over(self) -> bool:
        """Give the first waiting task to the worker that owes least; starts and replaces workers as needed."""
        payload = self._payloads[self._waiting[0]]
        able = [
            handle for handle in self._handles if handle.takes(len(payload)) and not handle.leaving
        ]
        best = min(able, key=lambda handle: len(handle.owed), default=None)
        if (best is None or best.owed) and len(self._handles) < self._workers:
            best = _Handle(self._job)
            self._handles.append(best)
            self._selector.register(best.result_read, selectors.EVENT_READ, best)
        if best is None:
            return False
        best.give(self._waiting.popleft(), payload)
        return True

    def _collect(self, *, block: bool) -> None:
        for key, _ in self._selector.select(None if block else 0):
            handle = cast(_Handle, key.data)
            parts = read_message(handle.result_read)
            if parts is None:
                self._bury(handle)
            elif not handle.ready:
                if parts[0]:
                    raise TwinrayError(
                        f"a decoding worker could not start: {parts[0].decode(errors='replace')}"
                    )
                handle.ready, self._failed_starts = True, 0
            elif not parts[0]:
                handle.leaving = True
            else:
                self._finish(handle.settle(), pickle.loads(parts[0], buffers=parts[1:]))

    def _finish(self, number: int, outcome: Outcome[Any]) -> None:
        del self._payloads[number]
        self._done[number] = outcome

    def _bury(self, handle: _Handle) -> None:
        """Set aside the task that a dead worker was at; hand the tasks that waited in its pipe to others."""
        self._selector.unregister(handle.result_read)
        self._handles.remove(handle)
        try:
            # Its pipe ends a moment before the process does; its own status must be known before it is killed.
            status = handle.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            status = 0
        handle.end()
        if not handle.ready:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                raise TwinrayError(
                    f"decoding workers could not start: the process ends with status {status}"
                )
        elif handle.owed and not handle.leaving:
            self._finish(handle.settle(), Outcome(error=self._cause(status)))
        self._waiting.extendleft(reversed(handle.owed))

    def _cause(self, status: int) -> str:
        if status == -signal.SIGALRM:
            return f"took longer than {self._timeout_s:g} s and was stopped"
        if status == OUT_OF_MEMORY_STATUS:
            return OUT_OF_MEMORY
        if status == -signal.SIGKILL:
            return "its worker process was killed (by the system, for lack of memory?)"
        if status < 0:
            return f"the decoder crashed ({signal.Signals(-status).name})"
        return f"its worker process ended by itself (status {status})"
