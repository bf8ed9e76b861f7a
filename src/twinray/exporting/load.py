"""``twinray.load``: exported weights, a finished run or an id of the hub -> a model for single images."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from twinray.data.decoding.images import load_image
from twinray.data.decoding.options import Decoding
from twinray.errors import InputError
from twinray.exporting.images import fitted
from twinray.exporting.subject import Subject, open_subject
from twinray.exporting.to_hub import described_in
from twinray.files import sha256, write_json
from twinray.records import Boxes, FloatArray, Pixels

Image = Path | str | npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Found:
    """What a model says of one image.

    Attributes:
        boxes: boxes with labels and scores in original pixels, best first; None of other models than detectors.
        labels: probability of each class; None of other models than classifiers.
        features: (d,) pooled features; None of other models than backbones.
        classes: names that labels index.
    """

    boxes: Boxes | None
    labels: dict[str, float] | None
    features: FloatArray | None
    classes: tuple[str, ...]


@final
class Predictor:
    """A model ready for images: ``model("image.png")``.

    Attributes:
        kind: ``detector``, ``classifier`` or ``backbone``.
        classes: names of its classes.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.kind = subject.kind
        self.classes = subject.classes

    def __repr__(self) -> str:
        return f"Predictor({self.kind}, {self._subject.arch}, {len(self.classes)} classes)"

    def __call__(self, image: Image) -> Found:
        """What the model says of an image file, or of display-ready pixels (h, w) or (h, w, 3) uint8."""
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Sequence[Image]) -> list[Found]:
        """The same for several images, one by one.

        Raises:
            InputError: a file that cannot be read, or an array that is no image.
        """
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Found:
        model = self._subject.model
        if model is None:
            pixels = _pixels(image, self._subject.decoding)
            square = fitted(self._subject, pixels)
            seen = self._subject.network_input(torch.from_numpy(square)[None])
            found: FloatArray = self._subject.backbone(seen)[0].double().numpy()
            return Found(None, None, found, ())
        name = "image" if isinstance(image, np.ndarray) else str(image)
        prepared = model.prepare(_pixels(image, model.decoding()), name)
        if self.kind == "detector":
            return Found(model.boxes([prepared])[0], None, None, self.classes)
        scores = model.labels([prepared])[0].tolist()
        return Found(None, dict(zip(self.classes, scores, strict=True)), None, self.classes)


def load(source: str | Path, *, revision: str | None = None) -> Predictor:
    """A model from a folder of ``twinray export --to hub``, a finished run's folder, or an id of Hugging Face's hub.

    Args:
        source: a folder, or ``owner/name`` of the hub, which is fetched through ``huggingface_hub`` and its cache.
        revision: branch, tag or commit of the hub's repository.

    Raises:
        InputError: neither a folder nor an id that can be fetched, or not weights of ours.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _fetched(str(source), revision)
    for name in ("model", "backbone"):
        weights = folder / f"{name}.safetensors"
        if weights.is_file() and not weights.with_suffix(".json").is_file():
            # the file alone was copied: it describes itself
            described = {**described_in(weights), "sha256": sha256(weights)}
            write_json(weights.with_suffix(".json"), described, "weight description")
    return Predictor(open_subject(folder))


def _fetched(name: str, revision: str | None) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(
            f"expected a folder, or an id of the hub as owner/name, {name} is neither; check the path"
        )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            f"{name} is no folder here; to fetch it from the hub: pip install 'twinray[hub]'"
        ) from error
    wanted = ["*.safetensors", "*.json", "README.md"]
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # whatever network and hub raise
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} is no folder here and could not be fetched from the hub ({said}); check the name, or bring the folder"
        ) from error


def _pixels(image: Image, decoding: Decoding) -> Pixels:
    if not isinstance(image, np.ndarray):
        return load_image(Path(image), decoding=decoding)
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] != 3)
    ):
        raise InputError(
            f"expected an image as (h, w) or (h, w, 3) uint8, got {image.shape} {image.dtype}; make it display-ready first"
        )
    return Pixels(image, "array")
