"""Print what CHANGELOG.md says of a version: the notes of its release.

    python scripts/release_notes.py v0.1.0

The version must be that of pyproject.toml, and its section must say something.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, changelog: str, version: str) -> str:
    """The section of a version, without its heading.

    Raises:
        ValueError: the tag is not the package's version, or the changelog has nothing on it.
    """
    named = tag.removeprefix("v")
    if named != version:
        raise ValueError(
            f"expected a tag of version {version} (pyproject.toml), got {tag}; change one of the two"
        )
    heading = rf"^## \[?{re.escape(named)}\]?(?![\w.]).*$"
    found = re.search(heading, changelog, re.MULTILINE)
    if found is None:
        raise ValueError(
            f"CHANGELOG.md has no section of {named}; give Unreleased that name and its date"
        )
    body = re.split(r"^## ", changelog[found.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not body:
        raise ValueError(f"CHANGELOG.md says nothing of {named}")
    # links of the repository's pages lead nowhere on the page of a release
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", body) + "\n"


def main() -> int:
    """Print the notes; 2 where there are none."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    try:
        print(notes(sys.argv[1], changelog, project["version"]), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
