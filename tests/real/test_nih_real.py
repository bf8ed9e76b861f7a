"""NIH ChestX-ray14's whole tables, as the torchxrayvision wheel ships them, and 680 real images."""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.nih import read_nih


def test_the_whole_tables():
    spec = importlib.util.find_spec("torchxrayvision")
    root = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if root is None or not (root / "Data_Entry_2017_v2020.csv.gz").exists():
        pytest.skip("torchxrayvision, whose wheel ships NIH's tables, is not installed")
    collection = read_nih(root, need_images=False)
    assert len(collection.samples) == 112_120 and not collection.skipped
    assert len({sample.patient for sample in collection.samples}) == 30_805
    boxed = [sample for sample in collection.samples if sample.boxes is not None]
    assert len(boxed) == 880 and sum(len(sample.boxes) for sample in boxed) == 984
    assert all(sample.patient == str(int(sample.id.split("_")[0])) for sample in collection.samples)
    assert all(sample.labels.any() for sample in collection.samples)
    for sample in boxed:  # every boxed finding is also a label of its image
        assert sample.labels[sample.boxes.labels].all(), sample.id


def test_680_images_are_packed_as_their_tables_say(real_data, tmp_path):
    root = real_data / "nih-cxr14"
    write_pack([read_nih(root)], tmp_path / "p", PackOptions(size=64), workers=1)
    pack = open_pack(tmp_path / "p")
    with (root / "Data_Entry_2017.csv").open(newline="") as file:
        rows = {row["Image Index"]: row for row in csv.DictReader(file)}
    test = set((root / "test_list.txt").read_text().split())
    ids, splits, patients = pack.ids.tolist(), pack.splits.tolist(), pack.patients.tolist()
    assert set(ids) == set(rows) and len(ids) == 680 and pack.info.skipped == 0
    assert {i for i, split in zip(ids, splits, strict=True) if split == "test"} == test
    of_patient = dict(zip(patients, splits, strict=True))
    assert all(
        of_patient[patient] == split for patient, split in zip(patients, splits, strict=True)
    )
    assert Counter(splits)["val"] > 0
    for i, name in enumerate(ids):
        found = {pack.info.label_classes[k] for k in np.flatnonzero(pack.labels[i] == 1)}
        assert (
            found == set(rows[name]["Finding Labels"].split("|"))
            and patients[i] == rows[name]["Patient ID"]
        )
    boxes = {name: pack.boxes(i) for i, name in enumerate(ids)}
    with (root / "BBox_List_2017.csv").open(newline="") as file:
        drawn = [row for row in list(csv.reader(file))[1:] if row]
    assert len(drawn) == 27 == sum(len(own) for own in boxes.values() if own is not None)
    for name, _, *sides in drawn:
        x, y, width, height = (float(side) / 1024 * 256 for side in sides[:4])
        close = np.abs(boxes[name].xyxy - [x, y, x + width, y + height]).max(axis=1) < 0.01
        assert close.any(), (name, sides)
