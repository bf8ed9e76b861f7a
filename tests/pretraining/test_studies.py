"""The papers' recipes as files: the same options, other values."""

from pathlib import Path

import pytest
import yaml

from support import twinray

STUDIES = Path(__file__).parents[2] / "studies" / "verbs"
RECIPES = sorted(STUDIES.glob("*-pretrain.yaml"))


def test_recipes_differ_in_values_only():
    first, second = (yaml.safe_load(path.read_text()) for path in RECIPES)
    assert list(first) == list(second)
    assert first != second


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_command_takes_a_recipe(path, tmp_path):
    done = twinray(
        "pretrain",
        "--config",
        path,
        "--data",
        tmp_path / "pack",
        "--out",
        tmp_path / "run",
        "--print_config",
    )
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    assert {name: resolved[name] for name in yaml.safe_load(path.read_text())} == yaml.safe_load(
        path.read_text()
    )
