"""Splits and label fractions: patient-disjoint, nested, stratified, reproducible; records that can be reused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.data.splitting.cut import cut_splits, label_fraction
from twinray.data.splitting.record import (
    GivenSplits,
    SplitRecord,
    check_disjoint,
    patient_note,
    record_splits,
)
from twinray.errors import InputError

SHARES = np.array([0.4, 0.2, 0.1, 0.05, 0.01, 0.002])


def cohort(n=2000, seed=0, shares=SHARES, images_per_patient=2.0):
    """Patients with a few images each; labels that follow the patient."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(1 / images_per_patient, size=n) // 2
    patients = [f"p{number:05d}" for number, size in enumerate(sizes) for _ in range(size)][:n]
    of_patient = rng.random((n, len(shares))) < shares * 1.5
    number = np.array([int(p[1:]) for p in patients])
    labels = (of_patient[number] & (rng.random((n, len(shares))) < 0.667)).astype(np.float32)
    return patients, labels


def grain(patients, labels):
    """Images of a label that one patient with that label has on average."""
    _, group = np.unique(patients, return_inverse=True)
    per = np.stack([np.bincount(group, column) for column in labels.T], axis=1)
    return per.sum(0) / np.maximum((per > 0).sum(0), 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cut_keeps_shares_and_patients(seed):
    patients, labels = cohort(seed=seed)
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    splits = np.array(cut_splits(patients, labels, fractions, seed))
    check_disjoint(patients, splits.tolist())
    for name, share in fractions.items():
        rows = splits == name
        assert abs(rows.sum() - share * len(patients)) <= 0.02 * len(patients)
        expected = labels.sum(0) * share
        slack = np.maximum(0.1 * expected, grain(patients, labels))
        assert (np.abs(labels[rows].sum(0) - expected) <= slack).all(), (
            name,
            labels[rows].sum(0),
            expected,
        )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "", *"abcdefgh"]), st.integers(0, 7)),
        min_size=12,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_any_cohort_is_cut_by_patient(rows, seed):
    patients = [patient for patient, _ in rows]
    labels = np.array([[bits >> k & 1 for k in range(3)] for _, bits in rows], dtype=np.float32)
    if len({p for p in patients if p}) + sum(not p for p in patients) < 3:
        with pytest.raises(InputError, match="patients"):
            cut_splits(patients, labels, seed=seed)
        return
    splits = cut_splits(patients, labels, seed=seed)
    check_disjoint(patients, splits)
    assert set(splits) == {"train", "val", "test"}
    assert splits == cut_splits(patients, labels, seed=seed)
    taken: set[int] = set()
    for fraction in (0.01, 0.1, 0.3, 0.7, 1.0):
        chosen = label_fraction(patients, labels, fraction, seed)
        assert len(chosen) and taken <= set(chosen.tolist())
        taken = set(chosen.tolist())
        check_disjoint(patients, ["in" if row in taken else "out" for row in range(len(patients))])
    assert len(taken) == len(patients)


@pytest.mark.parametrize("seed", [0, 1])
def test_order_of_rows_does_not_matter_where_patients_are_known(seed):
    patients, labels = cohort(300)
    shuffle = np.random.default_rng(seed).permutation(300)
    there = [patients[row] for row in shuffle]
    splits = cut_splits(patients, labels, seed=seed)
    assert cut_splits(there, labels[shuffle], seed=seed) == [splits[row] for row in shuffle]
    chosen = label_fraction(patients, labels, 0.2, seed)
    assert set(shuffle[label_fraction(there, labels[shuffle], 0.2, seed)]) == set(chosen)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fractions_are_nested_stratified_and_show_every_class(seed):
    patients, labels = cohort(4000, seed=seed)
    before: set[int] = set()
    for fraction in (0.01, 0.02, 0.1, 0.5, 1.0):
        chosen = label_fraction(patients, labels, fraction, seed)
        assert (np.diff(chosen) > 0).all() and before <= set(chosen.tolist())
        before = set(chosen.tolist())
        assert abs(len(chosen) - fraction * 4000) <= 3
        seen = labels[chosen].sum(0)
        assert (seen[labels.sum(0) > 0] > 0).all(), (fraction, seen)
        expected = labels.mean(0) * len(chosen)
        assert (
            np.abs(seen - expected) <= np.maximum(0.1 * expected, grain(patients, labels))
        ).all()
    different = label_fraction(patients, labels, 0.1, seed + 100)
    assert set(different.tolist()) != set(label_fraction(patients, labels, 0.1, seed).tolist())


def test_fractions_do_not_prefer_patients_with_few_images():
    rng = np.random.default_rng(0)
    patients = [f"p{number}" for number in range(400) for _ in range(rng.integers(1, 12))]
    labels = (rng.random((len(patients), 4)) < 0.3).astype(np.float32)
    chosen = label_fraction(patients, labels, 0.1)
    typical = len(patients) / 400
    assert 0.7 * typical <= len(chosen) / len({patients[row] for row in chosen}) <= 1.4 * typical


def test_uncertain_and_unstated_labels_count_as_not_present():
    patients, labels = cohort(500)
    hidden = labels.copy()
    hidden[hidden == 0] = np.random.default_rng(0).choice(
        [0.0, -1.0, np.nan], size=int((hidden == 0).sum())
    )
    assert cut_splits(patients, hidden) == cut_splits(patients, labels)
    np.testing.assert_array_equal(
        label_fraction(patients, hidden, 0.1), label_fraction(patients, labels, 0.1)
    )


def test_without_labels_numbers_of_images_are_balanced():
    patients, _ = cohort(1000)
    splits = cut_splits(patients, None)
    assert abs(splits.count("test") - 200) <= 5
    assert abs(len(label_fraction(patients, None, 0.1)) - 100) <= 3


def test_patient_on_two_sides_is_named():
    with pytest.raises(InputError, match="got 1 in several: b;"):
        check_disjoint(
            ["a", "b", "b", None, None, "c", "c"],
            ["train", "train", "test", "train", "test", "val", None],
        )


def test_unknown_patients_are_told():
    assert patient_note(["a", "b"]) is None
    assert "no patient ids" in (patient_note([None, ""]) or "")
    assert "1 of 2 images" in (patient_note(["a", None]) or "")


@pytest.mark.parametrize(
    "call",
    [
        lambda p, y: cut_splits(p, y, {"train": 0.7, "test": 0.2}),
        lambda p, y: cut_splits(p, y, {"train": 1.0, "test": 0.0}),
        lambda p, y: cut_splits(p, y, {}),
        lambda p, y: cut_splits(p, y[:-1]),
        lambda p, y: cut_splits(p[:2], y[:2]),
        lambda p, y: label_fraction(p, y, 0.0),
        lambda p, y: label_fraction(p, y, 1.5),
        lambda p, y: label_fraction(p, y, float("nan")),
        lambda p, y: label_fraction([], y[:0], 0.5),
        lambda p, y: check_disjoint(p, ["train"]),
    ],
)
def test_bad_input_is_refused_in_one_line(call):
    patients, labels = cohort(50)
    with pytest.raises(InputError) as caught:
        call(patients, labels)
    assert "\n" not in str(caught.value)


def a_record(patients, labels, splits, seed=4):
    return record_splits(
        [f"{row:04d}.png" for row in range(len(patients))],
        patients,
        labels,
        splits,
        label_classes=[f"label {k}" for k in range(labels.shape[1])],
        method="iterative stratification by patient",
        seed=seed,
        fractions={"train": 0.7, "val": 0.1, "test": 0.2},
    )


def test_record_round_trip_and_reuse(tmp_path):
    patients, labels = cohort(200)
    splits = cut_splits(patients, labels, seed=4)
    record = a_record(patients, labels, splits)
    assert record.patients_known and record.notes == []
    assert sum(record.images.values()) == 200 and record.images["test"] == splits.count("test")
    assert sum(side["label 0"] for side in record.label_counts.values()) == labels[:, 0].sum()
    assert sum(record.patients.values()) == len(set(patients))
    record.write(tmp_path / "split.json")
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]
    again = SplitRecord.read(tmp_path / "split.json")
    assert again == record
    given = GivenSplits.read(tmp_path / "split.json")
    assert [given.split_of[f"{row:04d}.png"] for row in range(200)] == splits


def test_given_splits_may_have_any_usual_name(tmp_path):
    labels = np.zeros((3, 1), dtype=np.float32)
    a_record(["a", "b", "c"], labels, ["Training", "validation", "test"]).write(tmp_path / "s.json")
    assert sorted(GivenSplits.read(tmp_path / "s.json").split_of.values()) == [
        "test",
        "train",
        "val",
    ]
    a_record(["a", "b", "c"], labels, ["train", "holdout", None]).write(tmp_path / "s.json")
    with pytest.raises(InputError, match="expected the splits train, val and test, got holdout"):
        GivenSplits.read(tmp_path / "s.json")


def test_record_of_a_fraction_and_of_unknown_patients():
    _, labels = cohort(100)
    chosen = set(label_fraction([None] * 100, labels, 0.1).tolist())
    record = a_record(
        [None] * 100, labels, ["train" if row in chosen else None for row in range(100)]
    )
    assert (
        record.images == {"train": len(chosen), "val": 0, "test": 0} and not record.patients_known
    )
    assert "no patient ids" in record.notes[0]


def test_record_refuses_leaks_and_doubles(tmp_path):
    labels = np.zeros((2, 1), dtype=np.float32)
    with pytest.raises(InputError, match="several: a"):
        a_record(["a", "a"], labels, ["train", "test"])
    record = a_record(["a", "b"], labels, ["train", "test"])
    record.write(tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    for broken in (
        "{",
        "[]",
        json.dumps({"ids": {}}),
        json.dumps(content | {"ids": {"train": [1]}}),
        json.dumps(content | {"seed": "0"}),
        json.dumps(content | {"notes": [1]}),
        json.dumps(content | {"format": "x"}),
    ):
        (tmp_path / "s.json").write_text(broken)
        with pytest.raises(InputError, match=r"s\.json"):
            SplitRecord.read(tmp_path / "s.json")
    (tmp_path / "s.json").write_text(json.dumps(content | {"ids": {"train": ["x"], "test": ["x"]}}))
    with pytest.raises(InputError, match="several: x"):
        SplitRecord.read(tmp_path / "s.json")
    with pytest.raises(InputError, match=r"none\.json"):
        SplitRecord.read(tmp_path / "none.json")
