"""What is told of the models that are served, read from their runs without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.inference.label_rule import LabelRule
from twinray.inference.labels_on_val import labels_on_val, rules_of
from twinray.inference.methods import ANY_DETECTOR, DEFAULT_CLASS_MAPS
from twinray.runs.checksums import check_files
from twinray.runs.description import MODEL, ModelDescription, read_description
from twinray.runs.operating import operating_on_val

_WEIGHTS = "model.safetensors"
_BOX_HEAD_METHODS = ("ablation", "occlusion")


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is served.

    Attributes:
        model: hash of its weights. name: name of its run's folder. classes: class names. run: folder.
        methods: heat maps that can be asked for, the first unless another is.
        about: what ``GET /api/models`` tells.
        rule: rule by which a classifier's labels are called; None of a detector.
    """

    model: str
    name: str
    classes: tuple[str, ...]
    run: Path
    methods: tuple[str, ...]
    about: dict[str, Any]
    rule: LabelRule | None = None

    @property
    def gives_boxes(self) -> bool:
        """Whether it is a detector."""
        return self.rule is None


def read_runs(runs: Sequence[Path], *, allow_edited: bool = False) -> list[Served]:
    """The models of some runs, the one shown first leading; one that is named twice once.

    Raises:
        InputError: not a finished detect or classify run, or one whose files were edited.
    """
    found: dict[str, Served] = {}
    for run in runs:
        if not (run / _WEIGHTS).is_file():
            hint = (
                "it is a pretrain run: train a detector from it first"
                if (run / "backbone.safetensors").is_file()
                else "did it finish?"
            )
            raise InputError(
                f"expected the folder of a finished detect or classify run, {run} has no {_WEIGHTS} ({hint})"
            )
        description = read_description(run / MODEL)
        check_files(run, [MODEL], allow_edited=allow_edited)
        make = _detector if description.kind == "detector" else _classifier
        one = make(run, description, allow_edited, first=not found)
        found.setdefault(one.model, one)
    return [*found.values()]


def _detector(
    run: Path, description: ModelDescription, allow_edited: bool, *, first: bool
) -> Served:
    kind = str(description.options.get("detector", ""))
    methods = _BOX_HEAD_METHODS if kind == "faster-rcnn" else ANY_DETECTOR
    about = _about(run, description, methods, first) | {
        "detector": kind,
        "operating_points": description.thresholds,
        "validation": _validation(run, description, allow_edited),
    }
    return Served(description.sha256, about["name"], description.classes, run, methods, about)


def _classifier(
    run: Path, description: ModelDescription, allow_edited: bool, *, first: bool
) -> Served:
    methods = DEFAULT_CLASS_MAPS
    about = _about(run, description, methods, first) | {
        "exclusive": description.task == "multiclass",
        **labels_on_val(description, run, allow_edited=allow_edited),
    }
    rule = next(iter(rules_of(description, run).values()))
    return Served(description.sha256, about["name"], description.classes, run, methods, about, rule)


def _about(
    run: Path, description: ModelDescription, methods: Sequence[str], first: bool
) -> dict[str, Any]:
    """What is told of every model."""
    return {
        "model": description.sha256,
        "name": run.resolve().name,
        "first": first,
        "kind": description.kind,
        "arch": description.arch,
        "size": description.size,
        "classes": [*description.classes],
        "heat_maps": [*methods],
        "initial_weights": description.init.init,
        "ancestors": [one.told() for one in description.init.ancestors or ()],
    }


def _validation(run: Path, description: ModelDescription, allow_edited: bool) -> dict[str, Any]:
    """Figures on validation images, or why there are none: nothing is shown that has no number behind it."""
    tables = operating_on_val(run, description.classes, allow_edited=allow_edited)
    if tables is None:
        return {"why_none": "the run kept no predictions on validation images"}
    if not tables[""].n_images:
        return {"why_none": "the run had no validation images"}
    return {
        "why_none": None,
        **tables[""].as_json(),
        "by_class": {name: table.as_json() for name, table in tables.items() if name},
    }
