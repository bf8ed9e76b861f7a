"""The plan: a graph of pieces of work, each known by a hash of what it does and of what it reads.

The hash of a piece holds its verb, the options that decide its result, the hashes of files from outside, and the hashes of
the pieces that it reads. Equal pieces are one, so one pre-training serves all arms that use it. Where work is done and how
fast is not in the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from twinray.checks import PLACE, SPEED, counting, of_kind
from twinray.checks import options as options_of
from twinray.errors import InputError
from twinray.files import read_json, typed, write_json
from twinray.verbs import VERBS, load

RECORD_FORMAT = 1
"""Version of what a piece's hash is made of; another one makes all runs new."""

Kind = Literal["pack", "pretrain", "features", "detect", "classify", "choose"]
RUNS = ("detect", "classify")
FREE = frozenset({"out", "resume"})


@dataclass(frozen=True)
class Cell:
    """A place in the study's tables that a run fills.

    Attributes:
        task, arm: their names.
        pretraining_seed: seed of the arm's pre-training; None where the arm has none.
        policy: policy of a classifier; empty for detectors.
        fraction: share of the training images, above 0 up to 1.
        size: side of the input in pixels; 0 for the verb's default.
        fold: fold of the test images; None without folds.
        seed: seed of the run.
        trial: number of the trial of a search, from 0; None for a run that is measured.
    """

    task: str
    arm: str
    pretraining_seed: int | None = None
    policy: str = ""
    fraction: float = 1.0
    size: int = 0
    fold: int | None = None
    seed: int = 0
    trial: int | None = None

    def words(self) -> str:
        """As in ``lesions, Barlow, pre-training 0, 10 % of labels, fold 1, seed 2``."""
        parts = [self.task, self.arm]
        if self.pretraining_seed is not None:
            parts.append(f"pre-training {self.pretraining_seed}")
        if self.policy:
            parts.append(self.policy)
        parts.append(f"{self.fraction * 100:g} % of labels")
        if self.size:
            parts.append(f"{self.size} px")
        if self.fold is not None:
            parts.append(f"fold {self.fold}")
        parts.append(f"seed {self.seed}")
        if self.trial is not None:
            parts.append(f"trial {self.trial}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Read:
    """What an option of a piece leads to.

    Attributes:
        option: its name.
        node: id of the piece that makes it; empty for a thing from outside.
        path: path, or name of public weights, of a thing from outside.
        key: hash of a thing from outside; a name for public weights.
    """

    option: str
    node: str = ""
    path: str = ""
    key: str = ""


@dataclass(frozen=True)
class Node:
    """One piece of work.

    Attributes:
        id: 16 hexadecimal digits; the name of its folder.
        kind: verb, ``features`` for the pass that all probes of one weight share, or ``choose`` for the end of a search.
        name: description in words.
        options: options of the verb that are not left at their defaults, as JSON holds them.
        reads: what options lead to, in order.
        cells: places in the tables that it fills.
        free: options of place and speed, which are not in the id.
    """

    id: str
    kind: Kind
    name: str
    options: Mapping[str, Any]
    reads: tuple[Read, ...] = ()
    cells: tuple[Cell, ...] = ()
    free: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        """Verb whose options it has; empty for a choice."""
        return verb_of(self.kind)

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the pieces that must be done before."""
        return tuple(dict.fromkeys(read.node for read in self.reads if read.node))

    @property
    def measured(self) -> bool:
        """Whether the run's test figures belong to the study's result."""
        return self.kind in RUNS and any(cell.trial is None for cell in self.cells)

    def folder(self, study: Path) -> Path:
        """Where its results lie."""
        return study / ("packs" if self.kind == "pack" else "runs") / self.id


@dataclass(frozen=True)
class Differing:
    """An option in which arms differ on purpose.

    Attributes:
        task, arm: names.
        option, value: what differs.
        reason: why, as the file says.
    """

    task: str
    arm: str
    option: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Order:
    """The order in which a task's file names things, which no order of work may change: the first arm is the one that others are compared with.

    Attributes:
        arms, policies, sizes: as the file has them.
    """

    arms: tuple[str, ...]
    policies: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that a study does.

    Attributes:
        study, question: as the file states them.
        nodes: pieces, each after those that it needs.
        unfair: options in which arms differ on purpose.
        heat_maps: task -> number of test images with heat maps.
        searches: task -> space, budget and seed of its search, as the file states them.
        missing: things from outside that are not there (yet), in words.
        limits: what the study cannot say, as the file states it.
        published: published tables beside its tasks (``table``, ``task``, ``arms``, ``policy``, ``size``, ``differs``).
        tasks: task -> its order, in the order of the file; empty in plans of older versions.
        readers: task -> the pack with every reader's boxes, where it is another than the task's own.
    """

    study: str
    question: str
    nodes: tuple[Node, ...]
    unfair: tuple[Differing, ...] = ()
    heat_maps: Mapping[str, int] = field(default_factory=dict)
    searches: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    published: tuple[Mapping[str, Any], ...] = ()
    tasks: Mapping[str, Order] = field(default_factory=dict)
    readers: Mapping[str, Read] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def by_id(self) -> dict[str, Node]:
        """Pieces by id."""
        return {node.id: node for node in self.nodes}

    def measured(self) -> list[Node]:
        """Runs whose test figures belong to the result."""
        return [node for node in self.nodes if node.measured]

    def key(self) -> str:
        """SHA-256 of all that decides the results."""
        told = [[n.id, n.kind, [asdict(c) for c in n.cells]] for n in self.nodes]
        return _digest([told, [asdict(one) for one in self.unfair]])

    def asks(self) -> dict[str, Any]:
        """What decides the answer besides the runs: whoever changes it after a look has asked another question."""
        told: dict[str, Any] = {"question": self.question}
        if self.tasks:
            told["task that answers"] = next(iter(self.tasks))
        for name, own in self.tasks.items():
            told[f"arms of {name}, first to last"] = list(own.arms)
        return told | {"limits": list(self.limits), "published tables": [dict(one) for one in self.published]}  # fmt: skip

    def in_order(self, places: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
        """Tasks with policy and size, as the file orders them; what it does not name comes last, as it was."""

        def place(one: tuple[str, str, int]) -> tuple[int, int, int]:
            task, policy, size = one
            own = self.tasks.get(task, Order(()))
            return (_at(list(self.tasks), task), _at(own.policies, policy), _at(own.sizes, size))

        return sorted(dict.fromkeys(places), key=place)

    def arms_in_order(self, task: str, arms: Iterable[str]) -> list[str]:
        """Arms of a task as the file orders them."""
        known = self.tasks.get(task, Order(())).arms
        return sorted(dict.fromkeys(arms), key=lambda arm: _at(known, arm))

    def write(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_json(path, asdict(self), "plan of a study")


def _at(known: Sequence[Any], one: Any) -> int:
    return known.index(one) if one in known else len(known)


def read_plan(path: Path) -> Plan:
    """A plan as :meth:`Plan.write` left it.

    Raises:
        InputError: the file is damaged.
    """
    return typed(read_json(path, "plan of a study"), Plan, path, "plan of a study")


def verb_of(kind: str) -> str:
    """Verb whose options a kind of piece has; empty for a choice."""
    return {"features": "classify", "choose": ""}.get(kind, kind)


def node(
    kind: Kind,
    name: str,
    options: Mapping[str, Any],
    reads: Sequence[Read] = (),
    cells: Sequence[Cell] = (),
) -> Node:
    """A piece of work with its id.

    Args:
        kind: verb.
        name: description in words.
        options: options of the verb as JSON holds them, without those that ``reads`` fill.
        reads: what options lead to.
        cells: places in the tables.
    """
    free: frozenset[str] = frozenset()
    made = dict(options)
    if verb := verb_of(kind):
        config = load(VERBS[verb].config)
        free = of_kind(config, PLACE, SPEED) | FREE
        made = {k: v for k, v in counting(config, options).items() if k not in free}
    told = [RECORD_FORMAT, kind, made, [[r.option, r.node or r.key] for r in reads]]
    kept = {k: v for k, v in options.items() if k in free}
    decided = {k: v for k, v in options.items() if k not in free}
    return Node(_digest(told)[:16], kind, name, decided, tuple(reads), tuple(cells), kept)


def config_of(
    one: Node, study: Path, more: Mapping[str, Any] | None = None, *, resume: bool = True
) -> Any:
    """The options of a piece as its verb takes them.

    Args:
        one: piece of one of the verbs.
        study: folder of the study.
        more: options that are known only now, such as those that a search chose.
        resume: flag to go on with what the folder holds.

    Raises:
        InputError: an option that the verb refuses.
    """
    config = load(VERBS[one.verb].config)
    filled: dict[str, Any] = {**one.options, **one.free, **(more or {}), "out": one.folder(study)}
    filled |= {"resume": resume}
    several: dict[str, list[str]] = {}
    for read in one.reads:
        if read.option == "choice":
            continue
        several.setdefault(read.option, []).append(_place(read, study))
    many = {n for n, own in options_of(config).items() if own.many}
    for option, values in several.items():
        filled[option] = tuple(values) if option in many else values[0]
    return config(**filled)


def _place(read: Read, study: Path) -> str:
    if not read.node:
        return read.path
    for folder in ("packs", "runs"):
        if (study / folder / read.node).is_dir():
            return str(study / folder / read.node)
    return str(study / ("packs" if read.option in ("data", "leave_out") else "runs") / read.node)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_acyclic(nodes: Sequence[Node]) -> None:
    """Refuse a plan whose pieces do not follow those that they need.

    Raises:
        InputError: naming the piece.
    """
    done: set[str] = set()
    for one in nodes:
        if not set(one.needs) <= done:
            raise InputError(f"{one.name} needs what comes after it; was plan.json edited?")
        done.add(one.id)
