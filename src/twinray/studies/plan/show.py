"""The plan for people: a table of counts, and a tree of what depends on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from twinray.studies.plan.nodes import Node, Plan
from twinray.words import counted

_KINDS: Mapping[str, str] = {
    "pack": "packs",
    "pretrain": "pre-trainings",
    "features": "feature passes",
    "detect": "detectors",
    "classify": "classifiers",
    "choose": "choices of a search",
}
_MOST = 6
"""Runs under one piece that the tree names; the others are counted."""


def show_plan(plan: Plan, console: Console) -> None:
    """Print title, counts and tree."""
    console.print(Text(plan.study, style="bold"))
    if plan.question:
        console.print(Text(plan.question))
    console.print(_table(plan))
    console.print(tree(plan))
    for one in plan.unfair:
        told = f"arms differ: {one.task}, {one.arm}: {one.option} {one.value} ({one.reason})"
        console.print(Text(told, style="bold red"))
    for what in plan.missing:
        console.print(Text(f"not there yet: {what}", style="bold red"))


def counts(plan: Plan) -> dict[str, int]:
    """Number of pieces by kind, in words; trials of a search on their own."""
    found: Counter[str] = Counter()
    for one in plan:
        trial = bool(one.cells) and not one.measured
        found["trials of a search" if trial else _KINDS[one.kind]] += 1
    return dict(found)


def _table(plan: Plan) -> Table:
    table = Table(title="planned", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    for name, n in counts(plan).items():
        table.add_row(name, f"{n:,}")
    by_task: dict[str, list[Node]] = {}
    for one in plan.measured():
        by_task.setdefault(one.cells[0].task, []).append(one)
    for task, own in by_task.items():
        cells = [cell for one in own for cell in one.cells if cell.task == task]
        axes: dict[str, set[Any]] = {
            "arms": {c.arm for c in cells},
            "seeds of their pre-trainings": {c.pretraining_seed for c in cells} - {None},
            "policies": {c.policy for c in cells} - {""},
            "fractions of the labels": {c.fraction for c in cells},
            "sizes": {c.size for c in cells} - {0},
            "folds": {c.fold for c in cells} - {None},
            "seeds": {c.seed for c in cells},
        }
        told = ", ".join(
            f"{len(values)} {axis}" for axis, values in axes.items() if len(values) > 1
        )
        told = told or "one"
        table.add_row(Text(f"runs of {task}: {told}"), f"{len(own):,}")
    return table


def tree(plan: Plan) -> Tree:
    """What depends on what: every piece under the last of those that it needs."""
    root = Tree(counted(len(plan.nodes), "piece"))
    below: dict[str, list[Node]] = {}
    for one in plan:
        below.setdefault(one.needs[-1] if one.needs else "", []).append(one)
    _grow(root, below, "")
    root.add("open the test images, once every run is done")
    return root


def _grow(branch: Tree, below: Mapping[str, list[Node]], parent: str) -> None:
    own = below.get(parent, [])
    parents = [one for one in own if one.id in below]
    leaves = [one for one in own if one.id not in below]
    for one in parents:
        _grow(branch.add(Text(one.name)), below, one.id)
    for one in leaves[:_MOST]:
        branch.add(Text(one.name))
    if len(leaves) > _MOST:
        branch.add(Text(f"... and {len(leaves) - _MOST:,} more"))
