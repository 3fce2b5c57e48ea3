"""The gate: which rows of the journal leave this box, and what of them. Whatever has no entry here stays.

Each entry reads the row as the body that its kind has and makes a model of ``wire_records`` of it, from codes, numbers
and names of packages alone. What does not fit its model raises ValueError, and stays too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from appliance.fleet.wire_records import (
    Access,
    Anchor,
    Clk,
    DaemonChange,
    EngineChange,
    Equipment,
    Gap,
    HealthRollup,
    IssueChange,
    JobChange,
    PackageChange,
    Record,
    ResultsHour,
    StudyResult,
    Told,
)
from appliance.store.database import from_iso
from appliance.store.facts import Kind
from appliance.store.facts import box as box_facts
from appliance.store.facts import packages as package_facts
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.fleet import FleetJobStep, FleetTold
from appliance.store.facts.packages import EngineBuilding
from appliance.store.journal import Fact

#: What the link itself draws together; nothing else may be told by its rows.
_DRAWN = (ResultsHour, HealthRollup, Gap, Access, Anchor, Equipment)
_TOLD: TypeAdapter[Any] = TypeAdapter(Told)
#: Of a package that came with this software: what its configured state is in the words of an act.
_CONFIGURED = {"live": "live", "silent": "activated", "shadow": "activated", "installed": "installed"}


@dataclass(frozen=True, slots=True)
class Terms:
    """What the gate is told from outside.

    Attributes:
        key: Secret of this box under which the subjects of issues are hidden.
        clk: How far the wall clock is to be trusted now.
        boot: Id of this boot.
        detail: ``study`` where the contract of the site lets single results leave.
        flagged: Ids of the findings that an analysis flagged; None: of it nothing is told.
    """

    key: bytes
    clk: Clk
    boot: str
    detail: Literal["hourly", "study"] = "hourly"
    flagged: Callable[[int], tuple[str, ...] | None] = lambda _: None


def record(fact: Fact, terms: Terms) -> Record | None:
    """A row as the server sees it; None: it stays on this box.

    Raises:
        ValueError: It should leave and does not fit; the text may hold what it refuses and is nobody's to read.
    """
    make = LEAVES.get(fact.kind)
    if make is None or (fact.kind in STUDY_ONLY and terms.detail != "study"):
        return None
    told = make(fact, terms)
    if told is None:
        return None
    return Record(
        seq=fact.seq,
        ts=int(from_iso(fact.at).timestamp() * 1000),
        boot=fact.boot if all(sign in "0123456789abcdef-" for sign in fact.boot) else "",
        mono=fact.mono_ms,
        # Nobody noted how well the clock of an earlier run was kept.
        clk=terms.clk if fact.boot == terms.boot or terms.clk == "none" else "rtc",
        d=told,
    )


def ref_of(key: bytes, code: str, subject: str) -> str:
    """Tells two issues of a box apart, and nobody what they are about: a subject may be a source or a file."""
    return hmac.new(key, f"{code}\0{subject}".encode(), hashlib.sha256).hexdigest()[:8]


def _issue(fact: Fact, terms: Terms, code: str, state: str, severity: str | None = None) -> IssueChange:
    return IssueChange.model_validate(
        {"code": code, "state": state, "severity": severity, "ref": ref_of(terms.key, code, fact.subject)}
    )


def _issue_raised(fact: Fact, terms: Terms) -> IssueChange:
    body = box_facts.IssueRaised.model_validate(fact.body)
    return _issue(fact, terms, body.code, "raised", body.severity)


def _issue_cleared(fact: Fact, terms: Terms) -> IssueChange:
    return _issue(fact, terms, box_facts.IssueCleared.model_validate(fact.body).code, "cleared")


def _issue_acknowledged(fact: Fact, terms: Terms) -> IssueChange:
    return _issue(fact, terms, box_facts.IssueAcknowledged.model_validate(fact.body).code, "acknowledged")


def _issue_shelved(fact: Fact, terms: Terms) -> IssueChange:
    return _issue(fact, terms, box_facts.IssueShelved.model_validate(fact.body).code, "shelved")


def _started(fact: Fact, _: Terms) -> DaemonChange:
    body = box_facts.DaemonStarted.model_validate(fact.body)
    return DaemonChange.model_validate({"state": "started", "version": body.version, "mode": body.mode})


def _stopped(_: Fact, __: Terms) -> DaemonChange:
    return DaemonChange(state="stopped")


def _package(name: str, version: str, state: str, digest: str = "") -> PackageChange:
    return PackageChange.model_validate({"package": name, "version": version, "state": state, "digest": digest or None})


def _configured(fact: Fact, _: Terms) -> PackageChange | None:
    body = package_facts.PackageConfigured.model_validate(fact.body)
    state = _CONFIGURED.get(body.state)
    return _package(body.package, body.version, state, body.digest) if state else None


def _installed(fact: Fact, _: Terms) -> PackageChange:
    body = package_facts.PackageInstalled.model_validate(fact.body)
    return _package(body.package, body.version, "installed", body.digest)


def _activated(fact: Fact, _: Terms) -> PackageChange:
    body = package_facts.PackageActivated.model_validate(fact.body)
    return _package(body.package, body.version, "activated")


def _live(fact: Fact, _: Terms) -> PackageChange:
    body = package_facts.PackageLive.model_validate(fact.body)
    return _package(body.package, body.version, "live")


def _withdrawn(fact: Fact, _: Terms) -> PackageChange:
    body = package_facts.PackageWithdrawn.model_validate(fact.body)
    return _package(body.package, body.version, "withdrawn")


def _rolled_back(fact: Fact, _: Terms) -> PackageChange:
    body = package_facts.PackageRolledBack.model_validate(fact.body)
    # Of the version that gave way; health names the one that serves.
    return _package(body.package, body.from_version, "rolled_back")


def _engine(package: str, state: str, backend: str = "", precision: str = "", ms: float | None = None) -> EngineChange:
    return EngineChange.model_validate(
        {
            "package": package,
            "state": state,
            "backend": backend or None,
            "precision": precision or None,
            "build_ms": ms,
        }
    )


def _engine_building(fact: Fact, _: Terms) -> EngineChange | None:
    body = EngineBuilding.model_validate(fact.body)
    # Its begin and its steps, not each tenth of one.
    return None if body.share else _engine(body.package, "building", body.flavour, body.precision)


def _engine_ready(fact: Fact, _: Terms) -> EngineChange:
    body = package_facts.EngineReady.model_validate(fact.body)
    return _engine(body.package, "ready", body.flavour, body.precision, body.ms)


def _engine_rejected(fact: Fact, _: Terms) -> EngineChange:
    body = package_facts.EngineRejected.model_validate(fact.body)
    return _engine(body.package, "rejected", body.flavour, body.precision)


def _engine_serves(fact: Fact, _: Terms) -> EngineChange:
    body = package_facts.EngineServes.model_validate(fact.body)
    return _engine(body.package, "serves", body.backend, body.precision)


def _engine_fallback(fact: Fact, _: Terms) -> EngineChange:
    body = package_facts.EngineFallback.model_validate(fact.body)
    return _engine(body.package, "fallback", body.backend, body.precision)


def _engine_checked(fact: Fact, _: Terms) -> EngineChange:
    body = package_facts.EngineChecked.model_validate(fact.body)
    return _engine(body.package, "checked" if body.ok else "rejected")


def _job(fact: Fact, _: Terms) -> JobChange:
    body = FleetJobStep.model_validate(fact.body)
    said = body.model_dump(include={"job", "ctr", "state", "version", "percent", "figures"})
    return JobChange.model_validate({**said, "code": body.code or None})


def _told(fact: Fact, _: Terms) -> Any:
    told = _TOLD.validate_python(FleetTold.model_validate(fact.body).record)
    if not isinstance(told, _DRAWN):
        raise ValueError("a row of the link tells what is not the link's to tell")  # noqa: TRY004 - what a row holds
    return told


def _study(fact: Fact, terms: Terms) -> StudyResult | None:
    body = AnalysisDone.model_validate(fact.body)
    flagged = terms.flagged(body.analysis)
    if flagged is None:
        return None
    return StudyResult.model_validate(
        {
            "package": body.package,
            "version": body.version,
            "role": body.role,
            "outcome": body.outcome.lower(),
            "reason": body.reason,
            "flagged": flagged,
            "ms": body.hops_ms.get("total"),
        }
    )


#: Each kind of row that leaves, and how.
LEAVES: dict[Kind, Callable[[Fact, Terms], Any]] = {
    Kind.ISSUE_RAISED: _issue_raised,
    Kind.ISSUE_CLEARED: _issue_cleared,
    Kind.ISSUE_ACKNOWLEDGED: _issue_acknowledged,
    Kind.ISSUE_SHELVED: _issue_shelved,
    Kind.DAEMON_STARTED: _started,
    Kind.DAEMON_STOPPED: _stopped,
    Kind.PACKAGE_CONFIGURED: _configured,
    Kind.PACKAGE_INSTALLED: _installed,
    Kind.PACKAGE_ACTIVATED: _activated,
    Kind.PACKAGE_LIVE: _live,
    Kind.PACKAGE_WITHDRAWN: _withdrawn,
    Kind.PACKAGE_ROLLED_BACK: _rolled_back,
    Kind.ENGINE_BUILDING: _engine_building,
    Kind.ENGINE_READY: _engine_ready,
    Kind.ENGINE_REJECTED: _engine_rejected,
    Kind.ENGINE_SERVES: _engine_serves,
    Kind.ENGINE_FALLBACK: _engine_fallback,
    Kind.ENGINE_CHECKED: _engine_checked,
    Kind.FLEET_JOB_STEP: _job,
    Kind.FLEET_TOLD: _told,
    Kind.ANALYSIS_DONE: _study,
}
#: Of these one row is one study: they leave only where the contract of the site says so.
STUDY_ONLY = frozenset({Kind.ANALYSIS_DONE})


def kinds_that_leave(detail: str) -> frozenset[Kind]:
    """The kinds of rows of which some may leave."""
    return frozenset(LEAVES) if detail == "study" else frozenset(LEAVES) - STUDY_ONLY
