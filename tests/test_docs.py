"""Every command and option that a page shows is one that the program takes; the real parser decides."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import twinray
from support import script_module
from twinray import cli
from twinray.checks import options
from twinray.data.readers.formats import FORMATS
from twinray.verbs import VERBS, load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def blocks(text: str) -> Iterator[str]:
    for kind, block in _BLOCK.findall(text):
        if kind.strip() not in ("python", "yaml", "json", "{toctree}", "{contents}", "{glossary}"):
            yield block


def commands(block: str) -> Iterator[list[str]]:
    """Words of each ``twinray ...`` of a block of a shell."""
    for line in block.replace("\\\n", " ").splitlines():
        if "twinray " not in line:
            continue
        lexer = shlex.shlex(
            re.sub(r"\$\{?\w+\}?", "0", line), posix=True, punctuation_chars="|;&<>"
        )
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # what a command prints may have one quote
            assert not re.match(r"\s*(\$ )?twinray ", line), line
            continue
        starts = [at for at, word in enumerate(words) if word == "twinray"]
        for start in starts:
            before = words[start - 1] if start else "$"
            if before in ("$", "do", "then", "-m") or set(before) <= set("|;&") or "=" in before:
                rest = words[start + 1 :]
                ends = [at for at, word in enumerate(rest) if set(word) <= set("|;&<>")]
                yield rest[: ends[0] if ends else None]


SHOWN = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)[:90]}")
    for page in PAGES
    for block in blocks(page.read_text("utf-8"))
    for words in commands(block)
]


@pytest.mark.parametrize("words", SHOWN)
def test_the_program_takes_every_command_that_a_page_shows(
    words, monkeypatch, capsys, kept_parsers
):
    monkeypatch.chdir(ROOT)
    taken = []
    does = {where for verb in VERBS.values() for where in (verb.run, verb.command)}
    monkeypatch.setattr(cli, "load", lambda where: taken.append if where in does else load(where))
    with contextlib.suppress(SystemExit):  # a refusal, or the end of --help
        cli.main(words)
    refused = capsys.readouterr().err
    assert not refused
    assert taken or {"--help", "--print_config", "--completion"} & set(words)


# --- options that a sentence names ---------------------------------------------------------------------------------------

KNOWN = {
    option.flag: option for verb in VERBS.values() for option in options(load(verb.config)).values()
}
EVERY = {"--help", "--config", "--print_config", "--version", "--completion"}


def negated(flag: str) -> str:
    """A switch that is on by default is turned off by ``--no-NAME``."""
    return flag.replace("--no-", "--", 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_that_a_sentence_names_exists(page):
    text = page.read_text("utf-8")
    scripts = {
        ROOT / name for name in re.findall(r"(?:benchmarks|scripts)/[\w/]+\.(?:py|sh)", text)
    }
    assert all(script.is_file() for script in scripts)
    scripts |= {part for one in scripts for part in one.with_suffix("").glob("*.py")}
    taken = {flag for script in scripts for flag in _FLAG.findall(script.read_text("utf-8"))}
    unknown = []
    for span in _SPAN.findall(_BLOCK.sub("", text)):
        words = span.split()
        verb = words[1] if words[0] == "twinray" and len(words) > 1 else words[0]
        own = (
            {o.flag for o in options(load(VERBS[verb].config)).values()}
            if verb in VERBS
            else set(KNOWN)
        )
        known = own | EVERY | (taken if verb not in VERBS else set())
        unknown += [span for word in _FLAG.findall(span) if not {word, negated(word)} & known]
    assert not unknown


# --- Python --------------------------------------------------------------------------------------------------------------

PYTHON = [
    pytest.param(block, id=f"{page.stem}: {block.strip().splitlines()[0][:60]}")
    for page in PAGES
    for kind, block in _BLOCK.findall(page.read_text("utf-8"))
    if kind.strip() == "python"
]


def resolved(node: ast.expr, names: dict[str, object]) -> object:
    """What a dotted name stands for; None where it does not begin with something imported."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("block", PYTHON)
def test_names_and_arguments_of_python_on_a_page_exist(block):
    tree = ast.parse(textwrap.dedent(block))
    names: dict[str, object] = {"twinray": twinray}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("twinray"):
            module = importlib.import_module(node.module)
            names |= {one.asname or one.name: getattr(module, one.name) for one in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            resolved(node, names)
        if isinstance(node, ast.Call) and (called := resolved(node.func, names)) is not None:
            taken = inspect.signature(called).parameters
            assert {word.arg for word in node.keywords if word.arg} <= set(taken)


# --- examples in docstrings ----------------------------------------------------------------------------------------------

SOURCES = ROOT / "src"
EXAMPLES = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in sorted(SOURCES.rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_give_what_they_show(module):
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed


# --- pages that are made from the code -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated_pages():
    return script_module(ROOT / "docs" / "extensions" / "generated_pages.py")


@pytest.mark.parametrize("name", FORMATS)
def test_a_data_sheet_begins_with_what_the_source_is(name, generated_pages):
    lines = generated_pages.data_page(name, FORMATS[name]).splitlines()
    assert lines[0] == name
    assert lines[3].endswith(".") and "->" not in lines[3]


def test_charts_follow_the_theme_of_the_page():
    """A chart has light words for dark pages: on white paper nobody could read them."""
    rules = (ROOT / "docs" / "static" / "site.css").read_text("utf-8")
    assert re.search(r'img\[src\$="\.svg"\] \{ background: transparent; color-scheme: light', rules)
    assert rules.count("color-scheme: dark;") == 2  # by the reader's switch, and by the system
