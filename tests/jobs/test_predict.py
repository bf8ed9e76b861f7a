"""New images through a finished run: odd names, folders that cannot be listed, full disks."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.errors import InputError, TwinrayError
from twinray.files import GrowingTable
from twinray.jobs import image_files
from twinray.jobs.image_files import find_images
from twinray.jobs.predict import run as job
from twinray.jobs.predict.config import PredictConfig


@pytest.fixture
def inbox(tmp_path: Path, blobs: Path) -> Path:
    """Five readable images, one of them in a folder of its own."""
    folder = tmp_path / "inbox"
    (folder / "more").mkdir(parents=True)
    for i in range(5):
        name = f"more/{i}.png" if i == 4 else f"{i}.png"
        (folder / name).write_bytes((blobs.parent / "images" / f"im00{i}.png").read_bytes())
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As a folder without read permission; root may read everything, so the rights alone would not do."""
    scandir = os.scandir

    def refusing(path="."):
        if os.path.basename(os.fspath(path)) == name:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def odd_name(folder: Path) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")


def test_a_file_is_found_once_however_it_is_named(inbox, monkeypatch):
    monkeypatch.chdir(inbox.parent)
    found = find_images([inbox / "1.png", inbox, Path("inbox"), Path("inbox/more/../more/4.png")])
    assert [file.name for file in found.files] == ["1.png", "0.png", "2.png", "3.png", "4.png"]
    assert found.files[0] == inbox / "1.png"
    assert found.skipped == ()


def test_a_folder_that_cannot_be_listed_is_named(inbox, monkeypatch):
    refuse_to_list(monkeypatch, "more")
    found = find_images([inbox])
    assert len(found.files) == 4
    assert [item.where for item in found.skipped] == [str(inbox / "more")]
    assert "Permission denied" in found.skipped[0].reason
    with pytest.raises(InputError, match="could not list"):
        find_images([inbox / "more"])


def test_names_that_are_not_utf8_are_set_aside(inbox):
    odd_name(inbox)
    found = find_images([inbox, inbox / os.fsdecode(b"caf\xe9.png")])
    assert len(found.files) == 5
    assert {item.where for item in found.skipped} == {str(inbox / "caf\\udce9.png")}
    for item in found.skipped:
        assert "UTF-8" in item.reason
        item.where.encode("utf-8")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        find_images([tmp_path / "gone.png"])
    with pytest.raises(InputError, match="no image file"):
        find_images([tmp_path])


def test_one_bad_name_and_one_closed_folder_do_not_end_the_job(
    inbox, detect_run, tmp_path, monkeypatch, capsys
):
    odd_name(inbox)
    (inbox / "broken.png").write_text("this is text")
    refuse_to_list(monkeypatch, "more")
    out = job.run(
        PredictConfig(
            detect_run, (inbox, inbox / "0.png"), tmp_path / "p", batch_size=3, overlays=False
        )
    )
    said = capsys.readouterr().out
    assert "4 images, 3 set aside" in said
    assert str(inbox / "more") in said
    assert {Path(row["file"]).name for row in rows(out / "skipped.csv")} == {
        "caf\\udce9.png",
        "more",
        "broken.png",
    }
    reasons = [row["reason"] for row in rows(out / "skipped.csv")]
    assert not any(str(inbox) in reason for reason in reasons)  # the file is named beside it
    listed = json.loads((out / "images.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in listed] == [
        "0.png",
        "1.png",
        "2.png",
        "3.png",
    ]
    boxes = json.loads((out / "predictions.json").read_text())
    assert len(boxes) == len(rows(out / "predictions.csv")) > 0
    monkeypatch.undo()
    with pytest.raises(InputError, match="without --strict"):
        job.run(PredictConfig(detect_run, (inbox,), tmp_path / "q", strict=True))


@pytest.mark.parametrize(
    ("turned", "told"), [(1, "1 file asks to be turned"), (2, "2 files ask to be turned")]
)
def test_files_with_the_same_remark_are_counted(turned, told, inbox, detect_run, tmp_path, capsys):
    for i in range(turned):
        exif = Image.Exif()
        exif[0x0112] = 6
        grey = np.random.default_rng(i).integers(0, 256, (40, 30), dtype=np.uint8)
        Image.fromarray(grey).save(inbox / f"turned{i}.jpg", exif=exif)
    job.run(PredictConfig(detect_run, (inbox,), tmp_path / "p", overlays=False))
    assert told in capsys.readouterr().out


def test_a_job_that_is_cut_off_keeps_its_finished_batches(inbox, detect_run, tmp_path, monkeypatch):
    whole = job.run(
        PredictConfig(detect_run, (inbox,), tmp_path / "whole", batch_size=2, overlays=False)
    )
    decode, given = image_files.load_image, []

    def interrupted(file: Path, **options):
        given.append(file)
        if len(given) == 4:
            raise KeyboardInterrupt
        return decode(file, **options)

    monkeypatch.setattr(image_files, "load_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(
            PredictConfig(
                detect_run, (inbox,), tmp_path / "cut", batch_size=2, overlays=False, workers=0
            )
        )
    kept = rows(tmp_path / "cut" / "predictions.csv")
    assert kept == [
        row
        for row in rows(whole / "predictions.csv")
        if Path(row["file"]).name in ("0.png", "1.png")
    ]


def test_a_disk_that_fills_with_overlays_keeps_the_tables(inbox, detect_run, tmp_path, monkeypatch):
    write, drawn = job.write_bytes, []

    def full(path: Path, data: bytes, what: str) -> None:
        drawn.append(path)
        if len(drawn) == 2:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise TwinrayError(f"could not write {what}") from error
        write(path, data, what)

    monkeypatch.setattr(job, "write_bytes", full)
    with pytest.raises(
        TwinrayError, match=r"overlays from number 2 on \(No space left on device\)"
    ) as caught:
        job.run(PredictConfig(detect_run, (inbox,), tmp_path / "p"))
    assert "\n" not in str(caught.value)
    assert len(drawn) == 2
    assert {Path(row["file"]).name for row in rows(tmp_path / "p" / "predictions.csv")} <= {
        f"{i}.png" for i in range(5)
    }
    assert len(json.loads((tmp_path / "p" / "images.json").read_text())["images"]) == 5
    assert (tmp_path / "p" / "predictions.json").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_table_never_ends_in_half_a_row(tmp_path):
    table = GrowingTable(tmp_path / "t.csv", ("a", "b"))
    table.append([(1, 2)])
    before = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv").rename(tmp_path / "kept.csv")
    (tmp_path / "t.csv").symlink_to("/dev/full")
    with pytest.raises(TwinrayError, match="No space left") as caught:
        table.append([(3, 4)])
    assert "with --resume" in str(caught.value)
    assert (tmp_path / "kept.csv").read_bytes() == before == b"a,b\n1,2\n"


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"timeout": 0.0},
        {"memory": 0},
        {"score_threshold": 2.0},
        {"score_threshold": float("nan")},
        {"fp_per_image": 0.0},
        {"fp_per_image": -1.0},
        {"fp_per_image": float("nan")},
        {"fp_per_image": float("inf")},
        {"fp_per_image": 0.25, "score_threshold": 0.5},
    ],
)
def test_options_out_of_range_are_refused_first(tmp_path, bad):
    with pytest.raises(
        InputError, match=r"--(score-threshold|fp-per-image|batch-size|workers|timeout|memory)"
    ):
        job.run(PredictConfig(tmp_path / "no-run", (tmp_path,), tmp_path / "p", **bad))
