"""What people do with roll-outs: one act is one function in the caller's transaction, with its row of the audit.

Four eyes: whoever made a roll-out never approves it, and the approval is two things, a person's word and release keys'
signatures under its grant. What boxes are told from then on is ``drive``'s.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import job_bytes, renumber
from appliance.fleet.server.registry import Scope, write_audit
from appliance.fleet.server.rollout import granting
from appliance.fleet.server.rollout.candidates import candidates
from appliance.fleet.server.rollout.choose import choose
from appliance.fleet.server.rollout.plan import (
    NEXT,
    Chosen,
    Gate,
    Pause,
    Plan,
    Role,
    RollOutState,
    Verdict,
    WavePlan,
    WaveState,
)
from appliance.fleet.server.server_keys import ServerKeys, keys_of
from appliance.fleet.wire import JOB_TYPE, JobArgs, Op
from appliance.fleet.wire_jobs import JobState
from appliance.store.database import new_ulid
from engines.signing import PrivateKey

#: Who may make and approve; a viewer and a hospital's administrator may not.
_HANDS = frozenset({"operator", "service"})
_LIVE = frozenset({RollOutState.RUNNING, RollOutState.PAUSED, RollOutState.REVERTING})


def make(
    connection: Connection,
    scope: Scope,
    *,
    tenant: str,
    package: str,
    version: str,
    digest: str,
    target: str,
    role: Role,
    chosen: Chosen,
    plan: Plan,
    account: int,
    actor: str,
    now: datetime,
) -> str:
    """Draw one up, with its waves: nothing happens yet. Returns its id.

    Args:
        connection: Of ``db.write``.
        scope: Of who asks.
        tenant: Whose boxes, those below it among them.
        package: Of it
        version: this version,
        digest: of these contents,
        target: which boxes fetch under this name (TUF).
        role: As what it serves at the end.
        chosen: Which boxes.
        plan: Gates and times; its waves are made here.
        account: Who makes it.
        actor: Their name.
        now: The server's clock.

    Raises:
        NotFoundError: A tenant, site, box or account that is named is not there, or another's.
        ConflictError: No box would get anything, the arguments are none, or the version was withdrawn.
    """
    if not connection.execute(select(t.tenant.c.id).where(t.tenant.c.id == tenant, scope.holds(t.tenant.c.id))).first():
        raise NotFoundError(f"there is no tenant {tenant!r}; 'scanside-fleet tenant list' shows them")
    _check_person(connection, account, tenant)
    try:
        JobArgs(package=package, version=version, digest=digest, target=target, role=role)
    except ValueError as error:
        raise ConflictError("package, version, digest or target are not as packages have them") from error
    _check_model(connection, package, version, digest)
    ident = new_ulid(now)
    found = candidates(connection, Scope.of(connection, tenant), chosen, package, version, role, now)
    least = round(plan.soak_studies * 24 / max(plan.soak_h, 1.0)) if plan.soak_studies else 0
    choice = choose(found, chosen, plan.shares, ident, least_studies=least)
    if not choice.waves:
        raise ConflictError(f"no box of the choice would get {package} {version}: {_why_none(choice.left_out)}")
    waves = [(number, name, boxes) for number, (name, boxes) in enumerate(choice.waves, 1)]
    left_out: dict[str, int] = {}
    for why in choice.left_out.values():
        left_out[str(why)] = left_out.get(str(why), 0) + 1
    plan = plan.model_copy(
        update={
            "waves": tuple(WavePlan(number=number, name=name, boxes=len(boxes)) for number, name, boxes in waves),
            "not_covered": tuple(choice.not_covered),
            "left_out": left_out,
        }
    )
    connection.execute(
        insert(t.roll_out).values(
            id=ident,
            tenant=tenant,
            package=package,
            version=version,
            digest=digest,
            target=target,
            role=role,
            state=str(RollOutState.DRAFT),
            chosen=chosen.model_dump(mode="json"),
            plan=plan.model_dump(mode="json"),
            made_by=account,
            made_at=now,
            state_at=now,
        )
    )
    rows = [{"roll_out": ident, "number": n, "name": name, "state": str(WaveState.WAITING)} for n, name, _ in waves]
    connection.execute(insert(t.wave), rows)
    boxes = [{"device": device, "wave": number, "left_out": ""} for number, _, names in waves for device in names]
    boxes += [{"device": device, "wave": 0, "left_out": str(why)} for device, why in choice.left_out.items()]
    connection.execute(insert(t.wave_device), [{"roll_out": ident, **box} for box in boxes])
    detail = {"package": package, "version": version, "role": role, "waves": [len(names) for _, _, names in waves]}
    _tell(connection, "rollout.make", ident, tenant, actor, account, now, detail)
    return ident


def discard(
    connection: Connection, scope: Scope, ident: str, *, account: int | None, actor: str, now: datetime
) -> None:
    """Throw a draft away.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It was submitted before.
    """
    row = find(connection, scope, ident)
    if row.state != RollOutState.DRAFT:
        raise ConflictError(f"roll-out {ident} is {row.state}; only a draft is thrown away ('abort' ends another)")
    for table in (t.wave_device, t.wave):
        connection.execute(delete(table).where(table.c.roll_out == ident))
    connection.execute(delete(t.roll_out).where(t.roll_out.c.id == ident))
    _tell(connection, "rollout.discard", ident, row.tenant, actor, account, now, {})


def submit(connection: Connection, scope: Scope, ident: str, *, account: int, actor: str, now: datetime) -> None:
    """Ask for approval: from now on it does not change, and its grant is written down for signing.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It was submitted before, or has boxes of more tenants than one grant can name.
    """
    row = find(connection, scope, ident)
    _check_person(connection, account, row.tenant)
    w = t.wave_device.c
    tenants = connection.scalars(
        select(t.device.c.tenant)
        .join(t.wave_device, w.device == t.device.c.id)
        .where(w.roll_out == ident, w.wave > 0)
        .distinct()
    ).all()
    kind = connection.execute(select(t.tenant.c.kind).where(t.tenant.c.id == row.tenant)).scalar_one()
    text = granting.compose(row, tenants, everywhere=kind == "platform", now=now)
    _move(connection, row, RollOutState.WAITING_APPROVAL, now, grant_text=text)
    _tell(connection, "rollout.submit", ident, row.tenant, actor, account, now, {"tenants": len(tenants)})


def approve(
    connection: Connection,
    scope: Scope,
    ident: str,
    *,
    account: int,
    actor: str,
    now: datetime,
    threshold: int,
    release: PrivateKey | None = None,
) -> bool:
    """Say yes, as the second person; with ``release``, sign its grant too. Returns whether it is READY.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It waits for no approval, the person made it, or boxes do not trust the key.
    """
    row = find(connection, scope, ident)
    _check_waits(row)
    _check_person(connection, account, row.tenant)
    if account == row.made_by:
        raise ConflictError("whoever made a roll-out cannot approve it; ask somebody else")
    envelope = row.grant_envelope
    if release is not None:
        if release.public.keyid not in {key.keyid for key in keys_of(connection, "release")}:
            raise ConflictError(f"no box trusts the key {release.public.keyid}; 'scanside-fleet key list' shows those")
        envelope = granting.sign_grant(row.grant_text, envelope, release)
    values = {"approved_by": account, "approved_at": now, "grant_envelope": envelope}
    connection.execute(update(t.roll_out).where(t.roll_out.c.id == ident).values(**values))
    detail = {
        "key": release.public.keyid if release else "",
        "signatures": granting.signatures_of(connection, envelope),
    }
    _tell(connection, "rollout.approve", ident, row.tenant, actor, account, now, detail)
    return _ready(connection, scope, ident, now, threshold)


def put_grant(
    connection: Connection,
    scope: Scope,
    ident: str,
    envelope: bytes,
    *,
    actor: str,
    now: datetime,
    threshold: int,
    account: int | None = None,
) -> bool:
    """Take the grant back from the machine where it was signed. Returns whether the roll-out is READY.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It waits for no approval, it is another grant, or no key that counts has signed it besides.
    """
    row = find(connection, scope, ident)
    _check_waits(row)
    kept = granting.merge(connection, row.grant_text, row.grant_envelope, envelope)
    connection.execute(update(t.roll_out).where(t.roll_out.c.id == ident).values(grant_envelope=kept))
    detail = {"signatures": granting.signatures_of(connection, kept)}
    _tell(connection, "rollout.sign", ident, row.tenant, actor, account, now, detail)
    return _ready(connection, scope, ident, now, threshold)


def start(connection: Connection, scope: Scope, ident: str, *, account: int | None, actor: str, now: datetime) -> None:
    """Let it go.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It is not READY, or another one of the same package is on its way to one of its boxes.
    """
    row = find(connection, scope, ident)
    _check_model(connection, row.package, row.version, row.digest)
    mine = select(t.wave_device.c.device).where(t.wave_device.c.roll_out == ident, t.wave_device.c.wave > 0)
    other = connection.execute(
        select(t.roll_out.c.id)
        .join(t.wave_device, t.wave_device.c.roll_out == t.roll_out.c.id)
        .where(
            t.roll_out.c.id != ident,
            t.roll_out.c.package == row.package,
            t.roll_out.c.state.in_(map(str, _LIVE)),
            t.wave_device.c.wave > 0,
            t.wave_device.c.device.in_(mine),
        )
        .limit(1)
    ).scalar_one_or_none()
    if other is not None:
        raise ConflictError(f"roll-out {other} of {row.package} is on its way to the same boxes; end it first")
    _move(connection, row, RollOutState.RUNNING, now)
    _tell(connection, "rollout.start", ident, row.tenant, actor, account, now, {})


def pause(
    connection: Connection, scope: Scope, ident: str, *, why: str, account: int | None, actor: str, now: datetime
) -> None:
    """Tell no further box; those that were told go on.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It does not run.
    """
    row = find(connection, scope, ident)
    _move(connection, row, RollOutState.PAUSED, now, paused_why=str(Pause.MANUAL))
    _tell(connection, "rollout.pause", ident, row.tenant, actor, account, now, {"why": why, "wave": row.wave})


def resume(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    ident: str,
    *,
    why: str,
    account: int | None,
    actor: str,
    now: datetime,
) -> None:
    """Go on, knowing what the gates said; it stays to be read in the audit.

    A gate that failed looks at what comes from now on. One that could not judge holds this wave up no more.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It does not stand still.
    """
    row = find(connection, scope, ident)
    if row.state != RollOutState.PAUSED:
        raise ConflictError(f"roll-out {ident} is {row.state}; there is nothing to resume")
    _move(connection, row, RollOutState.RUNNING, now, paused_why="")
    seen: list[dict[str, Any]] = []
    if row.wave:
        which = (t.wave.c.roll_out == ident, t.wave.c.number == row.wave)
        found = dict(connection.execute(select(t.wave.c.verdict).where(*which)).scalar_one() or {})
        verdicts = [Verdict.model_validate(one) for one in found.get("verdicts", ())]
        if row.paused_why != Pause.MANUAL:
            _accept(found, verdicts, now)
        found["from"] = now.isoformat()
        seen = [{"gate": str(one.gate), "word": one.word, "n": one.n} for one in verdicts if one.word != "passed"]
        connection.execute(update(t.wave).where(*which).values(verdict=found))
    _refresh(connection, keys, ident, now)
    detail = {"why": why, "wave": row.wave, "after": row.paused_why, "gates": seen}
    _tell(connection, "rollout.resume", ident, row.tenant, actor, account, now, detail)


def abort(
    connection: Connection, scope: Scope, ident: str, *, why: str, account: int | None, actor: str, now: datetime
) -> None:
    """End it: what has not gone out never does, and what has goes on by itself, also back.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It has ended.
    """
    row = find(connection, scope, ident)
    _move(connection, row, RollOutState.ABORTED, now, paused_why="")
    gone = _call_back(connection, row, now)
    detail = {"why": why, "wave": row.wave, "canceled": gone}
    _tell(connection, "rollout.abort", ident, row.tenant, actor, account, now, detail)


def revert(
    connection: Connection, scope: Scope, ident: str, *, why: str, account: int | None, actor: str, now: datetime
) -> None:
    """Take it back wherever it went, the last wave first.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It never ran, or was taken back before.
    """
    row = find(connection, scope, ident)
    _move(connection, row, RollOutState.REVERTING, now, paused_why="")
    gone = _call_back(connection, row, now)
    detail = {"why": why, "wave": row.wave, "canceled": gone}
    _tell(connection, "rollout.revert", ident, row.tenant, actor, account, now, detail)


def find(connection: Connection, scope: Scope, ident: str) -> Row[Any]:
    """The row of a roll-out, locked where the database locks rows.

    Raises:
        NotFoundError: There is none, or it is another's; the text is the same.
    """
    row = connection.execute(
        select(t.roll_out).where(t.roll_out.c.id == ident, scope.holds(t.roll_out.c.tenant)).with_for_update()
    ).first()
    if row is None:
        raise NotFoundError(f"there is no roll-out {ident!r}; 'scanside-fleet rollout list' shows them")
    return row


def _ready(connection: Connection, scope: Scope, ident: str, now: datetime, threshold: int) -> bool:
    row = find(connection, scope, ident)
    if row.approved_by is None or not granting.is_signed(connection, row.grant_envelope, threshold):
        return False
    _move(connection, row, RollOutState.READY, now)
    return True


def _accept(found: dict[str, Any], verdicts: list[Verdict], now: datetime) -> None:
    """A person has seen what is not passed."""
    since = dict(found.get("since", {}))
    accepted = {Gate(one) for one in found.get("accepted", ())}
    for one in verdicts:
        if one.word == "failed":
            since[str(one.gate)] = now.isoformat()
            if one.gate is Gate.ALERTS:
                found["looks"] = {}
        if one.word != "passed":
            accepted.add(one.gate)
    found["since"], found["accepted"] = since, sorted(map(str, accepted))


def _refresh(connection: Connection, keys: ServerKeys, ident: str, now: datetime) -> None:
    """Jobs that waited here get numbers above what their boxes were told meanwhile."""
    for job in connection.execute(select(t.job).where(*_unsent(ident), t.job.c.expires_at > now)).all():
        envelope = keys.sign(JOB_TYPE, job_bytes(renumber(connection, job, now)))
        connection.execute(update(t.job).where(t.job.c.id == job.id).values(envelope=envelope))


def _call_back(connection: Connection, row: Row[Any], now: datetime) -> int:
    """Cancel what has not gone out, and end the wave; returns how many."""
    values = {"state": str(JobState.CANCELED), "code": "", "state_at": now}
    gone = connection.execute(update(t.job).where(*_unsent(row.id)).values(**values)).rowcount
    runs = (t.wave.c.roll_out == row.id, t.wave.c.state == str(WaveState.RUNNING))
    connection.execute(update(t.wave).where(*runs).values(state=str(WaveState.DONE), ended_at=now))
    return gone


def _unsent(ident: str) -> tuple[Any, ...]:
    c = t.job.c
    is_new = (c.state == str(JobState.QUEUED), c.state_version == 0, c.sent_at.is_(None))
    return (c.roll_out == ident, c.op == str(Op.MODEL_INSTALL), *is_new)


def _check_waits(row: Row[Any]) -> None:
    if row.state != RollOutState.WAITING_APPROVAL:
        raise ConflictError(f"roll-out {row.id} waits for no approval (it is {row.state})")


def _check_person(connection: Connection, account: int, tenant: str) -> None:
    """Somebody whose say reaches over that tenant."""
    path = select(t.tenant.c.path).where(t.tenant.c.id == tenant).scalar_subquery()
    above, r = t.tenant.alias("above"), t.account_role.c
    found = connection.execute(
        select(above.c.path, above.c.kind, path.label("below"))
        .join(t.account_role, r.tenant == above.c.id)
        .join(t.account, t.account.c.number == r.account)
        .where(r.account == account, r.role.in_(_HANDS), t.account.c.is_active.is_(True))
    ).all()
    if not any(one.kind == "platform" or str(one.below).startswith(one.path) for one in found):
        raise ConflictError(f"account {account} is neither operator nor service of {tenant!r} or above it")


def _check_model(connection: Connection, package: str, version: str, digest: str) -> None:
    """What was taken from the boxes' repository, or has other contents there, is not rolled out."""
    m = t.model.c
    row = connection.execute(select(m.digest, m.withdrawn_at).where(m.package == package, m.version == version)).first()
    if row is not None and row.withdrawn_at is not None:
        raise ConflictError(f"{package} {version} was withdrawn; it is rolled out no more")
    if row is not None and row.digest != digest:
        raise ConflictError(f"{package} {version} has the digest {row.digest[:16]} where boxes fetch it")


def _move(connection: Connection, row: Row[Any], to: RollOutState, now: datetime, **values: Any) -> None:
    if to not in NEXT[RollOutState(row.state)]:
        raise ConflictError(f"roll-out {row.id} is {row.state}; it cannot become {to}")
    which = t.roll_out.c.id == row.id
    connection.execute(update(t.roll_out).where(which).values(state=str(to), state_at=now, **values))


def _why_none(left_out: dict[str, Any]) -> str:
    words = sorted({str(why) for why in left_out.values()})
    return ", ".join(words) if words else "it names none"


def _tell(
    connection: Connection,
    act: str,
    subject: str,
    tenant: str,
    actor: str,
    account: int | None,
    now: datetime,
    detail: dict[str, Any],
) -> None:
    write_audit(
        connection,
        act=act,
        subject=subject,
        actor=actor,
        account=account,
        tenant_id=tenant,
        now=now,
        detail=detail,
    )
