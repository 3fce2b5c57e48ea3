"""A grant: what release keys sign for a whole roll-out, so that its waves need no release key on the server.

It opens jobs of one package, one version, one digest, for the tenants that it names, in its time: nothing else, and
never ``root.update``. A box checks it as the server does (``why_unfit``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationError

from appliance.fleet.wire import Id, Job, Message, Op, Ulid, WireError, strict_json
from appliance.fleet.wire_records import Digest, Name, Version
from engines.errors import SignatureError
from engines.signing import PublicKey, verify

#: DSSE payload type. A grant never passes for a job.
GRANT_TYPE = "application/vnd.scanside.grant.v1+json"
#: As text in a job.
MAX_GRANT = 16 * 1024
#: A clock may be so far behind that of whoever signed.
_SKEW_MS = 300_000

GrantOp = Literal["model.install", "model.rollback", "model.withdraw"]


class Grant(Message):
    """What was approved.

    Attributes:
        tenant: Whose roll-out it is.
        tenants: Whose boxes; empty: every tenant of this server.
        target: The name by which boxes fetch it (TUF).
        soak_h: An installation soaks for so long, and for
        soak_studies: so many studies: whoever has the server's key alone does not shorten it.
        nbf: Not before, UTC milliseconds.
        exp: Not after; no job under it holds longer.
        by: Account number of who made the roll-out.
    """

    id: Ulid
    tenant: Id
    tenants: tuple[Id, ...] = Field(default=(), max_length=500)
    package: Name
    version: Version
    digest: Digest
    target: str = Field(pattern=r"^[A-Za-z0-9._/-]{1,200}$")
    role: Literal["silent", "shadow", "live"]
    ops: tuple[GrantOp, ...] = Field(min_length=1, max_length=3)
    soak_h: float = Field(ge=0, le=720)
    soak_studies: int = Field(ge=0, le=100_000)
    nbf: int
    exp: int
    by: tuple[int, ...] = Field(default=(), max_length=4)


def grant_text(envelope: bytes) -> str:
    """An envelope as it stands in ``Job.grant``.

    Raises:
        WireError: It is too large for a job.
    """
    text = base64.b64encode(envelope).decode()
    if len(text) > MAX_GRANT:
        raise WireError(f"a grant of {len(text)} signs; a job has room for {MAX_GRANT}")
    return text


def grant_envelope(text: str) -> bytes:
    """The envelope in ``Job.grant``.

    Raises:
        SignatureError: It is no base64.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise SignatureError("the grant is no base64") from None


def open_grant(text: str, release: Sequence[PublicKey], threshold: int) -> Grant:
    """The grant in ``Job.grant``, which enough release keys have signed.

    Raises:
        SignatureError: They have not.
        WireError: It is no grant of this version: what a newer one narrows by a field of its own is not left out.
    """
    return read_grant(verify(grant_envelope(text), GRANT_TYPE, release, threshold=threshold).payload)


def payload_of(envelope: bytes) -> bytes:
    """What stands in an envelope of ours that was checked before.

    Raises:
        WireError: It is none.
    """
    try:
        text = str(strict_json(envelope)["payload"])
        return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}).encode("ascii"), validate=True)
    except (KeyError, TypeError, binascii.Error, UnicodeEncodeError):
        raise WireError("no envelope") from None


def read_grant(payload: bytes) -> Grant:
    """What was signed.

    Raises:
        WireError: It is no grant of this version.
    """
    try:
        return Grant.model_validate(strict_json(payload))
    except ValidationError as error:
        raise WireError(f"no grant of this version: {error.error_count()} faults") from None


def why_not_granted(job: Job, release: Sequence[PublicKey], threshold: int, tenant: str, now_ms: int | None) -> str:
    """The code for which the grant in a job does not open it; empty: it does.

    Args:
        job: That an online key has signed.
        release: Keys that count, none of which signs online too.
        threshold: How many of them must have signed.
        tenant: Whose box it is.
        now_ms: The time; None where nobody can tell it.
    """
    if job.grant is None:
        return "SIGNATURES"
    try:
        grant = open_grant(job.grant, release, threshold)
    except SignatureError:
        return "GRANT_FORGED"
    except WireError:
        return "GRANT_UNFIT"
    if why_unfit(grant, job, tenant):
        return "GRANT_UNFIT"
    if now_ms is None:
        return "NO_CLOCK"
    return "" if grant.nbf - _SKEW_MS <= now_ms <= grant.exp else "GRANT_EXPIRED"


def why_unfit(grant: Grant, job: Job, tenant: str) -> str:
    """In words, why a grant is not for this very job; empty: it is."""
    args = job.args
    if job.op not in grant.ops or job.op == Op.ROOT_UPDATE:
        return f"it does not open {job.op}"
    if grant.tenants and tenant not in grant.tenants:
        return "it is not for this tenant"
    if args.package != grant.package:
        return f"it is for {grant.package}"
    if job.exp > grant.exp:
        return "the job would hold longer than it"
    if job.op == Op.MODEL_ROLLBACK:
        # Away from what was granted, never back to it.
        return "it is no way back to its own version" if args.version == grant.version else ""
    if args.version != grant.version or args.digest != grant.digest:
        return f"it is for {grant.version} of digest {grant.digest[:12]}"
    if job.op == Op.MODEL_INSTALL:
        asked = (args.target, args.role or "live", args.soak_h, args.soak_studies)
        if asked != (grant.target, grant.role, grant.soak_h, grant.soak_studies):
            return "target, role or soak are not those that were approved"
    return ""
