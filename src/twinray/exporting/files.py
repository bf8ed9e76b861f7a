"""What every target gives: files in a folder, and what a foreign loader makes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from torch import Tensor

from twinray.errors import InputError
from twinray.exporting.parity import Parity
from twinray.files import write_text

SQUARE = "twinray_square.py"
"""Loader that other loaders import: from an image to the pack's square."""


@dataclass(frozen=True)
class Exported:
    """Weights as another tool wants them, written and ready to be checked.

    Attributes:
        names: files, relative to the folder.
        usage: how they are loaded, in Markdown.
        check: compares what the foreign loader makes of packed uint8 pixels (b, p, p[, 3]) with what the run does.
        notes: what a user must know of them.
    """

    names: tuple[str, ...]
    usage: str
    check: Callable[[Tensor], Parity]
    notes: tuple[str, ...] = ()


def write_loader(name: str, out: Path) -> Path:
    """Copy one of our stand-alone loaders beside the weights."""
    text = (files("twinray.exporting") / "loaders" / name).read_text(encoding="utf-8")
    write_text(out / name, text, "the loader")
    return out / name


def run_file(path: Path) -> ModuleType:
    """The module in a file that was just written, with those beside it: what is checked is what leaves.

    Raises:
        InputError: it needs a package that is not installed.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules.pop(Path(SQUARE).stem, None)  # another folder's
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except ImportError as error:
        raise InputError(
            f"{path.name} needs {error.name}, which is not installed; the check cannot be made"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
