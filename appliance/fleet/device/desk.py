"""Inbox and jobs of a box, put together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from appliance.clock import Clock
from appliance.config import Config
from appliance.fleet.device.acts import Acts, Fetcher
from appliance.fleet.device.fetcher import TufFetcher
from appliance.fleet.device.identity import FOLDER
from appliance.fleet.device.inbox import Inbox, job_of
from appliance.fleet.device.install import NEEDS_FILE, Install
from appliance.fleet.device.jobs import JobStage
from appliance.fleet.device.logs import LogTail, send_logs
from appliance.fleet.device.ops import Ops
from appliance.fleet.device.roots import Roots
from appliance.fleet.wire import Op
from appliance.fleet.wire_records import Clk
from appliance.stage import Stage
from appliance.store import Store
from appliance.store.ending import Owing
from appliance.store.fleet_twin import TwinRules


@dataclass(frozen=True, slots=True)
class JobDesk:
    """What the link needs, and the stages that do the work."""

    inbox: Inbox
    stages: tuple[Stage, ...]


def inbox_of(
    config: Config,
    store: Store,
    clock: Clock,
    owed: Owing,
    clk: Callable[[], Clk],
    wake: Callable[[], None] = lambda: None,
) -> Inbox:
    """The inbox of a box, by its configuration."""
    rules = TwinRules(clinical=config.site.mode == "clinical", asks_site=asks_site(config), held=False, owed=owed)
    return Inbox(store, clock, config.state_path / FOLDER, clk, rules, wake=wake)


def asks_site(config: Config) -> bool:
    """Whether the administrator of the box has a say in changes of models."""
    return config.fleet is not None and config.fleet.approval != "vendor"


def tuf_fetcher(
    config: Config,
    store: Store,
    clock: Clock,
    inbox: Callable[[], Inbox],
    stop: threading.Event | None = None,
) -> TufFetcher:
    """Where the packages of an enrolled box come from.

    Args:
        config: With a section ``fleet``.
        store: The box's.
        clock: Its clock.
        inbox: The one that is made with it.
        stop: Set when the box ends; a download does not keep it.
    """

    def wanted() -> set[str]:
        rows = (row for row in store.fleet_jobs.open() if row.op == Op.MODEL_INSTALL and row.state in NEEDS_FILE)
        return {str(job_of(row).args.target) for row in rows}

    return TufFetcher(
        store=store,
        clock=clock,
        folder=config.state_path / FOLDER,
        identity=lambda: inbox().identity,
        bytes_per_s=lambda: inbox().desired().bytes_per_s,
        wanted=wanted,
        proxy_url=config.fleet.proxy_url if config.fleet is not None else None,
        wait=(stop or threading.Event()).wait,
    )


def job_desk(
    config: Config,
    store: Store,
    clock: Clock,
    acts: Acts,
    clk: Callable[[], Clk],
    *,
    renew: Callable[[], None],
    tail: LogTail,
    fetcher: Fetcher | None = None,
    ring: Callable[[str], None] = lambda _: None,
) -> JobDesk:
    """Put them together.

    Args:
        config: With a section ``fleet``.
        store: The box's.
        clock: Its clock.
        acts: What the daemon can do for jobs.
        clk: How far the wall clock is to be trusted (``Contents.clk``).
        renew: Asks for another certificate (``RenewStage.ask``).
        tail: Of the log, attached to ``logging.getLogger("appliance")``.
        fetcher: Where packages come from.
        ring: Rings the bell of a stage.
    """

    def wake() -> None:
        ring("fleet-jobs")
        ring("fleet-work")

    inbox = inbox_of(config, store, clock, acts.owed, clk, wake)
    folder = config.state_path / FOLDER
    proxy_url = config.fleet.proxy_url if config.fleet is not None else None
    ops = Ops(
        store=store,
        acts=acts,
        folder=folder,
        send_logs=partial(send_logs, folder, acts.bundle, tail, proxy_url),
        renew=renew,
        asks_site=asks_site(config),
    )
    install = Install(
        store=store,
        clock=clock,
        acts=acts,
        fetcher=fetcher,
        desired=inbox.desired,
        clinical=config.site.mode == "clinical",
        asks_site=asks_site(config),
    )
    roots = Roots(folder=folder, identity=lambda: inbox.identity, fetcher=fetcher)
    handlers = {**ops.handlers(), **install.handlers(), **roots.handlers()}

    def held() -> bool:
        return inbox.desired().held

    quick = JobStage(store, clock, handlers, clk, undo=install.take_back, also=inbox.tidy, held=held)
    tidy = (lambda: None) if fetcher is None else fetcher.tidy
    slow = JobStage(store, clock, handlers, clk, slow=True, also=tidy, held=held)
    return JobDesk(inbox, (quick, slow))
