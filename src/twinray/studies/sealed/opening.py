"""Opening: the test predictions that every run kept are measured, all at once, when every planned run is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.evaluation.record import FORMAT, split_as_json
from twinray.files import sha256
from twinray.runs.folder import read_config
from twinray.runs.sealed import OPENED, write_opened
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.runner.claims import Claims, Heartbeat, now
from twinray.studies.runner.place import Place

OPENING = "opening"
"""Name of the claim of the coordinator that opens."""
_POLL_S = 0.5
_RULES = ("froc_hit", "froc_iou", "froc_repeats", "bootstrap", "seed")


def not_done(plan: Plan, claims: Claims) -> list[Node]:
    """Measured runs that are not done: while there are any, the test images stay sealed."""
    return [one for one in plan.measured() if claims.state(one.id) != "done"]


def open_study(place: Place, plan: Plan, *, anyway: bool = False) -> int:
    """Measure every run that is done and not opened yet.

    Args:
        place: the study. plan: what was planned.
        anyway: flag to open although planned runs are not done; the journal keeps it.

    Returns:
        Number of runs that were measured now.

    Raises:
        InputError: planned runs are not done, or a run's files are not as the run wrote them.
    """
    waiting = not_done(plan, place.claims)
    if waiting and not anyway:
        raise InputError(
            f"{len(waiting)} planned runs of {place.path} are not done ({waiting[0].name}, ...): the test images stay sealed; "
            "run the study to its end, or give --open-anyway, which the report lists"
        )
    if _is_open(place, plan):
        return 0
    with _alone(place.claims):
        return _open(place, plan)


@contextmanager
def _alone(claims: Claims) -> Iterator[None]:
    """Of several coordinators one opens at a time: figures that another wrote anew would have other hashes than the journal's."""
    while (claim := claims.take(OPENING)) is None:
        time.sleep(_POLL_S)
    try:
        with Heartbeat(claims, claim):
            yield
    finally:
        claims.end(claim, "", failed=False)


def _is_open(place: Place, plan: Plan) -> bool:
    """Whether every run that is done is measured, and the journal says so."""
    ready = {one.id for one in plan.measured() if place.claims.state(one.id) == "done"}
    events = place.journal.events()
    known = {piece for e in events if e.what == "opened" for piece in e.about.get("pieces", [])}
    listed = {piece for e in events if e.what == "figures" for piece in e.about.get("opened", {})}
    lie = all((place.path / "runs" / piece / OPENED).is_file() for piece in ready)
    return lie and ready <= known and ready <= listed


def _open(place: Place, plan: Plan) -> int:
    if _is_open(place, plan):  # another coordinator opened it meanwhile
        return 0
    waiting = not_done(plan, place.claims)
    ready = [one for one in plan.measured() if place.claims.state(one.id) == "done"]
    known = {piece for e in place.journal.events() if e.what == "opened" for piece in e.about.get("pieces", [])}  # fmt: skip
    # figures that lie there although no opening is on record are nobody's: they are measured
    left = [
        one
        for one in ready
        if one.id not in known or not (one.folder(place.path) / OPENED).is_file()
    ]
    if not {one.id for one in ready} <= known:  # else an opening that was killed goes on
        place.journal.append(
            "opened",
            early=bool(waiting),
            not_done=[one.id for one in waiting],
            pieces=[one.id for one in ready],
        )
    for one in left:
        folder = one.folder(place.path)
        write_opened(folder, _measured(folder, early=bool(waiting)))
    sums = {one.id: sha256(one.folder(place.path) / OPENED) for one in ready}
    place.journal.append("figures", opened=sums)
    return len(left)


def _measured(run: Path, *, early: bool) -> Mapping[str, Any]:
    from twinray.jobs.evaluate.config import EvaluateConfig
    from twinray.jobs.evaluate.run import evaluated

    kept = read_config(run)
    asked = EvaluateConfig((run,), **{name: kept[name] for name in _RULES if name in kept})
    result = evaluated(asked, opening=True)[0].result
    (arm,) = result.arms.values()
    runs: Sequence[Any] = list(result.runs.values())
    return {
        "format": FORMAT,
        "opened": now(),
        "early": early,
        "test": split_as_json(arm.figures),
        "diagnostics": [dict(one.diagnostics) for one in runs],
        "notes": list(result.notes),
        "warnings": list(result.warnings),
    }
