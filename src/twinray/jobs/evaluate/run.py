"""``twinray evaluate``: finished runs side by side, on a pack or on the test images that they kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.evaluation.boxes import BoxRules, FrocRule, sizes_between
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.result import Evaluation
from twinray.files import frees_folders
from twinray.jobs.evaluate import fresh
from twinray.jobs.evaluate.arms import arms_of
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.groups import grouping
from twinray.jobs.evaluate.measure import Measured, Settings, measure
from twinray.jobs.evaluate.notes import notes_of, warnings_of, what_is_repeated
from twinray.jobs.evaluate.output import show, write
from twinray.jobs.evaluate.pictures import pictures
from twinray.jobs.evaluate.stored import kept, read_runs
from twinray.report.checklists.sources import Records, read_records
from twinray.report.checklists.write import write_checklists
from twinray.report.page.comparison import Pictured
from twinray.runs.folder import read_config
from twinray.runs.output import open_output, pack_fact, run_fact
from twinray.runs.sealed import check_open


@frees_folders
def run(config: EvaluateConfig) -> Evaluation:
    """Evaluate, print tables, and write files and a page if ``out`` is given.

    Raises:
        InputError: runs, pack or split that cannot be compared; images that a run's training saw.
    """
    records = (
        _records(config) if config.checklists else None
    )  # first: a damaged one is said at once
    with ExitStack() as stack:
        measured, shown = evaluated(config, stack)
        if config.out is not None:
            write(config.out, measured, shown, png=config.png)
            if records is not None:
                write_checklists(records, config.out / "checklists")
    show(Console(), measured.result, config.out)
    return measured.result


def _records(config: EvaluateConfig) -> Records:
    """Records of the runs and of the packs that they learned from or are tested on, where these are there.

    Raises:
        InputError: a damaged record, or two folders of one name.
    """
    packs = [Path(str(read_config(run).get("data", ""))) for run in config.runs]
    packs += [config.data] if config.data is not None else []
    folders = dict.fromkeys(path.resolve() for path in (*config.runs, *packs) if path.name and path.is_dir())  # fmt: skip
    return read_records(*folders)


def evaluated(
    config: EvaluateConfig, stack: ExitStack | None = None, *, opening: bool = False
) -> tuple[Measured, Sequence[Pictured]]:
    """What came out, and the pictures that were asked for; with ``out`` only predictions made now are written there.

    Args:
        config: the options.
        opening: flag of the study that opens its sealed runs.
        stack: contexts that end when everything is written: the folder's record; needed with ``out``.

    Raises:
        InputError: as ``run``.
    """
    if not config.runs:
        raise InputError("expected at least one run, got none")
    _check_apart(config.runs)
    froc = FrocRule(config.froc_iou if config.froc_hit == "iou" else "centre", config.froc_repeats)
    settings = Settings(
        config.split,
        str(config.data or ""),
        Resampling(config.bootstrap, config.seed),
        BoxRules(froc, sizes_between(config.size_limits)),
    )
    runs = read_runs(
        config.runs,
        kept_of=config.split if config.data is None else None,
        allow_edited=config.allow_edited,
    )
    if not opening:
        check_open(((run.path, run.metrics) for run in runs), config.split)
    if config.data is None:
        arms = arms_of(kept(runs, config.split), apart=config.apart)
        measured = measure(arms, settings)
        shown: tuple[Pictured, ...] = ()
        _claim(config, stack)
    else:
        pack = open_pack(config.data, allow_edited=config.allow_edited)
        settings = replace(settings, by=grouping(config.by, pack, config.split))
        models, checked = fresh.load(config, runs, pack)
        _claim(config, stack)
        arms = arms_of(
            fresh.predict(config, runs, models, checked, pack),
            apart=config.apart,
            packs_differ=True,
        )
        measured = measure(arms, settings)
        shown = pictures(arms, pack, config.split, config.pictures, config.seed)
    return noted(measured), shown


def noted(measured: Measured) -> Measured:
    """The same with what a reader must know: notes, warnings, and what was repeated."""
    result = replace(
        measured.result,
        notes=(*measured.result.notes, *notes_of(measured.arms, measured.result.split)),
        warnings=tuple(warnings_of(measured.arms, measured.result.arms)),
        repeated=what_is_repeated(measured.arms),
    )
    return replace(measured, result=result)


def _claim(config: EvaluateConfig, stack: ExitStack | None) -> None:
    """Make the folder of the results, or empty the one that an earlier start left."""
    if config.out is None:
        return
    inputs = {
        "runs": [run_fact(run) for run in config.runs],
        "data": None if config.data is None else pack_fact(config.data),
    }
    reads = [*config.runs, *([config.data] if config.data else [])]
    output = open_output(config, "evaluate", config.out, inputs, reads=reads)
    if stack is not None:
        stack.enter_context(output)


def _check_apart(runs: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in runs]
    for path, real in zip(runs, resolved, strict=True):
        if resolved.count(real) > 1:
            raise InputError(f"the run {path} is given twice; leave one out")
