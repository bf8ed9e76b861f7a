"""The verb ``demo``: the whole pipeline on the embedded phantom, from unlabelled images to a report.

Nothing here is special to the demo but its sizes. Every step is the job behind the verb of the same
name, and the stages meet through files only. The steps' commands are in the report, for use on
other images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from twinray.about import DISCLAIMER
from twinray.backbones.weights import settled_arch
from twinray.data.pack import Pack, open_pack
from twinray.detection.config import DetectConfig
from twinray.evaluation.result import Evaluation, evaluation_as_json, renamed
from twinray.files import frees_folders, read_json, write_json
from twinray.inference.heat_maps import Explained
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.pictures import choose_images
from twinray.jobs.evaluate.run import evaluated
from twinray.jobs.explain.run import explain_pack_images
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.jobs.train import detect, pretrain
from twinray.pretraining.config import PretrainConfig
from twinray.report.page.comparison import Pictured
from twinray.report.page.demo import (
    BARLOW_TWINS,
    DemoFigures,
    Example,
    Trained,
    arm_name,
    describe,
    seconds_note,
    start_words,
    summary_table,
)
from twinray.report.page.document import write_report
from twinray.runs.folder import RunFolder, open_run, read_metrics
from twinray.studies.config import DemoConfig
from twinray.training.record import environment

REPORT = "report.html"
_STEPS = 6
_SECONDS = "steps.json"


@frees_folders
def run(config: DemoConfig, console: Console | None = None) -> Path:
    """Run every step, print the table, write the report and return its absolute path.

    Raises:
        InputError: bad options, or a folder that holds something else.
        TwinrayError: the disk is full; what was finished stays, to be resumed.
    """
    console = console or Console()
    folder = open_run(
        config, out=config.out, resume=config.resume, job="demo", environment=environment()
    )
    clock = _Clock(folder, console)
    unlabelled_config, labelled_config = _packs(config)
    with clock.step(
        1, "Pack", "draw synthetic chest images: one pack without labels, one with boxes"
    ):
        pack_images(unlabelled_config, console)
        pack = pack_images(labelled_config, console)
    pretrain_config, first = _pretrain(config), arm_name(config.init)
    with clock.step(2, "Pre-train", "Barlow Twins on the unlabelled images"):
        pretrained = pretrain(pretrain_config).path
    detect_configs = {
        first: _detect(config, config.init, first),
        BARLOW_TWINS: _detect(config, str(pretrained), "barlow-twins"),
    }
    runs: dict[str, Path] = {}
    for number, (name, detect_config) in enumerate(detect_configs.items(), start=3):
        with clock.step(number, "Detect", f"a detector that starts from {start_words(name)}"):
            runs[name] = detect(detect_config).path
    with clock.step(5, "Compare", "both detectors on the same test images"):
        result = _compare(config, runs)
    with clock.step(6, "Explain", "exact heat maps of predicted boxes on a few test images"):
        examples, definition = _examples(config, pack, runs, first)
    clock.at_least(2, read_metrics(pretrained)["train"]["seconds"]["value"])
    for number, path in enumerate(runs.values(), start=3):
        clock.at_least(number, read_metrics(path)["seconds"])
    options = {
        "pack": (unlabelled_config, labelled_config),
        "pretrain": (pretrain_config,),
        "detect": tuple(detect_configs.values()),
    }
    figures = _figures(config, pack, options, clock.seconds)
    trained = [
        _trained(first, runs[first], 0.0),
        _trained(BARLOW_TWINS, runs[BARLOW_TWINS], figures.pretrain_seconds),
    ]
    page = describe(figures, result, trained, RunFolder(pretrained).history(), examples, definition)
    report = write_report(config.out / REPORT, page)
    folder.write_metrics(evaluation_as_json(result))
    console.print()
    console.print(summary_table(result, trained, seconds_note(figures)))
    console.print(
        f"Synthetic images: the figures say how the tools work, nothing about patients. {DISCLAIMER}."
    )
    console.print(Text(f"report: {report}"), soft_wrap=True)
    return report


class _Clock:
    """Headings of the steps, and how long each took, in the longest of several attempts."""

    def __init__(self, folder: RunFolder, console: Console) -> None:
        self._path, self._console = folder.path / _SECONDS, console
        known = read_json(self._path, "step times") if self._path.is_file() else {}
        self.seconds: dict[str, float] = dict(known) if isinstance(known, dict) else {}

    @contextmanager
    def step(self, number: int, verb: str, what: str) -> Iterator[None]:
        self._console.print()
        self._console.rule(f"[bold]Step {number} of {_STEPS}: {verb}[/bold]", align="left")
        self._console.print(what)
        start = time.monotonic()
        yield
        self.at_least(number, time.monotonic() - start)

    def at_least(self, number: int, seconds: float) -> None:
        """A step that was cut off and resumed took what its run counted, not just what the last attempt took."""
        self.seconds[str(number)] = max(seconds, self.seconds.get(str(number), 0.0))
        write_json(self._path, self.seconds, "step times")


def _packs(config: DemoConfig) -> tuple[PackConfig, PackConfig]:
    """Two packs from different seeds: no patient of the one is in the other."""
    unlabelled = PackConfig(
        format=("phantom",),
        out=config.out / "unlabelled",
        size=config.size,
        val=0.0,
        test=0.0,
        seed=config.seed + 1,
        phantom_images=config.unlabelled,
        phantom_labelled=0.0,
        resume=config.resume,
    )
    labelled = PackConfig(
        format=("phantom",),
        out=config.out / "labelled",
        size=config.size,
        val=0.15,
        test=0.4,
        seed=config.seed,
        phantom_images=config.labelled,
        resume=config.resume,
    )
    return unlabelled, labelled


def _pretrain(config: DemoConfig) -> PretrainConfig:
    """The test patients stay out: the unlabelled pack and the training split of the labelled one."""
    return PretrainConfig(
        data=(config.out / "unlabelled", config.out / "labelled"),
        out=config.out / "pretrain",
        splits=("train",),
        init=config.init,
        arch=_arch(config),
        size=config.pretrain_size,
        batch_size=config.pretrain_batch,
        epochs=config.pretrain_epochs,
        lr=5e-4,
        projector=(512, 512, 512),
        crop_min=0.5,  # smaller crops leave little that two views of a chest have in common
        seed=config.seed,
        device=config.device,
        log_every=5,
        resume=config.resume,
    )


def _arch(config: DemoConfig) -> str:
    """The architecture of the initial weights; of random ones a small one."""
    return settled_arch("", config.init, "resnet18")


def _detect(config: DemoConfig, init: str, name: str) -> DetectConfig:
    """The same options for both arms; only the initial weights differ."""
    return DetectConfig(
        data=config.out / "labelled",
        out=config.out / f"detect-{name}",
        init=init,
        arch=_arch(config),
        size=config.size,
        batch_size=config.detect_batch,
        epochs=config.detect_epochs,
        fpn_channels=64,
        box_head_width=256,
        rois_per_image=64,
        anchor_scale=4.0,
        bootstrap=config.bootstrap,
        seed=config.seed,
        device=config.device,
        resume=config.resume,
    )


def _compare(config: DemoConfig, runs: dict[str, Path]) -> Evaluation:
    """What ``evaluate`` makes of the predictions that both runs kept."""
    asked = EvaluateConfig(tuple(runs.values()), bootstrap=config.bootstrap, seed=config.seed)
    result = evaluated(asked)[0].result
    return renamed(result, {path.name: name for name, path in runs.items()})


def _examples(
    config: DemoConfig, pack: Pack, runs: dict[str, Path], arm: str
) -> tuple[list[Example], str]:
    """Both detectors' boxes and the second one's best heat map on a few test images."""
    ids = choose_images(pack, "test", config.examples, config.seed)
    first, second = (
        explain_pack_images(runs[name], config.out / "labelled", ids, most=1, least_score=0.0)
        for name in (arm, BARLOW_TWINS)
    )
    shown = [_example(arm, a, b) for a, b in zip(first, second, strict=True)]
    return shown, next((e.definition for e in second if e.definition), "")


def _example(arm: str, baseline: Explained, candidate: Explained) -> Example:
    found = {arm: baseline.predictions, BARLOW_TWINS: candidate.predictions}
    image = Pictured(candidate.id, candidate.image, candidate.scale, candidate.truth, found)
    heat = candidate.heat_maps[0] if len(candidate.heat_maps) else None
    return Example(image, heat, candidate.top[0] if candidate.top else 0)


def _figures(
    config: DemoConfig, pack: Pack, options: dict[str, tuple[Any, ...]], seconds: dict[str, float]
) -> DemoFigures:
    """What the page says besides the results, from the files that the steps wrote."""
    pretrained = read_metrics(config.out / "pretrain")
    return DemoFigures(
        options=options,
        seconds=seconds,
        unlabelled=len(open_pack(config.out / "unlabelled")),
        pack=pack.info.counts,
        environment=read_json(config.out / "environment.json", "environment record"),
        classes=pack.info.box_classes,
        pretrain_seconds=pretrained["train"]["seconds"]["value"],
        seed=config.seed,
        first=arm_name(config.init),
        weights=tuple(
            note
            for note in pretrained.get("notes", ())
            if note.startswith("made from the weights ")
        ),
    )


def _trained(name: str, path: Path, before: float) -> Trained:
    metrics = read_metrics(path)
    lines = RunFolder(path).history()
    return Trained(
        name,
        lines,
        metrics.get("best_epoch"),
        metrics["seconds"] + before,
        metrics.get("training_boxes"),
    )
