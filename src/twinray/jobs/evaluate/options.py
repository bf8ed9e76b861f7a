"""What of a run's options makes its model, ready to be compared with another run's.

The kind of an option decides whether it is one of these (:mod:`twinray.checks`). Options that
decide nothing beside the others (the seed of a label fraction of 1) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from twinray.checks import DATA, MODEL, SEED, counting, of_kind
from twinray.checks import options as declared
from twinray.detection.protocols import default_warmup
from twinray.errors import InputError
from twinray.files import read_json
from twinray.runs.description import ModelDescription
from twinray.runs.folder import CONFIG, INPUTS, read_config, with_defaults
from twinray.runs.notes import metrics_of
from twinray.verbs import VERBS, load

_DEPTH = 8
"""Most pre-trainings that are followed, each from another's weights."""


def config_class(config: Mapping[str, Any]) -> type[Any]:
    """The dataclass of the options of the verb that made a run; detect's where an older run does not say.

    Args:
        config: the run's ``config.yaml``.
    """
    made: type[Any] = load(VERBS[config["job"] if config.get("job") in VERBS else "detect"].config)
    return made


def model_options(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make a run's model, but for its seeds, its initial weights and its data.

    Options that came after the run have today's defaults; one that is gone since counts among those that make the model.
    A warm-up that follows from the run's length is the default's (None), though folds of other sizes have other lengths.

    Args:
        config: the run's ``config.yaml``.
        metrics: its ``metrics.json``; empty where there is none.
    """
    made = config_class(config)
    values = counting(made, with_defaults(made, config))
    others = declared(made).keys() - of_kind(made, MODEL) | {"job"}
    options = {name: value for name, value in values.items() if name not in others}
    length = [options.get("batch_size"), options.get("epochs"), metrics.get("training_images")]
    known = [n for n in length if isinstance(n, int) and n > 0]
    if len(known) == len(length) and options.get("warmup_steps") == default_warmup(
        known[0], known[1], known[2]
    ):
        options["warmup_steps"] = None
    return options


def seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say which draw of chance a run is, those that draw nothing left out.

    Args:
        config: the run's ``config.yaml``.
    """
    made = config_class(config)
    values = counting(made, with_defaults(made, config))
    return {
        name: values[name]
        for name in declared(made)
        if name in values and name in of_kind(made, SEED)
    }


class Described(Protocol):
    """Something of a finished run: its folder and its ``model.json``."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def description(self) -> ModelDescription: ...  # noqa: D102


def differences_in_options(first: Described, other: Described) -> dict[str, Any]:
    """Options in which two runs differ and that can change a result, but for the initial weights under test.

    Packs are compared by their bytes, not by where they lie.

    Returns:
        ``{option: {"kind": model, seed or data, "first": value, "this": value}}``, values as the runs' files hold them.

    Raises:
        InputError: a run without its options.
    """
    before, after = read_config(first.path), read_config(other.path)
    made, also = (
        {**model_options(c, metrics_of(m.path)), **seeds(c)}
        for c, m in ((before, first), (after, other))
    )
    drawn = of_kind(config_class(before), SEED)
    told: dict[str, Any] = {}
    for name in dict.fromkeys([*made, *also]):
        values = {
            "first": before.get(name, made.get(name)),
            "this": after.get(name, also.get(name)),
        }
        if made.get(name) != also.get(name) and values["first"] != values["this"]:
            told[name] = {"kind": (SEED if name in drawn else MODEL).name.lower(), **values}
    if not (checksums_of(first) and checksums_of(first) == checksums_of(other)):
        for name in (name for name in before if name in of_kind(config_class(before), DATA)):
            values = {
                "first": _with_hash(before.get(name), first),
                "this": _with_hash(after.get(name), other),
            }
            if values["first"] != values["this"]:
                told[name] = {"kind": DATA.name.lower(), **values}
    return told


def _with_hash(value: object, model: Described) -> object:
    """A path, and where it is known the beginning of the hash of what it held."""
    hashes = [digest for pack in checksums_of(model) for digest in pack.values()]
    return f"{value} ({hashes[0][:8]})" if hashes else value


def checksums_of(model: Described) -> list[dict[str, str]]:
    """Checksums of the packs that a model was trained on."""
    return model.description.checksums


def recipe(init: str) -> str:
    """What tells initial weights from another arm's: the options and packs that made them, whatever their seed.

    Pre-trainings that differ only in seeds, places, speed and records are one arm's: their luck is the arm's too.

    Args:
        init: as it was given with ``--init``. What is no folder of a pre-training stands for itself.
    """
    return _recipe(init, _DEPTH)


def _recipe(init: str, depth: int) -> str:
    path = Path(init)
    try:
        if not depth or not (path / CONFIG).is_file():
            return init
        config = read_config(path)
    except (InputError, OSError, ValueError):  # the latter two: text that can be no path
        return init
    if config.get("job") != "pretrain":
        return init
    start = _recipe(str(config.get("init", "random")), depth - 1)
    return repr((sorted(model_options(config, {}).items()), _read(path, config), start))


def _read(path: Path, config: Mapping[str, Any]) -> object:
    """What a pre-training read: checksums, or the paths where an older run kept none."""
    names = of_kind(config_class(config), DATA)
    try:
        inputs = read_json(path / INPUTS, "record of inputs")
    except InputError:
        inputs = None
    if isinstance(inputs, dict) and inputs.get("packs"):
        return repr((inputs["packs"], inputs.get("left_out")))
    return sorted((name, value) for name, value in config.items() if name in names)
