"""What readers said of images: saved often, never changed, the newest of a reader counts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from twinray.serving.store.audit import note
from twinray.serving.store.database import Database
from twinray.serving.store.models import Image, Mark, Reading

Verdict = Literal["accepted", "rejected", "moved", "added"]


@dataclass(frozen=True)
class Marked:
    """One box of a reading.

    Attributes:
        corners: original pixels. label: class name. verdict: what the reader did.
        prediction: position of the predicted box that it is about. model: hash of that box's model.
        rating: how sure the reader is, in a reader study.
    """

    corners: tuple[float, float, float, float]
    label: str
    verdict: Verdict
    prediction: int | None = None
    model: str | None = None
    rating: float | None = None


@dataclass(frozen=True)
class Said:
    """One save of a reader; see :class:`twinray.serving.store.models.Reading`.

    Attributes:
        after: id of the reader's newest reading that the save was made of, empty where there was none; None for whatever is
            there.
    """

    image: str
    reader: str
    key: str
    marks: tuple[Marked, ...] = ()
    normal: bool | None = None
    text: str = ""
    labels: Mapping[str, bool] = field(default_factory=dict)
    model: str | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    finished: bool = True
    slot: int | None = None
    after: str | None = None


class OvertakenError(Exception):
    """The reader has said something else meanwhile, in another tab or on another machine."""


@dataclass(frozen=True)
class Whole:
    """A reading with its boxes."""

    reading: Reading
    marks: Sequence[Mark]


@final
class Readings:
    """Readings in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, said: Said, who: str) -> tuple[Whole, bool]:
        """Save a reading; one that came already, by its key, is answered as it stands.

        Args:
            said: what the reader said.
            who: who is signed in.

        Returns:
            The reading as it is kept, and whether it is new.

        Raises:
            KeyError: there is no such image.
            OvertakenError: another reading of the reader came after the one that the save was made of.
        """
        own_id = secrets.token_hex(8)
        return self._database.write(lambda session: add_reading(session, said, who, own_id))

    def of_image(self, image: str, *, every: bool = False) -> list[Whole]:
        """The newest reading of each reader, or with ``every`` all of them, oldest first."""
        with self._database.reading() as session:
            query = select(Reading).where(Reading.image == image)
            if not every:
                query = query.where(Reading.number.in_(_newest().where(Reading.image == image)))
            found = session.scalars(query.order_by(Reading.number)).all()
            return [whole_reading(session, one) for one in found]

    def all(self, *, at_once: int = 500) -> Iterator[Whole]:
        """The newest reading of each reader and image, oldest first; read in pieces."""
        after = 0
        while True:
            with self._database.reading() as session:
                found = session.scalars(
                    select(Reading)
                    .where(Reading.number.in_(_newest()), Reading.number > after)
                    .order_by(Reading.number)
                    .limit(at_once)
                ).all()
                marks: dict[str, list[Mark]] = {one.id: [] for one in found}
                for mark in session.scalars(
                    select(Mark)
                    .where(Mark.reading.in_(marks))
                    .order_by(Mark.reading, Mark.position)
                ):
                    marks[mark.reading].append(mark)
            if not found:
                return
            yield from (Whole(one, marks[one.id]) for one in found)
            after = found[-1].number

    def readers(self) -> list[str]:
        """Names of all who have saved a reading."""
        with self._database.reading() as session:
            return [
                *session.scalars(select(Reading.reader).distinct().order_by(Reading.reader)).all()
            ]


def add_reading(session: Session, said: Said, who: str, own_id: str) -> tuple[Whole, bool]:
    """Save a reading in a transaction; one that came already, by its key, is answered as it stands.

    Args:
        session: transaction.
        said: what the reader said.
        who: who is signed in.
        own_id: id of a new reading, made outside of the transaction, which may be done twice.

    Returns:
        The reading as it is kept, and whether it is new.

    Raises:
        KeyError: there is no such image.
        OvertakenError: another reading of the reader came after the one that the save was made of.
    """
    # the image's row first: saves of one image follow each other, and the image cannot leave meanwhile
    image = session.scalar(select(Image).where(Image.id == said.image).with_for_update())
    if image is None:
        raise KeyError(said.image)
    known = session.scalar(
        select(Reading).where(
            Reading.image == said.image,
            Reading.reader == said.reader,
            Reading.key == said.key,
        )
    )
    if known is not None:
        return whole_reading(session, known), known.id == own_id
    if said.after is not None and said.after != _newest_of(session, said):
        raise OvertakenError(said.image)
    now = time.time()
    made = Reading(
        id=own_id,
        image=said.image,
        reader=said.reader,
        key=said.key,
        created=now,
        normal=said.normal,
        text=said.text,
        labels=dict(said.labels),
        model=said.model,
        shown=dict(said.shown),
        seconds=said.seconds,
        finished=said.finished,
        slot=said.slot,
    )
    session.add(made)
    session.flush()
    session.add_all(
        Mark(
            reading=own_id,
            position=position,
            **dict(zip(("x0", "y0", "x1", "y1"), one.corners, strict=True)),
            label=one.label,
            verdict=one.verdict,
            prediction=one.prediction,
            model=one.model,
            rating=one.rating,
        )
        for position, one in enumerate(said.marks)
    )
    if said.finished:
        image.read = now
    elif image.read is not None and not _others_finished(session, said):
        image.read = None  # a reader who takes "done" back has not read it
    note(
        session,
        who,
        "reading saved",
        image=said.image,
        model=said.model,
        details={
            "reading": own_id,
            "reader": said.reader,
            "marks": len(said.marks),
            "normal": said.normal,
            "labels": dict(said.labels),
            "seconds": said.seconds,
            "shown": dict(said.shown),
            "finished": said.finished,
            **({} if said.slot is None else {"slot": said.slot}),
        },
    )
    session.flush()
    return whole_reading(session, made), True


def _newest() -> Any:
    return select(func.max(Reading.number)).group_by(Reading.image, Reading.reader)


def _newest_of(session: Session, said: Said) -> str:
    """Id of the reader's newest reading of the image; empty where there is none."""
    own = select(Reading.id).where(Reading.image == said.image, Reading.reader == said.reader)
    return session.scalar(own.order_by(Reading.number.desc()).limit(1)) or ""


def _others_finished(session: Session, said: Said) -> bool:
    """Whether the newest reading of some other reader is finished."""
    newest = Reading.number.in_(_newest().where(Reading.image == said.image))
    asked = select(Reading.number).where(
        newest, Reading.reader != said.reader, Reading.finished.is_(True)
    )
    return session.scalar(asked.limit(1)) is not None


def whole_reading(session: Session, reading: Reading) -> Whole:
    """A reading with its boxes."""
    marks = session.scalars(
        select(Mark).where(Mark.reading == reading.id).order_by(Mark.position)
    ).all()
    return Whole(reading, marks)
