"""What only who keeps the server can mend: signatures of the list of models that end, and keys that boxes lack."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from appliance.errors import ApplianceError
from appliance.fleet.server.key_rotation import behind, changed_at
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_rules import Expiry


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands on the overview of the platform operator.

    Attributes:
        ends: Roles of the repository that end soon, or have.
        is_damaged: The repository cannot be read: boxes cannot either.
        behind: Boxes that have not taken the keys
        since: that count since then.
    """

    ends: tuple[Expiry, ...] = ()
    is_damaged: bool = False
    behind: int = 0
    since: datetime | None = None


def kept(connection: Connection, repository: Repository, scope: Scope, *, now: datetime) -> Kept:
    """Nothing for whoever does not see everything, and where there is no repository."""
    if scope != Scope.everything() or not repository.exists():
        return Kept()
    since = changed_at(connection)
    late = (
        0 if since is None else connection.execute(select(func.count()).select_from(behind(since).subquery())).scalar()
    )
    try:
        ends = tuple(one for one in repository.check(now) if one.is_soon)
    except ApplianceError:  # the log says which file
        return Kept(is_damaged=True, behind=late or 0, since=since)
    return Kept(ends, behind=late or 0, since=since)
