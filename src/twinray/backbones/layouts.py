"""Which tensor of a file goes where in a network: prefixes, other spellings, other tools' names.

The prefix is taken from the file, not from a list: what stands before the network's own names.
A file with two networks (a query and a momentum encoder, a student and a teacher) gives the one that
its authors evaluate, and the line says which.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from twinray.backbones.contract import Backbone
from twinray.backbones.timm_backbone import TimmBackbone
from twinray.backbones.weight_file import Tensors
from twinray.errors import InputError

_COUNTER = "num_batches_tracked"
"""Batches that a batch norm has seen: a counter, not a weight, that a file need not hold."""

_FIRST: Final = re.compile(r"(^|\.)teacher(\.|$)")
"""The network that its authors evaluate wherever a file has it (DINO, Ark)."""
_SECOND: Final = re.compile(
    r"(^|\.)(encoder_k|key_encoder|momentum\w*|\w+_momentum|target\w*|student\w*|ema|\w+_ema|shadow)(\.|$)"
)
"""Networks beside the one to use: momentum copies, averages, students."""

_SEQUENTIAL: Final = {"conv1": "0", "bn1": "1"} | {f"layer{i}": str(i + 3) for i in range(1, 5)}
"""A ResNet's children in order, as ``nn.Sequential(*children)`` numbers them (lightly's examples, RadImageNet)."""


@dataclass(frozen=True)
class Match:
    """How the tensors of a file meet a network.

    Attributes:
        layout: the spelling of the names.
        place: entry of the file that was used, empty for the file itself.
        prefix: what stands before every name.
        state: the network's names -> tensors of the file, in the network's shapes.
        missing: names of the network without a tensor, counters left out.
        misshaped: names whose tensor has another shape.
        unexpected: the file's names without a place in the network (its classifier, a projector).
        wanted: number of the network's tensors, counters left out.
        notes: changes of shape that leave the function as it was, other networks in the file.
    """

    layout: str
    place: str
    prefix: str
    state: Mapping[str, Tensor] = field(repr=False)
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]
    unexpected: tuple[str, ...]
    wanted: int
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network is filled."""
        return not self.missing and not self.misshaped

    @property
    def fitting(self) -> int:
        """Number of the network's tensors that the file fills, counters left out."""
        return self.wanted - len(self.missing) - len(self.misshaped)


def is_counter(name: str) -> bool:
    """Whether a tensor of that name counts batches, which is no weight."""
    return name.endswith(_COUNTER)


def best_match(
    backbone: Backbone,
    dictionaries: Mapping[str, Tensors],
    source: str,
    layouts: Sequence[str] = (),
) -> Match:
    """The reading of a file that fills most of a network.

    Args:
        backbone: network to fill; not changed.
        dictionaries: tensors of the file, as :func:`read_tensors` gives them.
        source: name of the file in a message.
        layouts: spellings to accept; empty for any.

    Returns:
        The best reading, complete or not.

    Raises:
        InputError: two networks of the file fill it, and nothing says which is meant.
    """
    own = backbone.state_dict()
    matches: list[Match] = []
    complete: list[Match] = []
    for readings in (_named, _converted):  # a conversion is asked only where names do not say it
        for place, tensors in dictionaries.items():
            found = readings(backbone, own, place, tensors)
            matches += [match for match in found if not layouts or match.layout in layouts]
        if complete := [match for match in matches if match.complete]:
            break
    if not matches:
        return _nothing(own, dictionaries)
    if not complete:
        return max(matches, key=lambda m: (m.fitting, -len(m.prefix)))
    ranked = sorted(complete, key=_rank)
    best = ranked[0]
    others = [m for m in ranked[1:] if m.layout == best.layout and not _equal(m, best)]
    rivals = [m for m in others if _rank(m)[0] == _rank(best)[0]]
    if rivals:
        raise InputError(
            f"{source} holds several networks that fit {backbone.arch}, with the prefixes "
            f"{', '.join(repr(_whole(m)) for m in (best, *rivals))}; save the one that you mean to a file of its own"
        )
    if others:
        told = f"of the networks in the file, {_whole(best)!r} was taken, not {_whole(others[0])!r}"
        best = dataclasses.replace(best, notes=(*best.notes, told))
    return best


def _whole(match: Match) -> str:
    return f"{match.place}{':' if match.place else ''}{match.prefix}"


def _rank(match: Match) -> tuple[int, bool, int]:
    """The network to use before its copies, names as they stand before renamed ones, short prefixes first."""
    whole = f"{match.place}.{match.prefix}"
    place = 0 if _FIRST.search(whole) else 2 if _SECOND.search(whole) else 1
    return place, match.layout != "own names", len(whole)


def _equal(a: Match, b: Match) -> bool:
    return all(torch.equal(tensor, b.state[name]) for name, tensor in a.state.items())


def _named(
    backbone: Backbone, own: Mapping[str, Tensor], place: str, tensors: Tensors
) -> Iterator[Match]:
    for layout, names in _spellings(backbone, own).items():
        known = set(names.values())
        for prefix in _prefixes(tensors, known):
            yield _match(own, tensors, names, layout, place, prefix)


def _converted(
    backbone: Backbone, own: Mapping[str, Tensor], place: str, tensors: Tensors
) -> Iterator[Match]:
    names = {name: name for name in own}
    for layout, convert in _CONVERSIONS.items():
        for prefix, state in convert(backbone, tensors):
            yield dataclasses.replace(_match(own, state, names, layout, place, ""), prefix=prefix)


def _spellings(backbone: Backbone, own: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Layout -> the network's name of a tensor -> the file's, for layouts that differ in names alone."""
    found = {"own names": {name: name for name in own}}
    if "layer4.0.conv1.weight" in own:
        found["numbered children"] = {
            name: ".".join((_SEQUENTIAL.get(head, head), rest))
            for name in own
            for head, _, rest in [name.partition(".")]
        }
    if isinstance(backbone, TimmBackbone) and "conv_stem.weight" in own:
        found["efficientnet_pytorch"] = _efficientnet_names(own)
    return found


def _prefixes(tensors: Tensors, known: set[str]) -> set[str]:
    """What stands in a file before the names of a network; counters tell nothing."""
    found = set()
    for key in tensors:
        if is_counter(key):
            continue
        at = 0
        while at >= 0:
            if key[at:] in known:
                found.add(key[:at])
            dot = key.find(".", at)
            at = dot + 1 if dot >= 0 else -1
    return found


def _match(
    own: Mapping[str, Tensor],
    tensors: Tensors,
    names: Mapping[str, str],
    layout: str,
    place: str,
    prefix: str,
) -> Match:
    state, missing, misshaped, notes = {}, [], [], []
    for name, value in own.items():
        tensor = tensors.get(prefix + names[name])
        if tensor is None:
            if not is_counter(name):
                missing.append(name)
            continue
        if tensor.shape != value.shape and not is_counter(name):
            spread = _spread(tensor, value)
            if spread is None:
                misshaped.append(name)
                continue
            tensor = spread
            notes.append(
                f"the first convolution ({name}) takes one channel: it was spread over three equal ones, "
                "which computes the same of a grey image"
            )
        state[name] = tensor
    used = {prefix + file_name for file_name in names.values()}
    unexpected = (
        key.removeprefix(prefix) if key.startswith(prefix) else f"(other) {key}"
        for key in tensors
        if key not in used
    )
    return Match(
        layout=layout,
        place=place,
        prefix=prefix,
        state=state,
        missing=tuple(sorted(missing)),
        misshaped=tuple(sorted(misshaped)),
        unexpected=tuple(sorted(unexpected)),
        wanted=sum(not is_counter(name) for name in own),
        notes=tuple(notes),
    )


def _spread(tensor: Tensor, value: Tensor) -> Tensor | None:
    """A (c, 1, h, w) convolution of grey images as (c, 3, h, w): grey stands in all three channels."""
    if tensor.ndim != 4 or tensor.shape[1] != 1 or value.shape[1:2] != (3,):
        return None
    if (tensor.shape[0], *tensor.shape[2:]) != (value.shape[0], *value.shape[2:]):
        return None
    return (tensor / 3).expand(-1, 3, -1, -1).contiguous()


def _nothing(own: Mapping[str, Tensor], dictionaries: Mapping[str, Tensors]) -> Match:
    """No name of the file ends as one of the network."""
    place, tensors = max(dictionaries.items(), key=lambda item: len(item[1]))
    wanted = tuple(sorted(name for name in own if not is_counter(name)))
    return Match("unknown", place, "", {}, wanted, (), tuple(sorted(tensors)), len(wanted))


def _efficientnet_names(own: Mapping[str, Tensor]) -> dict[str, str]:
    """timm's names -> those of efficientnet_pytorch (lukemelas), which number the blocks through."""
    blocks = sorted(
        {
            (int(found[1]), int(found[2]))
            for name in own
            if (found := re.match(r"blocks\.(\d+)\.(\d+)\.", name))
        }
    )
    number = {block: i for i, block in enumerate(blocks)}
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    depthwise = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    depthwise |= {"bn2": "_bn2"}  # a block without expansion
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    inverted |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    squeeze = {"conv_reduce": "_se_reduce", "conv_expand": "_se_expand"}
    names: dict[str, str] = {}
    for name in own:
        parts = name.split(".")
        if parts[0] != "blocks":
            names[name] = ".".join((ends.get(parts[0], parts[0]), *parts[1:]))
            continue
        stage, block, module, *rest = parts[1], parts[2], parts[3], *parts[4:]
        expands = f"blocks.{stage}.{block}.conv_pwl.weight" in own
        if module == "se":
            module, rest = squeeze.get(rest[0], rest[0]), rest[1:]
        else:
            module = (inverted if expands else depthwise).get(module, module)
        names[name] = ".".join(("_blocks", str(number[int(stage), int(block)]), module, *rest))
    return names


_Converted = Iterator[tuple[str, Tensors]]


def _transformers_dinov2(backbone: Backbone, tensors: Tensors) -> _Converted:
    """Hugging Face transformers' names of DINOv2 -> DINOv2's own (convert_dinov2_to_hf.py, read backwards)."""
    mark = "embeddings.patch_embeddings.projection.weight"
    for key in [key for key in tensors if key.endswith(mark)]:
        prefix = key[: -len(mark)]
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        yield prefix, _dinov2_to_timm(_from_transformers(state))


_TRANSFORMERS: Final = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"^layernorm\.", "norm."),
)
"""Names of transformers 4 and 5 (which renamed the attention) -> DINOv2's."""


def _from_transformers(state: Tensors) -> Tensors:
    renamed: Tensors = {}
    for key, value in state.items():
        name = key
        for pattern, new in _TRANSFORMERS:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    for name in [name for name in renamed if ".attn.query." in name]:
        thirds = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(third in renamed for third in thirds):
            joined = torch.cat([renamed.pop(third) for third in thirds])
            renamed[name.replace(".query.", ".qkv.")] = joined
    return renamed


def _own_dinov2(backbone: Backbone, tensors: Tensors) -> _Converted:
    """DINOv2's own files: ``register_tokens`` and ``mask_token`` are what timm's names differ in."""
    mark = "patch_embed.proj.weight"
    for key in [key for key in tensors if key.endswith(mark)]:
        prefix = key[: -len(mark)]
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if "mask_token" in state or "register_tokens" in state:
            yield prefix, _dinov2_to_timm(state)


def _dinov2_to_timm(state: Tensors) -> Tensors:
    """As timm's own conversion: with registers, the class token takes its position in."""
    state = dict(state)
    state.pop("mask_token", None)
    registers = state.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= state.keys():
        state["reg_token"] = registers
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def _timms_filter(backbone: Backbone, tensors: Tensors) -> _Converted:
    """What timm itself makes of the original files of a family (ConvNeXt, DINOv3, EVA, Swin)."""
    if not isinstance(backbone, TimmBackbone):
        return
    module = importlib.import_module(type(backbone.net).__module__)
    convert: Callable[[Any, nn.Module], Any] | None = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return
    patch = "patch_embed.proj.weight"
    own = backbone.state_dict().get(patch)
    for prefix in _wrappers(tensors):
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        given = state.get(patch)
        if own is not None and given is not None and given.shape[2:] != own.shape[2:]:
            continue  # timm would resample the patches: another network, without a word
        try:
            yield prefix, dict(convert(state, backbone.net))
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError):
            continue


def _wrappers(tensors: Tensors) -> list[str]:
    """Prefixes that wrap a whole file, and none."""
    found = [""]
    for wrapper in ("module.", "_orig_mod.", "backbone.", "encoder.", "teacher.", "student."):
        more = [old + wrapper for old in found if any(k.startswith(old + wrapper) for k in tensors)]
        found += more
    return found


_CONVERSIONS: Final[Mapping[str, Callable[[Backbone, Tensors], _Converted]]] = {
    "transformers' DINOv2": _transformers_dinov2,
    "DINOv2": _own_dinov2,
    "timm's original files": _timms_filter,
}
