"""Acts of pages that need more of the box than its store: asking destinations, engines, a test study, a restart."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.box_fleet import fleet_jobs, fleet_link
from appliance.clock import Clock
from appliance.config import Config, Destination
from appliance.deliver.echo import probe
from appliance.errors import ConflictError
from appliance.intake.peers import SourceSettings, peers_of
from appliance.records import SELF_TEST_SOURCE, Actor, AnalysisResult, DeliveryState
from appliance.screen.tools import EngineState, FleetJob, FleetLink, Probe, Refused, TestState, Unavailable
from appliance.settings import Settings
from appliance.simulate.self_test import AE_TITLE
from appliance.store import Store
from appliance.store.ending import OwedResult
from appliance.store.installing import PackageRefused, install_package
from appliance.store.package_rows import PackageRow, PackageState
from appliance.store.packages import NewPackage
from appliance.triage.engines import engine_wish
from appliance.triage.packages import asked_of, owed_results
from engines.child import Limits, run_limited
from engines.errors import ChildError, EngineError, SignatureError
from engines.package import parse_manifest
from engines.store import EngineStore, Entry

_CHILD = "appliance.simulate.self_test"
_LIMITS = Limits(wall_s=120, cpu_s=100, memory_mb=3072)
_TEST_S = 300.0
_LOOK_S = 0.05
_DOCTOR_S = 90.0
_WAITS = (PackageState.INSTALLED, PackageState.SILENT, PackageState.SHADOW, PackageState.LIVE, PackageState.WITHDRAWN)


class BoxTools:
    """``screen.tools.Tools`` of a daemon."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clock: Clock,
        *,
        settings: Settings | None,
        ports: Callable[[], tuple[int, int]],
        on_restart: Callable[[], None] | None,
    ) -> None:
        """Work for a daemon.

        Args:
            config: As it runs.
            store: Its store.
            clock: Its clock.
            settings: Of the site; None where the daemon was not started from files.
            ports: Asked each time: known once it listens.
            on_restart: Ends it so that it is started again; None where nobody would.
        """
        self._config = config
        self._store = store
        self._clock = clock
        self._ports = ports
        self._on_restart = on_restart
        self.settings = settings
        known = peers_of(config)
        #: Who may send; ourselves too while a test study runs. The receiver reads the list each time.
        self._sources = list(known.sources)
        self.peers = replace(known, sources=self._sources)
        self._guard = threading.Lock()
        self._test = TestState()

    @property
    def restarts(self) -> str:
        """Under systemd it comes back by itself; a person who typed ``scanside run`` starts it again."""
        if self._on_restart is None:
            return ""
        return "systemd" if os.environ.get("INVOCATION_ID") else "hand"

    @property
    def ports(self) -> tuple[int, int]:
        """DICOM, screens."""
        return self._ports()

    def restart(self) -> None:
        """End the daemon with a status on which it is started again."""
        if self._on_restart is None:
            raise Unavailable("this box cannot be restarted from here")
        self._on_restart()

    def probe(self, destination: Destination) -> Probe:
        """As ``scanside dest test``."""
        result = probe(destination, self._config.dicom.ae_title, self._clock)
        return Probe(ok=result.ok, ms=result.ms, words=result.words)

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        """By the rules of the configuration."""
        return owed_results(self._config, package, result)

    def install(self, source: Path, actor: Actor) -> NewPackage:
        """As ``scanside model install``: gate and trial are limited children."""
        try:
            return install_package(self._store, source, asked_of(self._config), actor)
        except PackageRefused as error:
            told = str(error).replace(str(source), "the file")
            raise Refused(told, is_signed=not isinstance(error.__cause__, SignatureError)) from error

    def doctor(self) -> dict[str, Any]:
        """In a process of its own: it loads libraries that a daemon does not."""
        loaded = self.settings.loaded if self.settings is not None else None
        if loaded is None:
            return {}
        command = [sys.executable, "-m", "appliance.cli", "doctor", "--json", "--config", str(loaded.base)]
        command += ["--site", str(loaded.site)] if loaded.site is not None else []
        try:
            told = subprocess.run(command, capture_output=True, timeout=_DOCTOR_S, check=False).stdout
            answer = json.loads(told)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return {"ok": False, "checks": []}
        return answer if isinstance(answer, dict) else {}

    # Engines ---------------------------------------------------------------------------------------------------

    def engines(self) -> list[EngineState]:
        """From the folder of engines; reading it changes nothing."""
        rows = [row for row in self._store.packages.all() if row.state in _WAITS]
        try:
            shelf = EngineStore(self._config.engines_path)
            entries, building = shelf.entries(), shelf.in_progress()
        except (OSError, EngineError):
            entries, building = [], None
        return [self._engine(row, entries, building.package if building else "") for row in rows]

    def _engine(self, row: PackageRow, entries: list[Entry], building: str) -> EngineState:
        known = {"package": row.name, "version": row.version}
        try:
            manifest = parse_manifest(self._store.packages.manifest(row.id).encode(), f"{row.name} {row.version}")
        except EngineError as error:
            return EngineState(**known, wanted="", state="rejected", why=str(error))
        wish = engine_wish(self._config, manifest)
        if wish is None:
            return EngineState(**known, wanted="", state="none")
        wanted = f"{wish.flavour} {wish.precision}"
        mine = [
            entry
            for entry in entries
            if (entry.key.package_digest, entry.flavour, entry.precision) == (row.digest, wish.flavour, wish.precision)
        ]
        best = next((entry for entry in mine if entry.state == "ready"), mine[0] if mine else None)
        if building.partition("@")[0] == row.name and (best is None or best.state != "ready"):
            return EngineState(**known, wanted=wanted, state="building")
        if best is None:
            return EngineState(**known, wanted=wanted, state="missing")
        return EngineState(
            **known,
            wanted=wanted,
            state=str(best.state),
            digest=best.digest,
            built_at=best.built_at,
            why=best.reason,
        )

    # The fleet -------------------------------------------------------------------------------------------------

    def fleet_link(self) -> FleetLink:
        """From the identity's files and the link's marks."""
        return fleet_link(self._config, self._store)

    def fleet_jobs(self) -> list[FleetJob]:
        """From their rows."""
        return fleet_jobs(self._store)

    # The test study --------------------------------------------------------------------------------------------

    @property
    def test(self) -> TestState:
        """How far it is."""
        return self._test

    def begin_test(self) -> str:
        """In a thread; what it meets is in ``test``.

        Raises:
            ConflictError: One runs.
            Unavailable: The receiver wants TLS, which the test's sender does not speak.
        """
        if self._config.dicom.tls is not None:
            raise Unavailable("the receiver takes DICOM by TLS alone, and a test study has no certificate: scan one")
        with self._guard:
            if self._test.state in {"making", "sending", "waiting"}:
                raise ConflictError("a test study runs already; wait for its end")
            run = secrets.token_hex(6)
            self._test = TestState(state="making", run=run)
        threading.Thread(target=self._run_test, args=(run,), name="self test", daemon=True).start()
        return run

    def _run_test(self, run: str) -> None:
        host = self._config.dicom.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where to call ourselves
        address = "127.0.0.1" if host == "localhost" else host
        myself = SourceSettings(name=SELF_TEST_SOURCE, ae_title=AE_TITLE, addresses=(address,))
        self._sources.append(myself)
        study_uid = ""

        def told(body: dict[str, Any]) -> None:
            nonlocal study_uid
            study_uid = body.get("study", study_uid)
            self._now(state="sending", images=body.get("images", self._test.images), sent=body.get("sent", 0))

        request = {
            "scenario": self._scenario(),
            "run": run,
            "host": host,
            "port": self._ports()[0],
            "called": self._config.dicom.ae_title,
        }
        try:
            answer = run_limited(_CHILD, request, _LIMITS, told)
        except ChildError as error:
            self._now(state="failed", words=str(error))
            return
        finally:
            self._sources.remove(myself)
        if answer["refused"]:
            self._now(state="failed", words=f"{answer['refused']} of its images were refused; the journal says why")
            return
        self._now(state="waiting", sent=answer["sent"])
        self._follow(study_uid, time.monotonic())

    def _follow(self, study_uid: str, sent_mono: float) -> None:
        """Wait for outcome and deliveries."""
        pause = threading.Event()
        while time.monotonic() - sent_mono < _TEST_S:
            found = self._store.views.find(study_uid)
            view = self._store.views.some(found, deliveries=True).get(found[0]) if found else None
            if view is not None:
                if view.outcome is not None and self._test.result_s is None:
                    self._now(result_s=round(time.monotonic() - sent_mono, 3))
                owed = [one for one in view.deliveries if one.state is not DeliveryState.REPLACED]
                delivered = sum(one.count for one in owed if one.state is DeliveryState.SENT)
                alerts = self._store.db.all("SELECT 1 FROM alert WHERE study_id = ?", (view.id,))
                self._now(
                    study_id=view.id,
                    outcome=str(view.outcome or ""),
                    reason=str(view.reason or ""),
                    alerted=bool(alerts),
                    owed=sum(one.count for one in owed),
                    delivered=delivered,
                )
                if view.outcome is not None and delivered == self._test.owed:
                    self._now(state="done")
                    return
            pause.wait(_LOOK_S)
        self._now(state="failed", words=f"it was not over after {_TEST_S:g} s")

    def _now(self, **changes: Any) -> None:
        self._test = replace(self._test, **changes)

    def _scenario(self) -> str:
        """What a package that runs here has something to say of; a chest film where none does."""
        modalities: set[str] = set()
        for row in self._store.packages.all():
            if row.runs:
                text = self._store.packages.manifest(row.id).encode()
                with contextlib.suppress(EngineError):
                    modalities.update(*(feed.input.modality for feed in parse_manifest(text, row.name).inputs))
        return "head_ct_bleed" if "CT" in modalities and not modalities & {"DX", "CR"} else "chest_xray_effusion"
