"""What one label draw leaves: in memory, and on disk until a run of several draws is done."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from twinray.classification.probe import LinearProbe
from twinray.errors import InputError
from twinray.files import read_json, typed, write_bytes, write_json
from twinray.records import FloatArray, IntArray, Task
from twinray.runs.folder import RunFolder

DRAWS = "seeds"
"""Folder of the draws in a run of several: each has a log, a record and, while it trains, checkpoints."""
_DONE, _SCORES, _WEIGHTS, _TUNING = "draw.json", "scores.npz", "weights.safetensors", "tuning.json"


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained draw.

    Attributes:
        seed: seed of the draw.
        training_images: number of images learnt from.
        test: (n, k) probabilities of the test images.
        val: (n, k) of the pack's val images; None where it has none.
        choosing: (n, k) of images that neither gradients nor a fit came from, for thresholds where the pack has no val images;
            None for none.
        choosing_rows: (n,) their rows in the pack.
        choosing_words: words for what these images are.
        record: what else is known (best epoch, what it was chosen on, layers, penalty, ...), as JSON holds it.
        head: the linear layer, where the backbone did not change.
        state: state dict of the whole classifier, where it did.
    """

    seed: int
    training_images: int
    test: FloatArray
    val: FloatArray | None
    choosing: FloatArray | None
    choosing_rows: IntArray
    choosing_words: str
    record: Mapping[str, Any]
    head: LinearProbe | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def empty() -> Fitted:
        """What the processes get that only helped."""
        return Fitted(0, 0, np.zeros((0, 0)), None, None, np.zeros(0, dtype=np.int64), "", {})


def draw_folder(run: RunFolder, seed: int, several: bool) -> RunFolder:
    """Where a draw's log and checkpoints go: the run's folder itself, or one of its own in a run of several."""
    return RunFolder(run.path / DRAWS / str(seed)) if several else run


def keep_draw(folder: RunFolder, fitted: Fitted, weights: bool) -> None:
    """Write what the end of the run needs of a draw, then drop its checkpoints.

    Args:
        folder: folder of the draw.
        fitted: result of the draw.
        weights: keep the weights too.

    Raises:
        TwinrayError: the disk refuses.
    """
    arrays = {"test": fitted.test, "choosing_rows": fitted.choosing_rows}
    arrays |= {name: a for name in ("val", "choosing") if (a := getattr(fitted, name)) is not None}
    if fitted.head is not None:
        arrays |= {"weight": fitted.head.weight.numpy(), "bias": fitted.head.bias.numpy()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(folder.path / _SCORES, buffer.getbuffer(), "scores of a draw")
    if weights and fitted.state:
        write_bytes(
            folder.path / _WEIGHTS, safetensors.torch.save(dict(fitted.state)), "weights of a draw"
        )
    record = {
        "seed": fitted.seed,
        "training_images": fitted.training_images,
        "record": dict(fitted.record),
    }
    record["choosing_words"] = fitted.choosing_words
    if fitted.head is not None:
        record |= {"task": fitted.head.task, "penalties": list(fitted.head.penalties)}
    write_json(folder.path / _DONE, record, "record of a draw")
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def is_done(folder: RunFolder) -> bool:
    """Whether a draw was finished before the run was interrupted."""
    return (folder.path / _DONE).is_file()


@dataclass(frozen=True)
class _Record:
    """What ``draw.json`` holds."""

    seed: int
    training_images: int
    record: dict[str, Any]
    choosing_words: str
    task: Task = "none"
    penalties: tuple[float, ...] = ()


def _record(folder: RunFolder) -> _Record:
    path, what = folder.path / _DONE, "record of a draw"
    return typed(read_json(path, what), _Record, path, what)


def _arrays(path: Path) -> dict[str, Any]:
    """Scores of a draw by name.

    Raises:
        InputError: the file is damaged, or lacks some.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip files and headers of arrays raise nearly anything on damage
        raise InputError(
            f"could not read the scores of a draw {path} ({type(error).__name__}); remove the folder {path.parent}, so that "
            "the draw is trained again"
        ) from error
    needed = {"test", "choosing_rows"} | ({"bias"} if "weight" in kept else set())
    if missing := sorted(needed - kept.keys()):
        raise InputError(
            f"expected {', '.join(missing)} in {path}; remove the folder {path.parent}, so that the draw is trained again"
        )
    return kept


def kept_draw(folder: RunFolder) -> Fitted:
    """A finished draw of an interrupted run."""
    record, kept = _record(folder), _arrays(folder.path / _SCORES)
    head = None
    if "weight" in kept:
        weight, bias = torch.from_numpy(kept["weight"]), torch.from_numpy(kept["bias"])
        head = LinearProbe(weight, bias, record.task, record.penalties)
    weights = folder.path / _WEIGHTS
    return Fitted(
        seed=record.seed,
        training_images=record.training_images,
        test=kept["test"],
        val=kept.get("val"),
        choosing=kept.get("choosing"),
        choosing_rows=kept["choosing_rows"],
        choosing_words=record.choosing_words,
        record=record.record,
        head=head,
        state=safetensors.torch.load_file(weights) if weights.is_file() else {},
    )


def drop_kept(folder: RunFolder) -> None:
    """Remove what only resuming needed: all but log and record."""
    for name in (_SCORES, _WEIGHTS):
        (folder.path / name).unlink(missing_ok=True)


def histories(
    run: RunFolder, best_epoch: int
) -> dict[str, tuple[list[dict[str, Any]], int | None]]:
    """What there is to draw of a run in progress, or of a finished one: name -> lines of its log, best epoch.

    Args:
        run: its folder.
        best_epoch: best epoch of the draw in progress, -1 for none.
    """
    best = best_epoch if best_epoch >= 0 else None
    folders = (
        sorted((run.path / DRAWS).iterdir(), key=lambda path: int(path.name))
        if (run.path / DRAWS).is_dir()
        else []
    )
    if not folders:
        return {run.path.resolve().name: (run.history(), best)}
    found = {}
    for path in folders:
        own = RunFolder(path)
        done = _record(own).record.get("best_epoch", -1) if is_done(own) else best
        found[f"seed {path.name}"] = (own.history(), done)
    return found


def keep_tuning(folder: RunFolder, norms: Mapping[str, float]) -> None:
    """Keep the relative gradient norms, so that a resumed run has the same rates."""
    write_json(folder.path / _TUNING, dict(norms), "relative gradient norms")


def kept_tuning(folder: RunFolder) -> dict[str, float] | None:
    """Those of an interrupted run; None where there are none."""
    path: Path = folder.path / _TUNING
    what = "relative gradient norms"
    return typed(read_json(path, what), dict[str, float], path, what) if path.is_file() else None
