"""Which groups a part has, in the order in which they matter, and what time each may take."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Some checks that share a process.

    Attributes:
        name: of the group.
        place: module and function.
        seconds: what it takes, about, on an H100.
        least: with fewer seconds left it is not started.
        most: after so many it is ended.
    """

    name: str
    place: str
    seconds: float
    least: float
    most: float


def load(place: str) -> Callable[[Any], None]:
    """A group's function, imported when it is needed."""
    module, _, function = place.partition(":")
    loaded: Callable[[Any], None] = getattr(importlib.import_module(module), function)
    return loaded


CORRECTNESS: Sequence[Group] = (
    Group("commands", "gpu.commands:commands", 200, 60, 400),
    Group("study", "gpu.commands:study", 120, 60, 300),
    Group("sixteen bits", "gpu.commands:sixteen_bits", 60, 40, 200),
    Group("resume pretrain", "gpu.commands:resume_pretrain", 120, 60, 300),
    Group("resume detect", "gpu.commands:resume_detect", 120, 60, 300),
    Group("objectives", "gpu.correctness:objectives", 25, 20, 120),
    Group("pre-training", "gpu.correctness:pretraining", 40, 20, 180),
    Group("detection", "gpu.correctness:detection", 90, 30, 240),
    Group("heat maps", "gpu.correctness:heat_maps", 60, 30, 200),
    Group("probe", "gpu.correctness:probe", 15, 10, 60),
    Group("waits", "gpu.waits:waits", 60, 30, 200),
    Group("compile", "gpu.waits:compile_", 120, 40, 300),
)

THROUGHPUT: Sequence[Group] = (
    Group("machine", "gpu.throughput:machine", 15, 10, 40),
    Group("packs", "gpu.throughput:packs", 130, 15, 200),
    Group("pretrain compiled", "gpu.throughput:pretrain_compiled", 150, 60, 260),
    Group("detect 224", "gpu.throughput:detect_224", 150, 35, 260),
    Group("compile cost", "gpu.throughput:compile_cost", 90, 40, 150),
    Group("pretrain eager", "gpu.throughput:pretrain_eager", 45, 30, 90),
    Group("lightly", "gpu.throughput:lightly", 70, 45, 120),
    Group("detect 640", "gpu.throughput:detect_640", 120, 35, 220),
    Group("classify", "gpu.throughput:classify", 30, 20, 60),
    Group("probe", "gpu.throughput:probe", 45, 15, 60),
    Group("paper", "gpu.paper:paper", 2, 0, 30),
)
