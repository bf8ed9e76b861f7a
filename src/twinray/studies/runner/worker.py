"""A worker: claims open pieces whose needs are done, does them, and ends when nothing is left that it could do.

Workers know nothing of each other but the files in ``claims/``, so any number of them, on any machine that sees the study's
folder, may work at once. ``python -m twinray.studies.runner.worker STUDY`` is one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from twinray.errors import DiskFull, Interrupted, Stopped, TwinrayError
from twinray.files import make_folder
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.runner.claims import Claim, Claims, Heartbeat, told
from twinray.studies.runner.execute import execute
from twinray.studies.runner.place import Place

POLL_S = 1.0
"""Time between two looks for open work, in seconds."""
STOPPED = 143
"""Exit status of a worker that a signal asked to stop."""
NO_ROOM = 74
"""Exit status of a worker that met a full disk."""


def work(study: Path, *, poll_s: float = POLL_S) -> int:
    """Do open pieces until none is left.

    Args:
        study: folder of the study.
        poll_s: time between two looks while others work on what is needed.

    Returns:
        Number of pieces done.

    Raises:
        Stopped, Interrupted: a signal asked to stop; what was begun can be resumed.
        DiskFull: there is no room for what it does; what was begun can be resumed.
    """
    place = Place(study)
    claims, count = place.claims, 0
    finished: set[str] = set()
    make_folder(place.logs)
    while True:
        plan = place.plan()  # anew: the coordinator may have replaced it
        claim, one = next_piece(plan, claims, finished)
        if claim is not None and one is not None:
            count += _do(place, claim, one)
        elif any(claims.state(node.id) == "running" for node in plan if node.id not in finished):
            time.sleep(poll_s)
        else:
            return count


def next_piece(
    plan: Plan, claims: Claims, finished: set[str] | None = None
) -> tuple[Claim | None, Node | None]:
    """Claim the first open piece whose needs are done; nothing where there is none.

    Pieces over which workers died come last: one that needs more memory than there is must not keep the others from being done.

    Args:
        plan: the plan.
        claims: the claims.
        finished: ids that are known to be done, which are asked for no more; those that are found done are added.
    """
    done = set() if finished is None else finished
    doubtful: list[tuple[int, Node]] = []
    for one in plan:
        if one.id in done:
            continue
        state = claims.state(one.id)
        if state == "done":
            done.add(one.id)
        elif state == "open" and set(one.needs) <= done:
            if deaths := claims.cut_off(one.id):
                doubtful.append((deaths, one))
            elif (claim := claims.take(one.id)) is not None:
                return claim, one
    for _, one in sorted(doubtful, key=lambda own: own[0]):
        if (claim := claims.take(one.id)) is not None:
            return claim, one
    return None, None


def _do(place: Place, claim: Claim, one: Node) -> int:
    """Do a claimed piece; 1 if it is done now, 0 if it failed."""
    claims, started = place.claims, time.monotonic()
    place.journal.append("begun", piece=one.id, **told(claim))
    try:
        with _output_to(place.logs / f"{one.id}.log"), Heartbeat(claims, claim):
            files = execute(one, place.path)
    except (Stopped, Interrupted, KeyboardInterrupt) as stop:
        claims.end(claim, str(stop) or "interrupted", failed=False)
        raise
    except DiskFull as full:
        # not the run's fault; as failures all pieces that are left would end within seconds, and be listed as repeated later
        with suppress(TwinrayError):
            claims.end(claim, str(full), failed=False)
        raise
    except TwinrayError as error:
        return _failed(place, claim, str(error))
    except Exception as error:  # one broken run must not end the others
        with (place.logs / f"{one.id}.log").open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        return _failed(place, claim, f"{type(error).__name__}: {error}"[:400])
    if not claims.holds(claim):
        return 0
    claims.finish(claim, one.name, time.monotonic() - started, files)
    place.journal.append("done", piece=one.id, **told(claim), files=dict(files))
    return 1


def _failed(place: Place, claim: Claim, reason: str) -> int:
    reason = " ".join(reason.split())
    place.claims.end(claim, reason, failed=True)
    place.journal.append("failed", piece=claim.piece, reason=reason, **told(claim))
    return 0


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what the block prints, also from libraries and child processes, to the end of a file."""
    _flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk: what was printed last is no result
            stream.flush()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(f"stopped by {signal.Signals(number).name}")


def main(arguments: Sequence[str]) -> int:
    """Entry point of a worker's process."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)  # a training puts its own in place while it runs
    try:
        done = work(Path(arguments[0]))
    except (Stopped, KeyboardInterrupt) as stop:
        print(f"worker {os.getpid()}: {stop or 'interrupted'}", file=sys.stderr)
        return STOPPED
    except TwinrayError as error:
        with suppress(OSError):  # its own log may lie on a full disk
            print(f"worker {os.getpid()}: {error}", file=sys.stderr)
        return NO_ROOM if isinstance(error, DiskFull) else error.exit_code
    print(f"worker {os.getpid()}: {done} done", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
