"""Where a reader of a study sits: which case lies there now, what may be seen of it, and what is taken from the reader.

What the model found leaves the store here alone, and in the arm with boxes alone. A case is shown from when it is opened until it
is submitted; neither cases before nor cases to come can be asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

from twinray.evaluation.readers.crossover import Slot as PlannedSlot
from twinray.evaluation.readers.crossover import Waiting, next_slot
from twinray.serving.readings.design import ARMS, PRACTICE, Design
from twinray.serving.store.images import Box
from twinray.serving.store.models import Image, Slot
from twinray.serving.store.readings import Said, Whole
from twinray.serving.store.store import Store

State = Literal["preparing", "reading", "waiting", "finished"]


@dataclass(frozen=True)
class Now:
    """Where a reader stands.

    Attributes:
        state: ``preparing`` while the model has not answered for all cases, ``reading``, ``waiting`` for the wash-out to
            end, or ``finished``.
        session: number of the session; 0 while practice cases are read. done, planned: its readings. slot: reading that comes now; None unless reading.
        until: end of the wash-out, seconds since 1970. why: what is being waited for, in words.
    """

    state: State
    session: int
    done: int
    planned: int
    slot: Slot | None = None
    until: float | None = None
    why: str = ""


class NotNowError(Exception):
    """The case is not the one that lies before the reader."""


@final
class Desk:
    """The desks of all readers of one study.

    Args:
        store: open store.
        design: what was fixed.
        clock: seconds since 1970.
    """

    def __init__(
        self, store: Store, design: Design, clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.design, self.clock = store, design, clock
        self._ready = False

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.design.file.study

    def reads(self, reader: str) -> bool:
        """Whether somebody is a reader of the study."""
        return reader in self.design.file.readers

    def lacking(self) -> str:
        """Why nobody can read yet; empty where all can. Cases without an answer would make the arms differ by chance."""
        if self._ready:
            return ""
        images = self.store.images.some(
            dict.fromkeys(slot.image for slot in self.store.studies.slots(self.name))
        )
        if failed := [one for one in images if one.state == "failed"]:
            return f"{len(failed)} of {len(images)} cases could not be analysed; the study cannot begin with them"
        answered = sum(self._answered(one) for one in images)
        if answered < len(images):
            return f"the model has answered for {answered} of {len(images)} cases"
        self._ready = True
        return ""

    def _answered(self, image: Image) -> bool:
        return image.state == "done" and any(
            one.model == self.design.model and one.state == "done"
            for one in self.store.images.analyses(image.id)
        )

    def now(self, reader: str) -> Now:
        """Where a reader stands."""
        slots = self.store.studies.slots(self.name, reader)
        coming = _next(slots, self.design.file.wash_out_days, self.clock())
        session = coming.session if isinstance(coming, Slot) else 1 if isinstance(coming, Waiting) else 2  # fmt: skip
        own = [slot for slot in slots if slot.session == session]
        done = sum(slot.submitted is not None for slot in own)
        if why := self.lacking():
            return Now("preparing", session, done, len(own), why=why)
        if coming is None:
            return Now("finished", session, done, len(own))
        if isinstance(coming, Waiting):
            return Now("waiting", session, done, len(own), until=coming.until)
        return Now("reading", session, done, len(own), slot=coming)

    def open(self, reader: str) -> Slot:
        """Lay the next case before a reader.

        Raises:
            NotNowError: there is none now.
        """
        slot = self.now(reader).slot
        if slot is None:
            raise NotNowError
        if slot.opened is None:
            self.store.studies.open(slot.number, self.clock())
        return slot

    def at(self, reader: str, session: int, position: int) -> Slot:
        """The planned reading at a place, if it lies open before the reader.

        Raises:
            NotNowError: it is another one that does, or none.
        """
        slot = self.now(reader).slot
        if slot is None or (slot.session, slot.position) != (session, position) or slot.opened is None:  # fmt: skip
            raise NotNowError
        return slot

    def shown(self, slot: Slot) -> list[tuple[int, Box]]:
        """Boxes of the model that a reader may see of a case, each after its place among all; none in the arm without."""
        if slot.arm != ARMS[1]:
            return []
        return [
            (one.position, Box((one.x0, one.y0, one.x1, one.y1), one.label, one.score))
            for one in self.store.images.predictions(slot.image, self.design.model)
            if one.score >= self.design.file.threshold and one.label in self.design.classes
        ]

    def planned_at(self, reader: str, session: int, position: int) -> Slot | None:
        """The planned reading at a place, whatever became of it."""
        for slot in self.store.studies.slots(self.name, reader):
            if (slot.session, slot.position) == (session, position):
                return slot
        return None

    def save(self, slot: Slot, said: Said, who: str) -> tuple[Whole, bool]:
        """Save a reading on the way, or the final one; see :meth:`twinray.serving.store.studies.Studies.save`."""
        return self.store.studies.save(slot.number, said, who, self.clock())


def _next(slots: Sequence[Slot], days: float, now: float) -> Slot | Waiting | None:
    """What comes next of a reader's planned readings; those of images that were forgotten are no longer among them."""
    for slot in slots:
        if slot.session == PRACTICE and slot.submitted is None:
            return slot
    slots = [slot for slot in slots if slot.session != PRACTICE]
    done = {
        (slot.session, slot.image): slot.submitted for slot in slots if slot.submitted is not None
    }
    planned = [
        PlannedSlot(slot.reader, slot.session, slot.position, slot.image, slot.arm)
        for slot in slots
    ]
    if not any(session == 1 for session, _ in done) and not any(s.session == 1 for s in planned):
        return None  # all of its cases were forgotten
    coming = next_slot(planned, done, days, now)
    if coming is None or isinstance(coming, Waiting):
        return coming
    place = (coming.session, coming.position)
    return next(slot for slot in slots if (slot.session, slot.position) == place)
