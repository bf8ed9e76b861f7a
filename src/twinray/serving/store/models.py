"""Tables of a store.

Which columns may hold what a file says of a person, and no others:

- ``images.name``: name of the file, as the client gave it.
- ``images.patient``: keyed hash of the patient's identity, not the identity itself.
- ``images.acquired``: date and time of the study, as a DICOM header has it.
- ``patients.identifier``, ``patients.issuer``: number of the patient, so that an operator can find who a pseudonym is.
- ``readings.text``: free text of a reader. ``readings.reader``, ``slots.reader``, ``studies.design``, ``users.name``,
  ``sessions.who``, ``sends.who``, ``audit.who``, ``audit.details``: names of readers.

Times are seconds since 1970, UTC. Boxes are in original pixels, right and bottom exclusive.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables of the store."""

    metadata = MetaData(naming_convention=_NAMING)


_RowNumber = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up in SQLite


class Image(Base):
    """One image file, and where it stands in the queue.

    Attributes:
        number: order of arrival. id: random name, by which clients know it.
        created: time of arrival. name: name of the file. sha256: hash of its bytes, by which it lies in the folder.
        size: its bytes. kind: kind by content (``dicom``, ``png``). origin: ``upload`` or ``archive``.
        state: ``queued``, ``running``, ``done`` or ``failed``. reason: why it failed, in words.
        width, height: pixels; None before it was decoded.
        patient: keyed hash of the patient. acquired: date and time of the study. view: view position.
        score: highest score of the model that is shown first; None without an answer, or where no score says how
            suspicious it is (see :attr:`twinray.serving.store.images.Scores.highest`).
        teach: how much labelling it would teach; None where nothing was worked out.
        read: time of the newest reading.
        pending: flag, true while work waits. attempts: starts of that work. worker, lease: who does it, and until when.
    """

    __tablename__ = "images"
    __table_args__ = (
        Index("ix_images_state_number", "state", "number"),
        Index("ix_images_pending", "pending", "attempts", "number"),
        Index("ix_images_score", "score", "number"),
        Index("ix_images_teach", "teach", "number"),
        Index("ix_images_patient", "patient", "acquired"),
    )
    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    created: Mapped[float] = mapped_column(Float(53))
    name: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    origin: Mapped[str] = mapped_column(String(16), default="upload")
    state: Mapped[str] = mapped_column(String(8), default="queued")
    reason: Mapped[str] = mapped_column(Text, default="")
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    patient: Mapped[str | None] = mapped_column(String(64))
    acquired: Mapped[str | None] = mapped_column(String(32))
    view: Mapped[str | None] = mapped_column(String(16))
    score: Mapped[float | None] = mapped_column(Float(53))
    teach: Mapped[float | None] = mapped_column(Float(53))
    read: Mapped[float | None] = mapped_column(Float(53))
    pending: Mapped[bool] = mapped_column(Boolean, default=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str | None] = mapped_column(String(64))
    lease: Mapped[float | None] = mapped_column(Float(53))


class Model(Base):
    """One model that was ever served.

    Attributes:
        model: hash of its weights. name: name of its run's folder. kind: ``detector`` or ``classifier``.
        classes: class names. first_served: time.
    """

    __tablename__ = "models"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16), default="detector")
    classes: Mapped[list[str]] = mapped_column(JSON)
    first_served: Mapped[float] = mapped_column(Float(53))


class Analysis(Base):
    """What came of one image and one model.

    Attributes:
        image, model: which. state: ``done`` or ``failed``. reason: why it failed.
        finished: time. seconds: time that it took, from claim to answer. score: highest score. boxes: number of boxes.
        doubt: entropies of the boxes or labels, in bits; see :func:`twinray.inference.active.uncertainty`.
        labels: scores of a classifier, class name -> 0..1; None of a detector.
        features: what the model's backbone made of the image, as :func:`twinray.serving.store.teaching.as_text` writes it.
    """

    __tablename__ = "analyses"
    __table_args__ = (Index("ix_analyses_model_doubt", "model", "doubt"),)
    image: Mapped[str] = mapped_column(
        String(32), ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    state: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str] = mapped_column(Text, default="")
    finished: Mapped[float] = mapped_column(Float(53))
    seconds: Mapped[float] = mapped_column(Float(53))
    score: Mapped[float | None] = mapped_column(Float(53))
    boxes: Mapped[int] = mapped_column(Integer, default=0)
    doubt: Mapped[float | None] = mapped_column(Float(53))
    labels: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    features: Mapped[str | None] = mapped_column(Text)


class Prediction(Base):
    """One predicted box.

    Attributes:
        image, model, position: which, by falling score. x0, y0, x1, y1: corners. label: class name. score: 0..1.
    """

    __tablename__ = "predictions"
    image: Mapped[str] = mapped_column(
        String(32), ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    x0: Mapped[float] = mapped_column(Float(53))
    y0: Mapped[float] = mapped_column(Float(53))
    x1: Mapped[float] = mapped_column(Float(53))
    y1: Mapped[float] = mapped_column(Float(53))
    label: Mapped[str] = mapped_column(Text)
    score: Mapped[float] = mapped_column(Float(53))


class Reading(Base):
    """What one reader said of one image at one time; a later one of the same reader takes its place, and both stay.

    Attributes:
        number: order of arrival. id: random name. image, reader: of whom, by whom. created: time.
        key: name that the client gave the save, so that a repeated one is the same.
        normal: flag, true of an image called normal; None where nothing was said.
        text: free text. labels: labels of the whole image, class name -> flag.
        model: hash of the model that was shown; None where none was. shown: what was shown. seconds: time it took.
        finished: flag, true where the reader said that the image is done.
        slot: number of the reading that a reader study had planned; None outside of one.
    """

    __tablename__ = "readings"
    __table_args__ = (
        UniqueConstraint("image", "reader", "key"),
        Index("ix_readings_image_number", "image", "number"),
    )
    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    image: Mapped[str] = mapped_column(String(32), ForeignKey("images.id", ondelete="CASCADE"))
    reader: Mapped[str] = mapped_column(String(64), index=True)
    key: Mapped[str] = mapped_column(String(64))
    created: Mapped[float] = mapped_column(Float(53))
    normal: Mapped[bool | None] = mapped_column(Boolean)
    text: Mapped[str] = mapped_column(Text, default="")
    labels: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    model: Mapped[str | None] = mapped_column(String(64))
    shown: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    seconds: Mapped[float | None] = mapped_column(Float(53))
    finished: Mapped[bool] = mapped_column(Boolean, default=True)
    slot: Mapped[int | None] = mapped_column(BigInteger, index=True)


class Mark(Base):
    """One box of a reading.

    Attributes:
        reading, position: which. x0, y0, x1, y1: corners. label: class name.
        verdict: ``accepted``, ``rejected``, ``moved`` or ``added``.
        prediction: position of the predicted box that it is about; None of an added one.
        model: hash of the model of that box.
        rating: how sure the reader is, 1 and up, in a reader study; None outside of one, or not given yet.
    """

    __tablename__ = "marks"
    reading: Mapped[str] = mapped_column(
        String(32), ForeignKey("readings.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    x0: Mapped[float] = mapped_column(Float(53))
    y0: Mapped[float] = mapped_column(Float(53))
    x1: Mapped[float] = mapped_column(Float(53))
    y1: Mapped[float] = mapped_column(Float(53))
    label: Mapped[str] = mapped_column(Text)
    verdict: Mapped[str] = mapped_column(String(8))
    prediction: Mapped[int | None] = mapped_column(Integer)
    model: Mapped[str | None] = mapped_column(String(64))
    rating: Mapped[float | None] = mapped_column(Float(53))


class Study(Base):
    """One reader study, as it was fixed when it was first served.

    Attributes:
        name: name. created: time. sha256: hash of the design, by which a changed file is known.
        design: readers, seed, model, rules, and the truth by image id; no name of a file or a patient.
        ended: time at which an operator ended it before all was read; None otherwise.
    """

    __tablename__ = "studies"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created: Mapped[float] = mapped_column(Float(53))
    sha256: Mapped[str] = mapped_column(String(64))
    design: Mapped[dict[str, Any]] = mapped_column(JSON)
    ended: Mapped[float | None] = mapped_column(Float(53))


class Slot(Base):
    """One reading that a reader study has planned, and what became of it.

    Attributes:
        number: order. study, reader, session, position: place in the study; session 0 is practice. image: image. arm: ``without`` or ``with``.
        opened: time at which the reader was first shown the image. submitted: time at which the reading was final.
        reading: id of the final reading.
    """

    __tablename__ = "slots"
    __table_args__ = (
        UniqueConstraint("study", "reader", "session", "position"),
        UniqueConstraint("study", "reader", "session", "image"),
    )
    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(String(64), ForeignKey("studies.name", ondelete="CASCADE"))
    reader: Mapped[str] = mapped_column(String(64))
    session: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(Integer)
    image: Mapped[str] = mapped_column(
        String(32), ForeignKey("images.id", ondelete="CASCADE"), index=True
    )
    arm: Mapped[str] = mapped_column(String(8))
    opened: Mapped[float | None] = mapped_column(Float(53))
    submitted: Mapped[float | None] = mapped_column(Float(53))
    reading: Mapped[str | None] = mapped_column(String(32))


class User(Base):
    """One who may sign in.

    Attributes:
        name: name. secret: salted hash of the password. role: ``reader`` or ``admin``.
        created: time. disabled: flag.
    """

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(16), default="reader")
    created: Mapped[float] = mapped_column(Float(53))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)


class SignIn(Base):
    """One who is signed in.

    Attributes:
        id: hash of the secret in the cookie. who: name. role: role. csrf: word that changes must carry.
        created, expires: times.
    """

    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    who: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    csrf: Mapped[str] = mapped_column(String(64))
    created: Mapped[float] = mapped_column(Float(53))
    expires: Mapped[float] = mapped_column(Float(53), index=True)


class Audit(Base):
    """Who did what, when; rows are only ever added, which the database itself holds to.

    Attributes:
        number: order. at: time. who: name. action: what was done. image, model: of what. details: what else.
    """

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float(53), index=True)
    who: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    image: Mapped[str | None] = mapped_column(String(32), index=True)
    model: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Patient(Base):
    """The map from a pseudonym back to the patient; no route tells it, no pack and no object made for others holds it.

    Attributes:
        patient: keyed hash, as in ``images.patient``. identifier: the patient's number. issuer: who gave it. noted: time.
    """

    __tablename__ = "patients"
    patient: Mapped[str] = mapped_column(String(64), primary_key=True)
    identifier: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str] = mapped_column(Text, default="")
    noted: Mapped[float] = mapped_column(Float(53))


class Arrival(Base):
    """An object that was fetched from the archive, so that it is not fetched again.

    Attributes:
        object: keyed hash of its UID. at: time.
        image: image that it became; None where that was forgotten, so that a forgotten patient is not fetched again.
    """

    __tablename__ = "arrivals"
    object: Mapped[str] = mapped_column(String(64), primary_key=True)
    image: Mapped[str | None] = mapped_column(
        String(32), ForeignKey("images.id", ondelete="SET NULL"), index=True
    )
    at: Mapped[float] = mapped_column(Float(53))


class Send(Base):
    """Results of one image that go, or went, to the archive.

    Attributes:
        number: order. image: image. reading: reading that is sent; empty where the model's own boxes are.
        model: hash of the model. who: who asked for it. created: time.
        state: ``queued``, ``sent``, ``failed``, or ``stale`` where a later reading took its place before it went.
        attempts: tries. due: time of the next one. reason: why it failed, in words. finished: time at which it ended.
    """

    __tablename__ = "sends"
    __table_args__ = (
        UniqueConstraint("image", "reading", "model"),
        Index("ix_sends_state_due", "state", "due"),
    )
    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    image: Mapped[str] = mapped_column(String(32), ForeignKey("images.id", ondelete="CASCADE"))
    reading: Mapped[str] = mapped_column(String(32), default="")
    model: Mapped[str] = mapped_column(String(64))
    who: Mapped[str] = mapped_column(String(64))
    created: Mapped[float] = mapped_column(Float(53))
    state: Mapped[str] = mapped_column(String(8), default="queued")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due: Mapped[float] = mapped_column(Float(53))
    reason: Mapped[str] = mapped_column(Text, default="")
    finished: Mapped[float | None] = mapped_column(Float(53))
