"""What boxes are told: jobs and desired documents, made, signed, counted and given up. ``post`` sends them.

A job of ``wire.TWO_SIGNATURES`` has no envelope before somebody with a release key has approved it, and its counter is
given then: one that waits for days must not be older than a ping that went meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, literal, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import DeviceState, Scope, find_device, write_audit
from appliance.fleet.server.rollout.holding import is_held
from appliance.fleet.server.server_keys import ServerKeys, keys_of
from appliance.fleet.server.uploads import add_upload
from appliance.fleet.wire import (
    HARMLESS,
    JOB_TYPE,
    TWIN_TYPE,
    TWO_SIGNATURES,
    Desired,
    Job,
    JobArgs,
    Op,
    Twin,
    WireError,
)
from appliance.fleet.wire_grant import grant_text, open_grant, payload_of, read_grant, why_unfit
from appliance.fleet.wire_jobs import JobState, args_fit
from appliance.store.database import new_ulid
from engines.errors import SignatureError
from engines.signing import PrivateKey, PublicKey, add_signature, verify

#: How long a job holds where nobody says.
_LIFE = timedelta(days=1)
_LIFE_OF_MODELS = timedelta(days=7)
#: A box whose clock is behind takes a job at once.
_BEFORE = timedelta(minutes=10)
#: A box that is done with a job at the last moment may tell of it so much later.
_GRACE = timedelta(hours=1)
#: From here the minutes of the clock are counted that counters are lifted to.
_BEGINNING = datetime(2026, 1, 1, tzinfo=timezone.utc)


# Jobs ----------------------------------------------------------------------------------------------------------------


def make_job(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    device: str,
    op: Op,
    args: JobArgs | None = None,
    *,
    now: datetime,
    by: int | None = None,
    actor: str = "system",
    life: timedelta | None = None,
    roll_out: str | None = None,
    wave: int | None = None,
    grant: bytes | None = None,
) -> Job:
    """Make one, in the transaction of ``connection``; it goes out within a second after the commit.

    Args:
        connection: Of ``db.write``.
        keys: The server's.
        scope: Of who asks.
        device: For whom.
        op: What to do.
        args: Of the op; no others.
        now: The server's clock.
        by: Account of who asks.
        actor: Their name, for the audit.
        life: How long it holds; a day, a week for what changes models.
        roll_out: Part of which.
        wave: Of that.
        grant: Signed by release keys, for a job of a roll-out: it waits for nobody then (``wire_grant``).

    Raises:
        NotFoundError: No such device in the scope.
        ConflictError: The box is heard no more, the arguments are not those of the op, or the grant does not open it.
    """
    row = find_device(connection, scope, device)
    if row.state != DeviceState.ENROLLED:
        raise ConflictError(f"{device!r} is {row.state}; it is told nothing")
    waits = op in TWO_SIGNATURES and grant is None
    if op is Op.COLLECT_LOGS and (args is None or args.upload is None):
        args = JobArgs(upload=secrets.token_urlsafe(24))
    granted = None if grant is None else read_grant(payload_of(grant))
    ends = now + (life or (_LIFE_OF_MODELS if op in TWO_SIGNATURES else _LIFE))
    job = Job(
        id=new_ulid(now),
        aud=device,
        ctr=_next(connection, device, "ctr"),
        nbf=_ms(now - _BEFORE),
        exp=_ms(ends) if granted is None else min(_ms(ends), granted.exp),
        op=op,
        args=args or JobArgs(),
        nonce="" if op in HARMLESS else _nonce(connection, device),
        by=() if by is None else (by,),
        grant=None if grant is None else grant_text(grant),
    )
    if not args_fit(job):
        raise ConflictError(f"{op}: these are not its arguments")
    why = "" if granted is None else why_unfit(granted, job, row.tenant)
    if why or job.exp <= _ms(now):
        raise ConflictError(f"the grant does not open this job: {why or 'its time is over'}")
    connection.execute(
        insert(t.job).values(
            id=job.id,
            device=device,
            ctr=job.ctr,
            op=str(op),
            args=job.args.model_dump(mode="json", exclude_none=True),
            envelope=None if waits else keys.sign(JOB_TYPE, job_bytes(job)),
            made_by=by,
            made_at=now,
            expires_at=_moment(job.exp),
            state=str(JobState.QUEUED),
            state_at=now,
            figures={},
            roll_out=roll_out,
            wave=wave,
        )
    )
    if job.args.upload is not None:
        add_upload(connection, job.args.upload, device, job.id, now=now, until=_moment(job.exp))
    _told(connection, "job.make", job.id, row, actor, by, now, {"device": device, "op": str(op), "ctr": job.ctr})
    return job


def approve_job(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    job: str,
    *release: PrivateKey,
    now: datetime,
    threshold: int = 1,
    by: int | None = None,
    actor: str = "system",
) -> bool:
    """Sign it with release keys, one or several at once. Returns whether enough have; then it goes out.

    Raises:
        NotFoundError: No such job in the scope.
        ConflictError: It waits for no signature, has ended, or a key is none that boxes trust.
    """
    row = _find(connection, scope, job)
    if row.op not in TWO_SIGNATURES or row.state != JobState.QUEUED or row.sent_at is not None:
        raise ConflictError(f"job {job} waits for no signature (it is {row.state})")
    if row.expires_at is None or row.expires_at <= now:
        raise ConflictError(f"job {job} has expired; have it made again")
    trusted = keys_for(connection, row.op)
    unknown = [key.public.keyid for key in release if key.public.raw not in {one.raw for one in trusted}]
    if unknown:
        raise ConflictError(f"no box trusts the key {unknown[0]}; 'scanside-fleet key list' shows those")
    if is_complete(row.envelope, row.op, trusted, threshold):
        raise ConflictError(f"job {job} waits for no signature (all who must have signed)")
    envelope = row.envelope
    if envelope is None or row.ctr < _highest(connection, row.device):
        # Given only now, so that nothing that went meanwhile makes it a replay. Who signed an older number signs again.
        envelope = keys.sign(JOB_TYPE, job_bytes(renumber(connection, row, now, also=by)))
    signed = envelope
    for key in release:
        signed = add_signature(signed, JOB_TYPE, key)
    if signed == row.envelope:
        return False  # by these very keys, before
    envelope = signed
    connection.execute(update(t.job).where(t.job.c.id == job).values(envelope=envelope, approved_by=by))
    done = is_complete(envelope, row.op, trusted, threshold)
    by_keys = ", ".join(key.public.keyid for key in release)
    detail = {"device": row.device, "op": row.op, "key": by_keys, "complete": done}
    _told(connection, "job.approve", job, row, actor, by, now, detail)
    return done


def cancel_job(
    connection: Connection, scope: Scope, job: str, *, now: datetime, by: int | None = None, actor: str = "system"
) -> None:
    """Take back one that has not gone out.

    Raises:
        NotFoundError: No such job in the scope.
        ConflictError: It has gone, or ended.
    """
    row = _find(connection, scope, job)
    if row.state != JobState.QUEUED or row.sent_at is not None:
        raise ConflictError(f"job {job} is {row.state} and with the box; it cannot be taken back")
    _end(connection, t.job.c.id == job, JobState.CANCELED, "", now)
    _told(connection, "job.cancel", job, row, actor, by, now, {"device": row.device})


def expire_jobs(connection: Connection, now: datetime) -> int:
    """Give up those that no box has answered in their time; returns how many. A late word of a box counts still."""
    c = t.job.c
    return _end(
        connection,
        and_(c.state == str(JobState.QUEUED), c.state_version == 0, c.expires_at < now - _GRACE),
        JobState.TIMED_OUT,
        "EXPIRED",
        now,
    )


def waiting_jobs(
    connection: Connection, scope: Scope, now: datetime, roll_out: str | None = None, *, threshold: int = 1
) -> list[Row[Any]]:
    """Those that wait for a release signature, oldest first."""
    c = t.job.c
    rows = connection.execute(
        select(t.job, t.device.c.tenant)
        .join(t.device, t.device.c.id == c.device)
        .where(
            c.state == str(JobState.QUEUED),
            c.sent_at.is_(None),
            c.expires_at > now,
            c.op.in_([str(op) for op in TWO_SIGNATURES]),
            scope.holds(t.device.c.tenant),
            true() if roll_out is None else c.roll_out == roll_out,
        )
        .order_by(c.made_at, c.id)
    )
    trusted = {str(op): keys_for(connection, op) for op in TWO_SIGNATURES}
    return [row for row in rows.all() if not is_complete(row.envelope, row.op, trusted[row.op], threshold)]


def keys_for(connection: Connection, op: str) -> tuple[PublicKey, ...]:
    """Release keys that sign a job of ``op``.

    For ``root.update`` the retired ones too: a box that has not taken a change of keys obeys none but the old. Whatever
    signs it, it brings a box nothing but the keys that TUF proves.
    """
    return keys_of(connection, "release", retired=op == Op.ROOT_UPDATE)


# Desired documents ---------------------------------------------------------------------------------------------------


def set_desired(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    device: str,
    desired: Desired,
    *,
    now: datetime,
    by: int | None = None,
    actor: str = "system",
) -> int:
    """Say how a box should be: a whole document, of the next version. Returns that.

    Raises:
        NotFoundError: No such device in the scope.
        ConflictError: The box is heard no more.
    """
    row = find_device(connection, scope, device)
    if row.state != DeviceState.ENROLLED:
        raise ConflictError(f"{device!r} is {row.state}; it is told nothing")
    if not desired.held and is_held(connection, device, now):
        desired = desired.model_copy(update={"held": True})  # no other document lifts a hold
    dv = _next(connection, device, "dv")
    twin = Twin(aud=device, dv=dv, desired=desired)
    values = {
        "dv": dv,
        "desired": desired.model_dump(mode="json"),
        "envelope": keys.sign(TWIN_TYPE, twin.model_dump_json(exclude_none=True).encode()),
        "made_at": now,
        "made_by": by,
    }
    make = _insert(connection, t.twin).values(device=device, **values)
    connection.execute(make.on_conflict_do_update(index_elements=["device"], set_=values))
    _told(connection, "twin.set", device, row, actor, by, now, {"dv": dv, "desired": values["desired"]})
    return dv


def is_complete(envelope: bytes | None, op: str, trusted: Sequence[PublicKey], threshold: int) -> bool:
    """Whether all have signed who must: the server, and release keys where it changes models."""
    if envelope is None or op not in TWO_SIGNATURES:
        return envelope is not None
    try:
        verify(envelope, JOB_TYPE, trusted, threshold=threshold)
    except SignatureError:
        return op != Op.ROOT_UPDATE and _is_granted(envelope, trusted, threshold)
    return True


def grant_of(envelope: bytes | None) -> str | None:
    """The grant in a job's envelope."""
    return None if envelope is None else Job.unpack(payload_of(envelope)).grant


def _is_granted(envelope: bytes, trusted: Sequence[PublicKey], threshold: int) -> bool:
    try:
        grant = grant_of(envelope)
        if grant is not None:
            open_grant(grant, trusted, threshold)
    except (SignatureError, WireError):
        return False
    return grant is not None


def renumber(connection: Connection, row: Row[Any], now: datetime, *, also: int | None = None) -> Job:
    """The same job under the next counter; the row has it too, its envelope not yet."""
    ctr = _next(connection, row.device, "ctr")
    connection.execute(update(t.job).where(t.job.c.id == row.id).values(ctr=ctr))
    return Job(
        id=row.id,
        aud=row.device,
        ctr=ctr,
        nbf=_ms(now - _BEFORE),
        exp=_ms(row.expires_at),
        op=Op(row.op),
        args=JobArgs.model_validate(row.args),
        nonce="" if row.op in HARMLESS else _nonce(connection, row.device),
        by=tuple(one for one in (row.made_by, also) if one is not None),
        grant=grant_of(row.envelope),
    )


def _next(connection: Connection, device: str, which: str) -> int:
    """The next counter of a device: above all that it was given, and all that it says to have."""
    c = t.device_counter.c
    make = _insert(connection, t.device_counter).values(**{"device": device, "ctr": 0, "dv": 0, which: 1})
    make = make.on_conflict_do_update(index_elements=["device"], set_={which: c[which] + 1})
    return int(connection.execute(make.returning(c[which])).scalar_one())


def lift_counters(connection: Connection, now: datetime) -> None:
    """Lift the counters of every box to the minutes of the clock, where they are lower: at each start of a server.

    One that was restored from a backup does not know what it gave since. No box was given a number a minute, so these
    are above all that any has, before it says so and also where its word gets lost.
    """
    c, d = t.device_counter.c, t.device.c
    floor = int((now - _BEGINNING) / timedelta(minutes=1))
    if floor <= 0:
        return  # a clock that is far behind; what boxes say counts
    fresh = select(d.id, literal(floor), literal(floor)).where(d.id.not_in(select(c.device)))
    connection.execute(insert(t.device_counter).from_select(["device", "ctr", "dv"], fresh))
    for which in (c.ctr, c.dv):
        connection.execute(update(t.device_counter).where(which < floor).values({which: floor}))


def _highest(connection: Connection, device: str) -> int:
    c = t.device_counter.c
    return int(connection.execute(select(c.ctr).where(c.device == device)).scalar_one())


def _nonce(connection: Connection, device: str) -> str:
    """Of the session of a box that cannot tell the time."""
    c = t.status.c
    row = connection.execute(select(c.clk, c.nonce).where(c.device == device)).first()
    return row.nonce if row is not None and row.clk == "none" else ""


def _find(connection: Connection, scope: Scope, job: str) -> Row[Any]:
    row = connection.execute(
        select(t.job, t.device.c.tenant)
        .join(t.device, t.device.c.id == t.job.c.device)
        .where(t.job.c.id == job, scope.holds(t.device.c.tenant))
    ).first()
    if row is None:
        raise NotFoundError(f"there is no job {job!r}; 'scanside-fleet job list' shows them")
    return row


def _end(connection: Connection, which: ColumnElement[bool], state: JobState, code: str, now: datetime) -> int:
    values = {"state": str(state), "code": code, "state_at": now}
    return connection.execute(update(t.job).where(which).values(**values)).rowcount


def _told(
    connection: Connection,
    act: str,
    subject: str,
    row: Row[Any],
    actor: str,
    by: int | None,
    now: datetime,
    detail: dict[str, Any],
) -> None:
    write_audit(
        connection, act=act, subject=subject, actor=actor, account=by, tenant_id=row.tenant, now=now, detail=detail
    )


def _insert(connection: Connection, table: Any) -> Any:
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


def job_bytes(job: Job) -> bytes:
    """What is signed."""
    return job.model_dump_json(exclude_none=True).encode()


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)
