"""Objects that ``predict`` writes, sent to a real archive as the documents tell, and fetched back unchanged."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_support import dciodvfy_errors, write_radiograph
from twinray.data.decoding.images import load_image
from twinray.records import Boxes
from twinray.report.dicom.finding import Algorithm, Finding
from twinray.report.dicom.objects import dicom_objects
from twinray.report.dicom.source import read_source

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "detection.md"
MISSING = [name for name in ("Orthanc", "dcmsend", "curl") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING) or not PLUGIN.is_file(),
    reason=f"no archive to send to: {', '.join(MISSING) or PLUGIN.name} is not installed (scripts/install_servers.sh)",
)


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: where it listens, and who may ask."""

    http: int
    dicom: int
    user: str = "reader"
    password: str = "only-for-this-test"

    def get(self, path: str, accept: str = "application/dicom+json") -> tuple[bytes, str]:
        login = b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/dicom-web/{path}",
            headers={"Authorization": f"Basic {login}", "Accept": accept},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read(), answer.headers["Content-Type"]

    def objects(self) -> dict[str, pydicom.Dataset]:
        """SOP instance UID -> what the archive holds, by WADO-RS."""
        found: dict[str, pydicom.Dataset] = {}
        for study in json.loads(self.get("studies")[0]):
            uid = study["0020000D"]["Value"][0]
            body, kind = self.get(
                f"studies/{uid}", 'multipart/related; type="application/dicom"; transfer-syntax=*'
            )
            whole = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
            for part in whole.get_payload():
                one = pydicom.dcmread(BytesIO(part.get_payload(decode=True)))
                found[one.SOPInstanceUID] = one
        return found


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(free_port(), free_port())
    base = tmp_path / "orthanc"
    (base / "store").mkdir(parents=True)
    settings = {
        "StorageDirectory": str(base / "store"), "IndexDirectory": str(base / "store"), "Plugins": [str(PLUGIN)],
        "HttpPort": made.http, "DicomPort": made.dicom, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {made.user: made.password}, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
    }  # fmt: skip
    (base / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (base / "log").open("wb") as log:
        server = subprocess.Popen(["Orthanc", str(base / "orthanc.json")], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                made.get("studies")
                break
            except (OSError, urllib.error.URLError):
                if server.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"Orthanc did not start:\n{(base / 'log').read_text()[-2000:]}")
                time.sleep(0.2)
        yield made
    finally:
        server.terminate()
        server.wait(timeout=30)


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
