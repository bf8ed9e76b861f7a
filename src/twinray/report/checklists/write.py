"""Every checklist as files: Markdown for people, JSON with pointers for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twinray.files import clear_disk_errors, write_json, write_text
from twinray.report.checklists.fill import Answer, as_json, as_markdown, checklist
from twinray.report.checklists.sources import Records

LISTS = ("claim-2024", "tripod-ai", "mi-claim")


def write_checklists(records: Records, folder: Path) -> Mapping[str, Sequence[Answer]]:
    """Fill every checklist from the records, write it, and return the answers by its name.

    Raises:
        TwinrayError: the disk refuses.
    """
    with clear_disk_errors(folder, "checklists"):
        folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in LISTS:
        found[name] = checklist(records, name)
        write_json(folder / f"{name}.json", as_json(name, found[name]), "checklist")
        write_text(folder / f"{name}.md", as_markdown(name, found[name]), "checklist")
    return found
