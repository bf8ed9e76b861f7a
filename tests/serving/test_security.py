"""Nobody is let in who was not: tokens, sessions, foreign pages and hosts, what is kept out of logs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from dicom_support import write_radiograph
from serving_support import LocalCrew, png
from support import twinray
from twinray.errors import InputError
from twinray.serving.app.application import create_app
from twinray.serving.app.guard import COOKIE, Rates
from twinray.serving.config import ServeConfig
from twinray.serving.log import log_to

TOKEN = "a-token-of-the-tests-0123456789"
BASE = "http://127.0.0.1:8000"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def app(config):
    return create_app(config, token=TOKEN, work=False)


@pytest.fixture
def client(app):
    with TestClient(app, base_url=BASE) as one:
        yield one


def routes(client) -> list[tuple[str, str]]:
    described = client.get("/openapi.json", headers=BEARER).json()
    found = [
        (method.upper(), path.replace("{id}", "0123456789abcdef"))
        for path, item in described["paths"].items()
        for method in item
    ]
    assert len(found) > 14
    return [*found, ("GET", "/openapi.json")]


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN[:-1]}"}, {"cookie": f"{COOKIE}={TOKEN}"}, {"x-forwarded-for": "127.0.0.1"},
        {"authorization": "Bearer \xff"},
    ],
)  # fmt: skip
def test_no_route_answers_without_the_token(client, headers):
    for method, path in routes(client):
        if (method, path) in (("GET", "/health"), ("POST", "/api/session")):
            continue
        answer = client.request(
            method, path, headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        )
        assert answer.status_code == 401, (method, path)
        assert set(answer.json()) == {"detail"}
    assert client.get("/health").json() == {"status": "ok", "ready": True}
    assert client.post("/api/session", json={"token": "wrong"}).status_code == 401


def test_methods_and_paths_that_are_none_do_not_answer_either(client):
    for method in ("PUT", "PATCH", "TRACE", "HEAD", "OPTIONS", "PROPFIND"):
        assert client.request(method, "/api/images").status_code == 401
    for path in (
        "/api/",
        "/api/nothing",
        "/api/images/",
        "//api/images",
        "/API/images",
        "/api/images/%2e%2e",
    ):
        assert client.get(path).status_code in (401, 404), path


def test_the_token_lets_in_and_a_short_one_is_refused_at_the_start(client, config):
    assert client.get("/api/images", headers=BEARER).status_code == 200
    with pytest.raises(InputError, match="16 characters"):
        create_app(config, token="short", work=False)


def sign_in(client) -> tuple[str, dict[str, str]]:
    answer = client.post("/api/session", json={"token": TOKEN})
    assert answer.status_code == 201
    return answer.cookies[COOKIE], {"x-csrf-token": answer.json()["csrf"]}


def test_a_session_is_strict_and_changes_need_its_word(client):
    answer = client.post("/api/session", json={"token": TOKEN})
    flags = answer.headers["set-cookie"].lower()
    assert "httponly" in flags and "samesite=strict" in flags and "path=/" in flags
    assert TOKEN not in answer.text and TOKEN not in flags
    word = {"x-csrf-token": answer.json()["csrf"]}
    assert client.get("/api/session").json()["csrf"] == word["x-csrf-token"]
    file = [("file", ("a.png", png()))]
    assert client.post("/api/images", files=file).status_code == 403
    assert client.post("/api/images", files=file, headers={"x-csrf-token": "x"}).status_code == 403
    image = client.post("/api/images", files=file, headers=word).json()["images"][0]["id"]
    body = {"reader": "anna"}
    assert client.post(f"/api/images/{image}/marks", json=body).status_code == 403
    assert client.post(f"/api/images/{image}/marks", json=body, headers=word).status_code == 201
    assert client.delete("/api/session").status_code == 403
    cookie = client.cookies[COOKIE]
    assert client.delete("/api/session", headers=word).status_code == 204
    client.cookies.set(COOKIE, cookie)  # the session ended at the server too
    assert client.get("/api/images").status_code == 401


def test_a_planted_session_is_never_gone_on_with(client):
    client.cookies.set(COOKIE, "planted-by-somebody")
    assert client.get("/api/images").status_code == 401
    first, _ = sign_in(client)
    assert first != "planted-by-somebody"
    client.cookies.clear()
    client.cookies.set(COOKIE, first)
    second, _ = sign_in(client)
    assert second != first
    client.cookies.clear()
    client.cookies.set(COOKIE, first)
    assert client.get("/api/images").status_code == 401  # the one before ended


def test_a_user_reads_under_the_own_name_only(client):
    store = client.app.state.service.store
    store.people.add("anna", "long enough, is it")
    image = client.post("/api/images", files=[("file", ("a.png", png()))], headers=BEARER).json()[
        "images"
    ][0]["id"]
    answer = client.post("/api/session", json={"user": "anna", "password": "long enough, is it"})
    word = {"x-csrf-token": answer.json()["csrf"]}
    assert (answer.json()["who"], answer.json()["named"]) == ("anna", True)
    as_ben = client.post(f"/api/images/{image}/marks", json={"reader": "ben"}, headers=word)
    assert as_ben.status_code == 403
    own = client.post(f"/api/images/{image}/marks", json={"reader": "anna"}, headers=word)
    assert own.status_code == 201
    assert [row.who for row in store.audit.rows() if row.action == "reading saved"] == ["anna"]
    store.people.disable("anna")
    assert client.get("/api/images").status_code == 401


def test_users_close_a_server_without_a_token(config):
    with TestClient(create_app(config, token="", work=False), base_url=BASE) as client:
        assert client.get("/api/images").status_code == 200
        service = client.app.state.service
        service.store.people.add("anna", "long enough, is it")
        service._has_users = (0.0, False)
        assert client.get("/api/images").status_code == 401


def test_guessing_is_slowed_down(client):
    tries = [
        client.post("/api/session", json={"token": f"guess {i}"}).status_code for i in range(12)
    ]
    assert tries[0] == 401 and tries[-1] == 429
    assert int(client.post("/api/session", json={"token": TOKEN}).headers["retry-after"]) >= 1


def test_an_address_has_a_rate(config, monkeypatch):
    import dataclasses

    slow = dataclasses.replace(config, rate=0.5)
    with TestClient(create_app(slow, token="", work=False), base_url=BASE) as client:
        answers = [client.get("/api/images") for _ in range(8)]
        assert [one.status_code for one in answers][:5] == [200] * 5
        assert answers[-1].status_code == 429 and answers[-1].headers["retry-after"]
        lives = [client.get("/health").status_code for _ in range(8)]
        assert lives[:5] == [200] * 5 and lives[-1] == 429  # it asks the database of strangers, too
        assert client.get("/").status_code == 200
    rates = Rates(1.0, 2.0)
    for i in range(20_000):  # addresses cannot fill the memory
        rates.wait(str(i))
    assert len(rates._left) <= 10_000


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "a b"]
)
def test_other_names_for_this_server_are_refused(client, host):
    for path in ("/", "/health", "/api/images"):
        answer = client.get(path, headers={**BEARER, "host": host})
        assert answer.status_code == 421, (path, host)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.0.2.7"]
)
def test_own_names_and_addresses_are_taken(client, host):
    assert client.get("/api/images", headers={**BEARER, "host": host}).status_code == 200


@pytest.mark.parametrize("token", [TOKEN, ""])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9000"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)  # fmt: skip
def test_foreign_pages_are_refused_also_where_no_token_is_needed(config, token, headers):
    with TestClient(create_app(config, token=token, work=False), base_url=BASE) as client:
        auth = BEARER if token else {}
        for method, path in (
            ("GET", "/api/images"),
            ("POST", "/api/images"),
            ("POST", "/api/session"),
        ):
            answer = client.request(method, path, headers={**auth, **headers})
            assert answer.status_code == 403, (method, path)
        assert client.get("/api/images", headers={**auth, "origin": BASE}).status_code == 200


def test_a_link_from_elsewhere_shows_the_page_and_nothing_more(client):
    walked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=walked).status_code == 200
    assert client.get("/metrics", headers=walked).status_code == 401


def test_answers_carry_a_strict_policy(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy
    assert "frame-ancestors 'none'" in policy
    for answer in (page, client.get("/api/images", headers=BEARER), client.get("/api/images")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
    assert client.get("/api/images", headers=BEARER).headers["cache-control"] == "no-store"
    assert "server" not in page.headers


@pytest.mark.parametrize(
    "path",
    [
        "/web/../config.py", "/web/..%2f..%2fconfig.py", "/web/%2e%2e/%2e%2e/run.py", "/web//etc/passwd", "/web/__init__.py",
        "/web/..%5c..%5cconfig.py", "/web/index.html%00.js", "/web/" + "a/" * 500,
    ],
)  # fmt: skip
def test_no_file_but_the_pages_own_is_given_out(client, path):
    assert client.get(path).status_code == 404


def test_the_answer_to_a_bad_request_does_not_repeat_it(client):
    body = {"reader": "CANARY^NAME", "marks": "CANARY^NAME", "CANARY^NAME": 1}
    answer = client.post("/api/images/0123456789abcdef/marks", json=body, headers=BEARER)
    assert answer.status_code == 422
    assert "CANARY^NAME" not in answer.text.replace("body.CANARY^NAME", "")


NAME, NUMBER, BIRTH, ACCESSION = "CANARY^NAME", "CANARYNUMBER", "19010203", "CANARYACCESS"


def test_a_canary_patient_is_in_no_log_metric_address_answer_or_column_but_those_documented(
    config, detect_run, tmp_path, capfd
):
    """A file with a name in every place, taken, analysed, read, refused, failed; then everything is searched for it."""
    app = create_app(config, token=TOKEN, work=False)
    service = app.state.service
    service.crew = LocalCrew(service, [detect_run])
    log_to(tmp_path / "log")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)
    identity = {
        "PatientName": NAME, "PatientID": NUMBER, "PatientBirthDate": BIRTH, "AccessionNumber": ACCESSION,
        "StudyDate": "20200101", "StudyDescription": NAME, "InstitutionName": NAME,
    }  # fmt: skip
    write_radiograph(tmp_path / "x.dcm", pixels, **identity)
    whole = (tmp_path / "x.dcm").read_bytes()
    answers = []
    with TestClient(app, base_url=BASE, headers=BEARER) as client:
        sent = [
            ("file", (f"{NAME}.dcm", whole)),
            ("file", (f"{NAME}-cut.dcm", whole[:2000])),
            ("file", (f"{NAME}.txt", NAME.encode())),
        ]
        upload = client.post("/api/images", files=sent)
        ids = [one["id"] for one in upload.json()["images"]]
        service.crew.run()
        for image in ids:
            paths = ("", "/display", "/pixels", "/heat-map?box=0", "/readings")
            answers += [client.get(f"/api/images/{image}{path}") for path in paths]
        answers.append(client.post(f"/api/images/{ids[0]}/marks", json={"reader": NAME}))
        answers.append(
            client.post(f"/api/images/{ids[0]}/marks", json={"reader": "anna", "text": NAME})
        )
        listed = client.get(f"/api/images?q={NAME}")
        assert listed.json()["total"] == 2
        answers += [
            client.get(path)
            for path in ("/metrics", "/ready", "/api/marks", "/api/models", f"/{NAME}")
        ]
        with service.store.database.engine.connect() as one:
            from twinray.serving.store.models import Base

            columns = {
                f"{table.name}.{column.name}"
                for table in Base.metadata.sorted_tables
                for row in one.execute(sa.select(table)).mappings()
                for column in table.columns
                if re.search("CANARY|19010203", json.dumps(row[column.name]))
            }
    log_to(None)
    assert columns == {"images.name", "readings.text"}
    logged = (tmp_path / "log").read_text() + "".join(capfd.readouterr())
    assert "image analysed" in logged and "image failed" in logged
    assert not re.search("CANARY|19010203", logged) and TOKEN not in logged
    for answer in answers:
        told = answer.text.replace(f'"name":"{NAME}.dcm"', "").replace(
            f'"name":"{NAME}-cut.dcm"', ""
        )
        told = told.replace(f'"text":"{NAME}"', "").replace(f'"text": "{NAME}"', "")
        assert not re.search("CANARY|19010203", told + str(answer.headers)), answer.url


def test_a_fault_is_logged_without_its_words(client, capfd, monkeypatch):
    def fault(*_args, **_kwargs):
        raise RuntimeError("CANARY^NAME")

    monkeypatch.setattr(client.app.state.service.store.images, "page", fault)
    answer = client.get("/api/images", headers=BEARER)
    assert answer.status_code == 500 and "CANARY" not in answer.text
    logged = capfd.readouterr().err
    assert "RuntimeError" in logged and "CANARY" not in logged
    assert answer.headers["x-request-id"] in answer.json()["detail"]


def test_an_open_address_needs_a_token_or_users(detect_run, tmp_path, cli, monkeypatch):
    monkeypatch.delenv("TWINRAY_TOKEN", raising=False)
    status, _, err = cli(
        "serve", detect_run, "--store", tmp_path / "s", "--host", "0.0.0.0", "--port", 0
    )
    assert status == 2 and "TWINRAY_TOKEN" in err


def test_other_runs_are_refused(blob_pack, tmp_path, cli):
    status, _, err = cli("serve", blob_pack, "--store", tmp_path / "s", "--port", 0)
    assert status == 2 and "finished detect or classify run" in err


def test_a_store_has_one_server(config, app):
    done = twinray("serve", config.runs[0], "--store", config.store, "--port", 0, limit=120)
    assert done.returncode == 2
    assert "in use by another process" in done.stderr and "--store" in done.stderr


def test_options_of_the_store_are_for_this_user_alone(config, app):
    from pathlib import Path

    folder = Path(config.store)
    for path in (
        folder,
        folder / "images",
        folder / "incoming",
        folder / "cache",
        folder / "key",
        folder / "store.sqlite",
    ):
        assert path.stat().st_mode & 0o77 == 0, path


def test_serve_config_has_no_secret():
    """Options stand in process lists and shell histories; the name of a variable (``_env``) may, what it holds may not."""
    assert not [
        name
        for name in ServeConfig.__dataclass_fields__
        if ("token" in name or "password" in name) and not name.endswith("_env")
    ]
