"""Reader studies in a database: what was fixed, which reading comes next, what was submitted. A submitted reading is final."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from twinray.serving.store.audit import note
from twinray.serving.store.database import Database
from twinray.serving.store.models import Reading, Slot, Study
from twinray.serving.store.readings import Said, Whole, add_reading, whole_reading


class ClosedError(Exception):
    """The reading was submitted, and is final."""


@dataclass(frozen=True)
class Planned:
    """One reading to be planned: whose, when, of which image, in which arm."""

    reader: str
    session: int
    position: int
    image: str
    arm: str


@dataclass(frozen=True)
class Progress:
    """How far a reader is in one session.

    Attributes:
        reader: name. session: number. submitted, planned: readings. last: time of the last one; None before the first.
    """

    reader: str
    session: int
    submitted: int
    planned: int
    last: float | None


@final
class Studies:
    """Reader studies in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> Study | None:
        """A study by its name; None where there is none."""
        with self._database.reading() as session:
            return session.get(Study, name)

    def all(self) -> Sequence[Study]:
        """All studies, oldest first."""
        with self._database.reading() as session:
            return session.scalars(select(Study).order_by(Study.created)).all()

    def open_ones(self) -> dict[str, tuple[int, int]]:
        """Studies that are neither read to the end nor ended: name -> (submitted, planned) readings."""
        with self._database.reading() as session:
            found = session.execute(
                select(Slot.study, func.count(Slot.submitted), func.count())
                .join(Study, Study.name == Slot.study)
                .where(Study.ended.is_(None))
                .group_by(Slot.study)
                .order_by(Slot.study)
            ).all()
        return {name: (done, planned) for name, done, planned in found if done < planned}

    def begin(
        self, name: str, design: Mapping[str, Any], sha256: str, planned: Sequence[Planned]
    ) -> Study:
        """Fix a study with all of its readings; one of that name that is there already is answered as it stands."""

        def change(session: Session) -> Study:
            known = session.get(Study, name)
            if known is not None:
                return known
            made = Study(name=name, created=time.time(), sha256=sha256, design=dict(design))
            session.add(made)
            session.flush()
            session.add_all(Slot(study=name, **vars(one)) for one in planned)
            note(
                session,
                "server",
                "study begun",
                model=design.get("model"),
                details={"study": name, "design": sha256, "readings": len(planned)},
            )
            return made

        return self._database.write(change)

    def end(self, name: str, who: str) -> None:
        """End a study before all was read; what was submitted stays."""

        def change(session: Session) -> None:
            found = session.get(Study, name)
            if found is not None and found.ended is None:
                found.ended = time.time()
                note(session, who, "study ended", details={"study": name})

        self._database.write(change)

    def slots(self, name: str, reader: str | None = None) -> Sequence[Slot]:
        """Readings of a study, or of one of its readers, in the order in which they are read."""
        query = select(Slot).where(Slot.study == name)
        if reader is not None:
            query = query.where(Slot.reader == reader)
        with self._database.reading() as session:
            return session.scalars(query.order_by(Slot.reader, Slot.session, Slot.position)).all()

    def progress(self, name: str) -> list[Progress]:
        """How far each reader is in each session."""
        with self._database.reading() as session:
            found = session.execute(
                select(
                    Slot.reader,
                    Slot.session,
                    func.count(Slot.submitted),
                    func.count(),
                    func.max(Slot.submitted),
                )
                .where(Slot.study == name)
                .group_by(Slot.reader, Slot.session)
                .order_by(Slot.reader, Slot.session)
            ).all()
        return [Progress(*row) for row in found]

    def open(self, slot: int, now: float) -> None:
        """Note when a reader was first shown an image."""
        self._database.write(
            lambda session: session.execute(
                sa.update(Slot)
                .where(Slot.number == slot, Slot.opened.is_(None))
                .values(opened=now)
                .execution_options(synchronize_session=False)
            )
        )

    def save(self, slot: int, said: Said, who: str, now: float) -> tuple[Whole, bool]:
        """Save a reading on the way, or the final one, of a planned reading.

        Args:
            slot: number of the planned reading.
            said: what the reader says; final where it is ``finished``.
            who: who is signed in.
            now: time.

        Returns:
            The reading as it is kept, and whether it is new.

        Raises:
            ClosedError: it was submitted before, by another save than this one.
            KeyError: there is no such planned reading, or its image was forgotten.
        """
        own_id = secrets.token_hex(8)

        def change(session: Session) -> tuple[Whole, bool]:
            # the row of the planned reading first: two tabs of one reader cannot both submit
            place = session.scalar(select(Slot).where(Slot.number == slot).with_for_update())
            if place is None:
                raise KeyError(slot)
            if place.submitted is not None:
                final = session.scalar(select(Reading).where(Reading.id == place.reading))
                if final is not None and final.key == said.key and said.finished:
                    return whole_reading(session, final), final.id == own_id
                raise ClosedError
            whole, new = add_reading(session, replace(said, slot=slot), who, own_id)
            if said.finished:
                place.submitted, place.reading = now, whole.reading.id
                place.opened = place.opened or now
            return whole, new

        return self._database.write(change)

    def newest(self, slot: int) -> Whole | None:
        """What a reader saved last of a planned reading; None where nothing was."""
        with self._database.reading() as session:
            found = session.scalar(
                select(Reading).where(Reading.slot == slot).order_by(Reading.number.desc()).limit(1)
            )
            return None if found is None else whole_reading(session, found)

    def submitted(self, name: str) -> list[tuple[Slot, Whole]]:
        """All final readings of a study."""
        with self._database.reading() as session:
            found = session.execute(
                select(Slot, Reading)
                .join(Reading, Reading.id == Slot.reading)
                .where(Slot.study == name)
                .order_by(Slot.reader, Slot.session, Slot.position)
            ).all()
            return [(slot, whole_reading(session, reading)) for slot, reading in found]
