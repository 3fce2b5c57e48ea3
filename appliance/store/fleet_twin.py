"""The desired document of the fleet: applied whole, in one transaction, or refused whole with codes. Never half.

What it may change of packages is little: an operating point of the version's own closed list, and whether a version
that is silent may serve. Everything that brings a version in, or takes one out, is a job with two signatures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, ActorKind
from appliance.store.database import Database, Transaction
from appliance.store.ending import Owing
from appliance.store.facts.fleet import FleetTwin
from appliance.store.facts.packages import OperatingPointChanged, PackageActivated, PackageConfigured
from appliance.store.fleet import put_state, state_of
from appliance.store.orphans import hand_over
from appliance.store.package_rows import PackageRow, PackageState, package_rows
from appliance.store.package_rules import Terms, manifest_of, pick, set_point
from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.manifest import Manifest

FLEET = Actor(kind=ActorKind.FLEET, name="twin", role="twin")
_REASON = "as the fleet desires"
_MARKS = ("twin_rv", "twin_applied", "twin_refused", "twin_errors", "twin_document")
_THEN = (PackageState.SILENT, PackageState.SHADOW, PackageState.INSTALLED, PackageState.RETIRED, PackageState.WITHDRAWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a package should be. ``role``: silent, live, or None where it may be what it is."""

    name: str
    role: str | None
    points: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinRules:
    """What this box lets a desired document do.

    Attributes:
        clinical: ``site.mode`` is clinical: operating points stay, and what serves goes on serving.
        asks_site: The site has a say in changes of models: no document makes one.
        held: The document itself says that nothing new is activated.
        owed: For analyses that another version took over.
    """

    clinical: bool
    asks_site: bool
    held: bool
    owed: Owing


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinState:
    """Where the desired document stands.

    Attributes:
        rv: Counts the answers.
        applied: Version of the document that holds; 0: none yet.
        refused: A newer one that was refused; 0: none.
        errors: Why.
        document: The one that holds, as JSON; empty: none yet.
    """

    rv: int = 0
    applied: int = 0
    refused: int = 0
    errors: tuple[str, ...] = ()
    document: str = ""

    @property
    def dv(self) -> int:
        """The newest document that was answered."""
        return max(self.applied, self.refused)


def twin_state(db: Database | Transaction) -> TwinState:
    """As it stands."""
    marks = ", ".join("?" * len(_MARKS))
    rows = db.all(f"SELECT name, value FROM fleet_state WHERE name IN ({marks})", _MARKS)  # noqa: S608 - marks only
    found = {row["name"]: row["value"] for row in rows}
    return TwinState(
        rv=int(found.get("twin_rv", "0")),
        applied=int(found.get("twin_applied", "0")),
        refused=int(found.get("twin_refused", "0")),
        errors=tuple(json.loads(found.get("twin_errors", "[]"))),
        document=found.get("twin_document", ""),
    )


def apply_twin(db: Database, dv: int, document: str, wishes: Sequence[Wish], rules: TwinRules) -> TwinState | None:
    """Apply a desired document, or refuse it.

    Args:
        db: The box's.
        dv: Its version.
        document: As it will hold, JSON.
        wishes: What it says of packages.
        rules: What this box lets it do.

    Returns:
        Where it stands now; None where a document of this version or a newer one was answered before.
    """
    with db.write() as tx:
        before = twin_state(tx)
        if dv <= before.dv:
            return None
        codes: list[str] = []
        deeds: list[Callable[[], None]] = []
        if len({wish.name for wish in wishes}) != len(wishes):
            codes.append("PACKAGE_TWICE")
        for wish in wishes:
            _plan(tx, wish, rules, deeds, codes)
        if deeds and rules.asks_site:
            codes.append("NEEDS_SITE")
        told = tuple(dict.fromkeys(codes))
        put_state(tx, "twin_rv", str(before.rv + 1))
        put_state(tx, "twin_errors", json.dumps(told))
        if told:
            put_state(tx, "twin_refused", str(dv))
        else:
            for deed in deeds:
                deed()
            if deeds:
                hand_over(tx, db.stream, rules.owed)
            put_state(tx, "twin_applied", str(dv))
            put_state(tx, "twin_refused", "0")
            put_state(tx, "twin_document", document)
        tx.journal(FleetTwin(dv=dv, applied=not told, errors=told), actor=FLEET)
        return twin_state(tx)


def fresh_nonce(db: Database, new: str) -> str:
    """The nonce that a signed job names where the box cannot tell the time; ``new`` where there was no session yet."""
    with db.write() as tx:
        known = state_of(tx, "nonce")
        if not known:
            put_state(tx, "nonce", new)
        return known or new


def _plan(tx: Transaction, wish: Wish, rules: TwinRules, deeds: list[Callable[[], None]], codes: list[str]) -> None:
    """What is to be done for a wish; or why it cannot be."""
    try:
        row = pick(package_rows(tx, wish.name), wish.name, "", (PackageState.LIVE,), _THEN)
    except (NotFoundError, ConflictError):
        codes.append("PACKAGE_UNKNOWN")
        return
    try:
        manifest = manifest_of(tx, row)
    except EngineError:
        codes.append("PACKAGE_BROKEN")
        return
    for finding, point in wish.points.items():
        _plan_point(tx, row, manifest, (finding, point), rules, deeds, codes)
    if wish.role == "live":
        _plan_live(tx, row, rules, deeds, codes)
    elif wish.role == "silent":
        _plan_silent(tx, row, rules, deeds, codes)


def _plan_point(
    tx: Transaction,
    row: PackageRow,
    manifest: Manifest,
    wanted: tuple[str, str],
    rules: TwinRules,
    deeds: list[Callable[[], None]],
    codes: list[str],
) -> None:
    finding, point = wanted
    offered = {one.id: one for one in manifest.findings}
    if finding not in offered or point not in {one.name for one in offered[finding].operating_points}:
        codes.append("POINT_UNKNOWN")
        return
    if point == (row.operating_points.get(finding) or offered[finding].default_point.name):
        return
    if rules.clinical:
        codes.append("POINT_CLINICAL")  # a second person must agree; see Packages.choose_point
        return

    def deed() -> None:
        before = set_point(tx, row, finding, point, _REASON, FLEET.name)
        tx.journal(
            OperatingPointChanged(
                package=row.name, version=row.version, finding=finding, before=before, point=point, reason=_REASON
            ),
            subject=row.name,
            actor=FLEET,
        )

    deeds.append(deed)


def _plan_live(
    tx: Transaction, row: PackageRow, rules: TwinRules, deeds: list[Callable[[], None]], codes: list[str]
) -> None:
    if row.state is PackageState.LIVE or (row.state is PackageState.SILENT and row.live_after_days is not None):
        return  # it serves, or will when its silent time is over
    if row.state is not PackageState.SILENT:
        codes.append("ROLE_NEEDS_JOB")
    elif rules.held:
        codes.append("HELD")
    else:
        due = Terms() if rules.clinical else Terms(days=0, studies=0)
        deeds.append(lambda: _let_serve(tx, row, due))


def _let_serve(tx: Transaction, row: PackageRow, due: Terms) -> None:
    """Its silent time ends after so long; the box makes it live then (``Packages.promote_due``)."""
    tx.execute(
        "UPDATE package SET live_after_days = ?, live_after_studies = ? WHERE id = ?", (due.days, due.studies, row.id)
    )
    tx.journal(
        PackageActivated(
            package=row.name, version=row.version, state=str(row.state), days=due.days, studies=due.studies, why=_REASON
        ),
        subject=row.name,
        actor=FLEET,
    )


def _plan_silent(
    tx: Transaction, row: PackageRow, rules: TwinRules, deeds: list[Callable[[], None]], codes: list[str]
) -> None:
    if row.state is PackageState.SILENT and row.live_after_days is None:
        return
    if row.state not in (PackageState.SILENT, PackageState.LIVE):
        codes.append("ROLE_NEEDS_JOB")
    elif row.state is PackageState.LIVE and rules.clinical:
        codes.append("ROLE_CLINICAL")  # what serves patients is taken out by a job with two signatures, loudly
    else:
        deeds.append(lambda: _silence(tx, row))


def _silence(tx: Transaction, row: PackageRow) -> None:
    at = "" if row.state is PackageState.SILENT else ", state_at = :at"
    tx.execute(
        "UPDATE package SET state = 'silent', live_after_days = NULL, live_after_studies = NULL"  # noqa: S608 - our own
        f"{at} WHERE id = :id",
        {"at": tx.at, "id": row.id},
    )
    tx.journal(
        PackageConfigured(package=row.name, version=row.version, digest=row.digest, state="silent"),
        subject=row.name,
        actor=FLEET,
    )
