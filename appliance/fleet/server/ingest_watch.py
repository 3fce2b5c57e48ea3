"""Whether the ingest lives: an ingest that is dead or stuck is loud, is begun anew, and at last ends the server.

Without it boxes would go on being answered over HTTPS, pages would open, and nothing that boxes say would be kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from appliance.clock import Clock
from appliance.errors import ApplianceError

log = logging.getLogger(__name__)

#: Begun anew so often within a while; then the unit starts the whole server again.
MOST_RESTARTS = 5
_FIRST_S, _LONGEST_S = 1.0, 30.0
_WHILE_S = 3600.0


class IngestDead(ApplianceError):  # noqa: N818 - a state, and the end of the server
    """The ingest does not live; whoever started the server must start it again."""


class Worker(Protocol):
    """``mqtt.IngestWorker``, as far as it is watched."""

    @property
    def is_alive(self) -> bool:
        """Whether it works on."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self, wait_s: float = ...) -> None:
        """End."""
        ...


class IngestWatch:
    """Keeps one worker alive. ``look`` every second."""

    def __init__(self, make: Callable[[], Worker], clock: Clock, figures: CollectorRegistry) -> None:
        """Watch workers that ``make`` makes; nothing is started yet."""
        self._make = make
        self._clock = clock
        self._worker: Worker | None = None
        self._next_at: float | None = None
        self._restarted_at: list[float] = []
        self._alive = Gauge("scanside_fleet_ingest_alive", "Whether what boxes say is kept", registry=figures)
        self._restarts = Counter(
            "scanside_fleet_ingest_restarts", "Times that the ingest had died and was begun anew", registry=figures
        )

    def start(self) -> Worker:
        """Begin with a worker."""
        self._worker = worker = self._make()
        worker.start()
        self._alive.set(1)
        return worker

    def stop(self) -> None:
        """End the worker in order."""
        if self._worker is not None:
            self._worker.stop()

    def look(self) -> Worker | None:
        """The worker that lives; None while none does. Begins another in place of a dead one, later each time.

        Raises:
            IngestDead: It has died too often.
        """
        now = self._clock.monotonic()
        if self._worker is not None:
            if self._worker.is_alive:
                return self._worker
            self._mourn(self._worker, now)
        if self._next_at is None or now < self._next_at:
            return None
        self._next_at = None
        self._restarts.inc()
        return self.start()

    def _mourn(self, worker: Worker, now: float) -> None:
        self._alive.set(0)
        self._worker = None
        worker.stop(0.0)  # of one that is stuck the thread stays; its line to the broker goes
        recent = [at for at in self._restarted_at if now - at < _WHILE_S]
        if len(recent) >= MOST_RESTARTS:
            raise IngestDead(
                f"the ingest has died {len(recent) + 1} times within an hour; the server ends, its unit starts it again"
            )
        delay_s = min(_LONGEST_S, _FIRST_S * 2 ** len(recent))
        log.critical("fleet: the ingest is DEAD; nothing that boxes say is kept; it begins anew in %.0f s", delay_s)
        self._restarted_at = [*recent, now]
        self._next_at = now + delay_s
