"""Where a study stands, as typed records: the seam between the engine and whatever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinray.evaluation.record import SplitFigures, read_split
from twinray.files import read_json
from twinray.runs.folder import METRICS
from twinray.runs.results import split_figures
from twinray.runs.sealed import OPENED, read_opened
from twinray.studies.plan.nodes import Node, Plan
from twinray.studies.runner.claims import Done, State
from twinray.studies.runner.execute import CHOICE
from twinray.studies.runner.place import STUDY, Place
from twinray.studies.sealed.deviations import Deviation, deviations


@dataclass(frozen=True)
class Piece:
    """A piece of the plan, and what became of it.

    Attributes:
        node: what was planned.
        state: open, running, failed or done.
        folder: where its results lie.
        reason: why it failed; empty where it did not.
        done: when, where and in what time; None where it is not done.
        choice: what a search chose for it (``measure``, ``budget``, ``chosen``, ``trial``, ``trials``); empty without a search.
        figures: split -> figures; no test figures while the study is sealed.
        diagnostics: calibration and confusion of the test images, as JSON holds them.
    """

    node: Node
    state: State
    folder: Path
    reason: str = ""
    done: Done | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, SplitFigures] = field(default_factory=dict)
    diagnostics: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class StudyState:
    """A study, finished or not.

    Attributes:
        path: its folder.
        plan: what is followed now.
        dated: what ``study.json`` holds: ``begun``, ``file`` and ``plan`` (hashes before the first run), ``version``.
        pieces: in the order of the plan.
        opened: flag, true if test figures are known.
        deviations: what was done otherwise than planned.
    """

    path: Path
    plan: Plan
    dated: Mapping[str, Any]
    pieces: tuple[Piece, ...]
    opened: bool
    deviations: tuple[Deviation, ...]

    def measured(self) -> list[Piece]:
        """Runs whose test figures belong to the result."""
        return [piece for piece in self.pieces if piece.node.measured]

    def of(self, state: State) -> list[Piece]:
        """Pieces that stand so."""
        return [piece for piece in self.pieces if piece.state == state]


def collect(study: Path) -> StudyState:
    """Read where a study stands. Nothing is changed and no weight is loaded, so it works beside running workers.

    Args:
        study: folder of the study.

    Raises:
        InputError: the folder is no study, or a record in it is damaged.
    """
    place = Place(study)
    plan = place.plan()
    dated = read_json(study / STUDY, "record of a study") if (study / STUDY).is_file() else {}
    pieces = tuple(_piece(place, one) for one in plan)
    opened = any((piece.folder / OPENED).is_file() for piece in pieces)
    return StudyState(study, plan, dated, pieces, opened, deviations(place))


def _piece(place: Place, one: Node) -> Piece:
    state, folder = place.claims.state(one.id), one.folder(place.path)
    if state != "done":
        return Piece(one, state, folder, place.claims.failure(one.id))
    figures: dict[str, SplitFigures] = {}
    diagnostics: tuple[Mapping[str, Any], ...] = ()
    if (folder / METRICS).is_file() and one.kind != "pack":
        figures = dict(split_figures(folder))
        opened = read_opened(folder)
        if opened is not None:
            figures["test"] = read_split(opened.get("test"), f"{folder / OPENED}, test")
            diagnostics = tuple(opened.get("diagnostics") or ())
    choice: Mapping[str, Any] = {}
    for read in one.reads:
        path = place.path / "runs" / read.node / CHOICE
        if read.option == "choice" and path.is_file():
            choice = read_json(path, "choice of a search")
    return Piece(one, state, folder, "", place.claims.done(one.id), choice, figures, diagnostics)
