"""The grant of a roll-out: what is written down for release keys to sign, and whether enough have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from appliance.errors import ConflictError
from appliance.fleet.server.rollout.plan import Plan
from appliance.fleet.server.server_keys import keys_of
from appliance.fleet.wire import WireError
from appliance.fleet.wire_grant import GRANT_TYPE, Grant, GrantOp, grant_text, payload_of
from appliance.store.database import new_ulid
from engines.errors import SignatureError
from engines.signing import PrivateKey, add_signature, generate, sign, verify

_OPS: tuple[GrantOp, ...] = ("model.install", "model.rollback", "model.withdraw")
#: The clock of whoever signs, or of a box, may be behind.
_BEFORE = timedelta(hours=1)
_MOST_TENANTS = 500


def compose(row: Any, tenants: Sequence[str], *, everywhere: bool, now: datetime) -> str:
    """The text of a roll-out's grant.

    Args:
        row: Of the roll-out.
        tenants: Of its boxes.
        everywhere: It is the platform's: where there are too many tenants to name, it may hold for all.
        now: The server's clock.

    Raises:
        ConflictError: There are too many tenants for one grant.
    """
    plan = Plan.model_validate(row.plan)
    grant = Grant(
        id=new_ulid(now),
        tenant=row.tenant,
        tenants=() if everywhere and len(tenants) > _MOST_TENANTS else tuple(sorted(tenants))[:_MOST_TENANTS],
        package=row.package,
        version=row.version,
        digest=row.digest,
        target=row.target,
        role=row.role,
        ops=_OPS,
        soak_h=plan.soak_h,
        soak_studies=plan.soak_studies,
        nbf=int((now - _BEFORE).timestamp() * 1000),
        exp=int((now + timedelta(days=plan.grant_days)).timestamp() * 1000),
        by=(row.made_by,),
    )
    if fits(grant) and (not grant.tenants or len(tenants) <= _MOST_TENANTS):
        return grant.model_dump_json()
    if everywhere:
        return grant.model_copy(update={"tenants": ()}).model_dump_json()
    raise ConflictError(
        f"{len(tenants)} tenants are too many to be named in one grant; make roll-outs of fewer, one after the other"
    )


def fits(grant: Grant) -> bool:
    """Whether it has room in a job with a few signatures."""
    trial = sign(GRANT_TYPE, grant.model_dump_json().encode(), [generate() for _ in range(3)])
    try:
        grant_text(trial)
    except WireError:
        return False
    return True


def sign_grant(text: str, envelope: bytes | None, key: PrivateKey) -> bytes:
    """The envelope with one more signature."""
    if envelope is None:
        return sign(GRANT_TYPE, text.encode(), [key])
    return add_signature(envelope, GRANT_TYPE, key)


def merge(connection: Connection, text: str, envelope: bytes | None, brought: bytes) -> bytes:
    """Take what was signed on another machine in.

    Raises:
        ConflictError: It is another grant, or fewer keys that count have signed it than what is here.
    """
    try:
        same = payload_of(brought) == text.encode()
    except WireError:
        same = False
    if not same:
        raise ConflictError("this is not the grant of this roll-out; write it anew with 'rollout grant'")
    if signatures_of(connection, brought) <= signatures_of(connection, envelope):
        raise ConflictError("no release key that counts has signed it besides; 'scanside-fleet key list' shows them")
    return brought


def signatures_of(connection: Connection, envelope: bytes | None) -> int:
    """How many release keys that count have signed it."""
    if envelope is None:
        return 0
    try:
        return len(verify(envelope, GRANT_TYPE, keys_of(connection, "release")).keyids)
    except SignatureError:
        return 0


def is_signed(connection: Connection, envelope: bytes | None, threshold: int) -> bool:
    """Whether enough release keys have."""
    return signatures_of(connection, envelope) >= threshold
