"""The words of the demo's page: what was run on the phantom, its limits, and the commands for other images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from twinray.checks import MODEL, SEED, SPEED, Kind, as_words
from twinray.evaluation.result import Evaluation
from twinray.records import Boxes, FloatArray
from twinray.report.charts.curves import ArmCurve, detector_curves, pretraining_curves
from twinray.report.numbers import count, duration, interval, number, seconds, value_of
from twinray.report.page.comparison import Pictured, answer, classes, curves, glance, picture
from twinray.report.page.document import (
    Block,
    Code,
    Content,
    Facts,
    Heading,
    Panels,
    Picture,
    Points,
    Section,
    Steps,
    join_words,
)
from twinray.report.pictures.panels import EMPTY_MAP, Panel, as_png, panel_row, scaled
from twinray.report.tables import Table
from twinray.runs.seen import told_seen

RANDOM, BARLOW_TWINS = "random", "Barlow Twins"
"""Names of the two arms by default: where the detector's backbone starts from."""


def arm_name(init: str) -> str:
    """Name of the first arm, that of its initial weights without their folder."""
    return PurePath(init).name


def start_words(arm: str) -> str:
    """What an arm's detector starts from."""
    if arm == BARLOW_TWINS:
        return "the pre-trained weights"
    return "random weights" if arm == RANDOM else f"the weights {arm}"


@dataclass(frozen=True)
class DemoFigures:
    """What the demo knows besides its results.

    Attributes:
        options: verb -> the option dataclasses it ran with.
        seconds: number of the step, as text -> seconds.
        unlabelled: images of the unlabelled pack.
        pack: counts of the labelled pack (``images``, ``train``, ``val``, ``test``, ``patients``, ``boxes``).
        environment: versions and hardware, as ``environment.json`` holds them.
        classes: classes of the boxes.
        pretrain_seconds: seconds that the pre-training took.
        seed: seed of everything.
        first: name of the first arm.
        weights: notes on the initial weights: licence, and what they saw.
    """

    options: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]
    unlabelled: int
    pack: Mapping[str, int]
    environment: Mapping[str, Any]
    classes: tuple[str, ...]
    pretrain_seconds: float
    seed: int
    first: str = RANDOM
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """How one arm's detector was trained.

    Attributes:
        name: name of the arm.
        lines: lines of its ``metrics.jsonl``.
        best_epoch: epoch that was kept, from 0; None where not recorded.
        seconds: seconds that all of its training took, the pre-training included; None where not
            known.
        boxes: true boxes that it learned from.
    """

    name: str
    lines: Sequence[Mapping[str, Any]]
    best_epoch: int | None
    seconds: float | None
    boxes: int | None


@dataclass(frozen=True, eq=False)
class Example:
    """One test image as all arms see it, and the heat map of the last arm's best box.

    Attributes:
        image: image with boxes in original pixels.
        heat_map: (h, w) in 0..1; None where the last arm predicts no box.
        heat_box: index of its box.
    """

    image: Pictured
    heat_map: FloatArray | None
    heat_box: int = 0


def describe(
    figures: DemoFigures,
    result: Evaluation,
    trained: Sequence[Trained],
    pretraining: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    heat_definition: str,
) -> Content:
    """The demo's page: that of an evaluation, with what was run before it and what to do after it."""
    sections = (
        answer(result),
        Section("What was run", "What was run", (Steps(_steps(figures, trained)),)),
        _training(trained, pretraining),
        glance(result),
        *curves(result),
        *classes(result),
        _images(figures, result, examples, heat_definition),
        Section(
            "What these figures show, and what they do not",
            "Limits",
            (Points(_limits(figures, result)),),
        ),
        Section("Run it on your own images", "Your own images", _own_data(figures)),
        Section(
            "The record",
            "Record",
            (
                Facts(_facts(figures)),
                Heading("The same run, step by step"),
                Code(commands(figures.options)),
            ),
        ),
    )
    return Content(
        title="Do unlabelled images help a detector?",
        over="twinray demo",
        lede=(
            f"One detector starts from {start_words(figures.first)}, its twin from weights that Barlow Twins learned on {count(figures.unlabelled, 'image')} "
            f"without any label{_from_there(figures)}. All else is the same: training images, options, seed, test. The images are synthetic."
        ),
        sections=sections,
        footer=f"Written by twinray {figures.environment.get('twinray', '')} on {datetime.now(UTC):%d %B %Y, %H:%M} UTC.",
    )


def summary_table(result: Evaluation, trained: Sequence[Trained], note: str = "") -> Table:
    """Arm, mAP50, 95 % interval, seconds: what the terminal shows in the end.

    Below it, besides ``note``: which arm's figures include images that its training had seen.
    """
    marked = [
        f"{name}: {told}."
        for name, arm in result.arms.items()
        if (told := told_seen(arm.figures.seen))
    ]
    took = {one.name: one.seconds for one in trained}
    rows = tuple(
        (name, number(value_of(figure)), interval(figure), seconds(took.get(name)))
        for name, arm in result.arms.items()
        for figure in (arm.figures.get("map50"),)
    )
    return Table(
        "Test images, mean average precision at IoU 0.5",
        ("arm", "mAP50", "95 % interval", "seconds"),
        rows,
        " ".join([part for part in (note, *marked) if part]),
    )


def seconds_note(figures: DemoFigures) -> str:
    """What the seconds of the table are."""
    return f"Seconds of training; those of {BARLOW_TWINS} include {seconds(figures.pretrain_seconds)} s of pre-training."


def _training(trained: Sequence[Trained], pretraining: Sequence[Mapping[str, Any]]) -> Section:
    blocks: list[Block] = []
    if pretraining:
        last = pretraining[-1]
        told = f"loss {number(last.get('loss'), 1)}, mean C_ii {number(last.get('mean_c_ii'), 2)}, RMS C_ij {number(last.get('rms_c_ij'))}, effective rank {number(last.get('effective_rank'), 0)}"
        blocks += [
            Heading("Pre-training, without any label"),
            "Barlow Twins shows the network two distorted views of each image and asks for embeddings that agree (C_ii near 1) "
            "while their components say different things (C_ij near 0). An effective rank that falls towards 1 would mean collapse.",
            Picture(
                pretraining_curves(pretraining),
                "svg",
                f"Four curves over {count(last.get('step'), 'training step')} of the pre-training; at the end: {told}.",
                f"At the end: {told}.",
            ),
            Heading("The two detectors"),
        ]
    kept = [
        f"{one.name}: epoch {one.best_epoch + 1}" for one in trained if one.best_epoch is not None
    ]
    blocks.append(
        Picture(
            detector_curves([ArmCurve(one.name, one.lines, one.best_epoch) for one in trained]),
            "svg",
            f"Validation mAP50 by epoch and training loss of both detectors. Kept: {'; '.join(kept) or 'not recorded'}.",
            "The ringed epoch is the one that was kept: the best on the validation images. The test images were used once, after that.",
        )
    )
    took = [
        f"{one.name}: {duration(one.seconds)} of training"
        for one in trained
        if one.seconds is not None
    ]
    if took:
        blocks.append(f"{'; '.join(took)}. {seconds_words(took)}".strip())
    return Section("How they learned", "Training", tuple(blocks))


def seconds_words(took: Sequence[str]) -> str:
    """What the longer of the two times is made of."""
    return f"The time of {BARLOW_TWINS} includes its pre-training." if len(took) > 1 else ""


def _images(
    figures: DemoFigures, result: Evaluation, examples: Sequence[Example], heat_definition: str
) -> Section:
    title = "Boxes and heat maps on test images"
    if not examples:
        return Section(title, "Images", ("No example image was chosen.",))
    last = list(result.arms)[-1]
    intro = (
        f"Drawn by the seed from the {count(figures.pack.get('test'), 'test image')} before any result was known: one of each class, one without a "
        f"lesion. None was picked for looking good. Drawn are at most {count(_MOST, 'box', 'boxes')} an image and arm, of a score of {_LEAST_SCORE:g} or "
        f"more. The heat map belongs to the one box drawn on it: the best of {last}, whatever its score."
    )
    words = _heat_words(heat_definition)
    heat: tuple[Block, ...] = (Points((("What the heat map is.", words),)),) if words else ()
    return Section(
        title, "Images", (intro, *heat, *(_example(one, result, last) for one in examples))
    )


_MOST, _LEAST_SCORE = 3, 0.3
"""Which predicted boxes the pictures draw."""


def _example(one: Example, result: Evaluation, last: str) -> Panels:
    """A panel an arm, then the heat map of the last arm's best box."""
    shown = picture(one.image, list(result.arms), result.classes, _MOST, _LEAST_SCORE)
    pixels, found = one.image.image, one.image.found[last]
    if one.heat_map is None:
        panel = Panel("no box, so no heat map", pixels)
    else:
        box = slice(one.heat_box, one.heat_box + 1)
        assert found.scores is not None
        best = Boxes(found.xyxy[box], found.labels[box], found.scores[box])
        head = "heat map of its best box" if one.heat_map.any() else EMPTY_MAP
        panel = Panel(head, pixels, None, scaled(best, one.image.scale), one.heat_map)
    alt = f"Image {one.image.id}: {panel.title}."
    heat = Picture(as_png(panel_row([panel], result.classes, key=False)), "png", alt, "")
    return Panels((*shown.items, heat), shown.caption)


def _from_there(figures: DemoFigures) -> str:
    """Where the pre-training started, unless it was from random weights."""
    return "" if figures.first == RANDOM else f", starting from {start_words(figures.first)}"


def _steps(figures: DemoFigures, trained: Sequence[Trained]) -> tuple[tuple[str, str, str], ...]:
    pretrain, detect, counts = (
        figures.options["pretrain"][0],
        figures.options["detect"][0],
        figures.pack,
    )
    boxes = next((one.boxes for one in trained), None)
    texts = (
        (
            "Pack",
            f"Draw {count(figures.unlabelled, 'image')} without labels and {count(counts.get('images'), 'image')} with boxes "
            f"({join_words(figures.classes)}) of {count(counts.get('patients'), 'patient')}, and keep them at {detect.size} pixels. "
            f"Split by patient: {count(counts.get('train'))} to train, {count(counts.get('val'))} to choose the epoch, {count(counts.get('test'))} to test.",
        ),
        (
            "Pre-train",
            f"Barlow Twins, {pretrain.arch}, {pretrain.size} pixels, batch {pretrain.batch_size}, {count(pretrain.epochs, 'epoch')}, on the unlabelled "
            f"images and the pixels of the training images{_from_there(figures)}. No label is read; validation and test patients are left out.",
        ),
        (
            f"Detect: {figures.first}",
            f"Faster R-CNN with a feature pyramid, {count(detect.epochs, 'epoch')} on {count(counts.get('train'), 'image')} with {count(boxes, 'box', 'boxes')}; backbone from {start_words(figures.first)}.",
        ),
        (
            f"Detect: {BARLOW_TWINS}",
            "The same detector, data, options and seed; backbone from step 2.",
        ),
        (
            "Compare",
            "Both on the same test images; intervals and the paired difference by resampling patients.",
        ),
        ("Explain", "Heat maps of predicted boxes on a few test images, and this page."),
    )
    return tuple(
        (name, text, _took(figures.seconds.get(str(i)))) for i, (name, text) in enumerate(texts, 1)
    )


def _limits(figures: DemoFigures, result: Evaluation) -> tuple[tuple[str, str], ...]:
    test = count(figures.pack.get("test"), "test image")
    first = next(iter(result.arms.values())).figures
    boxes = count(first.counts.get("n_boxes"), "true box", "true boxes")
    map50 = first.get("map50")
    patients = count(None if map50 is None else map50.n, "patient")
    return (
        (
            "Synthetic images.",
            "The phantom has lungs, ribs and lesions by formula. The page shows that the tools work together; it says nothing about "
            "any disease, device or patient, nor by how much pre-training helps on real X-rays.",
        ),
        (
            "Few images, small networks, minutes of training.",
            f"{test} of {patients} with {boxes} make wide intervals. A real comparison trains a larger network for longer on larger images.",
        ),
        (
            "One seed.",
            "The intervals resample patients: they say how the figures could move with other test patients, not with another seed of the "
            "weights and of the order of the images. Repeat with several seeds (--seed) before you believe a winner.",
        ),
        (
            "Not the same work.",
            f"{BARLOW_TWINS} has seen more images and spent more computing than {figures.first}. The question here is whether unlabelled images that are "
            "there anyway help; an arm given the same time in another way is another question.",
        ),
        (
            "The validation images choose, the test images judge.",
            "The epoch of each detector is the best on the validation images, which makes validation figures look better than they are. "
            "The test images were looked at once, after that choice.",
        ),
        (
            "What mAP50 counts.",
            "A predicted box is right if it overlaps a true box of its class with an intersection over union of 0.5 or more. Average precision is "
            "the area under precision against recall; mAP50 is its mean over the classes.",
        ),
        (
            "What a heat map does not say.",
            "It shows where the features that carry one box's score respond. It does not show that the box is right, nor why a patient is ill.",
        ),
    )


def _facts(figures: DemoFigures) -> tuple[tuple[str, str], ...]:
    e = figures.environment
    versions = f"twinray {e.get('twinray')}, Python {e.get('python')}, torch {e.get('torch')}, torchvision {e.get('torchvision')}"
    machine = f"{e.get('platform')}; {count(e.get('cpus'), 'processor')}, {count(e.get('threads'), 'thread')}; {e.get('gpu') or 'no GPU'}"
    total = _took(sum(figures.seconds.values())) if figures.seconds else ""
    named = [
        (f"options of {verb}", _options(options[0]))
        for verb, options in figures.options.items()
        if verb != "pack"
    ]
    facts = [
        ("versions", versions),
        ("machine", machine),
        ("seed", str(figures.seed)),
        ("initial weights", "; ".join(figures.weights)),
        ("all steps", total),
        *named,
    ]
    return tuple((name, text) for name, text in facts if text)


def _options(config: Any) -> str:
    """Options that differ from the verb's defaults, as flags."""
    return shlex.join(as_words(config, MODEL, SEED)) or "defaults"


def commands(options: Mapping[str, Sequence[Any]]) -> str:
    """The commands that repeat the steps, one verb a line, in order."""
    repeated = set(Kind) - {SPEED}  # how fast is each machine's own affair
    lines = []
    for verb, configs in options.items():
        for config in configs:
            words = as_words(replace(config, resume=False), *repeated)
            lines.append(wrapped(["twinray", verb, *map(shlex.quote, words)]))
    return "\n".join(lines)


def wrapped(words: Sequence[str], width: int = 84) -> str:
    """A command for a POSIX shell, its long lines broken before a flag."""
    lines = [words[0]]
    for i, word in enumerate(words[1:], start=1):
        value = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else ""
        if word.startswith("--") and len(f"{lines[-1]} {word} {value}") > width:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _heat_words(definition: str) -> str:
    if not definition:
        return ""
    return (
        "Each feature channel in turn is set to zero, and the score of the same box is computed anew. The channels are then added up, each with the "
        "weight by which the score fell. Bright: where the channels that carry the score respond; the brightest place of each map is 1. The detector "
        "scores a box from the features inside it, so brightness elsewhere shows where the same channels respond, not what this score was made of. "
        f"Method: {definition}."
    )


def _own_data(figures: DemoFigures) -> tuple[str | Code, ...]:
    return (
        "Unlabelled images: any folder of PNG, JPEG, TIFF or DICOM files. The regular expression finds the patient in a file's name.",
        Code(
            "twinray pack UNLABELLED_FOLDER --out unlabelled --size 256 --val 0 --test 0 \\\n"
            "    --patient-regex '(patient[0-9]+)'\n"
            "twinray pretrain --data unlabelled --out pretrained --arch resnet18 --size 224 \\\n"
            "    --batch-size 256 --epochs 100"
        ),
        "Images with boxes: an annotation file in the COCO format beside its images. Keep the patients of its test split out of the unlabelled folder, or the comparison is not fair.",
        Code(
            "twinray pack ANNOTATIONS.json --format coco --out labelled --size 256\n"
            "twinray detect --data labelled --out detector-random --init random --arch resnet18\n"
            "twinray detect --data labelled --out detector-pretrained --init pretrained"
        ),
        "Then compare the two on the same test images, and look at what they see.",
        Code(
            "twinray evaluate detector-random detector-pretrained --data labelled --pictures 6 --out comparison\n"
            "twinray explain detector-pretrained --data labelled --out heat-maps\n"
            "twinray predict detector-pretrained NEW_IMAGES --out predictions"
        ),
    )


def _took(value: float | None) -> str:
    """How long a step took; empty where it is not known."""
    return "" if value is None else duration(value)
