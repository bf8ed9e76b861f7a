"""Processes of their own that begin with everything imported: the imports of a training take longer than a test's work.

Two interpreters import once and then only fork. Each child runs ``python -m MODULE`` or ``python SCRIPT`` as ``__main__``, with its
own arguments, variables, folder and output; it ends, is killed and is waited for like any process. Tests of what an interpreter does
before or after that (what is imported, what may be missing, how Ctrl-C ends it) start a plain one.

Two interpreters, taken in turn: they order sets and place objects differently, as two plain ones do. A result that depends on
either still differs between a run and its repetition, or between two ranks.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import itertools
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = ("jsonargparse", "docstring_parser", "pyarrow.dataset", "pyarrow.pandas_compat")
"""What the verbs import late."""


class Process:
    """As ``subprocess.Popen`` of ``python ARGUMENTS``; its output goes to files, so that nobody has to read along."""

    def __init__(
        self,
        arguments: Sequence[object],
        env: Mapping[str, str],
    ) -> None:
        """``arguments``: ``-m MODULE WORDS`` or ``SCRIPT WORDS``. ``env``: all variables that it has."""
        self.args = [str(word) for word in arguments]
        self._kept = [tempfile.TemporaryFile() for _ in ("out", "err")]  # noqa: SIM115 - as long as this
        self._status, theirs = socket.socketpair()
        fds = [one.fileno() for one in self._kept]
        self.returncode: int | None = None
        at_start = {name for name in {*env, *os.environ} if name.startswith("PYTHON")}
        if differ := {name for name in at_start if env.get(name) != os.environ.get(name)}:
            raise AssertionError(f"an interpreter reads {differ} at its start; start a plain one")
        request = {"arguments": self.args, "env": dict(env), "cwd": os.getcwd()}
        with theirs:
            _next().ask(request, [*fds, theirs.fileno()])
        # a closed end is how the death of the other side is seen
        pid = _exactly(self._status, 8)
        if len(pid) < 8:
            raise AssertionError(
                f"no process for {self.args}: the interpreter that forks has ended, see its error"
            )
        self.pid = int.from_bytes(pid, "big")

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises: subprocess.TimeoutExpired: it goes on."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            answer = self._status.recv(100)
            self._status.close()
            if not answer:
                raise AssertionError(f"the interpreter that forked {self.args} is gone")
            self.returncode = os.waitstatus_to_exitcode(int(answer))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and error, once it has ended."""
        self.wait(timeout)
        return self._text(0), self._text(1)

    def _text(self, which: int) -> str:
        self._kept[which].seek(0)
        return self._kept[which].read().decode()


def run(
    arguments: Sequence[object], env: Mapping[str, str], limit: float
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` of ``python ARGUMENTS`` with its output as text.

    Raises:
        subprocess.TimeoutExpired: it was killed after ``limit`` seconds.
    """
    process = Process(arguments, env)
    try:
        process.wait(limit)
    except BaseException:
        process.kill()
        process.wait()
        raise
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


# The side of the tests ---------------------------------------------------------------------------------------------------


class _Interpreter:
    """A started server and the socket to it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        own = {
            "OMP_NUM_THREADS": "1",
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # no fork could use a GPU that its parent has opened
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={**os.environ, **own},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.end)

    def ask(self, request: Mapping[str, object], fds: list[int]) -> None:
        """For a process whose output goes to the first two files, its id and then its exit status to the third."""
        text = json.dumps(request).encode()
        socket.send_fds(self.socket, [len(text).to_bytes(8, "big")], fds)
        self.socket.sendall(text)

    def end(self) -> None:
        self.socket.close()
        self.process.wait()


_started: list[_Interpreter] = []
_turn = itertools.count()


def _next() -> _Interpreter:
    at = next(_turn) % 2
    if len(_started) <= at:
        _started.append(_Interpreter())
    return _started[at]


def _exactly(connection: socket.socket, n: int) -> bytes:
    """``n`` bytes; fewer if the other end is gone."""
    read = b""
    while len(read) < n and (more := connection.recv(n - len(read))):
        read += more
    return read


# The side that forks -----------------------------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> Mapping[str, object] | None:
    """Fork for every request and report ends; returns the request in the child, nothing once the tests have ended."""
    running: dict[int, socket.socket] = {}
    while True:
        # reaped by polling: signals would need handlers that every child had to undo
        ready = select.select([connection], [], [], 0.01 if running else None)[0]
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with running.pop(pid) as told, contextlib.suppress(OSError):
                told.sendall(str(status).encode())
        if not ready:
            continue
        head, fds, _, _ = socket.recv_fds(connection, 8, 3)
        if not head:
            return None
        request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        told = socket.socket(fileno=fds[2])
        pid = os.fork()
        if not pid:
            for to, fd in enumerate(fds[:2], start=1):
                os.dup2(fd, to)
                os.close(fd)
            for other in (connection, told, *running.values()):
                other.close()
            return request
        told.sendall(pid.to_bytes(8, "big"))
        running[pid] = told
        for fd in fds[:2]:
            os.close(fd)


def _become(request: Mapping[str, object]) -> None:
    """What an interpreter does with its command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    import numpy as np

    np.random.seed()  # a plain process begins anywhere
    tempfile.tempdir = None  # it may be another one by now
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    arguments = request["arguments"]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


def _status_of(request: Mapping[str, object]) -> int:
    """Exit status, as an interpreter finds and tells it."""
    try:
        _become(request)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            return (stop.code or 0) & 255
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _import_all() -> None:
    import importlib

    from twinray.verbs import VERBS, load

    for verb in VERBS.values():
        with contextlib.suppress(ImportError):  # extras
            load(verb.config), load(verb.run)
    for name in PRELOADED:
        importlib.import_module(name)


def _threads() -> list[str]:
    """Threads beside this one. That of pyarrow's allocator is no matter: jemalloc stops it around a fork."""
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.glob("*")]
    others = [thread.name for thread in threading.enumerate()]
    return sorted(others[1:] + [name for name in names if name not in ("jemalloc_bg_thd",)][1:])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests' own affair
    _import_all()
    if threads := _threads():
        raise SystemExit(f"imports started threads, which a fork would not have: {threads}")
    gc.freeze()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    status = 0
    if asked is not None:
        status = _status_of(asked)
        # as multiprocessing ends what it forked: the modules of the interpreter that forks are not this one's to take down
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
