"""The fleet's part of the daemon, put together: the link, its roll-ups, the renewal of its certificate, the jobs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appliance.clock import Clock, ClockQuality, clock_quality
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.fleet.device.acts import Acts, Fetcher
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.desk import job_desk, tuf_fetcher
from appliance.fleet.device.enrolment import RenewStage
from appliance.fleet.device.identity import FOLDER, Identity, NotEnrolledError, days_left
from appliance.fleet.device.link import IDENTITY_BROKEN, LinkStage
from appliance.fleet.device.logs import LogTail
from appliance.fleet.device.outbox import LINGER_S
from appliance.fleet.device.pace import FIRST_S
from appliance.fleet.device.rollups import UNFIT, RollupStage
from appliance.fleet.device.transport import opener
from appliance.fleet.keys import KeyFault
from appliance.records import Severity
from appliance.stage import Stage
from appliance.store import Store

log = logging.getLogger(__name__)

NOT_ENROLLED = "FLEET_NOT_ENROLLED"
#: Whose log lines a job may collect.
_LOGGER = "appliance"


@dataclass(frozen=True, slots=True)
class FleetParts:
    """What runs. Empty where the box is in no fleet, or cannot be."""

    stages: tuple[Stage, ...] = ()
    link: LinkStage | None = None
    tail: LogTail | None = None

    def close(self) -> None:
        """After the last step of every stage: say goodbye. Bounded."""
        if self.link is not None:
            self.link.close()
        if self.tail is not None:
            logging.getLogger(_LOGGER).removeHandler(self.tail)


def fleet_parts(
    config: Config,
    store: Store,
    clock: Clock,
    acts: Acts,
    ring: Callable[[str], None],
    *,
    fetcher: Fetcher | None = None,
    stop: threading.Event | None = None,
    first_within_s: float = FIRST_S,
    linger_s: float = LINGER_S,
    quality: Callable[[datetime], ClockQuality] = clock_quality,
) -> FleetParts:
    """Put them together.

    A box that is configured for a fleet and not enrolled says so in an issue and goes on: its patients do not wait for
    the service team.

    Args:
        config: The configuration.
        store: The box's.
        clock: Its clock.
        acts: What the daemon can do for jobs.
        ring: Rings the bell of a stage by its name.
        fetcher: Where packages come from; None: from the server, by TUF.
        stop: Set when the box ends.
        first_within_s: The first connection comes within so long; a demo does not wait.
        linger_s: Rows that come within so long of one another share a batch.
        quality: How far the wall clock is to be trusted.
    """
    if config.fleet is None:
        return FleetParts()
    identity = _identity(config, store)
    if identity is None:
        return FleetParts()
    _clear_unfit(store)
    folder, proxy_url = config.state_path / FOLDER, config.fleet.proxy_url

    def wake_link() -> None:
        ring(LinkStage.name)

    def cert_days() -> float | None:
        try:
            return days_left(desk.inbox.identity, clock.now())
        except (ConfigError, KeyFault):
            return None

    contents = Contents(store, config, clock, quality=quality, cert_days=cert_days)
    renewal = RenewStage(folder, clock, proxy_url=proxy_url, renewed=wake_link)

    def renew() -> None:
        renewal.ask()
        ring(renewal.name)

    tail = LogTail()
    fetcher = fetcher or tuf_fetcher(config, store, clock, lambda: desk.inbox, stop)
    desk = job_desk(config, store, clock, acts, contents.clk, renew=renew, tail=tail, fetcher=fetcher, ring=ring)
    link = LinkStage(
        store,
        config.fleet,
        clock,
        identity,
        opener(proxy_url),
        contents,
        desk.inbox,
        ring=wake_link,
        first_within_s=first_within_s,
        linger_s=linger_s,
    )
    logging.getLogger(_LOGGER).addHandler(tail)
    return FleetParts((link, RollupStage(store, clock, wake_link=wake_link), renewal, *desk.stages), link, tail)


def _identity(config: Config, store: Store) -> Identity | None:
    """Who the box is to its fleet; None, with an issue, where it is nobody yet or its files are damaged."""
    identity, fault = None, ""
    try:
        identity = Identity.load(config.state_path / FOLDER)
    except (ConfigError, KeyFault) as error:
        fault = NOT_ENROLLED if isinstance(error, NotEnrolledError) else IDENTITY_BROKEN
        log.error("fleet: %s", error)  # noqa: TRY400 - the text says how to mend it
        store.issues.raise_(fault, "", Severity.FAULT)
    for code in {NOT_ENROLLED, IDENTITY_BROKEN} - {fault}:
        store.issues.clear(code, "")
    return identity


def _clear_unfit(store: Store) -> None:
    """A new version mends what did not fit; what does not fit this one either is raised anew."""
    for issue in store.issues.open():
        if issue.code == UNFIT:
            store.issues.clear(UNFIT, issue.subject)
