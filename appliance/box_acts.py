"""What jobs of the fleet ask of the box beyond its store; see ``fleet.device.acts.Acts``."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from appliance.box_tools import BoxTools
from appliance.config import Config
from appliance.errors import ConflictError
from appliance.fleet.device.acts import ActRefused
from appliance.records import Actor, ActorKind, AnalysisResult
from appliance.screen.bundle import make_bundle
from appliance.screen.tools import Unavailable
from appliance.store import Store
from appliance.store.ending import OwedResult
from appliance.store.installing import PackageRefused, install_package
from appliance.store.package_files import PackageFiles
from appliance.triage.packages import asked_of
from engines.errors import EngineError, PackageError
from engines.gate import GateReport, gate_package
from engines.package import load_package
from engines.signing import PublicKey
from engines.trial import try_package

_FLEET = Actor(kind=ActorKind.FLEET, name="job", role="job")
_LOOK_S = 0.2
#: Longer than the test study itself may take.
_TEST_S = 600.0


class BoxActs:
    """``Acts`` of a daemon."""

    def __init__(self, config: Config, store: Store, tools: BoxTools, stop: threading.Event) -> None:
        """Act by what the pages act by; ``stop`` ends what waits."""
        self._config = config
        self._store = store
        self._tools = tools
        self._stop = stop

    def restart(self) -> None:
        """End the daemon so that it is started again."""
        # A job must not leave a box dark that nobody stands at.
        if self._tools.restarts != "systemd":
            raise ActRefused("NOT_PERMITTED", "this box was not started by systemd: nothing would start it again")
        self._tools.restart()

    def self_test(self) -> dict[str, float]:
        """A test study from our own sender to the outcome."""
        try:
            run = self._tools.begin_test()
        except Unavailable as error:
            raise ActRefused("NOT_PERMITTED", str(error)) from error
        except ConflictError as error:
            raise ActRefused("BUSY", str(error)) from error
        waited = 0.0
        while self._tools.test.run == run and self._tools.test.state not in {"done", "failed"} and waited < _TEST_S:
            if self._stop.wait(_LOOK_S):
                raise ActRefused("STOPPED")
            waited += _LOOK_S
        test = self._tools.test
        if test.run != run or test.state != "done":
            raise ActRefused("SELF_TEST", test.words)
        return {"images": float(test.images), "result_s": float(test.result_s or 0.0), "owed": float(test.owed)}

    def bundle(self) -> bytes:
        """The support bundle."""
        return make_bundle(self._store, self._config, self._tools.doctor)

    def install(self, source: Path, name: str, version: str, digest: str) -> None:
        """Install this very package and no other."""

        def gate(folder: Path, keys: Sequence[PublicKey]) -> GateReport:
            report = gate_package(folder, keys)
            if (report.name, report.version, report.digest) != (name, version, digest):
                raise PackageError("the file holds another package than the job names; nothing was installed")
            return report

        try:
            install_package(self._store, source, replace(asked_of(self._config), gate=gate), _FLEET)
        except PackageRefused as error:
            raise ActRefused("PACKAGE_REFUSED", str(error)) from error

    def golden(self, name: str, version: str) -> dict[str, float]:
        """The golden cases of what lies in a slot."""
        row = next((one for one in self._store.packages.all(name) if one.version == version and one.folder), None)
        if row is None:
            raise ActRefused("NOT_INSTALLED")
        asked = asked_of(self._config)
        try:
            package = load_package(PackageFiles(self._store.db.path.parent).path(row.folder), keys=asked.keys)
            trial = try_package(package, asked.keys, threads=asked.threads or len(os.sched_getaffinity(0)))
        except EngineError as error:
            raise ActRefused("GOLDEN", str(error)) from error
        return {"p95_ms": round(trial.p95_ms, 1), "peak_mb": round(trial.peak_mb, 1), "runs": float(trial.runs)}

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        """By the configuration."""
        return self._tools.owed(package, result)
