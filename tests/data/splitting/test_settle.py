"""Cuts over several sources: no patient and no image on two sides, official splits kept, leaks refused or told."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.data.splitting.groups import Rows
from twinray.data.splitting.record import check_disjoint
from twinray.data.splitting.settle import Fold, settle
from twinray.errors import InputError

OFFICIAL = {
    "none": [None],
    "train only": ["train"],
    "train, test": ["train", "train", "test"],
    "all": ["train", "train", "val", "test"],
    "train, test, some without": ["train", "test", None, None],
    "test only": ["test"],
}


def rows_of(
    patients: list[str | None],
    official: list[str | None],
    collection: list[int] | None = None,
    twins: list[int] | None = None,
    blank: list[bool] | None = None,
) -> Rows:
    n = len(patients)
    return Rows(
        ids=[f"i{i:04}" for i in range(n)],
        patients=patients,
        official=official,
        collection=np.array(collection if collection is not None else [0] * n, dtype=np.int64),
        labels=None,
        twins=np.array(twins if twins is not None else range(n), dtype=np.int64),
        blank=np.array(blank if blank is not None else [False] * n, dtype=np.bool_),
    )


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[Rows, list[str]]:
    kinds = draw(st.lists(st.sampled_from(sorted(OFFICIAL)), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = int(rng.integers(10, 90))
    collection = np.sort(rng.integers(0, len(kinds), n))
    people = int(rng.integers(3, 80))
    patients = [None if rng.random() < 0.15 else f"p{rng.integers(people)}" for _ in range(n)]
    official = [OFFICIAL[kinds[k]][rng.integers(len(OFFICIAL[kinds[k]]))] for k in collection]
    if draw(
        st.booleans()
    ):  # sources whose own splits are free of leaks: a patient's images follow the first
        of_patient: dict[str, str] = {}
        for i, patient in enumerate(patients):
            if patient and official[i]:
                official[i] = of_patient.setdefault(patient, official[i])
    twins = np.arange(n)
    for i in range(1, n):
        if rng.random() < 0.1:
            twins[i] = twins[rng.integers(i)]
    blank = (twins % 7 == 0).tolist()
    labels = (
        None
        if rng.random() < 0.3
        else rng.choice([0.0, 1.0, -1.0, np.nan], (n, 2)).astype(np.float32)
    )
    rows = rows_of(patients, official, collection.tolist(), twins.tolist(), blank)
    return Rows(
        rows.ids, rows.patients, rows.official, rows.collection, labels, rows.twins, rows.blank
    ), kinds


@settings(max_examples=300, deadline=None)
@given(
    mixtures(), st.sampled_from([(0.1, 0.2), (0.2, 0.0), (0.0, 0.3), (0.0, 0.0)]), st.integers(0, 3)
)
def test_no_patient_and_no_image_is_on_two_sides_of_a_cut(
    mixture: tuple[Rows, list[str]], shares: tuple[float, float], seed: int
) -> None:
    rows, kinds = mixture
    try:
        settled = settle(rows, kinds, *shares, seed)
    except InputError:  # what may be refused, and how it is told, has tests of its own
        return
    splits = settled.splits
    assert settle(rows, kinds, *shares, seed) == settled
    assert set(splits) <= {"train", "val", "test"}
    wanted = {split for split, share in zip(("val", "test"), shares, strict=True) if share}
    of_source: dict[int, set[str | None]] = defaultdict(set)
    for k, official in zip(rows.collection.tolist(), rows.official, strict=True):
        of_source[k].add(official)
    for k, official, split in zip(rows.collection.tolist(), rows.official, splits, strict=True):
        if official in ("val", "test"):
            assert split == official
        if official == "train" and split != "train":
            assert split in wanted - of_source[k]
    for keys in (
        rows.patients,
        [None if b else f"t{t}" for t, b in zip(rows.twins, rows.blank, strict=True)],
    ):
        members: dict[str, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            if key:
                members[key].append(i)
        for own in members.values():
            if (
                len({splits[i] for i in own}) > 1
            ):  # then the sources themselves have it on several sides
                assert len({rows.official[i] for i in own} - {None}) > 1


def test_sources_without_splits_are_cut_without_leaks_or_refusal() -> None:
    """Where no source has splits of its own, nothing can be refused but too few patients."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        n = 200
        patients = [f"p{rng.integers(60)}" for _ in range(n)]
        settled = settle(
            rows_of(patients, [None] * n, np.sort(rng.integers(0, 3, n)).tolist()),
            "abc",
            0.1,
            0.2,
            0,
        )
        check_disjoint(patients, settled.splits)
        assert not settled.notes
        assert 30 <= settled.splits.count("test") <= 50
        assert settled.method.startswith("cut by patient")


def test_every_source_gets_its_share_of_a_common_cut() -> None:
    n_of = (300, 100)
    collection = [k for k, n in enumerate(n_of) for _ in range(n)]
    patients = [f"{k}/p{i // 2}" for k, n in enumerate(n_of) for i in range(n)]
    splits = settle(rows_of(patients, [None] * 400, collection), "ab", 0.1, 0.2, 0).splits
    for k, n in enumerate(n_of):
        own = [split for split, of in zip(splits, collection, strict=True) if of == k]
        assert own.count("val") == pytest.approx(0.1 * n, abs=2)
        assert own.count("test") == pytest.approx(0.2 * n, abs=2)


def test_images_of_a_patient_in_an_official_test_split_elsewhere_go_there() -> None:
    patients = [f"p{i // 2}" for i in range(60)]
    official = ["train"] * 40 + ["val"] * 10 + ["test"] * 10 + [None] * 60
    settled = settle(rows_of(patients * 2, official, [0] * 60 + [1] * 60), "ab", 0.1, 0.2, 0)
    assert settled.splits[:60] == official[:60]
    assert settled.splits[60:] == official[:60]
    assert settled.method == "a: official; b: official in other sources"
    assert settled.notes == [
        "b: 20 images went to the split that another source has for their patient or pixels"
    ]


def test_training_images_tied_to_test_images_are_not_cut_out_for_validation() -> None:
    official = ["train"] * 40 + ["test"] * 10
    twins = [*range(40), *range(10)]
    settled = settle(
        rows_of([f"p{i}" for i in range(50)], official, twins=twins), "a", 0.25, 0.2, 0
    )
    assert settled.splits[:10] == ["train"] * 10
    assert settled.splits[10:40].count("val") in (7, 8)
    assert settled.splits[40:] == official[40:]


def test_leaks_of_the_sources_own_splits_are_a_warning() -> None:
    settled = settle(
        rows_of(["p", "q", "p", "r"], ["train", "train", "test", "test"]), "a", 0.0, 0.2, 0
    )
    assert settled.splits == ["train", "train", "test", "test"]
    assert [note.split(" (")[0] for note in settled.notes] == ["WARNING: 1 patient"]
    settled = settle(
        rows_of(["p", "p", "q"], ["train", "test", "train"], [0, 0, 1]), "ab", 0.0, 0.0, 0
    )
    assert "the sources' own" in settled.notes[0]


def test_images_tied_to_two_official_sides_are_refused_without_names() -> None:
    rows = rows_of(
        ["Ann", "Bob", "Eve", "Eve"], ["train", "test", None, None], [0, 0, 1, 1], [0, 1, 0, 1]
    )
    with pytest.raises(
        InputError, match="got 1 groups of identical images on several sides"
    ) as caught:
        settle(rows, "ab", 0.0, 0.2, 0)
    assert not any(name in str(caught.value) for name in ("Ann", "Bob", "Eve"))
    with pytest.raises(
        InputError, match="got 1 groups of identical"
    ):  # one image of both: its own patient and a twin
        settle(
            rows_of(["Ann", "Bob", "Bob"], ["train", "test", None], twins=[0, 1, 0]),
            "a",
            0.0,
            0.2,
            0,
        )


def test_images_go_where_they_are_tied_to_directly() -> None:
    rows = rows_of(["p", "p", "q"], ["train", "test", None], [0, 0, 1], [0, 1, 0])
    settled = settle(rows, "ab", 0.0, 0.0, 0)
    assert settled.splits == ["train", "test", "train"]
    assert settled.notes[0].startswith("WARNING: 1 patient")


def test_a_pack_without_the_splits_asked_for_is_refused_and_a_small_source_is_told() -> None:
    with pytest.raises(
        InputError, match=r"at least 3 patients to cut train, val, test, got 2.*--val 0"
    ):
        settle(rows_of(["p", "q"], [None, None]), "a", 0.1, 0.2, 0)
    with pytest.raises(
        InputError,
        match=r"expected training images to cut val out of, got 1 of which every.*--val 0",
    ):
        settle(rows_of(["p", "p"], ["train", "test"]), "a", 0.1, 0.2, 0)
    official = ["train", "val", "test", None]
    settled = settle(rows_of(["p", "q", "r", "s"], official, [0, 0, 0, 1]), "ab", 0.1, 0.2, 0)
    assert settled.splits == ["train", "val", "test", "train"]
    assert settled.notes == [
        "1 image is of too few patients to cut other splits out of: it is for training"
    ]


def test_the_order_of_sources_that_lack_different_splits_leaks_nothing() -> None:
    """A lacks both, B lacks validation: its images of C's validation patients follow them; C lacks test."""
    patients = (
        [f"p{i}" for i in range(100)] + [f"p{i}" for i in range(50)] + [f"p{i}" for i in range(20)]
    )
    official = [None] * 100 + ["train"] * 40 + ["test"] * 10 + ["train"] * 10 + ["val"] * 10
    rows = rows_of(patients, official, [0] * 100 + [1] * 50 + [2] * 20)
    settled = settle(rows, "abc", 0.2, 0.2, 0)
    side = dict(zip(patients, settled.splits, strict=True))
    assert settled.splits == [side[patient] for patient in patients]
    assert {side[f"p{i}"] for i in range(10)} == {
        "train"
    }  # B has test, C has validation images of its own
    assert [side[f"p{i}"] for i in range(10, 20)] == ["val"] * 10
    assert {side[f"p{i}"] for i in range(20, 40)} == {"train", "val"}
    assert [side[f"p{i}"] for i in range(40, 50)] == ["test"] * 10
    assert {side[f"p{i}"] for i in range(50, 100)} == {"train", "val", "test"}


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(20, 90), st.integers(0, 3))
def test_folds_test_every_image_once_and_no_patient_twice(of: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed * 1000 + n)
    patients = [None if rng.random() < 0.1 else f"p{rng.integers(n // 2 + 6)}" for _ in range(n)]
    rows = rows_of(patients, [None] * n)
    tested: dict[int, int] = {}
    for number in range(of):
        settled = settle(rows, ["all"], 0.2, 1 / of, seed, Fold(number, of))
        check_disjoint(patients, settled.splits)
        assert f"fold {number} of {of}" in settled.method
        assert {"train", "val", "test"} == set(settled.splits)
        for i in (i for i, split in enumerate(settled.splits) if split == "test"):
            assert i not in tested
            tested[i] = number
    assert len(tested) == n
    of_patient: dict[str, set[int]] = defaultdict(set)
    for i, number in tested.items():
        if patients[i]:
            of_patient[patients[i]].add(number)
    assert all(len(numbers) == 1 for numbers in of_patient.values())


def test_folds_of_a_source_with_a_test_split_are_refused() -> None:
    rows = rows_of(["p", "q", "r", "s"], ["train", "train", "test", "train"])
    with pytest.raises(
        InputError, match="without a val or test split of their own to cut 2 folds, a has one"
    ):
        settle(rows, "a", 0.0, 0.5, 0, Fold(0, 2))
    rows = rows_of(["p", "q", "r", "s"], ["train", "val", None, None])
    with pytest.raises(InputError, match="without a val or test split"):
        settle(rows, "a", 0.0, 0.5, 0, Fold(0, 2))


def test_more_folds_than_patients_are_refused_in_one_line() -> None:
    rows = rows_of(["p", "q", "r"], [None] * 3)
    with pytest.raises(InputError, match=r"too few patients for 4 folds, got 3; lower --folds$"):
        settle(rows, "a", 0.0, 0.25, 0, Fold(0, 4))
    told = "too few patients for 3 folds and val images, got 2; lower --folds, or set --val 0"
    with pytest.raises(InputError, match=told):
        settle(rows_of(["p", "q"], [None] * 2), "a", 0.3, 1 / 3, 0, Fold(0, 3))
