"""What `make figures` does: README's commands, what they print, and the picture that is drawn from them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support import script_module

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("overview.svg", "overview-narrow.svg")


@pytest.fixture(scope="module")
def figures():
    return script_module(ROOT / "scripts" / "figures.py")


def test_each_command_gets_what_it_prints_now(figures, tmp_path):
    block = (
        "$ echo one \\\n    two\nold words\n$ true\n$ echo pack: 3/9 images, 1.5/s, 4 s left; pwd\n"
    )
    told = figures.answered(block, tmp_path)
    assert told.startswith("$ echo one \\\n    two\none two\n$ true\n$ echo pack")
    assert "old words" not in told and "s left\n" not in told.split("; pwd\n")[1]


def test_a_command_that_fails_ends_it(figures, tmp_path):
    with pytest.raises(SystemExit, match="exit status 3"):
        figures.answered("$ echo no; exit 3\n", tmp_path)


def test_the_readme_shows_commands_with_their_output(figures):
    text = figures.README.read_text("utf-8")
    (block,) = re.findall(figures._BLOCK, text)
    found = figures.commands(block)
    verbs = [command.split()[1] for command in found]
    assert verbs == ["pack", "pretrain", "detect", "detect", "evaluate"]
    assert len(block.splitlines()) > 3 * len(found)
    assert len(text.splitlines()) < 150


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_of_the_readme_follow_the_screen(figures, name):
    text = (figures.FIGURES / name).read_text("utf-8")
    ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    for words in ("Images without labels", "Barlow Twins", "A box, and why", "with intervals"):
        assert words in text
    assert name in figures.README.read_text("utf-8")


@pytest.mark.long
def test_the_picture_of_toy_runs(figures, tmp_path):
    toy = (
        "$ twinray pack --format phantom --phantom-images 60 --phantom-labelled 0.7 --test 0.4 --size 64 --out pack\n"
        "$ twinray pretrain --data pack --arch resnet18 --size 32 --batch-size 8 --projector 16 16 --epochs 1 --out runs/pretrained\n"
        "$ for init in random runs/pretrained; do twinray detect --data pack --init $init --arch resnet18 --size 64 "
        "--fpn-channels 16 --box-head-width 16 --epochs 1 --bootstrap 10 --out runs/of-$(basename $init); done\n"
        "$ mv runs/of-random runs/random; mv runs/of-pretrained runs/barlow-twins\n"
    )
    told = figures.answered(toy, tmp_path)
    assert "runs/pretrained: finished" in told
    drawn = figures.draw(tmp_path, bootstrap=10)
    assert tuple(drawn) == NAMES
    for picture in drawn.values():
        ElementTree.fromstring(picture.decode("utf-8"))
