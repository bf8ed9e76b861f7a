"""``twinray faithfulness RUN --data PACK`` on generated images."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.evaluation.matching import flatten, match
from twinray.inference.model import load_model
from twinray.jobs.explain import faithfulness
from twinray.jobs.explain import measure as job
from twinray.jobs.explain.config import FaithfulnessConfig
from twinray.jobs.explain.faithfulness import true_positives
from twinray.records import Boxes

LENIENT = ("--split", "train", "--least-score", 0, "--iou", 0.1, "--bootstrap", 50)


def random_boxes(rng: np.random.Generator, n: int, scored: bool) -> Boxes:
    corner = rng.random((n, 2)) * 40
    xyxy = np.concatenate([corner, corner + 5 + rng.random((n, 2)) * 30], axis=1)
    scores = np.sort(rng.random(n))[::-1].copy() if scored else None
    return Boxes(xyxy, rng.integers(0, 3, n), scores)


def test_true_positives_are_the_hits_that_evaluation_counts():
    rng = np.random.default_rng(0)
    for _ in range(30):
        found, truth = random_boxes(rng, 12, True), random_boxes(rng, 6, False)
        hits = true_positives(found, truth, 0.3)
        matched = match(flatten({"a": truth}, {"a": found}, ("x", "y", "z")), (0.3,))
        assert len(hits) == int(matched.hit.sum())
        assert found.scores is not None
        np.testing.assert_allclose(
            sorted(found.scores[[i for i, _ in hits]]), sorted(matched.score[matched.hit[0]])
        )
        assert len({t for _, t in hits}) == len(hits)
        assert all(found.labels[i] == truth.labels[t] for i, t in hits)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, detect_run, blob_pack) -> Path:
    out = tmp_path_factory.mktemp("faithful") / "x"
    job.run(
        FaithfulnessConfig(
            detect_run, out=out, data=blob_pack, split="train", least_score=0.0, iou=0.1, bootstrap=50, count=3,
            curve_points=3, methods=("ablation", "odam", "eigen-cam"),
        )
    )  # fmt: skip
    return out


def test_figures_of_every_map_and_floor(measured, blob_pack):
    assert sorted(p.name for p in measured.iterdir()) == [
        "faithfulness.csv", "faithfulness.json", "faithfulness.png", "made_by.json",
        "true_positives.csv",
    ]  # fmt: skip
    record = json.loads((measured / "faithfulness.json").read_text())
    maps = record["maps"]
    assert list(maps) == ["ablation", "odam", "eigen-cam", "box", "gaussian", "proposal"]
    assert set(record["definitions"]) == set(maps)
    assert record["n_images"] == 3 and 0 < record["n_true_positives"] <= record["n_true_boxes"]
    for name, own in maps.items():
        for measure in ("pointing", "energy", "empty", "deletion", "insertion"):
            assert 0 <= own[measure]["value"] <= 1
        assert list(own["per_class"]) == ["blob"]
        assert ("over_floor" in own) == (name not in ("box", "gaussian", "proposal"))
    assert maps["gaussian"]["energy"]["value"] > 0
    rows = list(csv.DictReader((measured / "true_positives.csv").open()))
    assert len(rows) == record["n_true_positives"] * 6
    own = [float(r["energy"]) for r in rows if r["map"] == "box"]
    assert np.mean(own) == pytest.approx(maps["box"]["energy"]["value"])
    assert {r["class"] for r in rows} == {"blob"}
    known = {str(p) for p in open_pack(blob_pack).patients}
    assert (
        not {r["patient"] for r in rows} & known
    )  # whose image is whose, without the patient's number
    assert maps["box"]["empty"]["value"] == 0


def test_the_box_floor_measures_the_predicted_box_against_the_true_one(
    measured, detect_run, blob_pack
):
    """Energy of the filled predicted box is the share of its area that the true box covers."""
    pack, rows = (
        open_pack(blob_pack),
        list(csv.DictReader((measured / "true_positives.csv").open())),
    )
    truth = {str(pack.ids[i]): pack.boxes(i) for i in range(len(pack))}
    for row in (r for r in rows if r["map"] == "box"):
        x1, y1, x2, y2 = (float(row[c]) for c in ("x1", "y1", "x2", "y2"))
        best = 0.0
        for a1, b1, a2, b2 in truth[row["image"]].xyxy:
            shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            best = max(best, shared / ((x2 - x1) * (y2 - y1)))
        assert float(row["energy"]) == pytest.approx(best, abs=0.01)


def test_from_the_command_line_without_curves(detect_run, blob_pack, tmp_path, cli):
    status, out, err = cli(
        "faithfulness", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--curve-points", 0,
        "--methods", "grad-cam", "grad-cam++", *LENIENT,
    )  # fmt: skip
    assert status == 0, err
    assert "floor: box, filled" in out.replace("\n", " ") or "floor" in out
    record = json.loads((tmp_path / "x" / "faithfulness.json").read_text())
    assert list(record["maps"]) == ["grad-cam", "grad-cam++", "box", "gaussian", "proposal"]
    assert "deletion" not in record["maps"]["box"]
    annotated = open_pack(blob_pack)
    with_boxes = [i for i in annotated.where("train") if len(annotated.boxes(int(i)) or ())]
    assert record["n_images"] == len(with_boxes)  # all, not only the first few
    again = tmp_path / "y"
    status, _, err = cli(  # the flag that the verb was before; goes with the next version
        "explain", detect_run, "--data", blob_pack, "--out", again, "--faithfulness", "--curve-points", 0,
        "--methods", "grad-cam", "grad-cam++", *LENIENT,
    )  # fmt: skip
    notes = [line for line in err.splitlines() if line.startswith("note:")]
    assert status == 0 and len(notes) == 1 and "twinray faithfulness RUN" in notes[0]
    assert (again / "true_positives.csv").read_bytes() == (
        tmp_path / "x" / "true_positives.csv"
    ).read_bytes()
    assert (again / "faithfulness.png").read_bytes() == (
        tmp_path / "x" / "faithfulness.png"
    ).read_bytes()


def test_the_former_flag_is_not_shown_and_its_options_do_nothing_without_it(
    detect_run, blob_pack, tmp_path, cli
):
    shown = cli("explain", "--help")[1]
    assert "--least-score" in shown
    assert not any(
        f"--{name}" in shown
        for name in ("faithfulness", "methods", "iou", "curve-points", "bootstrap")
    )
    status, _, err = cli(
        "explain", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--iou", 0.3
    )
    assert status == 2 and "--iou goes with --faithfulness" in err
    status, _, err = cli("faithfulness", detect_run)
    assert status == 2 and "expected --data" in err


def test_nothing_found_is_said(detect_run, blob_pack, tmp_path):
    config = FaithfulnessConfig(detect_run, out=tmp_path / "x", data=blob_pack, least_score=1.0)
    for _ in range(2):  # and nothing is left behind that would refuse a second try
        with pytest.raises(InputError, match="lower --least-score"):
            job.run(config)


def test_a_stop_leaves_what_was_measured(detect_run, blob_pack, tmp_path, interrupt):
    whole = FaithfulnessConfig(
        detect_run, out=tmp_path / "whole", data=blob_pack, split="train", least_score=0.0, iou=0.1, bootstrap=0, count=3,
        curve_points=0, methods=("eigen-cam",),
    )  # fmt: skip
    job.run(whole)
    interrupt(faithfulness, "prepare_row", 3)
    with pytest.raises(KeyboardInterrupt):
        job.run(dataclasses.replace(whole, out=tmp_path / "cut"))
    lines = (tmp_path / "whole" / "true_positives.csv").read_text().splitlines()
    kept = (tmp_path / "cut" / "true_positives.csv").read_text().splitlines()
    assert 1 < len(kept) < len(lines)
    assert kept == lines[: len(kept)]


def test_curves_start_at_the_score_of_the_box(detect_run, blob_pack):
    """The untouched image gives each box the score that it was found with."""
    import torch

    from twinray.detection.pyramid import POOLED_LEVELS
    from twinray.explanation.faithfulness import removal_curves, versions_scorer
    from twinray.inference.heat_maps import box_scorer, fixed_boxes
    from twinray.inference.model import prepare_row

    model, pack = load_model(detect_run), open_pack(blob_pack)
    batch = model.batch([prepare_row(model, pack, 0)])
    with torch.no_grad():
        (found,), _ = model.detector.detect_with_features(batch)
        boxes = fixed_boxes(found, [0, 1])

        def pyramid(images: torch.Tensor) -> list[torch.Tensor]:
            levels = model.detector.backbone(images).pyramid
            return [levels[name] for name in POOLED_LEVELS]

        score = versions_scorer(pyramid, box_scorer(model.detector))
        heats = [np.random.default_rng(i).random((model.size, model.size)) for i in range(2)]
        curves = removal_curves(batch[0], heats, boxes, score, points=3)
    np.testing.assert_allclose(curves.deletion[:, 0], found.scores[:2], rtol=1e-4)
    np.testing.assert_allclose(curves.insertion[:, -1], found.scores[:2], rtol=1e-4)
