"""A real archive for tests: Orthanc of Debian with its DICOMweb plugin, in a folder of the test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = [
    name for name in ("Orthanc", "dcmsend", "storescu", "curl") if shutil.which(name) is None
]
needs_archive = pytest.mark.skipif(
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


@contextmanager
def running_archive(base: Path, **more: object) -> Iterator[Archive]:
    """A new, empty Orthanc with its store in ``base``; ``more`` are further settings."""
    made = Archive(free_port(), free_port())
    (base / "store").mkdir(parents=True)
    settings = {
        "StorageDirectory": str(base / "store"), "IndexDirectory": str(base / "store"), "Plugins": [str(PLUGIN)],
        "HttpPort": made.http, "DicomPort": made.dicom, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {made.user: made.password}, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
    } | more  # fmt: skip
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
