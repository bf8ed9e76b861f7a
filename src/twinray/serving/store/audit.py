"""The audit: who did what, when, of which image and model, what was shown and for how long. Rows are only ever added."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, final

from sqlalchemy import select
from sqlalchemy.orm import Session

from twinray.serving.store.database import Database
from twinray.serving.store.models import Audit


def note(
    session: Session,
    who: str,
    action: str,
    *,
    image: str | None = None,
    model: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add a row in the transaction of what it tells of."""
    session.add(
        Audit(
            at=time.time(),
            who=who,
            action=action,
            image=image,
            model=model,
            details=dict(details or {}),
        )
    )


@final
class AuditTrail:
    """The audit of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, who: str, action: str, **of: Any) -> None:
        """Add a row of its own; see :func:`note`."""
        self._database.write(lambda session: note(session, who, action, **of))

    def rows(self, *, after: int = 0, most: int = 1000) -> Sequence[Audit]:
        """Rows after a number, oldest first."""
        with self._database.reading() as session:
            return session.scalars(
                select(Audit).where(Audit.number > after).order_by(Audit.number).limit(most)
            ).all()
