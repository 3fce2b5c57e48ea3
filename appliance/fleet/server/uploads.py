"""Logs that a box was asked for: one file for one job, by a token that was made with it and counts once.

What comes is kept as it is (``upload_door``). It is looked at so far as to tell that it is a zip file of the box that
was asked; nothing is ever unpacked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, insert, select, update

from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Scope, find_device, write_audit
from appliance.fleet.server.tokens import digest_of

UPLOADS = "uploads"
#: A job that a box took at the last moment may still bring its file.
GRACE = timedelta(hours=1)
#: A part of so long ago is of somebody who went away.
_STALE = timedelta(hours=1)
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Upload:
    """What a job let a box bring. ``received_at``, ``sha256`` and ``size`` are None where nothing has come.

    Attributes:
        removed_at: It was kept long enough; the file is gone.
    """

    job: str
    device: str
    made_at: datetime
    expires_at: datetime
    received_at: datetime | None
    sha256: str | None
    size: int | None
    removed_at: datetime | None


def add_upload(connection: Connection, token: str, device: str, job: str, *, now: datetime, until: datetime) -> None:
    """Let ``device`` bring one file for ``job`` (which is in its table) by this token."""
    row = {"digest": digest_of(token), "device": device, "job": job, "made_at": now, "expires_at": until + GRACE}
    connection.execute(insert(t.upload).values(**row))


def list_uploads(connection: Connection, scope: Scope, device: str) -> list[Upload]:
    """All of a box, the newest first.

    Raises:
        NotFoundError: No such device in the scope.
    """
    find_device(connection, scope, device)
    rows = connection.execute(_asked().where(t.upload.c.device == device).order_by(t.upload.c.made_at.desc()))
    return [Upload(**row._asdict()) for row in rows]


def open_upload(
    connection: Connection,
    scope: Scope,
    folder: Path,
    job: str,
    *,
    now: datetime,
    by: int | None = None,
    actor: str = "system",
) -> tuple[Upload, BinaryIO]:
    """The file that came for a job, open for reading; who takes it stands in the audit.

    Args:
        connection: Of ``db.write``.
        scope: Of who asks.
        folder: The server's.
        job: Id of the job.
        now: The server's clock.
        by: Account of who asks.
        actor: Their name.

    Raises:
        NotFoundError: Nothing of that job is here, or it is another's; the text is the same.
    """
    row = connection.execute(
        select(t.upload, t.device.c.tenant)
        .join(t.device, t.device.c.id == t.upload.c.device)
        .where(t.upload.c.job == job, t.upload.c.received_at.is_not(None), scope.holds(t.device.c.tenant))
    ).first()
    missing = NotFoundError(f"there are no logs of job {job!r}; 'scanside-fleet job logs DEVICE' lists them")
    if row is None or row.removed_at is not None:
        raise missing
    try:
        file = path_of(folder, job).open("rb")
    except FileNotFoundError:
        raise missing from None
    told = {"device": row.device, "sha256": row.sha256}
    write_audit(
        connection, act="upload.take", subject=job, actor=actor, account=by, tenant_id=row.tenant, now=now, detail=told
    )
    found = connection.execute(_asked().where(t.upload.c.job == job)).one()
    return Upload(**found._asdict()), file


def path_of(folder: Path, job: str) -> Path:
    """Where the file of a job lies."""
    return folder / UPLOADS / f"{job}.zip"


def remove_uploads(connection: Connection, folder: Path, *, before: datetime, now: datetime) -> int:
    """Remove files that came before then, and parts that nobody goes on with. Returns how many files."""
    for part in (folder / UPLOADS).glob("*.part"):
        if part.stat().st_mtime < (now - _STALE).timestamp():
            part.unlink(missing_ok=True)
    c = t.upload.c
    old = select(c.job).where(c.received_at < before, c.removed_at.is_(None)).limit(_MOST_AT_ONCE)
    jobs = list(connection.scalars(old))
    for job in jobs:
        path_of(folder, job).unlink(missing_ok=True)
    if jobs:
        connection.execute(update(t.upload).where(c.job.in_(jobs)).values(removed_at=now))
    return len(jobs)


def _asked() -> Any:
    c = t.upload.c
    return select(c.job, c.device, c.made_at, c.expires_at, c.received_at, c.sha256, c.size, c.removed_at)
