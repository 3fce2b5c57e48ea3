"""The composition root: builds every part from one ``Config``, starts them in order, stops them in reverse."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from appliance import __version__
from appliance.box_tools import BoxTools
from appliance.clock import Clock, SystemClock
from appliance.config import Config
from appliance.deliver.alert_sinks import alert_sink_stages, alert_sinks
from appliance.deliver.build import ReportStage
from appliance.deliver.custody import custody_stages
from appliance.deliver.senders import check_tls, sender_of
from appliance.deliver.stage import DeliverStage
from appliance.deliver.worklist import worklist_stages
from appliance.dicom.headers import read_header
from appliance.errors import ConfigError, StoreError
from appliance.health.checks import (
    CertificatesCheck,
    ChainCheck,
    ClockJumpCheck,
    DiskCheck,
    DriftCheck,
    HardwareCheck,
    ScreensCheck,
    ShelfCheck,
    SilenceCheck,
    StagesCheck,
)
from appliance.health.housekeeping import HousekeepingStage
from appliance.health.retention import RetentionStage
from appliance.health.sampling import SamplingStage
from appliance.health.stage import Check, HealthStage
from appliance.health.systemd import notify
from appliance.intake.commitment import CommitmentService
from appliance.intake.contract import ScpSettings, TlsSettings
from appliance.intake.performed import PerformedSteps
from appliance.intake.receipt import spool_reader
from appliance.intake.record import StoreSink
from appliance.intake.scp import StorageScp
from appliance.intake.stage import CompletenessStage
from appliance.records import Severity
from appliance.report.request import ReportPackage
from appliance.screen.app import screen_app
from appliance.screen.escalation import EscalationStage
from appliance.screen.packages import PackageText, package_text
from appliance.settings import Settings
from appliance.stage import Beat, Stage, run_stage
from appliance.store import Store
from appliance.store.destinations import clear_unasked, tell_gone
from appliance.store.facts.box import DaemonStarted, DaemonStopped
from appliance.store.rebuild import rebuild, recover
from appliance.store.said import Said
from appliance.store.site_settings import BROKEN as SETTINGS_BROKEN
from appliance.triage.engines import EnginesStage, engine_wish
from appliance.triage.kserve import kserve_wishes
from appliance.triage.package_stage import PackagesStage
from appliance.triage.packages import RunningPackages, load_packages, recover_packages
from appliance.triage.stage import Bench, PrefetchStage, RoutingStage, RunStage
from appliance.triage.worker_client import WorkerLink
from appliance.web.server import WebServer
from appliance.web.tls import server_context, validity

if TYPE_CHECKING:
    from appliance.fleet.device.parts import FleetParts

log = logging.getLogger(__name__)
#: Associations may finish this long after SIGTERM; systemd's TimeoutStopSec is longer (T49).
_DRAIN_S = 10.0
_JOIN_S = 5.0


def _locked(state_path: Path) -> IO[bytes]:
    """Hold the state folder: two daemons on one store would each believe that they are the box.

    Raises:
        ConfigError: Another daemon holds it, or it cannot be written.
    """
    try:
        state_path.mkdir(parents=True, exist_ok=True)
        lock = (state_path / "scanside.lock").open("ab")
    except OSError as error:
        raise ConfigError(
            f"state_path: {state_path} cannot be written: {error.strerror}; give the folder to the service's user"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(f"state_path: another box runs on {state_path}; stop it, or name another folder") from None
    return lock


class _WebLoop:
    """The event loop of the screens, as the watchdog sees it."""

    name = "web"
    max_step_s = 10.0


class Runner:
    """One stage on its own thread, with the bell that wakes it."""

    def __init__(self, stage: Stage, clock: Clock) -> None:
        """Prepare; ``start`` runs it."""
        self.stage = stage
        self.beat = Beat(stage, clock)
        self.bell = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, stop: threading.Event) -> None:
        """Run the stage until ``stop``."""
        self.beat.mark()
        self._thread = threading.Thread(
            target=run_stage, args=(self.stage, self.beat, stop, self.bell), name=self.stage.name, daemon=True
        )
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the step that runs. Returns whether it came."""
        self.bell.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True


class Daemon:
    """The box: one store, one receiver, one worker link, stages, screens."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        trusted_folders: Sequence[Path] = (),
        settings: Settings | None = None,
        fleet_within_s: float = 30.0,
    ) -> None:
        """Build every part; nothing listens before ``start``.

        Args:
            config: The configuration.
            clock: A test's clock.
            trusted_folders: Packages that a test made; no configuration key reaches this.
            settings: The site's, where the box was started from files; pages change them.
            fleet_within_s: The fleet link's first connection comes within so long, by chance; a demo does not wait.

        Raises:
            ConfigError: The configuration does not fit this machine or the packages.
        """
        self.config = config
        self.clock = clock or SystemClock()
        load_packages(config, trusted_folders)  # a fault in the file is told before anything is touched
        kserve = kserve_wishes(config)
        check_tls(config)
        web_tls = server_context(tls.certificate_path, tls.key_path) if (tls := config.screen.tls) else None
        certificates = {"screen.tls": config.screen.tls, "dicom.tls": config.dicom.tls}
        shown = {key: validity(one.certificate_path) for key, one in certificates.items() if one is not None}
        if config.screen.oidc is not None:
            from appliance.web.oidc import Provider  # Authlib is loaded where it is asked for

            Provider(config.screen.oidc, self.clock)
        drivers = alert_sinks(config, self.clock)
        senders = {
            one.name: sender_of(
                one,
                config.dicom.ae_title,
                self.clock,
                locale=config.site.language,
                said=self._said,
            )
            for one in config.destinations
        }
        self._lock = _locked(config.state_path)
        self.store, recovered = self._open_store()
        store = self.store
        tell_gone(store.db, [one.name for one in config.destinations])
        clear_unasked(store.db, [one.name for one in config.commitment_destinations])
        if leftovers := recover_packages(store):
            recovered["package_folders_removed"] = leftovers
        try:
            self.packages = RunningPackages(
                store, config, trusted_folders, wish=lambda manifest: engine_wish(config, manifest), kserve=kserve
            )
        except ConfigError:
            store.close()
            self._lock.close()
            raise
        self.link = WorkerLink(
            config.socket_path,
            store.spool.root,
            clock=self.clock,
            packages=self.packages.loads(),
            spawn=config.triage.spawn_worker,
            threads=config.triage.worker_threads,
            arguments=[argument for folder in trusted_folders for argument in ("--trust", str(folder))],
            on_event=lambda: self._ring("routing"),
        )
        self.askers = worklist_stages(config, store, self.clock)
        bench = Bench(store=store, config=config, clock=self.clock, link=self.link, packages=self.packages)
        self.custodians = custody_stages(store, config, self.clock, wake_reports=self._ring_reports)
        self.alert_sinks = alert_sink_stages(config, drivers, store, self.clock)
        self.deliverers = [
            DeliverStage(
                destination,
                store.deliveries,
                store.spool,
                self.clock,
                box_ae_title=config.dicom.ae_title,
                evaluation=config.site.mode == "evaluation",
                sender=senders[destination.name],
            )
            for destination in config.destinations
        ]
        #: By ``name@version``, the serving version also by name; the stages and screens look anew each time.
        self.reports: dict[str, ReportPackage] = {}
        self.texts: dict[str, PackageText] = {}
        self._tell_texts()
        self._asked, self._stop = threading.Event(), threading.Event()
        #: Whether the end that was asked for is to be followed by a new start.
        self.is_restarting = False
        self.tools = BoxTools(
            config,
            store,
            self.clock,
            settings=settings,
            ports=lambda: (self.dicom_port, self.screen_port),
            on_restart=self._ask_restart if settings is not None else None,
        )
        self.fleet = self._fleet_parts(fleet_within_s)
        stages: list[Stage] = [
            PackagesStage(bench, on_change=self._tell_texts, wake_routing=lambda: self._ring("routing")),
            CompletenessStage(store, config.completeness, self.clock, wake_triage=lambda: self._ring("routing")),
            RoutingStage(bench, wake_runner=lambda: self._ring("analysis")),
            RunStage(bench, wake_delivery=lambda: self._ring("report")),
            PrefetchStage(bench),
            EnginesStage(bench),
            ReportStage(
                store.deliveries,
                store.spool,
                self.reports,
                evaluation=config.site.mode == "evaluation",
                box_version=__version__,
                wake_delivery=self._ring_delivery,
            ),
            *self.deliverers,
            *self.custodians,
            *self.askers,
            EscalationStage(store, config, self.clock, wake_sinks=self._ring_alert_sinks),
            *self.alert_sinks,
            HousekeepingStage(store, config.retention, self.clock),
            RetentionStage(store, config, self.clock),
            SamplingStage(store, self.clock),
            *(self.fleet.stages if self.fleet is not None else ()),
        ]
        self.runners = {stage.name: Runner(stage, self.clock) for stage in stages}
        web_beat = Beat(_WebLoop(), self.clock)
        beats = [*(runner.beat for runner in self.runners.values()), web_beat]
        checks: list[Check] = [
            *(DiskCheck(store), ClockJumpCheck(store, self.clock), StagesCheck(store, beats), ChainCheck(store)),
            ScreensCheck(store, config),
            CertificatesCheck(store, shown),
            HardwareCheck(store, self.clock),
            *(SilenceCheck(store, config, self.clock), DriftCheck(store, self.clock), ShelfCheck(store)),
        ]
        self.runners["health"] = Runner(HealthStage(checks, beats), self.clock)
        self.scp = self._receiver()
        screen = screen_app(store, config, self.texts, self.clock, self.tools)
        self.web = WebServer(
            screen,
            config.screen.host,
            config.screen.port,
            tls=web_tls,
            pulse=web_beat.mark,
        )
        self.dicom_port = 0
        self.screen_port = 0
        with store.db.write() as tx:
            tx.journal(DaemonStarted(version=__version__, mode=config.site.mode, recovered=recovered))

    def _fleet_parts(self, first_within_s: float) -> FleetParts | None:
        """What reports to the fleet server; its libraries are loaded where there is one."""
        if self.config.fleet is None:
            self.store.fleet.leave()
            return None
        from appliance.box_acts import BoxActs
        from appliance.fleet.device.parts import fleet_parts

        acts = BoxActs(self.config, self.store, self.tools, self._stop)
        return fleet_parts(
            self.config, self.store, self.clock, acts, self._ring, stop=self._stop, first_within_s=first_within_s
        )

    def _said(self, delivery_id: int) -> Said | None:
        return self.store.deliveries.said(delivery_id)

    def _tell_texts(self) -> None:
        """Bring the texts of packages in line with what runs. Entries are only added or replaced: others read them."""
        for name, (package, is_live) in self.packages.known().items():
            self.texts[name] = package_text(package.manifest, live=is_live)
            self.reports[name] = ReportPackage.from_manifest(package.manifest)

    def _open_store(self) -> tuple[Store, dict[str, int]]:
        state, reader = self.config.state_path, spool_reader(self.config)
        why = ""
        try:
            store = Store.open(state, self.clock, reserve_bytes=self._reserve(state))
            why = store.db.quick_check()
        except StoreError as error:
            if not (state / "scanside.db").exists():
                raise ConfigError(f"{error}; give the service a state folder that it may write") from error
            why = str(error)
            store = None
        if store is None or why != "ok":
            log.error("the database is damaged and set aside; a new one is built from the spool: %s", why)
            if store is not None:
                store.close()
            store = rebuild(state, self.clock, reader, why, reserve_bytes=self._reserve(state))
        return store, recover(store, reader)

    def _reserve(self, state: Path) -> int:
        disk = os.statvfs(state)
        settings = self.config.disk
        return max(settings.reserve_bytes, int(disk.f_blocks * disk.f_frsize * settings.reserve_fraction))

    def _receiver(self) -> StorageScp:
        dicom = self.config.dicom
        settings = ScpSettings(
            ae_title=dicom.ae_title,
            host=dicom.host,
            port=dicom.port,
            max_associations=dicom.max_associations,
            max_per_host=dicom.max_associations_per_host,
            max_object_bytes=dicom.max_object_bytes,
            pdu_deadline_s=dicom.pdu_deadline_s,
            network_timeout_s=dicom.network_timeout_s,
            require_called_ae=dicom.require_called_ae,
            tls=TlsSettings(**dicom.tls.model_dump()) if dicom.tls else None,
        )
        commitment = CommitmentService(self.store, self.config, self.clock, wake_reports=self._ring_reports)
        steps = PerformedSteps(self.store.steps, wake=self._ring_intake) if dicom.mpps else None
        return StorageScp(
            settings,
            StoreSink(self.store, self.config, self.clock, wake=self._ring_intake),
            self.tools.peers,
            self.store.spool,
            self.clock,
            read_header=read_header,
            services={**commitment.services(), **(steps.services() if steps else {})},
        )

    def start(self) -> None:
        """Start everything; receiving comes first.

        Raises:
            ConfigError: A port or the worker's socket cannot be had.
        """
        self.dicom_port = self.scp.start()
        self.link.start()
        for runner in self.runners.values():
            runner.start(self._stop)
        self.screen_port = self.web.start()
        log.info("receiving on port %d, screens on port %d", self.dicom_port, self.screen_port)
        notify("READY=1")

    def run(self) -> None:
        """Start, wait for SIGTERM, SIGINT or a restart from a page, stop. To be called from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._asked.set())
        self.start()
        self._after_start()
        self._asked.wait()
        self.stop("restarted from a page" if self.is_restarting else "asked to stop")

    def _ask_restart(self) -> None:
        self.is_restarting = True
        self._asked.set()

    def _after_start(self) -> None:
        """Of a box that was started from files: its settings have proven themselves; who sets it up needs the code."""
        settings, store = self.tools.settings, self.store
        if settings is None:
            return
        if settings.loaded.broken:
            log.error("the settings of the site do not fit and are left out: %s", settings.loaded.broken)
            store.issues.raise_(SETTINGS_BROKEN, "settings", Severity.FAULT, {"why": settings.loaded.broken})
        else:
            store.issues.clear(SETTINGS_BROKEN, "settings")
            settings.keep_as_good()
        if store.setup.is_open():
            log.warning(
                "nobody administers this box yet: open /setup in a browser, the code is %s; or call 'scanside user add "
                "NAME --role administrator'",
                store.setup.new_code(),
            )

    def stop(self, why: str = "stopped") -> None:
        """Stop listening, let associations finish, end every stage, close the store. Every wait is bounded."""
        notify("STOPPING=1")
        self.scp.stop(_DRAIN_S)
        self._stop.set()
        for sender in (*self.deliverers, *self.custodians, *self.askers):
            sender.interrupt()
        self.link.stop()
        for name, runner in reversed(self.runners.items()):
            if not runner.join(_JOIN_S):
                log.warning("stage %s did not end within %g s", name, _JOIN_S)
        if self.fleet is not None:
            self.fleet.close()
        for deliverer in self.deliverers:
            deliverer.close()
        self.web.stop()
        with self.store.db.write() as tx:
            tx.journal(DaemonStopped(why=why))
        self.store.close()
        self._lock.close()

    def _ring(self, name: str) -> None:
        runner = self.runners.get(name)
        if runner is not None:
            runner.bell.set()

    def _ring_intake(self) -> None:
        self._ring("completeness")
        self._ring_delivery()

    def _ring_reports(self) -> None:
        for one in self.custodians:
            one.wake()
            self._ring(one.name)

    def _ring_alert_sinks(self) -> None:
        for stage in self.alert_sinks:
            self._ring(stage.name)

    def _ring_delivery(self) -> None:
        for deliverer in self.deliverers:
            self._ring(deliverer.name)
