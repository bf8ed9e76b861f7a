"""The link of ``twinray serve`` to a real archive: in by storescu, found, fetched, analysed, read, and sent back by STOW."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from dicom_support import dciodvfy_errors, write_radiograph
from orthanc_support import Archive, needs_archive, running_archive
from twinray.serving.app.application import create_app
from twinray.serving.archive.client import Address, ArchiveError, DicomWeb, Instance
from twinray.serving.config import ServeConfig
from twinray.serving.store.models import Base

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
pytestmark = needs_archive

NAME, NUMBER, ACCESSION = "Canary^Tweety", "PAT-4711", "ACC-0815"
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with running_archive(tmp_path / "orthanc") as made:
        yield made


def film(path: Path, seed: int = 0, **values: object) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (120, 96))
    own = {
        "PatientName": NAME, "PatientID": NUMBER, "AccessionNumber": ACCESSION, "StudyID": "s1",
        "StudyDate": f"{date.today():%Y%m%d}", "SOPInstanceUID": f"1.2.3.4.{seed + 5}",
        "StudyInstanceUID": "1.2.840.99.1", "SeriesInstanceUID": "1.2.840.99.1.1",
    }  # fmt: skip
    made = write_radiograph(path, pixels, **{**own, **values})
    header = pydicom.dcmread(made)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(made, enforce_file_format=True)
    return made


def push(port: int, *files: Path, title: str = "ORTHANC") -> None:
    command = ["storescu", "-aec", title, "127.0.0.1", str(port), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def until(what: Callable[[], object], seconds: float = 200) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"did not come about within {seconds} s")


def address(archive: Archive, login: str | None = None) -> Address:
    url = f"http://127.0.0.1:{archive.http}/dicom-web"
    return Address(url, login=f"{archive.user}:{archive.password}" if login is None else login)


def test_the_client_finds_fetches_and_sends(archive, tmp_path):
    one, other = film(tmp_path / "a.dcm"), film(tmp_path / "b.dcm", 1, PatientID="other", StudyInstanceUID="1.2.840.99.2", SeriesInstanceUID="1.2.840.99.2.1")  # fmt: skip
    push(archive.dicom, one, other)
    web = DicomWeb(address(archive))
    assert {s.uid for s in web.studies()} == {"1.2.840.99.1", "1.2.840.99.2"}
    (study,) = web.studies(PatientID=NUMBER)
    assert study.uid == "1.2.840.99.1" and study.modalities == ("CR",) and study.images == 1
    assert web.studies(PatientID="nobody") == []
    assert web.instances(study.uid, ("CT",)) == []
    (found,) = web.instances(study.uid, ("CR", "DX"))
    data = web.fetch(found)
    assert pydicom.dcmread(io.BytesIO(data)) == pydicom.dcmread(one)

    new = pydicom.dcmread(one)
    new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    new.SeriesInstanceUID = "1.2.840.99.1.2"
    out = io.BytesIO()
    new.save_as(out, enforce_file_format=True)
    sent = web.store(study.uid, [out.getvalue()])
    assert sent.held == ("1.2.3.99",) and not sent.refused
    # an independent client reads it back as it was
    oracle = pytest.importorskip("dicomweb_client").DICOMwebClient(
        address(archive).url,
        headers={"Authorization": web._headers["Authorization"]},
    )
    assert oracle.retrieve_instance(study.uid, "1.2.840.99.1.2", "1.2.3.99") == new
    with pytest.raises(ArchiveError, match="status 4"):
        web.fetch(Instance(study.uid, "1.2.3", "1.2.3", ""))
    # an object of another study is refused by the archive, and that is not taken for success
    refusing = web.store("1.2.840.99.777", [out.getvalue()])
    assert refusing.refused or not refusing.held


def test_the_client_says_what_the_archive_says(archive):
    with pytest.raises(ArchiveError, match="status 401; the token or login is not accepted"):
        DicomWeb(address(archive, "reader:wrong")).studies()
    with pytest.raises(ArchiveError, match="status 404"):
        DicomWeb(Address(f"http://127.0.0.1:{archive.http}/nowhere", login="reader:only-for-this-test")).studies()  # fmt: skip
    with pytest.raises(ArchiveError, match="no answer"):
        DicomWeb(Address("http://127.0.0.1:9/dicom-web")).studies(PatientName=NAME)


@pytest.fixture
def served(archive, detect_run, tmp_path, monkeypatch) -> Iterator[tuple[TestClient, Path]]:
    """A server with real workers that fetches, and sends what was signed."""
    monkeypatch.setenv("ARCHIVE_LOGIN", f"{archive.user}:{archive.password}")
    log = tmp_path / "served.log"
    config = ServeConfig(
        runs=(detect_run,),
        store=str(tmp_path / "served"),
        min_free=1,
        log=log,
        archive=address(archive).url,
        archive_login_env="ARCHIVE_LOGIN",
        fetch_every=0.5,
        listen_dicom=0,
        send_back="signed",
        send_objects=("sr", "sc", "gsps"),
    )
    from twinray.serving.log import log_to

    log_to(log)
    try:
        with TestClient(create_app(config, token=""), base_url=BASE) as client:
            yield client, log
    finally:
        log_to(None)


def worklist(client: TestClient, state: str = "") -> list[dict]:
    return client.get("/api/images", params={"state": state}).json()["images"]


def test_a_study_is_fetched_analysed_read_and_answered(archive, served, tmp_path):
    client, log = served
    source = film(tmp_path / "a.dcm")
    push(archive.dicom, source)
    before = archive.objects()
    (image,) = until(lambda: worklist(client, "done"))
    assert NAME not in json.dumps(image) and NUMBER not in json.dumps(image)
    about = client.get(f"/api/images/{image['id']}").json()
    assert about["state"] == "done" and (about["width"], about["height"]) == (96, 120)
    time.sleep(2)
    assert archive.objects().keys() == before.keys()  # nothing goes back before somebody signs

    added = {"box": [10, 12, 50, 60], "class": "blob", "verdict": "added"}
    answer = client.post(
        f"/api/images/{image['id']}/marks", json={"reader": "anna", "marks": [added]}
    )
    assert answer.status_code == 201, answer.text
    new = until(lambda: (found := archive.objects()).keys() - before.keys() and found)
    made = {uid: one for uid, one in new.items() if uid not in before}
    assert sorted(one.Modality for one in made.values()) == ["OT", "PR", "SR"]
    for uid, one in made.items():
        assert (str(one.PatientName), one.PatientID, one.AccessionNumber) == (NAME, NUMBER, ACCESSION)  # fmt: skip
        assert one.StudyInstanceUID == "1.2.840.99.1" and one.SeriesInstanceUID != "1.2.840.99.1.1"
        (tmp_path / f"{uid}.dcm").write_bytes(b"")
        one.save_as(tmp_path / f"{uid}.dcm")
        assert dciodvfy_errors(tmp_path / f"{uid}.dcm") == []
    assert before.items() <= new.items()  # the original is as it was
    (sent,) = until(
        lambda: [
            s
            for s in client.get(f"/api/images/{image['id']}/sends").json()["sends"]
            if s["state"] == "sent"
        ]
    )
    assert sent["what"] == "reading" and sent["who"] == "anna"
    time.sleep(2)
    assert len(archive.objects()) == 4  # and it went once
    assert len(worklist(client)) == 1  # results are no new images

    # the canary: the name is nowhere but in the file; the number in its documented column alone
    store = client.app.state.service.store
    until(lambda: store.exchange.pseudonyms_of(NUMBER) and _column(store, "patients"))
    with store.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(sa.select(table)).mappings():
                for column, value in row.items():
                    assert "Canary" not in str(value) and ACCESSION not in str(value)
                    if NUMBER in str(value):
                        assert (table.name, column) == ("patients", "identifier")
    told = [client.get(path).text for path in ("/metrics", "/api/archive", "/api/images", "/ready", "/api/marks")]  # fmt: skip
    for text in (*told, log.read_text()):
        assert "Canary" not in text and NUMBER not in text and ACCESSION not in text
        assert archive.password not in text and "1.2.840.99.1" not in text

    # a forgotten patient does not come back with the next look
    gone = [
        sha
        for p in store.exchange.pseudonyms_of(NUMBER)
        for sha in store.images.forget(patient=p, who="operator")
    ]
    assert len(gone) == 1
    time.sleep(2)
    assert worklist(client) == [] and _column(store, "patients") == []


def _column(store, table: str) -> list:
    with store.database.reading() as session:
        return session.execute(sa.select(Base.metadata.tables[table])).all()


def test_an_archive_pushes_and_asks(archive, served, tmp_path):
    client, _ = served
    port = client.get("/api/archive").json()["dicom_port"]
    echo = ["echoscu", "-aec", "TWINRAY", "127.0.0.1", str(port)]
    assert subprocess.run(echo, check=False).returncode == 0
    wrong = ["echoscu", "-aec", "NOBODY", "127.0.0.1", str(port)]
    assert subprocess.run(wrong, check=False, capture_output=True).returncode != 0
    source = film(tmp_path / "a.dcm", 3, StudyDate="20200101")
    push(port, source, title="TWINRAY")
    push(port, source, title="TWINRAY")  # sent twice is one image
    (image,) = until(lambda: worklist(client, "done"))
    assert image["name"].startswith("archive-")
    kept = next(
        (p for p in client.app.state.service.store.files.images.rglob("*") if p.is_file()), None
    )
    assert pydicom.dcmread(kept) == pydicom.dcmread(source)

    # by hand: asked for, found, fetched
    push(archive.dicom, film(tmp_path / "b.dcm", 4, StudyDate="20190101", StudyInstanceUID="1.2.840.99.3", SeriesInstanceUID="1.2.840.99.3.1"))  # fmt: skip
    found = client.post("/api/archive/studies", json={"patient_id": NUMBER}).json()["studies"]
    assert [one["study"] for one in found] == ["1.2.840.99.3"]
    assert client.post("/api/archive/fetch", json={"study": "1.2.840.99.3"}).json() == {"new": 1, "failed": 0}  # fmt: skip
    assert client.post("/api/archive/fetch", json={"study": "1.2.840.99.3"}).json() == {"new": 0, "failed": 0}  # fmt: skip
    until(lambda: len(worklist(client, "done")) == 2)
    refused = client.post("/api/archive/studies", json={"patient_id": "*"})
    assert refused.status_code == 422


def test_an_archive_without_web_access_is_answered_by_itself(archive, detect_run, tmp_path):
    """In by C-STORE, analysed, and out by C-STORE: ``--archive-peer`` and ``--send-back always``, read by nobody."""
    config = ServeConfig(
        runs=(detect_run,),
        store=str(tmp_path / "served"),
        min_free=1,
        archive_peer=f"ORTHANC@127.0.0.1:{archive.dicom}",
        listen_dicom=0,
        send_back="always",
        send_objects=("sr", "sc", "gsps"),
    )
    with TestClient(create_app(config, token=""), base_url=BASE) as client:
        about = client.get("/api/archive").json()
        assert (about["archive"], about["can_send"]) == (None, True)
        source = film(tmp_path / "a.dcm")
        push(about["dicom_port"], source, title="TWINRAY")
        made = until(lambda: len(found := archive.objects()) >= 3 and found)
        assert sorted(one.Modality for one in made.values()) == ["OT", "PR", "SR"]
        for uid, one in made.items():
            assert (str(one.PatientName), one.PatientID, one.AccessionNumber) == (NAME, NUMBER, ACCESSION)  # fmt: skip
            assert one.StudyInstanceUID == "1.2.840.99.1" and one.SeriesInstanceUID != "1.2.840.99.1.1"  # fmt: skip
            one.save_as(tmp_path / f"{uid}.dcm")
            assert dciodvfy_errors(tmp_path / f"{uid}.dcm") == []
        (image,) = worklist(client)
        (sent,) = client.get(f"/api/images/{image['id']}/sends").json()["sends"]
        assert (sent["what"], sent["who"], sent["state"], sent["reason"]) == ("model", "server", "sent", "")  # fmt: skip
        time.sleep(2)
        assert len(archive.objects()) == 3  # and it went once
