"""Copies of a run's log for TensorBoard, MLflow and Weights & Biases: one small hook on the run's own log lines.

A run's ``metrics.jsonl`` is the truth, a tracker holds a copy. At the end of every epoch, and of the run, the lines that a tracker
does not have yet are handed to it. So nothing of a run depends on a tracker:

- A tracker that fails is left alone with one line of words; the training goes on.
- A run that was killed and goes on drops log lines of steps that it does again. Copies in the run's own folder
  (``tensorboard/``, ``mlflow/``, ``wandb/``) are then made anew from the log. To a server only points are sent
  that it does not have. So no point is there twice.

Nothing leaves the machine unless ``--track-online`` says so: then MLflow's server is the one that ``MLFLOW_TRACKING_URI`` names,
and W&B's the one that it is logged in to. What is sent are figures and options; options that name files and places are not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from twinray.checks import DATA, PLACE, of_kind
from twinray.errors import InputError
from twinray.runs.folder import RunFolder
from twinray.verbs import VERBS, load

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Lines = Sequence[Mapping[str, Any]]
LinesOf = Callable[[RunFolder, int], Mapping[str, Lines]]
"""A run's folder and its best epoch -> its log lines, by what stands in front of their figures' names (often nothing)."""

PROJECT: Final = "twinray"
"""Name of the project (W&B) and experiment (MLflow)."""

_MODULES: Final = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
_BATCH: Final = 500
_APART: Final = frozenset({"step"})

Row = tuple[int, dict[str, float]]
"""A step and its figures by name."""


class Tracker(Protocol):
    """What a tracker's copy can do."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add figures; rows that the copy has already are left out."""
        ...

    def close(self, final: Mapping[str, float]) -> None:
        """Add the run's final figures and finish."""
        ...


def check_trackers(names: Sequence[str], online: bool) -> None:
    """Refuse trackers that are not installed, before anything is trained.

    Raises:
        InputError: naming the extra to install.
    """
    for name in names:
        if importlib.util.find_spec(_MODULES[name]) is None:
            raise InputError(
                f"--track {name} needs a package that is not installed: pip install 'twinray[{name}]'"
            )
    if online and not names:
        raise InputError("--track-online says where --track goes, there is none; give --track too")
    if online and "mlflow" in names and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            "--track-online sends to the server that MLFLOW_TRACKING_URI names, it names none; set it, or leave the option out"
        )


class Trackers:
    """Hands log lines to trackers at the end of epochs; a failure ends the copy, never the run."""

    def __init__(self, names: Sequence[str], online: bool, lines_of: LinesOf) -> None:
        self._names, self._online, self._lines_of = list(dict.fromkeys(names)), online, lines_of
        self._open: dict[str, Tracker] = {}
        self._given: dict[str, int] = {}

    def __call__(self, run: RunFolder, best_epoch: int) -> None:
        """Hand over the lines that are new."""
        for name in list(self._names):
            with self._guarded(name):
                self._update(name, run, best_epoch)

    def finish(self, run: RunFolder, best_epoch: int) -> None:
        """Hand over the last lines and the final figures."""
        for name in list(self._names):
            with self._guarded(name):
                self._update(name, run, best_epoch).close(_final(run))
        self._names = []

    def _update(self, name: str, run: RunFolder, best_epoch: int) -> Tracker:
        if name not in self._open:
            self._open[name] = _OPENERS[name](run, self._online)
        rows = _rows(self._lines_of(run, best_epoch))
        self._open[name].write(rows[self._given.get(name, 0) :])
        self._given[name] = len(rows)
        return self._open[name]

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._names.remove(name)
            told = " ".join(str(error).split())[:200] or type(error).__name__
            print(
                f"note: {name} takes no more of this run ({told}); the run goes on, its log is whole",
                file=sys.stderr,
            )


def _rows(lines: Mapping[str, Lines]) -> list[Row]:
    """All figures, a row a line of the log, in its order."""
    return [
        (
            int(line.get("step", 0)),
            {
                f"{prefix}/{key}" if prefix else key: float(value)
                for key, value in line.items()
                if key not in _APART and _is_figure(value)
            },
        )
        for prefix, own in lines.items()
        for line in own
    ]


def _is_figure(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _final(run: RunFolder) -> dict[str, float]:
    """``final/<split>/<figure>`` of what the run measured at its end."""
    found: dict[str, float] = {}
    if not run.finished:
        return found
    for split, figures in run.metrics.items():
        for name, figure in figures.items() if isinstance(figures, dict) else ():
            value = figure.get("value") if isinstance(figure, dict) else None
            if value is not None and _is_figure(value):
                found[f"final/{split}/{name}"] = float(value)
    return found


def _options(run: RunFolder) -> dict[str, str]:
    """The run's options in words, without those that name files and places."""
    kept = run.config
    verb = VERBS.get(str(kept.get("job")))
    apart = of_kind(load(verb.config), DATA, PLACE) if verb is not None else frozenset()
    paths = {key for key, value in kept.items() if _may_be_a_path(value)}
    return {k: str(v)[:500] for k, v in kept.items() if k not in apart and k not in paths}


def _may_be_a_path(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_may_be_a_path(one) for one in value)
    return isinstance(value, str) and (os.sep in value or Path(value).exists())


def _key(run: RunFolder) -> str:
    """What names the run in a tracker: the same when it goes on, another for another start in the same place."""
    made = run.identity() + str(run.path.resolve())
    return hashlib.sha256(made.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _anew(run: RunFolder, name: str) -> Path:
    """A new folder for a copy inside the run; an earlier one is removed: the log tells all of it once more."""
    folder = run.path / name
    if folder.is_symlink() or folder.is_file():
        raise OSError(f"{folder} is no folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class _TensorBoard:
    def __init__(self, run: RunFolder, online: bool) -> None:
        del online  # there is no server to send to
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(_anew(run, "tensorboard")))
        options = "\n".join(f"    {key}: {value}" for key, value in _options(run).items())
        self._writer.add_text("options", options, 0)
        self._step = 0

    def write(self, rows: Sequence[Row]) -> None:
        for step, figures in rows:
            self._step = step
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, final: Mapping[str, float]) -> None:
        for name, value in final.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.close()


class _MLflow:
    def __init__(self, run: RunFolder, online: bool) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        # a server that does not answer must not hold a training up for as long as it usually may
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        if not online:
            (run.path / "mlflow").mkdir(exist_ok=True)
        uri = None if online else f"sqlite:///{(run.path / 'mlflow' / 'mlflow.db').resolve()}"
        self._metric: Any = Metric
        self._client: Any = MlflowClient(tracking_uri=uri)
        there = self._client.get_experiment_by_name(PROJECT)
        experiment = there.experiment_id if there else self._client.create_experiment(PROJECT)
        key = _key(run)
        found = self._client.search_runs([experiment], f"tags.twinray_run = '{key}'", max_results=1)
        known = found[0].info.run_id if found else None
        if known is not None and not online:  # the log tells all of it once more
            self._client.delete_run(known)
            known = None
        if known is not None:
            self._id = known
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(
                experiment, run_name=run.path.resolve().name, tags={"twinray_run": key}
            )
            self._id = made.info.run_id
            params = [Param(name, value) for name, value in _options(run).items()]
            for at in range(0, len(params), 100):
                self._client.log_batch(self._id, params=params[at : at + 100])
        self._resumed = known is not None
        self._held: dict[str, int] = {}
        self._step = 0

    def write(self, rows: Sequence[Row]) -> None:
        points = [
            self._metric(name, value, round(1000 * time.time()), step)
            for step, figures in rows
            for name, value in figures.items()
            if step > self._last(name)
        ]
        self._step = rows[-1][0] if rows else self._step
        for at in range(0, len(points), _BATCH):
            self._client.log_batch(self._id, metrics=points[at : at + _BATCH])

    def _last(self, name: str) -> int:
        """The last step of a figure that the server had when this start began."""
        if not self._resumed:
            return -1
        if name not in self._held:
            steps = [point.step for point in self._client.get_metric_history(self._id, name)]
            self._held[name] = max(steps, default=-1)
        return self._held[name]

    def close(self, final: Mapping[str, float]) -> None:
        self.write([(self._step, dict(final))])
        self._client.set_terminated(self._id)


class _WandB:
    def __init__(self, run: RunFolder, online: bool) -> None:
        import wandb

        folder = run.path / "wandb"
        if not online:
            folder = _anew(run, "wandb")
        folder.mkdir(exist_ok=True)
        self._run: Any = wandb.init(
            mode="online" if online else "offline",
            dir=str(folder),
            id=_key(run),
            name=run.path.resolve().name,
            project=PROJECT,
            config=_options(run),
            resume="allow" if online else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
            ),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")
        self._held = int(self._run.step) if online else 0
        self._rows = 0

    def write(self, rows: Sequence[Row]) -> None:
        for step, figures in rows:
            self._rows += 1
            if self._rows > self._held:
                self._run.log({**figures, "step": step})

    def close(self, final: Mapping[str, float]) -> None:
        self._run.summary.update(dict(final))
        self._run.finish()


_OPENERS: Mapping[str, Callable[[RunFolder, bool], Tracker]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
}
