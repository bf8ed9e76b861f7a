"""What a store knows of its archive: who a pseudonym is, what was fetched, what goes back and what became of it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import final

import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from twinray.serving.store.audit import note
from twinray.serving.store.database import Database
from twinray.serving.store.models import Analysis, Arrival, Audit, Image, Patient, Reading, Send

MOST_TRIES = 12
"""Tries of one send, each after twice the time of the one before, up to an hour: about eight hours in all."""
_ON, _OFF = "send back on", "send back off"


@final
class Exchange:
    """Tables of the link to an archive.

    Args:
        database: database. key: secret of the store's pseudonyms.
    """

    def __init__(self, database: Database, key: bytes) -> None:
        self._database, self._key = database, key

    # --- patients -----------------------------------------------------------------------------------------------------

    def pseudonym(self, identifier: str, issuer: str = "") -> str:
        """The pseudonym of a patient, as images have it."""
        text = f"{issuer}\n{identifier}".encode("utf-8", "replace")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]

    def unnamed(self, most: int = 20) -> Sequence[Image]:
        """One DICOM image each of patients whom the map lacks."""
        with self._database.reading() as session:
            first = (
                select(func.min(Image.number))
                .where(
                    Image.patient.is_not(None),
                    Image.patient.not_in(select(Patient.patient)),
                    Image.kind == "dicom",
                )
                .group_by(Image.patient)
                .limit(most)
            )
            return session.scalars(select(Image).where(Image.number.in_(first))).all()

    def name(self, patient: str, identifier: str, issuer: str) -> None:
        """Keep who a pseudonym is."""

        def change(session: Session) -> None:
            if session.get(Patient, patient) is None:
                session.add(
                    Patient(
                        patient=patient, identifier=identifier, issuer=issuer, noted=time.time()
                    )
                )

        self._database.write(change)

    def pseudonyms_of(self, identifier: str) -> list[str]:
        """Pseudonyms of a patient's number, one for each issuer that is known, and that without one."""
        with self._database.reading() as session:
            known = session.scalars(
                select(Patient.patient).where(Patient.identifier == identifier)
            ).all()
        return [*dict.fromkeys([*known, self.pseudonym(identifier)])]

    # --- fetched ------------------------------------------------------------------------------------------------------

    def object_mark(self, uid: str) -> str:
        """Keyed hash of an object's UID."""
        return hmac.new(self._key, f"object\n{uid}".encode(), hashlib.sha256).hexdigest()

    def known(self, uids: Sequence[str]) -> set[str]:
        """Those of some UIDs whose objects were fetched."""
        marks = {self.object_mark(uid): uid for uid in uids}
        found: set[str] = set()
        with self._database.reading() as session:
            names = [*marks]
            for start in range(0, len(names), 500):
                part = select(Arrival.object).where(Arrival.object.in_(names[start : start + 500]))
                found |= {marks[mark] for mark in session.scalars(part)}
        return found

    def arrived(self, uid: str, image: str) -> None:
        """Keep that an object was fetched."""
        mark = self.object_mark(uid)

        def change(session: Session) -> None:
            if session.get(Arrival, mark) is None:
                session.add(Arrival(object=mark, image=image, at=time.time()))

        self._database.write(change)

    def image_of(self, uid: str) -> str | None:
        """Id of the image that an object became; None where it never came, or was forgotten."""
        with self._database.reading() as session:
            found = session.get(Arrival, self.object_mark(uid))
            return None if found is None else found.image

    # --- sent back ----------------------------------------------------------------------------------------------------

    def switched(self, on: bool, setting: str) -> float:
        """Note in the audit that sending back by itself is on or off; time since which it is on."""

        def change(session: Session) -> float:
            last = session.scalar(
                select(Audit)
                .where(Audit.action.in_((_ON, _OFF)))
                .order_by(Audit.number.desc())
                .limit(1)
            )
            if on and (last is None or last.action == _OFF or last.details.get("when") != setting):
                note(session, "server", _ON, details={"when": setting})
                return time.time()
            if not on and last is not None and last.action == _ON:
                note(session, "server", _OFF)
            return last.at if on and last is not None else 0.0

        return self._database.write(change)

    def queue_signed(self, since: float, grace: float = 0.0) -> int:
        """Queue readings that were signed after a time, of images that came from the archive; number of new ones.

        Args:
            since: time. grace: seconds for which a reader may take "done" back before it goes.
        """
        # what a reader study found out is no report of anybody; a reader who took "done" back has signed nothing
        newest = (
            select(func.max(Reading.number))
            .where(Reading.slot.is_(None))
            .group_by(Reading.image, Reading.reader)
        )
        query = (
            select(Reading)
            .join(Image, Image.id == Reading.image)
            .where(
                Reading.number.in_(newest),
                Reading.finished.is_(True),
                Reading.created >= since,
                Reading.created <= time.time() - grace,
                Image.origin == "archive",
                Image.kind == "dicom",
                ~select(Send.number).where(Send.reading == Reading.id).exists(),
            )
            .limit(200)
        )

        def change(session: Session) -> int:
            found = session.scalars(query).all()
            for reading in found:
                _retire(session, reading)
                session.add(_new(reading.image, reading.id, reading.model or "", reading.reader))
            return len(found)

        return self._database.write(change)

    def queue_done(self, since: float, model: str) -> int:
        """Queue the model's own boxes of images that came from the archive after a time, where it has answered."""
        query = (
            select(Image.id)
            .where(
                Image.state == "done",
                Image.created >= since,
                Image.origin == "archive",
                Image.kind == "dicom",
                # an image is done by any model; one that gave no answer would seem to have found nothing
                select(Analysis.image)
                .where(
                    Analysis.image == Image.id,
                    Analysis.model == model,
                    Analysis.state == "done",
                )
                .exists(),
                ~select(Send.number)
                .where(Send.image == Image.id, Send.reading == "", Send.model == model)
                .exists(),
            )
            .limit(200)
        )

        def change(session: Session) -> int:
            found = session.scalars(query).all()
            session.add_all(_new(image, "", model, "server") for image in found)
            return len(found)

        return self._database.write(change)

    def queue(self, image: str, reading: str, model: str, who: str) -> Send:
        """Queue one image's results because somebody asked for it; one that went or failed goes again."""

        def change(session: Session) -> Send:
            known = session.scalar(
                select(Send).where(
                    Send.image == image, Send.reading == reading, Send.model == model
                )
            )
            if known is None:
                known = _new(image, reading, model, who)
                session.add(known)
            else:
                known.state, known.attempts, known.due, known.reason = "queued", 0, time.time(), ""
            note(session, who, "send asked for", image=image, model=model or None)
            session.flush()
            return known

        return self._database.write(change)

    def due(self, most: int = 10) -> Sequence[Send]:
        """Sends whose time has come, oldest first."""
        with self._database.reading() as session:
            return session.scalars(
                select(Send)
                .where(Send.state == "queued", Send.due <= time.time())
                .order_by(Send.number)
                .limit(most)
            ).all()

    def drop_taken_back(self, send: Send) -> bool:
        """Let a reading that its reader has taken back since it was queued not go; whether that is so."""

        def change(session: Session) -> bool:
            own = session.scalar(select(Reading).where(Reading.id == send.reading))
            if own is None:
                return False
            newest = (
                select(Reading.finished)
                .where(
                    Reading.image == own.image,
                    Reading.reader == own.reader,
                    Reading.slot.is_(None),
                )
                .order_by(Reading.number.desc())
                .limit(1)
            )
            if session.scalar(newest) is not False:
                return False
            session.execute(
                sa.update(Send)
                .where(Send.number == send.number, Send.state == "queued")
                .values(state="stale", finished=time.time())
                .execution_options(synchronize_session=False)
            )
            return True

        return self._database.write(change)

    def settle(self, number: int, reason: str, *, passes: bool = False) -> None:
        """Keep what came of a try: sent, to be tried again, or failed.

        Args:
            number: which. reason: why it was not sent; empty where it was.
            passes: flag, true where the same may succeed later.
        """

        def change(session: Session) -> None:
            one = session.get(Send, number)
            if one is None or one.state != "queued":
                return
            one.attempts += 1
            one.reason = reason
            if reason and passes and one.attempts < MOST_TRIES:
                one.due = time.time() + min(3600.0, 15.0 * 2**one.attempts)
                return
            one.state, one.finished = ("failed" if reason else "sent"), time.time()
            note(
                session,
                "server",
                "results failed to go" if reason else "results sent",
                image=one.image,
                model=one.model or None,
                details={"reading": one.reading, "tries": one.attempts},
            )

        self._database.write(change)

    def sends(self, image: str) -> Sequence[Send]:
        """What goes, or went, of an image, newest first."""
        with self._database.reading() as session:
            return session.scalars(
                select(Send).where(Send.image == image).order_by(Send.number.desc())
            ).all()

    def counts(self) -> dict[str, int]:
        """Number of sends in each state."""
        with self._database.reading() as session:
            rows = session.execute(select(Send.state, func.count()).group_by(Send.state)).all()
        return dict.fromkeys(("queued", "sent", "failed", "stale"), 0) | {r[0]: r[1] for r in rows}


def forget_patient(session: Session, patient: str) -> None:
    """Remove a patient from the map."""
    session.execute(sa.delete(Patient).where(Patient.patient == patient))


def _retire(session: Session, reading: Reading) -> None:
    """Earlier readings of the same reader and image that still wait do not go any more."""
    earlier = select(Reading.id).where(
        Reading.image == reading.image,
        Reading.reader == reading.reader,
        Reading.number < reading.number,
    )
    session.execute(
        sa.update(Send)
        .where(Send.state == "queued", Send.reading.in_(earlier))
        .values(state="stale", finished=time.time())
        .execution_options(synchronize_session=False)
    )


def _new(image: str, reading: str, model: str, who: str) -> Send:
    now = time.time()
    return Send(image=image, reading=reading, model=model, who=who, created=now, due=now)
