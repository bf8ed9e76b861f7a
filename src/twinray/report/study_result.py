"""What a study came to, as its report shows it: plan and state of every run, figures by task, seal, deviations, what it rests on.

``study`` fills it; page, tables and files are drawn from it and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from twinray.evaluation.measures import Kind, main_measure
from twinray.evaluation.record import Figure
from twinray.evaluation.result import Evaluation

State = Literal["done", "running", "waiting", "failed"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan.

    Attributes:
        name: name of its folder.
        task, arm: task and arm that it serves; several tasks of a pre-training are empty.
        what: seed, fold and share of labels, in words.
        state: state of it. reason: why it failed, or which piece that it needs did, one line; empty otherwise.
        seconds: time that it took; None unless done.
        share: share of the labelled training images, 0..1.
        validation: main figure on validation images; None where there is none yet.
        record: facts of its provenance by name, in the order shown.
    """

    name: str
    task: str
    arm: str
    what: str
    state: State
    reason: str = ""
    seconds: float | None = None
    share: float = 1.0
    validation: float | None = None
    record: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deviation:
    """One departure from the plan: what, of which kind, when (UTC, ISO 8601), and what it touches."""

    what: str
    kind: str
    when: str
    touches: str


@dataclass(frozen=True)
class Seal:
    """When the plan was fixed and the test opened; times UTC, ISO 8601, empty where not yet.

    Attributes:
        plan: SHA-256 of the plan before the first run.
        fixed, first_run, last_run, opened: times.
        opened_after: runs that were done at the opening; None while sealed.
        early: the test was opened before the last planned run.
        deviations: departures from the plan, in order.
        whole: the journal of the study is as it was written.
    """

    plan: str
    fixed: str
    first_run: str = ""
    last_run: str = ""
    opened: str = ""
    opened_after: int | None = None
    early: bool = False
    deviations: tuple[Deviation, ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class Task:
    """One question of the study: a kind of model on one pack.

    Attributes:
        name: key in the study's file. title: words for readers (``Detection, 224 pixels``).
        kind: kind of its models.
        arms: names, in the file's order; the first is the one that others are compared with.
        runs: planned runs.
        evaluation: figures of the test images; None while these are sealed or no run is finished.
        data: pack.
    """

    name: str
    title: str
    kind: Kind
    arms: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    evaluation: Evaluation | None
    data: str = ""

    @property
    def measure(self) -> str:
        """Name of its main measure."""
        return main_measure(self.kind)

    @property
    def shares(self) -> tuple[float, ...]:
        """Planned shares of the labelled training images, ascending."""
        return tuple(sorted({run.share for run in self.runs}))

    def of(self, arm: str, share: float) -> list[PlannedRun]:
        """Planned runs of an arm with so many labels."""
        return [run for run in self.runs if run.arm == arm and run.share == share]

    def at(self, share: float) -> Evaluation | None:
        """The evaluation of one share alone, arms named by their family; None where nothing is finished there."""
        return None if self.evaluation is None else at_share(self.evaluation, share)


@dataclass(frozen=True)
class Differs:
    """One aspect of data or protocol (``split``): what the published table rests on, and what this study does."""

    aspect: str
    published: str
    own: str


@dataclass(frozen=True)
class Published:
    """A published table beside this study's figures.

    Attributes:
        title: table and paper. unit: unit of its values.
        rows: values as printed, and where this study's own stand.
        differs: data and protocol of both, aspect by aspect.
        more: further differences, a sentence each.
    """

    title: str
    unit: str
    rows: tuple[PublishedValue, ...]
    differs: tuple[Differs, ...]
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedValue:
    """One published value and where this study's own stands; ``factor`` turns ours into its unit."""

    arm: str
    setting: str
    printed: str
    task: str = ""
    own_arm: str = ""
    share: float = 1.0
    measure: str = ""
    class_name: str | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class StudyResult:
    """Everything that a report shows.

    Attributes:
        name: name of the study. question: what it asks, one sentence.
        made: time of the report, UTC, ISO 8601. version: of the product.
        seal: plan, opening, deviations.
        tasks: in the file's order; the first one answers.
        runs: every planned run, those of pre-training too.
        expected_end: time at the present pace, UTC; empty where not known.
        protocol: facts by name: how the arms were kept fair, budget of tuning, choices.
        notes: facts that a reader must know.
        limits: what the study cannot say, in the words of its file.
        published: tables of papers beside this study's own figures.
        file: the study's file, as it was read last.
    """

    name: str
    question: str
    made: str
    version: str
    seal: Seal
    tasks: tuple[Task, ...]
    runs: tuple[PlannedRun, ...]
    expected_end: str = ""
    protocol: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    file: str = ""

    def count(self, state: State) -> int:
        """Number of planned runs in a state."""
        return sum(run.state == state for run in self.runs)

    @property
    def sealed(self) -> bool:
        """Whether test figures may not be shown yet."""
        return not self.seal.opened


@dataclass(frozen=True)
class Cell:
    """One comparison of the answer: an arm against the first one, in one task with so many labels.

    Attributes:
        task, share, arm, base: what is compared.
        value, base_value, difference: figures in the task's main measure.
    """

    task: Task
    share: float
    arm: str
    base: str
    value: Figure | None
    base_value: Figure | None
    difference: Figure | None

    @property
    def side(self) -> Literal["better", "worse", "open", "none"]:
        """What it shows; ``none`` without a figure or without an interval."""
        known = self.difference
        if known is None or known.value is None or known.excludes_zero is None:
            return "none"
        seeds = known.over_seeds
        if not known.excludes_zero or (seeds is not None and seeds.excludes_zero is False):
            return "open"
        return "better" if known.value > 0 else "worse"


def cells(study: StudyResult, arm: str | None = None) -> list[Cell]:
    """Comparisons with the first arm, task by task and share by share.

    Args:
        study: opened or not; a sealed one has none.
        arm: only those of this arm.
    """
    found: list[Cell] = []
    for task in study.tasks:
        for share in task.shares:
            here = task.at(share)
            if here is None:
                continue
            base = task.arms[0]
            for other in task.arms[1:]:
                if (arm is None or other == arm) and other in here.arms and base in here.arms:
                    own = here.arms[other].difference
                    found.append(
                        Cell(
                            task,
                            share,
                            other,
                            base,
                            here.figure(other, task.measure),
                            here.figure(base, task.measure),
                            None if own is None else own.get(task.measure),
                        )
                    )
    return found


def at_share(result: Evaluation, share: float) -> Evaluation | None:
    """Arms of one share of the labels, named by their family; None where there are none.

    >>> from twinray.evaluation.result import Evaluation
    >>> at_share(Evaluation("detector", "", "test", "", (), 1, (0,), "", {}, {}), 0.1) is None
    True
    """
    kept = {name: arm for name, arm in result.arms.items() if arm.fraction == share}
    if not kept:
        return None
    names = {name: arm.family or name for name, arm in kept.items()}
    arms = {
        names[name]: replace(arm, minus=names.get(arm.minus, ""), family=names[name])
        for name, arm in kept.items()
    }
    runs = {
        name: replace(run, arm=names[run.arm])
        for name, run in result.runs.items()
        if run.arm in names
    }
    return replace(result, arms=arms, runs=runs)


def in_order(result: Evaluation, order: Sequence[str]) -> Evaluation:
    """The same with arms in a given order; those that are not named come last."""
    names = [*(n for n in order if n in result.arms), *(n for n in result.arms if n not in order)]
    arms: dict[str, Any] = {name: result.arms[name] for name in names}
    return replace(result, arms=arms)
