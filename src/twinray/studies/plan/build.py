"""A study's file -> its plan. Options are checked here, before anything is begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from twinray.checks import START, of_kind, options
from twinray.errors import InputError
from twinray.report.published import TABLES
from twinray.runs.folder import plain
from twinray.studies.plan.file import Arm, Source, StudyFile, Task, unknown
from twinray.studies.plan.inputs import Outside
from twinray.studies.plan.nodes import Cell, Differing, Node, Order, Plan, Read, node
from twinray.studies.plan.search import trials
from twinray.verbs import VERBS, load

GO_WITH_WEIGHTS = frozenset({"arch", "init_part"})
"""Options that may differ between arms: what goes with initial weights."""
_OWN = frozenset({"data", "out", "init", "resume", "seed", "seeds", "fraction", "fraction_seed", "seal", "kept_features"})  # fmt: skip
"""Options that the plan itself fills."""
_OF_FEATURES = (
    "arch",
    "size",
    "batch_size",
    "precision",
    "uncertain",
    "blank",
    "device",
    "allow_edited",
)
"""Options of a probe that its features depend on, and where they are made."""
_MOST_FOLDS = 1000
_SOURCES = ("source", "images", "table", "splits", "pseudonymise")


@dataclass(frozen=True)
class _Init:
    """Initial weights of one arm on one fold."""

    read: Read
    pretraining_seed: int | None


class _Builder:
    """Collects pieces; equal ones are one, and their cells are joined."""

    def __init__(self, file: StudyFile, source: Source) -> None:
        self.file, self.source = file, source
        self.outside = Outside(source)
        self.nodes: dict[str, Node] = {}
        self.unfair: dict[tuple[str, str, str], Differing] = {}
        self.readers: dict[str, Read] = {}

    def add(self, one: Node) -> str:
        known = self.nodes.get(one.id)
        if known is not None:
            one = replace(known, cells=tuple(dict.fromkeys((*known.cells, *one.cells))))
        self.nodes[one.id] = one
        return one.id

    def common(self, verb: str) -> dict[str, Any]:
        """Options that the file sets for all runs of a verb."""
        known = options(load(VERBS[verb].config))
        for_all = {k: v for k, v in self.file.options.get("all", {}).items() if k in known}
        return {**for_all, **self.file.options.get(verb, {})}

    def settled(
        self, verb: str, given: Mapping[str, Any], place: str, **own: Any
    ) -> dict[str, Any]:
        """Options checked by the verb itself, those at their defaults left out.

        Raises:
            InputError: an unknown option, one that the plan fills, or a value that the verb refuses.
        """
        config = load(VERBS[verb].config)
        known = options(config)
        for name in given:
            if name not in known:
                raise self.source.fault(f"{place}.{name}", unknown(name, sorted(known)))
            if name in _OWN and verb != "pack":
                raise self.source.fault(
                    f"{place}.{name}", "the plan fills this option itself; leave it out"
                )
        needed: dict[str, Any] = {"data": Path("pack")} if "data" in known else {}
        try:
            made = config(**{**needed, "out": Path("out"), **given, **own})
        except InputError as error:
            raise self.source.fault(place, str(error)) from None
        except (TypeError, ValueError) as error:
            raise self.source.fault(place, f"{error}; see twinray {verb} --help") from None
        leave = {"data", "out", *of_kind(config, START)}
        values = {name: plain(getattr(made, name)) for name in known if name not in leave}
        defaults = {name: plain(o.default) for name, o in known.items()}
        return {k: v for k, v in values.items() if v != defaults[k]}

    # --- packs and pre-trainings ---

    def folds(self, pack: str) -> list[int | None]:
        """Folds of a pack; None alone where it has none, and where their number is none: ``pack`` then says so."""
        own = self.file.packs[pack]
        count = own.get("folds", 0) if isinstance(own, dict) else 0
        if not isinstance(count, int) or isinstance(count, bool) or count < 2:
            return [None]
        if count > _MOST_FOLDS:
            raise self.source.fault(
                f"packs.{pack}.folds", f"expected at most {_MOST_FOLDS} folds, each a pack of its own, got {count}"
            )  # fmt: skip
        return [*range(count)]

    def pack(self, option: str, name: str, fold: int | None, place: str) -> Read:
        """The pack of one fold, as an option reads it."""
        if name not in self.file.packs:
            raise self.source.fault(place, unknown(name, list(self.file.packs)))
        own = self.file.packs[name]
        where = f"packs.{name}"
        if isinstance(own, str):
            return self.outside.pack(option, own, where)
        given = {**self.common("pack"), **own}
        reads = []
        for source_option in _SOURCES:
            paths = given.pop(source_option, None)
            listed = paths if isinstance(paths, list) else [] if paths is None else [paths]
            where_option = f"{where}.{source_option}"
            reads += [
                self.outside.source(source_option, str(path), where_option) for path in listed
            ]
        if isinstance(given.get("format"), str):
            given["format"] = (given["format"],)
        if fold is not None:
            given["fold"] = fold
        filled = {
            r.option: (Path(r.path),) if r.option == "source" else Path(r.path) for r in reads
        }
        settled = self.settled("pack", given, where, **filled)
        settled = {k: v for k, v in settled.items() if k not in _SOURCES}
        told = f"pack {name}" if fold is None else f"pack {name}, fold {fold}"
        return Read(option, node=self.add(node("pack", told, settled, reads)))

    def pretraining(self, name: str, seed: int, fold: int | None, place: str) -> Read:
        """A pre-training, as ``init`` reads it; one a fold where its packs have folds."""
        if name not in self.file.pretrainings:
            raise self.source.fault(place, unknown(name, list(self.file.pretrainings)))
        own = self.file.pretrainings[name]
        where = f"pretrainings.{name}"
        packs = [own.pack] if isinstance(own.pack, str) else own.pack
        reads, folded = [], False
        for option, names in (("data", packs), ("leave_out", own.leave_out)):
            for one in names:
                if one not in self.file.packs:
                    raise self.source.fault(
                        f"{where}.{option}", unknown(one, list(self.file.packs))
                    )
                of_pack = self.folds(one)
                at = fold if fold in of_pack else of_pack[0]
                # every fold of a pack holds the same patients, so leaving one out leaves out all
                at = of_pack[0] if option == "leave_out" else at
                folded |= at is not None and option == "data"
                reads.append(self.pack(option, one, at, f"{where}.{option}"))
        reads.append(self.outside.weights(own.init, f"{where}.init"))
        given = {**self.common("pretrain"), **own.options}
        settled = self.settled("pretrain", given, f"{where}.options", seed=seed)
        told = f"pre-training {name}, seed {seed}" + (f", fold {fold}" if folded else "")
        return Read("init", node=self.add(node("pretrain", told, settled, reads)))

    # --- runs ---

    def inits(self, arm: Arm, fold: int | None, place: str) -> list[_Init]:
        """Initial weights of an arm, one for each seed of its pre-training."""
        if not arm.pretraining:
            return [_Init(self.outside.weights(arm.init, f"{place}.init"), None)]
        if arm.pretraining not in self.file.pretrainings:
            raise self.source.fault(
                f"{place}.pretraining", unknown(arm.pretraining, list(self.file.pretrainings))
            )
        known = self.file.pretrainings[arm.pretraining].seeds
        seeds = known if arm.seeds is None else arm.seeds
        for seed in seeds:
            if seed not in known:
                raise self.source.fault(
                    f"{place}.seeds",
                    f"the pre-training {arm.pretraining} has the seeds {_listed(known)}, not {seed}",
                )
        return [
            _Init(self.pretraining(arm.pretraining, seed, fold, f"{place}.pretraining"), seed)
            for seed in seeds
        ]

    def task(self, name: str, task: Task, arms: Mapping[str, Arm]) -> None:
        """All runs of a task."""
        where = f"tasks.{name}"
        taking = list(arms) if task.arms is None else task.arms
        for arm in taking:
            if arm not in arms:
                raise self.source.fault(f"{where}.arms", unknown(arm, list(arms)))
        for arm in task.by_arm:
            if arm not in taking:
                raise self.source.fault(f"{where}.by_arm.{arm}", unknown(arm, list(taking)))
        if task.heat_maps < 0:
            raise self.source.fault(f"{where}.heat_maps", f"expected 0 or more, got {task.heat_maps}")  # fmt: skip
        if task.pack not in self.file.packs:
            raise self.source.fault(f"{where}.pack", unknown(task.pack, list(self.file.packs)))
        if task.policies is not None and task.verb == "detect":
            raise self.source.fault(f"{where}.policies", "only classify has policies; leave it out")
        if task.readers:
            if task.verb != "detect":
                raise self.source.fault(f"{where}.readers", "readers' boxes belong beside those of detect; leave it out")  # fmt: skip
            self.readers[name] = self.pack("data", task.readers, self.folds(task.readers)[0] if task.readers in self.file.packs else None, f"{where}.readers")  # fmt: skip
        self._check_axes(where, task)
        self._check_set_once(name, task, [arms[one] for one in taking])
        for arm, policy, size, fold in (
            (a, p, s, f)
            for a in taking
            for p in (
                task.policies or [""] if task.verb == "detect" else task.policies or ["probe"]
            )
            for s in task.sizes or [0]
            for f in self._folds(where, task)
        ):
            for init in self.inits(arms[arm], fold, f"arms.{arm}"):
                self._runs(name, task, arms[arm], _Axes(policy, size, fold, init))

    def _check_axes(self, where: str, task: Task) -> None:
        axes: dict[str, Sequence[Any] | None] = {
            "arms": task.arms, "policies": task.policies, "fractions": task.fractions,
            "sizes": task.sizes, "seeds": task.seeds, "folds": task.folds,
        }  # fmt: skip
        for axis, values in axes.items():
            _check_different(self.source, f"{where}.{axis}", values)

    def _check_set_once(self, name: str, task: Task, arms: Sequence[Arm]) -> None:
        """Refuse an option that stands in two places, of which one would win without a word."""
        where = f"tasks.{name}"
        of_arms = {arm.name: {**arm.options, **task.by_arm.get(arm.name, {})} for arm in arms}
        spaces = {} if task.search is None else task.search.space
        places: list[tuple[str, Mapping[str, Any]]] = [
            (f"{where}.options", task.options),
            (f"options.{task.verb}", self.file.options.get(task.verb, {})),
            ("options.all", self.file.options.get("all", {}) if task.verb == "classify" else {}),
            (f"{where}.search.space", spaces),
            *((f"arms.{arm}", own) for arm, own in of_arms.items()),
        ]
        for place, own in places:
            if "policy" in own and task.verb == "classify":
                raise self.source.fault(f"{place}.policy", f"give policies of {where} in its place, such as policies: [full]")  # fmt: skip
            if "size" in own and (task.sizes is not None or own is spaces):
                raise self.source.fault(f"{place}.size", f"give sizes of {where} alone")
        for arm, own in of_arms.items():
            for option in spaces:
                if option in own:
                    raise self.source.fault(f"{where}.search.space.{option}", f"the arm {arm} sets it too; leave out one of the two")  # fmt: skip

    def _folds(self, where: str, task: Task) -> list[int | None]:
        known = self.folds(task.pack)
        for fold in task.folds or ():
            if fold not in known:
                raise self.source.fault(
                    f"{where}.folds",
                    f"the pack {task.pack} has no fold {fold}; give folds under packs.{task.pack}",
                )
        return [*task.folds] if task.folds is not None else known

    def _runs(self, name: str, task: Task, arm: Arm, axes: _Axes) -> None:
        where = f"tasks.{name}.options"
        given = {**self.common(task.verb), **task.options}
        if axes.policy:
            given["policy"] = axes.policy
        if axes.size:
            given["size"] = axes.size
        given |= self._of_arm(name, task, arm, given)
        data = self.pack("data", task.pack, axes.fold, f"tasks.{name}.pack")
        for fraction in task.fractions:
            cell = Cell(
                name,
                arm.name,
                axes.init.pretraining_seed,
                axes.policy,
                fraction,
                axes.size,
                axes.fold,
            )
            choice = self._search(name, task, given, cell, data, axes)
            for seed in task.seeds:
                own = replace(cell, seed=seed)
                settled = self._settled_run(task, given, own, where)
                reads = [data, axes.init.read, *choice, *self._features(own, settled, data, axes)]
                self.add(node(task.verb, f"{task.verb} {own.words()}", settled, reads, [own]))

    def _settled_run(
        self, task: Task, given: Mapping[str, Any], cell: Cell, where: str
    ) -> dict[str, Any]:
        """Options of one run; the seed draws labels, order, heads and random weights, the same for every arm."""
        own: dict[str, Any] = {"fraction": cell.fraction, "seed": cell.seed, "seal": True}
        own |= {"fraction_seed": cell.seed} if task.verb == "detect" else {"seeds": (cell.seed,)}
        return self.settled(task.verb, given, where, **own)

    def _of_arm(self, name: str, task: Task, arm: Arm, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options of one arm alone.

        Raises:
            InputError: one that does not go with initial weights, and for which the file gives no reason.
        """
        own = {**arm.options, **task.by_arm.get(arm.name, {})}
        for option, value in own.items():
            if option in GO_WITH_WEIGHTS or given.get(option) == value:
                continue
            reason = next(
                (
                    one.reason
                    for one in self.file.unfair
                    if one.option == option and one.arm in ("", arm.name) and one.reason.strip()
                ),
                None,
            )
            if reason is None:
                raise self.source.fault(
                    f"arms.{arm.name}.{option}",
                    f"{option} would differ between arms, so that a difference could be its doing and not the initial "
                    "weights'; set it for the whole task, or state it under unfair with a reason, which the report shows",
                )
            self.unfair[name, arm.name, option] = Differing(name, arm.name, option, value, reason)
        return own

    def _features(
        self, cell: Cell, settled: Mapping[str, Any], data: Read, axes: _Axes
    ) -> list[Read]:
        """The pass over the images that all probes of one weight share; nothing for other policies."""
        if axes.policy != "probe":
            return []
        weights = axes.init.read
        made = {name: settled[name] for name in _OF_FEATURES if name in settled}
        # random weights are drawn by the seed, all others are the same for every seed
        drawn = weights.path == "random"
        if drawn and "seed" in settled:
            made["seed"] = settled["seed"]
        parts = [cell.task, cell.arm]
        parts += [] if cell.pretraining_seed is None else [f"pre-training {cell.pretraining_seed}"]
        parts += [f"{cell.size} px"] if cell.size else []
        parts += [] if cell.fold is None else [f"fold {cell.fold}"]
        parts += [f"seed {cell.seed}"] if drawn else []
        return [Read("kept_features", node=self.add(node("features", f"features {', '.join(parts)}", made, [data, weights])))]  # fmt: skip

    def _search(
        self, name: str, task: Task, given: Mapping[str, Any], cell: Cell, data: Read, axes: _Axes
    ) -> list[Read]:
        """Trials of a search on the first seed, and the piece that chooses among them."""
        if task.search is None:
            return []
        where = f"tasks.{name}.search"
        try:
            found = trials(task.search)
        except ValueError as error:
            raise self.source.fault(where, str(error)) from None
        ids = []
        for number, values in enumerate(found):
            own = replace(cell, seed=task.seeds[0], trial=number)
            settled = self._settled_run(task, {**given, **values}, own, f"{where}.space")
            reads = [data, axes.init.read, *self._features(own, settled, data, axes)]
            ids.append(
                self.add(node(task.verb, f"{task.verb} {own.words()}", settled, reads, [own]))
            )
        rule = {"measure": "map50" if task.verb == "detect" else "auc", "trials": found}
        told = f"choose among {len(found)} trials of {replace(cell, seed=task.seeds[0]).words()}"
        made = node("choose", told, rule, [Read("trial", node=i) for i in ids])
        return [Read("choice", node=self.add(made))]


@dataclass(frozen=True)
class _Axes:
    """Where a run stands, but for fraction and seed."""

    policy: str
    size: int
    fold: int | None
    init: _Init


def build(file: StudyFile, source: Source) -> Plan:
    """The plan of a study. Things from outside that are not there are noted under ``missing``.

    Args:
        file: the study. source: where it was read from.

    Raises:
        InputError: an unknown name or option, a value that a verb refuses, or an option that makes arms unfair.
    """
    builder = _Builder(file, source)
    _check_options(file, source)
    for name, task in file.tasks.items():
        builder.task(name, task, _arms(file, source))
    if not file.tasks:
        raise source.fault("tasks", "expected one or more tasks, found none")
    for name, own in file.pretrainings.items():
        for seed in own.seeds:  # also those that no arm uses: they were asked for
            if not any(arm.pretraining == name for arm in _arms(file, source).values()):
                builder.pretraining(name, seed, None, f"pretrainings.{name}")
    tasks = file.tasks.items()
    return Plan(
        file.study,
        file.question,
        tuple(_ordered(builder.nodes.values())),
        tuple(builder.unfair.values()),
        {name: task.heat_maps for name, task in tasks if task.heat_maps},
        {name: asdict(task.search) for name, task in tasks if task.search is not None},
        tuple(dict.fromkeys(builder.outside.missing)),
        tuple(file.limits),
        tuple(_beside(file, source)),
        {
            name: Order(
                tuple(_arms(file, source) if task.arms is None else task.arms),
                tuple(task.policies or ()),
                tuple(task.sizes or ()),
            )
            for name, task in tasks
        },
        builder.readers,
    )


def _arms(file: StudyFile, source: Source) -> dict[str, Arm]:
    found: dict[str, Arm] = {}
    for i, one in enumerate(file.arms):
        arm = Arm(init=one) if isinstance(one, str) else one
        place = f"arms[{i}]"
        if bool(arm.init) == bool(arm.pretraining):
            raise source.fault(place, "expected init or pretraining, one of the two")
        if arm.init and arm.seeds is not None:
            raise source.fault(
                f"{place}.seeds", "these are seeds of a pre-training; runs take those of their task"
            )
        name = arm.name or arm.init or arm.pretraining
        if name in found:
            raise source.fault(place, f"the arm {name} stands twice; give each a name of its own")
        found[name] = replace(arm, name=name)
    if not found:
        raise source.fault("arms", "expected one or more arms, found none")
    return found


def _check_different(source: Source, place: str, values: Sequence[Any] | None) -> None:
    """Refuse an axis along which nothing, or the same twice, would be done."""
    if values is not None and (not values or len(set(values)) < len(values)):
        raise source.fault(place, f"expected different values, one or more, got {_listed(values)}")


def _check_options(file: StudyFile, source: Source) -> None:
    for name, own in file.pretrainings.items():
        _check_different(source, f"pretrainings.{name}.seeds", own.seeds)
    for i, arm in enumerate(file.arms):
        _check_different(source, f"arms[{i}].seeds", None if isinstance(arm, str) else arm.seeds)
    verbs = ("pack", "pretrain", "detect", "classify")
    for verb in file.options:
        if verb not in ("all", *verbs):
            raise source.fault(f"options.{verb}", unknown(verb, ["all", *verbs]))
    known = sorted({name for verb in verbs for name in options(load(VERBS[verb].config))})
    for name in file.options.get("all", {}):
        if name not in known:
            raise source.fault(f"options.all.{name}", unknown(name, known))
    for i, one in enumerate(file.unfair):
        if not one.reason.strip():
            raise source.fault(f"unfair[{i}].reason", "expected a reason; the report shows it")


def _beside(file: StudyFile, source: Source) -> Iterator[dict[str, Any]]:
    """Published tables with names that exist.

    Raises:
        InputError: a table, task or arm that is not known, or a task of another verb.
    """
    own = [one if isinstance(one, str) else one.name or one.init or one.pretraining for one in file.arms]  # fmt: skip
    for i, one in enumerate(file.published):
        place = f"published[{i}]"
        if one.table not in TABLES:
            raise source.fault(f"{place}.table", unknown(one.table, list(TABLES)))
        if one.task not in file.tasks:
            raise source.fault(f"{place}.task", unknown(one.task, list(file.tasks)))
        table, task = TABLES[one.table], file.tasks[one.task]
        if table.verb != task.verb:
            raise source.fault(place, f"the table is of {table.verb}, the task {one.task} of {task.verb}")  # fmt: skip
        for theirs, ours in one.arms.items():
            if theirs not in table.arms:
                raise source.fault(f"{place}.arms", unknown(theirs, list(table.arms)))
            if ours not in own:
                raise source.fault(f"{place}.arms.{theirs}", unknown(ours, own))
        if one.policy and one.policy not in (task.policies or ["probe"]):
            raise source.fault(f"{place}.policy", unknown(one.policy, task.policies or ["probe"]))
        if one.size and one.size not in (task.sizes or []):
            raise source.fault(f"{place}.size", f"the task {one.task} has no size {one.size}")
        yield asdict(one)


def _ordered(nodes: Any) -> Iterator[Node]:
    """Packs first, then pre-trainings, trials, choices, and runs; each after what it needs."""
    left = list(nodes)
    done: set[str] = set()
    order = {"pack": 0, "pretrain": 1, "features": 2, "detect": 3, "classify": 3, "choose": 4}
    left.sort(key=lambda one: order[one.kind])
    while left:
        ready = [one for one in left if set(one.needs) <= done]
        yield from ready
        done |= {one.id for one in ready}
        left = [one for one in left if one.id not in done]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "nothing"
