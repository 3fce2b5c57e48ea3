"""The server's hourly look at its TUF repository: sign what it can sign, and tell what people must sign in time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.clock import Clock
from appliance.errors import ApplianceError
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.server_keys import ServerKeys

log = logging.getLogger(__name__)

_HOW = {
    "root": "call 'scanside-fleet key publish --key FILE'",
    "targets": "call 'scanside-fleet key publish --key FILE'",
    "snapshot": "the server signs it; look for what it says before this line",
    "timestamp": "the server signs it; look for what it says before this line",
}


class RepositoryWatch:
    """Called from the server's tick."""

    def __init__(self, repository: Repository, keys: Path, clock: Clock) -> None:
        """Look after ``repository`` with the key in the folder ``keys``, read anew each time: it may be rotated."""
        self._repository = repository
        self._keys = keys
        self._clock = clock
        self._is_first = True

    def look(self) -> None:
        """Sign snapshot and timestamp where they end soon, and at the start; log what ends soon. Never raises."""
        if not self._repository.exists():
            return
        now = self._clock.now()
        try:
            self._repository.refresh(ServerKeys.open(self._keys).online, now, force=self._is_first)
            self._is_first = False
        except (ApplianceError, OSError) as error:
            log.error("fleet: the repository of models is not signed anew: %s", error)  # noqa: TRY400 - expected kinds
        try:
            ends = self._repository.check(now)
        except ApplianceError as error:
            log.error("fleet: boxes cannot fetch models: %s", error)  # noqa: TRY400 - expected kinds
            return
        for one in ends:
            if one.is_soon:
                left = "has ended; no box installs anything new" if one.is_over else f"ends in {one.left.days} days"
                log.warning("fleet: %s of the repository of models %s; %s", one.role, left, _HOW[one.role])


class RepositoryCollector(Collector):
    """When each role of the repository ends, for Prometheus."""

    def __init__(self, repository: Repository, clock: Clock) -> None:
        """Read it when asked."""
        self._repository = repository
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Seconds until each role ends, below zero once it has; none where there is no repository."""
        ends = GaugeMetricFamily(
            "scanside_fleet_repository_seconds_left", "Until a role of the models' repository ends", labels=["role"]
        )
        try:
            for one in self._repository.check(self._clock.now()):
                ends.add_metric([one.role], one.left.total_seconds())
        except ApplianceError:
            return
        yield ends
