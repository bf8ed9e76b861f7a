"""``model.json`` and ``backbone.json``: what a run says of its weights, read and checked without torch.

Whatever loads or compares a model starts here, so that a damaged description is refused once, in one line.

A file may hold more than the types below name: what is for people alone (``layers``, ``trained_by``). A key that a later
version adds and that loading needs gets a default here, which is what files had that were written before it; a change that
earlier versions must not miss raises :data:`FORMAT`, and they refuse the file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from twinray.data.decoding.options import Decoded, PixelType
from twinray.errors import InputError
from twinray.files import read_json, typed
from twinray.geometry import Fit
from twinray.records import Task

MODEL = "model.json"
FORMAT = 1
"""Newest form of a description that this version reads."""

_WHAT = "weight description"

Text = Annotated[str, msgspec.Meta(min_length=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Side = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class MadeLike:
    """How images became those of the pack that a model learned from.

    Attributes:
        size: side of the packed images, in pixels. fit: how they were brought into the square.
        channels: 1 grey, 3 RGB.
        decoded: how files became pixels; runs from before it was recorded have the defaults.
        pixels: type of the packed pixels: uint8, display values, or uint16, linear values.
    """

    size: Side
    fit: Fit
    channels: Literal[1, 3]
    decoded: Decoded = field(default_factory=Decoded)
    pixels: PixelType = "uint8"


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """What pixels on the 0..1 scale become before a network sees them: (x - mean) / std.

    It belongs to the weights: they are fed what they were trained on, in every job.

    Attributes:
        mean, std: of red, green and blue; the defaults are ImageNet's, which every network took
            before others were known.
        scale: scale of the pixels that mean and std are of.
        order: order of the channels that the network takes.
    """

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    scale: Literal["0..1"] = "0..1"
    order: Literal["RGB", "BGR"] = "RGB"


@dataclass(frozen=True)
class LearntFrom:
    """A pack that weights learned from.

    Attributes:
        pack: its path, as given. names: of its sources.
        checksums: SHA-256 by name of file; empty in runs from before they were recorded.
    """

    pack: str = "?"
    names: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ancestor:
    """Published or foreign weights that others were made from.

    Attributes:
        name: name in the ledger, or of the file.
        licence: its terms. use: what they let one do (``open``, ``share-alike``, ``non-commercial``, ``restricted``,
            ``unknown``). note: what else a user must know of them.
        saw: data sets that its training saw, in words.
    """

    name: str
    licence: str = "unknown"
    use: str = "unknown"
    note: str = ""
    saw: tuple[str, ...] = ("unknown",)

    def told(self) -> str:
        """One line for a reader of the figures."""
        saw = ", ".join(self.saw) or "nothing"
        binding = {
            "non-commercial": " (not for commercial use, nor is what was made from it)",
            "share-alike": " (copyleft: what is made from it comes under the same terms)",
            "restricted": " (restricted)",
        }.get(self.use, "")
        note = f"; {self.note}" if self.note else ""
        return f"made from the weights {self.name}: licence {self.licence}{binding}{note}; they saw {saw}"


@dataclass(frozen=True)
class StartedFrom:
    """Initial weights of a run.

    Attributes:
        init: as asked for.
        sha256: hash of the file that they came from; empty for random weights.
        ancestors: published and foreign weights that they were made from; empty for none, None in runs from before it was
            recorded.
    """

    init: str = ""
    sha256: str | None = ""
    ancestors: tuple[Ancestor, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class WeightDescription:
    """What the JSON beside any weights of ours says.

    Attributes:
        kind: kind of network. arch: its architecture. sha256: hash of the weights.
        size: side of its input, in pixels; 0 where it is not said.
        normalisation: pixels that it takes.
        init: weights that it started from.
        windows: windows that training drew of linear values; empty where it learned from display values.
        pack: how images became those of its first pack; None of a run from before it was recorded.
        format_version: form of the description.
    """

    kind: Literal["backbone", "detector", "classifier"]
    arch: Text
    sha256: Text
    size: Whole = 0
    normalisation: Normalisation = field(default_factory=Normalisation)
    init: StartedFrom = field(default_factory=StartedFrom)
    windows: dict[str, Any] = field(default_factory=dict)
    pack: MadeLike | None = None
    format_version: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What ``model.json`` says; loading relies on every key that has no default.

    Attributes:
        kind: kind of model. arch: architecture of its backbone. sha256: hash of its weights.
        classes: names of its classes.
        size: side of its input, in pixels.
        pack: how images became those that it learned from.
        data: packs that it learned from. init: weights that it started from.
        seed: seed that it was trained with; of a classifier the draw that was kept.
        options: options of a detector, as :class:`twinray.detection.model.DetectorOptions` names them.
        normalisation: pixels that it takes.
        task: whether the classes of a classifier exclude each other.
        thresholds: scores that count as found or present, as evaluation writes them; None where none were chosen.
        format_version: form of the description.
    """

    kind: Literal["detector", "classifier"]
    arch: Text
    sha256: Text
    classes: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    size: Side
    pack: MadeLike
    data: tuple[LearntFrom, ...]
    seed: Whole
    init: StartedFrom = field(default_factory=StartedFrom)
    options: dict[str, Any] = field(default_factory=dict)
    normalisation: Normalisation = field(default_factory=Normalisation)
    task: Task = "none"
    thresholds: dict[str, Any] | None = None
    format_version: int = 1

    @property
    def checksums(self) -> list[dict[str, str]]:
        """Of the packs that it learned from, where they were recorded."""
        return [pack.checksums for pack in self.data if pack.checksums]


_D = TypeVar("_D", WeightDescription, ModelDescription)


def read_description(path: Path) -> ModelDescription:
    """The description beside the weights of a detector or classifier, with every key that its readers rely on.

    Args:
        path: path of ``model.json``.

    Raises:
        InputError: it is missing, not JSON, lacks a key, or holds something else under it; file and key are named.
    """
    raw = _object(path)
    description = _checked(raw, ModelDescription, path)
    if description.kind == "detector" and "options" not in raw:
        raise InputError(
            f"{_WHAT} {path}: missing required field `options`; was it edited? Restore the file"
        )
    if description.kind == "classifier" and description.task == "none":
        raise InputError(
            f"{_WHAT} {path}: task: expected multiclass or multilabel; was it edited? Restore the file"
        )
    if len(set(description.classes)) < len(description.classes):
        raise InputError(
            f"{_WHAT} {path}: classes: expected different names; was it edited? Restore the file"
        )
    _check_pack(raw["pack"], path)
    return description


def _check_pack(raw: dict[str, Any], path: Path) -> None:
    """Refuse keys that this version does not know: what is unknown above may be for people, here it would be other pixels."""
    typed(raw, MadeLike, path, _WHAT, "pack")
    typed(raw.get("decoded", {}), Decoded, path, _WHAT, "pack.decoded")


def _check_normalisation(raw: dict[str, Any], path: Path) -> None:
    """Refuse keys of the pixels that this version does not know, and a spread of nothing."""
    found = typed(raw.get("normalisation", {}), Normalisation, path, _WHAT, "normalisation")
    if min(found.std) <= 0:
        raise InputError(
            f"{_WHAT} {path}: normalisation.std: expected numbers above 0; was it edited? Restore the file"
        )


def read_weight_description(path: Path) -> WeightDescription | None:
    """The description beside any weights of ours; None where it is somebody else's JSON of that name.

    Args:
        path: of the JSON file.

    Raises:
        InputError: not JSON, or a key that is ours and holds something else; file and key are named.
    """
    raw = read_json(path, _WHAT)
    if not isinstance(raw, dict) or not {"sha256", "arch", "kind"} <= raw.keys():
        return None
    description = _checked(raw, WeightDescription, path)
    if description.kind == "backbone" and description.pack is not None:
        _check_pack(raw["pack"], path)
    return description


def _object(path: Path) -> dict[str, Any]:
    raw = read_json(path, _WHAT)
    if not isinstance(raw, dict):
        found = {list: "a list", str: "a text", type(None): "null"}.get(type(raw), "a number")
        raise InputError(
            f"expected the description of a model in {path}, found {found}; was it edited?"
        )
    return raw


def _checked(raw: dict[str, Any], kind: type[_D], path: Path) -> _D:
    known = {one.name for one in dataclasses.fields(kind)}
    description = typed(
        {key: value for key, value in raw.items() if key in known}, kind, path, _WHAT
    )
    _check_normalisation(raw, path)
    if description.format_version > FORMAT:
        raise InputError(
            f"{_WHAT} {path} is of form {description.format_version}, this version reads up to {FORMAT}; use the twinray "
            "that wrote it, or a later one"
        )
    return description
