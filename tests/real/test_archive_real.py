"""Objects that ``predict`` writes, sent to a real archive as the documents tell, and fetched back unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_support import dciodvfy_errors, write_radiograph
from orthanc_support import Archive, needs_archive, running_archive
from twinray.data.decoding.images import load_image
from twinray.records import Boxes
from twinray.report.dicom.finding import Algorithm, Finding
from twinray.report.dicom.objects import dicom_objects
from twinray.report.dicom.source import read_source

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "detection.md"
pytestmark = needs_archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with running_archive(tmp_path / "orthanc") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What ``predict`` leaves in ``dicom/``: a structured report and a capture of one radiograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40))
    source = write_radiograph(tmp_path / "source.dcm", pixels)
    image = load_image(source).array
    boxes = Boxes(np.array([[3.0, 4.0, 20.0, 18.0]]), np.array([0]), np.array([0.9]))
    algorithm = Algorithm("0.1.0", "ab" * 32, "score >= 0.3")
    finding = Finding(
        read_source(source), image, boxes, ("opacity",), algorithm, datetime(2026, 1, 2)
    )
    out = tmp_path / "predictions" / "dicom"
    out.mkdir(parents=True)
    for kind, data in dicom_objects(finding).items():
        (out / f"{kind}.dcm").write_bytes(data)
    assert len(list(out.iterdir())) >= 2
    return out


def commands(archive: Archive) -> list[str]:
    """The lines of the document, with the archive's own address."""
    block = next(
        b for b in re.findall(r"```\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
        if "dcmsend" in b
    )  # fmt: skip
    dcmtk = next(line for line in block.splitlines() if line.startswith("dcmsend"))
    stow = block[block.index("for f in") :]
    return [
        dcmtk.partition("#")[0].replace("host 11112", f"127.0.0.1 {archive.dicom}"),
        stow.replace("https://host", f"http://{archive.user}:{archive.password}@127.0.0.1:{archive.http}"),
    ]  # fmt: skip


@pytest.mark.parametrize("way", [0, 1], ids=["C-STORE", "STOW-RS"])
def test_objects_arrive_as_they_were_written(archive: Archive, folder: Path, way: int) -> None:
    line = commands(archive)[way]
    sent = subprocess.run(
        ["bash", "-c", line], cwd=folder.parents[1], capture_output=True, text=True, check=False,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    assert sent.returncode == 0, sent.stdout + sent.stderr
    held = archive.objects()
    written = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}
    assert held.keys() == written.keys()
    for uid, one in written.items():
        assert held[uid] == one
        assert held[uid].file_meta.TransferSyntaxUID == one.file_meta.TransferSyntaxUID
        path = folder.parent / f"{uid}.dcm"
        held[uid].save_as(path)
        assert dciodvfy_errors(path) == []
    assert len({one.StudyInstanceUID for one in held.values()}) == 1


def test_nothing_is_told_without_a_password(archive: Archive) -> None:
    stranger = Archive(archive.http, archive.dicom, archive.user, "wrong")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        stranger.get("studies")
