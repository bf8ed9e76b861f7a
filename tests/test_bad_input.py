"""Whatever comes in: one clear line, no traceback, the rest goes on, nothing already written is lost."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support import DETECT, PRETRAIN, twinray, write_coco
from twinray.backbones.build import build_backbone
from twinray.data.pack import open_pack


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("twinray: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_missing_folder(cli, tmp_path):
    status, _, err = cli("pack", tmp_path / "gone", "--format", "folder", "--out", tmp_path / "p")
    assert status == 2
    assert str(tmp_path / "gone") in one_line(err)
    assert not (tmp_path / "p").exists()


def test_a_folder_in_use_is_continued_only_by_verbs_that_can(
    cli, blob_pack, detect_run, blobs, tmp_path
):
    used = tmp_path / "used"
    used.mkdir()
    (used / "kept.txt").write_text("mine")
    image = blobs.parent / "images" / "im000.png"
    for command, can in (
        (("detect", "--data", blob_pack, *DETECT), True),
        (("pack", blobs, "--format", "coco"), True),
        (("evaluate", detect_run, "--data", blob_pack), False),
        (("predict", detect_run, image), True),
        (("explain", detect_run, image), True),
    ):
        status, _, err = cli(*command, "--out", used)
        assert status == 2 and "is not empty; choose another --out" in one_line(err)
        assert ("--resume" in err) is can


def test_empty_folder(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = cli("pack", tmp_path / "empty", "--format", "folder", "--out", tmp_path / "p")
    assert status == 2
    assert "found nothing" in one_line(err)
    assert not (tmp_path / "p").exists()


@pytest.fixture
def mixed_folder(tmp_path) -> Path:
    """Good images, a JPEG cut short, and a text file that calls itself PNG."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (80, 80), dtype=np.uint8)).save(
            folder / f"good{i}.jpg"
        )
    whole = (folder / "good0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.png").write_text("patient was asked to hold still")
    return folder


def test_a_truncated_jpeg_and_a_text_file_are_set_aside(cli, mixed_folder, tmp_path):
    status, out, err = cli(
        "pack",
        mixed_folder,
        "--format",
        "folder",
        "--out",
        tmp_path / "p",
        "--size",
        32,
        "--workers",
        1,
    )
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    assert sorted(pack.ids) == [f"good{i}.jpg" for i in range(6)]
    assert pack.info.skipped == 2
    skipped = (tmp_path / "p" / "skipped.csv").read_text()
    assert "cut.jpg" in skipped
    assert "notes.png" in skipped
    assert "Traceback" not in out + err + skipped


def test_strict_stops_at_the_first_and_names_it(cli, mixed_folder, tmp_path):
    status, _, err = cli(
        "pack",
        mixed_folder,
        "--format",
        "folder",
        "--out",
        tmp_path / "p",
        "--strict",
        "--workers",
        1,
    )
    assert status == 2
    assert "cut.jpg" in one_line(err)


def test_only_bad_images(cli, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    status, _, err = cli(
        "pack", tmp_path / "bad", "--format", "folder", "--out", tmp_path / "p", "--workers", 1
    )
    assert status == 2
    one_line(err)


@pytest.fixture
def bad_coco(tmp_path) -> Path:
    """A COCO source with one of every bad annotation."""
    path = write_coco(tmp_path / "coco", n=8)
    data = json.loads(path.read_text())
    first = data["images"][0]["id"]
    bad = [
        (first, 7, [100, 100, 20, 20]),  # outside its image
        (first, 7, [10, 10, 0, 5]),  # no width
        (first, 7, [10, 10, 5, -3]),  # negative height
        (first, 7, [float("nan"), 10, 5, 5]),
        (first, 7, [1, 2, 3]),
        (999, 7, [10, 10, 5, 5]),  # an image that is not listed
        (first, 99, [10, 10, 5, 5]),  # a category that is not listed
    ]
    data["annotations"] += [
        {"id": 900 + i, "image_id": image, "category_id": category, "bbox": box}
        for i, (image, category, box) in enumerate(bad)
    ]
    path.write_text(json.dumps(data))
    return path


def test_bad_annotations_are_set_aside_one_by_one(cli, bad_coco, tmp_path):
    status, _, err = cli(
        "pack", bad_coco, "--format", "coco", "--out", tmp_path / "p", "--size", 32, "--workers", 1
    )
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    assert len(pack) == 8
    assert sum(len(pack.boxes(i) or ()) for i in range(8)) == 6  # all the good ones
    skipped = (tmp_path / "p" / "skipped.csv").read_text()
    for number in range(900, 907):
        assert str(number) in skipped
    assert pack.info.skipped == 7


def test_bad_annotations_with_strict(cli, bad_coco, tmp_path):
    status, _, err = cli(
        "pack", bad_coco, "--format", "coco", "--out", tmp_path / "p", "--strict", "--workers", 1
    )
    assert status == 2
    assert "900" in one_line(err)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"images": []}',
        '{"images": 3, "annotations": [], "categories": []}',
        "\x00\xff",
    ],
)
def test_a_coco_file_that_is_none(cli, tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    status, _, err = cli("pack", tmp_path / "a.json", "--format", "coco", "--out", tmp_path / "p")
    assert status == 2
    one_line(err)


def test_weights_of_another_architecture(cli, blob_pack, class_pack, tmp_path):
    weights = tmp_path / "r18.pth"
    torch.save(build_backbone("resnet18", 0).state_dict(), weights)
    for verb, pack in (("pretrain", class_pack), ("detect", blob_pack), ("classify", class_pack)):
        more = ["--batch-size", 8, "--size", 64]
        status, _, err = cli(
            verb,
            "--data",
            pack,
            "--arch",
            "resnet34",
            "--init",
            weights,
            "--out",
            tmp_path / verb,
            *more,
        )
        assert status == 2
        line = one_line(err)
        assert "do not fit resnet34" in line
        assert "missing" in line
        assert not (tmp_path / verb).exists()


def test_a_pack_that_is_damaged(cli, class_pack, tmp_path):
    damage = {
        "pack.json": lambda p: p.write_text("{"),
        "images.npy": lambda p: p.write_bytes(p.read_bytes()[:1000]),
        "samples.parquet": lambda p: p.write_bytes(b"PAR1 not really"),
    }
    for name, break_it in damage.items():
        copy = tmp_path / name
        shutil.copytree(class_pack, copy)
        break_it(copy / name)
        status, _, err = cli(
            "pretrain", "--data", copy, "--out", tmp_path / "r", "--epochs", 1, *PRETRAIN
        )
        assert status == 2, name
        assert "pack" in one_line(err)
    copy = tmp_path / "flipped"
    shutil.copytree(class_pack, copy)
    raw = bytearray((copy / "images.npy").read_bytes())
    raw[-1] ^= 255
    (copy / "images.npy").write_bytes(raw)
    status, _, err = cli("pack", copy, "--verify")
    assert status == 2
    assert "checksum" in one_line(err)


def test_a_run_without_labels_or_boxes_to_learn_from(cli, class_pack, blob_pack, tmp_path):
    status, _, err = cli("detect", "--data", class_pack, "--out", tmp_path / "r", *DETECT)
    assert status == 2
    assert "no boxes" in one_line(err)
    status, _, err = cli("evaluate", tmp_path, "--data", blob_pack)
    assert status == 2
    one_line(err)


def test_a_model_and_a_pack_of_other_classes(cli, detect_run, tmp_path):
    source = write_coco(tmp_path / "other", n=8)
    data = json.loads(source.read_text())
    data["categories"][0]["name"] = "Blob"  # only the capital differs
    source.write_text(json.dumps(data))
    assert (
        cli(
            "pack",
            source,
            "--format",
            "coco",
            "--out",
            tmp_path / "p",
            "--size",
            64,
            "--workers",
            1,
        )[0]
        == 0
    )
    status, _, err = cli("evaluate", detect_run, "--data", tmp_path / "p")
    assert status == 2
    line = one_line(err)
    assert "'blob'" in line
    assert "'Blob'" in line


def test_a_random_frozen_layer_is_refused(cli, blob_pack, tmp_path):
    for more in (["--trainable-stages", 3], ["--norm", "eval"], ["--norm", "frozen"]):
        status, _, err = cli("detect", "--data", blob_pack, "--out", tmp_path / "r", *DETECT, *more)
        assert status == 2
        assert "random for ever" in one_line(err)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_during_a_checkpoint_loses_nothing(small_disk, class_pack, tmp_path):
    """The weights of a ResNet-18 alone take 45 MB: the first checkpoint cannot fit."""
    run = small_disk / "run"
    more = ("--epochs", 4, "--checkpoint-every", 3, *PRETRAIN)
    arguments = ("pretrain", "--data", class_pack, "--out", run, *more)
    done = twinray(*arguments)
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert "disk is full" in line
    assert "--resume" in line
    assert (run / "config.yaml").stat().st_size > 0
    assert list((run / "checkpoints").iterdir()) == []  # no half-written file
    steps = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps in (
        [3],
        [3, 6],
    )  # the second checkpoint waits for the first, whatever else goes on

    # with room again, the same command with --resume ends with the weights of a run that never stopped
    subprocess.run(["mount", "-o", "remount,size=1g", small_disk], check=True)
    assert twinray(*arguments, "--resume").returncode == 0
    whole = tmp_path / "whole"
    assert twinray("pretrain", "--data", class_pack, "--out", whole, *more).returncode == 0
    assert (run / "backbone.safetensors").read_bytes() == (
        whole / "backbone.safetensors"
    ).read_bytes()


def test_an_older_checkpoint_survives_a_disk_that_fills_later(small_disk, tmp_path):
    from twinray.errors import TwinrayError
    from twinray.training.checkpoint import Keep, load_checkpoint, save_checkpoint

    save_checkpoint(small_disk, 1, {"x": torch.zeros(2_000_000)}, Keep(), 5)
    with pytest.raises(TwinrayError, match="disk is full"):
        save_checkpoint(small_disk, 2, {"x": torch.zeros(10_000_000)}, Keep(), 5)
    state = load_checkpoint(small_disk)
    assert state is not None
    assert state["x"].shape == (2_000_000,)
    assert [p.name for p in small_disk.iterdir()] == ["step-000000001.pt"]


def test_a_place_that_may_not_be_written(cli, class_pack):
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", "/proc/nowhere/run", "--epochs", 1, *PRETRAIN
    )
    assert status == 1
    one_line(err)


def test_out_is_a_file(cli, class_pack, tmp_path):
    (tmp_path / "f").write_text("x")
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", tmp_path / "f", "--epochs", 1, *PRETRAIN
    )
    assert status == 2
    assert "is a file" in one_line(err)


def test_no_space_and_odd_names(cli, tmp_path):
    folder = tmp_path / "böse näme 'x' [red]"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(
            folder / f"ünï {i} [bold].png"
        )
    status, out, err = cli("pack", folder, "--out", tmp_path / "p ä", "--size", 32, "--workers", 1)
    assert status == 0, err
    assert len(open_pack(tmp_path / "p ä")) == 4
    assert "Traceback" not in out


def test_a_damaged_description_is_one_line_that_names_file_and_key(
    cli, detect_run, blobs, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(detect_run / name, run / name)
    good = json.loads((run / "model.json").read_text())
    without = {key: value for key, value in good.items() if key != "arch"}
    nms = good | {"options": good["options"] | {"nms": "0.5"}}
    lacking = good | {
        "options": {key: value for key, value in good["options"].items() if key != "nms"}
    }
    unknown = good | {"arch": "resnet19"}
    for described, key in (
        ([], "found a list"),
        (without, "arch"),
        (good | {"pack": [1]}, "pack"),
        (good | {"pack": {"size": 64}}, "pack.fit"),
        (nms, "options.nms"),
        (lacking, "options.nms"),
        (good | {"size": 96}, "options.size"),
        (unknown, "resnet19"),
    ):
        (run / "model.json").write_text(json.dumps(described))
        status, _, err = cli(
            "predict", run, blobs.parent / "images" / "im000.png", "--out", tmp_path / "p"
        )
        assert status == 2
        assert "model.json" in one_line(err) and key in err and "unforeseen" not in err
    assert not (tmp_path / "p").exists()
