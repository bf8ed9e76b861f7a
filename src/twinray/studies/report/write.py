"""``twinray report``: a study, finished or not, as one page with its tables and figures as files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from twinray.about import DISCLAIMER, own_version
from twinray.errors import InputError
from twinray.evaluation.measures import measure
from twinray.files import (
    frees_folders,
    lock_folder,
    make_folder,
    write_bytes,
    write_json,
    write_text,
)
from twinray.jobs.evaluate.output import write as write_evaluation
from twinray.report.checklists.fill import guideline
from twinray.report.checklists.sources import Records, read_records
from twinray.report.checklists.write import write_checklists
from twinray.report.numbers import interval, number, signed, value_of
from twinray.report.page.document import Block, Details, Picture, Words, write_report
from twinray.report.page.study import Parts, content, published_table, verdict
from twinray.report.study_result import Cell, StudyResult, cells
from twinray.report.table_files import latex, markdown
from twinray.report.tables import Table
from twinray.studies.report import parts
from twinray.studies.report.config import ReportConfig
from twinray.studies.report.embeddings import embeddings
from twinray.studies.report.faithfulness import faithfulness
from twinray.studies.report.gather import Gathered, gather, name_of
from twinray.studies.report.readers import ceiling
from twinray.studies.report.worth import worth
from twinray.studies.results.state import collect
from twinray.studies.results.tables import write_tables

PAGE, MARK = "report.html", "report.json"
GAINS = "gains.json"
_OWN = ("tasks", "tables", "figures", "pictures", "checklists", "embeddings", "faithfulness")
_WITH_FILES = ("worth", "smallest", "ceiling", "confusions", "training", "features", "tuning")
"""Sections whose tables and charts are written as files too."""


def run(config: ReportConfig, console: Console | None = None) -> Path:
    """Write the report and return the page's absolute path; see :func:`written`."""
    return written(config, console)[0]


@frees_folders
def written(config: ReportConfig, console: Console | None = None) -> tuple[Path, StudyResult]:
    """Write the report.

    Returns:
        The page's absolute path, and what it shows.

    ``report.html``; ``figures.csv`` and ``figures.parquet`` (every figure of every run); ``gains.json``; ``tables/`` as Markdown and
    LaTeX; ``figures/`` (the page's charts as SVG); ``tasks/`` (each task's own evaluation with all figures as SVG); ``pictures/``, ``faithfulness/`` and ``embeddings/`` (what those verbs write).

    Raises:
        InputError: the folder is no study, or holds damaged records; or another process writes this report.
        TwinrayError: the disk refuses.
    """
    console = console or Console()
    out = config.out or config.study / "report"
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError(f"{out} holds files and is no report; choose another --out")
    state = collect(config.study)
    lock_folder(out, "report")
    study = gather(state)
    about = {"study": study.result.name, "plan": study.result.seal.plan, "version": own_version()}
    write_json(out / MARK, about, "record of a report")  # first: a report cut off is still ours
    for name in _OWN:  # an earlier report of the same study is replaced as a whole
        shutil.rmtree(out / name, ignore_errors=True)
    (out / GAINS).unlink(missing_ok=True)
    write_tables(state, out)
    for key, measured in study.measured.items():
        folder = out / "tasks" / name_of(key)
        make_folder(folder)
        write_evaluation(folder, measured, ())
    found = _parts(study, out, config)
    make_folder(out / "tables")
    for table_name, table in {**tables(study.result), **_of_sections(found)}.items():
        write_text(out / "tables" / f"{table_name}.md", markdown(table), "table")
        write_text(out / "tables" / f"{table_name}.tex", latex(table, f"tab:{table_name}"), "table")
    for figure_name, picture in _charts(found).items():
        make_folder(out / "figures")
        write_bytes(out / "figures" / f"{figure_name}.svg", picture.data, "figure")
    page = write_report(out / PAGE, content(study.result, found))
    said = verdict(study.result)
    console.print(Text(said.headline, style="bold"))
    console.print(Text(said.reason))
    console.print(Text(f"report: {page}"), soft_wrap=True)
    console.print(f"{DISCLAIMER}.")
    return page, study.result


def _parts(study: Gathered, out: Path, config: ReportConfig) -> Parts:
    gains, smallest, told, known = worth(study, config.minutes_per_image)
    if known:
        numbers = {name: [one.as_json() for one in own] for name, own in known.items()}
        write_json(out / GAINS, numbers, "gains in labelled patients")
    readers, readers_told = ceiling(study)
    shown: tuple[Block, ...] = ()
    if config.heat_maps:  # before the checklists, which take the maps' faithfulness from its record
        shown = (
            *parts.pictures(study, out / "pictures"),
            *faithfulness(study, out / "faithfulness"),
        )
    return Parts(
        ceiling=readers,
        ceiling_told=readers_told,
        checklist=_checklists(study.state.path, out),
        worth=gains,
        smallest=smallest,
        worth_told=told,
        pictures=shown,
        training=parts.training(study),
        features=(
            *parts.labels(study),
            *(embeddings(study, out / "embeddings") if config.embeddings else ()),
        ),
        confusions=parts.confusions(study),
        tuning=parts.tuning(study),
    )


def _blocks(parts_: Parts, section: str) -> Iterator[Block]:
    """A section's blocks, those on request too."""
    left: list[Block] = list(getattr(parts_, section))
    while left:
        one = left.pop(0)
        yield one
        if isinstance(one, Details):
            left[:0] = one.blocks


def _of_sections(parts_: Parts) -> dict[str, Table]:
    """Tables of the sections by name: ``worth-1``."""
    found: dict[str, Table] = {}
    for section in _WITH_FILES:
        own = [
            one.table if isinstance(one, Words) else one
            for one in _blocks(parts_, section)
            if isinstance(one, Table | Words)
        ]
        found |= {f"{section}-{i}": table for i, table in enumerate(own, 1)}
    return found


def _charts(parts_: Parts) -> dict[str, Picture]:
    """Charts of the sections by name: ``training-1``."""
    found: dict[str, Picture] = {}
    for section in _WITH_FILES:
        own = [one for one in _blocks(parts_, section) if isinstance(one, Picture) and one.kind == "svg"]  # fmt: skip
        found |= {f"{section}-{i}": picture for i, picture in enumerate(own, 1)}
    return found


def _checklists(study: Path, out: Path) -> tuple[Block, ...]:
    """Each checklist as a file, and in the page what the records answer and what is left to write."""
    folders = [study / name for name in ("packs", "runs") if (study / name).is_dir()]
    try:
        records = _records(study, out) if folders else None
    except InputError as error:  # a damaged record is told, not taken for one that is not there
        return (f"Not filled: {error}.",)
    if records is None:
        return ("No record to fill a checklist from yet.",)
    blocks: list[Block] = [
        "Filled from the records with their source, or yours to write. Items are paraphrased; no item is claimed that the records do not show."
    ]
    for name, answers in write_checklists(records, out / "checklists").items():
        rows = tuple(
            (
                one.item.number,
                one.item.asks,
                one.status,
                "; ".join(f"{fact.text} ({fact.sources[0].told()})" for fact in one.facts)
                + (f"; and {one.more} more" if one.more else "")
                + (f" {one.remark}" if one.remark else ""),
            )
            for one in answers
        )
        done = sum(one.status == "filled" for one in answers)
        blocks.append(
            Details(
                f"{guideline(name).title}: {done} of {len(answers)} items filled",
                (Words(Table(guideline(name).citation, ("item", "asks for", "status", "from the records"), rows)),),
            )
        )  # fmt: skip
    return tuple(blocks)


def _records(study: Path, out: Path) -> Records:
    """Those of the study and of this report, wherever it is written; not those of other reports that lie in the study.

    Raises:
        InputError: a damaged record.
    """
    inside = out.resolve().is_relative_to(study.resolve())
    found = read_records(study) if inside else read_records(study, out)
    start = "" if inside else f"{study.name}/"
    others = tuple(
        f"{start}{folder.name}/"
        for folder in study.iterdir()
        if (folder / MARK).is_file() and folder.resolve() != out.resolve()
    )
    return Records({k: v for k, v in found.files.items() if not k.startswith(others)})


def tables(study: StudyResult) -> dict[str, Table]:
    """The tables of a paper: a file name -> one table a task, arms down, shares of labels across; then the differences."""
    found: dict[str, Table] = {}
    for task in study.tasks:
        if task.evaluation is None:
            continue
        of = measure(task.measure)
        shares = task.evaluation.fractions
        rows = []
        for arm in task.arms:
            own = [task.at(share) for share in shares]
            figures = [None if e is None or arm not in e.arms else e.figure(arm, task.measure) for e in own]  # fmt: skip
            rows.append((arm, *(f"{number(value_of(f), of.digits)} ({interval(f, of.digits)})" if value_of(f) is not None else "no figure" for f in figures)))  # fmt: skip
        n = next(iter(task.evaluation.arms.values())).figures.counts.get("n_images")
        found[task.name] = Table(
            f"{task.title}: {of.title} (95 % interval), {n:,} test images" if n else f"{task.title}: {of.title} (95 % interval)",
            ("arm", *(f"{100 * share:g} % of labels" for share in shares)),
            tuple(rows),
            DISCLAIMER + ".",
        )  # fmt: skip
    differences = tuple(
        (
            cell.task.title,
            f"{100 * cell.share:g} %",
            f"{cell.arm} minus {cell.base}",
            signed(value_of(cell.difference), measure(cell.task.measure).digits),
            interval(cell.difference, measure(cell.task.measure).digits, sign=True),
            _over_runs(cell),
            {"better": "shown", "worse": "shown", "open": "not shown"}.get(cell.side, "no interval"),
        )
        for cell in cells(study)
    )  # fmt: skip
    if differences:
        found["differences"] = Table(
            "Paired differences",
            ("task", "labels", "arms", "difference", "95 % interval over patients", "95 % interval over runs", "verdict"),
            differences,
            "Shown: both intervals exclude 0, or the one over patients where each arm has one run.",
        )  # fmt: skip
    for i, one in enumerate(study.published if not study.sealed else (), 1):
        found[f"published-{i}"] = published_table(study, one)
    return found


def _over_runs(cell: Cell) -> str:
    """What repeating the training would change of a difference."""
    seeds = None if cell.difference is None else cell.difference.over_seeds
    if seeds is None or seeds.ci95 is None:
        return "one run each" if seeds is None else f"not defined, {seeds.n} {seeds.over}"
    ends = interval(seeds, measure(cell.task.measure).digits, sign=True)
    return f"{ends}, {seeds.n} {seeds.over}"
