"""A run goes on with its own options only, and older runs are not shut out by options that came later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from twinray.checks import DATA, MODEL, PLACE, RECORD, SEED, SPEED, START
from twinray.errors import InputError
from twinray.runs.folder import CONFIG, began_before, open_run


@dataclass(frozen=True)
class Options:
    out: Annotated[Path, PLACE]
    data: Annotated[Path, DATA] = Path("pack")
    epochs: Annotated[int, MODEL] = 3
    keep: Annotated[tuple[int, ...], MODEL] = (1, 2)
    seed: Annotated[int, SEED] = 0
    init: Annotated[str, START] = "random"
    threads: Annotated[int, SPEED] = 1
    log_every: Annotated[int, RECORD] = 10
    resume: Annotated[bool, RECORD] = False


def reopened(folder: Path, inputs: object = None, **options: object) -> None:
    open_run(
        Options(**{"out": folder, **options}),
        out=folder,
        resume=True,
        job="train",
        environment={},
        inputs=inputs,
    )


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


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_resumed_run_may_change_follows_from_the_kind_of_the_option(
    tmp_path, capsys, finished
):
    folder, inputs = tmp_path / "run", {"packs": ["5a"], "init": None}
    run = open_run(
        Options(folder), out=folder, resume=False, job="train", environment={}, inputs=inputs
    )
    if finished:
        run.write_metrics({})
    moved = folder.rename(tmp_path / "moved")
    first = (moved / CONFIG).read_bytes()
    reopened(moved, inputs, data=Path("elsewhere/pack"), threads=4, log_every=3)
    kept = yaml.safe_load((moved / CONFIG).read_text())
    assert (kept["threads"], kept["log_every"]) == (
        (1, 10) if finished else (4, 3)
    )  # as the figures are made
    told = "made with --log-every 10, not 3"
    assert (told in capsys.readouterr().err) is finished
    (moved / CONFIG).write_bytes(first)
    reopened(moved, inputs, out=folder)
    assert (moved / CONFIG).read_bytes() == first  # --resume alone changes nothing
    for name, value in (("epochs", 4), ("seed", 1), ("init", "imagenet-v2")):
        with pytest.raises(InputError, match=f"{name} was"):
            reopened(moved, inputs, **{name: value})
    with pytest.raises(
        InputError, match="data was 'pack', now 'other'"
    ):  # other bytes, in another place
        reopened(moved, {**inputs, "packs": ["6b"]}, data=Path("other"))
    (
        moved / "inputs.json"
    ).unlink()  # as an older version left it: nothing tells that the bytes are the same
    with pytest.raises(InputError, match="data was 'pack', now 'other'"):
        reopened(moved, inputs, data=Path("other"))


def test_a_run_that_lacks_a_fact_began_before_it(tmp_path: Path) -> None:
    assert not began_before(tmp_path / "run", "maps")  # it begins now
    reopened(tmp_path / "run", {"pack": "a"})
    assert began_before(tmp_path / "run", "maps") and not began_before(tmp_path / "run", "pack")
