"""Backbones from timm (Wightman 2019, PyTorch Image Models), an optional extra, behind the same contract.

Names of the state dict, random initial weights and pre-trained weights are timm's own: a saved
backbone loads straight into ``timm.create_model(NAME, num_classes=0)``. Some facts timm does not
say alike for all its networks: width of the pooled features, which maps have which stride, which
layers make them. They are found by running the network once.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from twinray.backbones.contract import (
    LAST_MAP,
    PATCH_STRIDES,
    STAGE_STRIDES,
    Backbone,
    Channels,
)
from twinray.errors import InputError
from twinray.files import sha256
from twinray.runs.description import Normalisation

PREFIX: Final = "timm/"
"""Before the names of timm's networks: bare names are torchvision's, and both have a resnet50."""
_NET = "net."
_CANNOT_RUN = (AssertionError, RuntimeError, TypeError, ValueError, IndexError, AttributeError)
"""What timm's networks raise on options and sizes that they do not take."""


@dataclass(frozen=True, slots=True)
class _Stages:
    """Where a network's maps are: places among its intermediate maps, channels, stage of each parameter's name.

    ``patch`` is 0 where there are four stages.
    """

    indices: tuple[int, ...]
    channels: Channels
    owner: dict[str, int]
    patch: int = 0


@final
class TimmBackbone(Backbone):
    """A network of timm without its classifier.

    Args:
        arch: ``timm/NAME``.
        net: the network, made with ``num_classes=0``.
        features: width of its output.
        side: side of the images that it is known to take, pixels.
        options: arguments that timm's ``create_model`` was given besides the name.
    """

    def __init__(
        self, arch: str, net: nn.Module, features: int, side: int, options: dict[str, Any]
    ) -> None:
        super().__init__()
        self.arch, self.features = arch, features
        self.side, self.options = side, options
        self.net = net
        self._found: _Stages | None = None
        self.register_state_dict_post_hook(_without_net)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_net)  # type: ignore[no-untyped-call]

    @property
    def patch(self) -> int:
        """Side of a plain transformer's patches, pixels; 0 for a network with four stages."""
        return self._stages().patch

    @property
    def stage_channels(self) -> Channels:
        """Channels of c2..c5, or of the last map; refuses networks without them, as ``stages`` does."""
        return self._stages().channels

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of (b, 3, h, w) normalised images, by stage name, each (b, c, h / stride, w / stride)."""
        found = self._stages()
        if found.patch:
            return {LAST_MAP: _last_map(self.net, x)}
        maps = self.net.forward_intermediates(
            x, indices=list(found.indices), output_fmt="NCHW", intermediates_only=True
        )  # type: ignore[operator]
        if self.moved and not x.shape[-1] % STAGE_STRIDES["c5"]:
            maps = [_one_cell_on(m) for m in maps]
        return dict(zip(STAGE_STRIDES, maps, strict=True))

    @property
    def name(self) -> str:
        """timm's name of the network, without options."""
        return _named(self.arch)[0]

    @property
    def indices(self) -> tuple[int, ...]:
        """Places of the maps c2..c5 among timm's intermediate maps; none of a plain transformer."""
        return self._stages().indices

    @property
    def moved(self) -> bool:
        """Whether :meth:`stages` moves maps by one cell, at sides that 32 divides."""
        return self.aligned and self._pads_late

    @cached_property
    def _pads_late(self) -> bool:
        """Whether layers of stride 2 pad as TensorFlow does: at even sides with a pixel more at the right and below."""
        late = importlib.import_module("timm.layers").Conv2dSame
        return any(isinstance(m, late) and m.stride[0] > 1 for m in self.net.modules())

    def stage_of(self, name: str) -> int | None:
        """0 for the stem, 1..4 for what comes after it up to c2..c5; None for what only the pooled features need.

        Of a plain transformer 1..4 are the quarters of its blocks, the final norm with the last.
        """
        return self._stages().owner.get(name)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """``stem``, then the stages or blocks that timm groups the parameters by, as ``stages.2`` or ``blocks.11``.

        What timm groups with the last of them (a final norm) belongs to it.
        """
        matcher = getattr(self.net, "group_matcher", None)
        names = [name for name, _ in self.net.named_parameters()]
        if matcher is None:
            groups = [[name] for name in names]
        else:
            manipulate = importlib.import_module("timm.models")
            groups = list(manipulate.group_parameters(self.net, matcher(coarse=True)).values())
        parts: dict[str, tuple[str, ...]] = {}
        for i, group in enumerate(groups):
            part = "stem" if i == 0 and matcher is not None else _part_of(group[0])
            parts[part] = (*parts.get(part, ()), *(_NET + name for name in group))
        return parts

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (b, d) of (b, 3, h, w) normalised images, as timm pools them."""
        features: Tensor = self.net(x)
        return features

    def _stages(self) -> _Stages:
        if self._found is None:
            self._found = self._find_stages()
        return self._found

    def _find_stages(self) -> _Stages:
        maps = _intermediate_maps(self.net, self.side)
        sides = [m.shape[-1] for m in maps]
        last = {name: _last(sides, self.side / stride) for name, stride in STAGE_STRIDES.items()}
        indices = tuple(index for index in last.values() if index is not None)
        if len(indices) < len(STAGE_STRIDES):
            strides = sorted({round(self.side / side) for side in sides})
            if len(set(sides)) == 1 and self.side == strides[0] * sides[0] and strides[0] in PATCH_STRIDES:  # fmt: skip
                return self._plain(strides[0])
            have = (
                f"has maps at strides {', '.join(map(str, strides))}" if strides else "gives none"
            )
            raise InputError(
                "expected --arch to be a network with feature maps at strides 4, 8, 16 and 32, or a plain transformer with "
                f"patches of {', '.join(map(str, PATCH_STRIDES))} pixels, which a feature pyramid needs; {self.arch} {have}: "
                f"pretrain and classify take it, for detect choose another, such as {PREFIX}convnext_tiny"
            )
        chosen = [maps[index] for index in indices]
        return _Stages(indices, tuple(m.shape[1] for m in chosen), self._owners(chosen))

    def _plain(self, patch: int) -> _Stages:
        """A plain transformer: one map, and the quarters of its blocks as stages."""
        with _evaluating(self.net), torch.enable_grad():
            for parameter in self.net.parameters():
                parameter.requires_grad_(True)
            last = _last_map(self.net, _blank(self.net, self.side))
        used = _computed_from(last)
        reached = {name for name, parameter in self.named_parameters() if id(parameter) in used}
        # some networks have parts after the last map: a norm of the pooled features, blocks of the class token alone
        parts = [names for names in self.parts().values() if reached.intersection(names)]
        depth = max(len(parts) - 1, 1)
        owner: dict[str, int] = {}
        for place, names in enumerate(parts):  # part 0 is the stem
            stage = 0 if place == 0 else 1 + (place - 1) * len(STAGE_STRIDES) // depth
            owner |= {name: stage for name in names if name in reached}
        modules = {name.rpartition(".")[0]: stage for name, stage in owner.items()}
        return _Stages((), (last.shape[1],), modules | owner, patch)

    def _owners(self, chosen: list[Tensor]) -> dict[str, int]:
        """The stage of each parameter and of the module that holds it, from what each map was computed from."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        first = _NET + _first_stage(self.net) + "."
        owner: dict[str, int] = {}
        for stage, feature in enumerate(chosen, start=1):
            for name in sorted(names[i] for i in _computed_from(feature) if i in names):
                in_stem = stage == 1 and not name.startswith(first)
                owner.setdefault(name, 0 if in_stem else stage)
        modules = {name.rpartition(".")[0]: stage for name, stage in owner.items()}
        return modules | owner


def build_timm(arch: str, seed: int, size: int | None, drop_path: float = 0.0) -> TimmBackbone:
    """A network of timm with timm's random initial weights, drawn from ``seed`` alone.

    Networks with position embeddings are built to take any size, with the embeddings of the
    published one. Their weights can so be carried from one size to another. The few networks that
    cannot take any size are built for ``size``.

    Args:
        arch: ``timm/NAME`` or ``timm/NAME.TAG``; ``?option=whole number&...`` after it goes to timm's constructor.
        seed: seed of the random weights.
        size: side of the square images it will see, pixels; None for the size the network was published with.
        drop_path: stochastic depth of the last block in training.

    Raises:
        InputError: timm is not installed or does not know the name; a network that does not take the size or
            ``drop_path``, or gives no pooled features.
    """
    timm = _timm(arch)
    name, given = _named(arch)
    if drop_path:
        given = {**given, "drop_path_rate": drop_path}
    published = _published(timm, name)
    fixed = published is not None and published.fixed_input_size
    side = size or (int(published.input_size[-1]) if published is not None else 224)
    attempts: list[dict[str, Any]] = (
        [{"dynamic_img_size": True}, {"img_size": side}, {}] if fixed else [{}]
    )
    net, options = _create(timm, name, seed, [{**attempt, **given} for attempt in attempts])
    try:
        shape = _output_shape(net, side)
    except _CANNOT_RUN as error:
        raise InputError(
            f"{arch} cannot take images of {side} pixels ({_words(error)}); choose another --size{_sizes(net, side)} or --arch"
        ) from error
    if len(shape) != 2:
        raise InputError(
            f"expected --arch to be a network with pooled features, {arch} gives {shape}; choose another"
        )
    return TimmBackbone(arch, net, shape[1], side, options)


def timm_parameters(arch: str) -> list[str]:
    """Names of a network's parameters.

    Raises:
        InputError: timm is not installed, does not know the name, or cannot make it.
    """
    timm = _timm(arch)
    name, given = _named(arch)
    _published(timm, name)
    net, _ = _create(timm, name, 0, [given])
    return [own for own, _ in net.named_parameters()]


def _sizes(net: nn.Module, side: int) -> str:
    """The sizes around one that do not cut a patch, for a message; empty where the patch is not known."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    step = patch[0] if isinstance(patch, tuple) else patch
    if not isinstance(step, int) or step < 2 or side % step == 0:
        return ""
    below = side // step * step
    return f" ({f'{below} or ' if below else ''}{below + step})"


def _named(arch: str) -> tuple[str, dict[str, Any]]:
    """timm's name of an architecture, and the options in it (``timm/vit_small_patch16_224?num_heads=12``)."""
    name, _, text = arch.removeprefix(PREFIX).partition("?")
    options: dict[str, Any] = {}
    for option in filter(None, text.split("&")):
        key, _, value = option.partition("=")
        if not (key.isidentifier() and value.isdecimal()):
            raise InputError(
                f"expected options of an --arch as NAME=whole number, joined by &, got {option!r} in {arch}"
            )
        options[key] = int(value)
    return name, options


def _create(
    timm: Any, name: str, seed: int, attempts: list[dict[str, Any]]
) -> tuple[nn.Module, dict[str, Any]]:
    """The network made with the first of the options that its constructor takes, and those options."""
    for options in attempts:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return timm.create_model(name, num_classes=0, **options), options
            except _CANNOT_RUN as error:
                reason = _words(error)
    raise InputError(
        f"timm {timm.__version__} cannot make {name} without its classifier ({reason}); choose another --arch"
    )


def timm_knows(name: str) -> bool:
    """Whether timm is installed and has a network of that name."""
    try:
        return bool(_timm(name).is_model(name))
    except InputError:
        return False


def published_pixels(backbone: TimmBackbone) -> Normalisation:
    """Statistics of the weights that timm publishes for a network, those of its tag."""
    published = _published(_timm(backbone.arch), _named(backbone.arch)[0])
    mean, std = (tuple(map(float, values)) for values in (published.mean, published.std))
    return Normalisation(_triple(mean), _triple(std))


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


def pretrained_state(
    backbone: TimmBackbone, tagged: str = ""
) -> tuple[dict[str, Tensor], str, str]:
    """timm's published weights of a network, through timm's own loader and its cache.

    Args:
        backbone: network.
        tagged: timm's name with a tag; empty for that of the architecture.

    Returns:
        The state dict with the classifier, timm's name of the weights, and the SHA-256 of the file.
        The SHA-256 is empty where the loader keeps the file in a place of its own.

    Raises:
        InputError: there are none, they cannot be fetched, or they leave tensors of the network unfilled.
    """
    timm = _timm(backbone.arch)
    name = tagged or _named(backbone.arch)[0]
    published = _published(timm, name)
    if published is None or not published.has_weights:
        raise InputError(
            f"timm has no pre-trained weights of {name}; choose --init random, a run or a file"
        )
    source = f"{PREFIX}{published.architecture}.{published.tag}"
    with torch.random.fork_rng(devices=[]), _unfilled() as missing:
        try:
            # With the classifier that the weights have: timm then refuses what does not fit, instead of passing over it.
            net = timm.create_model(name, pretrained=True, **backbone.options)
        except Exception as error:  # the hub's, the network's and two file formats' errors
            raise InputError(
                f"could not fetch {source} ({_words(error)}); without a network, "
                f"load it once with timm.create_model({name!r}, pretrained=True) on another machine and copy that machine's "
                "Hugging Face cache (HF_HOME) here, or name a file of these weights with --init FILE"
            ) from error
    if missing:
        raise InputError(
            f"{source} leaves tensors of {name} unfilled: {missing[0][:200]}; choose another tag (NAME.TAG)"
        )
    return dict(net.state_dict()), source, _digest(published)


def _part_of(name: str) -> str:
    """A parameter's name up to the first number in it (``blocks.3``, ``layer4``), or without the tensor's own name."""
    pieces = name.split(".")
    numbered = next(
        (i for i, piece in enumerate(pieces[:-1]) if any(c.isdigit() for c in piece)),
        len(pieces) - 2,
    )
    return ".".join(pieces[: max(numbered + 1, 1)])


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _timm(arch: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise InputError(
            f"--arch {arch} needs timm, which is not installed: pip install 'twinray[timm]'"
        ) from error


def _published(timm: Any, name: str) -> Any:
    """timm's record of the network's weights (input size, where they are); None for a network without."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=4)
        hint = (
            f"did you mean {', '.join(PREFIX + one for one in close)}?"
            if close
            else "see timm.list_models()"
        )
        raise InputError(f"timm {timm.__version__} has no network {name!r}; {hint}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = sorted(full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(name))
        raise InputError(
            f"timm {timm.__version__} has no weights {name!r}; of {name.partition('.')[0]} it has the tags {', '.join(tags)}"
        ) from error


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode, no change of modes, gradients' flags or global randomness afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    net.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, learns in flags:
            parameter.requires_grad_(learns)


def _one_cell_on(maps: Tensor) -> Tensor:
    """Maps (b, c, h, w) moved by one cell to the right and down; the first row and column stand twice.

    Under TensorFlow's padding cell i of stride s looks at the pixel s * i + s - 1, so after this at s * i - 1, at every stride.
    """
    down = torch.cat([maps[..., :1, :], maps[..., :-1, :]], dim=-2)
    return torch.cat([down[..., :1], down[..., :-1]], dim=-1)


def _blank(net: nn.Module, side: int) -> Tensor:
    return torch.zeros(1, 3, side, side, device=next(net.parameters()).device)


def _output_shape(net: nn.Module, side: int) -> tuple[int, ...]:
    with _evaluating(net), torch.no_grad():
        out = net(_blank(net, side))
    return tuple(out.shape) if isinstance(out, Tensor) else ()


def _intermediate_maps(net: nn.Module, side: int) -> list[Tensor]:
    """All intermediate maps (1, c, h, w) of a blank image, with the graph that they were computed by; empty without."""
    forward: Callable[..., list[Tensor]] | None = getattr(net, "forward_intermediates", None)
    if forward is None:
        return []
    with _evaluating(net), torch.enable_grad():
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        try:
            maps = forward(_blank(net, side), output_fmt="NCHW", intermediates_only=True)
        except _CANNOT_RUN:
            return []
    return [m for m in maps if isinstance(m, Tensor) and m.ndim == 4]


def _last_map(net: nn.Module, x: Tensor) -> Tensor:
    """(b, c, h, w): the patch tokens of a plain transformer after its last block and its final norm."""
    (last,) = net.forward_intermediates(
        x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
    )  # type: ignore[operator]
    found: Tensor = last
    return found


def _last(sides: list[int], wanted: float) -> int | None:
    """The last of the maps with that side; a side between two whole numbers may have been rounded up or down."""
    found = [index for index, side in enumerate(sides) if abs(side - wanted) < 1]
    return found[-1] if found else None


def _first_stage(net: nn.Module) -> str:
    """Name of the module that ends with c2, as timm records it; what comes before it is the stem."""
    records: Any = getattr(net, "feature_info", [])
    names = [
        str(record["module"]) for record in records if record["reduction"] == STAGE_STRIDES["c2"]
    ]
    return names[-1] if names else ""


def _computed_from(feature: Tensor) -> set[int]:
    """Ids of the parameters that a tensor was computed from."""
    waiting, seen, parameters = [feature.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # where the graph ends in a parameter
            parameters.add(id(node.variable))
        waiting += [before for before, _ in node.next_functions]
    return parameters


@contextmanager
def _unfilled() -> Iterator[list[str]]:
    """timm's messages on tensors that a weight file left as they were: some networks are loaded leniently."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Missing keys"):
                found.append(record.getMessage())

    logger, listener = logging.getLogger("timm.models._builder"), Listener(logging.INFO)
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def _digest(published: Any) -> str:
    """SHA-256 of the weight file in the cache of the hub or of torch."""
    names = (
        [published.hf_hub_filename]
        if published.hf_hub_filename
        else ["model.safetensors", "pytorch_model.bin"]
    )
    if published.hf_hub_id:
        hub = importlib.import_module("huggingface_hub")
        for name in names:
            found = hub.try_to_load_from_cache(published.hf_hub_id, name)
            if isinstance(found, str):
                return sha256(Path(found))
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url or "none").name
    return sha256(file) if published.url and file.is_file() else ""


def _without_net(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """State-dict hook: the names that timm gives, without the attribute that holds the network."""
    del module, local_metadata
    for key in [key for key in state if key.startswith(prefix + _NET)]:
        state[prefix + key[len(prefix + _NET) :]] = state.pop(key)


def _with_net(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Hook before loading: back to the names inside."""
    del module, rest
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _NET + key[len(prefix) :]] = state.pop(key)
