"""Regions that evaluation leaves out travel from a COCO file through the pack into the truth of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.data.pack import SCHEMA, open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.coco import read_coco
from twinray.detection.data import annotated
from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.records import Boxes


def source(folder: Path, *, regions: bool) -> Path:
    folder.mkdir()
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 60, "height": 40, "split": "test"}
        for i in (1, 2, 3)
    ]
    for i in (1, 2, 3):
        Image.fromarray(np.full((40, 60), 40 * i, dtype=np.uint8)).save(folder / f"{i}.png")
    annotations = [{"image_id": i, "category_id": 9, "bbox": [2, 3, 10, 8]} for i in (1, 2)]
    if regions:
        annotations += [{"image_id": 1, "category_id": 4, "bbox": [20, 5, 30, 30], "iscrowd": 1}]
        annotations += [{"image_id": 2, "category_id": 9, "bbox": [20, 5, 30, 30], "ignore": 1}]
    categories = [{"id": 9, "name": "nodule"}, {"id": 4, "name": "mass"}]
    path = folder / "ann.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


def packed(tmp_path: Path, *, regions: bool) -> Path:
    out = tmp_path / f"pack-{regions}"
    write_pack(
        [read_coco(source(tmp_path / f"source-{regions}", regions=regions))],
        out,
        PackOptions(size=16),
        workers=1,
    )
    return out


def test_regions_are_kept_and_are_no_boxes(tmp_path: Path) -> None:
    pack = open_pack(packed(tmp_path, regions=True))
    assert pack.info.counts["boxes"] == 2
    first, second, third = (pack.regions(i) for i in range(3))
    assert (
        first.xyxy.tolist() == [[20, 5, 50, 35]]
        and second.xyxy.tolist() == [[20, 5, 50, 35]]
        and third is None
    )
    assert [pack.info.box_classes[int(r.labels[0])] for r in (first, second)] == ["mass", "nodule"]
    assert first.crowd.all()


def test_a_pack_without_regions_has_no_further_columns(tmp_path: Path) -> None:
    pack = open_pack(packed(tmp_path, regions=False))
    assert pack.table.column_names == SCHEMA.names
    assert pack.regions(0) is None


def test_evaluation_counts_no_prediction_that_lies_in_one(tmp_path: Path) -> None:
    data = annotated(open_pack(packed(tmp_path, regions=True)), "test")
    truth = data.truth_by_id()
    nodule = data.pack.info.box_classes.index("nodule")
    found = {
        image: Boxes(
            np.array([[2.0, 3, 12, 11], [25, 10, 35, 20]]),
            np.array([nodule, nodule]),
            np.array([0.5, 0.9]),
        )
        for image in truth
    }
    report = evaluate_boxes(
        truth, found, data.pack.info.box_classes, resampling=Resampling(0)
    ).all_images
    # The better scored prediction lies in a nodule's region of image 2 only; in 1 and 3 it is a false positive. So the two
    # hits stand at ranks 3 and 4; were it counted in image 2 too, at 4 and 5, and the figure were 0.4.
    assert report.n_boxes == {"nodule": 2, "mass": 0}
    assert report.per_class["nodule"]["ap50"].value == pytest.approx(0.5)
    assert data.n_boxes == 2
