"""What goes between a store and its archive, in threads of its own: radiographs in, results back.

- Fetching asks the archive now and then for new studies of some modalities and days, and takes what it has not taken before.
- Receiving takes what an archive pushes by C-STORE.
- Sending takes one queued result after the other; what fails for a passing reason is tried again, for hours.

The archive that was named is the only place that is ever called. Nothing is written into a series of the archive:
objects go into series of our own, in the study of their image.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, final

from twinray.about import own_version
from twinray.data.decoding.images import file_kind
from twinray.data.decoding.sandbox import KeptWorker
from twinray.errors import InputError, TwinrayError
from twinray.report.dicom.objects import objects_available
from twinray.serving.archive.client import Address, ArchiveError, DicomWeb, Instance, Study
from twinray.serving.archive.peer import Peer, send
from twinray.serving.archive.receiver import Listening, Receiver, RefusedError
from twinray.serving.archive.results import Made, Shown, Task, work
from twinray.serving.log import error_facts, log
from twinray.serving.store.exchange import Exchange
from twinray.serving.store.models import Image, Reading, Send
from twinray.serving.store.store import Store

SendBack = Literal["never", "signed", "always"]
_LOOK_S = 1.0
GRACE_S = 10.0
"""Seconds between "done" and its way to the archive: what was done by mistake is taken back within, the archive gives nothing back."""
_MOST_FAULTS = 3
"""Tries of fetching one object until the server starts again."""


@dataclass(frozen=True)
class Rule:
    """Which boxes of a model go back where nobody has signed: class -> least score, and the rule in words."""

    thresholds: Mapping[str, float]
    words: str


@dataclass(frozen=True)
class Settings:
    """What the courier does; see the options of ``twinray serve``.

    Attributes:
        address: archive by web. peer: archive by C-STORE, for results. title: our own title.
        listening: how to receive. fetch_every: seconds between looks; None for none. days, modalities: what is looked for.
        send_back: when results go. kinds: objects that go. compressed: flag to compress captures.
        max_queue: images that may wait. min_free, max_file: bytes. timeout: seconds, memory: bytes of decoding one file.
    """

    address: Address | None = None
    peer: Peer | None = None
    title: str = "TWINRAY"
    listening: Listening | None = None
    fetch_every: float | None = None
    days: int = 1
    modalities: tuple[str, ...] = ("CR", "DX")
    send_back: SendBack = "never"
    kinds: tuple[str, ...] = ("sr", "sc")
    compressed: bool = True
    max_queue: int = 10_000
    min_free: int = 0
    max_file: int = 256 << 20
    timeout: float = 120.0
    memory: int = 2048 << 20


@dataclass
class State:
    """What the courier tells of itself: times of the last good and bad word of the archive, never what was asked for."""

    fetched: int = 0
    received: int = 0
    last_ok: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    faults: Counter[str] = field(default_factory=Counter)


@final
class Courier:
    """The link to an archive.

    Args:
        store: store. exchange: its tables of the link. settings: settings.
        rules: hash of a model -> which of its boxes go back unsigned; the one shown first leading.
        wake: called when an image came.

    Raises:
        InputError: settings that cannot be used.
    """

    def __init__(
        self,
        store: Store,
        exchange: Exchange,
        settings: Settings,
        rules: Mapping[str, Rule],
        wake: object = None,
    ) -> None:
        self.settings, self.state = settings, State()
        self._store, self._exchange, self._rules = store, exchange, rules
        self._wake = wake if callable(wake) else lambda: None
        self.web = (
            None
            if settings.address is None
            else DicomWeb(settings.address, most_bytes=settings.max_file)
        )
        if (settings.send_back != "never") and not objects_available():
            raise InputError(
                "sending results back needs highdicom, which is not installed; pip install 'twinray[dicom]'"
            )
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._receiver: Receiver | None = None
        self._looked: dict[str, int | None] = {}
        self._since = 0.0
        self.port: int | None = None

    @property
    def can_send(self) -> bool:
        """Whether there is a place that results can go to."""
        return (self.web is not None or self.settings.peer is not None) and objects_available()

    def start(self) -> None:
        """Begin to listen, to look and to send.

        Raises:
            InputError: the address to listen at is taken.
        """
        on = self.settings.send_back != "never"
        self._since = self._exchange.switched(on, self.settings.send_back)
        if self.settings.listening is not None:
            self._receiver = Receiver(self.settings.listening, self._receive)
            self.port = self._receiver.port
        loops = [("results", self._send_loop)]
        if self.web is not None and self.settings.fetch_every is not None:
            loops.append(("fetch", self._fetch_loop))
        for name, loop in loops:
            thread = threading.Thread(target=loop, name=f"archive {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End; an object that is under way is finished or tried again at the next start."""
        self._stop.set()
        if self._receiver is not None:
            self._receiver.stop()
        for thread in self._threads:
            thread.join(20)
        if self.web is not None:
            self.web.close()

    # --- in -----------------------------------------------------------------------------------------------------------

    def take(self, data: bytes, who: str = "archive") -> Image:
        """Keep a DICOM file as an image of the store; it is on the disk when this returns.

        Raises:
            RefusedError: it is none, or there is no room for it.
        """
        if self._store.files.free_bytes() < self.settings.min_free + len(data):
            raise RefusedError("the disk is full", passes=True)
        if self._store.images.waiting() >= self.settings.max_queue:
            raise RefusedError("too many images wait", passes=True)
        with self._store.files.receive() as incoming:
            incoming.write(data)
            incoming.flush()
            if file_kind(incoming.path) != "dicom":
                raise RefusedError("expected a DICOM file", passes=False)
            kept = incoming.keep()
        # the name of an archive's file would be its UID, which is the patient's: ours says nothing
        name = f"archive-{kept.sha256[:8]}.dcm"
        image, _ = self._store.images.add(kept, name, "dicom", who=who, origin="archive")
        self._wake()
        return image

    def _receive(self, data: bytes) -> None:
        """Take what was pushed. An object that came before by another way is the same image, not a second one to be read."""
        uid, start = object_of(data)
        known = self._exchange.image_of(uid) if uid else None
        before = None if known is None else self._store.images.get(known)
        if before is not None and self._same(before, data[start:]):
            log("dicom known", image=before.id)
            return
        image = self.take(data)
        if uid:
            self._exchange.arrived(uid, image.id)
        self.state.received += 1
        log("dicom received", image=image.id)

    def _same(self, image: Image, content: bytes) -> bool:
        """Whether an image's file holds the same but for the head of the file, which every sender writes anew."""
        path = self._store.files.place(image.sha256)
        if not path.is_file() or image.size > self.settings.max_file:
            return False
        kept = path.read_bytes()
        uid, start = object_of(kept)
        return bool(uid) and kept[start:] == content

    def fetch_study(self, study: str, who: str = "archive") -> tuple[int, int]:
        """Take the radiographs of a study that were not taken before.

        Returns:
            Number of new images, and of those that could not be taken.

        Raises:
            ArchiveError: the archive does not answer.
            RefusedError: there is no room.
        """
        assert self.web is not None
        found = self.web.instances(study, self.settings.modalities)
        known = self._exchange.known([one.sop for one in found])
        new = failed = 0
        for one in found:
            mark = self._exchange.object_mark(one.sop)
            if one.sop in known or self.state.faults[mark] >= _MOST_FAULTS:
                continue
            if self._stop.is_set():
                break
            try:
                image = self.take(self._whole(one), who)
            except RefusedError as error:
                if error.passes:
                    raise
                failed += 1
                self.state.faults[mark] += 1
                continue
            except ArchiveError as error:
                failed += 1
                self.state.faults[mark] += 1
                self._bad(error)
                continue
            self._exchange.arrived(one.sop, image.id)
            self.state.fetched += 1
            new += 1
        return new, failed

    def _whole(self, one: Instance) -> bytes:
        assert self.web is not None
        return self.web.fetch(one)

    def _fetch_loop(self) -> None:
        assert self.settings.fetch_every is not None
        while not self._stop.is_set():
            try:
                self.look()
            except (TwinrayError, OSError) as error:
                self._bad(error)
            except Exception as error:  # one odd answer must not end the link
                self._bad(error)
            self._stop.wait(self.settings.fetch_every)

    def look(self) -> int:
        """Ask once for new studies, and take their radiographs; number of new images.

        Raises:
            ArchiveError: the archive does not answer.
            RefusedError: there is no room.
        """
        assert self.web is not None
        today = datetime.now(UTC).astimezone().date()
        first = today - timedelta(days=self.settings.days - 1)
        span = f"{first:%Y%m%d}-{today:%Y%m%d}"
        studies: dict[str, Study] = {}
        for modality in self.settings.modalities:
            wanted = {"StudyDate": span, "ModalitiesInStudy": modality}
            studies |= {one.uid: one for one in self.web.studies(most=10_000, **wanted)}
        self._good()
        new = 0
        for uid, study in studies.items():
            if study.images is not None and self._looked.get(uid) == study.images:
                continue  # nothing was added since
            taken, failed = self.fetch_study(uid)
            new += taken
            if not failed:
                self._looked[uid] = study.images
        self._looked = {uid: n for uid, n in self._looked.items() if uid in studies}
        if new:
            log("archive fetched", images=new)
        return new

    # --- back ---------------------------------------------------------------------------------------------------------

    def _send_loop(self) -> None:
        worker = KeptWorker(
            work, timeout_s=self.settings.timeout, memory_bytes=self.settings.memory
        )
        try:
            while not self._stop.is_set():
                try:
                    self.send_due(worker)
                    self._name_patients(worker)
                except Exception as error:  # the database may be away: what is queued stays queued
                    log("archive waits", **error_facts(error))
                self._stop.wait(_LOOK_S)
        finally:
            worker.close()

    def send_due(self, worker: KeptWorker) -> int:
        """Queue what is to go by the setting, and send what is due; number of those that went."""
        if self.settings.send_back == "signed":
            self._exchange.queue_signed(self._since, GRACE_S)
        elif self.settings.send_back == "always" and self._rules:
            self._exchange.queue_done(self._since, next(iter(self._rules)))
        gone = 0
        for one in self._exchange.due() if self.can_send else ():
            if self._stop.is_set():
                break
            if one.reading and self._exchange.drop_taken_back(one):
                continue
            try:
                reason, passes = self._send(one, worker)
            except ArchiveError as error:
                self._bad(error)
                reason, passes = str(error), error.passes
            self._exchange.settle(one.number, reason, passes=passes)
            gone += not reason
            log("results failed" if reason else "results sent", image=one.image, again=passes)
        return gone

    def _send(self, one: Send, worker: KeptWorker) -> tuple[str, bool]:
        """Why one result did not go, empty where it did, and whether the same may succeed later."""
        image = self._store.images.get(one.image)
        if image is None:
            return "the image is gone", False
        if image.kind != "dicom" or image.origin != "archive":
            return "the image did not come from the archive", False
        task = self._task(one, image)
        if task is None:
            return "the reading is gone", False
        outcome = worker(task)
        if outcome.error is not None or not isinstance(outcome.value, Made):
            # its words may quote the file
            log("results not made", image=one.image)
            return "no DICOM object can be made of this image's header or pixels", False
        made = outcome.value
        if self.web is not None:
            answer = self.web.store(made.study, [*made.files.values()])
            self._good()
            if answer.refused:
                codes = ", ".join(sorted({f"0x{code:04X}" for code in answer.refused.values()}))
                refused = len(answer.refused)
                return (
                    f"the archive refused {refused} of {len(made.files)} objects ({codes})",
                    False,
                )
            return "", False
        assert self.settings.peer is not None
        said = send(self.settings.peer, self.settings.title, made.files)
        self._good()
        return "; ".join(said.values()), False

    def _task(self, one: Send, image: Image) -> Task | None:
        boxes: list[Shown] = []
        reader, normal, made = "", None, one.created
        labels: tuple[tuple[str, bool], ...] = ()
        rule = self._rules.get(one.model)
        words = "none: the model is not served any more" if rule is None else rule.words
        scores: dict[tuple[str, int], float] = {}
        if one.reading:
            whole = next(
                (
                    found
                    for found in self._store.readings.of_image(image.id, every=True)
                    if found.reading.id == one.reading
                ),
                None,
            )
            if whole is None:
                return None
            reading: Reading = whole.reading
            reader, normal, made = reading.reader, reading.normal, reading.created
            labels = tuple(sorted((name, bool(there)) for name, there in reading.labels.items()))
            words = "as the reader left them"
            for mark in whole.marks:
                if mark.verdict == "rejected":
                    continue
                score = None
                if mark.verdict == "accepted" and mark.prediction is not None and mark.model:
                    if not any(model == mark.model for model, _ in scores):
                        for p in self._store.images.predictions(image.id, mark.model):
                            scores[mark.model, p.position] = p.score
                    score = scores.get((mark.model, mark.prediction))
                corners = (mark.x0, mark.y0, mark.x1, mark.y1)
                boxes.append(Shown(corners, mark.label, score, mark.verdict))
        else:
            for p in self._store.images.predictions(image.id, one.model):
                least = 1.0 if rule is None else rule.thresholds.get(p.label, 1.0)
                if p.score >= least:
                    boxes.append(Shown((p.x0, p.y0, p.x1, p.y1), p.label, p.score))
        return Task(
            str(self._store.files.place(image.sha256)),
            self.settings.kinds,
            tuple(boxes),
            own_version(),
            one.model,
            words,
            made,
            reader,
            normal,
            labels,
            self.settings.compressed,
        )

    def _name_patients(self, worker: KeptWorker) -> None:
        """Fill the map from pseudonyms to patients."""
        for image in self._exchange.unnamed():
            outcome = worker(str(self._store.files.place(image.sha256)))
            number, issuer = ("", "") if outcome.value is None else outcome.value
            assert image.patient is not None
            self._exchange.name(image.patient, number, issuer)

    # --- what is told -------------------------------------------------------------------------------------------------

    def _good(self) -> None:
        self.state.last_ok = time.time()

    def _bad(self, error: BaseException) -> None:
        own = isinstance(error, (ArchiveError, RefusedError))
        self.state.last_error = str(error) if own else type(error).__name__
        self.state.last_error_at = time.time()
        log("archive error", why=self.state.last_error)


def object_of(data: bytes) -> tuple[str, int]:
    """UID of the object of a DICOM file, and where its own content begins (PS3.10, 7.1); no UID where the head is an odd one."""
    if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return "", 0
    start = 144 + int.from_bytes(data[140:144], "little")
    head = data[144 : min(start, 4096)]
    at = head.find(b"\x02\x00\x03\x00UI")
    if at < 0:
        return "", 0
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    uid = head[at + 8 : at + 8 + length].rstrip(b"\0 ")
    return (uid.decode("ascii"), start) if uid.isascii() else ("", 0)


def check_place(path: Path) -> None:
    """Refuse a certificate that is not there, before anything starts.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"expected a PEM file, there is none at {path}; check the path")
