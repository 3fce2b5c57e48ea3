"""What ``scanside demo`` starts: a box, a PACS and scanners, all on loopback and free ports, and how they fare."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset

from appliance.cli.demo_fleet import DemoFleet
from appliance.config import Config
from appliance.daemon import Daemon
from appliance.records import SYSTEM, DeliveryKind, DeliveryState, Outcome
from appliance.screen.packages import PackageText
from appliance.screen.screens import new_ticket, pairing_path
from appliance.screen.users import ROLES
from appliance.settings import Settings, dump, load_box, to_yaml
from appliance.simulate.files import collect
from appliance.simulate.orthanc import Orthanc, find_orthanc
from appliance.simulate.pacs import Pacs
from appliance.simulate.scanner import Item, Scanner
from appliance.simulate.scenarios import SCENARIOS, Scenario
from appliance.store.readmodels import StudyView, to_json
from appliance.store.screens import TICKET_LIFE
from appliance.web.passwords import Passwords, one_time
from engines.package import bundled_packages, load_package

log = logging.getLogger(__name__)
_AE = "SCANSIDE"
#: The configuration of the demo, in its folder.
BASE = "appliance.yaml"
#: What the scenarios are for; a package that no study of the demo needs would only make it start later.
_PACKAGES = ("head-ct-hyperdensity", "cxr-triage")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStudy:
    """One study of the demo: what was expected, and how far it is."""

    title: str
    source: str
    expected: Scenario | None
    view: StudyView | None
    texts: dict[str, PackageText]
    #: Whether every image has been sent.
    is_sent: bool

    @property
    def images(self) -> int:
        """Images received so far."""
        return self.view.images if self.view else 0

    @property
    def is_over(self) -> bool:
        """Whether it has an outcome and everything owed was delivered."""
        view = self.view
        if view is None or view.outcome is None or not self.is_sent:
            return False
        return all(one.state in {DeliveryState.SENT, DeliveryState.REPLACED} for one in view.deliveries)

    @property
    def ending(self) -> str:
        """Outcome and reason in words of DESIGN §2."""
        view = self.view
        if view is None or view.outcome is None:
            return "receiving" if self.images else "waiting"
        return f"{view.outcome} ({view.reason})" if view.reason else str(view.outcome)

    @property
    def expectation(self) -> str:
        """The same of what was expected."""
        if self.expected is None:
            return "any outcome"
        reason = f" ({self.expected.reason})" if self.expected.reason else ""
        return f"{self.expected.outcome}{reason}"

    @property
    def is_as_expected(self) -> bool:
        """Whether it ended, and as the scenario says."""
        return self.is_over and (self.expected is None or self.ending == self.expectation)

    @property
    def found(self) -> str:
        """Suspected findings with their size, for the table."""
        said = []
        for analysis in self.view.live if self.view else ():
            for finding in analysis.findings:
                if finding.flagged:
                    size = f", {finding.volume.value:.1f} {finding.volume.unit}" if finding.volume else ""
                    said.append(f"{self._title(analysis.package, finding.id)}{size}")
            if analysis.outcome is Outcome.NOT_ANALYSED:
                said.append(analysis.detail)
        return "; ".join(said)

    @property
    def took(self) -> str:
        """From the last image to the result."""
        totals = [analysis.hops_ms["total"] for analysis in self._live if "total" in analysis.hops_ms]
        return f"{max(totals) / 1000:.1f} s" if totals else ""

    @property
    def in_pacs(self) -> str:
        """What was delivered of what was owed."""
        counts = self._pacs()
        return "\n".join(f"{sent}/{owed} {kind}" for kind, (sent, owed) in counts.items())

    @property
    def _live(self) -> Sequence[Any]:
        return self.view.live if self.view else ()

    def _title(self, package: str, finding_id: str) -> str:
        text = self.texts.get(package)
        return text.findings[finding_id].title["en"] if text and finding_id in text.findings else finding_id

    def _pacs(self) -> dict[str, tuple[int, int]]:
        counts: dict[str, tuple[int, int]] = {}
        for one in self.view.deliveries if self.view else ():
            kind = "images" if one.kind is DeliveryKind.ORIGINAL else str(one.kind)
            sent, owed = counts.get(kind, (0, 0))
            counts[kind] = (sent + one.count * (one.state is DeliveryState.SENT), owed + one.count)
        return counts

    def document(self) -> dict[str, Any]:
        """One entry of ``studies`` of ``--json``."""
        view = self.view
        packages = [self.texts[analysis.package] for analysis in self._live if analysis.package in self.texts]
        return {
            "title": self.title,
            "source": self.source,
            "expected": {
                "outcome": str(self.expected.outcome) if self.expected else None,
                "reason": str(self.expected.reason) if self.expected and self.expected.reason else None,
            },
            "as_expected": self.is_as_expected,
            "outcome": str(view.outcome) if view and view.outcome else None,
            "reason": str(view.reason) if view and view.reason else None,
            "detail": "; ".join(analysis.detail for analysis in self._live if analysis.detail),
            "images": self.images,
            "looked_for": [text.looked_for["en"] for text in packages],
            "not_looked_for": [text.not_looked_for["en"] for text in packages],
            "findings": [
                {
                    "package": finding.package,
                    "id": finding.id,
                    "title": self._title(finding.package, finding.id),
                    "flagged": finding.flagged,
                    "score": finding.score,
                    "volume_ml": _millilitres(finding.volume),
                    "key_slices": to_json(finding.key_slices),
                }
                for analysis in self._live
                for finding in analysis.findings
            ],
            "hops_ms": {analysis.package: to_json(analysis.hops_ms) for analysis in self._live},
            "pacs": {kind: {"sent": sent, "owed": owed} for kind, (sent, owed) in self._pacs().items()},
        }


def _millilitres(volume: Any) -> float | None:
    if volume is None:
        return None
    return float(volume.value) / 1000 if volume.unit == "mm3" else float(volume.value)


class DemoBox:
    """Everything that the demo starts; a context manager."""

    def __init__(self, state: Path, own_files: Path | None, fleet: DemoFleet | None = None) -> None:
        """Prepare.

        Args:
            state: A folder for everything.
            own_files: Files to send instead of the simulated studies.
            fleet: What it reports to, which starts already; None: nothing.
        """
        self._fleet = fleet
        self._state = state
        self._own_files = own_files
        self._stack = contextlib.ExitStack()
        #: Scenario: its Study Instance UID, once it is built; and those of which every image was sent.
        self._uids: dict[str, str] = {}
        self._sent: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._failures: list[str] = []
        self._orthanc: Orthanc | None = None
        self._pacs: Pacs | None = None

    def __enter__(self) -> DemoBox:  # noqa: PYI034 - typing.Self came with Python 3.11
        """Start PACS, box and scanners."""
        handler = logging.FileHandler(self._state / "scanside.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        logging.getLogger("pynetdicom").setLevel(logging.WARNING)
        self._stack.callback(handler.close)
        self._stack.callback(root.removeHandler, handler)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, the newest first."""
        self._stack.close()

    def _start(self) -> None:
        port = self._start_pacs()
        is_in_fleet = self._fleet is not None and self._fleet.join(self._state / "fleet")
        # From a file, as every box, so that its settings page has something to change.
        base = self._state / BASE
        base.write_text(to_yaml(dump(demo_config(self._state, port, fleet=is_in_fleet))), encoding="utf-8")
        loaded = load_box(base)
        self.daemon = Daemon(loaded.config, settings=Settings(loaded), fleet_within_s=0)
        self.texts = self.daemon.texts
        self.daemon.start()
        self._stack.callback(self.daemon.stop, "the demo has ended")
        self._let_people_in(f"http://127.0.0.1:{self.daemon.screen_port}")
        by_source: dict[str, list[tuple[str, Any]]] = {}
        if self._own_files is not None:
            series, _ = collect([self._own_files])
            by_source["CT-1"] = [("own files", list(files)) for files in series]
        else:
            for scenario in SCENARIOS:
                by_source.setdefault(scenario.source, []).append((scenario.title, scenario))
        for source, jobs in by_source.items():
            thread = threading.Thread(target=self._send, args=(source, jobs), name=f"scanner {source}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _let_people_in(self, address: str) -> None:
        """An account of each role, all with one password, and a link that makes a browser the alert screen."""
        store, ticket, password = self.daemon.store, new_ticket(), one_time()
        kept = Passwords().hashed(password)
        for role in ROLES:
            store.accounts.add(str(role), f"Demo {role}", role, kept, SYSTEM)
        store.screens.offer("Demo screen", (), ticket, SYSTEM, life=TICKET_LIFE)
        self.screen_url = address + pairing_path(ticket)
        self.sign_in = {"url": f"{address}/sign-in", "names": [str(role) for role in ROLES], "password": password}

    def _start_pacs(self) -> int:
        folder = self._state / "pacs"
        if find_orthanc() is not None:
            self._orthanc = self._stack.enter_context(Orthanc(self._state / "orthanc"))
            self.pacs_name = f"Orthanc, {self._orthanc.url}/app/explorer.html"
            return self._orthanc.dicom_port
        self._pacs = self._stack.enter_context(Pacs(folder))
        self.pacs_name = "a storage SCP of this software (Orthanc is not installed)"
        return self._pacs.port

    def _send(self, source: str, jobs: list[tuple[str, Any]]) -> None:
        """One scanner: builds each study and sends it in one association."""
        scanner = Scanner(source, _AE, "127.0.0.1", self.daemon.dicom_port)
        for title, job in jobs:
            items: list[Item] = list(job.build("demo")) if isinstance(job, Scenario) else job
            if isinstance(items[0], Dataset):
                self._uids[title] = items[0].StudyInstanceUID
            try:
                refused = [one for one in scanner.send(items) if one.status != 0]
            except OSError as error:
                self._failures.append(f"{title}: {error}")
                continue
            if refused:
                self._failures.append(f"{title}: {len(refused)} images were refused")
            self._sent.add(title)

    def studies(self) -> list[DemoStudy]:
        """How every study fares now."""
        views = self.daemon.store.views.studies(limit=1000)
        if self._own_files is not None:
            over = not any(thread.is_alive() for thread in self._threads)
            return [
                DemoStudy(
                    title=f"Study {view.id} ({'/'.join(view.modalities)})",
                    source=view.source,
                    expected=None,
                    view=view,
                    texts=self.texts,
                    is_sent=over,
                )
                for view in reversed(views)
            ]
        by_uid = {view.study_instance_uid: view for view in views}
        return [
            DemoStudy(
                title=scenario.title,
                source=scenario.source,
                expected=scenario,
                view=by_uid.get(self._uids.get(scenario.title, "")),
                texts=self.texts,
                is_sent=scenario.title in self._sent,
            )
            for scenario in SCENARIOS
        ]

    def is_done(self) -> bool:
        """Whether everything was sent and every study is over, or a scanner could not send."""
        if any(thread.is_alive() for thread in self._threads):
            return False
        if self._failures:
            return True
        return not self.daemon.store.revisions.open_series() and all(one.is_over for one in self.studies())

    def fleet_told(self, limit_s: float = 0) -> dict[str, Any]:
        """What the fleet server knows of this box, or why there is none (``left_out``).

        Args:
            limit_s: Wait so long until it has everything that the box owes it.
        """
        fleet, store = self._fleet, self.daemon.store
        if fleet is None:
            return {"left_out": "nobody asked for it"}
        last = store.journal.last_seq()

        def is_told() -> bool:
            place = store.fleet.place()
            return place.cursor >= last and not place.batches

        told = fleet.settle(is_told, limit_s)
        acked = store.fleet.place().cursor if told else 0
        return {"left_out": fleet.why or None, "device": fleet.device or None, "acked": acked, **told}

    @property
    def was_ended(self) -> bool:
        """Whether somebody asked for a restart on the settings page."""
        return self.daemon.is_restarting

    def save_pacs(self) -> None:
        """Leave the PACS's objects as files under ``pacs``; our own SCP keeps them there anyway."""
        for failure in self._failures:
            log.error("%s", failure)
        if self._orthanc is not None:
            self._orthanc.save_all(self._state / "pacs")


def demo_config(state: Path, pacs_port: int, *, fleet: bool = False) -> Config:
    """The configuration of the demo: two scanners in the path, a PACS for tests, its packages live.

    In a fleet, each result is told at once: nobody waits an hour for a demo, and its patients are made up.
    """
    return Config.model_validate(
        {
            "site": {"name": "Demonstration", "mode": "evaluation"},
            "state_path": state,
            "dicom": {"ae_title": _AE, "port": 0},
            "sources": [
                {"name": "CT-1", "ae_title": "CT-1", "mode": "inline"},
                {"name": "DX-1", "ae_title": "DX-1", "mode": "inline"},
            ],
            "destinations": [
                {
                    "kind": "dicom",
                    "name": "PACS",
                    "purpose": "test",
                    "host": "127.0.0.1",
                    "port": pacs_port,
                    "ae_title": "ORTHANC",
                    "send": ["original", "sr", "seg", "gsps", "ko", "sc"],
                }
            ],
            "packages": [{"name": name, "role": "live"} for name in _with_required(_PACKAGES)],
            "disk": {"reserve_bytes": 256 * 1024**2, "reserve_fraction": 0},
            "screen": {"port": 0},
            **({"fleet": {"detail": "study"}} if fleet else {}),
        }
    )


def _with_required(names: Sequence[str]) -> list[str]:
    """Bundled packages and those that they require, each after what it requires."""
    folders = bundled_packages()
    out: list[str] = []
    for name in names:
        required = [one.package for one in load_package(folders[name]).manifest.requires]
        out += [one for one in (*_with_required(required), name) if one not in out]
    return out
