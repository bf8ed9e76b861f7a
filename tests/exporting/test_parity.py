"""The gate of exports: a limit, and beside float64 where float32 itself passes it. A planted fault never leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from export_support import made_run
from twinray.errors import InputError, TwinrayError
from twinray.exporting import to_onnx
from twinray.exporting.images import sample
from twinray.exporting.parity import COARSEST, Limits, of_boxes, of_numbers
from twinray.exporting.subject import open_subject
from twinray.records import Boxes

LIMITS = Limits(side=100, most=100, threshold=0.001)
LIMIT = 1e-4


def drawn(n=60):
    """Boxes on three images, far from one another."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3):
        corner = np.stack([np.arange(n) % 10, np.arange(n) // 10], axis=1) * 9.0
        xyxy = np.concatenate([corner, corner + rng.uniform(4, 8, (n, 2))], axis=1)
        found.append(Boxes(xyxy, np.zeros(n, np.int64), rng.uniform(0.1, 0.9, n)))
    return found


def off(boxes, by, seed, always=0.0):
    """The same boxes rounded: edges and scores off by up to ``by`` of the side, and all edges by ``always``."""
    rng = np.random.default_rng(seed)
    return [
        Boxes(
            one.xyxy + 100 * (rng.uniform(-by, by, one.xyxy.shape) + always),
            one.labels,
            one.scores + rng.uniform(-by, by, len(one)),
        )
        for one in boxes
    ]


def gate(ours, theirs, true=None):
    exact = None if true is None else (lambda: true)
    return of_boxes(ours, theirs, limits=LIMITS, loader="a tool", limit=LIMIT, exact=exact)


def test_where_nothing_was_found_nothing_was_compared():
    none = [Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))] * 3
    with pytest.raises(InputError, match="nothing to compare; give images"):
        gate(none, none).check()
    with pytest.raises(TwinrayError, match="do not give what the run gives"):
        gate(none, drawn()).check()


def test_numbers_that_are_none_match_nothing():
    ours, theirs = drawn(), drawn()
    theirs[0].xyxy[:3] = np.nan
    assert gate(ours, theirs).unmatched == 6
    with pytest.raises(TwinrayError, match="do not give what the run gives"):
        gate(ours, theirs).check()


def test_where_not_a_bit_may_differ_no_box_may():
    ours = drawn(200)
    theirs = [*ours[:2], Boxes(ours[2].xyxy[1:], ours[2].labels[1:], ours[2].scores[1:])]
    limits = Limits(side=100, most=300, threshold=0.001)
    assert of_boxes(ours, theirs, limits=limits, loader="x", limit=LIMIT).holds
    assert not of_boxes(ours, theirs, limits=limits, loader="x", limit=0.0).holds


def test_within_the_limit_nothing_is_made_in_float64():
    def never():
        raise AssertionError("float64 was asked for")

    true = drawn()
    found = of_boxes(
        true, off(true, LIMIT / 2, 1), limits=LIMITS, loader="x", limit=LIMIT, exact=never
    )
    assert found.holds and found.rounding is None
    numbers = of_numbers(
        np.ones((2, 3)), np.ones((2, 3)), loader="x", what="logits", limit=LIMIT, exact=never
    )
    assert numbers.holds


def test_what_float32_itself_does_is_allowed_and_told_with_both_figures():
    true = drawn()
    ours, theirs = off(true, 3e-4, 1), off(true, 3e-4, 2)
    assert not gate(ours, theirs).holds  # no float64, no excuse
    found = gate(ours, theirs, true)
    assert found.holds
    found.check()
    assert found.rounding.run.share == pytest.approx(3e-4, rel=0.1)
    assert "from the same network in float64 they lie 0.0003 and 0.0003 away" in found.told()
    assert "the run itself 0.0003 and 0.0003" in found.told()
    assert "\n" not in found.told()
    assert found.as_json()["rounding"]["other"]["share"] == found.rounding.other.share


@pytest.mark.parametrize(
    ("own", "other", "always"),
    [
        pytest.param(2e-5, 3e-4, 0, id="the run is near float64, the other is not"),
        pytest.param(2e-4, 7e-4, 0, id="more than three times as far"),
        pytest.param(2e-4, 2e-4, 2.5e-4, id="all edges off by one small step"),
        pytest.param(3 * COARSEST, 3 * COARSEST, 0, id="so coarse that anything would pass"),
    ],
)
def test_what_float32_does_not_do_is_refused(own, other, always):
    true = drawn()
    found = gate(off(true, own, 1), off(true, other, 2, always), true)
    assert not found.holds
    with pytest.raises(TwinrayError, match="from the same network in float64"):
        found.check()


def test_a_list_that_lacks_boxes_is_refused_though_the_others_fit():
    true = drawn()
    fewer = [Boxes(b.xyxy[5:], b.labels[5:], b.scores[5:]) for b in off(true, 3e-4, 2)]
    found = gate(off(true, 3e-4, 1), fewer, true)
    assert found.rounding.other.unmatched > 0 and not found.holds


def test_a_run_that_has_other_boxes_than_float64_excuses_nobody():
    true = drawn()
    fewer = [Boxes(b.xyxy[5:], b.labels[5:], b.scores[5:]) for b in off(true, 3e-4, 1)]
    found = gate(fewer, off(fewer, 3e-4, 2), true)
    assert found.rounding.run.unmatched == 15 and not found.holds


def test_numbers_have_the_same_gate():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(20, 50))
    most = np.abs(true).max()

    def rounded(by):
        return true + most * rng.uniform(-by, by, true.shape)

    def of(ours, theirs):
        return of_numbers(
            ours, theirs, loader="x", what="logits", limit=LIMIT, exact=lambda: true
        ).holds

    assert of(rounded(2e-4), rounded(2e-4))
    assert not of(rounded(1e-5), rounded(2e-4))
    assert not of(rounded(2e-4), rounded(2e-4) + 2e-4 * most)


# --- planted faults, in a detector that float32 does not hold to the limit -----------------------------------------------


def lose_digits(network):
    """Numbers of some thousands between the layers of the box head, taken off again: float32 keeps few digits of the rest."""
    head, by = network.roi_heads.box_head, 2.0**10
    head.fc6.bias += by
    head.fc7.bias -= (head.fc7.weight.double().sum(dim=1) * by).float()


@pytest.fixture(scope="module")
def coarse(tmp_path_factory, blob_pack):
    """Its exported files, and the check of them."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("coarse")
    run = made_run(
        folder / "run", blob_pack, size=96, classes=("a", "b"), change=lose_digits, seed=1
    )
    subject = open_subject(run)
    (folder / "out").mkdir()
    exported = to_onnx.write(subject, folder / "out")
    return folder / "out", exported.check, sample(subject, (), 6).pixels


def test_a_coarse_detector_leaves_with_both_figures(coarse):
    _, check, pixels = coarse
    found = check(pixels)
    print(found.told())
    assert found.rounding is not None, "this detector is within the limit: it tests nothing"
    found.check()


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        pytest.param("model.json", '"mean": [0.485', '"mean": [0.490', id="mean"),
        pytest.param("onnx_model.py", "labels[keep], scores", "1 - labels[keep], scores", id="classes"),
        pytest.param("onnx_model.py", "* np.float32(stride),", "* np.float32(stride) + np.float32(0.1),", id="anchors"),
        pytest.param("onnx_model.py", "0.5 * side)", "0.501 * side)", id="centres"),
        pytest.param("onnx_model.py", "[10, 10, 5, 5]", "[10, 10, 5.01, 5]", id="coder"),
    ],
)  # fmt: skip
def test_a_planted_fault_does_not_leave(coarse, file, right, wrong):
    out, check, pixels = coarse
    path = out / file
    text = path.read_text()
    if file == "model.json":  # however it is laid out
        text = json.dumps(json.loads(text))
    assert right in text
    kept = path.read_text()
    path.write_text(text.replace(right, wrong))
    try:
        found = check(pixels)
        print(found.told())
        with pytest.raises(TwinrayError, match="do not give what the run gives"):
            found.check()
    finally:
        path.write_text(kept)


def test_float64_is_what_finer_and_finer_rounding_tends_to(blob_pack, tmp_path):
    from twinray.exporting.exact import exact_boxes, exact_numbers
    from twinray.exporting.subject import boxes_of

    run = made_run(tmp_path / "run", blob_pack, detector="fcos", size=96)
    subject = open_subject(run)
    pixels = sample(subject, (), 3).pixels
    with torch.no_grad():
        ours = [
            boxes_of(subject.network.detect(subject.network_input(one[None]))[0]) for one in pixels
        ]
    found = of_boxes(
        exact_boxes(subject, pixels), ours, limits=Limits(96, 100, 0.001), loader="x", limit=LIMIT
    )
    assert found.holds and 0 < found.largest_share < 1e-5  # float64, and the same network
    run = made_run(tmp_path / "classifier", blob_pack, kind="classifier")
    subject = open_subject(run)
    exact = exact_numbers(subject, pixels)
    assert exact.dtype == np.float64
