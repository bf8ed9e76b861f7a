"""Workers: order, bounded look-ahead, and a failure that touches exactly its own task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from twinray.data.decoding.sandbox import KeptWorker, Outcome, map_in_workers
from twinray.errors import InputError, TwinrayError

_STATE: list[str] = []


def square(value: int) -> int:
    return value * value


def picture(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (300, 1000 + seed), dtype=np.uint8)


def echo_size(data: bytes) -> tuple[int, bytes]:
    return len(data), data


def misbehave(what: str) -> str:
    if what == "input":
        raise InputError("a.png: not\nan image")
    if what == "value":
        raise ValueError("bad value")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "crash":
        os.abort()
    if what == "exit":
        os._exit(3)
    if what == "sleep":
        time.sleep(60)
    if what == "spin":
        while True:
            pass
    if what == "memory":
        return str(len(bytearray(8 << 30)))
    if what == "unpicklable":
        return lambda: what  # type: ignore[return-value]
    return what


def pid_of(_: int) -> int:
    return os.getpid()


def has_torch(_: int) -> bool:
    return "torch" in sys.modules


def remember(word: str) -> None:
    _STATE.append(word)


def remembered(_: int) -> list[str]:
    return list(_STATE)


def fail_to_start() -> None:
    raise RuntimeError("no licence")


def die_at_start() -> None:
    os._exit(9)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_outcomes_come_in_the_order_of_tasks(workers: int) -> None:
    outcomes = list(map_in_workers(square, range(200), workers=workers))
    assert [outcome.result() for outcome in outcomes] == [value * value for value in range(200)]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_tasks_no_outcomes(workers: int) -> None:
    assert list(map_in_workers(square, [], workers=workers)) == []


def test_arrays_larger_than_a_pipe_arrive_unchanged_and_writable() -> None:
    for seed, outcome in enumerate(map_in_workers(picture, range(12), workers=2)):
        array = outcome.result()
        np.testing.assert_array_equal(array, picture(seed))
        array[0, 0] = 1


def test_large_tasks_with_large_results_do_not_block() -> None:
    tasks = [bytes([number]) * (3 << 20) for number in range(6)]
    for task, outcome in zip(tasks, map_in_workers(echo_size, iter(tasks), workers=2), strict=True):
        assert outcome.result() == (len(task), task)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("input", "a.png: not an image"),
        ("value", "ValueError: bad value"),
        ("kill", "killed"),
        ("crash", "crashed (SIGABRT)"),
        ("exit", "status 3"),
        ("memory", "more memory"),
        ("unpicklable", "cannot be sent"),
    ],
)
def test_a_failure_is_told_of_its_own_task_only(what: str, expected: str) -> None:
    tasks = ["a", "b", what, "c", "d", "e", "f", what, "g"]
    outcomes = list(map_in_workers(misbehave, tasks, workers=1))
    assert [outcome.value for outcome in outcomes if outcome.ok] == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
    ]
    errors = [outcome.error for outcome in outcomes if not outcome.ok]
    assert [outcome.ok for outcome in outcomes] == [task != what for task in tasks]
    assert all(error is not None and expected in error and "\n" not in error for error in errors)


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_a_task_that_takes_too_long_is_stopped(what: str) -> None:
    outcomes = list(map_in_workers(misbehave, ["a", what, "b", "c"], workers=2, timeout_s=0.5))
    assert [outcome.value for outcome in outcomes] == ["a", None, "b", "c"]
    assert outcomes[1].error == "took longer than 0.5 s and was stopped"


def test_without_workers_errors_are_outcomes_too() -> None:
    outcomes = list(map_in_workers(misbehave, ["input", "a", "value"], workers=0))
    assert [outcome.value for outcome in outcomes] == [None, "a", None]
    with pytest.raises(InputError, match="not an image"):
        outcomes[0].result()


def test_tasks_are_taken_a_bounded_number_ahead() -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for value in range(10_000):
            taken += 1
            yield value

    outcomes = map_in_workers(square, source(), workers=2)
    for given in range(1, 101):
        next(outcomes)
        assert taken <= given + 2 * 16
    outcomes.close()  # type: ignore[attr-defined]


def test_closing_ends_all_workers() -> None:
    outcomes = map_in_workers(pid_of, range(100), workers=2)
    pids = {next(outcomes).result() for _ in range(40)}
    assert os.getpid() not in pids
    outcomes.close()  # type: ignore[attr-defined]
    wait_until_gone(pids)


def test_an_error_in_the_source_ends_all_workers() -> None:
    def source() -> Iterator[int]:
        yield from range(40)
        raise OSError("disk")

    pids: set[int] = set()
    outcomes = map_in_workers(pid_of, source(), workers=2)
    with pytest.raises(OSError, match="disk"):
        pids.update(outcome.result() for outcome in outcomes)
    wait_until_gone(pids)


def test_initializer_runs_once_in_every_worker_before_its_tasks() -> None:
    outcomes = map_in_workers(
        remembered, range(20), workers=2, initializer=remember, initargs=("hello",)
    )
    assert all(outcome.value == ["hello"] for outcome in outcomes)


@pytest.mark.parametrize(
    ("initializer", "reason"), [(fail_to_start, "no licence"), (die_at_start, "status 9")]
)
def test_workers_that_cannot_start_are_one_clear_error(initializer: object, reason: str) -> None:
    with pytest.raises(TwinrayError, match=reason):
        list(map_in_workers(square, range(3), workers=2, initializer=initializer))  # type: ignore[arg-type]


def test_workers_do_not_import_torch() -> None:
    assert [outcome.value for outcome in map_in_workers(has_torch, range(4), workers=2)] == [
        False
    ] * 4


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="workers"):
        map_in_workers(square, [1], workers=-1)
    with pytest.raises(ValueError, match="timeout_s"):
        map_in_workers(square, [1], workers=1, timeout_s=0)


def test_an_outcome_is_either_a_value_or_an_error() -> None:
    assert Outcome(value=3).result() == 3
    with pytest.raises(InputError, match="broken"):
        Outcome[int](error="broken").result()


_PARENT = """
import sys
sys.path[:] = {path!r}
from {module} import misbehave, pid_of
from twinray.data.decoding.sandbox import map_in_workers
outcomes = map_in_workers(pid_of, iter(lambda: 1, 0), workers=2)
print(sorted({{next(outcomes).result() for _ in range(64)}}), flush=True)
{then}
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_is_killed_or_interrupted_leaves_no_workers(how: signal.Signals) -> None:
    script = _PARENT.format(path=sys.path, module=__name__, then="for _ in outcomes: pass")
    # a suite that a shell runs in the background hands down an ignored SIGINT
    script = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{script}"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pids = {int(word) for word in parent.stdout.readline().decode().strip("[]\n").split(",")}
    assert len(pids) >= 1
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does it: parent and workers alike
    else:
        parent.kill()
    parent.wait(timeout=20)
    parent.stdout.close()
    wait_until_gone(pids)


def pid_or_death(what: str) -> int:
    misbehave(what)
    return os.getpid()


def test_a_kept_worker_takes_tasks_one_by_one_and_is_replaced_after_a_loss():
    worker = KeptWorker(pid_or_death, timeout_s=30.0, memory_bytes=None)
    try:
        (pid,) = {worker("fine").value for _ in range(3)}  # kept between tasks
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        assert worker("fine").value not in (pid, None)  # no task's fault
        assert "killed" in str(worker("kill").error)
        assert worker("input").error == "a.png: not an image"
        assert worker("fine").ok
    finally:
        worker.close()
