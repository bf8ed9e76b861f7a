"""What was made of an image and can be made again: pixels for the viewer, the squares that models see, heat maps."""

from __future__ import annotations

import io
import json
from typing import Any, final

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.viewing import View
from twinray.serving.store.files import ImageFiles

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
        """16-bit values, little-endian, row by row."""
        return self._files.cached(f"{sha256}.pixels{_FORM}")

    def display(self, sha256: str) -> dict[str, Any] | None:
        """How they are shown; see :class:`twinray.data.decoding.viewing.Display`."""
        found = self._files.cached(f"{sha256}.display{_FORM}")
        return None if found is None else json.loads(found)

    def keep_packed(self, sha256: str, spec: str, packed: npt.NDArray[Any]) -> None:
        """Keep the square that models of one kind see."""
        sink = io.BytesIO()
        np.save(sink, packed, allow_pickle=False)
        self._files.cache_away(f"{sha256}.packed-{spec}", sink.getvalue(), self._most)

    def packed(self, sha256: str, spec: str) -> npt.NDArray[Any] | None:
        """The square."""
        found = self._files.cached(f"{sha256}.packed-{spec}")
        return None if found is None else np.load(io.BytesIO(found), allow_pickle=False)

    def keep_heat(self, sha256: str, model: str, what: str, method: str, png: bytes) -> None:
        """Keep a heat map of a box (``what`` is its place) or of a class (``label`` and its place)."""
        self._files.cache_away(_heat(sha256, model, what, method), png, self._most)

    def heat(self, sha256: str, model: str, what: str, method: str) -> bytes | None:
        """A heat map as a PNG."""
        return self._files.cached(_heat(sha256, model, what, method))


def _heat(sha256: str, model: str, what: str, method: str) -> str:
    return f"{sha256}.heat-{model[:16]}-{method}-{what}"
