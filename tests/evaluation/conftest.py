"""Seeded boxes, and pycocotools as the oracle."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from twinray.evaluation.coco_json import predictions_as_coco, truth_as_coco
from twinray.records import Boxes

Simulate = Callable[..., tuple[dict, dict]]


def _corners(rng: np.random.Generator, n: int) -> np.ndarray:
    start, size = rng.uniform(0, 400, (n, 2)), rng.uniform(5, 150, (n, 2))
    return np.concatenate([start, start + size], axis=1)


def _simulate(
    seed: int,
    n_images: int = 25,
    n_classes: int = 4,
    n_false: int = 8,
    ids: Sequence[int | str] | None = None,
    decimals: int | None = None,
    classes_with_truth: int | None = None,
) -> tuple[dict, dict]:
    """Images with 0 to 5 true boxes; predictions are shifted copies, doubles and inventions; some images lack them."""
    rng = np.random.default_rng(seed)
    ids = list(range(n_images)) if ids is None else list(ids)
    truth, predictions = {}, {}
    for i, image in enumerate(ids):
        n = 0 if i % 5 == 4 else int(rng.integers(1, 6))
        xyxy, labels = _corners(rng, n), rng.integers(0, classes_with_truth or n_classes, n)
        truth[image] = Boxes(xyxy, labels)
        if i % 7 == 6:
            continue
        copies = rng.integers(0, 3, n)
        near = np.repeat(xyxy, copies, axis=0)
        near = near + rng.normal(0, 6, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        boxes = np.concatenate([near, _corners(rng, n_false)])
        label = np.concatenate([np.repeat(labels, copies), rng.integers(0, n_classes, n_false)])
        wrong = rng.random(len(label)) < 0.15
        label = np.where(wrong, rng.integers(0, n_classes, len(label)), label)
        scores = np.concatenate([rng.uniform(0.2, 1, len(near)), rng.uniform(0, 0.8, n_false)])
        scores = scores if decimals is None else np.round(scores, decimals)
        order = rng.permutation(len(scores))
        predictions[image] = Boxes(boxes[order], label[order], scores[order])
    return truth, predictions


def _oracle(truth: dict, predictions: dict, n_classes: int, ious: Sequence[float]) -> np.ndarray:
    """(t, k) average precision by pycocotools, NaN where it says -1."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    names = [str(i) for i in range(n_classes)]
    everywhere = {
        image: predictions.get(image, Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)))
        for image in truth
    }
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = truth_as_coco(truth, names)
        true.createIndex()
        evaluation = cocoeval.COCOeval(
            true, true.loadRes(predictions_as_coco(everywhere, n_classes)), "bbox"
        )
        evaluation.params.iouThrs = np.asarray(ious)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.where((precision > -1).any(axis=1), precision.mean(axis=1), np.nan)


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    return _simulate


@pytest.fixture(scope="session")
def pycocotools_ap() -> Callable[..., np.ndarray]:
    return _oracle
