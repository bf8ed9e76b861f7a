"""A finished run -> answers about single images: boxes, scores, heat maps.

Everything that shows a model to people goes through here (predict, explain, evaluate), so that all of
them see the same pixels as training did: decoded, fitted to the pack's square, then resized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import network_input
from twinray.backbones.weight_file import check_values
from twinray.classification.model import Classifier, probabilities
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import Scale
from twinray.data.fit import to_square
from twinray.data.pack import Pack
from twinray.detection.model import Detector, DetectorOptions, build_detector
from twinray.detection.postprocess import Detection
from twinray.errors import InputError
from twinray.files import sha256, typed
from twinray.geometry import geometry
from twinray.inference.heat_maps import Explained, heat_maps
from twinray.inference.methods import DEFAULT_MAP, Method
from twinray.inference.prepared import Prepared
from twinray.records import Boxes, FloatArray, Pixels
from twinray.runs.checksums import UNVERIFIED, check_files
from twinray.runs.classes import difference
from twinray.runs.description import MODEL, ModelDescription, read_description
from twinray.training.device import Machine, choose_machine


@final
class Model:
    """A trained detector or classifier, ready for single images; made by :func:`load_model`."""

    def __init__(
        self,
        path: Path,
        description: ModelDescription,
        network: Detector | Classifier,
        machine: Machine,
        edited: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.edited = edited
        self.description = description
        self.network = network
        self.machine = machine
        self.kind: str = description.kind
        self.classes: tuple[str, ...] = description.classes
        self.size: int = description.size

    @property
    def detector(self) -> Detector:
        """The network of a detection run.

        Raises:
            InputError: the run is a classifier.
        """
        if not isinstance(self.network, Detector):
            raise InputError(
                f"expected a detection run, {self.path} is a {self.kind}; pass the folder of a detect run"
            )
        return self.network

    def decoding(self, declared: Scale | None = None) -> Decoding:
        """How new files are decoded for this model: as those of its pack were.

        Args:
            declared: stored values that become black and white in files of more than 8 bits; takes precedence over
                what the pack had. Without either such files are refused.
        """
        pack = self.description.pack
        return pack.decoded.for_new_files(declared, pack.pixels)

    def prepare(self, pixels: Pixels, name: str) -> Prepared:
        """Fit a decoded image as the model's pack did.

        Raises:
            InputError: linear pixels for a model of display values, whose decoding (:meth:`decoding`) gives none.
        """
        pack = self.description.pack
        if pack.pixels == "uint16":
            pixels = pixels.as_linear()
        elif pixels.linear is not None:
            raise InputError(
                f"expected display values (uint8) for the run {self.path}, {name} was decoded to linear values; decode it as "
                "that run's pack was"
            )
        height, width = pixels.array.shape[:2]
        packed = to_square(pixels.array, pack.size, pack.fit, pack.channels)
        if pixels.linear is not None:
            packed = pixels.linear.levels(packed)
        place = geometry(width, height, pack.size, pack.fit)
        return Prepared(name, packed, place, pixels.shown)

    @torch.no_grad()
    def boxes(self, images: Sequence[Prepared]) -> list[Boxes]:
        """Predicted boxes with scores of each image, in original pixels, best first."""
        with self.machine.autocast():
            found = self.detector.detect(self.batch(images))
        return [self._in_original(one, image) for one, image in zip(found, images, strict=True)]

    @torch.no_grad()
    def boxes_and_features(self, images: Sequence[Prepared]) -> tuple[list[Boxes], FloatArray]:
        """``boxes``, and (n, d) features of the images: means over the last map of the backbone."""
        with self.machine.autocast():
            found, features = self.detector.detect_with_features(self.batch(images))
        *_, last = features.stages.values()
        pooled: FloatArray = last.double().mean(dim=(2, 3)).cpu().numpy()
        boxes = [self._in_original(one, image) for one, image in zip(found, images, strict=True)]
        return boxes, pooled

    @property
    def classifier(self) -> Classifier:
        """The network of a classification run.

        Raises:
            InputError: the run is a detector.
        """
        if not isinstance(self.network, Classifier):
            raise InputError(f"expected a classification run, {self.path} is a {self.kind}")
        return self.network

    @torch.no_grad()
    def labels(self, images: Sequence[Prepared]) -> FloatArray:
        """(n, k) probabilities of a classifier."""
        network = self.classifier
        pixels = torch.from_numpy(np.stack([image.packed for image in images]))
        with self.machine.autocast():
            found = network(self._seen(pixels))
        scores: FloatArray = found.double().cpu().numpy()
        return scores

    @torch.no_grad()
    def labels_and_features(self, images: Sequence[Prepared]) -> tuple[FloatArray, FloatArray]:
        """``labels``, and the (n, d) features of the images that the linear layer takes."""
        network = self.classifier
        with self.machine.autocast():
            features = network.backbone(self.batch(images))
            found = probabilities(network.head(features), network.task)
        scores: FloatArray = found.double().cpu().numpy()
        return scores, features.double().cpu().numpy()

    @torch.no_grad()
    def explain(
        self,
        image: Prepared,
        truth: Boxes | None,
        *,
        method: Method = DEFAULT_MAP,
        most: int = 5,
        least_score: float = 0.0,
    ) -> Explained:
        """Heat maps of the image's best boxes: at most ``most``, of at least ``least_score``."""
        detector = self.detector
        batch = self.batch([image])
        with self.machine.autocast():
            detections, features = detector.detect_with_features(batch)
            found = detections[0]
            scores = found.scores.cpu().numpy()
            top = tuple(int(i) for i in np.flatnonzero(scores >= least_score)[:most])
            maps = heat_maps(detector, features, found, top, (self.size, self.size), method)
        height, width = image.display.shape[:2]
        return Explained(
            id=image.id,
            image=image.display,
            scale=(width / image.place.original[0], height / image.place.original[1]),
            truth=truth,
            predictions=self._in_original(found, image),
            top=top,
            heat_maps=np.stack([image.map_to_display(m.map) for m in maps])
            if maps
            else np.zeros((0, height, width), np.float32),
            definition=maps[0].definition if maps else "",
        )

    def batch(self, images: Sequence[Prepared]) -> Tensor:
        """(n, 3, side, side) normalised: what the network sees of the images."""
        pixels = torch.from_numpy(np.stack([image.packed for image in images])).to(
            self.machine.device
        )
        if isinstance(self.network, Detector):
            return self.network.network_input(pixels)
        return self._seen(pixels)

    def _seen(self, pixels: Tensor) -> Tensor:
        """What a classifier sees of packed pixels."""
        by = self.description.normalisation
        return network_input(pixels, self.size, self.machine.device, by)

    def _in_original(self, found: Detection, image: Prepared) -> Boxes:
        xyxy = image.to_original(found.boxes.double().cpu().numpy(), self.size)
        return Boxes(xyxy, found.labels.cpu().numpy(), found.scores.double().cpu().numpy())


def load_model(run: Path | str, device: str = "auto", *, allow_edited: bool = False) -> Model:
    """Load the network of a finished detect or classify run; its ``machine`` computes in full float32.

    Args:
        run: its folder.
        device: where it computes.
        allow_edited: flag to take a ``model.json`` that is not the one that the run wrote.

    Raises:
        InputError: not such a run, its weights do not fit their description, or the description was edited.
    """
    run = Path(run)
    weights = run / "model.safetensors"
    if not weights.is_file():
        hint = (
            "it is a pretrain run: train a detector from it first"
            if (run / "backbone.safetensors").is_file()
            else "did it finish?"
        )
        raise InputError(
            f"expected the folder of a finished detect or classify run, {run} has no model.safetensors ({hint})"
        )
    description = read_description(weights.with_suffix(".json"))
    if description.sha256 != sha256(weights):
        raise InputError(
            f"{weights} is not the file that {weights.with_suffix('.json').name} describes; train again, or restore it"
        )
    edited = check_files(run, [MODEL], allow_edited=allow_edited)
    machine = choose_machine(device, "float32").exact
    network = _build(description, weights.with_suffix(".json"))
    try:
        tensors = safetensors.torch.load_file(weights)
        check_values(tensors, str(weights))
        network.load_state_dict(tensors, strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(
            f"weights in {weights} do not fit the network they describe: {' '.join(str(error).split())[:300]}"
        ) from error
    network = network.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return Model(run, description, network, machine, tuple(n for n in edited if n != UNVERIFIED))


def _build(description: ModelDescription, path: Path) -> Detector | Classifier:
    """The network of a checked description, with weights of its own."""
    options = _detector_options(description, path) if description.kind == "detector" else None
    try:
        backbone = build_backbone(description.arch, size=description.size)
        backbone.normalisation = description.normalisation
        if options is None:
            return Classifier(backbone, len(description.classes), description.task)
        return build_detector(backbone, options, description.classes, seed=0)
    except (
        InputError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as error:
        # our own errors are a line, whose end says what came; others may be pages
        most = None if isinstance(error, InputError) else 200
        said = " ".join(str(error).split())[:most]
        raise InputError(f"no network can be built as {path} describes it: {said}") from error


_OLDER: Mapping[str, Any] = {
    "resize": "bilinear",
    "round_anchors": False,
    "norm_eps": None,
    "trainable_blocks": None,
    "aligned": False,
}
"""What detectors had before a later version made an option of it."""


def _detector_options(description: ModelDescription, path: Path) -> DetectorOptions:
    """Options of a detector, each of the type of its field.

    None may be missing, or a damaged file would be another network, but those of :data:`_OLDER`.
    """
    raw = {**_OLDER, **description.options}
    lacking = next((f.name for f in dataclasses.fields(DetectorOptions) if f.name not in raw), None)
    if lacking is not None:
        raise InputError(f"{path}: options.{lacking}: missing; was it edited? Restore the file")
    options = typed(raw, DetectorOptions, path, "weight description", "options")
    if options.size != description.size:
        raise InputError(
            f"{path}: size {description.size} and options.size {options.size} differ; was it edited?"
        )
    return options


def prepare_row(model: Model, pack: Pack, row: int) -> Prepared:
    """An image of a pack, as the model's own pack would hold it.

    Raises:
        InputError: the pack was fitted otherwise than the model's.
    """
    check_pack(model, pack)
    packed, place = np.asarray(pack.pixels[row]), pack.place(row)
    return Prepared(str(pack.ids[row]), packed, place, pack.shown(row)[place.picture])


def check_pack(model: Model, pack: Pack) -> None:
    """Refuse a pack whose images the model would see otherwise than those it learned from, or of other classes.

    Raises:
        InputError: size, fit, channels or type of pixels differ; each is named.
    """
    have = {name: getattr(pack.info, name) for name in ("size", "fit", "channels", "pixels")}
    # a value that a description leaves out is its class's: vars() would not have it
    wanted = {name: getattr(model.description.pack, name) for name in have}
    differing = [
        f"{k}: the model's {wanted[k]}, the pack's {have[k]}" for k in have if have[k] != wanted[k]
    ]
    if differing:
        raise InputError(
            f"the pack {pack.path} was not made as that of the run {model.path} ({'; '.join(differing)}); pack it alike"
        )


def check_classes(model: Model, names: Sequence[str], where: Path) -> None:
    """Refuse class lists that differ in a name or in their order.

    Raises:
        InputError: naming what is missing, what is new, or that the order differs.
    """
    what = difference(model.classes, names, "model", "data")
    if what:
        raise InputError(
            f"classes of {where} and of the run {model.path} differ ({what}); use data with the model's classes"
        )
