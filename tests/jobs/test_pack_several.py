"""Sources of several formats in one call of the real command line, and people that they share."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.checks import as_words
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.jobs.pack import PackConfig
from twinray.verbs import VERBS

OPTIONS = ("--size", 16, "--workers", 1)


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def nih(tmp_path_factory) -> Path:
    """NIH's layout: 24 images of 12 patients."""
    root = tmp_path_factory.mktemp("nih")
    with (root / "Data_Entry_2017.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Image Index", "Finding Labels", "Patient ID"])
        for i in range(24):
            name = f"{i // 2 + 1:08d}_{i % 2:03d}.png"
            image(root / "images" / name, i)
            rows.writerow([name, "Mass" if i % 3 else "No Finding", i // 2 + 1])
    return root


def write_rsna(root: Path, mapped: bool) -> Path:
    """RSNA's layout: 16 images, of NIH's patients 1 to 16."""
    labels, mapping = ["patientId,x,y,width,height,Target"], ["patientId,Image Index"]
    for i in range(16):
        name = f"91b2ce38-efaf-4476-b77c-{i:012d}"
        image(root / "stage_2_train_images" / f"{name}.png", 100 + i)
        labels.append(f"{name},100,100,200,300,1" if i % 2 else f"{name},,,,,0")
        mapping.append(f"{name},{i + 1:08d}_000.png")
    (root / "stage_2_train_labels.csv").write_text("\n".join(labels))
    if mapped:
        (root / "patientId_to_nih.csv").write_text("\n".join(mapping))
    return root


@pytest.fixture(scope="module")
def rsna(tmp_path_factory) -> Path:
    return write_rsna(tmp_path_factory.mktemp("rsna"), mapped=True)


def sides(pack) -> dict[str, set[str]]:
    found = defaultdict(set)
    for patient, split in zip(pack.patients, pack.splits, strict=True):
        found[patient].add(split)
    return found


def test_nih_and_rsna_are_split_together(cli, nih, rsna, tmp_path):
    status, out, err = cli(
        "pack", "--source", nih, "--format", "nih", "--source", rsna, "--format", "rsna", "--out", tmp_path / "p", *OPTIONS
    )  # fmt: skip
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    assert pack.info.names == ("nih-cxr14", "rsna-pneumonia")
    assert (len(pack), pack.info.counts["patients"]) == (40, 16)
    assert {len(split) for split in sides(pack).values()} == {1}
    assert "12 patients and 12 images are in both, kept in one split" in " ".join(out.split())
    assert [name for name in pack.info.box_classes if name == "Lung Opacity"]


def test_lists_in_a_file_are_the_same_pack(cli, nih, rsna, tmp_path):
    file = tmp_path / "pack.yaml"
    file.write_text(
        json.dumps(
            {"source": [str(nih), str(rsna)], "format": ["nih", "rsna"], "size": 16, "workers": 1}
        )
    )
    assert cli("pack", "--config", file, "--out", tmp_path / "a")[0] == 0
    words = (
        "pack",
        "--format",
        "nih",
        nih,
        "--format=rsna",
        rsna,
        "--out",
        tmp_path / "b",
        *OPTIONS,
    )
    assert cli(*words)[0] == 0
    for name in ("images.npy", "samples.parquet", "pack.json", "splits.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    given = cli("pack", nih, "--config", file, "--format", "nih", "--out", tmp_path / "c")
    assert given[0] == 0  # what the command line says wins
    assert open_pack(tmp_path / "c").info.names == ("nih-cxr14",)


def test_without_a_mapping_the_pack_warns(cli, nih, tmp_path):
    bare = write_rsna(tmp_path / "rsna", mapped=False)
    status, out, _ = cli(
        "pack", nih, bare, "--format", "nih", "--format", "rsna", "--out", tmp_path / "p", *OPTIONS
    )
    assert status == 0
    text = " ".join(out.split())
    assert "WARNING: nih-cxr14 and rsna-pneumonia hold the same people (Shih et al." in text
    assert "of 16 images no id tells whose they are" in text
    assert "patientId_to_nih.csv" in text


def test_a_stated_data_set_is_kept_and_used(cli, nih, tmp_path):
    for i in range(12):
        image(tmp_path / "clinic" / f"scan{i}.png", 300 + i)
    words = ("pack", nih, tmp_path / "clinic", "--format", "nih", "--format", "folder")
    assert "hold the same people" not in cli(*words, "--out", tmp_path / "a", *OPTIONS)[1]
    stated = ("--data-set", "nih-cxr14", "--data-set", "chestx-det")
    status, out, _ = cli(*words, *stated, "--out", tmp_path / "b", *OPTIONS)
    assert status == 0
    assert "nih-cxr14 and clinic hold the same people (Lian et al." in " ".join(out.split())
    pack = open_pack(tmp_path / "b")
    assert pack.info.extra["data_sets"] == {"nih-cxr14": "nih-cxr14", "clinic": "chestx-det"}
    assert (
        cli(
            "pack", nih, "--format", "nih", "--data-set", "none", "--out", tmp_path / "c", *OPTIONS
        )[0]
        == 0
    )
    assert open_pack(tmp_path / "c").info.extra["data_sets"] == {"nih-cxr14": "none"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--format", "nih", "--format", "rsna", "--format", "coco"), "one --format, or one for each of the 2 sources"),
        (("--format", "nih", "--format", "phantom"), "draws its own images"),
        (("--format", "nih", "--format", "rsna", "--views", "all"), "--views goes with --format chexpert, "),
        (("--format", "nih", "--format", "rsna", "--images", "x"), "--images goes with one source, got 2"),
        (("--format", "nih", "--format", "rsna", "--data-set", "nonesuch"), "--data-set"),
        (("--format", "nih", "--format"), "--format"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(cli, nih, rsna, tmp_path, more, told):
    status, _, err = cli("pack", nih, rsna, "--out", tmp_path / "p", *OPTIONS, *more)
    assert status == 2
    assert told in err
    assert err.count("\n") == 1


def test_options_of_one_format_go_to_its_sources(cli, nih, tmp_path):
    for i in range(12):
        image(tmp_path / "clinic" / f"p{i // 2}_{i}.png", 300 + i)
    words = (
        "--source",
        nih,
        "--format",
        "nih",
        "--source",
        tmp_path / "clinic",
        "--format",
        "folder",
    )
    status, _, err = cli(
        "pack", *words, "--patient-regex", r"(p\d+)_", "--out", tmp_path / "p", *OPTIONS
    )
    assert status == 0, err
    assert {"clinic/p0", "nih-cxr14/1"} <= set(open_pack(tmp_path / "p").patients.tolist())


def test_ids_that_differ_in_form_are_told(cli, tmp_path):
    for i, patient in enumerate(("12", "012", "7", "P7", "8", "9")):
        image(tmp_path / "clinic" / f"{patient}_{i}.png", i)
    words = ("--patient-regex", r"^([A-Z]?\d+)_", "--val", 0, "--test", 0)
    status, out, _ = cli("pack", tmp_path / "clinic", *words, "--out", tmp_path / "p", *OPTIONS)
    assert status == 0
    assert "2 patient numbers are written in several forms, such as 012, 12" in " ".join(
        out.split()
    )


def test_the_options_can_be_given_back_as_words(all_cores):
    config = PackConfig(source=("a", "b"), format=("nih", "rsna"), out=Path("o"))
    words = as_words(config, positional=VERBS["pack"].positional)
    assert words == ["a", "b", "--format", "nih", "--format", "rsna", "--out", "o"]
    assert PackConfig(format="nih").format == ("nih",)
    with pytest.raises(InputError, match="--format"):
        PackConfig(format=("nih", "nonesuch"))
