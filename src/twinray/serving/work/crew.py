"""The server's side of its processes of work: started, watched, started again after an end, stopped with the server."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, final

from twinray.errors import TwinrayError
from twinray.serving.log import error_facts, log
from twinray.serving.store.store import Store
from twinray.serving.work.job import Job, as_message, receive, send

_SHORTEST_LIFE_S = 10.0
_STOP_S = 30.0
_ANSWER_S = 120.0
_MOST_WAITING = 12


class ShownError(TwinrayError):
    """The process that shows could not answer.

    Attributes:
        refused: flag, true where asking again is of no use.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(eq=False)
class _Process:
    """One process of work; ``ready`` once its models are loaded."""

    job: Job
    process: subprocess.Popen[bytes]
    link: socket.socket
    started: float
    ready: bool = False
    why: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@final
class Crew:
    """The processes of work of one server.

    Args:
        store: store that they work on.
        job: job of each, but name and role.
        analysts: number of those that analyse; one more shows.

    Attributes:
        restarts: number of processes that were started again. why: why there is no process.
        methods: heat maps of classifiers by hash, known once the process that shows is ready.
    """

    def __init__(self, store: Store, job: Job, analysts: int) -> None:
        self._store = store
        self._job = job
        self._mark = secrets.token_hex(4)
        self._roles = {f"{self._mark}-analyse-{n}": "analyse" for n in range(analysts)}
        self._roles[f"{self._mark}-show"] = "show"
        self._show = f"{self._mark}-show"
        self._processes: dict[str, _Process] = {}
        self._stopping = threading.Event()
        self._asking = threading.BoundedSemaphore(_MOST_WAITING)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.restarts = 0
        self.why = ""
        self.methods: dict[str, tuple[str, ...]] = {}

    def start(self) -> None:
        """Start all of them; they load their models while the server answers."""
        for name in self._roles:
            thread = threading.Thread(target=self._keep, args=(name,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let each finish the image it is at, and end it; what it cannot finish in time goes back to the queue."""
        self._stopping.set()
        for one in [*self._processes.values()]:
            with contextlib.suppress(OSError):
                send(one.link, {"stop": True})
        until = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.1, until - time.monotonic()))
        for one in [*self._processes.values()]:
            if one.process.poll() is None:
                one.process.kill()
        with contextlib.suppress(TwinrayError):
            self._store.images.release(self._mark, begun=False)

    def wake(self) -> None:
        """Tell those that analyse that an image waits."""
        for name, one in [*self._processes.items()]:
            if self._roles[name] == "analyse":
                with contextlib.suppress(OSError):
                    # one that is busy looks at the queue anyway: a full socket must not hold the server
                    one.link.send(b"\x02\x00\x00\x00\x00\x00\x00\x00{}", socket.MSG_DONTWAIT)

    @property
    def ready(self) -> bool:
        """Whether every process has its models and lives."""
        return len(self._processes) == len(self._roles) and all(
            one.ready and one.process.poll() is None for one in [*self._processes.values()]
        )

    @property
    def alive(self) -> dict[str, int]:
        """Number of processes that are at work, by role."""
        counts = {"analyse": 0, "show": 0}
        for name, one in [*self._processes.items()]:
            counts[self._roles[name]] += int(one.ready and one.process.poll() is None)
        return counts

    def ask(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Ask the process that shows.

        Raises:
            ShownError: it refuses, or cannot answer at the moment.
        """
        one = self._processes.get(self._show)
        if one is None or not one.ready:
            raise ShownError(self.why or "models are being loaded; try again in some seconds")
        # each that waits holds one of the server's threads: some must stay for all other routes
        if not self._asking.acquire(blocking=False):
            raise ShownError("many pixels and heat maps are asked for at once; try again")
        try:
            return self._ask(one, asked)
        finally:
            self._asking.release()

    def _ask(self, one: _Process, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if not one.lock.acquire(timeout=_ANSWER_S / 4):
            raise ShownError("many pixels and heat maps are asked for at once; try again")
        try:
            one.link.settimeout(_ANSWER_S)
            send(one.link, asked)
            answer = receive(one.link)
        except TimeoutError:
            one.process.kill()  # its next answer would be this one's
            raise ShownError(
                f"took longer than {_ANSWER_S:g} s; use another method", refused=True
            ) from None
        except OSError:
            answer = None
        finally:
            one.lock.release()
        if answer is None:
            raise ShownError("the process that shows was started again; try again")
        content, data = answer
        if content.get("refused"):
            raise ShownError(str(content["refused"]), refused=True)
        if content.get("unavailable"):
            raise ShownError("the store does not answer at the moment; try again")
        if content.get("fault"):
            raise ShownError("it failed for a reason that the log tells", refused=True)
        return content, data

    # --- one thread a process -----------------------------------------------------------------------------------------

    def _keep(self, name: str) -> None:
        """Start a process again whenever it ends, sooner after a long life than after a short one."""
        wait = 0.2
        while not self._stopping.is_set():
            try:
                one = self._begin(name)
            except OSError as error:
                log("worker not started", worker=name, **error_facts(error))
            else:
                one.process.wait()
                one.ready = False
                if self._stopping.is_set():
                    return
                self.restarts += 1
                log("worker ended", worker=name, status=one.process.returncode)
                with contextlib.suppress(TwinrayError):
                    self._store.images.release(name)
                one.link.close()
                wait = (
                    0.2
                    if time.monotonic() - one.started > _SHORTEST_LIFE_S
                    else min(2 * wait, 30.0)
                )
            self._stopping.wait(wait)

    def _begin(self, name: str) -> _Process:
        own, theirs = socket.socketpair()
        role = self._roles[name]
        job = Job(**{**vars(self._job), "name": name, "role": role})
        process = subprocess.Popen(
            [sys.executable, "-m", "twinray.serving.work.process", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
        theirs.close()
        one = _Process(job, process, own, time.monotonic())
        self._processes[name] = one
        try:
            send(own, as_message(job))
            answer = receive(own)
        except OSError:
            answer = None
        if answer is not None and answer[0].get("ready"):
            one.ready, self.why = True, ""
            self.methods |= {model: tuple(own) for model, own in answer[0]["methods"].items()}
            log("worker ready", worker=name, pid=process.pid)
        elif answer is not None:
            self.why = one.why = str(answer[0].get("why", ""))
            log("worker refused", worker=name)
        return one


def _environment() -> dict[str, str]:
    """This process's environment without secrets that no worker needs."""
    return {key: value for key, value in os.environ.items() if key != "TWINRAY_TOKEN"}
