"""Figures for Prometheus; labels are routes, outcomes and states, never ids or names."""

from __future__ import annotations

from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from twinray.about import own_version
from twinray.errors import TwinrayError
from twinray.serving.store.store import Store
from twinray.serving.work.crew import Crew


@final
class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "twinray_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "twinray_request_seconds",
            "Time to answer, by route.",
            ["route"],
            buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
            registry=self.registry,
        )
        self.uploads = Counter(
            "twinray_uploads",
            "Files by what became of them: new, known, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.heat_seconds = Histogram(
            "twinray_heat_map_seconds",
            "Time to work out a heat map that was not kept.",
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
            registry=self.registry,
        )
        self.marks = Counter("twinray_readings", "Readings saved.", registry=self.registry)
        self.refused = Counter(
            "twinray_refusals",
            "Requests refused by a limit or a rule.",
            ["why"],
            registry=self.registry,
        )
        self._images = Gauge(
            "twinray_images", "Images by state.", ["state"], registry=self.registry
        )
        self._waiting = Gauge(
            "twinray_queue_images", "Images that work waits for.", registry=self.registry
        )
        self._free = Gauge("twinray_disk_free_bytes", "Space that is free.", registry=self.registry)
        self._workers = Gauge(
            "twinray_workers", "Processes at work, by role.", ["role"], registry=self.registry
        )
        self._restarts = Gauge(
            "twinray_worker_restarts", "Processes that were started again.", registry=self.registry
        )
        self._sends = Gauge(
            "twinray_archive_results",
            "Results that go, or went, to the archive, by state.",
            ["state"],
            registry=self.registry,
        )
        about = Gauge("twinray_about", "Version.", ["version"], registry=self.registry)
        about.labels(own_version()).set(1)

    def text(self, store: Store, crew: Crew | None) -> bytes:
        """All of them in Prometheus' text format."""
        try:
            for state, n in store.images.counts().items():
                self._images.labels(state).set(n)
            self._waiting.set(store.images.waiting())
            for state, n in store.exchange.counts().items():
                self._sends.labels(state).set(n)
        except TwinrayError:  # the database is away: what this process counts is told all the same
            self._waiting.set(float("nan"))
        self._free.set(store.files.free_bytes())
        if crew is not None:
            for role, n in crew.alive.items():
                self._workers.labels(role).set(n)
            self._restarts.set(crew.restarts)
        return generate_latest(self.registry)
