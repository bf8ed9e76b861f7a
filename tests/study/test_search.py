"""A search for real: every arm tries the same values, the best on validation images is taken, and record and report say so."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console

from twinray.errors import InputError
from twinray.files import folders_freed, read_json
from twinray.runs.folder import read_config, read_metrics
from twinray.studies.config import StudyConfig
from twinray.studies.plan.nodes import Node, Read, node
from twinray.studies.report.config import ReportConfig
from twinray.studies.report.write import run as report
from twinray.studies.results.state import collect
from twinray.studies.run import run as study
from twinray.studies.runner.execute import CHOICE, choose

FILE = """
study: Tuned
question: Do weights help when every arm is tuned alike?
packs:
  chest: {format: phantom, phantom_images: 40, size: 32, val: 0.25, test: 0.4}
arms: [{name: first, init: random}]
tasks:
  findings:
    verb: classify
    pack: chest
    policies: [probe]
    seeds: [0, 1]
    search: {space: {class_weights: [none, balanced]}}
    options: {arch: resnet18, size: 32, bootstrap: 20, device: cpu}
"""


def test_the_value_that_is_best_on_validation_images_is_taken_and_told(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(FILE, encoding="utf-8")
    out = tmp_path / "out"
    with folders_freed():
        state = study(StudyConfig(tmp_path / "study.yaml", out=out), Console(quiet=True))
    assert state is not None and state.opened and not state.deviations
    (choice,) = [piece for piece in state.pieces if piece.node.kind == "choose"]
    record = read_json(choice.folder / CHOICE, "choice")
    trials = [p for p in state.pieces if p.node.cells and p.node.cells[0].trial is not None]
    own = {p.node.cells[0].trial: read_metrics(p.folder)["val"]["auc"]["value"] for p in trials}
    best = max(own, key=lambda number: (own[number], -number))  # of equals the first
    value = ("none", "balanced")[best]
    assert record["trial"] == best and record["chosen"] == {"class_weights": value}
    assert record["budget"] == len(own) == 2 and record["split"] == "val"
    runs = collect(out).measured()
    assert len(runs) == 2
    for piece in runs:
        assert read_config(piece.folder)["class_weights"] == value
    report(ReportConfig(out))
    page = (out / "report" / "report.html").read_text(encoding="utf-8").split("<body>")[1]
    text = unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))
    assert "Values that the search chose on validation images" in text
    assert f"Findings first 100 % class_weights {value} 2" in text


def trials(study: Path, *values: float | None) -> Node:
    """Runs with such figures on validation images, and the piece that chooses among them."""
    for i, value in enumerate(values):
        (study / "runs" / f"trial{i}").mkdir(parents=True)
        own = {"val": {"auc": {"value": value}}}
        (study / "runs" / f"trial{i}" / "metrics.json").write_text(json.dumps(own))
    rule = {"measure": "auc", "trials": [{"lr": float(i)} for i in range(len(values))]}
    return node(
        "choose", "choose", rule, [Read("trial", node=f"trial{i}") for i in range(len(values))]
    )


@pytest.mark.parametrize(
    ("values", "best"), [((0.6, 0.8, 0.7), 1), ((0.7, 0.7), 0), ((None, 0.2), 1)]
)
def test_the_best_is_taken_of_equals_the_first_and_one_without_a_figure_never(
    tmp_path: Path, values: tuple[float | None, ...], best: int
) -> None:
    record = choose(trials(tmp_path, *values), tmp_path)
    assert (record["trial"], record["chosen"]) == (best, {"lr": float(best)})


def test_a_search_without_a_figure_on_validation_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trial has auc on validation images"):
        choose(trials(tmp_path, None, None), tmp_path)
