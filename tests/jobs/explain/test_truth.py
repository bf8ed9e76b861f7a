"""True boxes of files: drawn where they belong, or the file is set aside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from twinray.jobs.called_as import CalledAs
from twinray.jobs.explain import run as job
from twinray.records import Boxes, Pixels, Sample


def pixels(width: int, height: int) -> Pixels:
    return Pixels(np.zeros((height, width), np.uint8), "drawn")


def sample(*box: float, size: tuple[int, int] | None = None) -> Sample:
    return Sample("1", "x.png", boxes=Boxes(np.array([box]), np.zeros(1, np.int64)), size=size)


@pytest.mark.parametrize("shown", [(32, 32), (64, 32), (32, 64), (128, 128)])
def test_a_copy_of_another_size_is_set_aside(shown: tuple[int, int]) -> None:
    fault = job._in_file(sample(19, 11, 39, 31, size=(64, 64)), Path("x.png"), pixels(*shown))
    assert fault == (
        f"the annotations say 64 x 64 pixels, the file has {shown[0]} x {shown[1]}; give the image that --truth was made for"
    )


def test_boxes_outside_a_file_of_unknown_size_are_told() -> None:
    fault = job._in_file(sample(19, 11, 39, 31), Path("x.png"), pixels(32, 20))
    assert isinstance(fault, str)
    assert "beyond its image of 32 x 20 pixels" in fault


def test_boxes_of_the_right_file_are_those_of_the_annotations() -> None:
    found = job._in_file(sample(19, 11, 39, 31, size=(64, 64)), Path("x.png"), pixels(64, 64))
    assert isinstance(found, Boxes)
    assert found.xyxy.tolist() == [[19, 11, 39, 31]]
    assert job._in_file(None, Path("x.png"), pixels(64, 64)) is None


def test_what_the_truth_repeats_or_loses_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    bad = {**row, "id": 3, "bbox": [1, 1, 0, 9]}
    images = [{"id": 1, "file_name": "x%20y.png", "width": 64, "height": 64}]
    content = {
        "images": images,
        "annotations": [row, {**row, "id": 2}, bad],
        "categories": [{"id": 1, "name": "a"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    collection = job._truth(path, CalledAs(None, ()))
    told = capsys.readouterr().err
    assert "1 duplicate annotations" in told
    assert "expected a box of positive size" in told
    file = tmp_path / "x y.png"
    assert list(job._by_file(collection, path, [file])) == [file]
