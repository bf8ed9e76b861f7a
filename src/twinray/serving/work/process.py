"""A process of work: ``python -m twinray.serving.work.process FD``, started by the server and ending with it."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twinray.data.decoding.sandbox import KeptWorker, Outcome
from twinray.errors import InputError, TwinrayError
from twinray.records import FloatArray
from twinray.serving.log import error_facts, log, log_to
from twinray.serving.store.images import LEASE_S, Answer, Claim, Facts
from twinray.serving.store.store import Store, open_store
from twinray.serving.work.cache import Cache
from twinray.serving.work.decoding import Opened, open_file, pseudonym
from twinray.serving.work.job import Job, from_message, receive, send

_IDLE_S = 1.0
_KILLED = "was killed"


def main() -> None:
    """Take the job from the socket that the command line names, and work until it ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the server decides
    link = socket.socket(fileno=int(sys.argv[1]))
    told = receive(link)
    if told is None:
        return
    job = from_message(told[0])
    log_to(Path(job.log) if job.log else None)
    try:
        worker = Worker(job, link)
    except TwinrayError as error:
        send(link, {"ready": False, "why": str(error)})
        return
    # of a classifier the network itself says which maps it has: the server holds no network
    told_of = worker.models.methods() if job.role == "show" else {}
    send(link, {"ready": True, "methods": told_of})
    try:
        worker.show() if job.role == "show" else worker.analyse()
    finally:
        worker.decoder.close()


class Worker:
    """One process of work.

    Raises:
        TwinrayError: models or store cannot be opened.
    """

    def __init__(self, job: Job, link: socket.socket) -> None:
        import torch

        from twinray.serving.work.models import Models

        torch.set_num_threads(job.threads)
        self.job, self.link = job, link
        self.store: Store = open_store(job.store, Path(job.folder), migrate=False)
        self.cache = Cache(self.store.files, job.max_cache)
        self.key = self.store.files.key()
        self.models = Models(
            [Path(run) for run in job.runs],
            job.device,
            depth=job.depth,
            value_range=job.value_range,
            allow_edited=job.allow_edited,
        )
        self.decoder = KeptWorker(open_file, timeout_s=job.timeout, memory_bytes=job.memory << 20)

    # --- analysing ----------------------------------------------------------------------------------------------------

    def analyse(self) -> None:
        """Take images from the queue until the server ends or says so."""
        while True:
            try:
                if self.analyse_next():
                    if self._told_to_stop(0):
                        return
                    continue
            except (
                TwinrayError
            ) as error:  # the database is away or full: nothing is lost by waiting
                log("worker waits", worker=self.job.name, **error_facts(error))
            if self._told_to_stop(_IDLE_S):
                return

    def analyse_next(self) -> bool:
        """Take the next image from the queue and write what comes of it; false where none waits.

        Raises:
            TwinrayError: the database is away or full; the image goes to whoever takes it next.
        """
        claim = self.store.images.claim(self.job.name, self.models.hashes)
        if claim is None:
            return False
        self._analyse(claim)
        return True

    def _told_to_stop(self, wait: float) -> bool:
        ready, _, _ = select.select([self.link], [], [], wait)
        while ready:
            message = receive(self.link)
            if message is None or message[0].get("stop"):
                return True
            ready, _, _ = select.select([self.link], [], [], 0)
        return False

    def _analyse(self, claim: Claim) -> None:
        if not claim.models:
            log("image settled", worker=self.job.name, image=claim.id)
            return
        began = time.monotonic()
        stop = threading.Event()
        holder = threading.Thread(target=self._hold, args=(claim.id, stop), daemon=True)
        holder.start()
        try:
            facts, answers, features, reason = self._answers(claim)
        finally:
            stop.set()
        seconds = time.monotonic() - began
        written = self.store.images.finish(
            claim,
            self.job.name,
            facts,
            answers,
            seconds,
            first=self.models.first,
            reason=reason,
            features=features,
        )
        if not written:
            self._drop_if_forgotten(claim.id, claim.sha256)
        log(
            "image analysed" if facts is not None else "image failed",
            worker=self.job.name,
            image=claim.id,
            models=len(answers),
            ms=round(1000 * seconds),
            written=written,
        )

    def _drop_if_forgotten(self, image: str, sha256: str) -> None:
        """What was made of an image that was forgotten meanwhile does not stay."""
        if self.store.images.get(image) is None:
            self.store.files.remove_derived(sha256)

    def _hold(self, image: str, stop: threading.Event) -> None:
        """Keep the claim while the work takes long."""
        while not stop.wait(LEASE_S / 4):
            try:
                self.store.images.extend(image, self.job.name)
            except TwinrayError:
                continue

    def _answers(
        self, claim: Claim
    ) -> tuple[Facts | None, dict[str, Answer], dict[str, FloatArray], str]:
        outcome = self._decode(claim.sha256)
        if outcome.error is not None:
            return None, {}, {}, self._bare(outcome.error, claim.sha256)
        opened: Opened = outcome.result()
        view, identity = opened.view, opened.identity
        self.cache.keep_view(claim.sha256, view)
        facts = Facts(
            view.display.width,
            view.display.height,
            pseudonym(self.key, identity),
            identity.acquired or None,
            identity.view or None,
        )
        answers: dict[str, Answer] = {}
        features: dict[str, FloatArray] = {}
        for model in claim.models:
            try:
                answers[model], features[model] = self.models.answer(model, view.pixels, claim.id)
                spec = self.models.packed_spec(model)
                packed = self.models.prepare(model, view.pixels, claim.id).packed
                self.cache.keep_packed(claim.sha256, spec, packed)
            except InputError as error:
                answers[model] = str(error)
        return facts, answers, features, ""

    def _decode(self, sha256: str) -> Outcome[Any]:
        path = self.store.files.place(sha256)
        if not path.is_file():
            return Outcome(error="its file is no longer in the store; send it again")
        task = (str(path), self.models.decoding())
        outcome = self.decoder(task)
        if outcome.error is not None and _KILLED in outcome.error:
            outcome = self.decoder(task)  # somebody else's kill is not the file's fault
        return outcome

    def _bare(self, error: str, sha256: str) -> str:
        """A refusal without the place of the file."""
        path = str(self.store.files.place(sha256))
        return error.removeprefix(f"{path}: ").replace(path, "the file")

    # --- showing ------------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Answer for pixels and heat maps until the server ends."""
        while (message := receive(self.link)) is not None:
            if message[0].get("stop"):
                return
            send(self.link, *self.answer(message[0]))

    def answer(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The answer to one question of the server: pixels or a heat map, or why there are none."""
        try:
            made = self._shown(asked)
            self._drop_if_forgotten(asked["image"], asked["sha256"])
            return made
        except InputError as error:
            return {"refused": self._bare(str(error), asked.get("sha256", ""))}, b""
        except TwinrayError as error:
            log("worker waits", worker=self.job.name, **error_facts(error))
            return {"unavailable": True}, b""
        except Exception as error:
            log("worker fault", worker=self.job.name, **error_facts(error))
            return {"fault": True}, b""

    def _shown(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        sha256: str = asked["sha256"]
        if asked["do"] == "view":
            if self.cache.pixels(sha256) is None or self.cache.display(sha256) is None:
                self.cache.keep_view(sha256, self._decode(sha256).result().view)
            display = self.cache.display(sha256)
            pixels = self.cache.pixels(sha256)
            if display is None or pixels is None:  # the cache is too small or its disk full
                view = self._decode(sha256).result().view
                return {"display": view.display.as_json()}, view.values.astype("<u2").tobytes()
            return {"display": display}, pixels
        model, what, method = asked["model"], asked["what"], asked["method"]
        spec = self.models.packed_spec(model)
        packed = self.cache.packed(sha256, spec)
        if packed is None:
            prepared = self.models.prepare(
                model, self._decode(sha256).result().view.pixels, asked["image"]
            )
            self.cache.keep_packed(sha256, spec, prepared.packed)
        else:
            prepared = self.models.from_packed(model, packed, tuple(asked["size"]), asked["image"])
        if "label" in asked:
            png = self.models.label_map(model, prepared, asked["label"], method)
        else:
            from twinray.serving.work.models import Expected

            about = Expected(asked["box"], tuple(asked["corners"]), asked["class"])
            png = self.models.heat_map(model, prepared, about, method)
        self.cache.keep_heat(sha256, model, what, method, png)
        return {}, png


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionError):
        os._exit(0)
