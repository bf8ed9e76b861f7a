"""``twinray look`` on the command line, and what ``pack --exclude`` makes of its list."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_support import write_radiograph
from support import twinray
from twinray.data.pack import open_pack
from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.data.readers.exclusion import read_exclusion
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.errors import InputError


def archive(root: Path, n: int = 60) -> Path:
    collection = phantom_collection(PhantomConfig(images=n, size=128, seed=3))
    for k, sample in enumerate(collection.samples):
        image = collection.load(sample).array
        image = 255 - image if k == 7 else image
        (root / f"p{k // 2:02d}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"p{k // 2:02d}" / f"{k:02d}.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


def test_look_and_pack_what_it_leaves(tmp_path: Path) -> None:
    root = archive(tmp_path / "in")
    for k, view in enumerate(("PA", "LL")):
        pixels = np.random.default_rng(k).integers(0, 255, (64, 64))
        uid = {"SOPInstanceUID": f"1.2.3.{k}", "StudyDate": "20190412", "Manufacturer": "Maker"}
        write_radiograph(root / f"d{k}.dcm", pixels, PatientID=f"d{k}", ViewPosition=view, **uid)
    out = tmp_path / "look"
    done = twinray(
        "look", root, "--out", out, "--workers", 1, "--patient-regex", "(p\\d+)/", check=True
    )
    assert "pack ... --exclude exclude.txt" in " ".join(done.stdout.split())
    with (out / "look.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 62
    assert "negative" in rows["p03/07.png"]["checks"]
    assert rows["d1.dcm"]["checks"].startswith("lateral")
    assert (rows["d0.dcm"]["device"], rows["d0.dcm"]["year"]) == ("Maker", "2019")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["set_aside"] == 1 and summary["flagged"]["lateral"] == 1
    with (out / "by_device_and_year.csv").open(newline="") as file:
        groups = {(row["device"], row["year"]): row for row in csv.DictReader(file)}
    assert groups["Maker", "2019"]["images"] == "2" and groups["Maker", "2019"]["lateral"] == "1"
    assert Image.open(out / "sheet_negative.png").size[0] > 200
    excluded = read_exclusion(out / "exclude.txt")
    assert {"p03/07.png", "d1.dcm"} <= set(excluded)
    twinray(
        "pack", root, "--layout", "flat", "--exclude", out / "exclude.txt", "--out", tmp_path / "p", "--size", 32, "--workers", 1,
        check=True,
    )  # fmt: skip
    pack = open_pack(tmp_path / "p")
    assert len(pack) == 62 - len(excluded)
    assert not set(excluded) & set(pack.ids)
    assert f"{len(excluded)} images are left out by --exclude" in pack.info.notes
    again = twinray("look", root, "--out", out)
    assert again.returncode == 2 and "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("lines", "left", "message"),
    [
        ("p00/00.png\twhy\n# a remark\n", 9, ""),
        ("in/p00/00.png\n", 9, ""),
        ("00.png\n", 9, ""),
        ("p00/00.png\nnowhere.png\n", 9, ""),
        ("nowhere.png\n", 0, "none of the 1 names"),
    ],
)
def test_names_of_the_list(tmp_path: Path, lines: str, left: int, message: str) -> None:
    for k in range(10):
        path = tmp_path / "in" / f"p{k // 2:02d}" / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), k, dtype=np.uint8)).save(path)
    (tmp_path / "list.txt").write_text(lines)
    options = SourceOptions(layout="flat")
    if message:
        with pytest.raises(InputError, match=message):
            read_sources("folder", [tmp_path / "in"], options, exclude=tmp_path / "list.txt")
        return
    (found,) = read_sources("folder", [tmp_path / "in"], options, exclude=tmp_path / "list.txt")
    assert len(found.samples) == left
    assert "p00/00.png" not in {sample.id for sample in found.samples}
    unknown = [note for note in found.notes if "are no images of the source" in note]
    assert len(unknown) == ("nowhere" in lines)


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "in" / folder / "x.png")
    (tmp_path / "list.txt").write_text("x.png\n")
    with pytest.raises(InputError, match="fits 2 images"):
        read_sources(
            "folder", [tmp_path / "in"], SourceOptions(layout="flat"), exclude=tmp_path / "list.txt"
        )
