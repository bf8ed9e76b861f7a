"""The import graph: no circle, no private name of another module, no room with too many modules."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MOST_MODULES = 16


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("twinray", exclude_type_checking_imports=False, cache_dir=None)


def circle_contract(package: str) -> str:
    """The contract of pyproject.toml that forbids circles, for another package."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
    (contract,) = (one for one in contracts if one["type"] == "acyclic_siblings")
    assert contract["ancestors"] == ["twinray"]
    assert set(contract) == {"name", "type", "ancestors"}  # nothing is ignored
    return (
        f'[tool.importlinter]\nroot_package = "{package}"\n[[tool.importlinter.contracts]]\n'
        f'name = "no circle"\ntype = "acyclic_siblings"\nancestors = ["{package}"]\n'
    )


@pytest.mark.parametrize(
    ("modules", "kept"),
    [
        ({"a.py": "from madeup import b", "b.py": ""}, True),
        ({"a.py": "from madeup import b", "b.py": "from madeup import a"}, False),
        (
            {
                "room/__init__.py": "",
                "room/a.py": "import madeup.room.b",
                "room/b.py": "import madeup.room.a",
            },
            False,
        ),
        (
            {
                "room/__init__.py": "",
                "room/a.py": "import madeup.c",
                "c.py": "def f():\n    import madeup.room.a",
            },
            False,
        ),
        ({"a.py": "import madeup.b", "b.py": "import madeup.c", "c.py": "import madeup.a"}, False),
    ],
)
def test_the_check_fails_on_a_made_up_circle(
    tmp_path: Path, modules: dict[str, str], kept: bool
) -> None:
    package = tmp_path / "madeup"
    package.mkdir()
    for name, text in {"__init__.py": "", **modules}.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text + "\n")
    (tmp_path / "rules.toml").write_text(circle_contract("madeup"))
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports('rules.toml', no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ("KEPT" in done.stdout, "BROKEN" in done.stdout) == (kept, not kept), (
        done.stdout + done.stderr
    )
    assert (done.returncode == 0) == kept


def test_no_module_imports_a_package_around_it_that_imports_it(graph: grimp.ImportGraph) -> None:
    """The contract compares siblings; a circle of a module and the package that it is in is not one of theirs."""
    for package in graph.modules:
        below = graph.find_descendants(package)
        back = [m for m in below if package in graph.find_modules_directly_imported_by(m)]
        assert not (back and below & graph.find_modules_directly_imported_by(package)), (
            package,
            back,
        )


def test_no_room_holds_too_many_modules() -> None:
    rooms = Counter(path.parent for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
    assert max(rooms.values()) <= MOST_MODULES, rooms.most_common(3)


def private_uses(path: Path) -> list[str]:
    """Where a file takes a name that begins with an underscore from another module of the package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules: set[str] = set()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "twinray":
            where = SOURCE.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    found.append(f"{path}:{node.lineno} {alias.name}")
                if (where / f"{alias.name}.py").is_file() or (where / alias.name).is_dir():
                    modules.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        of_module = (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        )
        if of_module and node.attr.startswith("_") and not node.attr.startswith("__"):
            found.append(f"{path}:{node.lineno} {node.value.id}.{node.attr}")
    return found


def test_no_module_takes_a_private_name_of_another(tmp_path: Path) -> None:
    assert [use for path in sorted(SOURCE.rglob("*.py")) for use in private_uses(path)] == []
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from twinray.files import _sync_folder\nfrom twinray import files\nfiles._CHUNK\n"
    )
    assert len(private_uses(bad)) == 2
