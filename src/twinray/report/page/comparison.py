"""The page that compares two detectors: what was run, the table, the verdict, curves, images, and what it all means.

It takes plain values (``metrics.json``, ``metrics.jsonl``, images with boxes and heat maps) and makes the content
that ``document`` writes; whoever ran the comparison hands over the words that only it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.records import Boxes, FloatArray
from twinray.report.charts.curves import (
    ArmCurve,
    class_bars,
    detector_curves,
    froc_curves,
    interval_plot,
    pretraining_curves,
)
from twinray.report.numbers import Figure, count, duration, finite, interval, interval_of, number, value_of
from twinray.report.page.document import (
    Block,
    Card,
    Cards,
    Code,
    Content,
    Facts,
    Heading,
    Picture,
    Points,
    Section,
    Steps,
    join_words,
)
from twinray.report.pictures.panels import EMPTY_MAP, Panel, as_png, best, panel_row, scaled
from twinray.report.tables import ArmRow, Table, difference_table, froc_table, map50_table, per_class_table
from twinray.report.verdict import Verdict, paired_verdict
from twinray.runs.seen import footnote


@dataclass(frozen=True)
class Arm:
    """One arm of the comparison.

    Attributes:
        name: as the table shows it.
        metrics: its ``metrics.json``.
        lines: of its ``metrics.jsonl``.
        seconds: that all of its training took, the pre-training included; None where not known.
    """

    name: str
    metrics: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    seconds: float | None = None

    @property
    def test(self) -> Mapping[str, Any]:
        """Figures on the test images."""
        split: Mapping[str, Any] = self.metrics.get("test") or {}
        return split


@dataclass(frozen=True, eq=False)
class Example:
    """One image as both arms see it; boxes in original pixels.

    Attributes:
        id: the image.
        image: (h, w) or (h, w, 3) uint8.
        scale: factors of x and y from original pixels to those of ``image``.
        truth: true boxes; None where unknown.
        baseline, candidate: predicted boxes with scores.
        heat_map: (h, w) in 0..1 of the candidate's box ``heat_box``; None where it predicts no box.
        heat_box: index into ``candidate``.
    """

    id: str
    image: npt.NDArray[np.uint8]
    scale: tuple[float, float]
    truth: Boxes | None
    baseline: Boxes
    candidate: Boxes
    heat_map: FloatArray | None
    heat_box: int = 0


@dataclass(frozen=True)
class Comparison:
    """Everything the page says.

    Attributes:
        title, over, lede: of the page.
        steps: what was run: name, what it did, how long it took.
        facts: options, versions and hardware, as names and values.
        baseline, candidate: the two arms.
        difference: ``BoxComparison.as_json()`` of candidate minus baseline on the test images.
        pretraining: lines of the pre-training's ``metrics.jsonl``.
        classes: names of the box classes.
        examples: images to show.
        examples_note: how they were chosen.
        heat_definition: what the heat map is, in words.
        limits: what the figures do and do not show: lead-in and sentence.
        own_data: remarks and commands to run this on other data.
        repeat: commands that repeat this very run.
        footer: version and date.
        most, least_score: which predicted boxes the pictures draw.
    """

    title: str
    over: str
    lede: str
    steps: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]
    baseline: Arm
    candidate: Arm
    difference: Mapping[str, Any]
    pretraining: Sequence[Mapping[str, Any]]
    classes: tuple[str, ...]
    examples: Sequence[Example]
    examples_note: str
    heat_definition: str
    limits: tuple[tuple[str, str], ...]
    own_data: tuple[str | Code, ...]
    repeat: str
    footer: str
    seconds_note: str = ""
    most: int = 3
    least_score: float = 0.3
    measures: Mapping[str, str] = field(default_factory=lambda: {"map50": "mAP50", "map": "mAP", "froc": "FROC mean"})

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Baseline, then candidate: the order of every table and figure."""
        return self.baseline, self.candidate


def summary_table(arms: Sequence[Arm], note: str = "") -> Table:
    """Arm, mAP50, 95 % interval, seconds: the table that the terminal and the page both show.

    Below it, besides ``note``: which arm's figures include images that its training had seen.
    """
    marked = [f"{arm.name}: {told}." for arm in arms if (told := footnote(arm.test))]
    note = " ".join([part for part in (note, *marked) if part])
    return map50_table([ArmRow(arm.name, arm.test.get("map50"), arm.seconds) for arm in arms], note)


def verdict(comparison: Comparison) -> Verdict:
    """What the paired difference in mAP50 says."""
    first, second = comparison.arms
    return paired_verdict(
        (first.name, first.test.get("map50")),
        (second.name, second.test.get("map50")),
        comparison.difference.get("map50"),
    )


def content(comparison: Comparison) -> Content:
    """The page's content; ``document.write_report`` writes it."""
    return Content(
        title=comparison.title,
        over=comparison.over,
        lede=comparison.lede,
        sections=(
            _result(comparison),
            Section("What was run", "What was run", (Steps(comparison.steps),)),
            _training(comparison),
            _closer(comparison),
            _images(comparison),
            Section("What these figures show, and what they do not", "Limits", (Points(comparison.limits),)),
            Section("Run it on your own images", "Your own images", comparison.own_data),
            _record(comparison),
        ),
        footer=comparison.footer,
    )


def _result(comparison: Comparison) -> Section:
    first, second = comparison.arms
    cards = tuple(_card(arm, i) for i, arm in enumerate(comparison.arms))
    map50 = {arm.name: arm.test.get("map50") for arm in comparison.arms}
    difference = comparison.difference.get("map50")
    picture = Picture(
        interval_plot(map50, difference),
        "svg",
        f"mAP50 with its 95 % interval: {_told(map50)}. Paired difference: {_one(difference, sign=True)}.",
        f"Left: each arm alone. Right: {second.name} minus {first.name}, measured on the same resampled patients. Two intervals "
        "may overlap and the difference still be clear, because both arms meet the same easy and hard images: read the right side.",
    )
    blocks: tuple[Block, ...] = (
        Cards(cards),
        verdict(comparison),
        summary_table(comparison.arms, comparison.seconds_note),
        picture,
    )
    return Section("The result", "Result", blocks)


def _card(arm: Arm, number_of_arm: int) -> Card:
    figure = arm.test.get("map50")
    detail = f"95 % interval {interval(figure)}" if interval_of(figure) else "no 95 % interval"
    return Card(arm.name, number(value_of(figure)), f"mAP50; {detail}", number_of_arm)


def _training(comparison: Comparison) -> Section:
    blocks: list[Block] = []
    if comparison.pretraining:
        last = comparison.pretraining[-1]
        told = f"loss {number(last.get('loss'), 1)}, mean C_ii {number(last.get('mean_c_ii'), 2)}, RMS C_ij {number(last.get('rms_c_ij'))}, effective rank {number(last.get('effective_rank'), 0)}"
        blocks += [
            Heading("Pre-training, without any label"),
            "Barlow Twins shows the network two distorted views of each image and asks for embeddings that agree (C_ii near 1) "
            "while their components say different things (C_ij near 0). An effective rank that falls towards 1 would mean collapse.",
            Picture(
                pretraining_curves(comparison.pretraining),
                "svg",
                f"Four curves over {count(last.get('step'), 'training step')} of the pre-training; at the end: {told}.",
                f"At the end: {told}.",
            ),
            Heading("The two detectors"),
        ]
    curves = [ArmCurve(a.name, a.lines, _epoch(a.metrics.get("best_epoch"))) for a in comparison.arms]
    kept = [
        f"{arm.name}: epoch {c.best_epoch + 1}"
        for arm, c in zip(comparison.arms, curves, strict=True)
        if c.best_epoch is not None
    ]
    blocks.append(
        Picture(
            detector_curves(curves),
            "svg",
            f"Validation mAP50 by epoch and training loss of both detectors. Kept: {'; '.join(kept) or 'not recorded'}.",
            "The ringed epoch is the one that was kept: the best on the validation images. The test images were used once, after that.",
        )
    )
    return Section("How they learned", "Training", tuple(blocks))


def _epoch(value: Any) -> int | None:
    known = finite(value)
    return None if known is None else round(known)


def _closer(comparison: Comparison) -> Section:
    arms = {arm.name: arm.test for arm in comparison.arms}
    named = {title: comparison.difference.get(key) for key, title in comparison.measures.items()}
    first, second = comparison.arms
    per_class = {name: {k: v.get("ap50") for k, v in (s.get("per_class") or {}).items()} for name, s in arms.items()}
    alt = "; ".join(f"{name}: {_told(figures)}" for name, figures in per_class.items())
    froc_alt = "; ".join(
        f"{name}: {number(value_of(s.get('froc@1')), 2)} at 1 false positive per image" for name, s in arms.items()
    )
    blocks: tuple[Block, ...] = (
        Picture(class_bars(arms), "svg", f"Average precision of each class. {alt}.", "Bars: average precision at IoU 0.5; thin lines: 95 % intervals. Few true boxes make wide intervals."),
        per_class_table(arms),
        Heading("Sensitivity against false alarms"),
        Picture(
            froc_curves(arms),
            "svg",
            f"FROC curves. {froc_alt}.",
            "Moving right, a lower score is enough for a box to be shown: more true boxes are found, at the price of more false ones on each image. Bands: 95 % intervals.",
        ),
        froc_table(arms),
        difference_table(named, f"{second.name} minus {first.name}. mAP averages IoU 0.5 to 0.95; the FROC mean averages the seven sensitivities above."),
    )  # fmt: skip
    return Section("A closer look", "Closer look", blocks)


def _images(comparison: Comparison) -> Section:
    shown = [_picture(comparison, example) for example in comparison.examples]
    intro = (
        f"{comparison.examples_note} Drawn are at most {count(comparison.most, 'box', 'boxes')} an image and arm, of a score of "
        f"{comparison.least_score:g} or more. The heat map belongs to the one box drawn on it: the best of {comparison.candidate.name}, whatever its score."
    )
    heat = [Points((("What the heat map is.", comparison.heat_definition),))] if comparison.heat_definition else []
    blocks: tuple[Block, ...] = (intro, *heat, *shown) if shown else ("No example image was chosen.",)
    return Section("Boxes and heat maps on test images", "Images", blocks)


def _picture(comparison: Comparison, example: Example) -> Picture:
    first, second = comparison.arms
    truth = None if example.truth is None else scaled(example.truth, example.scale)
    drawn = [
        scaled(best(b, comparison.most, comparison.least_score), example.scale)
        for b in (example.baseline, example.candidate)
    ]
    panels = [Panel(arm.name, example.image, truth, found) for arm, found in zip((first, second), drawn, strict=True)]
    if example.heat_map is not None:
        one = slice(example.heat_box, example.heat_box + 1)
        assert example.candidate.scores is not None
        box = Boxes(example.candidate.xyxy[one], example.candidate.labels[one], example.candidate.scores[one])
        panels.append(
            Panel(
                "heat map of its best box" if example.heat_map.any() else EMPTY_MAP,
                example.image,
                None,
                scaled(box, example.scale),
                example.heat_map,
            )
        )
    else:
        panels.append(Panel("no box, so no heat map", example.image))
    true = _boxes_told(example.truth, comparison.classes) if example.truth is not None else "not known"
    found = "; ".join(
        f"{arm.name}: {_boxes_told(b, comparison.classes)}" for arm, b in zip((first, second), drawn, strict=True)
    )
    caption = f"{example.id}. True: {true}. {found}."
    return Picture(as_png(panel_row(panels, comparison.classes)), "png", f"Image {caption}", caption)


def _boxes_told(boxes: Boxes, classes: Sequence[str]) -> str:
    names = [classes[int(label)] for label in boxes.labels]
    if boxes.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, boxes.scores, strict=True)]
    return join_words(names) if names else "no box"


def _record(comparison: Comparison) -> Section:
    blocks: tuple[Block, ...] = (
        Facts(comparison.facts),
        Heading("The same run, step by step"),
        Code(comparison.repeat),
    )
    return Section("The record", "Record", blocks)


def _told(figures: Mapping[str, Figure | None]) -> str:
    return ", ".join(f"{name} {_one(figure)}" for name, figure in figures.items())


def _one(figure: Figure | None, *, sign: bool = False) -> str:
    value = value_of(figure)
    text = number(value) if not sign or value is None else f"{value:+.3f}"
    return f"{text} ({interval(figure, sign=sign)})" if interval_of(figure) else text


def step_seconds(value: float | None) -> str:
    """How long a step took; empty where it is not known."""
    return "" if value is None else duration(value)
