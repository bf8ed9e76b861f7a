"""A model's description is checked once; lists of classes are compared by name and by order."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twinray.errors import InputError
from twinray.runs.classes import box_classes_of, difference
from twinray.runs.description import read_description

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
    assert read_description(written(tmp_path, good)) == good
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
            with pytest.raises(InputError, match=r"was it edited\?") as caught:
                read_description(written(tmp_path, broken))
            assert key in str(caught.value) and "model.json" in str(caught.value)
            assert "\n" not in str(caught.value)
    for other in ([], None, "text", 3):
        with pytest.raises(
            InputError, match=r"expected the description of a model in .*model\.json, found"
        ):
            read_description(written(tmp_path, other))


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
