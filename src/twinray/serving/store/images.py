"""Images of a store: taking one in, the worklist, one image with all that is known of it, and the queue of work on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
import sqlalchemy as sa
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from twinray.data.classes import says_no_finding
from twinray.inference.active import compact, label_uncertainty, uncertainty
from twinray.records import FloatArray
from twinray.serving.store.audit import note
from twinray.serving.store.database import Database
from twinray.serving.store.exchange import forget_patient
from twinray.serving.store.files import Kept
from twinray.serving.store.models import Analysis, Image, Model, Prediction
from twinray.serving.store.teaching import Teaching, as_text

Order = Literal["newest", "suspicious", "active"]
Count = Literal["unread", "waiting", "failed", "read", "all"]
STATES = ("queued", "running", "done", "failed")
MOST_ATTEMPTS = 5
"""Starts of work on one image after which it counts as failed: it ends the process that works on it."""
LEASE_S = 120.0


@dataclass(frozen=True)
class Claim:
    """An image that a worker has taken.

    Attributes:
        id: image. sha256: its file. kind: kind of file. models: models that still owe an answer.
    """

    id: str
    sha256: str
    kind: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """A predicted box: corners in original pixels, class name, score in 0..1."""

    corners: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True)
class Scores:
    """What a classifier says of an image.

    Attributes:
        of: scores in 0..1 by class name, in the order of the classes.
        exclusive: flag, true where an image has exactly one of the classes.
    """

    of: Mapping[str, float]
    exclusive: bool

    @property
    def highest(self) -> float | None:
        """How suspicious the image is, for an order: the highest score of a class that says there is something.

        Of classes that exclude each other it is what is left of the score of the class that says there is nothing. Of
        two without such a class the second is the one that is looked for. Of more than two nobody knows: None.
        """
        nothing = [name for name in self.of if says_no_finding(name)]
        if not self.exclusive:
            return max(
                (score for name, score in self.of.items() if name not in nothing), default=None
            )
        if nothing:
            return max(0.0, 1.0 - sum(self.of[name] for name in nothing))
        return [*self.of.values()][1] if len(self.of) == 2 else None

    @property
    def doubt(self) -> float:
        """Entropy in bits."""
        return label_uncertainty([*self.of.values()], exclusive=self.exclusive)


Answer: TypeAlias = Sequence[Box] | Scores | str
"""What a model gave: boxes, best first; a classifier its scores; or why it gave nothing."""


@dataclass(frozen=True)
class Facts:
    """What decoding a file told of the image."""

    width: int
    height: int
    patient: str | None = None
    acquired: str | None = None
    view: str | None = None


@dataclass(frozen=True)
class Page:
    """One page of the worklist."""

    images: Sequence[Image]
    total: int


@final
class Images:
    """Images in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._teaching = Teaching()
        self._first: str | None = None

    # --- taking in and looking up -------------------------------------------------------------------------------------

    def add(
        self, kept: Kept, name: str, kind: str, *, who: str, origin: str = "upload"
    ) -> tuple[Image, bool]:
        """An image for a file that is on the disk; the same bytes are the same image.

        Returns:
            The image, and whether it is new.
        """
        own_id = secrets.token_hex(8)

        def change(session: Session) -> tuple[Image, bool]:
            known = session.scalar(select(Image).where(Image.sha256 == kept.sha256))
            if known is not None:
                return known, known.id == own_id
            made = Image(
                id=own_id,
                created=time.time(),
                name=name,
                sha256=kept.sha256,
                size=kept.size,
                kind=kind,
                origin=origin,
            )
            session.add(made)
            note(session, who, "image added", image=own_id, details={"origin": origin})
            session.flush()
            return made, True

        return self._database.write(change)

    def get(self, image: str) -> Image | None:
        """An image by its id; None where there is none."""
        with self._database.reading() as session:
            return session.scalar(select(Image).where(Image.id == image))

    def some(self, ids: Iterable[str]) -> list[Image]:
        """Images by their ids, in that order; those that are not there are left out."""
        wanted = [*ids]
        found: dict[str, Image] = {}
        with self._database.reading() as session:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                for image in session.scalars(select(Image).where(Image.id.in_(part))):
                    found[image.id] = image
        return [found[one] for one in wanted if one in found]

    def priors(self, image: Image, most: int = 20) -> Sequence[Image]:
        """Earlier images of the same patient, newest first."""
        if image.patient is None:
            return ()
        earlier: ColumnElement[bool] = Image.number < image.number
        if image.acquired is not None:
            earlier = sa.or_(
                Image.acquired < image.acquired,
                sa.and_(
                    func.coalesce(Image.acquired, image.acquired) == image.acquired,
                    Image.number < image.number,
                ),
            )
        query = (
            select(Image)
            .where(Image.patient == image.patient, Image.id != image.id, earlier)
            .order_by(Image.acquired.desc(), Image.number.desc())
            .limit(most)
        )
        with self._database.reading() as session:
            return session.scalars(query).all()

    def page(
        self,
        *,
        states: Sequence[str] = (),
        q: str = "",
        order: Order = "newest",
        model: str | None = None,
        page: int = 1,
        size: int = 50,
    ) -> Page:
        """A page of the worklist.

        Args:
            states: states to show; none shows all. ``read`` and ``unread`` are taken too.
            q: text that name, id or patient holds.
            order: newest first; ``suspicious``: images without a score first, then by falling score; ``active``: by how
                much labelling would teach (:mod:`twinray.serving.store.teaching`).
            model: model whose answers give the order; None for the one that is shown first.
            page: number from 1.
            size: images a page.
        """
        where = _chosen(states, q)
        if order == "active":
            return self._teaching_page(where, model, page, size)
        query = select(Image).where(*where)
        if order == "suspicious" and model is not None:
            own = aliased(Analysis)
            query = query.outerjoin(own, sa.and_(own.image == Image.id, own.model == model))
            query = query.order_by(own.score.desc().nulls_first(), Image.number.desc())
        elif order == "suspicious":
            query = query.order_by(Image.score.desc().nulls_first(), Image.number.desc())
        else:
            query = query.order_by(Image.number.desc())
        with self._database.reading() as session:
            total = session.scalar(select(func.count()).select_from(Image).where(*where)) or 0
            return Page(session.scalars(query.limit(size).offset((page - 1) * size)).all(), total)

    def _teaching_page(
        self, where: Sequence[ColumnElement[bool]], model: str | None, page: int, size: int
    ) -> Page:
        """A page of three parts: images chosen one by one, other unread ones by doubt, read ones by doubt."""
        doubt: ColumnElement[float | None] = Image.teach.expression
        query = select(Image).where(*where)
        if model is not None and model != self._first:
            own = aliased(Analysis)
            query = query.outerjoin(own, sa.and_(own.image == Image.id, own.model == model))
            doubt = own.doubt.expression
        by_doubt = (doubt.desc().nulls_last(), Image.number.desc())
        with self._database.reading() as session:
            chosen = self._teaching.chosen(session, model or self._first or "")
            place = {image: n for n, image in enumerate(chosen)}
            front = sorted(
                session.scalars(select(Image).where(*where, Image.id.in_(chosen))),
                key=lambda image: place[image.id],
            )
            rest = query.where(Image.id.not_in(chosen), Image.read.is_(None)).order_by(*by_doubt)
            read = query.where(Image.id.not_in(chosen), Image.read.is_not(None)).order_by(*by_doubt)
            total = session.scalar(select(func.count()).select_from(Image).where(*where)) or 0
            start = (page - 1) * size
            found = front[start : start + size]
            start = max(0, start - len(front))
            if len(found) < size:
                found += session.scalars(rest.limit(size - len(found)).offset(start)).all()
            if len(found) < size and total:
                unread = session.scalar(
                    select(func.count()).select_from(Image).where(*where, Image.read.is_(None))
                )
                start = max(0, start - ((unread or 0) - len(front)))
                found += session.scalars(read.limit(size - len(found)).offset(start)).all()
        return Page(found, total)

    def counts(self) -> dict[str, int]:
        """Number of images in each state."""
        with self._database.reading() as session:
            found = session.execute(select(Image.state, func.count()).group_by(Image.state)).all()
        return dict.fromkeys(STATES, 0) | {row[0]: row[1] for row in found}

    def counts_of(self, q: str = "") -> dict[Count, int]:
        """Number of images that a search matches: ``unread`` (not failed), ``waiting``, ``failed``, ``read`` and ``all``."""
        failed = Image.state == "failed"
        kinds: dict[Count, ColumnElement[bool]] = {
            "unread": sa.and_(Image.read.is_(None), sa.not_(failed)),
            "waiting": Image.state.in_(("queued", "running")),
            "failed": failed,
            "read": Image.read.is_not(None),
        }
        sums = [func.coalesce(func.sum(sa.case((kind, 1), else_=0)), 0) for kind in kinds.values()]
        with self._database.reading() as session:
            row = session.execute(
                select(func.count(), *sums).select_from(Image).where(*_chosen((), q))
            ).one()
        names: tuple[Count, ...] = ("all", *kinds)
        return dict(zip(names, map(int, row), strict=True))

    def waiting(self) -> int:
        """Number of images that work waits for."""
        with self._database.reading() as session:
            return (
                session.scalar(
                    select(func.count()).select_from(Image).where(Image.pending.is_(True))
                )
                or 0
            )

    def place_in_queue(self, image: Image) -> int | None:
        """How many images are analysed before this one; None where it does not wait."""
        if not image.pending or image.state != "queued":
            return None
        with self._database.reading() as session:
            return session.scalar(
                select(func.count())
                .select_from(Image)
                .where(
                    Image.pending.is_(True),
                    sa.or_(
                        Image.attempts < image.attempts,
                        sa.and_(Image.attempts == image.attempts, Image.number < image.number),
                    ),
                )
            )

    def forget(self, *, patient: str = "", image: str = "", who: str) -> list[str]:
        """Remove a patient's images, or one image, with all answers and readings.

        The audit keeps that it was done and how many images it were; rows on these images keep ids alone.

        Returns:
            Hashes of the files that nothing needs any more.
        """

        def change(session: Session) -> list[str]:
            which = Image.patient == patient if patient else Image.id == image
            found = session.execute(select(Image.id, Image.sha256).where(which)).all()
            session.execute(
                sa.delete(Image).where(which).execution_options(synchronize_session=False)
            )
            if patient:
                forget_patient(session, patient)
            note(session, who, "images forgotten", details={"images": len(found)})
            return [sha256 for _, sha256 in found]

        return self._database.write(change)

    def hashes(self) -> list[str]:
        """Hashes of all files that there are rows of."""
        with self._database.reading() as session:
            return [*session.scalars(select(Image.sha256)).all()]

    def known(self, hashes: Iterable[str]) -> set[str]:
        """Those of some hashes of files that there are rows of."""
        wanted, found = [*hashes], set[str]()
        with self._database.reading() as session:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                found |= {
                    *session.scalars(select(Image.sha256).where(Image.sha256.in_(part))).all()
                }
        return found

    # --- answers ------------------------------------------------------------------------------------------------------

    def analyses(self, image: str) -> Sequence[Analysis]:
        """What came of an image, by model."""
        with self._database.reading() as session:
            return session.scalars(
                select(Analysis).where(Analysis.image == image).order_by(Analysis.finished)
            ).all()

    def scores(self, image: str, model: str) -> Mapping[str, float] | None:
        """Scores of a classifier's classes; None of a detector, and without an answer."""
        with self._database.reading() as session:
            found = session.get(Analysis, (image, model))
            return None if found is None else found.labels

    def predictions(self, image: str, model: str) -> Sequence[Prediction]:
        """Boxes of a model on an image, best first."""
        with self._database.reading() as session:
            return session.scalars(
                select(Prediction)
                .where(Prediction.image == image, Prediction.model == model)
                .order_by(Prediction.position)
            ).all()

    def models(self) -> Sequence[Model]:
        """All models that were ever served, oldest first."""
        with self._database.reading() as session:
            return session.scalars(select(Model).order_by(Model.first_served)).all()

    # --- the queue ----------------------------------------------------------------------------------------------------

    def serve(
        self,
        models: Sequence[tuple[str, str, Sequence[str]]],
        classifiers: Collection[str] = (),
    ) -> int:
        """Note which models are served, first the one that is shown first; images that lack an answer wait again.

        Args:
            models: hash, name and class names of each.
            classifiers: hashes of those that give labels and no boxes.

        Returns:
            Number of images that now wait.
        """

        def change(session: Session) -> int:
            for model, name, classes in models:
                known = session.get(Model, model)
                if known is None:
                    session.add(
                        Model(
                            model=model,
                            name=name,
                            kind="classifier" if model in classifiers else "detector",
                            classes=[*classes],
                            first_served=time.time(),
                        )
                    )
                    note(session, "server", "model served", model=model, details={"name": name})
                else:
                    known.name = name
            session.flush()
            hashes = [model for model, _, _ in models]
            answered = (
                select(func.count())
                .select_from(Analysis)
                .where(Analysis.image == Image.id, Analysis.model.in_(hashes))
                .scalar_subquery()
            )
            session.execute(
                sa.update(Image)
                .where(Image.pending.is_(False), Image.state == "done", answered < len(set(hashes)))
                .values(pending=True, attempts=0, worker=None, lease=None)
                .execution_options(synchronize_session=False)
            )
            best, doubt = (
                select(column)
                .where(Analysis.image == Image.id, Analysis.model == hashes[0])
                .scalar_subquery()
                for column in (Analysis.score, Analysis.doubt)
            )
            session.execute(
                sa.update(Image)
                .where(
                    sa.or_(Image.score.is_distinct_from(best), Image.teach.is_distinct_from(doubt))
                )
                .values(score=best, teach=doubt)
                .execution_options(synchronize_session=False)
            )
            return (
                session.scalar(
                    select(func.count()).select_from(Image).where(Image.pending.is_(True))
                )
                or 0
            )

        self._first = models[0][0] if models else None
        return self._database.write(change)

    def claim(self, worker: str, models: Sequence[str]) -> Claim | None:
        """Take the next image; those that were never begun come first. None where nothing waits.

        Without models there is nothing to do: it was given up, or answered before.
        """

        def change(session: Session) -> Claim | None:
            now = time.time()
            taken = session.scalar(
                select(Image)
                .where(
                    Image.pending.is_(True),
                    # a worker has one image at a time: what bears its name it could not finish
                    sa.or_(Image.lease.is_(None), Image.lease < now, Image.worker == worker),
                )
                .order_by(Image.attempts, Image.number)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if taken is None:
                return None
            if taken.attempts >= MOST_ATTEMPTS:
                _give_up(taken)
                return Claim(taken.id, taken.sha256, taken.kind, ())
            have = session.scalars(select(Analysis.model).where(Analysis.image == taken.id)).all()
            owed = tuple(model for model in models if model not in have)
            if not owed:  # it waited for a model that is no longer served
                taken.pending, taken.worker, taken.lease, taken.state = False, None, None, "done"
                return Claim(taken.id, taken.sha256, taken.kind, ())
            taken.attempts += 1
            taken.worker, taken.lease = worker, now + LEASE_S
            if taken.state == "queued":
                taken.state = "running"
            return Claim(taken.id, taken.sha256, taken.kind, owed)

        with self._database.reading() as session:  # waiting workers write nothing
            if session.scalar(select(Image.number).where(Image.pending.is_(True)).limit(1)) is None:
                return None
        return self._database.write(change)

    def extend(self, image: str, worker: str) -> None:
        """Keep an image that takes long."""
        self._database.write(
            lambda session: session.execute(
                sa.update(Image)
                .where(Image.id == image, Image.worker == worker)
                .values(lease=time.time() + LEASE_S)
                .execution_options(synchronize_session=False)
            )
        )

    def release(self, worker: str, *, begun: bool = True) -> int:
        """Put back what a worker has taken: it ended.

        Args:
            worker: worker, or the beginning of the names of several.
            begun: flag, true where the start counts as one: it may be the image that ended it.
        """

        def change(session: Session) -> int:
            found = session.scalars(
                select(Image).where(
                    Image.pending.is_(True), Image.worker.startswith(worker, autoescape=True)
                )
            ).all()
            for image in found:
                image.worker = image.lease = None
                image.attempts -= 0 if begun else 1
                if image.state == "running":
                    image.state = "queued"
            return len(found)

        return self._database.write(change)

    def again(self, image: str, who: str) -> bool:
        """Let an image that failed wait for its analysis again; false where it did not fail, or is not there."""

        def change(session: Session) -> bool:
            found = session.scalar(select(Image).where(Image.id == image).with_for_update())
            if found is None or found.state != "failed":
                return False
            session.execute(sa.delete(Analysis).where(Analysis.image == image))
            found.state, found.pending, found.attempts, found.reason = "queued", True, 0, ""
            note(session, who, "image queued again", image=image)
            return True

        return self._database.write(change)

    def finish(
        self,
        claim: Claim,
        worker: str,
        facts: Facts | None,
        answers: Mapping[str, Answer],
        seconds: float,
        *,
        first: str,
        reason: str = "",
        features: Mapping[str, FloatArray] | None = None,
    ) -> bool:
        """Write what came of an image, all of it at once.

        Args:
            claim: the image as it was taken.
            worker: worker that took it.
            facts: size and patient; None where the file could not be decoded.
            answers: model -> what it gave.
            seconds: time since the claim.
            first: model that is shown first.
            reason: why the file could not be decoded.
            features: model -> (d,) pooled features of its backbone.

        Returns:
            Whether it was this worker's to write; another one may have taken the image over.
        """

        kept = {
            model: as_text(compact(one[np.newaxis])[0]) for model, one in (features or {}).items()
        }

        def change(session: Session) -> bool:
            image = session.scalar(select(Image).where(Image.id == claim.id).with_for_update())
            if image is None or image.worker != worker:
                return False
            if facts is not None:
                image.width, image.height = facts.width, facts.height
                image.patient, image.acquired, image.view = (
                    facts.patient,
                    facts.acquired,
                    facts.view,
                )
            for model, answer in answers.items():
                _write_answer(session, claim.id, model, answer, seconds, kept.get(model))
                if model == first and not isinstance(answer, str):
                    image.score, image.teach = _highest(answer), _doubt(answer)
            failed = facts is None or (
                bool(answers) and all(isinstance(one, str) for one in answers.values())
            )
            if image.state != "done":
                image.state = "failed" if failed else "done"
                image.reason = reason or next(
                    (one for one in answers.values() if failed and isinstance(one, str)), ""
                )
            image.pending, image.worker, image.lease, image.attempts = False, None, None, 0
            return True

        return self._database.write(change)


def _give_up(image: Image) -> None:
    image.pending, image.worker, image.lease = False, None, None
    if image.state != "done":
        image.state = "failed"
        image.reason = f"the analysis ended without an answer {MOST_ATTEMPTS} times; send the image in another form"


def _highest(answer: Sequence[Box] | Scores) -> float | None:
    if isinstance(answer, Scores):
        return answer.highest
    return answer[0].score if answer else 0.0


def _doubt(answer: Sequence[Box] | Scores) -> float:
    if isinstance(answer, Scores):
        return answer.doubt
    return uncertainty([box.score for box in answer])


def _write_answer(
    session: Session,
    image: str,
    model: str,
    answer: Answer,
    seconds: float,
    features: str | None,
) -> None:
    for table in (Prediction, Analysis):
        session.execute(sa.delete(table).where(table.image == image, table.model == model))
    found: Sequence[Box] = () if isinstance(answer, str | Scores) else answer
    session.add(
        Analysis(
            image=image,
            model=model,
            state="failed" if isinstance(answer, str) else "done",
            reason=answer if isinstance(answer, str) else "",
            finished=time.time(),
            seconds=seconds,
            score=None if isinstance(answer, str) else _highest(answer),
            boxes=len(found),
            doubt=None if isinstance(answer, str) else _doubt(answer),
            labels=dict(answer.of) if isinstance(answer, Scores) else None,
            features=features,
        )
    )
    rows: list[dict[str, Any]] = [
        {
            "image": image,
            "model": model,
            "position": position,
            **dict(zip(("x0", "y0", "x1", "y1"), box.corners, strict=True)),
            "label": box.label,
            "score": box.score,
        }
        for position, box in enumerate(found)
    ]
    if rows:
        session.execute(sa.insert(Prediction), rows)


def _chosen(states: Sequence[str], q: str) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    plain = [state for state in states if state in STATES]
    if plain:
        where.append(Image.state.in_(plain))
    if "read" in states:
        where.append(Image.read.is_not(None))
    if "unread" in states:
        where.append(Image.read.is_(None))
    if q:
        where.append(
            sa.or_(
                Image.name.icontains(q, autoescape=True),
                Image.id == q,
                Image.patient == q,
            )
        )
    return where
