"""Initial weights of a backbone: random, published ones by name, an earlier run, or a file.

Nothing loads silently: every missing and unexpected key is named, and loading fails unless every
tensor of the backbone was filled. Weights bring their own pixel statistics, and their licences go
with everything that is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinray.backbones.contract import Backbone
from twinray.backbones.layouts import Match, best_match
from twinray.backbones.ledger import Named, close_names, named, row_named
from twinray.backbones.ledger_row import PublicWeights
from twinray.backbones.pixels import IMAGENET
from twinray.backbones.published import check_network, published_file, torchvision_classifier
from twinray.backbones.timm_backbone import TimmBackbone, pretrained_state, published_pixels
from twinray.backbones.weight_file import Tensors, check_values, read_tensors
from twinray.errors import InputError
from twinray.files import read_json, sha256
from twinray.runs.description import (
    Ancestor,
    ModelDescription,
    WeightDescription,
    read_weight_description,
)
from twinray.runs.description import read_description as read_whole_description
from twinray.runs.seen import Seen, inherited, of_published

BACKBONE_ALONE = "the backbone alone was taken"
"""The end of a note where weights hold a head too; whoever takes the head as well leaves the note out."""
RUN_WEIGHTS = ("backbone.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Provenance:
    """Where a backbone's weights came from; written beside every result.

    Attributes:
        init: as asked for (``random``, ``imagenet-v2``, ``rad-dino``, a path).
        source: the file or weight enum that was read; empty for random weights.
        sha256: SHA-256 of that file; of nothing for random weights.
        loaded: number of tensors filled.
        unexpected: keys of the file that the backbone has no place for (its classifier, a projector).
        description: the JSON beside the weights of a run, if there was one.
        seen: whether it is known what these weights saw in training: ``recorded``, ``nothing`` (random and ImageNet
            weights) or ``unknown``; empty where nobody asked.
        layout: the spelling of the names in the file. prefix: what stood before them there.
        ancestors: published and foreign weights that these were made from, with their licences.
        notes: what was done to make them fit, and what a reader of the figures must know of them.
    """

    init: str
    source: str = ""
    sha256: str = ""
    loaded: int = 0
    unexpected: tuple[str, ...] = ()
    description: Mapping[str, Any] | None = None
    seen: str = ""
    layout: str = ""
    prefix: str = ""
    ancestors: tuple[Ancestor, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json`` and the description beside the weights."""
        return asdict(self)

    @property
    def is_random(self) -> bool:
        """Whether no tensor was loaded."""
        return self.init == "random"


@dataclass(frozen=True)
class _Read:
    """What was read of some weights."""

    tensors: Mapping[str, Tensors]
    source: str
    sha256: str


def initialise(backbone: Backbone, init: str) -> Provenance:
    """Fill ``backbone`` in place, and set the pixels that its weights take.

    Args:
        backbone: network to fill; its own random weights stay for ``random``.
        init: ``random``, a name of the ledger (``twinray weights``), ``NAME=FILE`` for a local copy of its file, a
            run's folder, or a weight file. Under ``imagenet-v1`` a timm network gets the weights that timm publishes by
            default, or those of the tag in its name. A weight file is ``.safetensors``, or a PyTorch file, which is
            read with ``weights_only=True``.

    Raises:
        InputError: no such weights, no network to fetch them, an unreadable file, values that are not finite, or
            weights that do not fill this architecture exactly. Every key that disagrees is counted and named.
    """
    if init == "random":
        return Provenance("random")
    if (public := named(init)) is not None:
        return _published(backbone, init, public)
    path = _weight_file(init)
    read = _Read(read_tensors(path), str(path), sha256(path))
    described = read_description(init)
    description: Mapping[str, Any] | None = None
    ancestors: tuple[Ancestor, ...] = (Ancestor(path.name),)
    notes: tuple[str, ...] = ()
    if described is not None:
        backbone.normalisation = described.normalisation
        ancestors = _ancestors(described)
        description = read_json(path.with_suffix(".json"), "weight description")  # kept as it is
        if described.kind != "backbone":
            notes = (f"of the {described.kind} {init} {BACKBONE_ALONE}",)
    match = _fill(backbone, read)
    return _provenance(init, read, match, len(backbone.state_dict()), ancestors, description, notes)


def _published(backbone: Backbone, init: str, public: Named) -> Provenance:
    row = public.row
    _check_can_load(row)
    _check_arch(row, backbone.arch)
    pixels = row.pixels.value
    if public.file is not None:
        read = _Read(read_tensors(public.file), str(public.file), sha256(public.file))
    elif row.arch.value:
        read, pixels = _fetched(backbone, row), pixels
    else:
        read, pixels = _classifier(backbone, row)
    backbone.normalisation = pixels or IMAGENET
    match = _fill(backbone, read, row.layouts)
    notes = [f"of the detector {row.name} {BACKBONE_ALONE}"] if row.detector else []
    notes += row.notes
    if pixels is None:
        notes.append(f"the pixel statistics of {row.name} are not known: it was fed ImageNet's")
    return _provenance(
        init, read, match, len(backbone.state_dict()), (_ancestor(row),), None, notes
    )


def _ancestor(row: PublicWeights) -> Ancestor:
    terms, saw = row.licence.value, row.saw.value
    told = ("unknown",) if saw is None else tuple(one.told() for one in saw)
    return Ancestor(row.name, terms.text, terms.use, terms.note, told)


def _ancestors(described: WeightDescription) -> tuple[Ancestor, ...]:
    """What a run's weights were made from; older runs say only what they started from."""
    before = described.init.init
    if described.init.ancestors is not None or before in ("", "random"):
        return described.init.ancestors or ()
    row = row_named(before)
    return (_ancestor(row) if row is not None else Ancestor(Path(before).name),)


def _provenance(
    init: str,
    read: _Read,
    match: Match,
    loaded: int,
    ancestors: Sequence[Ancestor],
    description: Mapping[str, Any] | None,
    notes: Sequence[str] = (),
) -> Provenance:
    return Provenance(
        init,
        read.source,
        read.sha256,
        loaded,
        match.unexpected,
        description,
        layout=match.layout,
        prefix=f"{match.place}{':' if match.place else ''}{match.prefix}",
        ancestors=tuple(ancestors),
        notes=(*match.notes, *notes, *(ancestor.told() for ancestor in ancestors)),
    )


def weight_file(init: str) -> Path | None:
    """The file that ``init`` names; None for random weights and for published ones that are fetched.

    Raises:
        InputError: ``init`` names neither known weights, nor a run, nor a file.
    """
    if init == "random":
        return None
    public = named(init)
    return public.file if public is not None else _weight_file(init)


def seen_by(init: str) -> Seen:
    """What initial weights saw in training, as far as it is known.

    Raises:
        InputError: ``init`` names nothing, or a run whose record is damaged.
    """
    public = named(init)
    if public is None:
        return inherited(weight_file(init))
    row = public.row
    if row.saw.value is None:
        return Seen(unknown=(row.name,))
    patients = [one for one in row.saw.value if one.data_set not in _NO_PATIENTS]
    trained_alone = {one.data_set: one.part == "train" for one in patients}
    unknown = any(one.data_set in _NOT_PUBLISHED for one in patients)
    return of_published(row.name, trained_alone, unknown=unknown)


_NO_PATIENTS = ("imagenet-1k", "imagenet-12k", "imagenet-22k", "coco-2017")
"""Photographs: no patient of any pack is in them."""
_NOT_PUBLISHED = ("lvd-142m", "lvd-1689m")
"""Collections of images from the web whose contents are not published: there may be radiographs among them."""


def read_description(init: str) -> WeightDescription | None:
    """What the JSON beside the weights that ``init`` names says; None where there is none of ours.

    Raises:
        InputError: ``init`` names neither known weights, nor a run, nor a file; or the description is damaged, or of other
            weights.
    """
    if init == "random" or named(init) is not None:
        return None
    weights = _weight_file(init)
    beside = weights.with_suffix(".json")
    described = read_weight_description(beside) if beside.is_file() else None
    if described is not None and described.sha256 != sha256(weights):
        raise InputError(
            f"{beside} describes other weights than {weights.name}: copied by halves? Copy both files again"
        )
    return described


def read_model_description(init: str) -> ModelDescription | None:
    """The description of the detector or classifier that ``init`` names; None where it names something else.

    Raises:
        InputError: the description is damaged, or of other weights.
    """
    described = read_description(init)
    if described is None or described.kind == "backbone":
        return None
    return read_whole_description(_weight_file(init).with_suffix(".json"))


def read_initial(init: str) -> Tensors:
    """All tensors of initial weights, heads included, by their names in the file.

    Raises:
        InputError: the file cannot be fetched or read.
    """
    public = named(init)
    path = _weight_file(init) if public is None else public.file or published_file(public.row)
    return max(read_tensors(path).values(), key=len)


def settled_arch(arch: str, init: str, default: str = "") -> str:
    """The architecture of a run: the one that was given, or that of its initial weights.

    Args:
        arch: value of ``--arch``; empty where it was not given.
        init: initial weights.
        default: architecture where neither says one; empty to refuse.

    Raises:
        InputError: published weights of another architecture, or ones that cannot be loaded or whose network is not
            installed; or nothing says the architecture, and whoever compares arms must say what they share.
    """
    public = named(init)
    if public is not None:
        _check_can_load(public.row)
        check_network(public.row)
        if arch and public.row.arch.value:
            _check_arch(public.row, arch)
        if found := arch or public.row.arch.value:
            return found
    elif arch:
        return arch
    elif (described := read_description(init)) is not None:
        return described.arch
    if default:
        return default
    raise InputError(
        f"expected --arch with --init {init}: name the architecture that all arms of the comparison share"
    )


def settled_size(size: int, init: str) -> int:
    """The side of a network's input: the one that was given, or that of its initial weights; 0 where neither says one."""
    public = named(init)
    if size:
        return size
    if public is not None:  # a detector's own 800 pixels are no default for anything else
        return 0 if public.row.detector else public.row.size.value or 0
    described = read_description(init)
    return described.size if described is not None else 0


def _check_can_load(row: PublicWeights) -> None:
    if row.refused:
        raise InputError(f"the weights {row.name} cannot be loaded: {row.refused}")


def _check_arch(row: PublicWeights, arch: str) -> None:
    wanted = row.arch.value
    if wanted and arch.partition(".")[0] != wanted.partition(".")[0]:
        raise InputError(
            f"the weights {row.name} are of the architecture {wanted}, not {arch}; leave --arch out, or choose other weights"
        )


def _fetched(backbone: Backbone, row: PublicWeights) -> _Read:
    place = row.place.value
    if place.how == "timm" and isinstance(backbone, TimmBackbone):
        state, source, digest = pretrained_state(backbone, place.where)
        return _Read({"": state}, source, digest)
    path = published_file(row)
    source = str(path) if place.how == "package" else f"{place.where} {place.file}".strip()
    return _Read(read_tensors(path), source, sha256(path))


def _classifier(backbone: Backbone, row: PublicWeights) -> tuple[_Read, Any]:
    """ImageNet weights of any architecture: torchvision's or timm's, each with its own statistics."""
    if row.place.value.how == "hand":
        raise InputError(
            f"{row.name} is a layout of people's own files; give the file with --init {row.name}=FILE"
        )
    if not isinstance(backbone, TimmBackbone):
        state, source, file = torchvision_classifier(backbone.arch, row.place.value.where)
        return _Read({"": state}, source, sha256(file) if file.is_file() else ""), row.pixels.value
    if row.name != "imagenet-v1":
        raise InputError(
            f"timm has no {row.name} weights for {backbone.arch}; choose --init imagenet-v1, timm's published weights"
        )
    state, source, digest = pretrained_state(backbone)
    return _Read({"": state}, source, digest), published_pixels(backbone)


def _weight_file(init: str) -> Path:
    path = Path(init)
    if path.is_dir():
        for name in RUN_WEIGHTS:
            if (path / name).is_file():
                return path / name
        raise InputError(
            f"expected {' or '.join(RUN_WEIGHTS)} in the run {path}, found neither: did the run finish? (see --resume)"
        )
    if not path.is_file():
        close = close_names(init)
        hint = f"; did you mean {close}?" if close else ""
        raise InputError(
            f"expected --init to be random, a name that twinray weights lists, NAME=FILE, a run's folder or a weight file; "
            f"{init!r} is none of these{hint}"
        )
    return path


def _fill(backbone: Backbone, read: _Read, layouts: Sequence[str] = ()) -> Match:
    """Fill every tensor of ``backbone``, or refuse; nothing is loaded in part."""
    match = best_match(backbone, read.tensors, read.source, layouts)
    if not match.complete:
        raise InputError(_does_not_fit(backbone.arch, match, read.source))
    check_values(read.tensors[match.place], read.source)
    own = backbone.state_dict()
    for name, tensor in match.state.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise InputError(
                f"{read.source}: the tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}, not real numbers "
                "(quantised weights?); give the weights that it was made from"
            )
    backbone.load_state_dict({key: match.state.get(key, own[key]) for key in own}, strict=True)
    return match


def _does_not_fit(arch: str, match: Match, source: str) -> str:
    if not match.fitting and not match.misshaped:
        names = match.unexpected
        heads = {name.partition(".")[0] for name in names}
        called = f"all begin with the prefix {heads.pop()!r}" if len(heads) == 1 else _some(names)
        return (
            f"weights in {source} do not fit {arch}: no name of a tensor ends as one of the network ({called}); "
            "pass the --arch that they were trained with, or export the network's own state_dict"
        )
    wrong = f"; of another shape: {_some(match.misshaped)}" if match.misshaped else ""
    lacking = f"; missing: {_some(match.missing)}" if match.missing else ""
    extra = f"; unexpected: {_some(match.unexpected)}" if match.unexpected else ""
    prefix = f", read behind the prefix {match.prefix!r}" if match.prefix else ""
    return (
        f"weights in {source} do not fit {arch}: {match.fitting} of {match.wanted} tensors fit{prefix}{lacking}{wrong}{extra}; "
        "pass the --arch that they were trained with"
    )


def _some(keys: Sequence[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
