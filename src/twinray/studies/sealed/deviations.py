"""Deviations: what was done otherwise than planned before the first run, from the journal and from hashes of files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from twinray.errors import InputError
from twinray.files import read_json, sha256
from twinray.runs.checksums import FILE as CHECKSUMS
from twinray.runs.sealed import OPENED
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.runner.execute import result_files
from twinray.studies.runner.journal import Event
from twinray.studies.runner.place import FILE, PLAN, STUDY, Place
from twinray.words import counted

Kind = Literal[
    "run added",
    "run left out",
    "option changed",
    "question changed",
    "run repeated",
    "opened early",
    "file edited",
    "arms differ",
]


_STEPS = ("choose", "features")
"""Kinds of pieces that only serve runs, whose coming and going is told with theirs."""


@dataclass(frozen=True)
class Deviation:
    """Something that was done otherwise than planned.

    Attributes:
        kind: kind of it.
        what: in one line.
        at: when it is known to have happened, ISO 8601 in UTC; empty where only its traces are known.
        runs: ids of the runs that it touches.
    """

    kind: Kind
    what: str
    at: str = ""
    runs: tuple[str, ...] = ()


def deviations(place: Place) -> tuple[Deviation, ...]:
    """All deviations of a study, in the order of what is known of their time.

    Raises:
        InputError: the folder is no study.
    """
    plan = place.plan()
    try:
        events = place.journal.events()
    except InputError as error:
        return (Deviation("file edited", str(error)),)
    found = [
        *_arms(plan),
        *_replanned(place, events),
        *_repeated(plan, events),
        *_early(events),
        *_edited(place, plan, events),
    ]
    return tuple(sorted(found, key=lambda one: one.at))


def _arms(plan: Plan) -> Iterator[Deviation]:
    for one in plan.unfair:
        yield Deviation(
            "arms differ",
            f"{one.task}: {one.arm} has {one.option} {one.value}, unlike the other arms: {one.reason}",
        )


def _replanned(place: Place, events: list[Event]) -> Iterator[Deviation]:
    planned = [event for event in events if event.what == "planned"]
    opened = next((event.number for event in events if event.what == "opened"), None)
    for before, after in itertools.pairwise(planned):
        late = opened is not None and after.number > opened
        when = ", after the test images were opened" if late else ""
        yield from _asked(before, after, when)
        if before.about.get("plan") == after.about.get("plan"):
            continue
        try:
            old = place.plan_of(str(before.about["plan"]))
            new = place.plan_of(str(after.about["plan"]))
        except InputError as error:
            yield Deviation("file edited", str(error), after.at)
            continue
        yield from _between(old, new, after.at, when)


def _asked(before: Event, after: Event, when: str) -> Iterator[Deviation]:
    """The question, the task that answers it, which arms are compared, what is said of limits."""
    old, new = before.about.get("asks"), after.about.get("asks")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return  # written by an older version
    for what in dict.fromkeys((*old, *new)):
        if old.get(what) == new.get(what):
            continue
        if what.startswith("arms of ") and (what not in old or what not in new):
            continue  # its runs are told as added or left out
        told = f"{what}: other than before"
        if what != "published tables":
            told = f"{what}: {_shown(old.get(what)) or 'none'} before, {_shown(new.get(what)) or 'none'} now"
        yield Deviation("question changed", f"{told}{when}", after.at)


def _between(old: Plan, new: Plan, at: str, when: str) -> Iterator[Deviation]:
    before, now = ({one.name: one for one in plan} for plan in (old, new))
    added = [one for name, one in now.items() if name not in before and one.kind not in _STEPS]
    gone = [one for name, one in before.items() if name not in now and one.kind not in _STEPS]
    for one in added:
        yield Deviation("run added", f"{one.name}{when}", at, (one.id,))
    for one in gone:
        yield Deviation("run left out", f"{one.name}{when}", at, (one.id,))
    changed: dict[str, list[str]] = {}
    for name, one in now.items():
        if name in before and before[name].id != one.id:
            for what in _changes(before[name], one):
                changed.setdefault(what, []).append(one.id)
    for what, ids in changed.items():
        yield Deviation("option changed", f"{what}, in {_count(ids)}{when}", at, tuple(ids))
    known = {repr(asdict(one)) for one in old.unfair}
    for own in new.unfair:
        if repr(asdict(own)) not in known:
            yield Deviation("option changed", f"{own.option} of {own.arm} alone{when}", at)


def _changes(old: Node, new: Node) -> Iterator[str]:
    """What differs in the piece itself; what differs in pieces that it needs is told there."""
    for option in dict.fromkeys((*old.options, *new.options)):
        was, is_ = old.options.get(option, "default"), new.options.get(option, "default")
        if was != is_:
            yield f"{new.kind} {option}: {_shown(was)} before, {_shown(is_)} now"
    for option in dict.fromkeys(r.option for r in (*old.reads, *new.reads)):
        was_, is__ = (
            [(r.key, r.path) for r in node.reads if r.option == option and not r.node]
            for node in (old, new)
        )
        if [key for key, _ in was_] != [key for key, _ in is__]:
            paths = [", ".join(p for _, p in own) or "another piece" for own in (was_, is__)]
            yield f"{new.kind} {option}: {paths[0]} before, {paths[1]} now" + (
                " (other bytes)" if paths[0] == paths[1] else ""
            )


def _repeated(plan: Plan, events: list[Event]) -> Iterator[Deviation]:
    names = {one.id: one.name for one in plan}
    done: dict[str, set[str]] = {}
    for event in events:
        piece = str(event.about.get("piece", ""))
        if event.what == "done":
            tokens = done.setdefault(piece, set())
            if tokens and event.about.get("token") not in tokens:
                yield Deviation(
                    "run repeated",
                    f"{names.get(piece, piece)}: done again after it was done",
                    event.at,
                    (piece,),
                )
            tokens.add(str(event.about.get("token")))
        elif event.what == "retried":
            told = f"{names.get(piece, piece)}: tried again after it failed ({event.about.get('reason', '')})"
            yield Deviation("run repeated", told, event.at, (piece,))


def _early(events: list[Event]) -> Iterator[Deviation]:
    for event in events:
        if event.what == "opened" and event.about.get("early"):
            left = event.about.get("not_done", [])
            yield Deviation(
                "opened early",
                f"the test images were opened while {_count(left)} were not done (--open-anyway)",
                event.at,
                tuple(left),
            )


def _edited(place: Place, plan: Plan, events: list[Event]) -> Iterator[Deviation]:
    broken = place.journal.broken()
    if broken is not None:
        yield Deviation(
            "file edited", f"{place.journal.path.name}: line {broken + 1} does not follow from the one before"
        )  # fmt: skip
    planned = [event for event in events if event.what == "planned"]
    if planned:
        yield from _edited_plans(place, plan, planned)
    done = {str(e.about.get("piece")): e for e in events if e.what == "done"}
    for one in plan:
        if place.claims.state(one.id) == "done":
            yield from _edited_run(place, one, done.get(one.id))
    on_record = {i for e in events if e.what == "opened" for i in e.about.get("pieces", [])}
    for one in plan.measured():
        if one.id not in on_record and (one.folder(place.path) / OPENED).is_file():
            yield Deviation("file edited", f"runs/{one.id}/{OPENED}: test figures, and no opening is on record", runs=(one.id,))  # fmt: skip
    first: dict[str, str] = {}
    for event in events:
        if event.what == "figures":
            # a run is measured once: later openings list its file again, which may be edited by then
            first = {**event.about.get("opened", {}), **first}
    for piece, own in first.items():
        path = place.path / "runs" / piece / OPENED
        if not path.is_file() or sha256(path) != own:
            yield Deviation("file edited", f"runs/{piece}/{OPENED}", runs=(piece,))


def _edited_plans(place: Place, plan: Plan, planned: list[Event]) -> Iterator[Deviation]:
    if plan.key() != planned[-1].about.get("plan"):
        yield Deviation("file edited", f"{PLAN}: not the plan that was dated")
    for event in planned:
        key = str(event.about.get("plan"))
        path = place.path / "plans" / f"{key[:16]}.json"
        if path.is_file() and place.plan_of(key).key() != key:
            yield Deviation("file edited", f"plans/{path.name}: not the plan that was dated")
    file = place.path / FILE
    if not file.is_file() or sha256(file) != planned[-1].about.get("file"):
        yield Deviation("file edited", f"{FILE}: not the file that was read")
    first = read_json(place.path / STUDY, "record of a study") if (place.path / STUDY).is_file() else {}  # fmt: skip
    if not isinstance(first, dict) or any(
        first.get(key) != planned[0].about.get(key) for key in ("plan", "file")
    ):
        yield Deviation("file edited", f"{STUDY}: not as it was dated")


def _edited_run(place: Place, one: Node, event: Event | None) -> Iterator[Deviation]:
    folder, mark = one.folder(place.path), place.claims.done(one.id)
    kept: Mapping[str, Any] = mark.files if mark is not None else {}
    now = result_files(folder)
    wrong = [name for name in dict.fromkeys((*kept, *now)) if kept.get(name) != now.get(name)]
    if event is not None and event.about.get("files") not in (None, dict(kept)):
        wrong.append(f"claims/{one.id}.done")
    if CHECKSUMS not in wrong and (folder / CHECKSUMS).is_file():
        wrong += _of_checksums(folder)
    for name in wrong:
        yield Deviation(
            "file edited", f"{folder.relative_to(place.path)}/{name} ({one.name})", runs=(one.id,)
        )


def _of_checksums(folder: Path) -> list[str]:
    """Files that differ from what the run wrote; weights, which no figure of a study is read from, are left out."""
    kept = read_json(folder / CHECKSUMS, "record of a run's files")
    files = kept.get("files", {}) if isinstance(kept, dict) else {}
    return [
        name
        for name, own in files.items()
        if not name.endswith(".safetensors")
        and (not (folder / name).is_file() or sha256(folder / name) != own)
    ]


def _count(ids: list[str]) -> str:
    return counted(len(ids), "run")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
