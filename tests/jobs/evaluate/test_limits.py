"""What limits a figure is told wherever it is shown, and sizes of boxes are an option."""

from __future__ import annotations

import csv
import json

import pytest


def test_few_boxes_say_so_in_tables_files_and_page(detect_run, tmp_path, cli):
    out = tmp_path / "out"
    status, shown, told = cli("evaluate", detect_run, "--bootstrap", 50, "--out", out)
    assert status == 0, told
    assert "[too few to say]" in " ".join(shown.split())
    record = json.loads((out / "metrics.json").read_text())
    notes = [one["note"] for one in _figures(record) if "note" in one]
    assert any(note.startswith("too few to say: true boxes in ") for note in notes)
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert any(row["note"].startswith("too few to say") and row["low"] for row in rows)
    assert "too few to say" in (out / "report.html").read_text()


def test_sizes_of_boxes_are_an_option(detect_run, tmp_path, cli):
    status, _, told = cli("evaluate", detect_run, "--bootstrap", 0, "--size-limits", 90, 30)
    assert status == 2 and "two rising sides in pixels" in told and len(told.splitlines()) == 1
    found = {}
    for name, limits in (("coco", ()), ("huge", ("--size-limits", 5000, 6000))):
        status, _, told = cli(
            "evaluate", detect_run, "--bootstrap", 0, "--out", tmp_path / name, *limits
        )
        assert status == 0, told
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    values = {
        name: {
            m: one["value"]
            for one in [next(iter(_arms(record)))]
            for m, one in one.items()
            if m.startswith("map")
        }
        for name, record in found.items()
    }
    assert values["huge"]["map_small"] == pytest.approx(values["huge"]["map"], rel=1e-12)
    assert values["huge"]["map_large"] is None
    assert values["coco"]["map"] == values["huge"]["map"]


def _figures(node):
    if isinstance(node, dict):
        if "value" in node and "ci95" in node:
            yield node
        for child in node.values():
            yield from _figures(child)
    elif isinstance(node, list):
        for child in node:
            yield from _figures(child)


def _arms(node):
    """Dictionaries that hold a model's figures over all classes."""
    if isinstance(node, dict):
        if isinstance(node.get("map50"), dict):
            yield node
        for child in node.values():
            yield from _arms(child)
