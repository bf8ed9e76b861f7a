"""What a check hands back, and how it travels: one JSON line each, from a group's process to the files of the run.

A *group* is a function that makes some checks, in a process of its own: a device-side assertion ends the process that meets it,
and no other group's. Each check is tried alone, so one that fails leaves those after it.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MARK = "@result "
"""Begins the lines that a group's process means for its parent."""


class Skip(Exception):
    """A check that cannot be made here; its text says why."""


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        passed: whether it is as wanted; None for a figure that nothing was demanded of.
        figures: what was measured.
        wanted: the demand, in words.
        note: whatever else is to be said.
    """

    passed: bool | None
    figures: Mapping[str, Any] = field(default_factory=dict)
    wanted: str = ""
    note: str = ""


@dataclass
class Session:
    """A group's process.

    Attributes:
        group: its name.
        device: where the product runs; the processor is what it is compared with.
        toy: small sizes, for machines without a GPU and for tests.
        work: folder shared by the groups of a part.
        out: folder for what is kept.
        ends: when the group must be done, by ``time.time()``.
    """

    group: str
    device: torch.device
    toy: bool
    work: Path
    out: Path
    ends: float

    @property
    def cuda(self) -> bool:
        """Whether the product runs on a GPU."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until the group must be done."""
        return self.ends - time.time()

    def say(self, text: str) -> None:
        """A line of progress."""
        print(text, flush=True)

    def folder(self, name: str) -> Path:
        """A new folder of this group's own."""
        return Path(
            tempfile.mkdtemp(prefix=f"{self.group.replace(' ', '-')}-{name}-", dir=self.work)
        )

    def check(self, name: str, make: Callable[[], Outcome], *, needs: float = 0.0) -> bool:
        """Make one check and record it, whatever becomes of it.

        Args:
            name: of the check.
            make: makes it.
            needs: seconds that it takes, about; with fewer left it is skipped, and that is recorded.

        Returns:
            Whether it came to an outcome, good or bad.
        """
        start = time.time()
        line: dict[str, Any] = {"group": self.group, "check": name}
        if self.left < needs:
            line |= {
                "status": "skipped",
                "note": f"{self.left:.0f} s left, about {needs:.0f} s needed",
            }
            self._send(line, start)
            return False
        self.say(f"... {name}")
        try:
            outcome = make()
            status = (
                "measured" if outcome.passed is None else "passed" if outcome.passed else "FAILED"
            )
            line |= {
                "status": status,
                "figures": dict(outcome.figures),
                "wanted": outcome.wanted,
                "note": outcome.note,
            }
            done = True
        except Skip as reason:
            line |= {"status": "skipped", "note": str(reason)}
            done = False
        except Exception as error:
            traceback.print_exc()
            line |= {
                "status": "ERROR",
                "note": " ".join(f"{type(error).__name__}: {error}".split())[:600],
            }
            done = False
        self._send(line, start)
        return done

    def _send(self, line: dict[str, Any], start: float) -> None:
        print(
            MARK + json.dumps(line | {"seconds": round(time.time() - start, 2)}, default=_plain),
            flush=True,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value.item() if hasattr(value, "item") else str(value)


def told(line: Mapping[str, Any]) -> str:
    """A result in one line of text."""
    figures = ", ".join(
        f"{name} {_number(value)}" for name, value in line.get("figures", {}).items()
    )
    more = "; ".join(
        part for part in (figures, line.get("wanted", ""), line.get("note", "")) if part
    )
    return f"{line['status']:9} {line['group']}: {line['check']} ({line.get('seconds', 0):.1f} s)  {more}"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted||, in float64 on the processor; infinite where a value is not finite."""
    a, b = found.detach().double().cpu(), wanted.detach().double().cpu()
    if not (bool(torch.isfinite(a).all()) and a.shape == b.shape):
        return math.inf
    return float((a - b).norm() / b.norm().clamp_min(1e-300))
