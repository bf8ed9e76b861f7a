"""``twinray study``: a whole comparison from one file. It plans, has workers repeat verbs, and opens the test images at the end."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.text import Text

from twinray.about import DISCLAIMER, own_version
from twinray.errors import InputError, Interrupted, TwinrayError
from twinray.files import clear_disk_errors, sha256, write_json, write_text
from twinray.report.numbers import duration
from twinray.studies.config import StudyConfig
from twinray.studies.estimate import estimate, show_estimate
from twinray.studies.plan.build import build
from twinray.studies.plan.file import Source, read_study
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.plan.show import show_plan
from twinray.studies.results.state import StudyState, collect
from twinray.studies.results.tables import write_tables
from twinray.studies.runner.claims import State, now
from twinray.studies.runner.local import run_local, threads_for
from twinray.studies.runner.place import FILE, STUDY, Place
from twinray.studies.runner.ray_engine import run_ray
from twinray.studies.runner.slurm import Job, run_slurm, write_sbatch
from twinray.studies.sealed.opening import not_done, open_study
from twinray.words import counted

RESULTS = "results"
_NAMED = 30
"""Pieces up to which each is named when it is begun and done."""


def run(config: StudyConfig, console: Console | None = None) -> StudyState | None:
    """Plan, do what is left, open the test images once all is done, and write the tables.

    Returns:
        Where the study stands; None with ``plan``, ``estimate`` and ``sbatch``, which do nothing.

    Raises:
        InputError: a file that cannot be planned, or things that it names and that are not there.
        TwinrayError: some pieces failed (the others are done), or the disk refuses.
        Interrupted: Ctrl-C; the same command goes on.
    """
    console = console or Console()
    file, source = read_study(config.file)
    plan = build(file, source)
    if config.plan:
        show_plan(plan, console)
        return None
    if plan.missing:
        more = f" and {len(plan.missing) - 3} more" if len(plan.missing) > 3 else ""
        raise InputError(
            f"{config.file}: not there: {'; '.join(plan.missing[:3])}{more}; "
            "put them there, set the variables in the environment, or look at --plan"
        )
    if config.estimate:
        threads = config.threads or threads_for(config.workers)
        show_estimate(estimate(plan, config.out, config.workers, threads), console)
        return None
    if config.out is None:
        raise InputError("expected --out, the folder of the study")
    place = _opened(config, plan, source)
    if config.retry_failed:
        _retry(place, plan)
    if config.sbatch:
        path = write_sbatch(place, _job(config))
        console.print(Text(f"batch script: {path}; nothing was submitted"), soft_wrap=True)
        return None
    if not_all_done(place, plan):
        show = _Shown(place, plan, console)
        try:
            _have_done(config, place, show)
        except KeyboardInterrupt:
            done = sum(place.claims.state(one.id) == "done" for one in plan)
            raise Interrupted(
                f"interrupted; {done} of {len(plan.nodes)} pieces are done and kept; the same command goes on"
            ) from None
        show(last=True)
    return _end(config, place, plan, console)


def _have_done(config: StudyConfig, place: Place, show: _Shown) -> None:
    threads = config.threads or threads_for(config.workers)
    if config.on == "ray":
        run_ray(place, config.workers, threads, show, config.gpus)
    elif config.on == "slurm":
        run_slurm(place, _job(config), show)
    else:
        run_local(place, config.workers, threads, show)


def _job(config: StudyConfig) -> Job:
    return Job(
        config.workers,
        config.threads,
        config.gpus,
        config.minutes,
        config.memory,
        config.partition,
    )


def not_all_done(place: Place, plan: Plan) -> bool:
    """Whether some piece is neither done nor failed."""
    claims = place.claims
    return any(claims.state(one.id) in ("open", "running") for one in plan)


def _opened(config: StudyConfig, plan: Plan, source: Source) -> Place:
    """The study's folder, with the file dated before the first run and every later plan in the journal."""
    assert config.out is not None
    place = Place(config.out)
    if config.out.is_file():
        raise InputError(f"expected a folder for the study, {config.out} is a file")
    others = [] if not config.out.is_dir() else [one for one in config.out.iterdir() if one.resolve() != config.file.resolve()]  # fmt: skip
    if others and not place.journal.path.is_file():
        raise InputError(
            f"{config.out} holds files and is no study; choose another --out for the study"
        )
    with clear_disk_errors(config.out, "study"):
        config.out.mkdir(parents=True, exist_ok=True)
    planned = [event for event in place.journal.events() if event.what == "planned"]
    if planned and planned[0].about.get("study") != plan.study:
        raise InputError(
            f"{config.out} holds the study {planned[0].about.get('study')!r}, not {plan.study!r}; choose another --out"
        )
    write_text(config.out / FILE, source.text, "the study's file")
    digest = sha256(config.out / FILE)
    place.write_plan(plan)
    about = {"study": plan.study, "file": digest, "plan": plan.key(), "version": own_version()}
    if not planned or any(planned[-1].about.get(key) != about[key] for key in ("file", "plan")):
        place.journal.append("planned", runs=len(plan.measured()), asks=plan.asks(), **about)
    if not (config.out / STUDY).is_file():
        first = next(event for event in place.journal.events() if event.what == "planned")
        write_json(config.out / STUDY, {"begun": first.at, **first.about}, "record of a study")
    _reconcile(place, plan)
    return place


def _reconcile(place: Place, plan: Plan) -> None:
    """Tell the journal of pieces whose worker was killed between its mark and its line."""
    known = {e.about.get("token") for e in place.journal.events() if e.what == "done"}
    for one in plan:
        done = place.claims.done(one.id)
        if done is not None and done.token not in known:
            place.journal.append(
                "done", piece=one.id, claim=done.claim, token=done.token, host=done.host, files=done.files, late=now()
            )  # fmt: skip


def _retry(place: Place, plan: Plan) -> None:
    for one in plan:
        reason = place.claims.failure(one.id)
        if reason:
            place.journal.append("retried", piece=one.id, reason=reason)
            place.claims.retry(one.id)


class _Shown:
    """What was done, failed or begun since the last line, not more often than every few seconds; of many pieces the counts alone."""

    def __init__(self, place: Place, plan: Plan, console: Console) -> None:
        self._place, self._plan, self._console = place, plan, console
        self._told, self._states = 0.0, {one.id: place.claims.state(one.id) for one in plan}
        self._last = ""

    def __call__(self, *, last: bool = False) -> None:
        if not last and time.monotonic() - self._told < 5:
            return
        self._told = time.monotonic()
        claims = self._place.claims
        states = {one.id: claims.state(one.id) for one in self._plan}
        if len(states) <= _NAMED:
            for one in self._plan:
                if states[one.id] != self._states[one.id] and (
                    said := self._said(one, states[one.id])
                ):
                    self._console.print(Text(said), soft_wrap=True)
        self._states = states
        found = Counter(states.values())
        told = ", ".join(f"{n} {name}" for name in ("done", "running", "failed", "open") if (n := found[name]))  # fmt: skip
        if told != self._last:
            self._last = told
            self._console.print(Text(f"{counted(len(self._plan.nodes), 'piece')}: {told}"))

    def _said(self, one: Node, state: State) -> str:
        if state == "done":
            done = self._place.claims.done(one.id)
            return f"done: {one.name}" + ("" if done is None else f", {duration(done.seconds)}")
        if state == "failed":
            return f"failed: {one.name}: {self._place.claims.failure(one.id)}"
        return f"running: {one.name}" if state == "running" else ""


def _end(config: StudyConfig, place: Place, plan: Plan, console: Console) -> StudyState:
    """Open what may be opened, write the tables, say where the study stands."""
    waiting = not_done(plan, place.claims)
    if not waiting or config.open_anyway:
        open_study(place, plan, anyway=config.open_anyway)
    state = collect(place.path)
    write_tables(state, place.path / RESULTS)
    tell(state, console)
    if failed := state.of("failed"):
        raise TwinrayError(
            f"{len(failed)} of {len(state.pieces)} pieces of {place.path} failed; mend what their reasons name, then --retry-failed"
        )
    if left := len(state.pieces) - len(state.of("done")):
        raise TwinrayError(
            f"{left} of {len(state.pieces)} pieces of {place.path} are not done, and no worker is left; {place.logs} says why; "
            "the same command goes on"
        )
    return state


def tell(state: StudyState, console: Console) -> None:
    """Say what is done, what failed and why, whether the test images are open, and what deviates from the plan."""
    measured = state.measured()
    done = [piece for piece in measured if piece.state == "done"]
    console.print(
        Text(f"{state.path}: {len(done)} of {len(measured)} runs with test figures are done")
    )
    for piece in state.of("failed"):
        console.print(Text(f"failed: {piece.node.name}: {piece.reason}", style="bold red"))
    blocked = _blocked(state)
    if blocked:
        console.print(
            Text(
                f"{counted(blocked, 'piece waits for a failed one', 'pieces wait for failed ones')}; mend them, then --retry-failed"
            )
        )
    opened = "opened" if state.opened else "sealed until every planned run is done"
    console.print(Text(f"test images: {opened}"))
    for one in state.deviations:
        console.print(Text(f"deviation, {one.kind}: {one.what}", style="bold red"))
    console.print(Text(f"tables: {state.path / RESULTS}"), soft_wrap=True)
    console.print(f"{DISCLAIMER}.")


def _blocked(state: StudyState) -> int:
    """Pieces that need a failed one, directly or through others."""
    stuck = {piece.node.id for piece in state.of("failed")}
    failed = len(stuck)
    for piece in state.pieces:
        if piece.state == "open" and stuck & set(piece.node.needs):
            stuck.add(piece.node.id)
    return len(stuck) - failed
