"""A run on disk: its files, and what may change when it goes on. No torch.

``config.yaml`` (resolved options), ``environment.json``, ``metrics.jsonl`` (a line a log step),
``metrics.json`` (final figures), ``checkpoints/``, ``*.safetensors`` with a ``.json`` beside each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import yaml

from twinray.checks import (
    DATA,
    MAY_CHANGE,
    RECORD,
    check_kept,
    counting,
    flag,
    of_kind,
    options,
    shown,
)
from twinray.errors import InputError
from twinray.evaluation.measures import KINDS, main_measure
from twinray.evaluation.record import FORMAT
from twinray.files import (
    as_json,
    check_regular,
    claim_folder,
    clear_disk_errors,
    read_json,
    write_json,
    write_text,
)
from twinray.runs.checksums import FILE as CHECKSUMS
from twinray.runs.checksums import write_checksums
from twinray.verbs import VERBS, load

CONFIG, METRICS, LOG, INPUTS = "config.yaml", "metrics.json", "metrics.jsonl", "inputs.json"


@final
class RunFolder:
    """One run's folder; made by :func:`open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def __repr__(self) -> str:
        if not (self.path / CONFIG).is_file():
            return f"RunFolder({str(self.path)!r}, no run yet)"
        verb = read_config(self.path).get("job", "run")
        if not self.finished:
            return f"RunFolder({str(self.path)!r}, {verb}, not finished)"
        parts = [
            f"{split} {told}" for split in ("val", "test", "train") if (told := self._main(split))
        ]
        return f"RunFolder({', '.join([repr(str(self.path)), verb, *parts])})"

    def _main(self, split: str) -> str:
        """The split's main figure in words; empty where there is none."""
        figures = self.metrics.get(split) or {}
        for name in (*map(main_measure, KINDS), "loss"):
            own = figures.get(name)
            if isinstance(own, dict) and own.get("value") is not None:
                ends = own.get("ci95")
                return f"{name} {own['value']:.3f}" + (
                    f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
                )
        return ""

    @property
    def config(self) -> dict[str, Any]:
        """The resolved options; see :func:`read_config`."""
        return read_config(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """The final figures as ``metrics.json`` holds them: ``run.metrics["test"]["auc"]["value"]``; see :func:`read_metrics`."""
        return read_metrics(self.path)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with (
            clear_disk_errors(self.path / LOG, "log"),
            (self.path / LOG).open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(values) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """All complete lines of ``metrics.jsonl``; a line that a kill cut short is left out."""
        path = self.path / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that a resumed run will do again."""
        kept = [json.dumps(line) + "\n" for line in self.history() if line.get("step", 0) <= step]
        if (self.path / LOG).exists():
            write_text(self.path / LOG, "".join(kept), "log")

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the final figures; a run with a ``metrics.json`` is a finished run."""
        text = as_json({"format": FORMAT, **metrics, "checksums": CHECKSUMS})
        later = {METRICS: hashlib.sha256(text.encode("utf-8")).hexdigest()}
        write_checksums(self.path, later)  # before the file whose presence says that all is there
        write_text(self.path / METRICS, text, "metrics")

    def identity(self) -> str:
        """What makes this run, as one line of JSON: verb, options that decide the result, and what it reads.

        Every checkpoint carries it, so that one of another run is not taken over. A folder inside a run has
        the run's.

        Raises:
            InputError: the run's own record is damaged.
        """
        folder = next((f for f in (self.path, *self.path.parents) if (f / CONFIG).is_file()), None)
        if folder is None:
            return "{}"
        kept = read_config(folder)
        verb = VERBS.get(str(kept.get("job")))
        made: Mapping[str, Any] = kept
        if verb is not None:
            config = load(verb.config)
            free = of_kind(config, *MAY_CHANGE)
            made = {k: value for k, value in counting(config, kept).items() if k not in free}
        inputs = (
            read_json(folder / INPUTS, "record of inputs") if (folder / INPUTS).is_file() else {}
        )
        return json.dumps({**made, "inputs": inputs}, sort_keys=True)

    @property
    def finished(self) -> bool:
        """Whether the run wrote its final figures."""
        return (self.path / METRICS).is_file()


def open_run(
    config: Any,
    *,
    out: Path,
    resume: bool,
    job: str,
    environment: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Make a run's folder, or return to that of an interrupted run.

    Args:
        config: the job's options, a dataclass.
        out: the folder.
        resume: flag to continue what is there; with nothing there, the run starts.
        job: the verb, for messages and for the record.
        environment: versions and hardware that the result depends on, as
            ``training.record.environment`` reports them.
        inputs: facts on what the run reads and how it computes (checksums of packs and weights,
            precision). They are kept in ``inputs.json``, and are the same again when the run is
            resumed.

    What may change when a run goes on follows from an option's kind (``checks.MAY_CHANGE``).
    ``config.yaml`` then holds the new values, and ``environment.json`` the commands of every start.

    Raises:
        InputError: the folder holds files and ``resume`` is off. Or it holds a run of another job
            or with other options or inputs (each is named).
    """
    claim_folder(out, resume, f"{job} run", can_resume=True)
    run = RunFolder(out)
    resolved = {"job": job, **plain(config)}
    kept = read_config(out) if (out / CONFIG).is_file() else None
    if kept is not None:
        if kept.get("job") == job:
            check_kept(config.__class__, kept, str(out / CONFIG))
        _check_same(out, kept, resolved, config.__class__, plain(inputs or {}))
    elif any(out.iterdir()) and resume and not _only_leftovers(out):
        raise InputError(f"{out} is not a run (it has no {CONFIG}); choose another --out")
    if run.finished:
        _note_unused(out, kept or {}, resolved, config.__class__)
        return run
    with clear_disk_errors(run.checkpoints, "folder"):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    _keep_inputs(out / INPUTS, plain(inputs or {}))
    _keep_environment(out / "environment.json", dict(environment))
    if (
        kept is not None
    ):  # what changed is on record as it holds for the figures to come; --resume alone is no change
        resolved = {**kept, **resolved, **({"resume": kept["resume"]} if "resume" in kept else {})}
    if resolved != kept:
        write_text(
            out / CONFIG,
            yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True),
            "configuration",
        )
    return run


def existing_run(path: Path | str) -> RunFolder:
    """A run that is there already, finished or not, to read its figures and options (``twinray.open_run``).

    Raises:
        InputError: not a run folder.
    """
    run = RunFolder(Path(path))
    read_config(run.path)
    return run


def read_config(run: Path) -> dict[str, Any]:
    """The resolved options of a run.

    Raises:
        InputError: not a run folder.
    """
    check_regular(run / CONFIG, "the options of a run")
    try:
        raw = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"expected a run folder with a {CONFIG}, {run} has none; check the path"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        # text of another encoding, dates that do not exist, lists as keys
        raise InputError(f"{run / CONFIG} is not YAML as we write it; was it edited?") from error
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise InputError(
            f"expected options by name in {run / CONFIG}, found {type(raw).__name__}; was it edited?"
        )
    return raw


def read_metrics(run: Path) -> dict[str, Any]:
    """The final figures of a run.

    Raises:
        InputError: the run is not there or did not finish.
    """
    if not (run / METRICS).is_file():
        raise InputError(
            f"{run} has no {METRICS}: not a run, or one that did not finish; continue it with --resume"
        )
    return _object(run / METRICS, "metrics")


def _object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of ours."""
    content = read_json(path, what)
    if not isinstance(content, dict):
        raise InputError(
            f"expected an object in {what} {path}, found {type(content).__name__}; was it edited? Restore the file"
        )
    return content


def what_is_kept(out: Path) -> str:
    """What an interrupted training left in its folder, and what the same command with ``--resume`` does, in words."""
    saved = [*out.glob("checkpoints/step-*.pt"), *out.glob("*/*/checkpoints/step-*.pt")]
    newest = max(saved, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    if newest is not None:
        step, own = int(newest.stem.removeprefix("step-")), newest.parent.parent
        return f"step {step} is saved in {own}, the same command with --resume goes on from there"
    draws = len([*out.glob("seeds/*/draw.json")])
    if draws:
        n = f"{draws} finished label draw{'' if draws == 1 else 's'}"
        return f"{n} kept in {out}, the same command with --resume goes on after {'it' if draws == 1 else 'them'}"
    return f"no step is saved in {out} yet, the same command with --resume begins again"


def plain(value: Any) -> Any:
    """A dataclass as dictionaries, lists, text and numbers, ready for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _check_same(
    run: Path,
    kept: Mapping[str, Any],
    resolved: Mapping[str, Any],
    config: Any,
    inputs: Mapping[str, Any],
) -> None:
    """Refuse other options; what the file lacks came with a later version (:func:`with_defaults`)."""
    free = of_kind(config, *MAY_CHANGE)
    if not _same_bytes(run, inputs):
        free -= of_kind(config, DATA)
    before, now = (counting(config, values) for values in (with_defaults(config, kept), resolved))
    differing = [
        k for k in _ordered_union(before, now) if k not in free and before.get(k) != now.get(k)
    ]
    if differing:
        what = "; ".join(f"{k} was {before.get(k)!r}, now {now.get(k)!r}" for k in differing[:4])
        raise InputError(
            f"cannot resume {run} with other options: {what}; repeat the first command, or choose another --out"
        )


def _note_unused(
    run: Path, kept: Mapping[str, Any], resolved: Mapping[str, Any], config: Any
) -> None:
    """A finished run stays as it is: what would have made other records and figures is said to do nothing."""
    before = with_defaults(config, kept)
    unused = [
        name
        for name in of_kind(config, RECORD) - {"resume"}
        if before.get(name) != resolved.get(name)
    ]
    for name in sorted(unused):
        told = f"made with {flag(name)} {shown(before.get(name))}, not {shown(resolved.get(name))}"
        print(f"note: {run} is finished and stays as it is, {told}", file=sys.stderr)


def _same_bytes(run: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a run that goes on reads what it read before, wherever that lies now."""
    kept = _object(run / INPUTS, "record of inputs") if (run / INPUTS).is_file() else None
    return bool(inputs) and kept == inputs


def with_defaults(config: type[Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a run's ``config.yaml``, and for those that came after the run what it did without them.

    That is today's default, or what the option's :class:`~twinray.checks.Older` says.

    Args:
        config: dataclass of the options of the run's verb.
        kept: values that the file holds.
    """
    missing = dataclasses.MISSING
    defaults = {
        name: plain(o.older) for name, o in options(config).items() if o.older is not missing
    }
    return {**defaults, **kept}


def began_before(run: Path, fact: str) -> bool:
    """Whether the run in a folder was begun by a version that did not list a fact among its inputs yet.

    A way of computing that came later is such a fact: runs that begin now list it, older ones go on as they began.
    """
    if not (run / INPUTS).is_file():
        return False
    return fact not in _object(run / INPUTS, "record of inputs")


def _keep_inputs(path: Path, inputs: dict[str, Any]) -> None:
    """A run that goes on with another pack or other weights would be two runs under one name."""
    if not path.is_file():
        write_json(path, inputs, "record of inputs")
        return
    before = _object(path, "record of inputs")
    differing = [k for k in _ordered_union(before, inputs) if before.get(k) != inputs.get(k)]
    if differing:
        raise InputError(
            f"cannot resume {path.parent}: {', '.join(differing)} changed since it was started (see {path.name}); put back what "
            "it was started with, or choose another --out"
        )


def _keep_environment(path: Path, now: dict[str, Any]) -> None:
    """The first start's environment, and under ``resumed`` each one that differs from the last."""
    if not path.is_file():
        write_json(path, now, "environment record")
        return
    kept = _object(path, "environment record")
    earlier = kept.get("resumed", [])
    if not isinstance(earlier, list) or not all(isinstance(one, dict) for one in earlier):
        raise InputError(
            f"environment record {path}: expected a list of objects under resumed; was it edited? Restore the file"
        )
    last = [kept, *earlier][-1]
    if any(last.get(key) != value for key, value in now.items() if key != "arguments"):
        kept.setdefault("resumed", []).append(now)
        write_json(path, kept, "environment record")


def _ordered_union(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterable[str]:
    return dict.fromkeys([*first, *second])


def _only_leftovers(folder: Path) -> bool:
    """A kill right after the folder was made leaves at most these."""
    return all(
        p.name in {"checkpoints", "environment.json", INPUTS} or p.name.endswith(".tmp")
        for p in folder.iterdir()
    )
