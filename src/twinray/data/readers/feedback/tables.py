"""What is read of a store of ``twinray serve``: its readings, predictions and images, by plain SQL."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from twinray.errors import InputError

DATABASE_FILE: Final = "store.sqlite"
IMAGES: Final = "images"


@dataclass(slots=True)
class Judged:
    """One finished reading."""

    reader: str
    normal: bool | None
    labels: Mapping[str, bool]
    model: str | None
    threshold: float | None
    marks: list[MarkedBox] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MarkedBox:
    """One box of a reading: corners in original pixels, class, verdict, and the predicted box that it is about."""

    xyxy: tuple[float, float, float, float]
    label: str
    verdict: str
    prediction: int | None
    model: str | None


@dataclass(frozen=True, slots=True)
class PredictedBox:
    """One box of a model: corners in original pixels, class, and score in 0..1."""

    model: str
    position: int
    xyxy: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image: its file's hash, size (width, height) in pixels, and the keyed code of its patient."""

    id: str
    sha256: str
    size: tuple[int, int]
    patient: str | None
    view: str | None


@dataclass(frozen=True, slots=True, eq=False)
class StoreRows:
    """What is read of a store.

    Attributes:
        images: id -> image, in the order of arrival. readings: image -> its newest readings.
        predictions: image -> predicted boxes. classes: names of the detectors' classes, those of the oldest model first.
        labels: names of the classifiers' classes, likewise.
        unfinished: images of readings that were not finished.
    """

    images: Mapping[str, StoredImage]
    readings: Mapping[str, list[Judged]]
    predictions: Mapping[str, list[PredictedBox]]
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    unfinished: Sequence[str]

    @staticmethod
    def of(connection: _Connection) -> StoreRows:
        """Read the tables; InputError where they are not those of a store."""
        newest: dict[tuple[str, str], tuple[str, bool, Judged]] = {}
        # of a reader study the readings without boxes, in which the model had no part, and none of practice
        for key, image, reader, normal, labels, model, shown, finished, arm in connection.rows(
            "SELECT r.id, r.image, r.reader, r.normal, r.labels, r.model, r.shown, r.finished, s.arm FROM readings r "
            "LEFT JOIN slots s ON s.number = r.slot WHERE r.slot IS NULL OR (s.arm = 'without' AND s.session > 0) ORDER BY r.number"
        ):
            told, said = _json(shown), _json(labels)
            # nothing was shown, so nothing was left unjudged
            threshold = told.get("threshold") if arm is None else math.inf
            judged = Judged(
                reader,
                None if normal is None else bool(normal),
                {str(name): bool(value) for name, value in said.items() if value is not None},
                model,
                float(threshold)
                if isinstance(threshold, int | float) and not isinstance(threshold, bool)
                else None,
            )
            newest[image, reader] = (key, bool(finished), judged)
        by_key = {key: judged for key, _, judged in newest.values()}
        for reading, *corners, label, verdict, prediction, model in connection.rows(
            "SELECT reading, x0, y0, x1, y1, label, verdict, prediction, model FROM marks ORDER BY reading, position"
        ):
            if reading in by_key:
                by_key[reading].marks.append(MarkedBox(_four(corners), label, verdict, prediction, model))  # fmt: skip
        readings: dict[str, list[Judged]] = defaultdict(list)
        unfinished = []
        for (image, _), (_, finished, judged) in sorted(newest.items()):
            if finished:
                readings[image].append(judged)
            else:
                unfinished.append(image)
        predictions: dict[str, list[PredictedBox]] = defaultdict(list)
        for image, model, position, *corners, label, score in connection.rows(
            "SELECT image, model, position, x0, y0, x1, y1, label, score FROM predictions ORDER BY image, model, position"
        ):
            if image in readings:
                predictions[image].append(
                    PredictedBox(model, position, _four(corners), label, score)
                )
        images = {
            key: StoredImage(key, sha256, (width, height), patient, view)
            for key, sha256, width, height, patient, view in connection.rows(
                "SELECT id, sha256, width, height, patient, view FROM images WHERE width IS NOT NULL ORDER BY number"
            )
        }
        # what a classifier knows is no class of boxes: no box of it was ever asked for, so none is absent
        classes: dict[str, dict[str, None]] = {"detector": {}, "classifier": {}}
        for names, kind in connection.rows(
            "SELECT classes, kind FROM models ORDER BY first_served, model"
        ):
            classes[kind] |= dict.fromkeys(map(str, json.loads(names) if isinstance(names, str) else names))  # fmt: skip
        return StoreRows(
            images,
            readings,
            predictions,
            tuple(classes["detector"]),
            tuple(classes["classifier"]),
            unfinished,
        )


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection that only reads, and where it leads to."""

    connection: Any
    where: str
    errors: tuple[type[Exception], ...]

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, one by one; a fault of the database names where it leads to."""
        try:
            cursor = self.connection.cursor()
            cursor.execute(query)
            yield from cursor
        except self.errors as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"expected the tables of a store in {self.where}, got: {said}; open it once with this version's twinray serve"
            ) from None


@contextlib.contextmanager
def connected(source: Path, database: str | None) -> Iterator[_Connection]:
    """The store's database, as it is at one moment."""
    if not (source / IMAGES).is_dir():
        raise InputError(
            f"expected the folder of a store of twinray serve, {source} has no folder {IMAGES}; give the folder of --store "
            "(or of --files)"
        )
    if database is None:
        path = source / DATABASE_FILE
        if not path.is_file():
            raise InputError(
                f"expected {DATABASE_FILE} in {source}, found none; a store in PostgreSQL is named by --database"
            )
        try:
            own = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
            own.execute("BEGIN")
        except sqlite3.Error as error:
            raise InputError(f"could not open {path}: {error}; check the path") from None
        with contextlib.closing(own):
            yield _Connection(own, str(path), (sqlite3.Error,))
        return
    try:
        import psycopg
    except ImportError:
        raise InputError(
            "--database needs psycopg; install it with: pip install 'twinray[serve]'"
        ) from None
    address = database.replace("postgresql+psycopg://", "postgresql://", 1)
    if not address.startswith(("postgresql://", "postgres://")):
        raise InputError(
            "expected --database as postgresql://user@host/name, got the URL of something else"
        )
    try:
        with psycopg.connect(address, connect_timeout=30) as other:
            other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            other.read_only = True
            yield _Connection(other, "the database", (psycopg.Error,))
    except psycopg.OperationalError as error:  # its message may hold the password
        raise InputError(
            f"could not reach the database of --database ({type(error).__name__}); check the URL, and that it runs"
        ) from None


def _json(value: Any) -> dict[str, Any]:
    """A JSON column: text in SQLite, an object in PostgreSQL."""
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def _four(values: Sequence[Any]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
