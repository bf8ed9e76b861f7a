"""Real images under other names and in other files, through the real command line: what a pre-training saw is not tested on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import twinray
from twinray.backbones.build import build_backbone
from twinray.data.pack import open_pack
from twinray.runs.folder import RunFolder
from twinray.runs.seen import Seen, write_seen
from twinray.training.record import save_weights

pytestmark = pytest.mark.long

PROBE = ("--bootstrap", 0, "--arch", "resnet18", "--size", 32)
DETECT = (
    "--arch", "resnet18", "--size", 64, "--epochs", 1, "--batch-size", 4, "--fpn-channels", 32, "--box-head-width", 64,
    "--rois-per-image", 32, "--anchor-scale", 4, "--precision", "float32", "--bootstrap", 0,
)  # fmt: skip


def packed(out: Path, *words: object) -> Path:
    twinray("pack", *words, "--out", out, "--workers", 1, check=True)
    return out


def pretrained(folder: Path, pack: Path) -> Path:
    """Random weights in a run's folder, with the record of having seen the whole pack."""
    folder.mkdir(parents=True)
    described = {"kind": "backbone", "arch": "resnet18", "size": 32}
    save_weights(
        RunFolder(folder), "backbone", build_backbone("resnet18", 1).state_dict(), described
    )
    opened = open_pack(pack)
    write_seen(folder, Seen().plus(folder, "pretrain", [(opened, np.arange(len(opened)))]))
    return folder


def refused(verb: str, pack: Path, run: Path, out: Path, *words: object) -> str:
    done = twinray(verb, "--data", pack, "--init", run, "--out", out, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert not out.exists()
    (line,) = [row for row in done.stderr.splitlines() if row.startswith("twinray: ")]
    assert "--allow-seen" in line
    return line


@pytest.fixture(scope="module")
def nih(real_data, tmp_path_factory) -> Path:
    """A pre-training that saw all of NIH's images."""
    folder = tmp_path_factory.mktemp("nih")
    pack = packed(folder / "pack", real_data / "nih-cxr14", "--format", "nih", "--size", 96)
    return pretrained(folder / "pre", pack)


def test_rsna_by_both_readers_after_nih(real_data, nih, tmp_path):
    rsna = real_data / "rsna-pneumonia"
    own = packed(tmp_path / "rsna", rsna, "--format", "rsna", "--size", 64)
    coco = packed(tmp_path / "coco", rsna / "annotations.json", "--format", "coco", "--size", 64)
    for name, pack in (("rsna", own), ("coco", coco)):
        n = len(open_pack(pack).where("test"))
        told = refused("detect", pack, nih, tmp_path / f"{name}-d", *DETECT)
        assert f"{n} of {n} images of split test" in told
        assert f"same patient {n}, near copies {n}" in told
        assert f"{n} of {n} images" in refused(
            "classify", pack, nih, tmp_path / f"{name}-c", *PROBE
        )
    words = (
        "classify",
        "--data",
        own,
        "--init",
        nih,
        "--out",
        tmp_path / "forced",
        "--allow-seen",
        *PROBE,
    )
    twinray(*words, check=True)
    mark = json.loads((tmp_path / "forced" / "metrics.json").read_text())["test"][
        "seen_in_pretraining"
    ]
    n = len(open_pack(own).where("test"))
    assert (mark["value"], mark["n"]) == (n, n)


def test_rsna_without_its_mapping_after_nih(real_data, nih, tmp_path):
    (tmp_path / "copy").mkdir()
    for name in ("stage_2_train_labels.csv", "images"):
        (tmp_path / "copy" / name).symlink_to(real_data / "rsna-pneumonia" / name)
    pack = packed(tmp_path / "pack", tmp_path / "copy", "--format", "rsna", "--size", 64)
    told = refused("classify", pack, nih, tmp_path / "c", *PROBE)
    for word in ("Shih et al.", "patientId_to_nih.csv", "of people of one origin"):
        assert word in told


@pytest.fixture(scope="module")
def kermany(real_data, tmp_path_factory) -> tuple[Path, list[Path]]:
    """A pre-training that saw 300 of Kermany's images, and these."""
    folder = tmp_path_factory.mktemp("kermany")
    files = sorted((real_data / "kermany-cxr" / "train").rglob("*.jp*g"))[::17][:300]
    for file in files:
        link = folder / "images" / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    words = ("--patient-regex", r"(person\d+)_|(IM-\d+)-", "--size", 96)
    pack = packed(folder / "pack", folder / "images", *words)
    return pretrained(folder / "pre", pack), files


def test_pneumoniamnist_after_kermany(real_data, kermany, tmp_path):
    archive = real_data / "medmnist" / "pneumoniamnist.npz"
    pack = packed(tmp_path / "pack", archive, "--format", "medmnist", "--size", 32)
    told = refused("classify", pack, kermany[0], tmp_path / "c", *PROBE)
    for word in ("624 of 624 images of split test", "pneumoniamnist", "kermany-cxr", "Yang et al."):
        assert word in told


def test_resized_jpeg_copies_of_training_images(real_data, kermany, tmp_path):
    """Twenty copies among sixty other images, half the size, in JPEG of quality 60, under names that tell nothing."""
    run, files = kermany
    others = sorted((real_data / "kermany-cxr" / "train").rglob("*.jp*g"))[5::17][:60]
    for i, file in enumerate([*files[::15], *others]):
        place = tmp_path / "clinic" / ("a" if i % 2 else "b") / f"scan-{i:03d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").resize((112, 112)).save(place, quality=60)
    pack = packed(tmp_path / "pack", tmp_path / "clinic", "--size", 64, "--val", 0, "--test", 0.5)
    tested = set(open_pack(pack).ids[open_pack(pack).where("test")])
    copies = sum(int(name.split("-")[1][:3]) < 20 for name in tested)
    assert copies >= 5
    told = refused("classify", pack, run, tmp_path / "c", *PROBE)
    assert f"{copies} of {len(tested)} images of split test" in told
    assert f"near copies {copies}" in told
