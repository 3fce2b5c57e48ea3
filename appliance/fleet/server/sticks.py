"""Files of boxes without any network: what one brought is taken in as from the wire, and what it is told is written.

A file is the box's own letters under one signature of its key. Whatever is taken twice is here once; an answer that was
lost is written again from the same file. A file that is older than one that was taken still brings records that are
missing, but turns nothing back: what the box was like then is left out, and so is what it would be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, case, select, update

from appliance.errors import ConflictError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acks import AckDesk, Downlink
from appliance.fleet.server.acts import grant_of, job_bytes, renumber
from appliance.fleet.server.admit import Refusal, Uplink
from appliance.fleet.server.db import read, write
from appliance.fleet.server.ingest import Asked, Ingest
from appliance.fleet.server.post import Post
from appliance.fleet.server.registry import (
    DeviceState,
    Presence,
    Scope,
    find_device,
    presence,
    public_keys,
    write_audit,
)
from appliance.fleet.server.repository_rules import TRUST
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import (
    HARMLESS,
    JOB_TYPE,
    TWO_SIGNATURES,
    Address,
    Down,
    Get,
    Job,
    Op,
    Status,
    Up,
    WireError,
    unpack,
)
from appliance.fleet.wire_grant import payload_of
from appliance.fleet.wire_jobs import JobState
from appliance.fleet.wire_stick import Export, claimed_sender, unseal

#: Letters of one transaction: boxes on the wire wait for no more.
_GROUP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a file, and what goes back.

    Attributes:
        is_older: A newer one was taken before: its records alone counted.
        more: The box has more than a file holds; another one goes on from there.
        refused: Letters that were not taken, by reason.
        envelopes: Signed, for the box: acknowledgements, the desired document, jobs.
        jobs: Ids of those jobs.
        targets: Paths of TUF targets that they need.
    """

    device: str
    is_older: bool
    more: bool
    records: int
    again: int
    refused: Mapping[Refusal, int]
    envelopes: tuple[bytes, ...]
    acknowledged: int
    has_document: bool
    jobs: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(slots=True)
class _Came:
    records: int = 0
    again: int = 0
    batches: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)


def take_file(
    engine: Engine,
    keys: ServerKeys,
    data: bytes,
    *,
    now: datetime,
    scope: Scope | None = None,
    threshold: int = 1,
    by: int | None = None,
    actor: str = "system",
) -> Taken:
    """Take in a file that a box wrote ('scanside fleet export').

    Args:
        engine: The database.
        keys: The server's.
        data: The file.
        now: The server's clock.
        scope: Of who brings it; everything where None.
        threshold: How many release keys must have signed a change of models.
        by: Account of who brings it.
        actor: Their name, for the audit.

    Raises:
        WireError: It is no such file, was changed, or is somebody else's.
        NotFoundError: Of a box that is not in the scope.
        ConflictError: The box is heard no more; or a newer file was taken, and this one has nothing that is missing.
    """
    scope = scope or Scope.everything()
    with read(engine) as connection:
        row, export = _open(connection, scope, data)
        letters, get, status = _letters(export)
        is_older = _is_older(connection, export, get)
        left_out = _left_out(connection, export, now, is_older=is_older)
    desk, came = AckDesk([keys.online]), _Came()
    _ingest(engine, [one for one in letters if not one.topic.endswith(tuple(left_out))], desk, came, now)
    if is_older and not came.records:
        raise ConflictError(f"a newer file of {export.device} was taken, and all that this one brings is here already")
    sent: list[Downlink] = []
    with write(engine) as connection:
        if not is_older:
            _remember(connection, export, get, status, now)
            _name_nonce(connection, keys, export, now)
            address = Address(export.tenant, export.device)
            sent = Post(keys, threshold).answer(connection, Asked(address, get), now)
        jobs = _sent_jobs(connection, export.device, sent)
        told = {"records": came.records, "again": came.again, "jobs": [job.id for job in jobs], "older": is_older}
        write_audit(
            connection,
            act="stick.take",
            subject=export.device,
            actor=actor,
            account=by,
            tenant_id=row.tenant,
            now=now,
            detail=told,
        )
    acks = desk.due(0.0, now)
    return Taken(
        device=export.device,
        is_older=is_older,
        more=export.more,
        records=came.records,
        again=came.again,
        refused=dict(came.refused),
        envelopes=tuple(one.payload for one in [*acks, *sorted(sent, key=lambda one: one.name is Down.JOB)]),
        acknowledged=came.batches,
        has_document=any(one.name is Down.TWIN for one in sent),
        jobs=tuple(job.id for job in jobs),
        targets=tuple(sorted({target for job in jobs if (target := _target(job))})),
    )


# Who and what --------------------------------------------------------------------------------------------------------


def _open(connection: Connection, scope: Scope, data: bytes) -> tuple[Row[Any], Export]:
    row = find_device(connection, scope, claimed_sender(data))
    if row.state != DeviceState.ENROLLED:
        raise ConflictError(f"{row.id!r} is {row.state}; nothing of it is taken")
    keys = public_keys(connection, row.id)
    for key in keys:
        try:
            export = unseal(data, key)
        except WireError:
            if key is keys[-1]:
                raise
        else:
            if export.tenant != row.tenant:
                raise ConflictError(f"{row.id!r} is of another tenant than its file says")
            return row, export
    raise WireError("no certificate of this device counts; have it enrol anew")


def _letters(export: Export) -> tuple[list[Uplink], Get, Status]:
    """What it would have published, what it has, and how it is."""
    address = Address(export.tenant, export.device)
    known = {address.topic(name): name for name in Up}
    letters, said = [], {}
    for one in export.letters:
        name = known.get(one.topic)
        if name is None:
            raise WireError("the file holds a letter of another box")
        letters.append(Uplink(one.topic, one.data, one.properties))
        if name in {Up.GET, Up.STATUS}:
            kind = Get if name is Up.GET else Status
            said[name] = unpack(kind, one.data, packed="ce" in one.properties)
    get, status = said.get(Up.GET), said.get(Up.STATUS)
    if not isinstance(get, Get) or not isinstance(status, Status) or get.stream != export.stream:
        raise WireError("the file does not say what the box has")
    return letters, get, status


def _is_older(connection: Connection, export: Export, get: Get) -> bool:
    """Whether a newer file of it was taken, or it is of a database that the box no longer has."""
    c = t.stream.c
    rows = connection.execute(select(c.stream, c.stick).where(c.device == export.device).order_by(c.number)).all()
    known = {row.stream: row.stick for row in rows}
    if export.stream not in known:
        return False
    return bool(rows[-1].stream != export.stream or get.last_seq < known[export.stream])


def _left_out(connection: Connection, export: Export, now: datetime, *, is_older: bool) -> set[Up]:
    """What the server knows better."""
    if is_older:
        return {Up.STATUS, Up.GET, Up.TWIN, Up.HEALTH}
    row = connection.execute(select(t.status).where(t.status.c.device == export.device)).first()
    if row is not None and presence(row, now) is Presence.ONLINE:
        return {Up.STATUS, Up.HEALTH}
    return set()


# Taking it in --------------------------------------------------------------------------------------------------------


def _ingest(engine: Engine, letters: Sequence[Uplink], desk: AckDesk, came: _Came, now: datetime) -> None:
    """By the way of the wire, in order: what the box has is heard before what happened."""
    ingest = Ingest()
    state = [one for one in letters if not one.topic.endswith(Up.REC)]
    batches = [one for one in letters if one.topic.endswith(Up.REC)]
    groups = [state, *(batches[first : first + _GROUP] for first in range(0, len(batches), _GROUP))]
    for group in groups:
        if not group:
            continue
        with write(engine) as connection:
            outcome = ingest.apply(connection, group, now)
        desk.add(outcome)
        came.records += outcome.records
        came.again += outcome.again
        came.batches += sum(len(owed.batches) for owed in outcome.owed.values())
        came.refused += outcome.refused


def _remember(connection: Connection, export: Export, get: Get, status: Status, now: datetime) -> None:
    c, s = t.stream.c, t.status.c
    newest = case((c.stick < get.last_seq, get.last_seq), else_=c.stick)
    of_stream = update(t.stream).where(c.device == export.device, c.stream == export.stream)
    connection.execute(of_stream.values(stick=newest))
    # A box that never connects is in one session for ever; its birth would tell the rest.
    told = {"agent": status.agent, "stream": export.stream, "nonce": export.nonce, "clk": export.clk}
    away = update(t.status).where(s.device == export.device, s.online.is_(False))
    connection.execute(away.values(**told, last_seen_at=now))


def _name_nonce(connection: Connection, keys: ServerKeys, export: Export, now: datetime) -> None:
    """A box that cannot tell the time takes what changes something only with its nonce; jobs were made before it said.

    A job that release keys have signed is signed by them again, and goes with the next answer.
    """
    if export.clk != "none":
        return
    c = t.job.c
    waits = select(t.job).where(
        c.device == export.device,
        c.state == str(JobState.QUEUED),
        c.state_version == 0,
        c.expires_at > now,
        c.envelope.is_not(None),
        c.op.not_in([str(op) for op in HARMLESS]),
    )
    for row in connection.execute(waits.order_by(c.ctr)).all():
        if Job.unpack(payload_of(row.envelope)).nonce == export.nonce:
            continue
        again = None
        if row.op not in TWO_SIGNATURES or grant_of(row.envelope) is not None:
            again = keys.sign(JOB_TYPE, job_bytes(renumber(connection, row, now)))
        connection.execute(update(t.job).where(c.id == row.id).values(envelope=again, sent_at=None))


def _sent_jobs(connection: Connection, device: str, sent: Sequence[Downlink]) -> list[Row[Any]]:
    ids = [Job.unpack(payload_of(one.payload)).id for one in sent if one.name is Down.JOB]
    c = t.job.c
    asked = select(c.id, c.op, c.args).where(c.device == device, c.id.in_(ids)).order_by(c.ctr)
    return list(connection.execute(asked)) if ids else []


def _target(job: Row[Any]) -> str:
    """What a job needs of the TUF repository; "" where it needs nothing."""
    return TRUST if job.op == Op.ROOT_UPDATE else str(job.args.get("target") or "")
