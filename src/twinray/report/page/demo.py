"""The words of the demo's page: what was run on the phantom, its limits, and the commands for other images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twinray.report.numbers import count, seconds
from twinray.report.page.comparison import Arm, Comparison, Example, step_seconds
from twinray.report.page.document import Code, join_words

RANDOM, BARLOW_TWINS = "random", "Barlow Twins"
"""Names of the two arms: where the detector's backbone starts from."""


@dataclass(frozen=True)
class DemoFigures:
    """What the demo knows besides its results.

    Attributes:
        options: verb -> the option dataclasses it ran with.
        seconds: number of the step, as text -> seconds.
        unlabelled: images of the unlabelled pack.
        pack: counts of the labelled pack (``images``, ``train``, ``val``, ``test``, ``patients``, ``boxes``).
        environment: versions and hardware, as ``environment.json`` holds them.
        classes: of the boxes.
        pretrain_seconds: that the pre-training took.
        seed: of everything.
    """

    options: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]
    unlabelled: int
    pack: Mapping[str, int]
    environment: Mapping[str, Any]
    classes: tuple[str, ...]
    pretrain_seconds: float
    seed: int


def describe(
    figures: DemoFigures,
    baseline: Arm,
    candidate: Arm,
    difference: Mapping[str, Any],
    pretraining: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    heat_definition: str,
) -> Comparison:
    """Everything the demo's page says."""
    counts = figures.pack
    return Comparison(
        title="Do unlabelled images help a detector?",
        over="twinray demo",
        lede=(
            f"One detector starts from random weights, its twin from weights that Barlow Twins learned on {count(figures.unlabelled, 'image')} "
            "without any label. All else is the same: training images, options, seed, test. The images are synthetic."
        ),
        steps=_steps(figures, baseline),
        facts=_facts(figures),
        baseline=baseline,
        candidate=candidate,
        difference=difference,
        pretraining=pretraining,
        classes=figures.classes,
        examples=examples,
        examples_note=(
            f"Drawn by the seed from the {count(counts.get('test'), 'test image')} before any result was known: "
            "one of each class, one without a lesion. None was picked for looking good."
        ),
        heat_definition=_heat_words(heat_definition),
        limits=_limits(figures, baseline),
        own_data=_own_data(figures),
        repeat=commands(figures.options),
        footer=f"Written by twinray {figures.environment.get('twinray', '')} on {datetime.now(UTC):%d %B %Y, %H:%M} UTC.",
        seconds_note=f"Seconds of training; those of {candidate.name} include {seconds(figures.pretrain_seconds)} s of pre-training.",
    )


def _steps(figures: DemoFigures, arm: Arm) -> tuple[tuple[str, str, str], ...]:
    pretrain, detect, counts = figures.options["pretrain"][0], figures.options["detect"][0], figures.pack
    boxes = arm.metrics.get("training_boxes")
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
            "images and the pixels of the training images. No label is read; validation and test patients are left out.",
        ),
        (
            f"Detect: {RANDOM}",
            f"Faster R-CNN with a feature pyramid, {count(detect.epochs, 'epoch')} on {count(counts.get('train'), 'image')} with {count(boxes, 'box', 'boxes')}; backbone from random weights.",
        ),
        (f"Detect: {BARLOW_TWINS}", "The same detector, data, options and seed; backbone from step 2."),
        ("Compare", "Both on the same test images; intervals and the paired difference by resampling patients."),
        ("Explain", "Heat maps of predicted boxes on a few test images, and this page."),
    )
    return tuple((name, text, step_seconds(figures.seconds.get(str(i)))) for i, (name, text) in enumerate(texts, 1))


def _limits(figures: DemoFigures, arm: Arm) -> tuple[tuple[str, str], ...]:
    test = count(figures.pack.get("test"), "test image")
    boxes = count(arm.test.get("n_boxes"), "true box", "true boxes")
    patients = count((arm.test.get("map50") or {}).get("n"), "patient")
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
            f"{BARLOW_TWINS} has seen more images and spent more computing than {RANDOM}. The question here is whether unlabelled images that are "
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
    total = step_seconds(sum(figures.seconds.values())) if figures.seconds else ""
    named = [
        (f"options of {verb}", _options(options[0])) for verb, options in figures.options.items() if verb != "pack"
    ]
    facts = [("versions", versions), ("machine", machine), ("seed", str(figures.seed)), ("all steps", total), *named]
    return tuple((name, text) for name, text in facts if text)


def _options(config: Any) -> str:
    """Options that differ from the verb's defaults, as flags."""
    return " ".join(_flags(config, skip=("data", "out", "init", "resume", "device"))) or "defaults"


def commands(options: Mapping[str, Sequence[Any]]) -> str:
    """The commands that repeat the steps, one verb a line, in order."""
    return "\n".join(
        wrapped(["twinray", verb, *_flags(config, skip=("resume", "workers"))])
        for verb, configs in options.items()
        for config in configs
    )


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


def _flags(config: Any, skip: Sequence[str]) -> list[str]:
    words: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.name in skip or value is None or value == default:
            continue
        flag = "--" + field.name.replace("_", "-")
        values = value if isinstance(value, tuple) else (value,)
        words += [flag] if value is True else [flag, *(shlex.quote(_word(v)) for v in values)]
    return words


def _word(value: Any) -> str:
    return value.as_posix() if isinstance(value, Path) else f"{value:g}" if isinstance(value, float) else str(value)


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
            "twinray evaluate detector-random detector-pretrained --data labelled --out comparison\n"
            "twinray explain detector-pretrained --data labelled --out heat-maps\n"
            "twinray predict detector-pretrained NEW_IMAGES --out predictions"
        ),
    )
