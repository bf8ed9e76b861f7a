"""Splits on NIH ChestX-ray14's real labels and patients, as the torchxrayvision wheel ships them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from twinray.data.splitting.cut import cut_splits, label_fraction
from twinray.data.splitting.record import check_disjoint

TEST_LIST_IMAGES, TEST_LIST_PATIENTS = 25_596, 2_797


@pytest.fixture(scope="module")
def nih():
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "Data_Entry_2017_v2020.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip(
            "torchxrayvision, whose wheel ships NIH's Data_Entry_2017_v2020, is not installed"
        )
    with gzip.open(path, "rt", newline="") as file:
        rows = [
            (row["Patient ID"], row["Finding Labels"].split("|")) for row in csv.DictReader(file)
        ]
    names = sorted({name for _, found in rows for name in found})
    labels = np.array([[name in found for name in names] for _, found in rows], dtype=np.float32)
    assert labels.shape == (112_120, 15)
    return np.array([patient for patient, _ in rows]), labels


@pytest.fixture(scope="module")
def pool(nih):
    """As many images and roughly as many patients as the official test list (nine each)."""
    patients, labels = nih
    ids, sizes = np.unique(patients, return_counts=True)
    chosen = np.random.default_rng(0).permutation(ids[sizes >= 3])
    size_of = dict(zip(ids.tolist(), sizes.tolist(), strict=True))
    reached = np.cumsum([size_of[patient] for patient in chosen.tolist()])
    rows = np.flatnonzero(np.isin(patients, chosen[: np.searchsorted(reached, TEST_LIST_IMAGES)]))
    assert abs(len(rows) - TEST_LIST_IMAGES) < 200
    assert 0.8 < len(np.unique(patients[rows])) / TEST_LIST_PATIENTS < 1.3
    return patients[rows], labels[rows]


def assert_follows(whole, chosen, patients):
    """Every label's share in ``chosen`` rows within 10 % of the whole's, or within one patient's images."""
    _, group = np.unique(patients, return_inverse=True)
    per_patient = np.stack([np.bincount(group, column) for column in whole.T], axis=1)
    one_patient = per_patient.sum(0) / (per_patient > 0).sum(0)
    expected = whole.mean(0) * len(chosen)
    off = np.abs(whole[chosen].sum(0) - expected)
    assert (off <= np.maximum(0.1 * expected, one_patient)).all(), (off, expected, one_patient)


@pytest.mark.parametrize("seed", [0, 1])
def test_eighty_twenty(pool, seed):
    patients, labels = pool
    splits = np.array(cut_splits(patients.tolist(), labels, {"train": 0.8, "test": 0.2}, seed))
    check_disjoint(patients.tolist(), splits.tolist())
    assert abs((splits == "test").mean() - 0.2) < 0.005
    for name in ("train", "test"):
        assert_follows(labels, np.flatnonzero(splits == name), patients)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_and_ten_per_cent_of_the_eighty(pool, seed):
    patients, labels = pool
    splits = np.array(cut_splits(patients.tolist(), labels, {"train": 0.8, "test": 0.2}, seed))
    train = np.flatnonzero(splits == "train")
    one, ten = (
        train[label_fraction(patients[train].tolist(), labels[train], f, seed)] for f in (0.01, 0.1)
    )
    assert set(one) <= set(ten)
    assert abs(len(one) - 0.01 * len(train)) <= 10 and abs(len(ten) - 0.1 * len(train)) <= 20
    assert (labels[one].sum(0) > 0).all()
    for chosen in (one, ten):
        assert_follows(labels, chosen, patients)
        check_disjoint(
            patients[train].tolist(), np.where(np.isin(train, chosen), "in", "out").tolist()
        )


def test_all_of_nih(nih):
    patients, labels = nih
    splits = np.array(cut_splits(patients.tolist(), labels, seed=0))
    check_disjoint(patients.tolist(), splits.tolist())
    for name in ("train", "val", "test"):
        assert_follows(labels, np.flatnonzero(splits == name), patients)
