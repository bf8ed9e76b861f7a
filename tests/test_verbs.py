"""One table of verbs: what the command line and the package offer follows from it."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twinray
from twinray.data.pack import open_pack
from twinray.verbs import VERBS, Verb, load, public_names


@pytest.mark.parametrize("name", VERBS)
def test_a_row_of_the_table_is_all_that_a_verb_needs(name):
    verb = VERBS[name]
    config = load(verb.config)
    fields = {field.name: field for field in dataclasses.fields(config)}
    assert config.__dataclass_params__.frozen
    assert set(verb.positional) <= set(fields)
    for function in {verb.run, verb.command or verb.run}:
        first, *others = inspect.signature(load(function)).parameters.values()
        assert first.annotation == config.__name__
        assert all(other.default is not inspect.Parameter.empty for other in others)
    assert getattr(twinray, verb.python or name).__wrapped__ is load(verb.run)
    assert getattr(twinray, config.__name__) is config


def test_the_package_offers_the_table_and_nothing_else():
    others = {"open_pack", "open_run", "load", "InputError", "TwinrayError", "__version__"}
    offered = {*public_names(), *others}
    assert set(twinray.__all__) == offered
    assert {name for name in dir(twinray) if not name.startswith("__")} == offered - {"__version__"}
    assert twinray.__version__ and isinstance(twinray.__version__, str)
    with pytest.raises(AttributeError, match="flyaway"):
        _ = twinray.flyaway


def test_type_checkers_see_the_same_names_from_the_same_modules():
    """The imports under TYPE_CHECKING, read from the source: each name of the table, from where the table says."""
    tree = ast.parse(Path(twinray.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name))
    imported, seen = {}, {}
    for line in block.body:
        if isinstance(line, ast.ImportFrom):
            imported |= {alias.asname: f"{line.module}:{alias.name}" for alias in line.names}
        elif isinstance(line, ast.Assign):
            seen[line.targets[0].id] = imported[line.value.id]
    seen |= {name: where for name, where in imported.items() if not name.startswith("_")}
    errors = {name: f"twinray.errors:{name}" for name in ("InputError", "TwinrayError")}
    assert seen == {
        **public_names(),
        **errors,
        "open_pack": "twinray.data.pack:open_pack",
        "open_run": "twinray.runs.folder:existing_run",
        "load": "twinray.exporting.load:load",
    }


def test_help_and_version_load_neither_torch_nor_pack_readers():
    code = "import sys, twinray, twinray.cli; dir(twinray); print(sorted({'torch', 'pyarrow', 'pydicom'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_m_twinray_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "twinray", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(rf"twinray {re.escape(twinray.__version__)}\n", done.stdout)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["pretrain", "--help"]])
def test_a_reader_that_has_gone_is_no_error_message(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "twinray", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # argparse keeps silent of it, and ends with 0


def test_the_worked_example_of_a_new_verb_works(blob_pack, tmp_path, cli, monkeypatch):
    """Module and row as CONTRIBUTING.md has them, and nothing else."""
    text = (Path(twinray.__file__).parents[2] / "CONTRIBUTING.md").read_text()
    module, row = re.findall(r"```python\n(.*?)```", text[text.index("## A new verb") :], re.DOTALL)
    (tmp_path / "count_verb.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    made = eval(f"{{{row.replace('twinray.jobs.count', 'count_verb')}}}", {"Verb": Verb})
    monkeypatch.setattr("twinray.cli.VERBS", {**VERBS, **made})
    assert "count      how many images a pack has" in cli("--help")[1]
    status, out, err = cli("count", blob_pack, "--split", "val", "--least", 99)
    assert (status, err) == (0, "")
    assert out == f"{len(open_pack(blob_pack).where('val'))} images, too few\n"
    status, _, err = cli("count", blob_pack, "--least", -1)
    assert (status, err) == (2, "twinray: expected --least to be 0 or more images, got -1\n")
    assert "A pack." in cli("count", "--help")[1]


def test_the_help_of_no_verb_waits_for_torch():
    code = """
import sys
from twinray.cli import build_parser
from twinray.verbs import VERBS, load
for name, verb in VERBS.items():
    build_parser(name, load(verb.config), verb.positional).format_help()
    print(name, sorted({"torch", "torchvision", "matplotlib", "sklearn", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} []" for name in VERBS]
