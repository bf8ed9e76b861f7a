"""The phantom: reproducible image by image, true boxes that bound what is drawn, patients, scanners, readers."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from twinray.data.phantom.anatomy import Pose, wires
from twinray.data.phantom.images import (
    CLASSES,
    PhantomConfig,
    describe,
    phantom_collection,
    render,
    true_boxes,
)
from twinray.errors import InputError

SMALL = PhantomConfig(images=300, size=96, seed=5)


@pytest.fixture(scope="module")
def samples():
    return list(phantom_collection(SMALL).samples)


def test_an_image_depends_on_seed_and_number_only():
    collection = phantom_collection(SMALL)
    fewer = phantom_collection(PhantomConfig(images=12, size=96, seed=5))
    backwards = {i: fewer.load(fewer.samples[i]).array for i in reversed(range(12))}
    for i, image in backwards.items():
        sample = collection.samples[i]
        np.testing.assert_array_equal(collection.load(sample).array, image)
        again = fewer.samples[i]
        assert (again.id, again.patient, dict(again.attributes)) == (
            sample.id,
            sample.patient,
            dict(sample.attributes),
        )
        np.testing.assert_array_equal(again.boxes.xyxy, sample.boxes.xyxy)
    assert any(
        not np.array_equal(image, render(PhantomConfig(images=12, size=96, seed=6), i))
        for i, image in backwards.items()
    )


def test_same_bytes_in_another_process():
    collection = pickle.loads(pickle.dumps(phantom_collection(SMALL)))
    code = (
        "import hashlib; from twinray.data.phantom.images import *;"
        "c = PhantomConfig(images=300, size=96, seed=5);"
        "print(hashlib.sha256(b''.join(render(c, i).tobytes() for i in (7, 3))).hexdigest(), 'torch' in __import__('sys').modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    here = b"".join(collection.load(collection.samples[i]).array.tobytes() for i in (7, 3))
    assert out == [hashlib.sha256(here).hexdigest(), "False"]


def test_samples_fit_the_contract(samples):
    collection = phantom_collection(SMALL)
    assert (len(collection.samples), collection.task, collection.box_classes) == (
        300,
        "multilabel",
        CLASSES,
    )
    assert len({sample.id for sample in samples}) == 300
    assert len(collection.samples[2:5]) == 3 and collection.samples[-1].id == samples[299].id
    with pytest.raises(IndexError):
        collection.samples[300]
    for sample in samples:
        assert (
            sample.split is None and sample.size == (96, 96) and sample.labels.dtype == np.float32
        )
        assert set(np.flatnonzero(sample.labels)) == set(sample.boxes.labels.tolist())
        box = sample.boxes.xyxy
        assert (box >= 0).all() and (box <= 96).all() and (box[:, 2:] > box[:, :2]).all()
        assert (np.diff(sample.boxes.labels) >= 0).all()


def test_prevalence_patients_and_scanners(samples):
    # The tolerances are wide: 300 images of some 150 patients.
    without = np.mean([len(sample.boxes) == 0 for sample in samples])
    assert 0.38 <= without <= 0.62
    labels = np.stack([sample.labels for sample in samples])
    assert (labels.sum(0) >= 15).all()
    numbers = [int(sample.patient.partition("P")[2]) for sample in samples]
    assert numbers == sorted(numbers)
    assert 1.6 <= len(samples) / len(set(numbers)) <= 2.5
    assert {sample.attributes["scanner"] for sample in samples} == {"S1", "S2", "S3", "S4"}
    alone = phantom_collection(PhantomConfig(images=40, size=64, images_per_patient=1.0))
    assert len({sample.patient for sample in alone.samples}) == 40


def test_pictures_are_sane_and_scanners_differ():
    means: dict[str, list[float]] = {}
    for i in range(60):
        image = render(SMALL, i)
        assert image.shape == (96, 96) and image.dtype == np.uint8
        assert image.std() > 20 and (image == 255).mean() < 0.35 and (image == 0).mean() < 0.45
        middle = image[40:56]
        # The spine is brighter than the lungs beside it.
        assert middle[:, 44:52].mean() > middle[:, 20:32].mean() + 15
        means.setdefault(describe(SMALL, i).attributes["scanner"], []).append(float(image.mean()))
    averages = [np.mean(values) for values in means.values()]
    assert max(averages) - min(averages) > 8


def test_anatomy_stays_with_the_patient():
    config = PhantomConfig(images=64, size=64, seed=2, images_per_patient=4.0)
    from twinray.data.phantom.images import _scene

    scenes = [_scene(config, i) for i in range(64)]
    for a, b in pairwise(scenes):
        if a.patient == b.patient:
            assert a.chest is b.chest and a.pose != b.pose
        else:
            assert a.chest.heart != b.chest.heart


def test_boxes_bound_what_is_drawn():
    """Beside the same image in health: all strong differences lie in the boxes, and reach all four edges of each."""
    config = PhantomConfig(images=200, size=192, seed=9)
    checked = np.zeros(len(CLASSES), dtype=int)
    for i in range(200):
        boxes = true_boxes(config, i)
        if len(boxes) != 1 or checked[boxes.labels[0]] >= 6:
            continue
        label = int(boxes.labels[0])
        difference = np.abs(render(config, i).astype(float) - render(config, i, lesions=False))
        x1, y1, x2, y2 = boxes.xyxy[0].astype(int)
        inside = difference[y1:y2, x1:x2]
        outside = difference.copy()
        outside[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4] = 0
        peak = np.quantile(inside, 0.95)
        assert peak > 8, (i, CLASSES[label])
        assert (outside > 0.5 * peak).sum() <= 0.03 * (inside > 0.5 * peak).sum(), (
            i,
            CLASSES[label],
        )
        checked[label] += 1
        if CLASSES[label] in ("opacity", "nodule"):
            rim = max(round(0.3 * min(x2 - x1, y2 - y1)), 2)
            for strip in (inside[:rim], inside[-rim:], inside[:, :rim], inside[:, -rim:]):
                assert strip.max() > 0.25 * peak, (i, CLASSES[label])
    assert (checked >= 2).all(), checked


def test_boxes_do_not_depend_on_resolution():
    low, high = (PhantomConfig(images=40, size=size, seed=1) for size in (128, 512))
    for i in range(40):
        a, b = true_boxes(low, i), true_boxes(high, i)
        if len(a) == len(b):  # one at the limit of being too small may drop out
            np.testing.assert_allclose(a.xyxy * 4, b.xyxy, atol=12)


def test_a_pose_finds_the_pixels_that_it_came_from():
    """Windows lie where ``chest`` says, also of a stretched chest."""
    pose = Pose(shift=(0.1, -0.2), scale=1.1, angle=0.2, breath=0.0, stretch=1.15)
    size, whole = 200, slice(0, 200)
    u, v = pose.chest(size, whole, whole)
    for centre in ((0.3, 0.2), (-0.4, -0.1)):
        near = np.hypot(u - centre[0], v - centre[1])
        rows, columns = pose.box(size, centre, 0.2)
        inside = np.zeros((size, size), dtype=bool)
        inside[rows, columns] = True
        assert not (near[~inside] < 0.19).any()
        y, x = np.unravel_index(near.argmin(), near.shape)
        assert abs(y + 0.5 - (rows.start + rows.stop) / 2) <= 1.5
        assert abs(x + 0.5 - (columns.start + columns.stop) / 2) <= 1.5
    upright = Pose((0.0, 0.0), 1.0, 0.0, 0.0, stretch=1.2)
    u, v = upright.chest(size, whole, whole)
    assert u[0, -1] == pytest.approx(0.995 / 1.2) and v[-1, 0] == pytest.approx(0.995 * 1.2)


def test_wires_weigh_the_same_at_every_size():
    drawn = 0
    for seed in range(40):
        small, large = (wires(size, np.random.default_rng(seed)) for size in (64, 256))
        assert small.shape == (64, 64) and (small >= 0).all()
        assert small.any() == large.any()
        if small.any():
            drawn += 1
            assert small.mean() == pytest.approx(large.mean(), rel=0.05)
            pooled = large.reshape(64, 4, 64, 4).mean(axis=(1, 3))
            assert np.corrcoef(pooled.ravel(), small.ravel())[0, 1] > 0.7
    assert 6 <= drawn <= 24


def test_unlabelled_patients_have_neither_labels_nor_boxes():
    collection = phantom_collection(PhantomConfig(images=120, size=64, labelled=0.3))
    by_patient: dict[str, set[bool]] = {}
    for sample in collection.samples:
        assert (sample.labels is None) == (sample.boxes is None)
        by_patient.setdefault(sample.patient, set()).add(sample.labels is None)
    assert all(len(states) == 1 for states in by_patient.values())
    assert 0.1 < np.mean([not state.copy().pop() for state in by_patient.values()]) < 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"images": -1},
        {"size": 8},
        {"seed": -1},
        {"images_per_patient": 0.5},
        {"scanners": 0},
        {"labelled": 1.5},
    ],
)
def test_bad_configurations_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))) as caught:
        PhantomConfig(**change)
    assert "\n" not in str(caught.value)


def test_a_foreign_sample_is_refused():
    collection, other = (
        phantom_collection(PhantomConfig(images=2, size=64)),
        phantom_collection(SMALL),
    )
    with pytest.raises(InputError, match="phantom#9"):
        collection.load(other.samples[9])
