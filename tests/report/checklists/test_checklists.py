"""Checklists: every pointer resolves, nothing is claimed without a record, and no pack without patients is called disjoint."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.errors import InputError
from twinray.report.checklists.facts import TOPICS
from twinray.report.checklists.fill import as_json, as_markdown, checklist
from twinray.report.checklists.items import GUIDELINES
from twinray.report.checklists.sources import Pointer, Records, pointer_to, read_records

FIGURE = {"value": 0.81, "ci95": [0.7, 0.9], "n": 40, "over": "patients"}


def records(**changes):
    files = {
        "pack/pack.json": {
            "names": ["a | b"],
            "size": 64,
            "channels": 1,
            "fit": "squash",
            "counts": {"images": 40, "train": 30, "test": 10, "patients": 20},
            "skipped": 2,
            "skipped_reasons": {"not an image": 2},
            "notes": ["weighted box fusion at IoU 0.5: 9 boxes became 6"],
            "checksums": {"images.npy": "ab12"},
            "extra": {"filter": "bicubic", "patients_in_several_splits": {"patients": 0, "first": []}},
        },
        "pack/splits.json": {
            "images": {"train": 30, "test": 10},
            "method": "cut by patient",
            "seed": 3,
            "label_counts": {"train": {"x": 4}},
            "patients_known": True,
        },
        "run/config.yaml": {"fraction": 0.1, "seed": 1, "optimizer": "adamw", "epochs": 4, "class_weights": "none"},
        "run/environment.json": {"twinray": "0.1", "python": "3.11", "torch": "2", "gpu": None},
        "run/model.json": {
            "kind": "detector", "arch": "resnet18", "size": 64, "classes": ["x"], "sha256": "cd34",
            "init": {"init": "random", "sha256": None}, "thresholds": {"chosen_on": "val"},
        },
        "run/metrics.json": {
            "test": {"map50": FIGURE, "confusion": [[1]], "per_class": {}}, "val": {"map50": FIGURE},
            "seeds": [0, 1], "selected_on": "val", "best_epoch": 3,
        },
        "eval/metrics.json": {
            "arms": {
                "base": {"test": {"map50": FIGURE}, "minus": ""},
                "a/b~c": {
                    "test": {"map50": FIGURE, "subgroups": {"sex": {}}},
                    "minus": "base",
                    "difference": {"map50": {**FIGURE, "value": 0.02, "tests": {"detectable": 0.05}}},
                },
            }
        },
        "study/study.json": {"begun": "2026-01-01", "file": "ee", "plan": "ff"},
        "heat/faithfulness.json": {"figures": []},
    }  # fmt: skip
    return Records({k: v for k, v in {**files, **changes}.items() if v is not None})


def answers(found, name="claim-2024"):
    return {answer.item.number: answer for answer in checklist(found, name)}


@pytest.mark.parametrize(("name", "n"), [("claim-2024", 44), ("tripod-ai", 52), ("mi-claim", 19)])
def test_every_item_and_every_pointer(name, n):
    found = records()
    filled = checklist(found, name)
    assert len(filled) == n == len({a.item.number for a in filled})
    for answer in filled:
        assert (answer.status == "yours to write") == (not answer.facts)
        for fact in answer.facts:
            assert fact.sources
            for source in fact.sources:
                found.resolve(source)
    kept = json.loads(json.dumps(as_json(name, filled), allow_nan=False))
    for item in kept["items"]:
        for statement in item["statements"]:
            for source in statement["sources"]:
                found.resolve(Pointer(source["file"], source["key"]))
    assert {a.status for a in filled} == {"filled", "draft", "yours to write"}


def test_the_place_of_a_file_is_not_told_and_what_is_not_said_is_not_guessed():
    old = {"test": {"auc": {"value": 0.9, "ci95": [0.8, 1.0], "n": 2}}}
    model = {"init": {"init": "/home/somebody/pretrained", "sha256": "cd34"}}
    found = records(**{"run/metrics.json": old, "run/model.json": model})
    assert answers(found)["24"].facts[0].text == "Initial weights: pretrained; sha256 cd34"
    text = next(f.text for f in answers(found)["38"].facts if "auc" in f.text)
    assert text == "Performance: auc 0.900, 95 % interval 0.800 to 1.000"


def test_items_name_topics_that_exist():
    used = {t for g in GUIDELINES.values() for item in g.items for t in item.topics}
    assert used == set(TOPICS)


def test_patient_disjoint_splits_are_claimed_where_they_are_shown():
    assert answers(records())["20"].status == "filled"
    assert answers(records(), "mi-claim")["2.3"].status == "filled"


@pytest.mark.parametrize(
    "change",
    [
        {"pack/splits.json": {"patients_known": False, "images": {"train": 3}}},
        {"pack/splits.json": {"images": {"train": 3}}},
        {"pack/splits.json": None},
        {"pack/pack.json": None},
        {"pack/pack.json": {"extra": {"patients_in_several_splits": {"patients": 2}}}},
        {"pack/pack.json": {"extra": {}}},
        {"other/splits.json": {"patients_known": False}},
        {"other/pack.json": {"names": ["b"]}},
    ],
)
def test_patient_disjoint_splits_are_not_claimed_where_they_are_not_shown(change):
    found = records(**change)
    for name, number in (("claim-2024", "20"), ("mi-claim", "2.3")):
        answer = answers(found, name)[number]
        assert answer.status == "yours to write" and not answer.facts
    assert "disjoint by patient" not in as_markdown("tripod-ai", checklist(found, "tripod-ai"))
    if change.get("pack/splits.json", {}) is not None:
        assert "not shown" in as_markdown("claim-2024", checklist(found, "claim-2024"))


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(records().files))), st.sampled_from(sorted(GUIDELINES)))
def test_what_is_not_recorded_is_not_claimed(gone, name):
    left = Records({k: v for k, v in records().files.items() if k not in gone})
    for answer in checklist(left, name):
        for fact in answer.facts:
            assert all(source.file in left.files for source in fact.sources)
            for source in fact.sources:
                left.resolve(source)
    if not left.files:
        assert all(a.status == "yours to write" for a in checklist(left, name))


@pytest.mark.parametrize("content", [None, [], "text", 3, {"test": 3, "arms": [], "seeds": 1}])
def test_odd_records_say_nothing(content):
    files = {name: content for name in records().files if not name.startswith("heat")}
    files = {k: {} if v is None else v for k, v in files.items()}
    for name in GUIDELINES:
        for answer in checklist(Records(files), name):
            for fact in answer.facts:
                for source in fact.sources:
                    Records(files).resolve(source)


def test_markdown_is_one_row_an_item_whatever_names_hold():
    text = as_markdown("claim-2024", checklist(records(), "claim-2024"))
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 44 and "a \\| b" in text and "arms/a~1b~0c/" in text
    assert "not a medical device" in text


def test_pointers_escape_what_names_hold():
    assert pointer_to("f", "a/b~c", "0").key == "/a~1b~0c/0"
    assert Records({"f": {"a/b~c": [7]}}).resolve(pointer_to("f", "a/b~c", "0")) == 7
    for key in ("/b", "/a~1b~0c/1", "/a~1b~0c/x"):
        with pytest.raises(InputError, match="leads nowhere"):
            Records({"f": {"a/b~c": [7]}}).resolve(Pointer("f", key))


def test_records_are_read_from_folders(tmp_path):
    (tmp_path / "run" / "seeds" / "0").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("fraction: 0.1\n")
    (tmp_path / "run" / "model.json").write_text('{"arch": "resnet18"}')
    (tmp_path / "run" / "seeds" / "0" / "model.json").write_text("{}")
    found = read_records(tmp_path)
    assert sorted(found.files) == ["run/config.yaml", "run/model.json"]
    assert answers(found)["10"].facts[0].text == "Labels used: fraction 0.1"
    with pytest.raises(InputError, match="is none"):
        read_records(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        read_records(tmp_path / "empty")
    (tmp_path / "run" / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        read_records(tmp_path)
    with pytest.raises(InputError, match="expected one of claim-2024"):
        checklist(found, "claim")
