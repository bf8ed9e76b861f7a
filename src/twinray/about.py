"""What the product is called, which version this is, and what must be said beside every result."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISCLAIMER = "Research software, not a medical device"


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def own_version() -> str:
    """The version of twinray, or ``source tree`` where it runs without being installed."""
    return version_of("twinray") or "source tree"
