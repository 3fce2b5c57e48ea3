"""A real box agent of the demo: store, identity, link, inbox, jobs and roll-ups as the daemon has them.

What is not there is the box around it: no scanner, no AI worker, no screen. ``StandIn`` stands for them and says so:
a package is unpacked, its signature and files are checked and it gets its slot as ever, but it is not run; its golden
cases are a figure, and so are the hours of results that the box tells of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.clock import ClockQuality, SystemClock
from appliance.config import Config
from appliance.fleet.device.acts import ActRefused, Acts
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.enrolment import enrol
from appliance.fleet.device.identity import FOLDER
from appliance.fleet.device.link import LinkStage
from appliance.fleet.device.parts import fleet_parts
from appliance.fleet.server.demo.model import PACKAGE
from appliance.fleet.wire_records import Equipment, Quantiles, ResultsHour
from appliance.records import SYSTEM, AnalysisResult
from appliance.stage import Beat, run_stage
from appliance.store import Store
from appliance.store.ending import OwedResult
from appliance.store.facts.box import DaemonStarted
from appliance.store.facts.fleet import FleetTold
from appliance.store.health_samples import Sample
from appliance.store.installing import PackageRefused, Site, install_package
from appliance.store.package_rows import PackageState
from appliance.store.package_rules import Terms
from engines.gate import GateReport
from engines.package import load_package
from engines.signing import PublicKey
from engines.trial import TrialReport

_JOIN_S = 5.0
#: A demo is looked at.
_LINGER_S = 0.3
_MOST_FACTS = 100_000
_P95_MS = 180.0


@dataclass(frozen=True, slots=True)
class Character:
    """What tells one box of the demo from another.

    Attributes:
        source: (modality, make, model) of its scanner.
        fails: A version whose golden cases fail on this box; empty: none does.
        studies: Analyses in an hour, of which ``flagged`` have a finding.
    """

    name: str
    serial: str
    token: str
    source: tuple[str, str, str]
    hardware: str
    fails: str = ""
    studies: int = 100
    flagged: int = 8


def _kept(_: datetime) -> ClockQuality:
    """All boxes and the server are one machine, whose clock they share: whether somebody keeps it does not matter."""
    return "rtc"


class StandIn(Acts):
    """What the daemon would do for jobs, without an AI worker; see above."""

    def __init__(self, store: Store, maker: PublicKey, character: Character) -> None:
        """Believe packages of ``maker``."""
        self._store = store
        self._maker = maker
        self._character = character

    def restart(self) -> None:
        """Nobody would start it again."""
        raise ActRefused("NOT_PERMITTED", "a box of the demo is not started by systemd")

    def self_test(self) -> dict[str, float]:
        """A figure: there is no scanner here."""
        return {"images": 1.0, "result_s": 1.2, "owed": 0.0}

    def bundle(self) -> bytes:
        """Empty: there is no screen that makes one."""
        return b""

    def install(self, source: Path, name: str, version: str, digest: str) -> None:
        """As on every box, without the limited child that reads the graph and without running it."""

        def gate(folder: Path, keys: Sequence[PublicKey]) -> GateReport:
            found = load_package(folder, keys=keys)
            if (found.name, found.version, found.digest) != (name, version, digest):
                raise ActRefused("DIGEST", "the file holds another package than the job names")
            return GateReport(found.name, found.version, found.digest, found.signed_by, dict(found.files), ())

        site = Site(
            keys=[self._maker],
            ct_deadline_s=300.0,
            xray_deadline_s=60.0,
            threads=1,
            gate=gate,
            trial=lambda *_: TrialReport(p50_ms=_P95_MS / 2, p95_ms=_P95_MS, peak_mb=64.0, runs=2),
        )
        try:
            install_package(self._store, source, site, SYSTEM)
        except PackageRefused as error:
            raise ActRefused("PACKAGE_REFUSED", str(error)) from error

    def golden(self, name: str, version: str) -> dict[str, float]:
        """A figure; or the refusal that the demo is about."""
        if version == self._character.fails:
            raise ActRefused("GOLDEN", f"{name} {version}: a golden case ends otherwise on this box than it must")
        return {"p95_ms": _P95_MS, "peak_mb": 64.0, "runs": 2.0}

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        """There is no PACS."""
        del package, result
        return ()


class Agent:
    """One box. ``start`` and ``stop`` once."""

    def __init__(self, folder: Path, character: Character, url: str, maker: PublicKey) -> None:
        """Enrol it, over HTTPS, and open its store.

        Raises:
            ApplianceError: The server does not let it in.
        """
        self.character = character
        self.clock = SystemClock()
        state = folder / "state"
        self.config = Config.model_validate({"state_path": state, "site": {"mode": "evaluation"}, "fleet": {}})
        identity = enrol(state / FOLDER, url, character.token, serial=character.serial, hardware=character.hardware)
        self.device = identity.enrolment.device
        self.store = Store.open(state, self.clock, reserve_bytes=0)
        self.acts = StandIn(self.store, maker, character)
        self._contents = Contents(self.store, self.config, self.clock, quality=_kept)
        self._stop = threading.Event()
        self._bells: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._told: set[str] = set()
        with self.store.db.write() as tx:
            tx.journal(DaemonStarted(version=__version__, mode="evaluation"))

    def serve(self, archive: Path, version: str, digest: str) -> None:
        """The version that a technician put there when the box was set up serves."""
        self.acts.install(archive, PACKAGE, version, digest)
        self.store.packages.activate(
            PACKAGE,
            Terms(days=0, studies=0),
            version=version,
            clinical=False,
            owed=self.acts.owed,
            actor=SYSTEM,
            why="demo",
        )

    def tell_past(self, version: str, hours: int) -> None:
        """Rows as roll-ups write them, of hours that this box never had: its scanner, and what its AI found."""
        modality, make, model = self.character.source
        rows = [Equipment.model_validate({"source": 1, "modality": modality, "make": make, "model": model})]
        begin = self.clock.now().replace(minute=0, second=0, microsecond=0)
        self._told.add(version)
        told = [self._hour(version, begin - timedelta(hours=n)) for n in range(hours, 0, -1)]
        with self.store.db.write() as tx:
            for row in (*rows, *told):
                tx.journal(FleetTold(record=row.model_dump(mode="json", exclude_none=True)))

    def tell_new(self) -> None:
        """A day's results of a version that serves since the last look: a demo does not wait for them."""
        serves = [row.version for row in self.store.packages.all(PACKAGE) if row.state is PackageState.LIVE]
        fresh = [version for version in serves if version not in self._told]
        self._told.update(fresh)
        today = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        if fresh:
            with self.store.db.write() as tx:
                for version in fresh:
                    row = self._hour(version, today, hours=24)
                    tx.journal(FleetTold(record=row.model_dump(mode="json", exclude_none=True)))
            self._ring(LinkStage.name)

    def _hour(self, version: str, hour: datetime, hours: int = 1) -> ResultsHour:
        n, flagged = hours * self.character.studies, hours * self.character.flagged
        return ResultsHour(
            package=PACKAGE,
            version=version,
            role="live",
            hour=f"{hour:%Y-%m-%dT%HZ}",
            hours=hours,
            n=n,
            flagged={"finding": flagged},
            nothing_flagged=n - flagged,
            ms=Quantiles(p50=_P95_MS / 2, p95=_P95_MS),
        )

    def start(self, within_s: float) -> None:
        """Begin: a thread for each stage, as in the daemon; it connects within so long."""
        self.parts = fleet_parts(
            self.config,
            self.store,
            self.clock,
            self.acts,
            self._ring,
            first_within_s=within_s,
            linger_s=0.3,
            quality=_kept,
        )
        for stage in self.parts.stages:
            bell = self._bells[stage.name] = threading.Event()
            thread = threading.Thread(
                target=run_stage,
                args=(stage, Beat(stage, self.clock), self._stop, bell),
                name=f"{self.character.name} {stage.name}",
                daemon=True,
            )
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def sample(self, cpu_percent: float) -> None:
        """How the machine fares; on a box the health part measures it, here all boxes are one machine."""
        self.store.health.add(self.clock.now(), Sample(cpu_percent=cpu_percent, memory_percent=40.0, disk_percent=20.0))

    def state(self) -> dict[str, Any]:
        """What it holds itself to be: connected, what serves, and how many records leave it, of which all are told."""
        place, link = self.store.fleet.place(), self.parts.link
        facts = self.store.journal.after(0, _MOST_FACTS, tuple(self._contents.kinds))
        leaving = [fact.seq for fact in facts if self._contents.record(fact) is not None]
        return {
            "device": self.device,
            "connected": link is not None and link.is_connected,
            # Rows behind it that stay here are passed over on disk only now and then.
            "told": place.cursor >= max(leaving, default=0),
            "records": len(leaving),
            "serves": [row.version for row in self.store.packages.all(PACKAGE) if row.runs],
            "issues": sorted(issue.code for issue in self.store.issues.open()),
        }

    def stop(self) -> None:
        """End in order: it says goodbye."""
        self._stop.set()
        for bell in self._bells.values():
            bell.set()
        until = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.parts.close()
        self.store.close()

    def _ring(self, name: str) -> None:
        bell = self._bells.get(name)
        if bell is not None:
            bell.set()
