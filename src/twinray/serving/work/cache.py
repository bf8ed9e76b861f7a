"""What was made of an image and can be made again: pixels for the viewer, the squares that models see, heat maps."""

from __future__ import annotations

import io
import json
from typing import Any, final

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.viewing import View
from twinray.serving.store.files import ImageFiles

_PNG_END = b"IEND\xaeB`\x82"
_FORM = "1"
"""Changes where what is kept changes."""


@final
class Cache:
    """The cache of a store's files.

    Args:
        files: files. most_mib: space that it may take.
    """

    def __init__(self, files: ImageFiles, most_mib: int) -> None:
        self._files, self._most = files, most_mib << 20

    def keep_view(self, sha256: str, view: View) -> None:
        """Keep values for the viewer and how they are shown."""
        values = np.ascontiguousarray(view.values, dtype="<u2").tobytes()
        self._files.cache_away(f"{sha256}.pixels{_FORM}", values, self._most)
        shown = json.dumps(view.display.as_json()).encode()
        self._files.cache_away(f"{sha256}.display{_FORM}", shown, self._most)

    def pixels(self, sha256: str) -> bytes | None:
        """16-bit values, little-endian, row by row; None where they are not whole."""
        found, shown = self._files.cached(f"{sha256}.pixels{_FORM}"), self.display(sha256)
        whole = found and shown and len(found) == 2 * shown["width"] * shown["height"]
        return found if whole else None

    def display(self, sha256: str) -> dict[str, Any] | None:
        """How they are shown; see :class:`twinray.data.decoding.viewing.Display`."""
        found = self._files.cached(f"{sha256}.display{_FORM}")
        try:
            return json.loads(found) if found else None
        except ValueError:  # a machine that lost power may have kept half of a file
            return None

    def keep_packed(self, sha256: str, spec: str, packed: npt.NDArray[Any]) -> None:
        """Keep the square that models of one kind see."""
        sink = io.BytesIO()
        np.save(sink, packed, allow_pickle=False)
        self._files.cache_away(f"{sha256}.packed-{spec}", sink.getvalue(), self._most)

    def packed(self, sha256: str, spec: str) -> npt.NDArray[Any] | None:
        """The square."""
        found = self._files.cached(f"{sha256}.packed-{spec}")
        try:
            return np.load(io.BytesIO(found), allow_pickle=False) if found else None
        except (ValueError, EOFError, OSError):
            return None

    def keep_heat(self, sha256: str, model: str, what: str, method: str, png: bytes) -> None:
        """Keep a heat map of a box (``what`` is its place) or of a class (``label`` and its place)."""
        self._files.cache_away(_heat(sha256, model, what, method), png, self._most)

    def heat(self, sha256: str, model: str, what: str, method: str) -> bytes | None:
        """A heat map as a PNG."""
        found = self._files.cached(_heat(sha256, model, what, method))
        return found if found and found.endswith(_PNG_END) else None


def _heat(sha256: str, model: str, what: str, method: str) -> str:
    return f"{sha256}.heat-{model[:16]}-{method}-{what}"
