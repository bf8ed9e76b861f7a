"""A model's description is checked once; lists of classes are compared by name and by order."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twinray.data.decoding.options import Decoded
from twinray.errors import InputError
from twinray.runs.classes import box_classes_of, difference
from twinray.runs.description import (
    MadeLike,
    StartedFrom,
    read_description,
    read_weight_description,
)

GOOD: dict[str, Any] = {
    "kind": "detector",
    "sha256": "0" * 64,
    "arch": "resnet18",
    "classes": ["a", "b"],
    "size": 64,
    "pack": {"size": 64, "fit": "squash", "channels": 1},
    "data": [],
    "seed": 0,
    "options": {},
}
CLASSIFIER = {
    **{k: v for k, v in GOOD.items() if k != "options"},
    "kind": "classifier",
    "task": "multilabel",
}


def written(folder: Path, value: Any) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("good", [GOOD, CLASSIFIER])
def test_every_key_is_needed_and_none_may_be_of_another_kind(tmp_path, good):
    described = read_description(written(tmp_path, good))
    assert {key: good[key] for key in ("kind", "arch", "sha256", "size", "seed")}.items() <= vars(
        described
    ).items()
    assert described.classes == ("a", "b") and described.pack == MadeLike(64, "squash", 1)
    places = [(good, key) for key in good] + [(good["pack"], key) for key in good["pack"]]
    for inside, key in places:
        for other in (..., None, {"x": 1}, [1], -1, 1.5, True):
            broken = copy.deepcopy(good)
            where = broken["pack"] if inside is good["pack"] else broken
            if other is ...:
                del where[key]
            else:
                where[key] = other
            if (key, other) == ("options", {"x": 1}):
                continue  # its keys are the detector's affair
            with pytest.raises(
                InputError, match=r"was it edited\?|not one that this version knows"
            ) as caught:
                read_description(written(tmp_path, broken))
            assert key in str(caught.value) and "model.json" in str(caught.value)
            assert "\n" not in str(caught.value)
    for other in ([], None, "text", 3):
        with pytest.raises(
            InputError, match=r"expected the description of a model in .*model\.json, found"
        ):
            read_description(written(tmp_path, other))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"classes": ["a", 1]}, "classes[1]"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": []}, "classes"),
        ({"data": [{"checksums": {"images.npy": 5}}]}, "data[0].checksums"),
        ({"data": [{"names": "nih"}]}, "data[0].names"),
        ({"data": ["pack"]}, "data[0]"),
        ({"init": {"sha256": 3}}, "init.sha256"),
        ({"pack": {**GOOD["pack"], "turned": 90}}, "pack.turned"),
        ({"pack": {**GOOD["pack"], "decoded": {"exif": "sideways"}}}, "pack.decoded.exif"),
        ({"pack": {**GOOD["pack"], "decoded": {"mirrored": True}}}, "pack.decoded.mirrored"),
        ({"thresholds": [1]}, "thresholds"),
        ({"format_version": 2}, "form 2"),
    ],
)
def test_lists_and_what_stands_inside_are_checked_too(tmp_path, changes, key):
    with pytest.raises(InputError, match=re.escape(key)):
        read_description(written(tmp_path, {**GOOD, **changes}))


def test_older_files_have_the_defaults_of_what_came_later_and_people_may_read_more(tmp_path):
    described = read_description(
        written(tmp_path, {**GOOD, "layers": {"frozen": []}, "trained_by": "detect"})
    )
    assert described.pack.decoded == Decoded() and described.thresholds is None
    assert described.init == StartedFrom() and described.checksums == []
    said = {"exif": "apply", "lenient": False, "scales": {"s": {"whole": [0, 4095], "real": None}}}
    described = read_description(
        written(tmp_path, {**GOOD, "pack": {**GOOD["pack"], "decoded": said}})
    )
    assert described.pack.decoded.scales["s"].whole == (0, 4095)


def test_weights_of_any_kind_are_described_and_a_strangers_file_is_none(tmp_path):
    path = written(tmp_path, {"kind": "backbone", "arch": "resnet18", "sha256": "0", "epochs": 3})
    described = read_weight_description(path)
    assert described is not None and (described.arch, described.size) == ("resnet18", 0)
    assert read_weight_description(written(tmp_path, {"size": "large"})) is None
    with pytest.raises(InputError, match=r"size: expected `int`, got `str`"):
        read_weight_description(
            written(tmp_path, {"kind": "backbone", "arch": "x", "sha256": "0", "size": "9"})
        )


def test_a_backbone_says_how_its_pack_was_made(tmp_path):
    own = {"kind": "backbone", "arch": "resnet18", "sha256": "0", "pack": GOOD["pack"]}
    described = read_weight_description(written(tmp_path, own))
    assert described.pack.fit == GOOD["pack"]["fit"]
    for pack, said in (({"turned": 90}, "pack.turned"), ({"fit": "crop"}, "pack.fit")):
        with pytest.raises(InputError, match=said):
            read_weight_description(written(tmp_path, {**own, "pack": {**GOOD["pack"], **pack}}))


def test_lists_differ_by_name_or_by_order():
    assert difference(["a", "b"], ("a", "b"), "run", "pack") == ""
    assert (
        difference(["a", "b"], ["b", "c"], "run", "pack")
        == "only in the run: ['a']; only in the pack: ['c']"
    )
    order = difference(["b", "a"], ["a", "b"], "run", "pack")
    assert "another order" in order and "['b', 'a']" in order


def test_box_classes_are_those_of_a_run_or_a_pack(detect_run, blob_pack, class_pack, tmp_path):
    assert box_classes_of(detect_run) == (("blob",), "run")
    assert box_classes_of(blob_pack) == (("blob",), "pack")
    with pytest.raises(InputError, match="has neither"):
        box_classes_of(tmp_path)
    for without in (class_pack, written(tmp_path, CLASSIFIER).parent):
        with pytest.raises(InputError, match="no box classes"):
            box_classes_of(without)


def test_reading_classes_needs_no_torch():
    code = "import sys, twinray.runs.classes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
