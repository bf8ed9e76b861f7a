"""The models of a process: boxes or labels for an image, and heat maps of boxes that were found, or of labels."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import declared
from twinray.data.packed_pixels import shown
from twinray.detection.postprocess import Detection
from twinray.detection.pyramid import Features
from twinray.errors import InputError
from twinray.explanation.class_maps import ClassMethod
from twinray.geometry import geometry
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.heat_maps import check_method, heat_maps
from twinray.inference.methods import DEFAULT_CLASS_MAPS, Method
from twinray.inference.model import Model, load_model
from twinray.inference.prepared import Prepared
from twinray.records import FloatArray, Pixels
from twinray.serving.store.images import Box, Scores

MOST_MAP_SIDE = 1024
"""Pixels of the longer side of a heat map as it is sent; a browser draws it over the image."""
_KEPT_FEATURES = 4

# matplotlib's inferno, every 16th colour and the last: loading the whole library takes a second
_INFERNO = np.array(
    [
        (0, 0, 4), (10, 7, 34), (31, 12, 72), (58, 9, 99), (80, 13, 108), (104, 22, 110), (128, 31, 108),
        (151, 39, 102), (176, 49, 91), (197, 61, 77), (216, 76, 62), (232, 96, 45), (243, 120, 25),
        (251, 147, 6), (251, 178, 23), (246, 210, 70), (252, 255, 164),
    ],
    dtype=np.float64,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Known:
    """What a network made of an image: its boxes and the maps that they were read from."""

    found: Detection
    features: Features
    prepared: Prepared


@dataclass(frozen=True)
class Expected:
    """A box as it was kept: position among the model's, corners in original pixels, class name."""

    position: int
    corners: tuple[float, float, float, float]
    label: str

    def among(self, boxes: FloatArray, classes: Sequence[str]) -> int | None:
        """Its position among (n, 4) boxes that the model finds now; None where it is none of them.

        One anchor may give boxes of two classes in one place, so that its place alone does not tell which of them is meant.
        """
        apart = np.full(len(boxes), np.inf)
        own = np.array([name == self.label for name in classes], dtype=bool)
        apart[own] = np.abs(boxes - np.asarray(self.corners)).max(axis=1)[own] if len(boxes) else 0
        if not len(apart) or apart.min() > 1.0:
            return None
        here = self.position < len(apart) and apart[self.position] <= 1.0
        return self.position if here else int(apart.argmin())


@final
class Models:
    """All models of a process, loaded once.

    Args:
        runs: folders of detect and classify runs. device: where they compute.
        depth, value_range: how files of more than 8 bits are decoded; None for as the first model's pack was.
        allow_edited: flag to take runs whose files were edited.

    Raises:
        InputError: a run that cannot be loaded, or models of several kinds of pixels.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        device: str,
        *,
        depth: int | None = None,
        value_range: tuple[float, float] | None = None,
        allow_edited: bool = False,
    ) -> None:
        loaded = [load_model(run, device, allow_edited=allow_edited) for run in runs]
        self._models: dict[str, Model] = {}
        for model in loaded:
            self._models.setdefault(model.description.sha256, model)
        kinds = {model.description.pack.pixels for model in loaded}
        if len(kinds) > 1:
            raise InputError(
                f"expected models that learned from one kind of pixels, {loaded[0].path} learned from "
                f"{loaded[0].description.pack.pixels}, another from others; serve them from two servers"
            )
        self.first = loaded[0].description.sha256
        self._declared = declared(depth, value_range)
        self._recent: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._explainers: dict[str, ClassExplainer] = {}

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hashes of the models, the one shown first leading."""
        return tuple(self._models)

    def decoding(self) -> Decoding:
        """How files are decoded: for all models as for the first, so that all see the same pixels."""
        return self._models[self.first].decoding(self._declared)

    def answer(
        self, model: str, pixels: Pixels, name: str
    ) -> tuple[list[Box] | Scores, FloatArray]:
        """What a model gives for one image, and (d,) features of the image.

        Returns:
            Boxes in the image's own pixels, best first; of a classifier the scores of its classes.
        """
        one = self._models[model]
        if one.kind == "classifier":
            (scores,), (features,) = one.labels_and_features([one.prepare(pixels, name)])
            of = dict(zip(one.classes, scores.tolist(), strict=True))
            return Scores(of, one.description.task == "multiclass"), features
        (found,), (features,) = one.boxes_and_features([one.prepare(pixels, name)])
        assert found.scores is not None
        boxes = [
            Box((x0, y0, x1, y1), one.classes[label], score)
            for (x0, y0, x1, y1), label, score in zip(
                found.xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]
        return boxes, features

    def packed_spec(self, model: str) -> str:
        """What fits an image for a model, in a word; models of one word see the same square."""
        pack = self._models[model].description.pack
        kind = "" if pack.pixels == "uint8" else f"-{pack.pixels}"
        return f"{pack.size}-{pack.fit}-{pack.channels}{kind}"

    def prepare(self, model: str, pixels: Pixels, name: str) -> Prepared:
        """An image as a model's pack would hold it."""
        return self._models[model].prepare(pixels, name)

    def from_packed(
        self, model: str, packed: npt.NDArray[Any], size: tuple[int, int], name: str
    ) -> Prepared:
        """The same from what was kept of it: the square, and the image's own (width, height)."""
        pack = self._models[model].description.pack
        return Prepared(name, packed, geometry(*size, pack.size, pack.fit), shown(packed))

    def methods(self) -> dict[str, tuple[Method, ...]]:
        """Heat maps of each classifier by its hash: those that its network has a use for, the first unless another is asked for."""
        return {
            model: tuple(m for m in DEFAULT_CLASS_MAPS if self._explainer(model).has_use_for(m))
            for model, one in self._models.items()
            if one.kind == "classifier"
        }

    def _explainer(self, model: str) -> ClassExplainer:
        if model not in self._explainers:
            self._explainers[model] = ClassExplainer(self._models[model])
        return self._explainers[model]

    def label_map(self, model: str, prepared: Prepared, label: int, method: ClassMethod) -> bytes:
        """Heat map of one class of a classifier as a PNG over the whole image, as :meth:`heat_map` of a box.

        Raises:
            InputError: the model has no use for the method.
        """
        (heat,) = self._explainer(model).maps(prepared, [label], method)
        return _png(heat.map, prepared)

    @torch.no_grad()
    def heat_map(self, model: str, prepared: Prepared, expected: Expected, method: Method) -> bytes:
        """Heat map of one box as a PNG over the whole image: colour, and heat as opacity.

        Args:
            model: hash.
            prepared: the image.
            expected: the box as it was kept.
            method: name of the map.

        Raises:
            InputError: the model has no use for the method, or finds another box there now.
        """
        one = self._models[model]
        detector = one.detector
        check_method(detector, method)
        key = (model, prepared.id)
        known = self._recent.get(key)
        with one.machine.autocast():
            if known is None:
                detections, features = detector.detect_with_features(one.batch([prepared]))
                known = _Known(detections[0], features, prepared)
                self._recent[key] = known
                while len(self._recent) > _KEPT_FEATURES:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(key)
            here = known.prepared.to_original(known.found.boxes.double().cpu().numpy(), one.size)
            # another number of threads rounds otherwise, and boxes of almost equal scores change places
            classes = [one.classes[label] for label in known.found.labels.tolist()]
            place = expected.among(here, classes)
            if place is None:
                raise InputError("the model finds another box there now; analyse the image again")
            (heat,) = heat_maps(
                detector, known.features, known.found, [place], (one.size, one.size), method
            )
        return _png(heat.map, known.prepared)


def _png(heat: npt.NDArray[np.float32], prepared: Prepared) -> bytes:
    width, height = prepared.place.original
    factor = min(1.0, MOST_MAP_SIDE / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    inner = prepared.place.picture_at(heat.shape[0])
    drawn = Image.fromarray(np.asarray(heat, np.float32)).resize(
        size, Image.Resampling.BILINEAR, box=inner
    )
    level = np.rint(np.asarray(drawn).clip(0, 1) * 255).astype(np.uint8)
    at = np.linspace(0, 255, len(_INFERNO))
    table = np.stack([np.interp(np.arange(256), at, _INFERNO[:, c]) for c in range(3)], axis=1)
    rgba = np.dstack([np.rint(table).astype(np.uint8)[level], level])
    sink = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(sink, "PNG", compress_level=3)
    return sink.getvalue()
