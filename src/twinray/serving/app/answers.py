"""How errors are answered: JSON with one line that says what was expected, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """An error as ``{"detail": ...}``."""
    body = json.dumps({"detail": detail, **more}).encode()
    return Response(body, status, dict(headers or {}), "application/json")
