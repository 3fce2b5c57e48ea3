"""The configuration's choice of packages that came with this software, brought into the table at every start.

* The configuration says how a version begins and, when it changes, what it is from then on. What a person did since
  with ``scanside model`` stays; above all a withdrawal does, until it is activated again.
* A software update that brings another version takes the old one's files away: the new one takes its place.
* A template never runs: an issue says so for as long as the file names it and no other version serves.
* In clinical mode nothing is live that was not silent before, and no operating point changes by editing a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.errors import ConfigError
from appliance.records import Role, Severity
from appliance.store.database import Transaction
from appliance.store.facts.packages import PackageConfigured
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.package_rows import PackageRow, PackageState, package_rows
from appliance.store.package_rules import inherit_points, set_point

_BY = "configuration"
#: Nothing serves where something did: what it claims ends NOT_ANALYSED until a version is live again.
PACKAGE_WITHDRAWN = "PACKAGE_WITHDRAWN"
#: The configuration names a package that is there to be copied.
PACKAGE_TEMPLATE = "PACKAGE_TEMPLATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One entry of ``packages`` in the configuration, with the version that came with this software."""

    name: str
    version: str
    digest: str
    manifest: str
    role: Role
    operating_points: Mapping[str, str]
    #: Why a template must not run; empty: it may.
    template: str = ""

    @property
    def state(self) -> PackageState:
        """Where its version begins, as far as the configuration decides."""
        return PackageState.INSTALLED if self.template else PackageState(str(self.role))

    def as_json(self) -> str:
        """As it is kept, to see a change."""
        return json.dumps({"role": str(self.role), "operating_points": dict(self.operating_points)}, sort_keys=True)


def sync(tx: Transaction, choices: Sequence[Choice], *, clinical: bool) -> None:
    """Insert, update and let go what came with this software.

    Raises:
        ConfigError: The file changes an operating point in clinical mode.
    """
    for choice in choices:
        rows = package_rows(tx, choice.name)
        known = next((r for r in rows if (r.version, r.digest) == (choice.version, choice.digest)), None)
        if known is None:
            _begin(tx, choice, rows)
        elif known.origin == "config":
            _change(tx, choice, known, rows, clinical=clinical)
    _tell_templates(tx, choices)
    names = {choice.name for choice in choices}
    for row in package_rows(tx):
        if row.origin == "config" and row.chosen and row.name not in names:
            state = row.state if row.state is PackageState.WITHDRAWN else PackageState.REMOVED
            tx.execute("UPDATE package SET chosen = 0, choice = '' WHERE id = ?", (row.id,))
            _place(tx, row, state)
            clear_issue(tx, PACKAGE_WITHDRAWN, row.name)
        elif clinical and row.state is PackageState.LIVE and not row.live_after_days:
            _place(tx, row, PackageState.SILENT)


def _tell_templates(tx: Transaction, choices: Sequence[Choice]) -> None:
    """One issue for each template that the file names, unless a version that may run does; none for others."""
    refused = {one.name: one for one in choices if one.template}
    for row in tx.all("SELECT subject FROM issue WHERE code = ? AND cleared_at IS NULL", (PACKAGE_TEMPLATE,)):
        if row["subject"] not in refused:
            clear_issue(tx, PACKAGE_TEMPLATE, row["subject"])
    for name, one in refused.items():
        if any(row.runs for row in package_rows(tx, name)):
            clear_issue(tx, PACKAGE_TEMPLATE, name)
        else:
            raise_issue(tx, PACKAGE_TEMPLATE, name, Severity.WARNING, {"version": one.version, "why": one.template})


def _begin(tx: Transaction, choice: Choice, rows: Sequence[PackageRow]) -> None:
    """A version that the box has not known."""
    gone = [row for row in rows if row.origin == "config" and row.state is not PackageState.REMOVED]
    serving = next((row for row in rows if row.origin == "installed" and row.runs), None)
    withdrawn = next((row for row in gone if row.state is PackageState.WITHDRAWN), None)
    state = choice.state
    if withdrawn is not None:
        state = PackageState.WITHDRAWN
    elif serving is not None:
        state = PackageState.INSTALLED
    for row in gone:
        _place(tx, row, PackageState.REMOVED)
    tx.insert(
        "package",
        name=choice.name,
        version=choice.version,
        digest=choice.digest,
        origin="config",
        manifest=choice.manifest,
        state=str(state),
        state_at=tx.at,
        was=withdrawn.was if withdrawn else "",
        why=withdrawn.why if withdrawn else choice.template,
        choice=choice.as_json(),
        installed_at=tx.at,
    )
    new = package_rows(tx, choice.name)[-1]
    for finding, point in choice.operating_points.items():
        set_point(tx, new, finding, point, "as configured", _BY)
    if gone:
        inherit_points(tx, gone[-1], package_rows(tx, choice.name)[-1])
    if any(row.state is PackageState.LIVE for row in gone) and state is not PackageState.LIVE and serving is None:
        raise_issue(tx, PACKAGE_WITHDRAWN, choice.name, Severity.FAULT, {"version": gone[-1].version})
    _tell(tx, choice, state)


def _change(tx: Transaction, choice: Choice, row: PackageRow, rows: Sequence[PackageRow], *, clinical: bool) -> None:
    """A version that is known: only what the file says anew counts."""
    kept = tx.one("SELECT choice FROM package WHERE id = ?", (row.id,))
    said = kept["choice"] if kept else ""
    if said == choice.as_json() and row.chosen:
        return
    before: dict[str, Any] = json.loads(said) if said else {"role": "", "operating_points": dict(row.operating_points)}
    state = row.state
    is_back = not row.chosen or row.state is PackageState.REMOVED
    others = [one for one in rows if one.id != row.id and one.runs]
    if (is_back and row.state is not PackageState.WITHDRAWN and not others) or (
        row.runs and before["role"] != choice.role and not (others and choice.role is Role.LIVE)
    ):
        state = choice.state
    changed = {f: p for f, p in choice.operating_points.items() if before["operating_points"].get(f) != p}
    dropped = [f for f in before["operating_points"] if said and f not in choice.operating_points]
    if clinical and (changed or dropped) and said:
        msg = (
            f"packages: {choice.name}: the operating points differ from those that this box runs with, and in clinical "
            f"mode a second person must agree to that; put them back to {before['operating_points']}"
        )
        raise ConfigError(msg)
    tx.execute("UPDATE package SET chosen = 1, choice = ? WHERE id = ?", (choice.as_json(), row.id))
    if state is not row.state:
        _place(tx, row, state, tell=False)
    for finding, point in changed.items():
        set_point(tx, row, finding, point, "as configured", _BY)
    for finding in dropped:
        tx.execute(
            "DELETE FROM operating_point WHERE package = ? AND version = ? AND finding = ?",
            (row.name, row.version, finding),
        )
    _tell(tx, choice, state)


def _place(tx: Transaction, row: PackageRow, state: PackageState, *, tell: bool = True) -> None:
    tx.execute(
        "UPDATE package SET state = ?, state_at = ?, live_after_days = NULL, live_after_studies = NULL WHERE id = ?",
        (str(state), tx.at, row.id),
    )
    if tell:
        tx.journal(
            PackageConfigured(package=row.name, version=row.version, digest=row.digest, state=str(state)),
            subject=row.name,
        )


def _tell(tx: Transaction, choice: Choice, state: PackageState) -> None:
    tx.journal(
        PackageConfigured(
            package=choice.name,
            version=choice.version,
            digest=choice.digest,
            state=str(state),
            operating_points=dict(choice.operating_points),
        ),
        subject=choice.name,
    )
