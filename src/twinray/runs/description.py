"""``model.json``: what a finished detect or classify run says of its weights, read and checked without torch.

Whatever loads or compares a model starts here, so that a damaged description is refused once, in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from twinray.data.decoding.options import Decoded
from twinray.errors import InputError
from twinray.files import read_json, typed
from twinray.geometry import Fit

MODEL = "model.json"

_Rule = tuple[str, Callable[[Any], bool], str]


def read_description(path: Path) -> dict[str, Any]:
    """The description beside the weights of a detector or classifier, with every key that its readers rely on.

    Args:
        path: path of ``model.json``.

    Raises:
        InputError: it is missing, not JSON, lacks a key, or holds something else under it; file and key are named.
    """
    described = read_json(path, "weight description")
    if not isinstance(described, dict):
        raise InputError(
            f"expected the description of a model in {path}, found {_kind(described)}; was it edited?"
        )
    kind = described.get("kind")
    check_keys(described, _RULES + (_OF_DETECTORS if kind == "detector" else _OF_CLASSIFIERS), path)
    check_keys(described["pack"], _OF_PACKS, path, "pack.")
    decoded_of(described, path)
    return described


def decoded_of(described: Mapping[str, Any], path: Path) -> Decoded:
    """How the files of the pack became pixels that a model learned from; earlier versions did not say it.

    Args:
        described: result of :func:`read_description`.
        path: path of ``model.json``, for messages.

    Raises:
        InputError: it says something that cannot be.
    """
    said = described["pack"].get("decoded")
    return Decoded() if said is None else typed(said, Decoded, path, "pack.decoded in")


def check_keys(
    values: Mapping[str, Any], rules: Sequence[_Rule], path: Path, inside: str = ""
) -> None:
    """Refuse the first key that is missing or holds something unexpected.

    Args:
        values: values that are checked.
        rules: (key, whether its value will do, what is expected).
        path: the file, for messages.
        inside: text that comes before the key in messages, as in ``pack.size``.

    Raises:
        InputError: naming file, key, expectation and value.
    """
    for key, will_do, expected in rules:
        if key not in values:
            raise InputError(
                f"{path}: expected the key {inside}{key} ({expected}), it is missing; was it edited?"
            )
        if not will_do(values[key]):
            came = (
                _kind(values[key])
                if isinstance(values[key], dict | list)
                else json.dumps(values[key])
            )
            raise InputError(
                f"{path}: expected {inside}{key} to be {expected}, found {came:.80}; was it edited?"
            )


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _side(value: Any) -> bool:
    return _whole(value) and value > 0


def _names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(map(_text, value))
        and len(set(value)) == len(value)
    )


def _mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(
        type(value), "a number"
    )


_RULES: tuple[_Rule, ...] = (
    ("kind", lambda kind: kind in ("detector", "classifier"), "detector or classifier"),
    ("sha256", _text, "the hash of the weights"),
    ("arch", _text, "the name of an architecture"),
    ("classes", _names, "a list of different class names"),
    ("size", _side, "the side of the input, in pixels"),
    ("pack", _mapping, "an object: size, fit and channels of the pack"),
    ("data", _mappings, "a list of objects, one a pack"),
    ("seed", _whole, "a whole number"),
)
_OF_DETECTORS: tuple[_Rule, ...] = (("options", _mapping, "an object: the detector's options"),)
_OF_CLASSIFIERS: tuple[_Rule, ...] = (
    ("task", lambda task: task in ("multiclass", "multilabel"), "multiclass or multilabel"),
)
_OF_PACKS: tuple[_Rule, ...] = (
    ("size", _side, "a side in pixels"),
    ("fit", lambda fit: fit in get_args(Fit), " or ".join(get_args(Fit))),
    ("channels", lambda channels: channels in (1, 3) and _whole(channels), "1 or 3"),
)
