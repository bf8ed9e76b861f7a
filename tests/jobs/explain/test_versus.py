"""Contact sheets of several runs, every method from the command line, and what goes wrong on the way."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.errors import InputError, TwinrayError
from twinray.inference.methods import METHODS
from twinray.jobs.explain import contact_sheets
from twinray.jobs.explain import run as explain
from twinray.jobs.explain.config import ExplainConfig
from twinray.runs.names import run_names


@pytest.fixture(scope="module")
def second_run(tmp_path_factory, detect_run) -> Path:
    return Path(shutil.copytree(detect_run, tmp_path_factory.mktemp("more") / "another"))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "ablation"])
def test_every_method_draws(detect_run, blob_pack, tmp_path, cli, method):
    status, out, err = cli(
        "explain", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--method", method, "--count", 1,
        "--boxes", 1, "--least-score", 0,
    )  # fmt: skip
    assert status == 0, err
    assert "1 picture of 1 image in" in out
    (record,) = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert (tmp_path / "x" / record["picture"]).is_file()
    known = {
        "ablation-last-stage": "last stage",
        "ablation-rerun": "-1000",
        "grad-cam++": "Grad-CAM++",
        "odam": "ODAM",
    }
    assert known.get(method, "") in record["heat_map"]


def test_an_unknown_method_is_refused(detect_run, blob_pack, tmp_path, cli):
    status, _, err = cli(
        "explain", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--method", "guess"
    )
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "ablation-last-stage" in err


def test_a_pack_on_one_sheet(detect_run, second_run, blob_pack, tmp_path, cli):
    status, out, err = cli(
        "explain", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--count", 3, "--least-score", 0,
        "--versus", second_run,
    )  # fmt: skip
    assert status == 0, err
    assert "1 picture of 3 images in" in out
    assert [p.name for p in sorted((tmp_path / "x").iterdir())] == [
        "contact-sheet-01.png",
        "explanations.json",
        "made_by.json",
    ]
    image = Image.open(tmp_path / "x" / "contact-sheet-01.png")
    assert image.width > 1000 and image.height > 1000
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    by_run = [
        [(r["image"], r["box_xyxy"]) for r in records if r["run"] == name]
        for name in ("detector", "another")
    ]
    assert by_run[0] == by_run[1] and len(by_run[0]) == 9


def test_many_files_take_several_sheets_and_bad_ones_are_counted(
    detect_run, second_run, blobs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(contact_sheets, "ROWS", 2)
    files = [str(blobs.parent / "images" / f"im{i:03d}.png") for i in range(3)]
    (tmp_path / "bad.png").write_text("this is text")
    config = ExplainConfig(
        detect_run,
        (*files, str(tmp_path / "bad.png")),
        tmp_path / "x",
        truth=blobs,
        versus=(second_run,),
        least_score=1.0,
    )
    pictures = explain.run(config)
    assert [p.name for p in pictures] == ["contact-sheet-01.png", "contact-sheet-02.png"]
    said = capsys.readouterr().out
    assert "2 pictures of 3 images, 1 set aside in" in said
    assert "no box scored 1.0 or more on 3 of them" in said
    assert f"set aside: {tmp_path / 'bad.png'}" in said
    assert json.loads((tmp_path / "x" / "explanations.json").read_text()) == []


def test_the_shown_map_is_that_of_the_best_box_first(detect_run, blob_pack):
    (explained,) = explain.explain_pack_images(
        detect_run, blob_pack, [first_id(blob_pack)], most=3, least_score=0.0
    )
    merged = contact_sheets.merged_map(explained)
    assert merged is not None
    assert (merged >= explained.heat_maps[0] - 1e-6).all()
    scores = explained.predictions.scores
    assert scores is not None
    weak = explained.heat_maps[2] * (scores[2] / scores[0])
    np.testing.assert_allclose(
        merged,
        np.max(
            [explained.heat_maps[0], explained.heat_maps[1] * scores[1] / scores[0], weak], axis=0
        ),
        atol=1e-5,
    )


def first_id(pack: Path) -> str:
    from twinray.data.pack import open_pack

    opened = open_pack(pack)
    return str(opened.ids[explain.chosen_rows(opened, (), "train", 1)[0]])


def test_no_box_is_said(detect_run, blob_pack, tmp_path, cli):
    status, out, _ = cli(
        "explain",
        detect_run,
        "--data",
        blob_pack,
        "--out",
        tmp_path / "x",
        "--least-score",
        1,
        "--count",
        2,
    )
    assert status == 0
    assert "0 pictures of 2 images" in out
    assert "no box scored 1.0 or more on 2 of them" in out


def test_a_full_disk_is_one_line_and_keeps_what_was_drawn(
    detect_run, blob_pack, tmp_path, cli, monkeypatch
):
    write, drawn = explain.write_bytes, []

    def full(path: Path, data: bytes, what: str) -> None:
        if len(drawn) == 1:
            raise TwinrayError(
                f"could not write {what} {path}: No space left on device"
            ) from OSError(errno.ENOSPC, "")
        drawn.append(path)
        write(path, data, what)

    monkeypatch.setattr(explain, "write_bytes", full)
    status, _, err = cli(
        "explain", detect_run, "--data", blob_pack, "--out", tmp_path / "x", "--least-score", 0
    )
    assert status == 1
    lines = [line for line in err.splitlines() if line.startswith("twinray:")]
    assert len(lines) == 1 and "No space left" in lines[0]
    assert drawn[0].is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versus": ("detect_run",)}, "every run once"),
        ({"versus": ("second_run",), "faithfulness": True}, "--versus draws"),
        ({"data": None, "images": ("a.png",), "faithfulness": True}, "needs true boxes"),
        ({"curve_points": 1, "faithfulness": True}, "--curve-points"),
        ({"iou": 0.0}, "--iou"),
        ({"iou": 0.3}, "--iou goes with --faithfulness"),
        ({"methods": ("odam", "odam")}, "different methods"),
        ({"count": 0}, "--count"),
    ],
)
def test_options_that_do_not_fit_are_refused_first(
    request, detect_run, blob_pack, tmp_path, options, message
):
    given = {"data": blob_pack, "out": tmp_path / "x", **options}
    given["versus"] = tuple(request.getfixturevalue(name) for name in options.get("versus", ()))
    with pytest.raises(InputError, match=message):
        explain.run(ExplainConfig(detect_run, **given))
    assert not (tmp_path / "x").exists()


def test_runs_of_one_name_keep_their_paths(tmp_path):
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    same = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert run_names(same) == [str(path) for path in same]


def test_one_stage_detectors_are_explained_by_rerun_alone():
    import torch

    from twinray.backbones.build import build_backbone
    from twinray.detection.model import DetectorOptions, build_detector
    from twinray.inference.heat_maps import heat_maps

    options = DetectorOptions(
        detector="fcos", size=128, fpn_channels=64, anchor_scale=1, proposals_before_nms=(20, 20)
    )
    detector = build_detector(build_backbone("resnet18"), options, ("a",), seed=0).eval()
    (found,), features = detector.detect_with_features(torch.randn(1, 3, 128, 128))
    assert len(found) > 0
    (heat,) = heat_maps(detector, features, found, [0], (128, 128), "ablation-rerun")
    assert heat.map.shape == (128, 128)
    with pytest.raises(InputError, match="this run is a fcos"):
        heat_maps(detector, features, found, [0], (128, 128), "ablation")
