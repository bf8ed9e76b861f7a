from __future__ import annotations

import json

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.boxes import class_average_precision, mean_average_precision
from twinray.evaluation.coco_json import (
    coco_image_ids,
    predictions_as_coco,
    read_predictions,
    truth_as_coco,
    write_predictions,
)
from twinray.records import Boxes

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "ids", [None, [f"{i}.png" for i in (9, 10, 2, 33, 4, 21, 8, 70, 6, 1)], [70, 3, 100_000, 8, 22]]
)
def test_files_reloaded_by_pycocotools_give_the_same_map(tmp_path, simulate, capsys, ids):
    coco, cocoeval = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    truth, predictions = simulate(0, ids=ids)
    numbers = coco_image_ids(list(truth))
    (tmp_path / "truth.json").write_text(
        json.dumps(truth_as_coco(truth, NAMES, image_ids=numbers), allow_nan=False)
    )
    write_predictions(tmp_path / "predictions.json", predictions, 4, numbers)
    true = coco.COCO(str(tmp_path / "truth.json"))
    evaluation = cocoeval.COCOeval(true, true.loadRes(str(tmp_path / "predictions.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert mean_average_precision(truth, predictions, NAMES) == pytest.approx(
        evaluation.stats[1], abs=1e-9
    )
    again = read_predictions(tmp_path / "predictions.json", numbers, 4)
    assert set(again) == set(truth)
    np.testing.assert_allclose(
        class_average_precision(truth, again, NAMES),
        class_average_precision(truth, predictions, NAMES),
        atol=1e-9,
    )
    for image, boxes in predictions.items():
        assert np.array_equal(again[image].scores, boxes.scores)
        assert np.array_equal(again[image].labels, boxes.labels)
        np.testing.assert_allclose(again[image].xyxy, boxes.xyxy, atol=1e-9)


def test_form_of_the_dictionaries():
    truth = {
        "b.png": Boxes(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([1])),
        "a.png": Boxes.empty(),
    }
    coco = truth_as_coco(truth, ("x", "y"), sizes={"a.png": (30, 20)})
    assert coco["images"] == [
        {"id": 1, "file_name": "a.png", "width": 30, "height": 20},
        {"id": 2, "file_name": "b.png"},
    ]
    assert coco["annotations"] == [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 2,
            "bbox": [1.0, 2.0, 3.0, 6.0],
            "area": 18.0,
            "iscrowd": 0,
        }
    ]
    assert coco["categories"] == [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]
    predicted = [
        Boxes(
            np.array([[1.0, 2.0, 4.0, 8.0]], dtype=np.float32),
            np.array([0]),
            np.array([0.1], dtype=np.float32),
        )
    ]
    (entry,) = predictions_as_coco(predicted, 2)
    assert entry == {
        "image_id": 0,
        "category_id": 1,
        "bbox": [1.0, 2.0, 3.0, 6.0],
        "score": float(np.float32(0.1)),
    }


def test_image_ids():
    assert coco_image_ids([7, 3]) == {7: 7, 3: 3}
    assert coco_image_ids(["b", "a"]) == {"a": 1, "b": 2}
    with pytest.raises(InputError, match="image 'b' has none"):
        truth_as_coco({"b": Boxes.empty()}, ("x",), image_ids={"a": 1})
    with pytest.raises(InputError, match="different ids"):
        truth_as_coco({"b": Boxes.empty()}, ("x",), image_ids={"a": 1, "b": 1})


GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "image_id": 9}, "image id 9 is not among the 2 images"),
        ({**GOOD, "category_id": 3}, "category id from 1 to 2, found 3"),
        ({**GOOD, "category_id": 0}, "category id from 1 to 2, found 0"),
        ({**GOOD, "category_id": "1"}, "category_id to be a whole number"),
        ({**GOOD, "score": float("nan")}, "score in 0..1, found nan"),
        ({**GOOD, "score": 1.01}, "score in 0..1"),
        ({**GOOD, "score": True}, "score in 0..1"),
        ({**GOOD, "score": None}, "score in 0..1"),
        ({**GOOD, "bbox": [0, 0, 5]}, "4 finite numbers"),
        ({**GOOD, "bbox": [0, 0, 5, float("inf")]}, "4 finite numbers"),
        ({**GOOD, "bbox": "0 0 5 5"}, "4 finite numbers"),
        ({**GOOD, "bbox": [0, 0, -5, 5]}, "width and height of 0 or more"),
        ({k: v for k, v in GOOD.items() if k != "score"}, "score is missing"),
        ([1, 2], "expected an object, found a list"),
    ],
)
def test_a_malformed_entry_is_named_with_its_file(tmp_path, entry, message):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([GOOD, entry]))
    with pytest.raises(InputError, match=message) as caught:
        read_predictions(path, {"a": 1, "b": 2}, 2)
    assert str(caught.value).startswith(f"{path}, entry 1: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "results list, found an object"), ("[", "expected JSON"), (None, "could not read")],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, text, message):
    path = tmp_path / "predictions.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_predictions(path, {"a": 1}, 1)


def test_an_empty_list_gives_empty_boxes_with_scores(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, {}, 1)
    read = read_predictions(path, {"a": 1}, 1)
    assert read["a"].xyxy.shape == (0, 4)
    assert len(read["a"].scores) == 0
