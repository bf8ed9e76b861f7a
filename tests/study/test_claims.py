"""Claims: of several workers one holds a piece, and a dead one's claim is taken over."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twinray.errors import DiskFull
from twinray.files import clear_disk_errors
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.runner.claims import LEASE_S, Claims, Heartbeat, Process, now
from twinray.studies.runner.journal import Journal
from twinray.studies.runner.local import _held_by, run_local
from twinray.studies.runner.place import Place
from twinray.studies.runner.worker import NO_ROOM, main, next_piece, work

PIECE = "0123456789abcdef"


def _try(folder: Path, barrier, won) -> None:
    barrier.wait()
    for i in range(20):
        if Claims(folder).take(f"piece{i}") is not None:
            won.append((i, os.getpid()))
    barrier.wait()  # alive until all have tried: a dead winner's claim may be taken over


def test_of_several_workers_one_gets_a_piece(tmp_path):
    spawn = multiprocessing.get_context("fork")
    with spawn.Manager() as manager:
        won, barrier = manager.list(), spawn.Barrier(4)
        workers = [spawn.Process(target=_try, args=(tmp_path, barrier, won)) for _ in range(4)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
        assert sorted(i for i, _ in won) == list(range(20))


def test_a_claim_made_between_look_and_claim_is_not_taken_over(tmp_path, monkeypatch):
    slow, fast = Claims(tmp_path), Claims(tmp_path)
    look = slow._state

    def then_another_claims(piece, last):
        found = look(piece, last)
        assert fast.take(piece) is not None
        return found

    monkeypatch.setattr(slow, "_state", then_another_claims)
    assert slow.take(PIECE) is None
    monkeypatch.undo()
    assert slow.state(PIECE) == "running" and fast.holder(PIECE).number == 0


def test_a_piece_goes_from_open_to_done(tmp_path):
    claims = Claims(tmp_path)
    assert claims.state(PIECE) == "open"
    claim = claims.take(PIECE)
    assert claim is not None and claims.state(PIECE) == "running" and claims.take(PIECE) is None
    claims.finish(claim, "a run", 1.5, {"metrics.json": "ab"})
    done = claims.done(PIECE)
    assert claims.state(PIECE) == "done" and claims.take(PIECE) is None
    assert done is not None and (done.claim, done.files) == (0, {"metrics.json": "ab"})


def test_a_failed_piece_is_claimed_again_only_when_asked(tmp_path):
    claims = Claims(tmp_path)
    claims.end(claims.take(PIECE), "no box", failed=True)
    assert (claims.state(PIECE), claims.failure(PIECE)) == ("failed", "no box")
    assert claims.take(PIECE) is None
    claims.retry(PIECE)
    again = claims.take(PIECE)
    assert again.number == 1 and claims.failure(PIECE) == ""
    claims.end(again, "still none", failed=True)
    assert claims.failure(PIECE) == "still none"


def test_an_interrupted_piece_is_open_at_once(tmp_path):
    claims = Claims(tmp_path)
    claims.end(claims.take(PIECE), "SIGTERM", failed=False)
    assert claims.take(PIECE).number == 1


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_dead_process_loses_its_claim_at_once(tmp_path, end):
    code = (
        "import sys, time, pathlib; from twinray.studies.runner.claims import Claims\n"
        f"Claims(pathlib.Path(sys.argv[1])).take({PIECE!r}); print('claimed', flush=True); time.sleep({60 if end == 'kill' else 0})"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"claimed\n"
    claims = Claims(tmp_path)
    if end == "kill":
        assert claims.state(PIECE) == "running"
        worker.kill()
        while claims.state(PIECE) == "running":  # killed, but not yet gone
            time.sleep(0.01)
    # before the parent has asked for its status: a zombie has ended too
    else:
        while claims.state(PIECE) == "running":
            time.sleep(0.01)
    assert claims.take(PIECE).number == 1
    worker.wait()


def _of(folder: Path, **changes) -> None:
    path = folder / f"{PIECE}.claim.0"
    own = json.loads(path.read_text())
    own["process"].update(changes)
    path.write_text(json.dumps(own))


def test_another_machines_claim_lasts_as_long_as_its_heartbeat(tmp_path):
    claims = Claims(tmp_path, lease_s=30)
    claim = claims.take(PIECE)
    _of(tmp_path, host="elsewhere")
    assert claims.state(PIECE) == "running"
    old = time.time() - 31
    os.utime(tmp_path / f"{PIECE}.claim.0", (old, old))
    assert claims.state(PIECE) == "open"
    claims.beat(claim)
    assert claims.state(PIECE) == "running"


def test_a_number_given_again_is_seen_and_another_boot_may_be_another_machine(tmp_path):
    claims = Claims(tmp_path)
    claims.take(PIECE)
    own = Process.own()
    _of(tmp_path, started="1")  # another process has the number now
    assert claims.state(PIECE) == "open"
    # many machines are called "localhost", and the first space has the same number on each
    _of(tmp_path, started=own.started, boot="of another")
    assert claims.state(PIECE) == "running"
    old = time.time() - LEASE_S - 1
    os.utime(tmp_path / f"{PIECE}.claim.0", (old, old))
    assert claims.state(PIECE) == "open"
    _of(
        tmp_path, started="1", boot=own.boot, space="pid:[1]"
    )  # a container: its numbers say nothing here
    assert claims.state(PIECE) == "running"


def test_a_link_whose_answer_was_lost_is_a_claim(tmp_path, monkeypatch):
    link = os.link

    def twice(
        source, target
    ):  # as NFS does it: the first request was done, the second finds its work
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    claims = Claims(tmp_path)
    claim = claims.take(PIECE)
    assert claim is not None and claims.holds(claim)
    assert claims.take(PIECE) is None


@pytest.mark.parametrize("left", [b"", b"\0\0\0\0", b'{"piece": "01'])
def test_a_damaged_claim_lasts_as_long_as_a_heartbeat(tmp_path, left):
    claims = Claims(tmp_path)
    claims.take(PIECE)
    path = tmp_path / f"{PIECE}.claim.0"
    path.write_bytes(left)  # a power cut
    assert claims.state(PIECE) == "running" and claims.holder(PIECE) is None
    old = time.time() - LEASE_S - 1
    os.utime(path, (old, old))
    again = claims.take(PIECE)
    assert again is not None and again.number == 1
    (tmp_path / f"{PIECE}.ended.1").write_bytes(left)
    assert claims.state(PIECE) == "open" and claims.take(PIECE).number == 2


def test_a_disk_that_does_not_answer_ends_no_heartbeat(tmp_path, monkeypatch):
    claims = Claims(tmp_path)
    claim = claims.take(PIECE)
    path = tmp_path / f"{PIECE}.claim.0"
    os.utime(path, (1, 1))
    asked = []

    def holds(_):
        asked.append(1)
        if len(asked) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return True

    monkeypatch.setattr(claims, "holds", holds)
    with Heartbeat(claims, claim, every_s=0.01):
        until = time.monotonic() + 20
        while path.stat().st_mtime == 1 and time.monotonic() < until:
            time.sleep(0.01)
    assert path.stat().st_mtime > 1


def _plan(*names: str) -> Plan:
    return Plan("", "", tuple(Node(name, "detect", name, {}) for name in names))


def test_pieces_over_which_workers_died_come_last(tmp_path):
    claims, plan = Claims(tmp_path), _plan("a", "b", "c")
    for name, deaths in (("a", 2), ("b", 1)):
        for number in range(deaths):
            assert claims.take(name).number == number
            path = tmp_path / f"{name}.claim.{number}"
            own = json.loads(path.read_text())
            own["process"]["started"] = "1"  # gone without a word
            path.write_text(json.dumps(own))
    done: set[str] = set()
    taken = []
    while (found := next_piece(plan, claims, done))[0] is not None:
        taken.append(found[1].id)
        claims.finish(found[0], "", 1.0, {})
    assert taken == ["c", "b", "a"] and done == {"a", "b", "c"}


def test_a_death_counts_where_another_worker_has_the_piece_by_now(tmp_path):
    place = Place(tmp_path)
    place.write_plan(_plan(PIECE))
    since = now()
    code = (
        "import os, sys, pathlib; from twinray.studies.runner.claims import Claims\n"
        f"Claims(pathlib.Path(sys.argv[1])).take({PIECE!r}); print(os.getpid(), flush=True); os._exit(1)"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "claims")], stdout=subprocess.PIPE, check=False
    )
    assert place.claims.take(PIECE).number == 1  # faster than the coordinator's look
    held = _held_by(place, int(worker.stdout), since)
    assert held is not None and held.id == PIECE
    assert _held_by(place, int(worker.stdout), now()) is None  # of an earlier command
    assert _held_by(place, os.getpid(), since) is None  # alive


def test_a_full_disk_fails_no_piece_and_ends_the_workers(tmp_path, monkeypatch):
    """Every piece that was left failed within seconds, and was listed as repeated when there was room again."""
    place = Place(tmp_path)
    place.write_plan(_plan("a", "b"))

    def no_room(*_: object) -> None:
        with clear_disk_errors(tmp_path, "weights"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("twinray.studies.runner.worker.execute", no_room)
    with pytest.raises(DiskFull, match=r"weights .*: No space left on device; the disk is full"):
        work(tmp_path)
    assert [place.claims.state(name) for name in "ab"] == ["open", "open"]
    assert place.claims.cut_off("a") == 0
    monkeypatch.undo()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    with monkeypatch.context() as patch:
        patch.setattr("twinray.studies.runner.worker.execute", no_room)
        assert main([str(tmp_path)]) == NO_ROOM
    for number, handler in handlers.items():
        signal.signal(number, handler)
    started = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({NO_ROOM})"])
        )
        return started[-1]

    monkeypatch.setattr("twinray.studies.runner.local.start_worker", start)
    with pytest.raises(DiskFull, match="the same command goes on"):
        run_local(place, 2, 1, lambda: None)
    assert len(started) == 2  # none is started again


def test_a_coordinator_that_is_asked_to_stop_takes_its_workers_along(tmp_path, monkeypatch):
    place = Place(tmp_path)
    place.write_plan(_plan("a"))
    started = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]))  # fmt: skip
        return started[-1]

    monkeypatch.setattr("twinray.studies.runner.local.start_worker", start)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_local(place, 2, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert [one.returncode for one in started] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_holder_knows_that_its_claim_was_taken_over(tmp_path):
    claims = Claims(tmp_path)
    first = claims.take(PIECE)
    _of(tmp_path, started="1")
    second = claims.take(PIECE)
    assert second.number == 1 and claims.holds(second) and not claims.holds(first)


def _side_by_side(write: Callable[[Path, str], None], study: Path, names: str) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write, args=(study, name)) for name in names]
    for one in writers:
        one.start()
    for one in writers:
        one.join()


def _append(study: Path, name: str) -> None:
    for i in range(25):
        Journal(study).append("event", who=name, number=i)


def test_the_journal_is_a_chain_that_several_processes_write(tmp_path):
    _side_by_side(_append, tmp_path, "abc")
    journal = Journal(tmp_path)
    events = journal.events()
    assert len(events) == 75 and journal.broken() is None
    for name in "abc":
        assert [e.about["number"] for e in events if e.about["who"] == name] == list(range(25))


def _append_without_locks(study: Path, name: str) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl.flock = refused
    _append(study, name)


def test_the_journal_is_a_chain_on_a_disk_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("twinray.studies.runner.journal._LOST_S", 0.5)
    (tmp_path / ".journal.jsonl.lock").write_bytes(b"")  # of a process that was killed
    _side_by_side(_append_without_locks, tmp_path, "abcd")
    assert len(Journal(tmp_path).events()) == 100 and Journal(tmp_path).broken() is None
    assert not (tmp_path / ".journal.jsonl.lock").exists()


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    Journal(tmp_path).append("event", number=1)
    monkeypatch.undo()
    assert [event.about for event in Journal(tmp_path).events()] == [{"number": 1}]


@pytest.mark.parametrize("change", ["edit", "remove", "swap"])
def test_a_changed_line_of_the_journal_shows(tmp_path, change):
    for i in range(4):
        Journal(tmp_path).append("event", number=i)
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if change == "edit":
        lines[1] = lines[1].replace('"number": 1', '"number": 7')
    elif change == "remove":
        del lines[1]
    else:
        lines[1:3] = lines[2:0:-1]
    path.write_text("".join(lines))
    assert Journal(tmp_path).broken() is not None


def test_a_line_that_a_kill_cut_short_is_left_out_and_the_chain_goes_on(tmp_path):
    journal = Journal(tmp_path)
    journal.append("first")
    with journal.path.open("ab") as file:
        file.write(b'{"n": 1, "at": "20')
    assert [e.what for e in journal.events()] == ["first"]
    journal.append("second")
    assert [e.what for e in journal.events()] == ["first", "second"] and journal.broken() is None
