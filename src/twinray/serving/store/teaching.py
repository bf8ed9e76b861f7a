"""The worklist by what labelling would teach most: images in doubt first, far from each other and from those that are read.

The rule is :func:`twinray.inference.active.active_order`'s. It is applied to the :data:`FIRST` images that come next; the others
follow by doubt, and those that somebody has read come last. The order is worked out when it is asked for and kept until an image
is read or analysed. As images are read they leave the front and count as labelled, so the rest of a choice stays what it was.
Images without features (analysed by an earlier version) follow by doubt.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from twinray.inference.active import SHORTLIST, active_order
from twinray.records import FloatArray
from twinray.serving.store.models import Analysis, Image, Reading

FIRST: Final = 100
"""Images that are chosen one by one: more than anybody reads before the order is worked out again."""
MOST_READ: Final = 10_000
"""Read images, the last ones, that new ones are held against."""


def as_text(features: FloatArray) -> str:
    """(d,) features as base64 of 16-bit floats, little-endian."""
    return base64.b64encode(np.asarray(features, dtype="<f2").tobytes()).decode("ascii")


def from_texts(texts: Sequence[str]) -> FloatArray:
    """(n, d) features from what :func:`as_text` made of each."""
    joined = b"".join(base64.b64decode(text) for text in texts)
    return np.frombuffer(joined, dtype="<f2").reshape(len(texts), -1).astype(np.float64)


@final
class Teaching:
    """The order of one store, kept between requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Any, tuple[str, ...]]] = {}

    def chosen(self, session: Session, model: str) -> tuple[str, ...]:
        """Ids of the images to read next, at most :data:`FIRST`, the one that teaches most in front.

        Args:
            session: session that reads.
            model: hash of the model whose doubt and features count.
        """
        rows = session.execute(
            select(Analysis.image, Analysis.doubt)
            .join(Image, Image.id == Analysis.image)
            .where(Analysis.model == model, Analysis.doubt.is_not(None), Image.read.is_(None))
            .order_by(Analysis.doubt.desc(), Image.number.desc())
            .limit(FIRST * SHORTLIST)
        ).all()
        state = (tuple(map(tuple, rows)), session.scalar(select(func.max(Reading.number))))
        with self._lock:
            kept = self._kept.get(model)
            if kept is None or kept[0] != state:
                order = _order(session, model, {image: doubt or 0.0 for image, doubt in rows})
                self._kept[model] = kept = (state, order)
            return kept[1]


def _order(session: Session, model: str, doubts: dict[str, float]) -> tuple[str, ...]:
    ids = [*doubts]
    texts: dict[str, str] = {}
    for start in range(0, len(ids), 500):
        found = session.execute(
            select(Analysis.image, Analysis.features).where(
                Analysis.model == model,
                Analysis.image.in_(ids[start : start + 500]),
                Analysis.features.is_not(None),
            )
        )
        texts.update({image: text for image, text in found if text is not None})
    known = [image for image in ids if image in texts]
    if not known:
        return ()
    read = [
        text
        for text in session.scalars(
            select(Analysis.features)
            .join(Image, Image.id == Analysis.image)
            .where(Analysis.model == model, Analysis.features.is_not(None), Image.read.is_not(None))
            .order_by(Image.read.desc())
            .limit(MOST_READ)
        )
        if text is not None
    ]
    order = active_order(
        from_texts([texts[image] for image in known]),
        np.array([doubts[image] for image in known]),
        from_texts(read) if read else None,
        first=FIRST,
    )
    return tuple(known[int(place)] for place in order[:FIRST])
