"""What a detector is about to learn from: classes without a training box, boxes that are too small to see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.data.pack import Pack, open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated
from twinray.detection.run import _data_notes
from twinray.errors import InputError
from twinray.runs.classes import never_learned


def pack_of(folder: Path, side: float = 20) -> Pack:
    """Images of train, val and test; class a everywhere, b in test alone, c nowhere."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, rows = [], []
    for k in range(12):
        Image.fromarray(rng.integers(0, 255, (256, 256), dtype=np.uint8)).save(folder / f"{k}.png")
        split = "test" if k > 9 else "val" if k > 7 else "train"
        images.append({"id": k, "file_name": f"{k}.png", "split": split})
        for label, x in ((1, 5), (2, 35)) if split == "test" else ((1, 5),):
            rows.append({"image_id": k, "category_id": label, "bbox": [x, 10, side, side]})
    names = [{"id": i + 1, "name": name} for i, name in enumerate("abc")]
    path = folder / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": names}))
    out = folder / "pack"
    write_pack(read_sources("coco", [path], SourceOptions()), out, PackOptions(size=64), workers=0)
    return open_pack(out)


def notes_of(pack: Pack, size: int) -> list[str]:
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    return _data_notes(DetectConfig(pack.path, pack.path / "r", size=size), pack, data)


def test_classes_that_are_only_in_test_are_named_with_their_number(tmp_path: Path) -> None:
    assert notes_of(pack_of(tmp_path / "s"), 64) == [
        "WARNING: never learned, without a training box: 'b' (2 boxes tested); these classes stay in the means over "
        "classes, near 0",
        "no box in training, val and test: 'c'",
    ]
    assert never_learned({"a": 3}, {"a": 1}) == []


def test_a_detector_without_a_usable_box_stops(tmp_path: Path) -> None:
    pack = pack_of(tmp_path / "s", side=1.5)
    with pytest.raises(
        InputError,
        match=r"none of the 8 boxes on training images .* is as large as a pixel at --size 64",
    ):
        notes_of(pack, 64)
    assert not any("smaller than a pixel" in note for note in notes_of(pack, 256))
