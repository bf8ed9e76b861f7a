"""The RSNA challenge's whole labels, as the torchxrayvision wheel ships them, and 232 real images."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.rsna import read_rsna


def test_the_whole_labels(tmp_path):
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "kaggle_stage_2_train_labels.csv.zip"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships RSNA's labels, is not installed")
    with zipfile.ZipFile(path) as archive:
        archive.extract("stage_2_train_labels.csv", tmp_path)
    collection = read_rsna(tmp_path, need_images=False)
    boxes = [len(sample.boxes) for sample in collection.samples]
    assert (len(boxes), sum(boxes), sum(n > 0 for n in boxes)) == (26_684, 9_555, 6_012)
    assert not collection.skipped
    assert any("every image counts as its own patient" in note for note in collection.notes)


def test_232_images_have_the_boxes_and_patients_of_their_coco_file(real_data, tmp_path):
    root = real_data / "rsna-pneumonia"
    truth = json.loads((root / "annotations.json").read_text())
    write_pack([read_rsna(root)], tmp_path / "p", PackOptions(size=64), workers=1)
    pack = open_pack(tmp_path / "p")
    assert len(pack) == 232 and pack.info.skipped == 0 and pack.info.counts["boxes"] == 142
    row_of = {name: i for i, name in enumerate(pack.ids.tolist())}
    assert sum(pack.labels[:, 0] == 1) == 89
    for image in truth["images"]:
        i = row_of[Path(image["file_name"]).stem]
        assert pack.patients[i] == image["patient_id"]
        expected = np.array(
            [a["bbox"] for a in truth["annotations"] if a["image_id"] == image["id"]]
        ).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        found = pack.boxes(i).xyxy
        assert found.shape == expected.shape
        np.testing.assert_allclose(
            found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=0.02
        )
