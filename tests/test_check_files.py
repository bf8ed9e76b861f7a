"""The hook that keeps medical images, pictures, large files and keys out of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import script_module

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "check_files.py"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def check():
    return script_module(SCRIPT)


REFUSED = {
    "notes.txt": b"\0" * 128 + b"DICM" + b"\0" * 20,
    "scan.DCM": b"no preamble",
    "tests/picture.dat": b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
    "src/photo.bin": b"\xff\xd8\xff\xe0" + b"\0" * 20,
    "src/photo.webp": b"RIFF\0\0\0\0WEBPVP8 ",
    "data/scan.tiff": b"II*\0" + b"\0" * 20,
    "data/empty.jpg": b"",
    "large.txt": b"x" * 1_000_001,
    "id_rsa": ("first line\n" + KEY).encode(),
}
TAKEN = {
    "docs/figures/chart.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
    "src/module.py": b"print('DICM')\n",
    "docs/keys.md": b"A key begins with BEGIN RSA PRIVATE" + b" KEY.\n",
    "chart.svg": b"<svg/>",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(check, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(REFUSED[name])
    assert check.main([name]) == 1
    assert capsys.readouterr().out.startswith(f"{name}: ")


@pytest.mark.parametrize("name", TAKEN)
def test_taken(check, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(TAKEN[name])
    assert check.main([name]) == 0
    assert capsys.readouterr().out == ""


def test_the_repository_itself(tmp_path):
    root = SCRIPT.parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
