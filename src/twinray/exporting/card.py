"""README.md beside exported weights: the model card."""

from __future__ import annotations

from twinray.about import DISCLAIMER, own_version
from twinray.exporting.files import Exported
from twinray.exporting.parity import Parity
from twinray.exporting.subject import Subject


def card(subject: Subject, target: str, exported: Exported, parity: Parity, source: str) -> str:
    """The card as Markdown."""
    what = f"{subject.kind} on {subject.arch}, {subject.size} pixels"
    lines = [
        f"# {what}, for {target}",
        "",
        f"{DISCLAIMER}.",
        "",
        "## Loading",
        "",
        exported.usage,
        "",
        "## Check against the run",
        "",
        f"- {parity.told()}. Images: {source}.",
        *(f"- {note}" for note in (*exported.notes, *subject.edited)),
        "",
        f"Exported by twinray {own_version()}.",
        "",
    ]
    return "\n".join(lines)
