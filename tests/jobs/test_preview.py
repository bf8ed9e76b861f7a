"""``pretrain --preview``: the sheet, what the views cost, and nothing trained."""

import json

import numpy as np
import pytest
from PIL import Image

from support import twinray
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack
from twinray.jobs.preview import run as preview
from twinray.jobs.train import pretrain
from twinray.pretraining.config import PretrainConfig

SMALL = ("--arch", "resnet18", "--size", 32, "--batch-size", 4, "--device", "cpu")


@pytest.fixture(scope="module")
def sided(tmp_path_factory):
    """A pack of two classes that differ in the side of a bright disc: a flip turns one into the other."""
    root = tmp_path_factory.mktemp("sided")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for name, place in (("left", 16), ("right", 48)):
        (root / "images" / name).mkdir(parents=True)
        for i in range(40):
            x, y = place + rng.integers(-5, 6), 32 + rng.integers(-12, 13)
            disc = 110 * (np.hypot(rows - y, columns - x) < rng.integers(7, 11))
            pixels = (60 + disc + rng.normal(0, 12, (64, 64))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{name}{i:02d}.png")
    pack(
        PackConfig(
            source=(root / "images",), out=root / "pack", size=64, val=0, test=0, workers=1,
            patient_regex=r"((?:left|right)\d+)",
        )
    )  # fmt: skip
    return root / "pack"


def test_views_that_change_what_labels_depend_on_are_seen(sided, tmp_path, capsys):
    config = PretrainConfig(
        data=(sided,),
        preview=tmp_path / "look",
        arch="resnet18",
        size=32,
        batch_size=4,
        device="cpu",
    )
    pretrain(config)
    found = json.loads((tmp_path / "look" / "views.json").read_text())["costs"]
    auc = {cost["view"]: cost["mean_auc"] for cost in found}
    assert {cost["weights"] for cost in found} == {"random"}
    assert auc["whole image"] > 0.9 and auc["jitter alone"] > 0.9
    assert auc["flip alone"] < 0.75 and auc["first view"] < 0.75
    told = next(cost for cost in found if cost["view"] == "first view")["classes"]["right"]
    assert (told["n_positive"], told["n_negative"]) == (40, 40) and len(told["ci95"]) == 2
    printed = capsys.readouterr().out
    assert "What the views leave of the labels" in printed and "not a medical device" in printed
    width, height = Image.open(tmp_path / "look" / "views.png").size
    assert width > 800 and height > 800
    assert not (tmp_path / "look" / "config.yaml").exists()


def test_a_pack_without_labels_has_a_sheet_alone(blob_pack, tmp_path, capsys):
    config = PretrainConfig(
        data=(blob_pack,),
        preview=tmp_path / "a",
        arch="resnet18",
        size=32,
        batch_size=4,
        device="cpu",
    )
    assert preview(config) == ()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["views.png"]
    assert "what views cost is not measured" in capsys.readouterr().out


def test_neither_folder_is_one_clear_line(sided, tmp_path):
    run = twinray("pretrain", "--data", sided, *SMALL)
    assert run.returncode == 2 and "expected --out" in run.stderr and "Traceback" not in run.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("kept")
    run = twinray("pretrain", "--data", sided, *SMALL, "--preview", tmp_path / "full")
    assert run.returncode == 2 and "not empty" in run.stderr


def test_a_preview_under_torchrun_is_refused_and_told_once(sided, tmp_path, cli, monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for rank, told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        status, _, err = cli("pretrain", "--data", sided, "--preview", tmp_path / "look", *SMALL)
        assert status == 2 and ("without torchrun" in err) == told
        assert not (tmp_path / "look").exists()
