"""Versions of packages as rows: what state each is in, and which of them run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.records import Role, Word
from appliance.store.database import Database, Transaction, from_iso


class PackageState(Word):
    """Where one version of a package stands. The three that run are spelled as their ``Role``."""

    #: Lies in its slot and has not run yet.
    INSTALLED = "installed"
    SILENT = "silent"
    SHADOW = "shadow"
    LIVE = "live"
    #: Served until another version took over; ``rollback`` goes back to it.
    RETIRED = "retired"
    #: A person took it out of service.
    WITHDRAWN = "withdrawn"
    #: It has no slot any more; its row remembers what it was.
    REMOVED = "removed"


RUNS = (PackageState.SILENT, PackageState.SHADOW, PackageState.LIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRow:
    """One version of a package, without its manifest."""

    id: int
    name: str
    version: str
    digest: str
    #: config or installed.
    origin: str
    folder: str
    state: PackageState
    state_at: datetime
    was: str
    why: str
    chosen: bool
    live_after_days: float | None
    live_after_studies: int | None
    signed_by: tuple[str, ...]
    p95_ms: float | None
    installed_at: datetime
    #: finding: operating point, where the site picked one.
    operating_points: Mapping[str, str]

    @property
    def runs(self) -> bool:
        """Whether analyses are made with it."""
        return self.state in RUNS

    @property
    def seen(self) -> str:
        """Where it stands, as a page shows it and its forms send back: any other act on it makes it another text."""
        return f"{self.state} {self.state_at.isoformat()}"

    @property
    def role(self) -> Role:
        """The role of a version that runs."""
        return Role(str(self.state))

    @property
    def is_missed(self) -> bool:
        """It was live and was withdrawn: what it claims ends NOT_ANALYSED(withdrawn) unless another version serves."""
        return self.state is PackageState.WITHDRAWN and self.was == PackageState.LIVE and self.chosen


def package_row(row: Any, points: Mapping[str, str]) -> PackageRow:
    """A row of the table."""
    return PackageRow(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        origin=row["origin"],
        folder=row["folder"],
        state=PackageState(row["state"]),
        state_at=from_iso(row["state_at"]),
        was=row["was"],
        why=row["why"],
        chosen=bool(row["chosen"]),
        live_after_days=row["live_after_days"],
        live_after_studies=row["live_after_studies"],
        signed_by=tuple(json.loads(row["signed_by"])),
        p95_ms=row["p95_ms"],
        installed_at=from_iso(row["installed_at"]),
        operating_points=points,
    )


def package_rows(db: Database | Transaction, name: str = "") -> list[PackageRow]:
    """Versions that the box has known, of one package or all, oldest first. Cheap: asked in every step of triage."""
    points: dict[tuple[str, str], dict[str, str]] = {}
    for point in db.all("SELECT package, version, finding, point FROM operating_point"):
        points.setdefault((point["package"], point["version"]), {})[point["finding"]] = point["point"]
    rows = db.all(
        "SELECT id, name, version, digest, origin, folder, state, state_at, was, why, chosen, live_after_days,"
        " live_after_studies, signed_by, p95_ms, installed_at FROM package WHERE ? IN ('', name) ORDER BY id",
        (name,),
    )
    return [package_row(row, points.get((row["name"], row["version"]), {})) for row in rows]


def running_versions(tx: Transaction) -> frozenset[tuple[str, str, str]]:
    """(name, version, state) of what runs, and of what was withdrawn: what a decision of routing rests on."""
    return seen(package_rows(tx))


def seen(rows: list[PackageRow]) -> frozenset[tuple[str, str, str]]:
    """The same of rows that were read before."""
    return frozenset((row.name, row.version, str(row.state)) for row in rows if row.runs or row.is_missed)


def heir(tx: Transaction, name: str, version: str, role: str) -> str | None:
    """Which version analyses again what an outage left out: the same, else for live work the one that serves now."""
    rows = package_rows(tx, name)
    if not rows or any(row.version == version and row.runs for row in rows):
        return version
    live = next((row.version for row in rows if row.state is PackageState.LIVE), None)
    return live if role == Role.LIVE else None
