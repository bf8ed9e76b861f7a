"""README.md beside exported weights: the model card, with the front matter that Hugging Face's hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from twinray.about import DISCLAIMER, own_version, version_of
from twinray.backbones.ledger import LEDGER
from twinray.data.identity import DATA_SETS
from twinray.detection.model import Detector
from twinray.exporting.card.figures import figure_lines, measured, values
from twinray.exporting.files import Exported
from twinray.exporting.licences import chain, image_terms
from twinray.exporting.parity import Parity
from twinray.exporting.subject import Subject
from twinray.report.numbers import count
from twinray.runs.description import Ancestor, ModelDescription
from twinray.runs.notes import metrics_of
from twinray.runs.seen import PUBLISHED, Part, Seen

_TASKS = {
    "detector": "object-detection",
    "classifier": "image-classification",
    "backbone": "image-feature-extraction",
}
_TOOLS = {
    "torchvision": "torchvision",
    "timm": "timm",
    "mmdet": "MMDetection 3",
    "onnx": "onnxruntime",
    "hub": "`twinray.load`, as Hugging Face's hub lays them",
}
_PRIVATE = "a private source"


@dataclass(frozen=True)
class Facts:
    """What a card tells beside the files.

    Attributes:
        target: tool that the weights are for.
        licence: identifier of the licence that their holder gives them; empty where none was stated.
        source: where the images of the check are from.
        membership: lines on whether training images can be told from others.
        seen: record of what the weights saw.
    """

    target: str
    licence: str
    source: str
    membership: tuple[str, ...]
    seen: Seen


def card(subject: Subject, exported: Exported, parity: Parity, facts: Facts) -> str:
    """The card as Markdown."""
    ancestors = chain(subject)
    front = yaml.safe_dump(
        front_matter(subject, facts, ancestors), sort_keys=False, allow_unicode=True
    )
    classes = f" Classes: {', '.join(subject.classes)}." if subject.classes else ""
    seen = list(_seen_lines(facts.seen))
    parts: list[tuple[str, Sequence[str]]] = [
        (
            "Loading",
            [
                exported.usage,
                _input(subject),
                *_output_notes(subject, facts.target),
                *exported.notes,
                *_pixel_notes(subject, facts.target),
            ],
        ),
        (
            "Intended use and limits",
            [
                "For research on images like those that it learned from: same body part, view and preparation. "
                f"{DISCLAIMER}: no part of a diagnosis or of care.",
                "A score orders boxes, or images. It is no probability of a disease unless that was measured on patients like yours.",
                "Figures hold for the images that they were measured on. Other scanners, hospitals, ages and prevalences give "
                "others; measure before use.",
            ],
        ),
        ("Figures", _figures(subject)),
        ("What the weights saw", seen),
        ("May these weights leave the house?", facts.membership),
        (
            "Licences",
            [
                f"Licence of these weights: {facts.licence or 'not stated by who exported them'}.",
                *(f"- {one.told()}." for one in ancestors),
                *([] if ancestors else ["- made from random weights: no licence of others."]),
                *(f"- {one}." for one in image_terms(facts.seen)),
                "This repeats what publishers say; it is no legal advice.",
            ],
        ),
        (
            "Check against the run",
            [
                f"- {parity.told()}. Images: {facts.source}.",
                *(f"- {note}" for note in subject.edited),
            ],
        ),
    ]
    lines = [
        f"---\n{front}---\n",
        f"# {_title(subject)}\n",
        f"{DISCLAIMER}.{classes} Files for {_TOOLS[facts.target]}.\n",
    ]
    for title, body in parts:
        lines.append(f"## {title}\n\n" + _paragraphs(body) + "\n")
    lines.append(f"Exported by twinray {own_version()}, PyTorch {version_of('torch')}.\n")
    return "\n".join(lines)


def _figures(subject: Subject) -> list[str]:
    metrics = metrics_of(subject.run)
    if subject.kind == "backbone":
        metrics = {}
    return list(figure_lines(metrics, "detector" if subject.kind == "detector" else "classifier"))


def _input(subject: Subject) -> str:
    """What the network takes, and how large it is."""
    by, own = subject.normalisation, subject.pack
    of = "grey" if own.channels == 1 else "RGB"
    how = "letterboxed to" if own.fit == "letterbox" else "stretched to"
    fit = f"{of}, {how} {own.size} pixels a side, then resized to"
    numbers = [", ".join(f"{one:g}" for one in values) for values in (by.mean, by.std)]
    n = sum(one.numel() for one in subject.network.parameters())
    return (
        f"Input: images {fit} {subject.size} pixels a side; 0 to 1, less the mean ({numbers[0]}), over the deviation ({numbers[1]}). "
        f"Parameters: {n:,}."
    )


def _output_notes(subject: Subject, target: str) -> Iterator[str]:
    """What a classifier's numbers mean where the loader gives logits."""
    description = subject.description
    if target not in ("torchvision", "timm") or not isinstance(description, ModelDescription):
        return
    if description.task == "multilabel":
        yield "Outputs: a logit for each class, in the order above. Its sigmoid is the score of that class by itself."
    elif description.task == "multiclass":
        yield "Outputs: a logit for each class, in the order above. Their softmax gives the scores: an image has one class."


def _pixel_notes(subject: Subject, target: str) -> Iterator[str]:
    if not subject.linear:
        return
    yield (
        "The weights learned from linear values of up to 16 bits. Of each image 0 is the lower end of its own window and 1 the upper one; "
        "what lies outside is cut off."
    )
    if target == "hub":
        yield "`twinray.load` decodes DICOM so by itself. Images of 8 bits are taken too, with the steps that they have."
    elif target == "onnx":
        yield "`Model` takes uint16 with `window=(black, white)`. Images of 8 bits are taken too, with the steps that they have."
    else:
        yield "Feed float32 made in that way; images of 8 bits have coarser steps, so figures are not quite the run's."


def front_matter(subject: Subject, facts: Facts, ancestors: Sequence[Ancestor]) -> dict[str, Any]:
    """Keys and values as the hub's validator takes them."""
    front: dict[str, Any] = {"license": facts.licence or "other"}
    if not facts.licence:
        front["license_name"] = "not-stated"
    front["pipeline_tag"] = _TASKS[subject.kind]
    front["library_name"] = "twinray" if facts.target == "hub" else facts.target
    if datasets := sorted(_published(facts.seen)):
        front["datasets"] = datasets
    # an id that is none of the hub's would point at somebody else's weights, or tell the name of a folder
    if bases := [one for one in map(_hub_id, ancestors) if one]:
        front["base_model"] = bases
    metrics = metrics_of(subject.run)
    if names := [name for name, _ in values(metrics.get(measured(metrics)))]:
        front["metrics"] = names[:4]
    front["tags"] = ["medical-imaging", "twinray", "research-only"]
    return front


def _title(subject: Subject) -> str:
    kind = subject.kind.capitalize()
    if isinstance(subject.network, Detector):
        kind = f"Detector ({subject.network.options.detector})"
    return f"{kind} on {subject.arch}, {subject.size} pixels"


def _hub_id(ancestor: Ancestor) -> str:
    row = LEDGER.get(ancestor.name)
    return row.place.value.where if row is not None and row.place.value.how == "hub" else ""


def _published(seen: Seen) -> set[str]:
    return {origin.data_set for part in seen.parts for origin in part.origins}


def _seen_lines(seen: Seen) -> Iterator[str]:
    for part in seen.parts:
        if part.job == PUBLISHED:
            yield f"- {', '.join(part.sources)}: by the published weights {part.run}."
            continue
        use = "learned from" if part.use == "training" else "chose its epoch on"
        people = count(part.n_patients, "patient") if part.n_patients else "unknown patients"
        yield f"- the {part.job} run {use} {count(part.n_images, 'image')} of {people}: {_sources(part)}."
    for one in seen.unknown:
        yield f"- not recorded: what the weights {one.rpartition('/')[2]} saw."
    if not seen.parts and not seen.unknown:
        yield "- no image: the record is empty."


def _sources(part: Part) -> str:
    """Published data sets by name; a hospital's folder is nobody's business."""
    known = {origin.source: origin.data_set for origin in part.origins}
    named = [known.get(source, _PRIVATE) for source in part.sources]
    return ", ".join(
        dict.fromkeys(DATA_SETS[one].key if one in DATA_SETS else one for one in named)
    )


def _paragraphs(body: Sequence[str]) -> str:
    """Items of a list on lines of their own, everything else as paragraphs."""
    text = ""
    for line in body:
        listed = line.startswith("- ")
        text += f"{line}\n" if listed else f"\n{line}\n\n"
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"
