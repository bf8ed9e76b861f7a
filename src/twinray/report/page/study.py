"""The page of a study: the answer and its doubt, what it is worth, what a clinic asks, the record. Words come from the figures.

Finished or not: while the test is sealed the page shows the state of the runs and validation figures, hatched and without
intervals. The order of reading, and what a mark means, are those of an evaluation's page (``comparison``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from twinray.evaluation.measures import measure, title
from twinray.evaluation.result import Evaluation
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count, duration, interval, number, signed, value_of
from twinray.report.page import comparison
from twinray.report.page.document import (
    Block,
    Caution,
    Code,
    Content,
    Details,
    Facts,
    Key,
    Keys,
    Points,
    Section,
    Words,
    join_words,
)
from twinray.report.page.strips import Bars, Curves, Forest, Mark, Row, Told, scale_of
from twinray.report.palette import look_of
from twinray.report.study_result import (
    Cell,
    Deviation,
    PlannedRun,
    Published,
    State,
    StudyResult,
    Task,
    cells,
    in_order,
)
from twinray.report.tables import Table, with_interval
from twinray.report.verdict import Outcome, Verdict, not_shown

_LONGEST, _IN_ROW = 60, 30


@dataclass(frozen=True)
class Parts:
    """Sections that other stages prepare, each a list of blocks; an empty one is left out.

    Attributes:
        worth: gain in labelled patients, by task.
        smallest: smallest differences that the test images can show.
        ceiling: readers against each other, and the detector against them.
        pictures: heat maps on images. faithfulness: how far they can be trusted.
        training: validation curves. features: maps of embeddings; label counts.
        confusions: confusion matrices.
        checklist: items of reporting guidelines.
        tuning: what was searched, by how much, what was chosen.
        worth_told, ceiling_told: a sentence of each for the answer; empty without.
        keys: further figures to remember.
    """

    worth: tuple[Block, ...] = ()
    smallest: tuple[Block, ...] = ()
    ceiling: tuple[Block, ...] = ()
    pictures: tuple[Block, ...] = ()
    training: tuple[Block, ...] = ()
    features: tuple[Block, ...] = ()
    confusions: tuple[Block, ...] = ()
    checklist: tuple[Block, ...] = ()
    tuning: tuple[Block, ...] = ()
    worth_told: str = ""
    ceiling_told: str = ""
    keys: tuple[Key, ...] = ()


def content(study: StudyResult, parts: Parts | None = None) -> Content:
    """The whole page.

    Args:
        study: what the study came to.
        parts: sections prepared elsewhere.
    """
    parts = parts or Parts()
    sections = [
        _answer(study, parts),
        _glance(study),
        _seal(study),
        *_part("What it is worth in labelled patients", "In labelled patients", parts.worth),
        *_part("The smallest difference this test can show", "Smallest difference", parts.smallest),
        *_labels(study),
        *_published(study),
        *_part("What readers find", "Human ceiling", parts.ceiling),
        *_by_task(study),
        *_part("What is taken for what", "Confusions", parts.confusions),
        *_part("Where it looks", "Where it looks", parts.pictures),
        *_part("How they learned", "Training", parts.training),
        *_part("Labels and features", "Labels and features", parts.features),
        _runs(study),
        _protocol(study, parts),
        *_part("Checklists", "Checklists", parts.checklist),
        _provenance(study),
    ]
    return Content(
        title=study.question,
        over=f"Study report: {study.name}",
        lede=_lede(study),
        sections=tuple(_headed(sections)),
        footer=f"Made by twinray {study.version} on {day(study.made)}.",
        meta=(
            day(study.made),
            f"{study.count('done')} of {len(study.runs)} runs done"
            + (f", {study.count('failed')} failed" if study.count("failed") else ""),
            f"twinray {study.version}",
        ),
    )


_GROUPS = (
    ("The answer", ("Answer", "At a glance", "Sealed test")),
    ("How much it is worth", ("In labelled patients", "Smallest difference", "Labels", "Published tables")),
    ("For the clinic", ("Human ceiling", "By task", "Confusions", "Where it looks")),
    ("The record", ("Training", "Labels and features", "Runs", "Protocol", "Checklists", "Provenance")),
)  # fmt: skip


def _headed(sections: Sequence[Section]) -> list[Section]:
    """The first section that exists of each group opens it."""
    found: list[Section] = []
    opened: set[str] = set()
    for section in sections:
        group = next((head for head, names in _GROUPS if section.name in names), "")
        found.append(replace(section, part="" if group in opened else group))
        opened.add(group)
    return found


def _part(title_: str, name: str, blocks: tuple[Block, ...]) -> list[Section]:
    return [Section(title_, name, blocks)] if blocks else []


def day(time: str) -> str:
    """``2026-03-05T18:40:00Z`` -> ``5 March 2026, 18:40 UTC``; a text that is no time as it is."""
    try:
        known = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return time
    return f"{known.day} {known:%B %Y, %H:%M} UTC"


def _lede(study: StudyResult) -> str:
    arms = list(dict.fromkeys(arm for task in study.tasks for arm in task.arms))
    shares = list(dict.fromkeys(s for task in study.tasks for s in task.shares))
    parts = [
        f"{count(len(arms), 'arm')}, {count(len(study.tasks), 'task')}, "
        f"{count(len(shares), 'amount')} of labels, {count(len(study.runs), 'planned run')}."
    ]
    if study.sealed:
        parts.append("The test images are sealed until the last planned run is done.")
    elif study.seal.early:
        parts.append("The test images were measured before the last planned run was done.")
    else:
        parts.append("The test images were measured once, after the last planned run.")
    return " ".join(parts)


def _answer(study: StudyResult, parts: Parts) -> Section:
    said = verdict(study, parts)
    cautions = [
        *study.limits,
        *(
            f"{task.title}: {warning}"
            for task in study.tasks
            if task.evaluation is not None
            for warning in task.evaluation.warnings
        ),
    ]
    if study.seal.deviations:
        cautions.append(
            f"{count(len(study.seal.deviations), 'deviation')} from the plan: see the sealed test below."
        )
    if not study.seal.whole:
        cautions.append(
            "The study's journal is not as it was written: its times cannot be relied on."
        )
    cautions += [*_networks(study), *_few_pretrainings(study)]
    blocks: list[Block] = [said]
    if cautions:
        blocks.append(Caution(tuple(cautions)))
    keys = [*_keys(study), *parts.keys]
    if keys:
        blocks.append(Keys(tuple(keys[:3])))
    blocks.append(Details("Words on this page", (Points(_words(study)),)))
    return Section("The answer", "Answer", tuple(blocks))


def _networks(study: StudyResult) -> list[str]:
    """Initial weights may bring their own network; the difference is then of both."""
    found = []
    for task in study.tasks:
        networks: dict[str, dict[str, None]] = {}
        for run in task.runs:
            if network := run.record.get("network"):
                networks.setdefault(network, {})[run.arm] = None
        if len(networks) > 1:
            told = "; ".join(
                f"{network}: {join_words([*arms])}" for network, arms in networks.items()
            )
            found.append(
                f"{task.title}: arms differ in the network too, so their differences are not those of the initial weights alone ({told})."
            )
    return found


def _few_pretrainings(study: StudyResult) -> list[str]:
    """No interval holds the luck of a pre-training that was done once."""
    once = [
        arm
        for task in study.tasks[:1]
        if task.evaluation is not None
        for arm in task.arms
        if len({run.record.get("initial weights") for run in task.runs if run.arm == arm}) == 1
        and any("pre-training" in run.record for run in task.runs if run.arm == arm)
    ]
    if not once:
        return []
    who = "the arm" if len(once) == 1 else "each of the arms"
    return [
        f"One pre-training stands behind {who} {join_words(once)}, so no interval holds the luck of the pre-training."
    ]


def verdict(study: StudyResult, parts: Parts | None = None) -> Verdict:
    """The question's answer in words computed from the figures; a sealed or unfinished study has none yet."""
    parts = parts or Parts()
    if study.sealed:
        return _not_yet(study)
    main = study.tasks[0] if study.tasks else None
    if main is None or main.evaluation is None:
        return Verdict("unknown", "No run is finished, so there is nothing to say.", _state(study))
    asked, base = main.arms[-1], main.arms[0]
    if len(main.arms) == 1:
        figure = main.evaluation.figure(next(iter(main.evaluation.arms)), main.measure)
        return Verdict(
            "unknown",
            "One arm, so nothing to compare.",
            f"{main.title}: {title(main.measure)} {with_interval(figure)} from {asked}.",
        )
    known = cells(study, asked)
    if not known:
        return Verdict(
            "unknown",
            f"{base} and {asked} cannot be compared.",
            f"No task has finished runs of both. {_state(study)}",
        )
    where = {
        side: [c for c in known if c.side == side] for side in ("better", "worse", "open", "none")
    }
    outcome, headline = _headline(where, asked, base, len(known))
    cell = next((c for c in known if c.side == "better"), known[0]) if where["better"] else known[0]
    reason = [_cell_told(cell)]
    others = len(cells(study))
    if others > 1:
        reason.append(
            f"Of {others} differences in this study, {0.05 * others:.2g} would exclude 0 by chance if no arm differed."
        )
    if parts.worth_told:
        reason.append(parts.worth_told)
    if parts.ceiling_told:
        reason.append(parts.ceiling_told)
    rest = where["open"] if where["better"] or where["worse"] else []
    if rest:
        first = rest[0]
        seeds = None if first.difference is None else first.difference.over_seeds
        over = (
            f" over patients, {interval(seeds, sign=True)} over {seeds.n} {seeds.over}"
            if seeds is not None and seeds.ci95 is not None
            else ""
        )
        reason.append(
            f"{_place(first)}: the difference is {signed(value_of(first.difference))} "
            f"({interval(first.difference, sign=True)}{over}), not shown."
        )
    return Verdict(
        outcome, headline, " ".join(reason), _state(study) if study.count("failed") else ""
    )


def _headline(
    where: Mapping[str, Sequence[Cell]], asked: str, base: str, n: int
) -> tuple[Outcome, str]:
    better, worse = where["better"], where["worse"]
    if better and len(better) == n:
        everywhere = "" if n == 1 else f" in all {n} comparisons"
        return "higher", f"Yes: {asked} did better than {base}{everywhere}."
    if worse and len(worse) == n:
        everywhere = "" if n == 1 else f" in all {n} comparisons"
        return "lower", f"No: {asked} did worse than {base}{everywhere}."
    if not better and not worse:
        if where["open"]:
            return "open", f"This study does not show a difference between {asked} and {base}."
        return "unknown", f"{base} and {asked} have no interval, so there is no verdict."
    said = []
    if better:
        said.append(f"{asked} did better than {base} in {_places(better)}")
    if worse:
        said.append(
            f"{'worse' if better else f'{asked} did worse than {base}'} in {_places(worse)}"
        )
    rest = n - len(better) - len(worse)
    open_ = f" No difference is shown in {rest} of {n} comparisons." if rest else ""
    outcome: Outcome = (
        "higher" if better and not worse else "lower" if worse and not better else "open"
    )
    return outcome, ("Yes, in part: " if outcome == "higher" else "") + join_words(
        said
    ) + f".{open_}"


def _places(known: Sequence[Cell]) -> str:
    if len(known) > 3:
        return f"{len(known)} comparisons"
    tasks: dict[str, list[Cell]] = {}
    for cell in known:
        tasks.setdefault(cell.task.title, []).append(cell)
    return join_words(
        [
            _place(own[0]) if len(own) == 1 else f"{name} with {join_words([_share(c.share) for c in own])}"
            for name, own in tasks.items()
        ]
    )  # fmt: skip


def _place(cell: Cell) -> str:
    return cell.task.title + (f", {_share(cell.share)}" if len(cell.task.shares) > 1 else "")


def _share(share: float) -> str:
    return "all labels" if share == 1 else f"{100 * share:g} % of the labels"


def _cell_told(cell: Cell) -> str:
    difference = cell.difference
    n = (
        ""
        if difference is None
        else f", over {count(difference.n, difference.over.removesuffix('s'))}"
    )
    told = (
        f"{_place(cell)}: {title(cell.task.measure)} {number(value_of(cell.value))} from {cell.arm} and "
        f"{number(value_of(cell.base_value))} from {cell.base}. The paired difference is {signed(value_of(difference))} "
        f"(95 % interval {interval(difference, sign=True)}{n})."
    )
    seeds = None if difference is None else difference.over_seeds
    if seeds is not None and seeds.ci95 is not None:
        told += f" Over {seeds.n} {seeds.over}: {interval(seeds, sign=True)}."
    return told + (not_shown(difference) if cell.side == "open" else "")


def _not_yet(study: StudyResult) -> Verdict:
    end = (
        f" At the present pace the last run ends on {day(study.expected_end)}."
        if study.expected_end
        else ""
    )
    return Verdict(
        "unknown",
        "No answer yet: the test set is sealed.",
        f"{_state(study)} The test is opened once, after the last planned run. Until then this page shows validation images only.{end}",
    )


_UNDONE: tuple[tuple[State, str, str], ...] = (
    ("running", "is running", "are running"),
    ("waiting", "waits", "wait"),
    ("failed", "failed", "failed"),
)


def _state(study: StudyResult) -> str:
    parts = [f"{study.count('done')} of {len(study.runs)} runs are done"]
    for state, one, many in _UNDONE:
        if n := study.count(state):
            parts.append(f"{n} {one if n == 1 else many}")
    return join_words(parts) + "."


def _keys(study: StudyResult) -> list[Key]:
    if study.sealed or not study.tasks:
        return []
    found = []
    for cell in cells(study, study.tasks[0].arms[-1])[:3]:
        of = measure(cell.task.measure)
        found.append(
            Key(
                cut_in_middle(_place(cell), _LONGEST),
                signed(value_of(cell.difference), of.digits),
                of.title,
                f"95 % interval {interval(cell.difference, sign=True)}, {cut_in_middle(cell.arm, _LONGEST)} minus {cut_in_middle(cell.base, _LONGEST)}",
            )
        )
    return found


def _words(study: StudyResult) -> tuple[tuple[str, str], ...]:
    measures = dict.fromkeys(task.measure for task in study.tasks)
    return (
        ("arm:", "one set of initial weights; everything else is equal, or is listed."),
        ("95 % interval:", "values that fit the data; wide means unsure."),
        (
            "paired difference:",
            "both arms on the same patients, so that easy and hard images cancel.",
        ),
        ("seed:", "a repeated training that differs only by chance."),
        (
            "sealed:",
            "predictions on test images are kept, and not measured before the last planned run.",
        ),
        *((f"{title(name)}:", f"{measure(name).what}.") for name in measures),
    )


def _glance(study: StudyResult) -> Section:
    """Each task's main measure by arm; differences beside it once the test is open."""
    blocks: list[Block] = []
    blocks += [_forest(study, task, share) for task in study.tasks for share in task.shares]
    if not blocks:
        blocks = ["No task is planned."]
    return Section("At a glance", "At a glance", tuple(blocks))


def _forest(study: StudyResult, task: Task, share: float) -> Forest:
    here = None if study.sealed else task.at(share)
    if here is None:
        return _sealed_forest(study, task, share)
    own = in_order(here, task.arms)
    drawn = comparison.forest(own, task.measure)
    rows = {row.name: row for row in drawn.rows}
    order = [*task.arms] if len(task.arms) <= 4 else [r.name for r in drawn.rows]
    order += [arm for arm in task.arms if arm not in order]
    made = []
    for arm in order:
        planned, look = task.of(arm, share), look_of(task.arms.index(arm), len(task.arms))
        done = sum(run.state == "done" for run in planned)
        missing = "" if done == len(planned) else f"{done} of {count(len(planned), 'run')}"
        if arm in rows:
            row = rows[arm]
            small = ", ".join(part for part in (row.small, missing) if part)
            marked = replace(row.mark, dashed=bool(missing))
            other = row.difference_mark
            made.append(
                replace(
                    row, look=look, small=small, mark=marked,
                    difference_mark=None if other is None else replace(other, dashed=bool(missing)),
                )
            )  # fmt: skip
        else:
            reason = next((run.reason for run in planned if run.reason), "no finished run")
            made.append(
                Row(arm, cut_in_middle(arm, _IN_ROW), look, missing, Told("no figure", reason), Mark(None), None, None, "no figure")
            )  # fmt: skip
    where = _place(Cell(task, share, "", "", None, None, None))
    return replace(
        drawn, title=f"{where}. {drawn.title}", rows=tuple(made), csv="figures.csv", note=""
    )


def _sealed_forest(study: StudyResult, task: Task, share: float) -> Forest:
    """Validation figures: hatched, without intervals and differences."""
    of = measure(task.measure)
    known = {
        arm: [r.validation for r in task.of(arm, share) if r.validation is not None]
        for arm in task.arms
    }
    scale = scale_of([v for own in known.values() for v in own], upper=of.upper)
    rows = []
    for i, arm in enumerate(task.arms):
        planned, own = task.of(arm, share), known[arm]
        done = sum(run.state == "done" for run in planned)
        running = sum(run.state == "running" for run in planned)
        small = f"{done} of {count(len(planned), 'run')}" + (
            f", {running} running" if running else ""
        )
        mean = sum(own) / len(own) if own else None
        failed = next((run.reason for run in planned if run.reason), "")
        rows.append(
            Row(
                arm, cut_in_middle(arm, _IN_ROW), look_of(i, len(task.arms)), small,
                Told(number(mean, of.digits), "validation images") if mean is not None else Told("no figure", failed or "waiting"),
                Mark(None) if mean is None else Mark(scale.at(mean), runs=tuple(map(scale.at, own)) if len(own) > 1 else (), hatched=True),
            )
        )  # fmt: skip
    where = _place(Cell(task, share, "", "", None, None, None))
    why = "the test is sealed" if study.sealed else "no run is finished"
    return Forest(
        title=f"{where}. Validation images only: {why}",
        sub=f"{of.what[:1].upper()}{of.what[1:]}. Hatched marks are no test figures. No intervals and no differences before the test is opened.",
        measure=f"{of.title}, validation",
        scale=scale,
        rows=tuple(rows),
    )


def _seal(study: StudyResult) -> Section:
    seal = study.seal
    n = len(seal.deviations)
    if study.sealed:
        head = f"Sealed: {study.count('done')} of {len(study.runs)} runs are done."
    elif seal.early:
        head = f"Opened early on {day(seal.opened)}, when {seal.opened_after} of {len(study.runs)} runs were done."
    else:
        head = "Opened once, after the last planned run."
    head += f" {count(n, 'deviation')} from the plan." if n else " No deviation from the plan."
    facts = [
        ("plan hashed", f"{day(seal.fixed)}, SHA-256 {seal.plan[:16]}"),
        ("first run", day(seal.first_run) or "not yet"),
        ("last run", day(seal.last_run) or "not yet"),
        ("test opened", day(seal.opened) or "not yet"),
        (
            "runs",
            f"{len(study.runs)} planned, {study.count('done')} done, {study.count('failed')} failed",
        ),
    ]
    blocks: list[Block] = [head, Facts(tuple(facts))]
    blocks.append(
        Words(
            Table(
                "Deviations from the plan",
                ("what", "kind", "when", "what it touches"),
                tuple((d.what, d.kind, day(d.when), d.touches) for d in seal.deviations),
            )
        )
        if n
        else "None: every run is one that the plan names, with the options that the plan gives."
    )
    return Section("The sealed test", "Sealed test", tuple(blocks))


def deviation_rows(found: Sequence[Deviation]) -> Table:
    """Deviations as a table of files."""
    return Table("Deviations from the plan", ("what", "kind", "when", "touches"), tuple((d.what, d.kind, d.when, d.touches) for d in found))  # fmt: skip


def _labels(study: StudyResult) -> list[Section]:
    """Main measure by share of labels, a chart a task."""
    if study.sealed:
        return []
    blocks: list[Block] = []
    for task in study.tasks:
        if task.evaluation is not None and len(task.evaluation.fractions) > 1:
            for section in comparison.fractions(task.evaluation):
                blocks += [_of_study(block, f"{task.title}. ") for block in section.blocks]
    return _part("How many labels it takes", "Labels", tuple(blocks))


def _of_study(block: Block, before: str = "") -> Block:
    """A chart of an evaluation's page, its figures in this study's file."""
    if isinstance(block, Forest | Curves | Bars):
        return replace(block, title=before + block.title, csv="figures.csv" if block.csv else "")
    return block


def _published(study: StudyResult) -> list[Section]:
    """Published values beside this study's own, with what differs."""
    if study.sealed or not study.published:
        return []
    blocks: list[Block] = [
        "Published values keep their printed digits. They come from other images or other protocols: read each column by itself."
    ]
    for one in study.published:
        blocks.append(published_table(study, one))
        if one.differs:
            rows = tuple((d.aspect, d.published, d.own) for d in one.differs)
            caption = "What the two columns rest on"
            blocks.append(Words(Table(caption, ("", "published", "this study"), rows)))
        if one.more:
            blocks.append(Points(tuple(("", said) for said in one.more)))
    return _part("Published tables beside this study", "Published tables", tuple(blocks))


def published_table(study: StudyResult, one: Published) -> Table:
    """One published table, our figures beside it; a dash where this study has none."""
    by_name = {task.name: task for task in study.tasks}
    rows = []
    for value in one.rows:
        own = ""
        task = by_name.get(value.task)
        here = task.at(value.share) if task is not None else None
        if here is not None and task is not None and value.own_arm in here.arms:
            figure = here.figure(value.own_arm, value.measure or task.measure, value.class_name)
            if figure is not None and figure.value is not None:
                f = value.factor
                scaled = replace(
                    figure,
                    value=figure.value * f,
                    ci95=None if figure.ci95 is None else (figure.ci95[0] * f, figure.ci95[1] * f),
                )
                own = with_interval(scaled, digits=3 if f == 1 else 1)
        n = (
            ""
            if here is None
            else count(next(iter(here.arms.values())).figures.counts.get("n_images"))
        )
        rows.append((value.arm, value.setting, value.printed, own or "none", n or ""))
    return Table(
        f"{one.title}" + (f", {one.unit}" if one.unit else ""),
        ("arm", "setting", "published", "this study (95 % interval)", "our test images"),
        tuple(rows),
    )


def _by_task(study: StudyResult) -> list[Section]:
    """Classes, curves and groups of each task, as an evaluation's page has them."""
    if study.sealed:
        return []
    blocks: list[Block] = []
    for task in study.tasks:
        if task.evaluation is None:
            continue
        share = max(task.evaluation.fractions)
        here = task.at(share)
        if here is None:
            continue
        own = in_order(here, task.arms)
        inner: list[Block] = []
        for section in (
            *comparison.curves(own),
            *comparison.classes(own),
            *comparison.subgroups(own),
        ):
            inner += [_of_study(block) for block in section.blocks]
        others: tuple[Block, ...] = _other_measures(own)
        blocks.append(Details(f"{task.title}, {_share(share)}", (*inner, *others)))
    return _part("By finding, by group, false alarms", "By task", tuple(blocks))


def _other_measures(result: Evaluation) -> tuple[Block, ...]:
    glance = comparison.glance(result)
    return tuple(b for b in glance.blocks if isinstance(b, Forest) and b.compact)


def _runs(study: StudyResult) -> Section:
    """Every planned run that has no figure, with its reason; the rest as a table on request."""
    missing = [run for run in study.runs if run.state != "done"]
    blocks: list[Block] = []
    if missing:
        blocks.append(
            Words(
                Table(
                    f"{count(len(missing), 'run')} without a figure",
                    ("run", "task", "arm", "what", "state", "reason"),
                    tuple(
                        (r.name, r.task, r.arm, r.what, r.state, r.reason) for r in missing[:200]
                    ),
                    f"The first 200 of {len(missing):,}." if len(missing) > 200 else "",
                )
            )
        )
    else:
        blocks.append("No run is missing.")
    done = [run for run in study.runs if run.state == "done"]
    if done:
        total = sum(run.seconds or 0.0 for run in done)
        blocks.append(
            Details(
                f"{count(len(done), 'finished run')}, {duration(total)} of computing",
                (
                    Words(
                        Table(
                            "Finished runs",
                            ("run", "task", "arm", "what", "time"),
                            tuple((r.name, r.task, r.arm, r.what, duration(r.seconds) if r.seconds is not None else "") for r in done),
                        )
                    ),
                ),
            )
        )  # fmt: skip
    return Section("Runs", "Runs", tuple(blocks))


def _protocol(study: StudyResult, parts: Parts) -> Section:
    notes: tuple[Block, ...] = (
        (Points(tuple(("", note) for note in study.notes)),) if study.notes else ()
    )
    of_tasks = [
        (f"{task.title}:", note)
        for task in study.tasks
        if task.evaluation is not None and not study.sealed
        for note in task.evaluation.notes
    ]
    told: tuple[Block, ...] = (
        (
            Details(
                f"{count(len(of_tasks), 'note')} of the single tasks", (Points(tuple(of_tasks)),)
            ),
        )
        if of_tasks
        else ()
    )
    file: tuple[Block, ...] = (
        (Details("The study's file", (Code(study.file),)),) if study.file else ()
    )
    blocks = (Facts(study.protocol), *notes, *parts.tuning, *told, *file)
    return Section("Protocol", "Protocol", blocks)


def _provenance(study: StudyResult) -> Section:
    """What each run was made of and where; one row a run, on request."""
    done = [run for run in study.runs if run.record]
    heads = list(dict.fromkeys(key for run in done for key in run.record))
    blocks: list[Block] = [
        Facts(
            (
                ("study", study.name),
                ("plan", f"SHA-256 {study.seal.plan}"),
                ("version", f"twinray {study.version}"),
            )
        )
    ]
    if done:
        rows = tuple((run.name, *(run.record.get(key, "") for key in heads)) for run in done)
        blocks.append(
            Details(
                f"Data, weights, licences, machines of {count(len(done), 'run')}",
                (Words(Table("Provenance", ("run", *heads), rows)),),
            )
        )
    return Section("Provenance", "Provenance", tuple(blocks))


def states(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """State -> number of runs."""
    found: dict[str, int] = {}
    for run in runs:
        found[run.state] = found.get(run.state, 0) + 1
    return found
