"""How uncertain and blank labels and "No Finding" are read: the rules, through the command line, and on CheXpert's real rows."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twinray.data.pack import open_pack
from twinray.data.readers.chexpert import APART, LABELS, NO_FINDING, read_chexpert
from twinray.data.readers.label_readings import LabelReading, LabelTable

P, A, U, N = 1.0, 0.0, -1.0, float("nan")
CLASSES = ("No Finding", "Edema", "Mass", "Support Devices")
READINGS = [
    LabelReading(*choice)
    for choice in itertools.product(("ignore", "zero", "one"), ("unknown", "zero"), ("implies", "alone"))
]  # fmt: skip


def read(stated: list[float], **choice: str) -> list[float | None]:
    labels = LabelReading(**choice).read(
        np.array(stated, dtype=np.float32), CLASSES, "No Finding", ("Support Devices",)
    )
    return [None if np.isnan(value) else float(value) for value in labels]


@pytest.mark.parametrize(
    ("choice", "stated", "expected"),
    [
        ({}, [P, N, N, P], [P, A, A, P]),
        ({}, [P, N, N, N], [P, A, A, None]),
        ({}, [N, P, N, N], [A, P, None, None]),
        ({}, [N, U, N, P], [None, U, None, P]),
        ({}, [N, N, N, P], [None, None, None, P]),
        ({}, [N, N, N, N], [None] * 4),
        ({"no_finding": "alone"}, [P, N, N, N], [P, None, None, None]),
        ({"uncertain": "one"}, [N, U, N, N], [A, P, None, None]),
        ({"uncertain": "zero"}, [N, U, N, N], [None, A, None, None]),
        ({"blank": "zero"}, [N, U, N, P], [A, U, A, P]),
        ({"blank": "zero"}, [N, N, N, N], [None] * 4),
    ],
)
def test_rules(choice, stated, expected):
    assert read(stated, **choice) == expected


@given(
    stated=st.lists(st.sampled_from((P, A, U, N)), min_size=4, max_size=4),
    which=st.sampled_from(READINGS),
)
def test_no_reading_takes_back_what_is_stated(stated, which):
    before = np.array(stated, dtype=np.float32)
    after = which.read(before, CLASSES, "No Finding", ("Support Devices",))
    stays = (before == P) | (before == A)
    assert (after[stays] == before[stays]).all()
    assert set(after[~np.isnan(after)].tolist()) <= {P, A, U}
    if which.uncertain != "ignore":
        assert not (after == U).any()


def test_through_the_command_line(cli, tmp_path):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for i in range(10):
            path = f"train/patient{i:05d}/study1/view1_frontal.jpg"
            values = dict.fromkeys(LABELS, "") | (
                {NO_FINDING: "1.0"} if i < 4 else {"Edema": "1.0", "Mass": ""}
            )
            rows.writerow([path, "Male", "50", "Frontal", "AP", *(values[name] for name in LABELS)])
            (tmp_path / path).parent.mkdir(parents=True)
            Image.fromarray(
                np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
            ).save(tmp_path / path)
    words = ("pack", tmp_path, "--format", "chexpert", "--size", 16, "--workers", 1)
    found = {}
    for choice in ("implies", "alone"):
        status, out, err = cli(*words, "--no-finding", choice, "--out", tmp_path / choice)
        assert status == 0, err
        assert f"--no-finding {choice}" in " ".join(out.split())
        labels = open_pack(tmp_path / choice).labels[:, LABELS.index(NO_FINDING)]
        found[choice] = (int((labels == 1).sum()), int((labels == 0).sum()))
    assert found == {"implies": (4, 6), "alone": (4, 0)}


# --- CheXpert's real rows ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_rows(tmp_path_factory) -> Path:
    """A folder with CheXpert's ``train.csv``, as the torchxrayvision wheel ships it."""
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "chexpert_train.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships CheXpert's training rows, is not installed")
    folder = tmp_path_factory.mktemp("chexpert")
    (folder / "train.csv").write_bytes(gzip.decompress(path.read_bytes()))
    return folder


def in_the_document() -> dict[str, list[int]]:
    """Observation -> the numbers of its row in the data sheet."""
    text = (Path(__file__).parents[3] / "docs" / "pack-format.md").read_text("utf-8")
    cells = {
        row.split("|")[1].strip(): row.split("|")[2:-1]
        for row in text.splitlines()
        if row.startswith("| ")
    }
    return {name: [int(re.sub(r"\D", "", cell)) for cell in cells[name]] for name in LABELS}


def independent(
    rows: list[dict[str, str]], uncertain: str, blank: str, implied: bool
) -> Counter[tuple[str, str]]:
    """Counts of (observation, value), by text, without the package's reader."""
    counts: Counter[tuple[str, str]] = Counter()
    findings = [name for name in LABELS if name not in (NO_FINDING, *APART)]
    for row in rows:
        value = {name: {"1.0": "1", "0.0": "0", "-1.0": "u", "": ""}[row[name]] for name in LABELS}
        if not any(value.values()):
            counts.update((name, "") for name in LABELS)
            continue
        for name in LABELS:
            if value[name] == "u" and uncertain:
                value[name] = uncertain
        if implied and value[NO_FINDING] == "1":
            value |= {name: "0" for name in findings if not value[name]}
        elif implied and not value[NO_FINDING] and any(value[name] == "1" for name in findings):
            value[NO_FINDING] = "0"
        counts.update((name, value[name] or blank) for name in LABELS)
    return counts


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_counts_of_each_reading_are_those_of_the_data_sheet(real_rows):
    with (real_rows / "train.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Frontal/Lateral"] == "Frontal"]
    assert len(rows) == 191_027
    told = in_the_document()
    choices = [
        (LabelReading(no_finding="alone"), ("", "", False), ("1", "0", "u", "")),
        (LabelReading(), ("", "", True), ("0", "")),
        (LabelReading(uncertain="one"), ("1", "", True), ("1", "0")),
        (LabelReading(uncertain="zero", blank="zero"), ("0", "0", True), ("1", "0")),
    ]
    expected: dict[str, list[int]] = {name: [] for name in LABELS}
    for reading, by_hand, shown in choices:
        own = independent(rows, *by_hand)
        found = read_chexpert(real_rows, reading=reading, need_images=False)
        labels = np.stack([sample.labels for sample in found.samples])
        assert labels.shape == (191_027, 14)
        for k, name in enumerate(LABELS):
            column = labels[:, k]
            for value in shown:
                n = int(
                    np.isnan(column).sum()
                    if value == ""
                    else (column == {"1": 1, "0": 0, "u": -1}[value]).sum()
                )
                assert n == own[name, value], (name, reading, value)
                expected[name].append(n)
    assert told == expected


@pytest.mark.parametrize("beside", [P, U])
@pytest.mark.parametrize("uncertain", ["ignore", "zero", "one"])
def test_a_row_that_contradicts_itself_implies_nothing(beside, uncertain):
    classes = ("No Finding", "Edema", "Fracture", "Support Devices")
    reading = LabelReading(uncertain=uncertain)
    stated = np.array([P, beside, N, P], dtype=np.float32)
    read = reading.read(stated, classes, "No Finding", ("Support Devices",))
    assert read[0] == P and np.isnan(read[2])
    consistent = np.array([P, N, A, P], dtype=np.float32)
    assert reading.read(consistent, classes, "No Finding", ("Support Devices",))[1] == A
    table = LabelTable(classes, "No Finding", ("Support Devices",), reading)
    told = " ".join(
        table.notes([table.vector(("1.0", "-1.0", "", "")), table.vector(("1", "", "", "1"))])
    )
    assert "1 image is labelled 'No Finding' beside a finding" in told
