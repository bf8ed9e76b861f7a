"""``pretrain --preview``: the sheet, what the views cost, and nothing trained."""

import json

import numpy as np
import pytest
from PIL import Image

from support import twinray

SMALL = ("--arch", "resnet18", "--size", 32, "--batch-size", 4, "--device", "cpu")


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """A pack of two classes that differ in the width of their stripes, as a crop's magnification does."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for name, period in (("coarse", 16), ("fine", 10)):
        (root / name).mkdir()
        for i in range(40):
            x = np.arange(64) + rng.integers(0, 16)
            stripes = 120 + 60 * np.sign(np.sin(2 * np.pi * x / period))[None, :]
            pixels = (stripes + rng.normal(0, 15, (64, 64))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}{i:02d}.png")
    out = root / "pack"
    twinray(
        "pack", root, "--out", out, "--size", 64, "--val", 0, "--test", 0, "--workers", 1,
        "--patient-regex", r"((?:coarse|fine)\d+)", check=True,
    )  # fmt: skip
    return out


def test_views_that_change_what_labels_depend_on_are_seen(textured, tmp_path):
    run = twinray(
        "pretrain", "--data", textured, *SMALL, "--crop-min", 0.08, "--preview", tmp_path / "look",
        check=True,
    )  # fmt: skip
    found = json.loads((tmp_path / "look" / "views.json").read_text())["costs"]
    auc = {cost["view"]: cost["mean_auc"] for cost in found}
    assert {cost["weights"] for cost in found} == {"random"}
    assert auc["whole image"] > 0.95 and auc["flip alone"] > 0.95
    assert auc["crop alone (from 8%)"] < auc["whole image"] - 0.05
    told = next(cost for cost in found if cost["view"] == "first view")["classes"]["fine"]
    assert (told["n_positive"], told["n_negative"]) == (40, 40) and len(told["ci95"]) == 2
    assert (
        "What the views leave of the labels" in run.stdout and "not a medical device" in run.stdout
    )
    width, height = Image.open(tmp_path / "look" / "views.png").size
    assert width > 800 and height > 800
    assert not (tmp_path / "look" / "config.yaml").exists()


def test_a_pack_without_labels_has_a_sheet_alone(blob_pack, tmp_path):
    run = twinray("pretrain", "--data", blob_pack, *SMALL, "--preview", tmp_path / "a", check=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["views.png"]
    assert "what views cost is not measured" in run.stdout


def test_neither_folder_is_one_clear_line(textured, tmp_path):
    run = twinray("pretrain", "--data", textured, *SMALL)
    assert run.returncode == 2 and "expected --out" in run.stderr and "Traceback" not in run.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("kept")
    run = twinray("pretrain", "--data", textured, *SMALL, "--preview", tmp_path / "full")
    assert run.returncode == 2 and "not empty" in run.stderr
