"""Tidy tables of a study: every figure of every run in a row of its own, in an order that follows from the plan alone.

``figures`` holds results and nothing that depends on when or where a run was done. ``runs`` and ``times`` hold that.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twinray.evaluation.record import Figure, SplitFigures
from twinray.files import make_folder, write_bytes, write_text
from twinray.studies.plan.nodes import Cell
from twinray.studies.results.state import Piece, StudyState


@dataclass(frozen=True)
class Row:
    """One figure of one run.

    Attributes:
        task, arm, pretraining_seed, policy, fraction, size, fold, seed: the cell (:class:`Cell`).
        split: val or test.
        images: images that it is over: ``all``, ``with_boxes`` or a group (``sex=F``).
        class_name: class; empty for figures over all classes.
        metric: name of the measure.
        value: the figure; None where it does not exist.
        low, high: ends of its 95 % interval; None without one.
        n, over: number of what the interval rests on, and what that is (``patients``).
        run: id of the run.
    """

    task: str
    arm: str
    pretraining_seed: int | None
    policy: str
    fraction: float
    size: int
    fold: int | None
    seed: int
    split: str
    images: str
    class_name: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    over: str
    run: str


def figures(state: StudyState) -> list[Row]:
    """Every figure that is known, in the order of the plan."""
    return [
        row
        for piece in state.measured()
        for cell in piece.node.cells
        if cell.trial is None
        for split in ("val", "test")
        if split in piece.figures
        for row in _of_split(cell, piece.node.id, split, piece.figures[split])
    ]


def _of_split(cell: Cell, run: str, split: str, own: SplitFigures) -> Iterator[Row]:
    for images, part in own.sets():
        for metric, figure in part.figures.items():
            yield _row(cell, run, (split, images, "", metric), figure)
        for name, of_class in part.per_class.items():
            for metric, figure in of_class.figures.items():
                yield _row(cell, run, (split, images, name, metric), figure)


def _row(cell: Cell, run: str, what: tuple[str, str, str, str], figure: Figure) -> Row:
    low, high = figure.ci95 or (None, None)
    place = (cell.task, cell.arm, cell.pretraining_seed, cell.policy, cell.fraction, cell.size)
    return Row(
        *place, cell.fold, cell.seed, *what, figure.value, low, high, figure.n, figure.over, run
    )


def runs(state: StudyState) -> list[dict[str, Any]]:
    """Every planned piece: its cell, where it stands, and why it failed."""
    return [
        {
            "run": piece.node.id,
            "kind": piece.node.kind,
            "name": piece.node.name,
            "state": piece.state,
            "reason": piece.reason,
        }
        for piece in state.pieces
    ]


def times(state: StudyState) -> list[dict[str, Any]]:
    """When, where and in what time pieces were done; the seconds are those of the claim that ended them."""
    return [_time(piece) for piece in state.pieces if piece.done is not None]


def _time(piece: Piece) -> dict[str, Any]:
    assert piece.done is not None
    done = piece.done
    return {
        "run": piece.node.id,
        "name": piece.node.name,
        "host": done.host,
        "began": done.began,
        "ended": done.ended,
        "seconds": done.seconds,
        "claims": done.claim + 1,
    }


def write_tables(state: StudyState, folder: Path) -> list[Path]:
    """Write ``figures`` (Parquet and CSV), ``runs.csv``, ``times.csv`` and ``deviations.csv``.

    Returns:
        Their paths.

    Raises:
        TwinrayError: the disk refuses.
    """
    make_folder(folder)
    rows = figures(state)
    names = [field.name for field in fields(Row)]
    hints = {f.name: str(f.type).partition(" | ")[0] for f in fields(Row)}
    columns = list(zip(*map(astuple, rows), strict=True)) if rows else [()] * len(names)
    kinds = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
    arrays = {
        name: pa.array(list(values), kinds[hints[name]])
        for name, values in zip(names, columns, strict=True)
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink)
    write_bytes(folder / "figures.parquet", sink.getbuffer(), "figures")
    _csv(folder / "figures.csv", names, [astuple(row) for row in rows])
    tables: dict[str, list[dict[str, Any]]] = {
        "runs": runs(state),
        "times": times(state),
        "deviations": [
            {"kind": d.kind, "what": d.what, "at": d.at, "runs": " ".join(d.runs)}
            for d in state.deviations
        ],
    }
    heads = {"runs": ["run"], "times": ["run"], "deviations": ["kind", "what", "at", "runs"]}
    for name, own in tables.items():
        head = list(own[0]) if own else heads[name]
        _csv(folder / f"{name}.csv", head, [[row[column] for column in head] for row in own])
    return sorted(folder.iterdir())


def _csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in row])
    write_text(path, text.getvalue(), "table")
