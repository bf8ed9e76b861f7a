"""A run goes on with its own options only, and older runs are not shut out by options that came later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from twinray.errors import InputError
from twinray.runs.folder import CONFIG, open_run


@dataclass(frozen=True)
class Options:
    out: Path
    epochs: int = 3
    keep: tuple[int, ...] = (1, 2)
    resume: bool = False


def reopened(folder: Path, **options: object) -> None:
    open_run(Options(folder, **options), out=folder, resume=True, job="train", environment={})


def test_a_run_made_before_an_option_existed_goes_on_with_its_default(tmp_path):
    folder = tmp_path / "run"
    open_run(Options(folder), out=folder, resume=False, job="train", environment={})
    reopened(folder)
    kept = yaml.safe_load((folder / CONFIG).read_text())
    del kept["keep"]
    (folder / CONFIG).write_text(yaml.safe_dump(kept))
    reopened(folder)
    with pytest.raises(InputError, match=r"keep was \[1, 2\], now \[5\]"):
        reopened(folder, keep=(5,))
    with pytest.raises(InputError, match="epochs was 3, now 4"):
        reopened(folder, epochs=4)


def test_an_option_that_is_gone_is_a_difference(tmp_path):
    folder = tmp_path / "run"
    open_run(Options(folder), out=folder, resume=False, job="train", environment={})
    kept = yaml.safe_load((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(yaml.safe_dump({**kept, "gone": 1}))
    with pytest.raises(InputError, match="gone was 1, now None"):
        reopened(folder)
