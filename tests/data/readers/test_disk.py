"""One walk for every reader: what is junk, what is counted, what is set aside."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.data.pseudonyms import read_key
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.data.readers.disk import JUNK, index_images, scan_images
from twinray.data.readers.folder import read_folder
from twinray.data.readers.tabular import read_names
from twinray.errors import InputError
from twinray.files import read_json
from twinray.jobs.image_files import find_images
from twinray.records import Skipped
from twinray.runs.folder import read_config

DICOM = bytes(128) + b"DICM"


def touch(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    """One image in a folder with every kind of junk, each as a file and as a folder that holds an image."""
    touch(tmp_path, "deep/er/a.png")
    for name in (*JUNK, *(name.upper() for name in JUNK), ".hidden", "._a.png"):
        touch(tmp_path, f"f{len(name)}/{name}.d/../{name}")
        touch(tmp_path, f"d{len(name)}/{name}/b.png")
    return tmp_path


def test_junk_is_the_same_for_everyone(littered: Path) -> None:
    assert scan_images(littered).names == ["deep/er/a.png"]
    assert not scan_images(littered).others
    assert list(index_images(littered, []).by_stem) == ["a"]
    assert [sample.id for sample in read_folder(littered, layout="flat").samples] == [
        "deep/er/a.png"
    ]
    assert find_images([littered]).files == (littered / "deep/er/a.png",)
    (littered / "deep/er/a.png").write_bytes(DICOM)
    assert [sample.source for sample in read_dicom_folder(littered).samples] == ["deep/er/a.png"]


def test_a_list_of_dicom_files_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "DICOMDIR", "IM0001", content=DICOM)
    touch(tmp_path, "notes.txt", "README")
    found = scan_images(tmp_path)
    assert found.names == ["IM0001"]
    assert (
        found.others_in_words == "no suffix 1, .txt 1"
        or found.others_in_words == ".txt 1, no suffix 1"
    )
    assert found.n_others == 2


def test_a_folder_that_is_reached_twice_is_read_twice_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert scan_images(tmp_path).names == ["a/x.png", "b/x.png"]


def test_the_table_is_left_out_by_what_it_is_not_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "table.csv", "a/table.csv", "a/x.png")
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    assert scan_images(tmp_path, leave_out=tmp_path / "table.csv").others == {".csv": 1}


@pytest.mark.skipif(
    os.name != "posix", reason="names of bytes that are not UTF-8 exist on POSIX only"
)
def test_names_that_are_not_utf8_are_set_aside_by_every_reader(tmp_path: Path) -> None:
    touch(tmp_path, "good.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png")).write_bytes(b"x")
    skipped: list[Skipped] = []
    assert list(index_images(tmp_path, skipped).by_stem) == ["good"]
    assert skipped == scan_images(tmp_path).skipped
    assert skipped[0].where.encode("utf-8")
    assert "UTF-8" in skipped[0].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    skipped: list[Skipped] = []
    index_images(tmp_path, skipped)
    (tmp_path / "closed").chmod(0o700)
    assert "could not list this folder" in skipped[0].reason


@pytest.mark.parametrize("name", ["pipe", "pipe.png", "pipe.dcm", "pipe.zip"])
def test_a_pipe_is_never_opened(tmp_path: Path, name: str) -> None:

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / name)
    found = read_folder(tmp_path)
    assert [s.where for s in found.skipped] == [name]
    assert "pipe" in found.skipped[0].reason
    assert [s.where for s in find_images([tmp_path]).skipped] == [str(tmp_path / name)]
    with pytest.raises(InputError, match="expected DICOM files"):
        read_dicom_folder(tmp_path)


def test_files_that_readers_name_may_be_no_pipes(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "config.yaml")
    pipe = tmp_path / "config.yaml"
    for read in (read_key, read_names, read_json, lambda p: read_config(p.parent)):
        with pytest.raises(InputError, match="pipe"):
            read(pipe)


def test_links_that_lead_out_and_archives_are_named(tmp_path: Path) -> None:

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    for name in ("b.png", "c.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(outside / name)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(inside / "a.png")
    (inside / "z.png").symlink_to(inside / "a.png")  # a link within the folder is its own affair
    assert not any("link" in note for note in read_folder(inside).notes)
    (inside / "b.png").symlink_to(outside / "b.png")
    (inside / "more.zip").write_bytes(b"PK\x03\x04")
    (inside / "old.tar.gz").write_bytes(b"\x1f\x8b")
    notes = read_folder(inside).notes
    assert any(
        "1 file lies outside the folder and is reached" in note and "b.png" in note
        for note in notes
    )
    assert any("2 archives were not opened (first: more.zip): unpack them" in n for n in notes)
    assert len(find_images([inside]).notes) == 2
    (inside / "linked").symlink_to(outside)
    assert any("3 files lie outside" in note for note in read_folder(inside, layout="flat").notes)


def test_class_folders_that_are_linked_lose_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "store/one/x.png")
    touch(tmp_path, "store/one/y.png")
    (tmp_path / "s").mkdir()
    for name in ("sick", "well", "other"):
        (tmp_path / "s" / name).symlink_to(tmp_path / "store" / "one")
    assert len(scan_images(tmp_path / "s").names) == 6


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for k in range(5):
        touch(tmp_path, f"f{k}/x.png")
    for k in range(5):
        for j in range(5):
            (tmp_path / f"f{k}" / f"to{j}").symlink_to(tmp_path / f"f{j}")
    found = scan_images(tmp_path)
    assert {f"f{k}/x.png" for k in range(5)} <= set(found.names)
    assert len(found.names) < 200
    assert any("more than 16 links lead to this folder" in s.reason for s in found.skipped)
