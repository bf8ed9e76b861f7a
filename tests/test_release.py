"""What a release says of itself, and the workflow files that make it: nothing in them is missing or out of date."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from support import script_module

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "release_notes.py"
CHANGELOG = """# Changelog

## Unreleased

- later

## 0.2.0, 2026-12-01

### Added

- a verb ([page](docs/x.md), [paper](https://example.org/p))

## 0.2.0rc1

- early
"""


@pytest.fixture(scope="module")
def script():
    return script_module(SCRIPT)


def test_notes_are_the_section_of_the_version_alone(script):
    told = script.notes("v0.2.0", CHANGELOG, "0.2.0")
    assert told == "### Added\n\n- a verb (page, [paper](https://example.org/p))\n"
    assert script.notes("0.2.0rc1", CHANGELOG, "0.2.0rc1") == "- early\n"


@pytest.mark.parametrize(
    ("tag", "version", "words"),
    [("v0.3.0", "0.2.0", "version 0.2.0"), ("v0.1.0", "0.1.0", "no section")],
)
def test_a_release_without_notes_or_of_another_version_is_refused(script, tag, version, words):
    with pytest.raises(ValueError, match=words):
        script.notes(tag, CHANGELOG, version)


def test_a_tag_that_is_not_the_version_ends_the_workflow():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "v99.0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_workflows_call_what_is_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert steps[0]["uses"].startswith("actions/checkout@")
        for words in (step["run"] for step in steps if "run" in step):
            for name in re.findall(r"(?:scripts/[\w.]+|\.ci/run)", words):
                assert (ROOT / name).is_file(), (path.name, name)
            assert set(re.findall(r"\bmake ([\w-]+)", words)) <= targets


def test_the_matrix_has_every_python_that_the_package_may_be_installed_on():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tried = workflow["jobs"]["matrix"]["strategy"]["matrix"]["python"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">={tried[0]}"
    assert tried == [f"3.{minor}" for minor in range(11, 11 + len(tried))]


def test_the_workflow_tries_each_extra_alone_and_all_together():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    cells = " ".join(workflow["jobs"]["extras"]["strategy"]["matrix"]["extras"]).split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "docs"}
    alone = [cell for cell in cells if "," not in cell]
    (together,) = (cell.split(",") for cell in cells if "," in cell)
    assert sorted(alone) == sorted(together) == sorted(extras)


def test_the_sdist_is_what_git_tracks_whatever_else_lies_in_the_clone(tmp_path):
    told = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.skip("git tracks nothing here: an unpacked sdist")
    tracked = {name for name in told.stdout.splitlines() if (ROOT / name).is_file()}
    strays = ["packs/chest/images.bin", "runs/a/model.safetensors", "docs/scan.png", "docs/patients.csv", "docs/_build/index.md",
              "tests/__pycache__/support.cpython-311.pyc", "tests/scan.dcm", "demo-output/report.html", ".venv/lib/a.py"]  # fmt: skip
    for name in [*tracked, *strays]:
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        if name in tracked:
            shutil.copyfile(ROOT / name, tmp_path / "clone" / name)
        else:
            (tmp_path / "clone" / name).write_text("a stray")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "dist"],
        cwd=tmp_path / "clone", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(made) as file:
        members = {one.name.partition("/")[2] for one in file.getmembers() if one.isfile()}
    own = {"PKG-INFO", "setup.cfg"}
    assert {one for one in members - own if ".egg-info/" not in one} == tracked
