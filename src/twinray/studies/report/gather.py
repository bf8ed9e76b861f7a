"""A study's folder -> what its report shows: tasks measured over all of their runs, states, seal, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twinray.about import own_version
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.evaluation.boxes import BoxRules, FrocRule, sizes_between
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.measures import Kind, main_measure
from twinray.evaluation.subgroups import UNKNOWN, group_names, parse_by
from twinray.files import read_json
from twinray.jobs.evaluate.arms import Arm
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.groups import Grouping
from twinray.jobs.evaluate.measure import Measured, Settings, measure
from twinray.jobs.evaluate.run import noted
from twinray.jobs.evaluate.stored import kept, read_runs
from twinray.jobs.evaluate.tested import Tested
from twinray.report.study_result import Deviation, PlannedRun, Seal, State, StudyResult, Task
from twinray.runs.description import MODEL, read_description
from twinray.studies.plan.nodes import Cell
from twinray.studies.report.published import published
from twinray.studies.results.state import Piece, StudyState
from twinray.studies.runner.journal import Event
from twinray.studies.runner.place import FILE, Place

_STATE: Mapping[str, State] = {
    "done": "done",
    "running": "running",
    "failed": "failed",
    "open": "waiting",
}
_POLICY = {
    "probe": "linear probe",
    "head": "last layer trained",
    "surgical": "some stages trained",
    "full": "all layers trained",
}
_GROUPS = ("sex", "view", "age:18,65")
"""Attributes by whose groups every figure is given too, where every pack of a task has them."""


@dataclass(frozen=True)
class Key:
    """What one chart of the report is about: a task of the file, with one policy and one size of its input."""

    task: str
    policy: str
    size: int


@dataclass(frozen=True, eq=False)
class Gathered:
    """A study as its report needs it.

    Attributes:
        state: as the engine has it. result: for page and tables.
        measured: task's key -> the evaluation of its runs with their curves; empty while sealed.
        pieces: task's key -> its measured runs with the cell that each fills.
        packs: task's key -> pack; None where it is not there, or where folds make it several.
        shown: task's key -> pack that images, features and labels are shown of: of several folds the first.
    """

    state: StudyState
    result: StudyResult
    measured: Mapping[Key, Measured]
    pieces: Mapping[Key, Sequence[tuple[Cell, Piece]]]
    packs: Mapping[Key, Pack | None]
    shown: Mapping[Key, Pack | None]

    def first_runs(self, key: Key) -> dict[str, Path]:
        """Arm -> folder of its first finished run with all labels, tested on images of the pack that is shown."""
        runs: dict[str, Path] = {}
        pack, share = self.shown[key], max(self.task(key).shares)
        for cell, piece in self.pieces[key]:
            if piece.state == "done" and cell.fraction == share and pack is not None and pack.path in _data(self.state, piece):  # fmt: skip
                runs.setdefault(cell.arm, piece.folder)
        return runs

    def task(self, key: Key) -> Task:
        """The task of a key, as the report shows it."""
        return next(task for task in self.result.tasks if task.name == name_of(key))


def readers_packs(study: Gathered, key: Key) -> list[Pack]:
    """Packs with every reader's boxes of a task's test images: those that the file names, else the task's own."""
    read = study.state.plan.readers.get(key.task)
    paths = _paths(study.state, study.pieces[key])
    if read is not None:
        paths = [study.state.path / "packs" / read.node if read.node else Path(read.path)]
    return [pack for pack in (_opened([path]) for path in paths) if pack is not None]


def gather(state: StudyState) -> Gathered:
    """Measure every task of a study over all of its runs, and say how each run stands.

    Args:
        state: as the engine collects it. While it is sealed, no test prediction is read.

    Raises:
        InputError: runs that cannot be compared.
    """
    pieces: dict[Key, list[tuple[Cell, Piece]]] = {}
    for piece in state.measured():
        for cell in piece.node.cells:
            if cell.trial is None:
                pieces.setdefault(Key(cell.task, cell.policy, cell.size), []).append((cell, piece))
    # the order of work is not that of the file: what needs less is done earlier
    order = state.plan.in_order((key.task, key.policy, key.size) for key in pieces)
    pieces = {key: _by_arm(state, key, pieces[key]) for key in (Key(*one) for one in order)}
    packs = {key: _pack(state, own) for key, own in pieces.items()}
    measured: dict[Key, Measured] = {}
    if state.opened:
        for key, own in pieces.items():
            found = _measure(own, _groups(_paths(state, own)))
            if found is not None:
                measured[key] = found
    why = _blocked(state)
    tasks = tuple(_task(key, own, pieces, measured.get(key), why) for key, own in pieces.items())
    runs = [run for task in tasks for run in task.runs]
    served = {piece.node.id for own in pieces.values() for _, piece in own}
    runs += [_other(piece) for piece in state.pieces if piece.node.id not in served and piece.node.kind == "pretrain"]  # fmt: skip
    events = Place(state.path).journal.events()
    result = StudyResult(
        name=state.plan.study,
        question=state.plan.question or f"Which initial weights help? ({state.plan.study})",
        made=_iso(datetime.now(UTC)),
        version=own_version(),
        seal=_seal(state, events),
        tasks=tasks,
        runs=tuple(runs),
        expected_end=_expected_end(state),
        protocol=tuple(_protocol(state)),
        notes=tuple(f"not there yet: {what}" for what in state.plan.missing),
        limits=state.plan.limits,
        published=published(state, pieces, packs, {key: name_of(key) for key in pieces}),
        file=_file(state.path / FILE),
    )
    shown = {key: packs[key] or _opened(_paths(state, own)[:1]) for key, own in pieces.items()}
    return Gathered(state, result, measured, pieces, packs, shown)


def _by_arm(
    state: StudyState, key: Key, own: Sequence[tuple[Cell, Piece]]
) -> list[tuple[Cell, Piece]]:
    arms = state.plan.arms_in_order(key.task, (cell.arm for cell, _ in own))
    return sorted(own, key=lambda one: arms.index(one[0].arm))


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # told as an edited file by the deviations
        return ""


def name_of(key: Key) -> str:
    """``pneumonia-probe-224``: the task, and what tells it from the file's other tasks; letters that a folder may have."""
    return "-".join(str(part) for part in (key.task, key.policy, key.size) if part)


def _title(key: Key, keys: Sequence[Key], kind: Kind) -> str:
    own = [other for other in keys if other.task == key.task]
    parts = [key.task.replace("_", " ").replace("-", " ")]
    if key.policy and len({other.policy for other in own}) > 1:
        parts.append(_POLICY.get(key.policy, key.policy))
    if key.size and len({other.size for other in own}) > 1:
        parts.append(f"{key.size} pixels")
    told = ", ".join(parts)
    return told[:1].upper() + told[1:] if told else kind


def _task(
    key: Key,
    own: Sequence[tuple[Cell, Piece]],
    pieces: Mapping[Key, Sequence[tuple[Cell, Piece]]],
    measured: Measured | None,
    why: Mapping[str, str],
) -> Task:
    kind = _kind(own)
    name = name_of(key)
    runs = tuple(_run(cell, piece, name, main_measure(kind), why) for cell, piece in own)
    return Task(
        name,
        _title(key, list(pieces), kind),
        kind,
        tuple(dict.fromkeys(cell.arm for cell, _ in own)),
        runs,
        None if measured is None else measured.result,
        next((read.path or read.node for _, p in own for read in p.node.reads if read.option == "data"), ""),
    )  # fmt: skip


def _blocked(state: StudyState) -> dict[str, str]:
    """Piece that can never begin -> which one that it needs failed, and why."""
    found: dict[str, str] = {}
    failed = {piece.node.id: f"needs {piece.node.name}, which failed: {piece.reason}" for piece in state.of("failed")}  # fmt: skip
    for piece in state.pieces:  # each after those that it needs
        reason = next((text for need in piece.node.needs if (text := failed.get(need) or found.get(need))), None)  # fmt: skip
        if reason is not None and piece.state == "open":
            found[piece.node.id] = reason
    return found


def _kind(own: Sequence[tuple[Cell, Piece]]) -> Kind:
    return "detector" if own[0][1].node.kind == "detect" else "classifier"


def _measure(own: Sequence[tuple[Cell, Piece]], groups: Grouping) -> Measured | None:
    """The opened runs of a task by the study's own arms; None where none is opened.

    Args:
        own: measured runs of the task and the cells that they fill.
        groups: groups of the test images, whose figures are given too.
    """
    # after an early opening some runs are done later: these stay sealed until the study is opened again
    done = [(cell, piece) for cell, piece in own if "test" in piece.figures]
    if not done:
        return None
    paths = tuple(dict.fromkeys(piece.folder for _, piece in done))
    asked = _asked(done[0][1], paths)
    # a name of its own for each run: the folders are hashes, which tell a reader nothing
    infos = {info.path: info for info in read_runs(paths, kept_of="test", allow_edited=True)}
    several = len({cell.fraction for cell, _ in own}) > 1
    members: dict[tuple[str, float], list[Tested]] = {}
    taken: dict[str, int] = {}
    for cell, piece in done:
        told = _words(cell)
        taken[told] = taken.get(told, 0) + 1
        info = replace(infos[piece.folder], name=told if taken[told] == 1 else f"{told} ({taken[told]})")  # fmt: skip
        members.setdefault((cell.arm, cell.fraction), []).extend(kept([info], "test"))
    firsts = [tested[0].run for tested in members.values()]
    options = dict.fromkeys(name for run in firsts for name in run.options)
    differing = [
        name
        for name in options
        if name != "fraction" and len({repr(run.options.get(name)) for run in firsts}) > 1
    ]
    order = list(dict.fromkeys(cell.arm for cell, _ in own))
    arms = {
        f"{arm}, {100 * share:g} %" if several else arm: Arm(
            tuple(tested),
            {name: tested[0].run.options.get(name) for name in differing},
            "",
            arm,
            share,
        )
        for (arm, share), tested in sorted(
            members.items(), key=lambda item: (item[0][1], order.index(item[0][0]))
        )
    }
    froc = FrocRule(asked.froc_iou if asked.froc_hit == "iou" else "centre", asked.froc_repeats)
    settings = Settings(
        "test",
        "",
        Resampling(asked.bootstrap, asked.seed),
        BoxRules(froc, sizes_between(asked.size_limits)),
        groups,
    )
    return noted(measure(arms, settings))


def _groups(paths: Sequence[Path]) -> Grouping:
    """Groups of a task's test images, over all of its folds; of attributes that tell at least two apart."""
    packs = [pack for pack in (_opened([path]) for path in paths) if pack is not None]
    found: dict[str, tuple[Mapping[str, str], tuple[str, ...]]] = {}
    for by in parse_by(_GROUPS):
        if len(packs) < len(paths) or any(by.attribute not in pack.attributes for pack in packs):
            continue
        values: dict[str, object] = {}
        for pack in packs:
            own = pack.attribute(by.attribute)
            values |= {str(pack.ids[row]): own[row] for row in pack.where("test")}
        try:
            names, order = group_names(by, [*values.values()])
        except InputError:  # not stated, no numbers, or as many values as no table holds
            continue
        if len(set(order) - {UNKNOWN}) > 1:
            found[by.attribute] = dict(zip(values, names, strict=True)), order
    return found


def _asked(piece: Piece, paths: tuple[Path, ...]) -> EvaluateConfig:
    """How figures are made: as the runs' own options say."""
    rules = ("froc_hit", "froc_iou", "froc_repeats", "bootstrap")
    kept_options = {name: piece.node.options[name] for name in rules if name in piece.node.options}
    return EvaluateConfig(paths, **kept_options)


def _pack(state: StudyState, own: Sequence[tuple[Cell, Piece]]) -> Pack | None:
    """The pack that a task tests on; None where it is not there, or where folds make it several."""
    return _opened(_paths(state, own))


def _opened(paths: Sequence[Path]) -> Pack | None:
    """The one pack of a list of one; None where it is not there."""
    if len(paths) != 1:
        return None
    try:
        return open_pack(paths[0], allow_edited=True)
    except InputError:
        return None


def _paths(state: StudyState, own: Sequence[tuple[Cell, Piece]]) -> list[Path]:
    """Packs of a task, that of the first fold first."""
    return list(dict.fromkeys(path for _, piece in own for path in _data(state, piece)))


def _data(state: StudyState, piece: Piece) -> list[Path]:
    return [
        Path(read.path) if not read.node else state.path / "packs" / read.node
        for read in piece.node.reads
        if read.option == "data"
    ]


def _words(cell: Cell) -> str:
    parts = [cell.arm]
    if cell.pretraining_seed is not None:
        parts.append(f"pre-training {cell.pretraining_seed}")
    if cell.fraction != 1:
        parts.append(f"{100 * cell.fraction:g} % of the labels")
    if cell.fold is not None:
        parts.append(f"fold {cell.fold}")
    return ", ".join([*parts, f"seed {cell.seed}"])


def _run(
    cell: Cell, piece: Piece, task: str, measure_name: str, why: Mapping[str, str]
) -> PlannedRun:
    val = piece.figures.get("val")
    figure = None if val is None else val.get(measure_name)
    record = _record(piece)
    if cell.pretraining_seed is not None:
        record["pre-training"] = f"seed {cell.pretraining_seed}"
    return PlannedRun(
        piece.node.id,
        task,
        cell.arm,
        _words(cell).removeprefix(f"{cell.arm}, "),
        _STATE[piece.state],
        piece.reason or why.get(piece.node.id, ""),
        None if piece.done is None else piece.done.seconds,
        cell.fraction,
        None if figure is None else figure.value,
        record,
    )


def _other(piece: Piece) -> PlannedRun:
    return PlannedRun(
        piece.node.id,
        "",
        "",
        piece.node.name,
        _STATE[piece.state],
        piece.reason,
        None if piece.done is None else piece.done.seconds,
        record=_record(piece),
    )


def _record(piece: Piece) -> dict[str, str]:
    """Where a finished run came from: data, weights, licences, machine."""
    if piece.state != "done" or piece.done is None:
        return {}
    found: dict[str, str] = {"host": piece.done.host, "began": piece.done.began}
    model = piece.folder / MODEL
    if model.is_file():
        told = read_description(model)
        found["initial weights"] = told.init.init or "not recorded"
        if told.init.sha256:
            found["their SHA-256"] = told.init.sha256[:16]
        found["licences and what they saw"] = (
            "; ".join(a.told() for a in told.init.ancestors or ()) or "none public"
        )
        found["network"] = told.arch
        found["data"] = ", ".join(
            f"{Path(p.pack).name} {next(iter(p.checksums.values()), '')[:12]}".strip()
            for p in told.data
        )
        found["model SHA-256"] = told.sha256[:16]
    path = piece.folder / "environment.json"
    machine = read_json(path, "environment record") if path.is_file() else {}
    if isinstance(machine, dict):
        found["machine"] = ", ".join(
            str(machine[key]) + unit
            for key, unit in (("platform", ""), ("cpus", " processors"), ("gpu", ""))
            if machine.get(key)
        )
        found["version"] = (
            f"twinray {machine.get('twinray', '?')}, torch {machine.get('torch', '?')}"
        )
    return found


def _seal(state: StudyState, events: Sequence[Event]) -> Seal:
    opened = [event for event in events if event.what == "opened"]
    done = sorted((p.done for p in state.pieces if p.done is not None), key=lambda one: one.ended)
    measured = state.measured()
    n_after: int | None = None
    if opened:
        n_after = len(opened[0].about.get("pieces", ()))
    return Seal(
        plan=str(state.dated.get("plan", "")),
        fixed=str(state.dated.get("begun", "")),
        first_run=min((one.began for one in done), default=""),
        last_run=done[-1].ended if done and all(p.state == "done" for p in measured) else "",
        opened=opened[0].at if opened else "",
        opened_after=n_after,
        early=any(event.about.get("early") for event in opened),
        deviations=tuple(_deviations(state)),
        whole=Place(state.path).journal.broken() is None,
    )


def _deviations(state: StudyState) -> list[Deviation]:
    names = {piece.node.id: piece for piece in state.pieces}
    found = []
    for one in state.deviations:
        touched = list(
            dict.fromkeys(
                cell.task for run in one.runs if run in names for cell in names[run].node.cells
            )
        )
        found.append(
            Deviation(one.what, one.kind, one.at, ", ".join(touched) or "the study as a whole")
        )
    return found


def _expected_end(state: StudyState) -> str:
    """At the pace of what is done: mean seconds of a run times the runs that are left, by those that run now."""
    done = [p.done.seconds for p in state.measured() if p.done is not None]
    left = [p for p in state.measured() if p.state in ("open", "running")]
    running = max(1, len([p for p in state.pieces if p.state == "running"]))
    if not done or not left:
        return ""
    seconds = sum(done) / len(done) * len(left) / running
    return _iso(datetime.now(UTC) + timedelta(seconds=seconds))


def _protocol(state: StudyState) -> list[tuple[str, str]]:
    plan = state.plan
    facts = [
        ("arms", "equal in every option but the initial weights and what goes with them"
         if not plan.unfair else f"options that differ on purpose: {len(plan.unfair)}; see the deviations"),
        ("test images", "predicted by every run, measured by none before the opening"),
        ("intervals", "95 %; over patients: bootstrap, all arms on the same resamples; over seeds: Student's t"),
    ]  # fmt: skip
    for task, search in plan.searches.items():
        facts.append((f"tuning of {task}", _search(search)))
    if not plan.searches:
        facts.append(("tuning", "none: every arm has the options of the file"))
    return facts


def _search(search: Any) -> str:
    if not isinstance(search, Mapping):
        return str(search)
    space = search.get("space", {})
    values = "; ".join(f"{name}: {value}" for name, value in space.items())
    return f"{values}; {search.get('budget') or 'all'} trials an arm, on validation images"


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
