"""The real command line on the device, and runs that are killed and resumed."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from gpu.pictures import phantom_files
from gpu.record import Outcome, Session

LIMIT = 150.0
"""Seconds that one command may take."""


def twinray(session: Session, *arguments: object, limit: float = LIMIT) -> str:
    """Run the command line in a process of its own; what it printed.

    Raises:
        RuntimeError: it ended with another status than 0, with the end of what it said.
    """
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    session.say("    twinray " + " ".join(map(str, arguments))[:180])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=max(min(limit, session.left), 1),
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
        )
    return done.stdout + done.stderr


def _device(session: Session) -> str:
    return "cuda" if session.cuda else "cpu"


# The verbs ------------------------------------------------------------------------------------------------------------


def commands(session: Session) -> None:
    """Every verb, one after the other, each on what the one before made."""
    home = session.folder("runs")
    device = ("--device", _device(session))
    toy = session.toy
    size, side = (64, 48) if toy else (128, 64)
    pack = (
        "pack",
        "--format",
        "phantom",
        "--phantom-images",
        60 if toy else 200,
        "--size",
        size,
        "--out",
        home / "pack",
    )
    network = ("--arch", "resnet18", "--data", home / "pack")
    head = (
        "--fpn-channels",
        64,
        "--box-head-width",
        128,
        "--rois-per-image",
        64,
        "--anchor-scale",
        4,
        "--bootstrap",
        100,
    )

    def made(*arguments: object, shows: Sequence[str] = (), folder: str = "") -> Outcome:
        start = time.time()
        twinray(session, *arguments)
        missing = [name for name in shows if not (home / folder / name).exists()]
        figures: dict[str, Any] = {"seconds": time.time() - start}
        if (home / folder / "metrics.json").is_file():
            figures |= _figures(json.loads((home / folder / "metrics.json").read_text()))
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        return Outcome(
            not missing and not bad,
            figures,
            note=", ".join(f"no {name}" for name in missing) + ", ".join(bad),
        )

    session.check("pack", partial(made, *pack, shows=("images.npy", "pack.json"), folder="pack"))
    learn = (
        "--size",
        side,
        "--batch-size",
        16 if toy else 32,
        "--epochs",
        1 if toy else 2,
        "--projector",
        64,
        64,
        "--compile",
        "off",
    )
    session.check(
        "pretrain",
        partial(
            made,
            "pretrain",
            *network,
            *learn,
            *device,
            "--out",
            home / "backbone",
            shows=("backbone.safetensors", "curves.svg"),
            folder="backbone",
        ),
    )
    session.check(
        "detect",
        partial(
            made, "detect", "--data", home / "pack", "--init", home / "backbone", "--size", size, "--batch-size", 8,
            "--epochs", 1 if toy else 4, *head, *device, "--out", home / "detector", shows=("model.safetensors", "predictions.json"), folder="detector",
        ),
    )  # fmt: skip
    session.check(
        "classify",
        partial(
            made, "classify", "--data", home / "pack", "--init", home / "backbone", "--policy", "probe", "--bootstrap", 100,
            *device, "--out", home / "classifier", shows=("model.safetensors",), folder="classifier",
        ),
    )  # fmt: skip
    session.check(
        "classify, every layer",
        partial(
            made, "classify", "--data", home / "pack", "--init", home / "backbone", "--policy", "full", "--bootstrap", 100,
            "--epochs", 1 if toy else 2, *device, "--out", home / "tuned", shows=("model.safetensors",), folder="tuned",
        ),
    )  # fmt: skip
    # Loading takes most of a command's seconds, so the processor is asked for the boxes alone.
    own = _device(session)
    for kind, where in dict.fromkeys(
        [("detector", own), ("detector", "cpu"), ("classifier", own), ("tuned", own)]
    ):
        session.check(
            f"evaluate the {kind} on {where}: the run's own figures",
            partial(_evaluated, session, home, kind, where),
        )
    pictures = phantom_files(home / "pictures", 6 if toy else 12, 160, seed=5).parent / "images"
    for kind in ("detector", "classifier"):
        session.check(
            f"predict with the {kind}: as on the processor",
            partial(_predicted, session, home, kind, pictures),
        )
    for method in ("ablation", "occlusion"):
        session.check(f"explain by {method}", partial(_explained, session, home, method))


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    found = {}
    for split in ("train", "val", "test"):
        for name in ("loss", "map50", "auc", "effective_rank", "images_per_s"):
            value = metrics.get(split, {}).get(name)
            if isinstance(value, dict) and value.get("value") is not None:
                found[f"{split} {name}"] = float(value["value"])
    return found


def _evaluated(session: Session, home: Path, kind: str, where: str) -> Outcome:
    out = home / f"evaluated-{kind}-{where}"
    arguments = (
        "--data",
        home / "pack",
        "--split",
        "test",
        "--bootstrap",
        0,
        "--allow-seen",
        "--device",
        where,
        "--out",
        out,
    )
    twinray(session, "evaluate", home / kind, *arguments)
    own = json.loads((home / kind / "metrics.json").read_text())["test"]
    text = json.loads((out / "metrics.json").read_text())
    name = "map50" if kind == "detector" else "auc"
    found = _find(text, name)
    figures = {"here": found, "in the run": own[name]["value"]}
    return Outcome(
        abs(figures["here"] - figures["in the run"]) <= 2e-3, figures, f"{name} equal to 2e-3"
    )


def _find(value: Any, name: str) -> float:
    """The first figure of that name, however deep it lies."""
    if isinstance(value, dict):
        if isinstance(value.get(name), dict) and value[name].get("value") is not None:
            return float(value[name]["value"])
        for inner in value.values():
            if not math.isnan(found := _find(inner, name)):
                return found
    return math.nan


def _predicted(session: Session, home: Path, kind: str, pictures: Path) -> Outcome:
    tables = []
    for where in ("cpu", _device(session)):
        out = home / f"predicted-{kind}-{len(tables)}"
        twinray(session, "predict", home / kind, pictures, "--device", where, "--out", out)
        with (out / "predictions.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    here, there = tables
    numbers = [(_numbers(a), _numbers(b)) for a, b in zip(here, there, strict=False)]
    worst = max(
        (abs(x - y) for a, b in numbers for x, y in zip(a, b, strict=False)), default=math.nan
    )
    share = abs(len(here) - len(there)) / max(len(here), 1)
    figures = {
        "rows on the processor": len(here),
        "rows": len(there),
        "greatest difference in a row": worst,
    }
    if kind == "classifier":
        return Outcome(
            len(here) == len(there) and worst <= 1e-2, figures, "equal rows, values to 1e-2"
        )
    note = "boxes of equal score may change their order; differences row by row are for information"
    return Outcome(len(there) > 0 and share <= 0.05, figures, "as many rows, to 5 %", note)


def _numbers(row: dict[str, str]) -> list[float]:
    found = []
    for value in row.values():
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            continue
    return found


def _explained(session: Session, home: Path, method: str) -> Outcome:
    out = home / f"explained-{method}"
    more = ("--method", method, "--count", 2, "--least-score", 0.001, "--device", _device(session))
    twinray(session, "explain", home / "detector", "--data", home / "pack", *more, "--out", out)
    return Outcome(bool(n := len(list(out.rglob("*.png")))), {"pictures": n})


# A study, and packs of 16 bits ----------------------------------------------------------------------------------------


def study(session: Session) -> None:
    """A small study with its report; and what ``--estimate`` says of the same file."""
    home = session.folder("study")
    done = home / "demo"
    toy = session.toy
    n, epochs, size = (40, 1, 64) if toy else (400, 4, 128)
    sizes = (
        "--unlabelled",
        n,
        "--labelled",
        n,
        "--size",
        size,
        "--pretrain-size",
        64 if not toy else 32,
    )
    lengths = ("--pretrain-batch", 16, "--pretrain-epochs", epochs, "--detect-epochs", epochs)
    rest = ("--examples", 1, "--bootstrap", 20, "--device", _device(session))

    def whole() -> Outcome:
        start = time.time()
        twinray(session, "demo", *sizes, *lengths, *rest, "--out", done, limit=300)
        page = done / "report" / "report.html"
        return Outcome(page.is_file(), {"seconds": time.time() - start}, "a report")

    def told() -> Outcome:
        text = twinray(
            session, "study", done / "study.yaml", "--out", home / "new", "--estimate", limit=300
        )
        lines = [line for line in text.splitlines() if line.strip()]
        kinds = [" ".join(line.split()) for line in lines if line.strip().startswith(("│", "|"))]
        total = next((line for line in lines if line.startswith("time until")), "")
        return Outcome(
            bool(total), {}, "a time and a memory for each kind", "; ".join([*kinds, total])
        )

    session.check("demo", whole)
    session.check("estimate of the same study", told)


def sixteen_bits(session: Session) -> None:
    """``pack --pixels uint16``: windows drawn on the device, and the figures of a probe as on the processor."""
    home = session.folder("runs")
    toy = session.toy
    made = ("--format", "phantom", "--phantom-images", 60 if toy else 200, "--size", 64)
    twinray(session, "pack", *made, "--pixels", "uint16", "--out", home / "pack")
    data = ("--data", home / "pack")
    learn = ("--arch", "resnet18", "--size", 32 if toy else 64, "--batch-size", 16, "--epochs", 1)

    def pretrained() -> Outcome:
        out = home / "backbone"
        twinray(
            session,
            "pretrain",
            *data,
            *learn,
            "--projector",
            64,
            64,
            "--device",
            _device(session),
            "--out",
            out,
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        loss = next(line["loss"] for line in reversed(lines) if "loss" in line)
        return Outcome(math.isfinite(loss), {"loss": loss}, "a finite loss")

    def probed() -> Outcome:
        figures = {}
        for where in dict.fromkeys(("cpu", _device(session))):
            out = home / f"probe-{where}"
            how = (
                "--init",
                home / "backbone",
                "--policy",
                "probe",
                "--bootstrap",
                0,
                "--device",
                where,
            )
            twinray(session, "classify", *data, *how, "--out", out)
            figures[where] = _find(json.loads((out / "metrics.json").read_text())["test"], "auc")
        apart = abs(figures["cpu"] - figures[_device(session)])
        return Outcome(apart <= 2e-3, figures, "mean AUC equal to 2e-3")

    session.check("pretrain", pretrained)
    session.check("classify: as on the processor", probed)


# Killed and resumed ---------------------------------------------------------------------------------------------------


def resume_pretrain(session: Session) -> None:
    """``kill -9`` in the middle of pre-training, twice, then ``--resume``."""
    pack = session.folder("pack") / "pack"
    twinray(
        session,
        "pack",
        "--format",
        "phantom",
        "--phantom-images",
        60 if session.toy else 120,
        "--size",
        64,
        "--out",
        pack,
    )
    network = (
        "--arch",
        "resnet18",
        "--size",
        32,
        "--batch-size",
        8,
        "--projector",
        32,
        32,
        "--knn-every",
        0,
    )
    command = (
        "pretrain",
        "--data",
        pack,
        *network,
        "--checkpoint-every",
        2,
        "--log-every",
        1,
        "--compile",
        "off",
        "--device",
        _device(session),
    )
    for name, more, lines in (
        ("deterministic, float32", ("--deterministic", "--precision", "float32"), (3, 8)),
        ("deterministic, bf16", ("--deterministic", "--precision", "bf16"), (5,)),
        ("as shipped", (), (5,)),
    ):
        if session.toy and name != "deterministic, float32":
            continue
        exact = "deterministic" in name
        session.check(
            name,
            partial(
                _killed,
                session,
                (*command, "--epochs", 3, *more),
                "backbone.safetensors",
                exact,
                lines,
            ),
            needs=45,
        )


def resume_detect(session: Session) -> None:
    """``kill -9`` in the middle of a detector's training, twice, then ``--resume``."""
    pack = session.folder("pack") / "pack"
    twinray(
        session,
        "pack",
        "--format",
        "phantom",
        "--phantom-images",
        60 if session.toy else 120,
        "--size",
        64,
        "--out",
        pack,
    )
    network = (
        "--arch",
        "resnet18",
        "--size",
        64,
        "--batch-size",
        4,
        "--fpn-channels",
        32,
        "--box-head-width",
        64,
        "--rois-per-image",
        32,
    )
    rest = (
        "--anchor-scale",
        4,
        "--bootstrap",
        0,
        "--checkpoint-every",
        2,
        "--log-every",
        1,
        "--epochs",
        3,
        "--device",
        _device(session),
    )
    command = ("detect", "--data", pack, *network, *rest)
    options = twinray(session, "detect", "--help")
    if "--compile" in options:
        command = (*command, "--compile", "off")
    if "--deterministic" in options:
        session.check(
            "deterministic, float32",
            partial(
                _killed,
                session,
                (*command, "--deterministic", "--precision", "float32"),
                "model.safetensors",
                True,
            ),
            needs=45,
        )
    if not session.toy or "--deterministic" not in options:
        session.check(
            "as shipped",
            partial(_killed, session, command, "model.safetensors", not session.cuda),
            needs=45,
        )


def _killed(
    session: Session,
    command: tuple[object, ...],
    weights: str,
    exact: bool,
    kills: Sequence[int] = (3, 8),
) -> Outcome:
    """An uninterrupted run, and one that is killed after so many lines of its log.

    Where bytes differ, a second uninterrupted run gives the scale: what is not the same twice without a kill need not be
    so with one.
    """
    home = session.folder("killed")
    whole, again, cut = home / "whole", home / "again", home / "cut"
    twinray(session, *command, "--out", whole)
    for lines in kills:
        _kill_after(session, (*command, "--out", cut, "--resume"), cut, lines)
    twinray(session, *command, "--out", cut, "--resume")
    figures: dict[str, Any] = {
        "same bytes": (cut / weights).read_bytes() == (whole / weights).read_bytes(),
        "greatest difference": _apart(cut / weights, whole / weights),
    }
    if session.cuda and not figures["same bytes"]:
        twinray(session, *command, "--out", again)
        figures["of two runs without a kill"] = _apart(again / weights, whole / weights)
        figures["their bytes the same"] = (again / weights).read_bytes() == (
            whole / weights
        ).read_bytes()
    if exact or figures["same bytes"]:
        return Outcome(figures["same bytes"], figures, "the same bytes")
    close = figures["greatest difference"] <= max(10 * figures["of two runs without a kill"], 1e-6)
    return Outcome(close, figures, "at most 10 x as far apart as two runs without a kill, or 1e-6")


def _kill_after(session: Session, command: tuple[object, ...], run: Path, lines: int) -> None:
    """Start the command and kill it once its log has so many lines.

    Raises:
        RuntimeError: it ended, or did not get there, before it could be killed.
    """
    arguments = [sys.executable, "-m", "twinray.cli", *map(str, command)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = run / "metrics.jsonl", time.monotonic() + min(LIMIT, session.left)
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and log.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    over = process.poll() is not None
    process.kill()
    process.wait()
    seen = log.read_bytes().count(b"\n") if log.is_file() else 0
    session.say(f"    killed after {seen} lines of its log")
    if over:
        raise RuntimeError("the run ended before it could be killed")


def _apart(one: Path, other: Path) -> float:
    a, b = safetensors.torch.load_file(one), safetensors.torch.load_file(other)
    if a.keys() != b.keys():
        return math.inf
    return max(
        float((a[name].double() - b[name].double()).abs().max())
        for name in a
        if a[name].numel() and a[name].dtype != torch.int64
    )
