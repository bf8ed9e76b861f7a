"""A process that has the package loaded and answers each ``twinray ...`` of a shell with a fork of itself.

A page of the documentation holds a dozen commands. Started one by one, each would load torch for
seconds; a fork starts at once, and is a process of its own all the same, with its own folder,
environment, output and exit status.

    python fork_server.py SOCKET        (the shell's ``twinray`` is fork_client.py)
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

_MOST_BYTES = 1 << 20


def serve(address: Path) -> None:
    """Answer until killed; every answer is a process of its own."""
    import torch
    import torchvision  # noqa: F401

    from twinray import cli
    from twinray.verbs import VERBS, load

    torch.set_num_threads(1)  # no thread may run where a process forks
    for verb in VERBS.values():
        load(verb.command or verb.run)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(address))
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            _answer(connection, cli.main)
        connection.close()


def _answer(connection: socket.socket, main: object) -> None:
    message, streams, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    asked = json.loads(message)
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(_run(asked, streams, main))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def _run(asked: dict, streams: list[int], main: object) -> int:
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["twinray", *asked["arguments"]]
    try:
        main(asked["arguments"])  # type: ignore[operator]
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
