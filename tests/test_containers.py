"""The container and compose files: every option exists, nothing is open or secret that should not be. No container is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from twinray import cli
from twinray.serving.config import ServeConfig
from twinray.verbs import VERBS, load

FOLDER = Path(__file__).resolve().parents[1] / "containers"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
FILE = (FOLDER / "Containerfile").read_text(encoding="utf-8")


def options_of(words: list[str], monkeypatch) -> ServeConfig:
    """What the real command line makes of a command."""
    read: list[ServeConfig] = []
    take = {VERBS["serve"].run: read.append, VERBS["serve"].command: read.append}
    monkeypatch.setattr(cli, "load", lambda where: take.get(where) or load(where))
    cli.main(words)
    return read.pop()


def test_the_command_of_each_file_is_one_that_the_program_takes(monkeypatch):
    found = options_of(COMPOSE["services"]["twinray"]["command"], monkeypatch)
    assert found.archive == "http://orthanc:8042/dicom-web" and found.archive_plain
    assert found.send_back == "never"  # nothing goes back unless somebody switches it on
    assert found.listen_dicom == 11112 and found.callers == ("ORTHANC",)
    assert found.store.startswith("postgresql://") and "password" not in found.store
    assert found.archive_login_env in COMPOSE["services"]["twinray"]["environment"]
    words = re.search(r"^CMD \[(.*)\]$", FILE, re.M)[1]
    assert options_of(re.findall(r'"([^"]+)"', words), monkeypatch).store == "/store"


def test_secrets_come_from_outside_and_are_asked_for():
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|LOGIN", name):
                assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) == {
        "TWINRAY_TOKEN",
        "POSTGRES_PASSWORD",
        "ORTHANC_PASSWORD",
        "TWINRAY_RUN",
    }


def test_only_this_machine_reaches_the_ports_and_the_database_has_none():
    services = COMPOSE["services"]
    assert "ports" not in services["database"] and services["database"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_the_server_has_no_rights_and_writes_in_its_folder_alone():
    server = COMPOSE["services"]["twinray"]
    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert [v for v in server["volumes"] if not v.endswith(":ro")] == ["images:/store"]
    lines = FILE.splitlines()
    assert lines.index("USER 10001") > max(i for i, one in enumerate(lines) if "RUN" in one)


def test_named_volumes_networks_and_images_are_there_and_pinned():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            name = volume.partition(":")[0]
            assert name.startswith("$") or name in COMPOSE["volumes"]
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert "build" in service or re.search(r":\d[\w.-]+$", service["image"])


@pytest.mark.parametrize("source", ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"])  # fmt: skip
def test_what_is_copied_is_there(source):
    assert (FOLDER.parent / source).exists() and source in FILE


FILES = [FOLDER / name for name in ("Containerfile", "cpu.Dockerfile", "cuda.Dockerfile")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_stands_on_a_pinned_python_and_runs_as_a_user_by_number(path):
    text = path.read_text(encoding="utf-8")
    # podman asks which registry a short name is of
    assert re.search(r"^FROM docker\.io/library/python:3\.11-slim-bookworm$", text, re.M)
    assert "--uid 10001" in text and re.search(r"^USER 10001$", text, re.M)
    assert text.count("pip install") == text.count("--constraint"), "a version is not pinned"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_packs_and_runs_in_a_clone_do_not_get_into_an_image(path):
    # a later rm takes nothing out of the layer that COPY made
    text = path.read_text(encoding="utf-8")
    copied = {
        word.removeprefix("./")
        for words in re.findall(r"^(?:COPY|ADD) (.+) \S+$", text, re.M)
        for word in words.split()
    }
    rules = (FOLDER.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*"  # nothing but what is named
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert copied == allowed == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"}
    assert all((FOLDER.parent / one).exists() for one in allowed)
