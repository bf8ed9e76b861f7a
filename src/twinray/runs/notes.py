"""Notes that finished runs carry: what a reader must know to read their figures rightly, each said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinray.runs.folder import METRICS, read_metrics

UNKNOWN_SEEN = "what its initial weights saw in training is not recorded"


def own_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes in a run's ``metrics.json``, on its pack, its layers, its images."""
    notes = metrics.get("notes")
    return tuple(dict.fromkeys(map(str, notes))) if isinstance(notes, list) else ()


def metrics_of(run: Path) -> dict[str, Any]:
    """A run's ``metrics.json``; empty where only its weights were kept."""
    return read_metrics(run) if (run / METRICS).is_file() else {}


def told_once(notes: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """Every note once, behind the name of the arms whose runs carry it.

    Args:
        notes: arm -> for each of its runs the run's notes.
    """
    everything = [own for runs in notes.values() for own in runs]
    told = []
    for note in dict.fromkeys(note for own in everything for note in own):
        if len(everything) > 1 and all(note in own for own in everything):
            told.append(f"all runs: {note}")
            continue
        for name, runs in notes.items():
            n = sum(note in own for own in runs)
            if n:
                told.append(
                    f"{name}: {note}"
                    if n == len(runs)
                    else f"{name}, {n} of {len(runs)} runs: {note}"
                )
    return told
