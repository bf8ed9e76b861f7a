"""The options that make a run's model what it is, ready to be compared with another run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from twinray.classification.config import ClassifyConfig
from twinray.detection.config import DetectConfig
from twinray.detection.protocols import default_warmup
from twinray.inference.model import Model
from twinray.runs.folder import MAY_CHANGE, plain, read_config
from twinray.runs.notes import metrics_of

NO_OTHER_MODEL = MAY_CHANGE | {"allow_seen", "bootstrap", "checkpoint_every", "job", "log_every"}
"""Options that change no model: where and how fast it is trained, what is written on the way, and how its own figures are made."""


def options_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options but for those above, with today's defaults for options that came after the run.

    A warm-up that follows from the run's length is the default's (None), though folds of other sizes have other lengths.

    Args:
        config: the run's ``config.yaml``.
        metrics: its ``metrics.json``; empty where there is none.
    """
    job = ClassifyConfig if config.get("job") == "classify" else DetectConfig
    missing = dataclasses.MISSING
    defaults = {f.name: plain(f.default) for f in dataclasses.fields(job) if f.default is not missing}
    options = {k: v for k, v in {**defaults, **config}.items() if k not in NO_OTHER_MODEL}
    length = [options.get("batch_size"), options.get("epochs"), metrics.get("training_images")]
    known = [n for n in length if isinstance(n, int) and n > 0]
    if len(known) == len(length) and options.get("warmup_steps") == default_warmup(known[0], known[1], known[2]):
        options["warmup_steps"] = None
    return options


def differences_in_options(first: Model, other: Model) -> dict[str, Any]:
    """Options in which two runs differ and that can change a result, but for the initial weights under test.

    Packs are compared by their bytes, not by where they lie.

    Raises:
        InputError: a run without its options.
    """
    before, after = read_config(first.path), read_config(other.path)
    made, also = (options_of(c, metrics_of(m.path)) for c, m in ((before, first), (after, other)))
    same = {"init"}
    if checksums_of(first) and checksums_of(first) == checksums_of(other):
        same |= {"data"}
    if made.get("fraction") == also.get("fraction") == 1:
        same |= {"fraction_seed"}  # all images: nothing is drawn
    differing = [n for n in dict.fromkeys([*made, *also]) if n not in same and made.get(n) != also.get(n)]
    told = {n: {"first": before.get(n, made.get(n)), "this": after.get(n, also.get(n))} for n in differing}
    return {name: values for name, values in told.items() if values["first"] != values["this"]}


def checksums_of(model: Model) -> list[Any]:
    """Checksums of the packs that a model was trained on."""
    return [pack["checksums"] for pack in model.description.get("data", []) if "checksums" in pack]
