"""Whether a job that changes models may be done: by release keys' own signatures, or by the grant of a roll-out."""

from __future__ import annotations

from datetime import datetime

from appliance.fleet.device.identity import Identity
from appliance.fleet.wire import JOB_TYPE, TWO_SIGNATURES, Job, Op
from appliance.fleet.wire_grant import grant_envelope, payload_of, read_grant, why_not_granted
from appliance.fleet.wire_records import Clk
from engines.errors import SignatureError
from engines.signing import verify


def why_not_released(envelope: bytes, job: Job, identity: Identity, clk: Clk, now: datetime) -> str:
    """The code for which a job that the server signed lacks the word of release keys; empty: it has it.

    A key that signs online too is nobody else's word. Keys of ours change by release keys' own signatures alone. Where
    the box cannot tell the time, it cannot tell whether a grant still holds.
    """
    if job.op not in TWO_SIGNATURES:
        return ""
    online = {key.raw for key in identity.online}
    release = [key for key in identity.release if key.raw not in online]
    threshold = identity.trust.release_threshold
    try:
        verify(envelope, JOB_TYPE, release, threshold=threshold)
    except SignatureError:
        if job.op == Op.ROOT_UPDATE:
            return "SIGNATURES"
        now_ms = None if clk == "none" else int(now.timestamp() * 1000)
        return why_not_granted(job, release, threshold, identity.enrolment.tenant, now_ms)
    return ""


def granted_version(job: Job) -> str | None:
    """The version that the grant in a job is about, checked when it came; None: it has none."""
    return None if job.grant is None else read_grant(payload_of(grant_envelope(job.grant))).version
