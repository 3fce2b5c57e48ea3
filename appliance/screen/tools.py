"""What pages do with the rest of the box: the screens know the store alone, so the daemon hands them this."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from appliance.config import Destination
from appliance.errors import ApplianceError
from appliance.records import Actor, AnalysisResult
from appliance.settings import Settings
from appliance.store.ending import OwedResult
from appliance.store.packages import NewPackage


class Unavailable(ApplianceError):  # noqa: N818 - what a page reports, not a fault of it
    """Nothing but the store stands behind these pages."""


class Refused(ApplianceError):  # noqa: N818 - an answer, like RejectedInstance
    """A package was not installed; a line for each fault."""

    def __init__(self, message: str, *, is_signed: bool) -> None:
        """Tell why; ``is_signed``: a maker whom this box trusts has signed it, so that was not why."""
        super().__init__(message)
        self.is_signed = is_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How a destination answered; ``words`` are in English, as from its peer."""

    ok: bool
    ms: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What one version of a package runs on.

    Attributes:
        package: Its name.
        version: Its version.
        wanted: Backend and precision that its engine should have; empty: ONNX Runtime runs the package's own graph.
        state: none (needs none) | missing | building | verifying | ready | rejected.
        digest: Of the engine.
        built_at: As the engine's own record says, UTC.
        why: Of a rejected one.
    """

    package: str
    version: str
    wanted: str
    state: str
    digest: str = ""
    built_at: str = ""
    why: str = ""

    @property
    def may_serve(self) -> bool:
        """Whether the package may be put live: its engine is proven, or it needs none."""
        return self.state in {"none", "ready"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestState:
    """How far the simulated study is.

    Attributes:
        state: idle | making | sending | waiting | done | failed.
        run: Names it.
        sent: Images that were taken.
        images: How many it has.
        study_id: Of the store, once it is there.
        outcome: Of the study.
        reason: Of an outcome NOT_ANALYSED.
        alerted: Whether an alert was raised.
        result_s: From the last image's answer to the study's outcome.
        owed: Objects owed to destinations for it.
        delivered: How many of them were taken.
        words: Why it failed.
    """

    __test__ = False

    state: str = "idle"
    run: str = ""
    sent: int = 0
    images: int = 0
    study_id: int | None = None
    outcome: str = ""
    reason: str = ""
    alerted: bool = False
    result_s: float | None = None
    owed: int = 0
    delivered: int = 0
    words: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.state in {"done", "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJob:
    """What the service team asked of this box, and where it stands.

    Attributes:
        number: Its counter, as people read it.
        op: What is to be done, as ``model.install``.
        package: That it is about; empty: none.
        version: Of that package.
        digest: Of that version.
        role: In which it is to run; empty: live.
        state: As ``fleet.wire_jobs.JobState``.
        code: Why.
        asked_by: Numbers of accounts at the server: who asked, then who approved there.
        received_at: When it came.
        state_at: Since when it stands so.
        expires_at: After which it is not begun.
        approved_by: Who of the site said yes.
    """

    number: int
    op: str
    package: str
    version: str
    digest: str
    role: str
    state: str
    code: str
    asked_by: tuple[int, ...]
    received_at: datetime
    state_at: datetime
    expires_at: datetime | None
    approved_by: str

    @property
    def waits(self) -> bool:
        """Whether a person of the site is to decide."""
        return self.state == "WAIT_APPROVAL" and not self.approved_by


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLink:
    """How the box stands to its fleet server.

    Attributes:
        is_enrolled: Whether it has an identity that holds together.
        device: Its name in the fleet.
        tenant: Whose it is there.
        server: Where it enrolled.
        connected_at: Since when the line stands; None: it does not.
        told_at: When the server last said that it has rows.
        waiting: Rows that it has not got.
        ends_at: Of the certificate.
        is_on_trial: Whether no broker has taken that certificate yet.
    """

    is_enrolled: bool = False
    device: str = ""
    tenant: str = ""
    server: str = ""
    connected_at: datetime | None = None
    told_at: datetime | None = None
    waiting: int = 0
    ends_at: datetime | None = None
    is_on_trial: bool = False


class Tools(Protocol):
    """The daemon's side."""

    @property
    def settings(self) -> Settings | None:
        """The site's settings; None where the box was not started from files."""

    @property
    def restarts(self) -> str:
        """Who starts the box again when it ends: systemd, hand, or empty where it cannot be ended from here."""

    @property
    def ports(self) -> tuple[int, int]:
        """Where it listens: DICOM, screens."""

    def restart(self) -> None:
        """End the box so that it is started again."""

    def probe(self, destination: Destination) -> Probe:
        """Ask a destination whether it would take what it is to get; may take its whole timeout."""

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        """What destinations are owed for a result (``store.ending.Owing``)."""

    def install(self, source: Path, actor: Actor) -> NewPackage:
        """Install a package as ``scanside model install``; may take minutes.

        Raises:
            Refused: It is not signed by whom this box trusts, altered, wrong or too slow.
            ConflictError: It is here already, its slots are in use, or another one is being installed.
        """

    def engines(self) -> list[EngineState]:
        """What every version runs on that runs or waits."""

    def doctor(self) -> dict[str, Any]:
        """What ``scanside doctor --json`` says; may take a minute."""

    def fleet_link(self) -> FleetLink:
        """How the box stands to its fleet server."""

    def fleet_jobs(self) -> list[FleetJob]:
        """The newest jobs of the fleet first, and every one that waits for a person here."""

    def begin_test(self) -> str:
        """Send a simulated study to our own receiver; returns the run's name. One at a time."""

    @property
    def test(self) -> TestState:
        """How far it is."""


class NoTools:
    """Pages over a store alone."""

    settings: Settings | None = None
    restarts = ""
    ports = (0, 0)
    test = TestState()

    def restart(self) -> None:
        """Nothing to restart."""
        raise Unavailable("no box runs behind these pages")

    def probe(self, destination: Destination) -> Probe:
        """Nobody to ask."""
        raise Unavailable(f"no box runs behind these pages that could ask {destination.name}")

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return ()

    def install(self, source: Path, actor: Actor) -> NewPackage:  # noqa: ARG002 - the protocol's
        """Nowhere to."""
        raise Unavailable("no box runs behind these pages that could run a package")

    def engines(self) -> list[EngineState]:
        """None."""
        return []

    def doctor(self) -> dict[str, Any]:
        """Nothing to examine."""
        return {}

    def fleet_link(self) -> FleetLink:
        """In none."""
        return FleetLink()

    def fleet_jobs(self) -> list[FleetJob]:
        """None."""
        return []

    def begin_test(self) -> str:
        """Nobody receives."""
        raise Unavailable("no box runs behind these pages that could receive a test study")
