"""Terms of all that the extra ``serve`` brings: a hospital must be able to install it without asking a lawyer."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL)\b", re.IGNORECASE
)
LESSER = {
    "psycopg",
    "psycopg-binary",
}
"""Under the LGPL, which binds who changes the library itself, not who uses it."""


def terms_of(name: str) -> str:
    about = distribution(name).metadata
    classifiers = [one for one in about.get_all("Classifier") or () if one.startswith("License")]
    return " ".join(
        [about.get("License-Expression") or "", (about.get("License") or "")[:200], *classifiers]
    )


def below(names: list[str]) -> set[str]:
    """The packages and all that they need on this machine."""
    found: set[str] = set()
    left = [Requirement(one) for one in names]
    while left:
        one = left.pop()
        extras = one.extras or {""}
        if one.name.lower() in found:
            continue
        try:
            needs = distribution(one.name).requires or []
        except PackageNotFoundError:
            continue
        found.add(one.name.lower())
        for text in needs:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                left.append(need)
    return found


def test_all_that_serve_brings_is_permissive_or_named_here():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    wanted = project["project"]["optional-dependencies"]["serve"]
    found = below(wanted)
    assert {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg"} <= found
    odd = {name: terms_of(name) for name in found if not PERMISSIVE.search(terms_of(name))}
    assert set(odd) <= LESSER, odd
    assert all("GPL" not in terms_of(name) or name in LESSER for name in found)
