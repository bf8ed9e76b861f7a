"""Readers against readers: by hand, by properties, and on VinDr-CXR's rows."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from twinray.data.fusion import fuse_by_image
from twinray.errors import InputError
from twinray.evaluation.boxes import FrocRule, evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.readers.ceiling import (
    detector_at_readers,
    detector_froc,
    reader_figures,
    readings_of,
)
from twinray.records import Boxes

FEW = Resampling(n=40)


def drawn(*rows):
    """Boxes (left, class, reader), all of 10 x 10 pixels."""
    return Boxes(
        np.array([[x, 0, x + 10, 10] for x, _, _ in rows], dtype=float).reshape(-1, 4),
        np.array([c for _, c, _ in rows], dtype=np.int64),
        readers=tuple(r for _, _, r in rows),
    )


IMAGES = {
    "1": drawn((0, 0, "ann"), (1, 0, "bob"), (2, 0, "cid"), (50, 0, "cid")),
    "2": drawn((0, 0, "ann"), (0, 1, "bob")),
    "3": drawn(),
    "4": drawn((0, 0, "ann")),
}
READ = {"1": ["ann", "bob", "cid"], "2": ["ann", "bob"], "3": ["ann", "bob"], "4": ["ann"]}


def test_a_small_case_by_hand():
    readings = readings_of(IMAGES, fuse_by_image, READ)
    assert readings.whole and readings.readers == ("ann", "bob", "cid")
    assert len(readings.keys) == 7  # image 4 was read by ann alone
    everyone, ann, bob, cid = reader_figures(readings, ["x", "y"], resampling=FEW)
    # ann: image 1 bob and cid fused at 0 hit, box at 50 missed; image 2 bob's class missed, her own wrong; image 3 nothing
    assert (ann.n_readings, ann.n_boxes, ann.n_drawn) == (3, 3, 2)
    assert ann.sensitivity.value == pytest.approx(1 / 3)
    assert ann.false_positives.value == pytest.approx(1 / 3)
    assert (cid.n_readings, cid.n_boxes) == (1, 1)
    assert cid.sensitivity.value == 1 and cid.false_positives.value == 1
    parts = (ann, bob, cid)
    total = sum(p.sensitivity.value * p.n_boxes for p in parts) / sum(p.n_boxes for p in parts)
    assert everyone.sensitivity.value == pytest.approx(total)
    assert everyone.n_readings == 7 and everyone.area is not None
    assert all(p.merit == "wafroc1" for p in parts)  # hardly an image without boxes


def test_who_read_and_drew_nothing_must_be_known():
    readings = readings_of(IMAGES, fuse_by_image)
    assert not readings.whole and len(readings.keys) == 5  # image 3 is nobody's
    assert all(one.area is None for one in reader_figures(readings, ["x", "y"], resampling=FEW))


def test_a_readers_own_boxes_are_never_its_truth():
    rng = np.random.default_rng(0)
    boxes = {
        str(i): drawn(*((float(rng.uniform(0, 300)), 0, r) for r in ("ann", "bob", "cid")))
        for i in range(20)
    }
    moved = {
        name: Boxes(
            own.xyxy + np.where(np.array(own.readers) == "ann", 1000, 0)[:, None],
            own.labels,
            readers=own.readers,
        )
        for name, own in boxes.items()
    }
    truths = [
        {
            (r.image[k], r.reader[k]): r.truth[k].xyxy.tolist()
            for k in r.keys
            if r.reader[k] == "ann"
        }
        for r in (readings_of(boxes, fuse_by_image), readings_of(moved, fuse_by_image))
    ]
    assert truths[0] == truths[1]


def test_a_detector_that_draws_what_a_reader_draws_is_that_reader():
    readings = readings_of(IMAGES, fuse_by_image, READ)
    of_bob = {
        readings.image[k]: readings.drawn[k] for k in readings.keys if readings.reader[k] == "bob"
    }
    by_name = {
        one.name: one for one in detector_at_readers(readings, of_bob, ["x", "y"], resampling=FEW)
    }
    assert by_name["bob"].difference.value == pytest.approx(0)
    assert by_name["bob"].difference.ci95 == pytest.approx((0, 0))


def test_the_detectors_sensitivity_is_that_of_froc():
    rng = np.random.default_rng(1)
    images, predictions = {}, {}
    for i in range(30):
        places = rng.uniform(0, 200, 2)
        images[str(i)] = drawn(
            *((float(p + rng.normal(0, 2)), 0, r) for p in places for r in ("ann", "bob"))
        )
        left = np.concatenate([places + rng.normal(0, 2, 2), rng.uniform(0, 200, 2)])
        predictions[str(i)] = Boxes(
            np.stack([left, np.zeros(4), left + 10, np.full(4, 10.0)], 1),
            np.zeros(4, dtype=np.int64),
            np.round(rng.uniform(0, 1, 4), 2),
        )
    readings = readings_of(images, fuse_by_image)
    found = detector_at_readers(readings, predictions, ["x"], resampling=FEW)[0]
    report = evaluate_boxes(
        readings.truth,
        {k: predictions[readings.image[k]] for k in readings.keys},
        ["x"],
        resampling=Resampling(n=0),
    )
    rates = (0.125, 0.25, 0.5, 1.0, 2.0)
    curve = detector_froc(readings, predictions, ["x"], rates=rates, resampling=FEW)
    for rate, figure in curve.items():
        of = report.all_images.metrics[f"froc@{rate:g}"]
        assert figure.value == pytest.approx(of.value, abs=1e-12)
        assert figure.ci95[0] <= figure.value <= figure.ci95[1]
    at = [report.all_images.metrics[f"froc@{r}"].value for r in (0.125, 0.25, 0.5, 1, 2)]
    assert min(at) <= found.detector.value <= max(at)
    low, high = found.difference.ci95
    assert low <= found.difference.value <= high


def test_repeats_may_be_ignored():
    images = {"1": drawn((0, 0, "ann"), (1, 0, "bob"), (0, 0, "bob"))}
    readings = readings_of(images, fuse_by_image)
    for repeats, wrong in (("false-positive", 0.5), ("ignore", 0.0)):
        rule = FrocRule(repeats=repeats)
        everyone = reader_figures(readings, ["x"], rule=rule, resampling=FEW)[0]
        assert everyone.false_positives.value == wrong and everyone.sensitivity.value == 1


def test_patients_are_resampled_with_all_their_readings():
    readings = readings_of(IMAGES, fuse_by_image, READ)
    patients = dict.fromkeys(IMAGES, "one")
    whole = reader_figures(readings, ["x", "y"], patients, resampling=FEW)[0]
    assert whole.sensitivity.n == 1 and whole.sensitivity.ci95 is None


def test_what_cannot_be_told_is_refused():
    nameless = {"1": Boxes(np.array([[0.0, 0, 5, 5]]), np.array([0]))}
    with pytest.raises(InputError, match="do not say who drew them"):
        readings_of(nameless, fuse_by_image)
    with pytest.raises(InputError, match="'cid', who is not among those that read it"):
        readings_of(IMAGES, fuse_by_image, {"1": ["ann", "bob"]})
    with pytest.raises(InputError, match="two readers read"):
        readings_of({"1": IMAGES["4"]}, fuse_by_image)


@pytest.fixture(scope="module")
def vindr():
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "vinbigdata-train.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships VinDr-CXR's rows, is not installed")
    read, rows = defaultdict(set), defaultdict(list)
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            read[row["image_id"]].add(row["rad_id"])
            if row["class_name"] != "No finding":
                corners = [float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]
                rows[row["image_id"]].append((corners, int(row["class_id"]), row["rad_id"]))
    boxes = {
        image: Boxes(
            np.array([c for c, _, _ in rows[image]], dtype=float).reshape(-1, 4),
            np.array([label for _, label, _ in rows[image]], dtype=np.int64),
            readers=tuple(r for _, _, r in rows[image]),
        )
        for image in read
    }
    return boxes, read


def test_one_reader_of_vindr_against_the_other_two(vindr):
    boxes, read = vindr
    readings = readings_of(boxes, fuse_by_image, read)
    assert len(readings.keys) == 45_000 and len(readings.readers) == 17
    classes = [str(i) for i in range(14)]
    found = reader_figures(readings, classes, resampling=Resampling(n=8))
    everyone, each = found[0], found[1:]
    # counted by another program: 0.363 and 0.350
    assert everyone.sensitivity.value == pytest.approx(0.363, abs=0.003)
    assert everyone.false_positives.value == pytest.approx(0.350, abs=0.003)
    assert everyone.merit == "wafroc" and 0.5 < everyone.area.value < 1
    assert sum(one.n_readings for one in each) == 45_000
