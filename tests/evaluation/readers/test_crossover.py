"""Who reads which case when: balance, wash-out, and that names and seed alone decide."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.errors import InputError
from twinray.evaluation.readers.crossover import DAY, Waiting, crossover, next_slot

ARMS = ("without", "with")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(2, 25), st.integers(0, 25), st.integers(0, 99))
def test_everybody_reads_every_case_once_in_each_arm(n_readers, n_cases, n_lesions, seed):
    readers, cases = [f"r{i}" for i in range(n_readers)], [f"c{i}" for i in range(n_cases)]
    diseased = cases[: min(n_lesions, n_cases)]
    found = crossover(readers, cases, ARMS, seed, with_lesions=diseased)
    assert list(found) == readers
    first: Counter[str] = Counter()
    for reader, slots in found.items():
        assert {(s.case, s.arm) for s in slots} == {(c, a) for c in cases for a in ARMS}
        for session in (1, 2):
            own = [s for s in slots if s.session == session]
            assert {s.case for s in own} == set(cases)
            assert [s.position for s in own] == list(range(1, n_cases + 1))
            for kind in (diseased, [c for c in cases if c not in diseased]):
                arms = Counter(s.arm for s in own if s.case in kind)
                assert abs(arms["with"] - arms["without"]) <= 1
            arms = Counter(s.arm for s in own)
            assert abs(arms["with"] - arms["without"]) <= 1
        assert {s.reader for s in slots} == {reader}
        first.update((s.case,) for s in slots if s.session == 1 and s.arm == "with")
    for case in cases:  # half of the readers see a case with boxes first
        with_first = first[(case,)]
        assert abs(2 * with_first - n_readers) <= 1


def test_the_order_of_names_decides_nothing_and_the_seed_does():
    readers, cases = ["a", "b", "c", "d"], [f"c{i}" for i in range(12)]
    found = crossover(readers, cases, ARMS, 3)
    again = crossover(readers[::-1], cases[::-1], ARMS, 3)
    assert {r: found[r] for r in readers} == {r: again[r] for r in readers}
    assert crossover(readers, cases, ARMS, 4) != found
    orders = {tuple(s.case for s in slots if s.session == 1) for slots in found.values()}
    assert len(orders) == 4  # an order of their own


def test_the_wash_out_counts_from_the_last_reading_of_the_first_session():
    slots = crossover(["ann"], ["x", "y", "z"], ARMS, 0)["ann"]
    done: dict[tuple[int, str], float] = {}
    for i in range(3):
        slot = next_slot(slots, done, 28, i * DAY)
        assert slot == slots[i]
        done[1, slot.case] = i * DAY
    assert next_slot(slots, done, 28, 30 * DAY - 1) == Waiting(30 * DAY)
    assert next_slot(slots, done, 28, 30 * DAY) == slots[3]
    for slot in slots[3:]:
        done[2, slot.case] = 40 * DAY
    assert next_slot(slots, done, 28, 41 * DAY) is None


@pytest.mark.parametrize(
    ("readers", "cases", "arms", "diseased", "message"),
    [
        ([], ["a", "b"], ARMS, [], "one reader"),
        (["r"], ["a"], ARMS, [], "two cases"),
        (["r", "r"], ["a", "b"], ARMS, [], "different readers"),
        (["r"], ["a", "a"], ARMS, [], "different cases"),
        (["r"], ["a", "b"], ("x", "x"), [], "different arms"),
        (["r", ""], ["a", "b"], ARMS, [], "with a name"),
        (["r"], ["a", "b"], ARMS, ["c"], "no case"),
    ],
)
def test_what_is_no_study_is_refused(readers, cases, arms, diseased, message):
    with pytest.raises(InputError, match=message):
        crossover(readers, cases, arms, 0, with_lesions=diseased)
