"""Who reads which case when, and in which arm: a crossover of two arms with a wash-out between.

Design
    Every reader reads every case twice, once in each arm, in two sessions. The cases are cut in two halves at random,
    cases with and without lesions each, and so are the readers. In the first session one half of the readers reads the
    first half of the cases in the first arm and the other half in the second; the other readers the other way round. In
    the second session all arms are exchanged. Arms are thus balanced over readers, cases and sessions, and neither
    learning nor fatigue falls on one of them (Gallas et al., "Evaluating Imaging and Computer-aided Detection and
    Diagnosis Devices at the FDA", Academic Radiology 2012; Obuchowski and Bullen, "Multireader Diagnostic Accuracy Imaging
    Studies", Radiology 2022).
    Within a session each reader has an order of their own, in which cases of both arms are mixed.
    The second session begins for a reader when the wash-out has passed since that reader's *last* reading of the first.

All draws come from the seed, the names and nothing else: the same file gives the same study on every machine, and another
reader or case more gives another study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from twinray.errors import InputError

SESSIONS: Final = (1, 2)
DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One reading that is planned.

    Attributes:
        reader: name.
        session: 1 or 2.
        position: place in the reader's session, from 1.
        case: id of the case.
        arm: name of the arm.
    """

    reader: str
    session: int
    position: int
    case: str
    arm: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wash-out has not passed.

    Attributes:
        until: seconds since 1970 when the second session begins.
    """

    until: float


def crossover(
    readers: Sequence[str],
    cases: Sequence[str],
    arms: tuple[str, str],
    seed: int,
    *,
    with_lesions: Collection[str] = (),
) -> Mapping[str, tuple[Slot, ...]]:
    """Plan a study: reader -> that reader's readings in their order, both sessions.

    Args:
        readers, cases: names, each once.
        arms: names of the two arms.
        seed: seed of all draws.
        with_lesions: cases that have a lesion; each half of the cases gets half of them.

    Raises:
        InputError: no reader, fewer than two cases, a name that stands twice or is empty, arms that are alike, or a case with lesions that is no case.
    """
    for what, names in (("readers", readers), ("cases", cases), ("arms", arms)):
        if len(set(names)) < len(names) or not all(names):
            raise InputError(
                f"reader study: expected different {what} with a name, got {list(names)[:20]}"
            )
    if not readers or len(cases) < 2:
        raise InputError(
            f"reader study: expected one reader and two cases or more, got {len(readers)} and {len(cases)}"
        )
    if strangers := sorted(set(with_lesions) - set(cases)):
        raise InputError(f"reader study: {strangers[0]!r} has a lesion in the truth and is no case")
    diseased = set(with_lesions)
    halves: dict[str, int] = {}
    turn = 0  # the odd case of one kind is made up for by that of the other
    for kind in (True, False):
        own = [case for case in cases if (case in diseased) is kind]
        for case in _shuffled(own, seed, f"cases {kind}"):
            halves[case] = turn % 2
            turn += 1
    groups = {reader: i % 2 for i, reader in enumerate(_shuffled(readers, seed, "readers"))}
    return {
        reader: _of_reader(reader, cases, arms, seed, halves, groups[reader]) for reader in readers
    }


def _of_reader(
    reader: str,
    cases: Sequence[str],
    arms: tuple[str, str],
    seed: int,
    halves: Mapping[str, int],
    group: int,
) -> tuple[Slot, ...]:
    return tuple(
        Slot(reader, session, position, case, arms[(halves[case] + group + session - 1) % 2])
        for session in SESSIONS
        for position, case in enumerate(_shuffled(cases, seed, f"order {session} {reader}"), 1)
    )


def next_slot(
    slots: Sequence[Slot], done: Mapping[tuple[int, str], float], wash_out_days: float, now: float
) -> Slot | Waiting | None:
    """What a reader reads next.

    Args:
        slots: the reader's readings in their order.
        done: (session, case) -> seconds since 1970 when it was read.
        wash_out_days: least days between a reader's last reading of the first session and the second.
        now: seconds since 1970.

    Returns:
        The next reading, when the second session begins, or None at the end.
    """
    left = next((slot for slot in slots if (slot.session, slot.case) not in done), None)
    if left is None or left.session == SESSIONS[0]:
        return left
    first = [at for (session, _), at in done.items() if session == SESSIONS[0]]
    until = max(first) + wash_out_days * DAY
    return left if now >= until else Waiting(until)


def _shuffled(names: Sequence[str], seed: int, what: str) -> list[str]:
    """The names in an order that depends on seed, names and purpose alone, not on how they were listed."""
    ordered = sorted(names)
    digest = hashlib.sha256(repr((seed, what, ordered)).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return [ordered[i] for i in generator.permutation(len(ordered))]
