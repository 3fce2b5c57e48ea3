"""What people do with packages: install, activate, withdraw, roll back, pick an operating point. Each is one act.

A name has two slots: the version that serves and one other (waiting, in its silent time, shadow, or the one to roll
back to). No version is live before its silent time is over, the first one too; in evaluation mode that time may be 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM, Actor, Severity
from appliance.store.database import Database, Transaction, iso
from appliance.store.ending import Owing
from appliance.store.facts import Kind
from appliance.store.facts.packages import (
    OperatingPointChanged,
    PackageActivated,
    PackageInstalled,
    PackageLive,
    PackageRolledBack,
    PackageWithdrawn,
)
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.orphans import hand_over, has_orphans, withdraw_analyses
from appliance.store.package_rows import PackageRow, PackageState, package_rows
from appliance.store.package_rules import (
    Terms,
    check_activation,
    gives_way,
    inherit_points,
    manifest_of,
    must_be_as_seen,
    pick,
    refuse_known,
    set_point,
)
from appliance.store.package_sync import PACKAGE_TEMPLATE, PACKAGE_WITHDRAWN, Choice, sync


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPackage:
    """A checked package whose folder lies in its place."""

    name: str
    version: str
    digest: str
    #: Below the folder of packages.
    folder: str
    #: Its model.yaml.
    manifest: str
    signed_by: tuple[str, ...]
    p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """How far a version's silent time is. Only studies count of which it said something."""

    days: float
    studies: int
    findings: int
    not_analysed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often a shadow version ended a study as the live one did."""

    studies: int
    same: int


class Packages:
    """Reads and acts around packages."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    # Reading ---------------------------------------------------------------------------------------------------

    def all(self, name: str = "") -> list[PackageRow]:
        """Every version that the box has known, of one package or all, oldest first."""
        return package_rows(self._db, name)

    def manifest(self, row_id: int) -> str:
        """The model.yaml of one version.

        Raises:
            NotFoundError: No such row.
        """
        row = self._db.one("SELECT manifest FROM package WHERE id = ?", (row_id,))
        if row is None:
            raise NotFoundError(f"package row {row_id} does not exist")
        return str(row["manifest"])

    def folders(self) -> set[str]:
        """The folders that belong to a version with a slot; any other is a leftover."""
        return {row.folder for row in self.all() if row.folder and row.state is not PackageState.REMOVED}

    def soak(self, row: PackageRow) -> Soak:
        """What a version did in its present silent time."""
        return self._soak(self._db, row)

    def agreement(self, row: PackageRow) -> Agreement:
        """How a shadow version fared since it began."""
        (found,) = self._db.all(
            "SELECT count(*) AS studies, coalesce(sum(json_extract(body, '$.same_outcome')), 0) AS same FROM journal"
            " WHERE kind = ? AND subject = ? AND at >= ? AND json_extract(body, '$.shadow_version') = ?",
            (str(Kind.SHADOW_AGREEMENT), row.name, iso(row.state_at), row.version),
        )
        return Agreement(studies=found["studies"], same=found["same"])

    @staticmethod
    def _soak(db: Database | Transaction, row: PackageRow) -> Soak:
        (found,) = db.all(
            "SELECT count(DISTINCT CASE WHEN outcome <> 'NOT_ANALYSED' THEN study_id END) AS studies,"
            " coalesce(sum(outcome = 'FINDING'), 0) AS findings,"
            " coalesce(sum(outcome = 'NOT_ANALYSED'), 0) AS missed FROM analysis WHERE package = ?"
            " AND package_version = ? AND role = 'silent' AND state = 'done' AND superseded_by IS NULL"
            " AND done_at >= ?",
            (row.name, row.version, iso(row.state_at)),
        )
        return Soak(
            days=_days(db, row),
            studies=found["studies"],
            findings=found["findings"],
            not_analysed=found["missed"],
        )

    # Acts ------------------------------------------------------------------------------------------------------

    def sync(self, choices: Sequence[Choice], *, clinical: bool, owed: Owing) -> None:
        """Bring the table in line with the configuration; see ``package_sync``."""
        with self._db.write() as tx:
            sync(tx, choices, clinical=clinical)
            for row in package_rows(tx):
                if row.state is PackageState.LIVE:
                    clear_issue(tx, PACKAGE_WITHDRAWN, row.name)
            hand_over(tx, self._db.stream, owed)

    def refuse_known(self, name: str, version: str, digest: str) -> None:
        """Say early that a version cannot be installed.

        Raises:
            ConflictError: It is here already, the version came with other contents, or both slots are in use.
        """
        refuse_known(self.all(name), name, version, digest)
        gives_way(self.all(name))

    def install(self, new: NewPackage, actor: Actor = SYSTEM) -> list[str]:
        """Give a new version a slot. It runs nowhere until it is activated.

        Returns:
            The folders whose versions gave way, to be deleted now.

        Raises:
            ConflictError: As ``refuse_known``.
        """
        with self._db.write() as tx:
            rows = package_rows(tx, new.name)
            refuse_known(rows, new.name, new.version, new.digest)
            leaving = gives_way(rows)
            for row in leaving:
                _move(tx, row, PackageState.REMOVED)
            tx.execute(
                "DELETE FROM package WHERE name = ? AND version = ? AND state = 'removed'", (new.name, new.version)
            )
            tx.insert(
                "package",
                name=new.name,
                version=new.version,
                digest=new.digest,
                origin="installed",
                folder=new.folder,
                manifest=new.manifest,
                state=str(PackageState.INSTALLED),
                state_at=tx.at,
                signed_by=json.dumps(list(new.signed_by)),
                p95_ms=new.p95_ms,
                installed_at=tx.at,
            )
            tx.journal(
                PackageInstalled(
                    package=new.name,
                    version=new.version,
                    digest=new.digest,
                    signed_by=new.signed_by,
                    p95_ms=new.p95_ms,
                    replaced=tuple(row.version for row in leaving),
                ),
                subject=new.name,
                actor=actor,
            )
        return [row.folder for row in leaving if row.folder]

    def activate(
        self,
        name: str,
        terms: Terms,
        *,
        version: str = "",
        clinical: bool,
        owed: Owing,
        actor: Actor,
        why: str = "",
        seen: str = "",
    ) -> PackageRow:
        """Let a version begin its silent time, or run as shadow beside the one that serves.

        Args:
            name: The package.
            terms: How long it is silent before it is live; nothing at all in evaluation mode makes it live at once.
            version: Which; empty: the one that waits.
            clinical: ``site.mode`` is clinical.
            owed: For analyses that another version took over.
            actor: Who.
            why: What they said, without patient data.
            seen: ``PackageRow.seen`` as they saw it; empty: whatever stands there.

        Returns:
            The version as it stands now.

        Raises:
            NotFoundError: No such version here.
            ConflictError: It may not run here, its name's slots do not allow it, or somebody was faster.
        """
        with self._db.write() as tx:
            rows = package_rows(tx, name)
            waiting = (PackageState.INSTALLED, PackageState.WITHDRAWN, PackageState.SILENT, PackageState.SHADOW)
            row = pick(rows, name, version, waiting)
            must_be_as_seen(row, seen)
            running = {one.name for one in package_rows(tx) if one.runs}
            check_activation(row, rows, manifest_of(tx, row), terms, running, clinical=clinical)
            serving = next((one for one in rows if one.state is PackageState.LIVE), None)
            points = inherit_points(tx, serving, row)
            state = PackageState.SHADOW if terms.shadow else PackageState.SILENT
            tx.execute(
                "UPDATE package SET state = ?, state_at = ?, was = '', why = ?, live_after_days = ?,"
                " live_after_studies = ? WHERE id = ?",
                (str(state), tx.at, why, *terms.until, row.id),
            )
            tx.journal(
                PackageActivated(
                    package=name,
                    version=row.version,
                    state=str(state),
                    days=terms.until[0],
                    studies=terms.until[1],
                    operating_points=points,
                    why=why,
                ),
                subject=name,
                actor=actor,
            )
            if terms.is_at_once:
                _go_live(tx, row, Soak(days=0.0, studies=0, findings=0, not_analysed=0), actor)
            clear_issue(tx, PACKAGE_TEMPLATE, name)
            hand_over(tx, self._db.stream, owed)
            return next(one for one in package_rows(tx, name) if one.id == row.id)

    def promote_due(self, owed: Owing) -> list[PackageRow]:
        """Let every version serve whose silent time is over. Returns those that do now."""
        due = [row for row in self.all() if self._is_due(self._db, row)]
        if due:
            with self._db.write() as tx:
                due = [row for row in package_rows(tx) if self._is_due(tx, row)]
                for row in due:
                    _go_live(tx, row, self._soak(tx, row), SYSTEM)
                hand_over(tx, self._db.stream, owed)
        return due

    def _is_due(self, db: Database | Transaction, row: PackageRow) -> bool:
        if row.state is not PackageState.SILENT or row.live_after_days is None or row.live_after_studies is None:
            return False
        # Days first: studies are counted by a look at all of its analyses.
        return _days(db, row) >= row.live_after_days and self._soak(db, row).studies >= row.live_after_studies

    def withdraw(
        self, name: str, why: str, *, version: str = "", owed: Owing, actor: Actor, seen: str = ""
    ) -> tuple[PackageRow, int]:
        """Take a version out of service at once.

        What it has in hand ends NOT_ANALYSED(withdrawn); so does, until a version of the package is live again, every
        study that it claims.

        Returns:
            The version as it was, and how many analyses were open.

        Raises:
            NotFoundError: No such version here.
            ConflictError: It was withdrawn before, no reason is given, or it is not as ``seen`` any more.
        """
        if not why.strip():
            raise ConflictError(f"withdrawing {name} needs a reason; give one with --why")
        with self._db.write() as tx:
            row = pick(package_rows(tx, name), name, version, (PackageState.LIVE,), RUNNING_OR_WAITING)
            if row.state is PackageState.WITHDRAWN:
                raise ConflictError(
                    f"{name} {row.version} is withdrawn already; 'scanside model show {name}' tells why"
                )
            must_be_as_seen(row, seen)
            _move(tx, row, PackageState.WITHDRAWN, why)
            tx.execute("UPDATE package SET was = ? WHERE id = ?", (str(row.state), row.id))
            count = withdraw_analyses(tx, self._db.stream, owed, name, row.version)
            tx.journal(
                PackageWithdrawn(package=name, version=row.version, was=str(row.state), why=why, analyses=count),
                subject=name,
                actor=actor,
            )
            if row.state is PackageState.LIVE:
                raise_issue(tx, PACKAGE_WITHDRAWN, name, Severity.FAULT, {"version": row.version})
            return row, count

    def roll_back(self, name: str, why: str, *, owed: Owing, actor: Actor, seen: str = "") -> tuple[str, str]:
        """Let the previous version serve again, at once: it has been live here before.

        Returns:
            The version that served until now, and the one that serves from now on.

        Raises:
            NotFoundError: No such package here.
            ConflictError: There is no previous version, no reason is given, or what serves is not as ``seen`` any more.
        """
        if not why.strip():
            raise ConflictError(f"rolling {name} back needs a reason; give one with --why")
        with self._db.write() as tx:
            rows = package_rows(tx, name)
            pick(rows, name, "", ())
            serving = next((row for row in rows if row.state is PackageState.LIVE or row.is_missed), None)
            previous = [row for row in rows if row.state is PackageState.RETIRED]
            if serving is None or not previous:
                raise ConflictError(
                    f"{name} has no previous version to go back to; 'scanside model withdraw {name}' stops it"
                )
            must_be_as_seen(serving, seen)
            target = max(previous, key=lambda row: row.state_at)
            if serving.state is PackageState.LIVE:
                _move(tx, serving, PackageState.RETIRED, why)
            _move(tx, target, PackageState.LIVE, why)
            clear_issue(tx, PACKAGE_WITHDRAWN, name)
            tx.journal(
                PackageRolledBack(package=name, from_version=serving.version, version=target.version, why=why),
                subject=name,
                actor=actor,
            )
            hand_over(tx, self._db.stream, owed)
            return serving.version, target.version

    def choose_point(
        self,
        name: str,
        finding: str,
        point: str,
        reason: str,
        *,
        version: str = "",
        clinical: bool,
        actor: Actor,
        seen: str = "",
    ) -> str:
        """Pick another operating point of the package's closed list; later analyses use it. ``seen``: the one before.

        Returns:
            The point that was used until now.

        Raises:
            NotFoundError: The package, the finding or the point does not exist.
            ConflictError: The site is clinical, no reason is given, or another point than ``seen`` is used by now.
        """
        if not reason.strip():
            raise ConflictError("an operating point is changed for a reason; give one with --reason")
        if clinical:
            raise ConflictError(
                "in clinical mode a second person must agree to another operating point, and this version of the box "
                "has no accounts to know two people apart; it stays as it is"
            )
        with self._db.write() as tx:
            row = pick(package_rows(tx, name), name, version, (PackageState.LIVE,), RUNNING_OR_WAITING)
            before = set_point(tx, row, finding, point, reason, actor.name or str(actor.kind))
            if seen not in {"", before}:
                raise ConflictError(f"somebody else has chosen {before} since you looked; nothing was done, look again")
            tx.journal(
                OperatingPointChanged(
                    package=name, version=row.version, finding=finding, before=before, point=point, reason=reason
                ),
                subject=name,
                actor=actor,
            )
            return before

    def tidy(self, owed: Owing) -> int:
        """Hand over what still waits for a version that no longer runs. Returns how many analyses waited."""
        if not has_orphans(self._db):
            return 0
        with self._db.write() as tx:
            return hand_over(tx, self._db.stream, owed)


#: What an act without a version may mean, in this order.
RUNNING_OR_WAITING = (
    PackageState.SILENT,
    PackageState.SHADOW,
    PackageState.INSTALLED,
    PackageState.RETIRED,
    PackageState.WITHDRAWN,
)


def _days(db: Database | Transaction, row: PackageRow) -> float:
    """How long a version has been in its state."""
    now = db.now if isinstance(db, Transaction) else db.clock.now()
    return (now - row.state_at) / timedelta(days=1)


def _move(tx: Transaction, row: PackageRow, state: PackageState, why: str = "") -> None:
    tx.execute(
        "UPDATE package SET state = ?, state_at = ?, why = ? WHERE id = ?", (str(state), tx.at, why or row.why, row.id)
    )


def _go_live(tx: Transaction, row: PackageRow, soak: Soak, actor: Actor) -> None:
    previous = ""
    for other in package_rows(tx, row.name):
        if other.state is PackageState.LIVE and other.id != row.id:
            _move(tx, other, PackageState.RETIRED)
            previous = other.version
    _move(tx, row, PackageState.LIVE)
    clear_issue(tx, PACKAGE_WITHDRAWN, row.name)
    tx.journal(
        PackageLive(
            package=row.name, version=row.version, previous=previous, days=round(soak.days, 3), studies=soak.studies
        ),
        subject=row.name,
        actor=actor,
    )
