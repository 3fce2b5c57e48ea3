"""What pages and the command line show of the fleet: how the link stands, and the jobs in words that screens know."""

from __future__ import annotations

from datetime import datetime, timezone

from appliance.config import Config
from appliance.errors import ConfigError
from appliance.screen.tools import FleetJob, FleetLink
from appliance.store import Store
from appliance.store.database import from_iso
from appliance.store.fleet import CONNECTED, READER, TOLD
from appliance.store.fleet_jobs import JobRow

_SHOWN = 30
_MS = 1000


def fleet_link(config: Config, store: Store) -> FleetLink:
    """How the box stands to its fleet server; a box that is in none, or whose files are damaged, is not enrolled."""
    from appliance.fleet.device.identity import FOLDER, Identity  # the fleet's code is loaded where it is asked for
    from appliance.fleet.keys import KeyFault

    try:
        identity = Identity.load(config.state_path / FOLDER)
    except (ConfigError, KeyFault):
        return FleetLink()
    where, marks = identity.enrolment, store.fleet
    return FleetLink(
        is_enrolled=True,
        device=where.device,
        tenant=where.tenant,
        server=where.server_url,
        connected_at=_at(marks.state(CONNECTED)),
        told_at=_at(marks.state(TOLD)),
        waiting=max(0, store.journal.last_seq() - store.journal.cursor(READER)),
        ends_at=identity.ends_at,
        is_on_trial=identity.is_on_trial,
    )


def fleet_jobs(store: Store) -> list[FleetJob]:
    """The newest first; one that waits for a person is among them however old it is."""
    newest = store.fleet_jobs.all(_SHOWN)
    known = {row.id for row in newest}
    rows = [*newest, *(row for row in reversed(store.fleet_jobs.open()) if row.id not in known)]
    return [_job(row) for row in rows]


def _job(row: JobRow) -> FleetJob:
    from appliance.fleet.device.inbox import job_of
    from appliance.fleet.wire import JobArgs, WireError

    try:
        job = job_of(row)
    except (WireError, ValueError, KeyError):  # of a version that is no longer understood
        job = None
    args = job.args if job is not None else JobArgs()
    return FleetJob(
        number=row.ctr,
        op=row.op,
        package=args.package or "",
        version=args.version or "",
        digest=args.digest or "",
        role=args.role or "",
        state=row.state,
        code=row.code,
        asked_by=job.by if job is not None else (),
        received_at=row.received_at,
        state_at=row.state_at,
        expires_at=_moment(job.exp) if job is not None else None,
        approved_by=row.approved_by,
    )


def _at(mark: str) -> datetime | None:
    return from_iso(mark) if mark else None


def _moment(ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(ms / _MS, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
