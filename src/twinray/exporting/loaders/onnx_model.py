"""Run this folder's ONNX graphs with onnxruntime: ``Model(folder)``. Needs NumPy, Pillow and onnxruntime, no PyTorch.

``Model(folder)(image)`` takes a decoded image, (h, w) or (h, w, 3) uint8, display-ready. A model that learned from linear values
(``pixels`` of ``model.json`` is uint16) takes (h, w) or (h, w, 3) uint16 too, brighter is denser, with the values that are black and
white: ``Model(folder)(image, window=(low, high))``. It gives

- of a detector boxes (n, 4) xyxy in the image's own pixels, labels (n,) that index ``classes`` and scores (n,), best first;
- of a classifier (k,) probabilities, of a backbone (d,) features.

A detector is ``dense.onnx`` (backbone, pyramid and what looks at every place), of Faster R-CNN with ``head.onnx`` (RoIAlign on
one level and the box head). Anchors, the box coder and non-maximum suppression are the NumPy below: whole two-stage detectors do
not survive exporters as one graph.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
from PIL import Image
from twinray_square import fit  # type: ignore[import-not-found,unused-ignore]

Array = np.ndarray[Any, np.dtype[Any]]
LARGEST_LOG = math.log(1000.0 / 16)
_CODES = ("codes", "bbox_regression")


class Model:
    """The graphs of a folder, ready for images."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.classes: list[str] = self.described["classes"]
        self.size: int = self.described["size"]

        def graph(name: str) -> Any:
            return onnxruntime.InferenceSession(
                str(folder / name), providers=["CPUExecutionProvider"]
            )

        detector = self.described["kind"] == "detector"
        self.dense = graph("dense.onnx" if detector else "model.onnx")
        two_stage = self.described.get("detector") == "faster-rcnn"
        self.head = graph("head.onnx") if two_stage else None

    def __call__(self, image: Array, window: tuple[float, float] | None = None) -> Any:
        """Boxes, labels and scores; probabilities; or features, see above."""
        x, place = self.fit(image, window)
        if self.described["kind"] == "detector":
            boxes, labels, scores = self.detect(x)
            return place(boxes), labels, scores
        (found,) = self.dense.run(None, {"images": x})
        if self.described["kind"] == "backbone":
            return found[0]
        if self.described["task"] == "multiclass":
            e = np.exp(found[0] - found[0].max())
            probabilities: Array = e / e.sum()
            return probabilities
        return 1 / (1 + np.exp(-found[0]))

    def fit(self, image: Array, window: tuple[float, float] | None = None) -> tuple[Array, Any]:
        """(1, 3, s, s) normalised, and the map from boxes in the network's pixels to the image's own."""
        own = self.described["pack"]
        linear = own["pixels"] == "uint16"
        _check(image, window, linear)
        if linear and image.dtype == np.uint8:
            image, window = image.astype(np.uint16) * np.uint16(257), (0, 65_535)
        square, place = fit(image, own)
        if window is not None:
            square = (square.astype(np.float32) - np.float32(window[0])) / np.float32(
                window[1] - window[0]
            )
        return self.normalised(square), partial(place.to_image, size=self.size)

    def normalised(self, square: Array) -> Array:
        """A pack's square (p, p) or (p, p, 3), uint8, or float32 with 0 black and 1 white -> (1, 3, s, s) float32."""
        planes = square[None] if square.ndim == 2 else square.transpose(2, 0, 1)
        if square.dtype == np.float32:
            unit = planes.clip(0, 1)
        else:
            unit = planes.astype(np.float32) / np.float32(255)
        if unit.shape[-1] != self.size:
            how = Image.Resampling[self.described["resize"].upper()]
            resized = [
                np.asarray(Image.fromarray(one).resize((self.size, self.size), how)) for one in unit
            ]
            unit = np.stack(resized).clip(0, 1)
        mean, std = (
            np.array(self.described[name], np.float32)[:, None, None] for name in ("mean", "std")
        )
        return ((unit - mean) / std).astype(np.float32)[None]

    def detect(self, x: Array) -> tuple[Array, Array, Array]:
        """Boxes in the network's pixels, labels and scores of (1, 3, s, s) normalised; best first."""
        names = [one.name for one in self.dense.get_outputs()]
        made = self.dense.run(None, {"images": x})
        # Boxes are computed in float64: the graphs round, the arithmetic behind them need not. Scores stay float32, as the run
        # has them: many may be 1 to the last digit there, and a finer softmax would put them into another order.
        found = {
            name: one.astype(np.float64) if name in _CODES else one
            for name, one in zip(names, made, strict=True)
        }
        if self.head is None:
            return self._one_stage(found)
        proposals = self._proposals(found["logits"][0], found["codes"][0])
        logits, codes = self._pooled(found, proposals)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (e / e.sum(axis=1, keepdims=True))[:, 1:]
        n, k = scores.shape
        codes = codes.reshape(n, k + 1, 4)[:, 1:] / np.array([10, 10, 5, 5])
        boxes = _decode(codes, proposals[:, None]).clip(0, self.size)
        sides = boxes[..., 2:] - boxes[..., :2]
        limits = self.described["limits"]
        rows, labels = np.nonzero((scores > limits["score"]) & (sides >= 1e-2).all(axis=-1))
        return self._best(boxes[rows, labels], labels, scores[rows, labels])

    def _proposals(self, logits: Array, codes: Array) -> Array:
        limits, anchors = self.described["limits"], self._anchors()
        boxes, scores, levels = [], [], []
        first = 0
        for level, own in enumerate(anchors):
            part = slice(first, first + len(own))
            order = np.argsort(-logits[part], kind="stable")[: limits["candidates"]]
            boxes.append(_decode(codes[part][order], own[order]).clip(0, self.size))
            scores.append(logits[part][order])
            levels.append(np.full(len(order), level))
            first += len(own)
        box, score, level_of = np.concatenate(boxes), np.concatenate(scores), np.concatenate(levels)
        large = (box[:, 2:] - box[:, :2] >= 1e-3).all(axis=1)
        box, score, level_of = box[large], score[large], level_of[large]
        keep = _suppressed(box, score, level_of, 0.7)[: limits["proposals"]]
        kept: Array = box[keep]
        return kept

    def _pooled(self, maps: dict[str, Array], boxes: Array) -> tuple[Array, Array]:
        """Class logits and box codes of proposals, each pooled from the level that its size asks for."""
        size = np.sqrt(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clip(0))
        with np.errstate(divide="ignore"):
            level = np.floor(4 + np.log2(size / 224) + 1e-6)
        level = level.clip(2, 5).astype(int) - 2
        k = len(self.classes) + 1
        logits, codes = np.zeros((len(boxes), k), np.float32), np.zeros((len(boxes), 4 * k))
        for one in np.unique(level):
            rows = np.flatnonzero(level == one)
            feed = {
                "map": maps[f"p{one + 2}"],
                "rois": (boxes[rows] / self.described["strides"][one]).astype(np.float32),
                "image": np.zeros(len(rows), np.int64),
            }
            assert self.head is not None
            logits[rows], codes[rows] = self.head.run(["logits", "codes"], feed)
        return logits, codes

    def _one_stage(self, found: dict[str, Array]) -> tuple[Array, Array, Array]:
        limits = self.described["limits"]
        scores = 1 / (1 + np.exp(-found["cls_logits"][0]))
        if "bbox_ctrness" in found:
            scores = np.sqrt(scores / (1 + np.exp(-found["bbox_ctrness"][0])))
        codes, k = found["bbox_regression"][0], scores.shape[1]
        boxes, labels, kept = [], [], []
        first = 0
        for own in self._anchors():
            part = slice(first, first + len(own))
            flat = scores[part].ravel()
            order = np.argsort(-flat, kind="stable")[: limits["candidates"]]
            order = order[flat[order] > limits["score"]]
            place = order // k
            boxes.append(self._boxes(codes[part][place], own[place]).clip(0, self.size))
            labels.append(order % k)
            kept.append(flat[order])
            first += len(own)
        return self._best(np.concatenate(boxes), np.concatenate(labels), np.concatenate(kept))

    def _boxes(self, codes: Array, anchors: Array) -> Array:
        if self.described["detector"] != "fcos":
            return _decode(codes, anchors)
        side = anchors[:, 2:] - anchors[:, :2]
        centre = 0.5 * (anchors[:, :2] + anchors[:, 2:])
        codes = codes * np.concatenate([side, side], axis=1)
        return np.concatenate([centre - codes[:, :2], centre + codes[:, 2:]], axis=1)

    def _best(self, boxes: Array, labels: Array, scores: Array) -> tuple[Array, Array, Array]:
        limits = self.described["limits"]
        keep = _suppressed(boxes, scores, labels, limits["nms"])[: limits["per_image"]]
        return boxes[keep], labels[keep], scores[keep]

    def _anchors(self) -> list[Array]:
        """(n, 4) of each level: row, column, ratio, size."""
        own, found = self.described["anchors"], []
        root = np.sqrt(np.array(own["ratios"], np.float32))
        scales = np.array([own["scale"] * 2 ** (i / own["steps"]) for i in range(own["steps"])])
        grids = self.described["grids"]
        for stride, measure, (rows, columns) in zip(
            self.described["strides"], own["measures"], grids, strict=True
        ):
            sizes = scales.astype(np.float32) * np.float32(measure)
            half = (np.floor(sizes) if own["rounded"] else sizes) / np.float32(2)
            wide, high = (half / root[:, None]).ravel(), (half * root[:, None]).ravel()
            if own["rounded"]:
                wide, high = wide.round(), high.round()
            cell = np.stack([-wide, -high, wide, high], axis=1)
            y, x = np.meshgrid(
                np.arange(rows, dtype=np.float32) * np.float32(stride),
                np.arange(columns, dtype=np.float32) * np.float32(stride),
                indexing="ij",
            )
            centre = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
            found.append((centre + cell).reshape(-1, 4))
        return found


def _check(image: Array, window: tuple[float, float] | None, linear: bool) -> None:
    if image.dtype == np.uint8 and window is None:
        return
    if not linear:
        raise ValueError(
            f"expected uint8, display-ready, without a window, got {image.dtype}: this model learned from display values; make "
            "black 0 and white 255 first"
        )
    if image.dtype != np.uint16 or window is None or not window[0] < window[1]:
        raise ValueError(
            f"expected uint8, display-ready, or uint16 with window=(black, white), got {image.dtype} and window={window}"
        )


def _decode(codes: Array, anchors: Array) -> Array:
    """The boxes that codes mean on anchors (Girshick et al. 2014)."""
    side = anchors[..., 2:] - anchors[..., :2]
    centre = codes[..., :2] * side + (anchors[..., :2] + 0.5 * side)
    reach = 0.5 * np.exp(np.minimum(codes[..., 2:], LARGEST_LOG)) * side
    return np.concatenate([centre - reach, centre + reach], axis=-1)


def _suppressed(boxes: Array, scores: Array, parts: Array, limit: float) -> Array:
    """Rows that stay, best first; only boxes of one part (class, level) suppress each other."""
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        order = rows[np.argsort(-scores[rows], kind="stable")]
        while len(order):
            best, rest = order[0], order[1:]
            kept.append(int(best))
            low = np.maximum(boxes[best, :2], boxes[rest, :2])
            high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
            shared = (high - low).clip(0).prod(axis=1)
            with np.errstate(invalid="ignore"):  # two boxes without area
                share = shared / (area[best] + area[rest] - shared)
            order = rest[~(share > limit)]
    found = np.array(kept, dtype=np.int64)
    return found[np.argsort(-scores[found], kind="stable")]
