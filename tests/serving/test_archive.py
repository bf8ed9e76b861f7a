"""The link to an archive without one: odd answers, peers that take nothing, queues of results, a patient forgotten."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless
from starlette.testclient import TestClient

from dicom_support import write_radiograph
from twinray import cli
from twinray.errors import InputError
from twinray.serving.app.application import create_app
from twinray.serving.archive.client import Address, ArchiveError, DicomWeb, Instance
from twinray.serving.archive.courier import Courier, Settings, object_of
from twinray.serving.archive.multipart import decode, encode
from twinray.serving.archive.peer import Peer, echo, read_peer, send
from twinray.serving.archive.receiver import Listening, Receiver, RefusedError
from twinray.serving.store.images import Facts
from twinray.serving.store.readings import Marked, Said
from twinray.serving.store.store import open_store

UID = "1.2.3"


# --- addresses and bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/x", "to be a URL"),
        ("host/dicom-web", "to be a URL"),
        ("https://", "to be a URL"),
        ("https://host:99999/x", "to be a URL"),
        ("https://anna:secret@host/x", "without user and password"),
        ("http://pacs.example/dicom-web", "expected https"),
    ],
)
def test_addresses_that_are_none_or_not_safe_are_refused(url, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Address(url)
    assert "secret" not in str(caught.value)


def test_an_address_tells_no_secret():
    assert "geheim" not in repr(Address("https://host/x", token="geheim", login="a:geheim"))
    assert Address("http://pacs.example/x", plain=True).host == "pacs.example"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_bodies_come_back_as_they_were(parts):
    body, kind = encode(parts)
    assert decode(body, kind) == parts
    assert decode(b"preamble\r\n" + body, kind) == parts


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "text/html"),
        (b"--a\r\n\r\nx\r\n--a--", "multipart/related"),
        (b"--a\r\nno end of the header\r\n--a--", "multipart/related; boundary=a"),
        (b"--a\r\n\r\ncut off in the mid", "multipart/related; boundary=a"),
        (b"", "multipart/related; boundary=a"),
    ],
)
def test_bodies_that_are_not_whole_are_refused(body, kind):
    with pytest.raises(InputError):
        decode(body, kind)


# --- an archive that answers oddly ------------------------------------------------------------------------------------


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers with what the test laid ready."""

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.answers(self.path)
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[SimpleNamespace]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(
        server=server, url=f"http://127.0.0.1:{server.server_port}/dicom-web", asked=server.asked
    )
    server.shutdown()
    server.server_close()


def test_a_redirect_is_refused_and_no_other_host_is_called(odd, monkeypatch):
    monkeypatch.setenv(
        "HTTP_PROXY", "http://127.0.0.1:9"
    )  # would be refused: nothing listens there
    elsewhere = socket.create_server(("127.0.0.1", 0))
    elsewhere.settimeout(0.5)
    there = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
    odd.server.answers = lambda _: (302, {"Location": there}, b"")
    with pytest.raises(ArchiveError, match="only the archive that was named") as caught:
        DicomWeb(Address(odd.url, token="secret-token")).studies(PatientID="Canary")
    assert "Canary" not in str(caught.value) and not caught.value.passes
    with pytest.raises(TimeoutError):
        elsewhere.accept()
    elsewhere.close()
    assert odd.asked[0][2]["Authorization"] == "Bearer secret-token"


def test_more_than_is_taken_and_odd_answers_are_errors(odd):
    web = DicomWeb(Address(odd.url), most_bytes=1 << 20)
    odd.server.answers = lambda _: (200, {"Content-Type": "application/dicom"}, bytes(2 << 20))
    with pytest.raises(ArchiveError, match="most that is taken"):
        web.fetch(Instance(UID, UID, UID, ""))
    for body in (b"<html>", b"[1, 2]", b'"x"', b"[" * 100_000):
        odd.server.answers = lambda _, body=body: (200, {}, body)
        with pytest.raises(ArchiveError):
            web.studies(PatientID="x")
    odd.server.answers = lambda _: (200, {}, json.dumps([{"0020000D": {"Value": ["../../etc"]}}]).encode())  # fmt: skip
    assert web.studies(PatientID="x") == []  # no UID: nothing of it comes into a path
    with pytest.raises(ArchiveError, match="expected a DICOM UID"):
        web.instances("../../etc")


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("kind", ["application/dicom+json", "application/dicom+json; charset=utf-8"])  # fmt: skip
def test_what_an_archive_did_not_take_is_never_success(odd, status, kind):
    refused = {"00081198": {"Value": [{"00081155": {"Value": ["1.2.9"]}, "00081197": {"Value": [49442]}}]}}  # fmt: skip
    odd.server.answers = lambda _: (status, {"Content-Type": kind}, json.dumps(refused).encode())
    assert DicomWeb(Address(odd.url)).store(UID, [b"x"]).refused == {"1.2.9": 49442}


@pytest.mark.parametrize("status", [202, 400, 409, 500, 503])
def test_a_status_without_a_word_is_never_success(odd, status):
    odd.server.answers = lambda _: (status, {}, b"")
    with pytest.raises(ArchiveError, match=f"status {status}") as caught:
        DicomWeb(Address(odd.url)).store(UID, [b"x"])
    assert caught.value.passes == (status != 400)


def test_an_archive_that_knows_no_offset_ends(odd):
    one = [{"0020000D": {"Value": [f"1.2.{i}"]}} for i in range(200)]
    odd.server.answers = lambda _: (200, {}, json.dumps(one).encode())
    assert len(DicomWeb(Address(odd.url)).studies(StudyDate="20260101")) == 200


# --- C-STORE, both ways -----------------------------------------------------------------------------------------------


def radiograph(path: Path, syntax: str | None = None) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32))
    source = pydicom.dcmread(write_radiograph(path, pixels))
    if syntax is not None:
        source.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    source.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture
def storescp(tmp_path) -> Iterator[tuple[Peer, Path]]:
    """dcmtk's receiver, which takes uncompressed objects alone."""
    # pynetdicom's program of that name, in an environment that is switched on, takes more
    program = shutil.which("storescp", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        pytest.skip("storescp is not installed (Debian: dcmtk)")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder = tmp_path / "received"
    folder.mkdir()
    server = subprocess.Popen([program, "-aet", "PACS", "-od", str(folder), str(port)])
    peer = Peer("PACS", "127.0.0.1", port)
    for _ in range(100):
        try:
            echo(peer, "TWINRAY")
            break
        except ArchiveError:
            time.sleep(0.1)
    yield peer, folder
    server.terminate()
    server.wait(10)


def test_a_peer_gets_what_it_takes_and_is_named_with_what_it_does_not(storescp, tmp_path):
    peer, folder = storescp
    plain = radiograph(tmp_path / "a.dcm")
    odd = pydicom.dcmread(io.BytesIO(plain))
    odd.file_meta.TransferSyntaxUID = JPEG2000Lossless
    odd.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(96)])
    out = io.BytesIO()
    odd.save_as(out, enforce_file_format=True)
    said = send(peer, "TWINRAY", {"plain": plain, "packed": out.getvalue()})
    assert said.keys() == {"packed"}
    assert "takes no Computed Radiography Image Storage in JPEG 2000" in said["packed"]
    assert "--captures uncompressed" in said["packed"]
    (received,) = folder.iterdir()
    assert pydicom.dcmread(received) == pydicom.dcmread(io.BytesIO(plain))


def test_a_peer_that_is_not_there_is_a_passing_error(tmp_path):
    with pytest.raises(ArchiveError, match=r"no answer|ended") as caught:
        send(Peer("X", "127.0.0.1", 9), "TWINRAY", {"a": radiograph(tmp_path / "a.dcm")})
    assert caught.value.passes


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "PACS@host:0", "PACS@host:70000", "@host:1", "A" * 17 + "@h:1"])  # fmt: skip
def test_a_peer_is_written_one_way(text):
    with pytest.raises(InputError, match="TITLE@HOST:PORT"):
        read_peer(text)


def receiver(take, **how) -> Receiver:
    return Receiver(Listening("127.0.0.1", 0, "TWINRAY", **how), take)


def test_what_is_received_is_what_was_sent_and_failure_is_never_success(tmp_path):
    data, got = radiograph(tmp_path / "a.dcm"), []
    server = receiver(got.append)
    peer = Peer("TWINRAY", "127.0.0.1", server.port)
    try:
        assert send(peer, "PACS", {"a": data}) == {}
    finally:
        server.stop()
    assert pydicom.dcmread(io.BytesIO(got[0])) == pydicom.dcmread(io.BytesIO(data))

    for error, status in (
        (RefusedError("full", passes=True), "0xA700"),
        (RefusedError("no DICOM", passes=False), "0xC000"),
        (OSError("any"), "0xA700"),
    ):

        def fail(_: bytes, error: Exception = error) -> None:
            raise error

        server = receiver(fail)
        try:
            said = send(Peer("TWINRAY", "127.0.0.1", server.port), "PACS", {"a": data})
        finally:
            server.stop()
        assert status in said["a"]


def test_strangers_other_titles_and_too_large_objects_are_turned_away(tmp_path):
    data, got = radiograph(tmp_path / "a.dcm"), []
    server = receiver(got.append, callers=("PACS",), most_bytes=1000)
    try:
        here = Peer("TWINRAY", "127.0.0.1", server.port)
        with pytest.raises(ArchiveError, match="refused"):
            send(here, "STRANGER", {"a": data})
        with pytest.raises(ArchiveError, match="refused"):
            echo(Peer("OTHER", "127.0.0.1", server.port), "PACS")
        echo(here, "PACS")
        big = pydicom.dcmread(io.BytesIO(data))
        big.Rows = big.Columns = 2000
        big.PixelData = bytes(4_000_000)
        out = io.BytesIO()
        big.save_as(out, enforce_file_format=True)
        with pytest.raises(ArchiveError):
            send(here, "PACS", {"a": out.getvalue()})
    finally:
        server.stop()
    assert got == []


# --- the queue of results, on both databases --------------------------------------------------------------------------


def kept(store, name: bytes, origin: str = "archive"):
    with store.files.receive() as incoming:
        incoming.write(name)
        whole = incoming.keep()
    return store.images.add(whole, "a.dcm", "dicom", who="archive", origin=origin)[0]


def read(store, image, key: str, *, reader: str = "anna", finished: bool = True):
    said = Said(image.id, reader, key, (Marked((1, 1, 5, 5), "blob", "added"),), finished=finished)
    return store.readings.save(said, reader)[0].reading


def test_only_signed_readings_of_the_archives_images_go_and_each_once(store):
    exchange = store.exchange
    since = exchange.switched(True, "signed")
    image, uploaded = kept(store, b"1"), kept(store, b"2", "upload")
    read(store, image, "draft", finished=False)
    read(store, uploaded, "x")
    assert exchange.queue_signed(since) == 0
    first = read(store, image, "one")
    assert [exchange.queue_signed(since) for _ in range(3)] == [1, 0, 0]
    second = read(store, image, "two")
    exchange.queue_signed(since)
    assert [one.reading for one in exchange.due()] == [second.id]  # the first one was overtaken
    (gone,) = exchange.due()
    exchange.settle(gone.number, "the archive is away", passes=True)
    assert exchange.due() == [] and exchange.counts()["queued"] == 1  # later again
    exchange.queue(image.id, second.id, "", "anna")
    exchange.settle(exchange.due()[0].number, "")
    assert exchange.counts() == {"queued": 0, "sent": 1, "failed": 0, "stale": 1}
    assert {one.reading for one in exchange.sends(image.id)} == {first.id, second.id}


def test_what_a_reader_took_back_does_not_go(store, tmp_path):
    """An archive gives nothing back: "done" by mistake may be undone before it goes, and while the archive is away."""
    exchange = store.exchange
    since = exchange.switched(True, "signed")
    image = kept(store, b"1")
    read(store, image, "one")
    assert exchange.queue_signed(since, 60) == 0  # the reader has just said "done"
    read(store, image, "back", finished=False)
    assert exchange.queue_signed(since) == 0
    again = read(store, image, "two")
    assert exchange.queue_signed(since) == 1
    read(store, image, "back again", finished=False)  # while the archive was away
    read(store, image, "somebody else", reader="ben", finished=False)
    courier = Courier(store, exchange, Settings(peer=Peer("PACS", "127.0.0.1", 9)), {})
    assert courier.send_due(None) == 0  # nothing is made, no peer is called
    (stale,) = exchange.sends(image.id)
    assert (stale.reading, stale.state) == (again.id, "stale")
    final = read(store, image, "three")
    assert exchange.queue_signed(since) == 1
    (one,) = exchange.due()
    assert one.reading == final.id and not exchange.drop_taken_back(one)


def test_an_object_that_is_fetched_and_pushed_is_one_image(store, tmp_path):
    """Heads of files differ by who wrote them: by their bytes alone each film would be read, and answered, twice."""
    courier = Courier(store, store.exchange, Settings(), {})
    path = write_radiograph(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8))
    other = pydicom.dcmread(path)
    other.file_meta.ImplementationVersionName = "ANOTHER SENDER"
    other.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    fetched, pushed = path.read_bytes(), (tmp_path / "b.dcm").read_bytes()
    assert fetched != pushed
    assert (
        object_of(fetched)[0] == object_of(pushed)[0] == other.file_meta.MediaStorageSOPInstanceUID
    )
    image = courier.take(fetched)
    store.exchange.arrived(object_of(fetched)[0], image.id)
    courier._receive(pushed)
    assert [one.id for one in store.images.page().images] == [image.id]
    other.PatientID = "corrected"  # another content under the same UID is not thrown away
    other.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    courier._receive((tmp_path / "b.dcm").read_bytes())
    assert store.images.page().total == 2
    # and what was pushed first is not fetched
    third = write_radiograph(tmp_path / "c.dcm", np.ones((8, 8), np.uint8))
    header = pydicom.dcmread(third)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3.99"
    header.save_as(third, enforce_file_format=True)
    courier._receive(third.read_bytes())
    assert store.exchange.known(["1.2.3.99"]) == {"1.2.3.99"}
    assert object_of(b"") == object_of(fetched[:140] + b"\0" * 9) == ("", 0)


def test_labels_that_a_reader_stated_go_back(store):
    """A report of labels alone would read as nothing found."""
    image = kept(store, b"1")
    said = Said(image.id, "anna", "one", labels={"nodule": True, "mass": False})
    reading = store.readings.save(said, "anna")[0].reading
    one = store.exchange.queue(image.id, reading.id, "", "anna")
    task = Courier(store, store.exchange, Settings(), {})._task(one, image)
    assert (task.boxes, task.reader, task.normal) == ((), "anna", None)
    assert task.labels == (("mass", False), ("nodule", True))


def test_a_model_that_gave_no_answer_has_found_nothing_out(store):
    """An image is done by any model: an empty report of one that failed, or has not looked yet, would read as no finding."""
    exchange = store.exchange
    since = exchange.switched(True, "always")
    image = kept(store, b"1")
    store.images.serve([("first", "first", ["a"]), ("other", "other", ["a"])])
    claim = store.images.claim("w", ["first", "other"])
    answers = {"first": "it ran out of memory", "other": []}
    assert store.images.finish(claim, "w", Facts(9, 9), answers, 0.1, first="first")
    assert store.images.get(image.id).state == "done"
    assert exchange.queue_done(since, "first") == 0
    assert exchange.queue_done(since, "new") == 0  # served from now on: it has not looked yet
    assert exchange.queue_done(since, "other") == 1
    assert exchange.queue_done(since, "other") == 0  # and each once


def test_nothing_from_before_it_was_switched_on_goes(store):
    exchange = store.exchange
    exchange.switched(False, "never")
    image = kept(store, b"1")
    read(store, image, "before")
    time.sleep(0.01)
    since = exchange.switched(True, "signed")
    assert exchange.queue_signed(since) == 0
    assert exchange.switched(True, "signed") == pytest.approx(since, abs=0.1)  # a restart forgets nothing  # fmt: skip
    exchange.switched(False, "never")
    assert exchange.switched(True, "signed") > since


def test_a_try_is_repeated_for_hours_and_then_ends(store):
    exchange = store.exchange
    image = kept(store, b"1")
    one = exchange.queue(image.id, "", "m", "anna")
    for _ in range(12):
        assert exchange.counts()["failed"] == 0
        exchange.settle(one.number, "away", passes=True)
    assert exchange.counts()["failed"] == 1
    assert exchange.sends(image.id)[0].reason == "away"


def test_a_patient_is_forgotten_by_number_and_is_not_fetched_again(tmp_path, capsys):
    place = tmp_path / "store"
    store = open_store(place)
    image = kept(store, b"1")
    other = kept(store, b"2")
    exchange = store.exchange
    pseudonym = exchange.pseudonym("PAT-1", "hospital")
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE images SET patient = ? WHERE id = ?", (pseudonym, image.id)
        )
    assert [one.id for one in exchange.unnamed()] == [image.id]
    exchange.name(pseudonym, "PAT-1", "hospital")
    assert exchange.unnamed() == []
    exchange.arrived("1.2.3.4", image.id)
    path = store.files.place(image.sha256)
    assert path.is_file()
    store.close()

    number = tmp_path / "number"
    number.write_text("PAT-1\n")
    cli.main(["store", "forget", "--store", str(place), "--patient-file", str(number)])
    said = capsys.readouterr().out
    assert "1 image forgotten" in said and "PAT-1" not in said and not path.exists()
    store = open_store(place)
    assert [one.id for one in store.images.page().images] == [other.id]
    assert store.exchange.known(["1.2.3.4", "9"]) == {"1.2.3.4"}
    assert store.exchange.pseudonyms_of("PAT-1") == [exchange.pseudonym("PAT-1")]
    rows = store.audit.rows()
    assert rows[-1].action == "images forgotten"
    assert not any("PAT-1" in f"{row.details}{row.who}" or pseudonym in f"{row.details}" for row in rows)  # fmt: skip
    store.close()
    with pytest.raises(SystemExit):
        cli.main(["store", "forget", "--store", str(place), "--patient-file", str(number)])
    assert "PAT-1" not in capsys.readouterr().err


def test_a_user_sends_the_own_reading_alone(config, tmp_path):
    """The report is signed with the reader's name."""
    asked = dataclasses.replace(config, archive_peer="PACS@127.0.0.1:9")
    app = create_app(asked, token="", work=False)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        store = app.state.service.store
        image = kept(store, b"1")
        for name in ("anna", "ben"):
            store.people.add(name, "long enough, is it")
            read(store, image, name, reader=name)
        signed = client.post(
            "/api/session", json={"user": "anna", "password": "long enough, is it"}
        )
        word = {"x-csrf-token": signed.json()["csrf"]}
        send_it = f"/api/images/{image.id}/send"
        assert client.post(send_it, json={"reader": "ben"}, headers=word).status_code == 403
        assert client.post(send_it, json={"reader": "anna"}, headers=word).status_code == 202
        assert [one.who for one in store.exchange.sends(image.id)] == ["anna"]
