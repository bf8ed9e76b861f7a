"""Pictures of boxes: names that keep apart, true boxes that are certain, files decoded elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.inference import model as inference
from twinray.jobs.called_as import CalledAs
from twinray.jobs.explain import run as job
from twinray.jobs.explain.config import ExplainConfig
from twinray.jobs.explain.rows import chosen_rows
from twinray.report.pictures import panels
from twinray.report.pictures.single import picture_name


def copies(blobs: Path, *targets: Path) -> tuple[str, ...]:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((blobs.parent / "images" / "im000.png").read_bytes())
    return tuple(map(str, targets))


def test_names_keep_apart_and_keep_their_letters():
    assert (
        picture_name(7, "肺.png", "box1", "Öffnung / мета") == "000007-肺.png-box1-Öffnung_мета.png"
    )
    assert picture_name(1, "../../x", "") == "000001-x.png"
    long = picture_name(1, "界" * 200, "c" * 300)
    assert len(long.encode()) < 150
    long.encode().decode()


def test_images_of_one_name_keep_their_own_pictures(detect_run, blobs, tmp_path, capsys):
    files = copies(blobs, tmp_path / "a" / "肺.png", tmp_path / "b" / "肺.png")
    (tmp_path / "bad.png").write_text("this is text")
    pictures = job.run(
        ExplainConfig(
            detect_run,
            (*files, str(tmp_path / "bad.png")),
            tmp_path / "x",
            boxes=1,
            least_score=0.0,
        )
    )
    assert [path.name for path in pictures] == [
        "000001-肺.png-box1-blob.png",
        "000002-肺.png-box1-blob.png",
    ]
    assert all(path.is_file() for path in pictures)
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert [record["image"] for record in records] == list(files)
    assert "set aside: " in capsys.readouterr().out


def test_only_unreadable_files_are_an_error(detect_run, tmp_path):
    (tmp_path / "bad.png").write_text("this is text")
    with pytest.raises(InputError, match="none of the 1 image files"):
        job.run(ExplainConfig(detect_run, (str(tmp_path / "bad.png"),), tmp_path / "x"))


def test_true_boxes_that_may_be_another_images_are_refused(detect_run, blobs, tmp_path):
    files = copies(blobs, tmp_path / "a" / "im000.png", tmp_path / "b" / "im000.png")
    with pytest.raises(InputError, match="both named im000"):
        job.run(ExplainConfig(detect_run, files, tmp_path / "x", truth=blobs))
    raw = json.loads(blobs.read_text())
    raw["images"][0]["file_name"], raw["images"][1]["file_name"] = "a/im000.png", "b/im000.png"
    twice = tmp_path / "twice.json"
    twice.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="has 2 images named im000"):
        job.run(ExplainConfig(detect_run, files[:1], tmp_path / "x", truth=twice))
    assert not (tmp_path / "x").exists()


def test_true_boxes_are_found_by_file_name(detect_run, blobs, tmp_path):
    from twinray.inference.model import load_model

    (file,) = copies(blobs, tmp_path / "a" / "im000.png")
    other = Path(*copies(blobs, tmp_path / "a" / "other.png"))
    found = job._true_boxes(
        blobs, [load_model(detect_run)], [Path(file), other], CalledAs(None, ())
    )
    assert list(found) == [Path(file)]
    assert len(found[Path(file)].boxes or ()) == 1


def test_rows_are_looked_at_only_until_there_are_enough(blob_pack, monkeypatch):
    pack, looked = open_pack(blob_pack), []
    boxes = Pack.boxes
    monkeypatch.setattr(Pack, "boxes", lambda self, row: (looked.append(row), boxes(self, row))[1])
    rows = chosen_rows(pack, (), "train", 2)
    assert len(rows) == 2
    assert looked[-1] == rows[-1]
    assert len(looked) < len(pack.where("train"))


def test_files_and_a_pack_do_not_mix(detect_run, blob_pack, blobs, tmp_path):
    with pytest.raises(InputError, match="--truth"):
        job.run(ExplainConfig(detect_run, out=tmp_path / "x", data=blob_pack, truth=blobs))
    with pytest.raises(InputError, match="got neither"):
        job.run(ExplainConfig(detect_run, out=tmp_path / "x"))


def test_a_stop_leaves_what_the_pictures_show(detect_run, blob_pack, tmp_path, interrupt):
    interrupt(job, "write_pictures", 2)
    with pytest.raises(KeyboardInterrupt):
        job.run(
            ExplainConfig(detect_run, data=blob_pack, out=tmp_path / "x", least_score=0.0, boxes=1)
        )
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert [r["picture"] for r in records] == [p.name for p in (tmp_path / "x").glob("*.png")]
    assert len(records) == 1


def test_empty_heat_maps_are_told(detect_run, blob_pack, tmp_path, monkeypatch, cli):
    """A map with nothing in it is no blank picture: it says that by its method nothing speaks for the box."""
    drawn = []
    real = inference.heat_maps

    def emptied(*arguments, **options):
        maps = real(*arguments, **options)
        return [dataclasses.replace(maps[0], map=np.zeros_like(maps[0].map)), *maps[1:]]

    monkeypatch.setattr(inference, "heat_maps", emptied)
    titles = panels.draw_panel
    monkeypatch.setattr(
        panels,
        "draw_panel",
        lambda axes, panel, *rest: (drawn.append(panel.title), titles(axes, panel, *rest)),
    )
    options = ("--data", blob_pack, "--least-score", 0, "--boxes", 2, "--count", 1)
    status, told, err = cli("explain", detect_run, *options, "--out", tmp_path / "x")
    assert status == 0, err
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert [r["empty"] for r in records] == [True, False]
    assert "note: 1 of 2 heat maps are empty" in told
    assert sum("nothing speaks for this box" in title for title in drawn) == 1
    copy = tmp_path / "other"
    shutil.copytree(detect_run, copy)
    status, told, err = cli(
        "explain", detect_run, "--versus", copy, *options, "--out", tmp_path / "sheets"
    )
    assert status == 0, err
    records = json.loads((tmp_path / "sheets" / "explanations.json").read_text())
    assert [r["empty"] for r in records] == [True, False] * 2
    assert "2 of 4 heat maps are empty" in told
