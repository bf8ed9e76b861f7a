"""The options that make a run's model what it is, ready to be compared with another run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from twinray.classification.config import ClassifyConfig
from twinray.detection.config import DetectConfig
from twinray.detection.protocols import default_warmup
from twinray.training.record import MAY_CHANGE, plain

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
