"""What comes from the server, by the network or on a stick: checked the same way, kept, and only then done.

The broker is not trusted and neither is the stick. What our server has not signed does nothing but raise an issue; what
it has signed and we refuse becomes a rejected job, so that it learns why.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from appliance.clock import Clock
from appliance.errors import ConfigError
from appliance.fleet.device.grant import why_not_released
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.twin import MOST_AHEAD, TwinDesk
from appliance.fleet.keys import KeyFault
from appliance.fleet.wire import (
    HARMLESS,
    JOB_TYPE,
    MAX_PACKED_BYTES,
    NOT_PERMITTED,
    TWIN_TYPE,
    Desired,
    Id,
    Job,
    Message,
    Op,
    Reported,
    Ulid,
    WireError,
)
from appliance.fleet.wire_jobs import JobState, args_fit
from appliance.fleet.wire_records import Clk
from appliance.records import Severity
from appliance.store import Store
from appliance.store.fleet_jobs import JobRow, NewJob, Taken
from appliance.store.fleet_twin import TwinRules, fresh_nonce
from engines.errors import SignatureError
from engines.signing import parse_strict, verify

log = logging.getLogger(__name__)

#: Bytes came in the server's name that it has not signed.
FORGED = "FLEET_FORGED"
#: The server's clock may be so far before ours.
_SKEW_MS = 300_000
#: More jobs than these wait for nothing.
_MOST_OPEN = 50
#: What ends a danger, and what whoever has the server's key alone cannot make: no flood of others keeps it out.
_ALWAYS_ROOM = frozenset({Op.MODEL_WITHDRAW, Op.ROOT_UPDATE})
_KEPT = timedelta(days=366)
_QUIET_S = 86_400.0
_TIDY_S = 3600.0


class _Head(Message):
    """What a job of any version has."""

    id: Ulid
    aud: Id
    ctr: int = Field(ge=1, le=2**53)
    op: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,47}$")


class Inbox:
    """One box's. ``mail`` calls it from the link's thread, ``scanside fleet import`` from a process of its own."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        folder: Path,
        clk: Callable[[], Clk],
        rules: TwinRules,
        *,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep what comes in ``store``.

        Args:
            store: The box's.
            clock: The wall clock decides what has expired; the other one paces.
            folder: Of the identity, whose keys count.
            clk: How far the wall clock is to be trusted.
            rules: What a desired document may do here.
            wake: Called when there is a job.
        """
        self._store = store
        self._clock = clock
        self._folder = folder
        self._clk = clk
        self._wake = wake
        self._identity: Identity | None = None
        self._twin = TwinDesk(store, rules)
        #: How often what was refused, by code; ``FORGED`` and ``REPEATED`` among them.
        self.refused: Counter[str] = Counter()
        now = clock.monotonic()
        self._forged_at = now
        self._tidied_at = now - _TIDY_S

    # For the link ----------------------------------------------------------------------------------------------

    @property
    def dv(self) -> int:
        """Version of the desired document that the box has answered."""
        return self._twin.state.dv

    @property
    def ctr(self) -> int:
        """Highest counter of a job that it took."""
        return self._store.fleet_jobs.ctr

    def reported(self) -> Reported | None:
        """What the box made of the last desired document; None before the first."""
        return self._twin.reported()

    def desired(self) -> Desired:
        """The document that holds."""
        return self._twin.desired()

    def take_twin(self, envelope: bytes) -> None:
        """A desired document came.

        Raises:
            SignatureError: The server has not signed it.
            WireError: It is no desired document, for another device, or older than the one that holds.
        """
        payload, identity = self._opened(envelope, TWIN_TYPE)
        self._twin.take(payload, identity.enrolment.device)

    def take_job(self, envelope: bytes) -> JobRow | None:
        """A job came.

        Returns:
            Its row, where it is new: ACCEPTED, or REJECTED with a code. None: it was here before.

        Raises:
            SignatureError: The server has not signed it.
            WireError: It is no job, for another device, or was sent again under an old counter.
        """
        payload, identity = self._opened(envelope, JOB_TYPE)
        head = _Head.unpack(payload)
        if head.aud != identity.enrolment.device:
            self.refused["AUDIENCE"] += 1
            raise WireError("the job is for another device")
        if head.ctr > self.ctr + MOST_AHEAD:
            self.refused["AHEAD"] += 1
            raise WireError("the job's counter is far above the last one")
        code = self._why_not(envelope, payload, identity)
        state = JobState.REJECTED if code else JobState.ACCEPTED
        new = NewJob(id=head.id, ctr=head.ctr, op=head.op, envelope=envelope)
        taken = self._store.fleet_jobs.take(new, state, code)
        if taken is Taken.KNOWN:
            self.refused["REPEATED"] += 1
            return None
        if taken is Taken.REPLAYED:
            self.refused["REPLAYED"] += 1
            raise WireError("the job's counter is not above the last one")
        if code:
            self.refused[code] += 1
            log.warning("fleet: job %d (%s) is refused: %s", head.ctr, head.op, code)
        else:
            log.info("fleet: job %d (%s) is accepted", head.ctr, head.op)
            self._wake()
        return self._store.fleet_jobs.get(head.id)

    # For others ------------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Who we are and whose keys count, as the files say now.

        Raises:
            ConfigError: The box is not enrolled, or its files are damaged.
            KeyFault: The same, of a key.
        """
        if self._identity is None or self._identity.is_stale():
            self._identity = Identity.load(self._folder)
        return self._identity

    def nonce(self) -> str:
        """What a job must name where the box cannot tell the time."""
        return fresh_nonce(self._store.db, secrets.token_hex(16))

    def tidy(self) -> None:
        """Let a year-old jobs go, and the issue where nobody forged anything for a day. Cheap between times."""
        now = self._clock.monotonic()
        if now - self._tidied_at < _TIDY_S:
            return
        self._tidied_at = now
        self._store.fleet_jobs.forget(self._clock.now() - _KEPT)
        if now - self._forged_at >= _QUIET_S:
            self._store.issues.clear(FORGED, "")

    def _opened(self, envelope: bytes, kind: str) -> tuple[bytes, Identity]:
        if len(envelope) > MAX_PACKED_BYTES:
            raise WireError(f"an envelope of more than {MAX_PACKED_BYTES} bytes")
        try:
            identity = self.identity
        except (ConfigError, KeyFault) as error:
            raise WireError("this box cannot tell whose keys count; its identity is damaged") from error
        try:
            return verify(envelope, kind, identity.online).payload, identity
        except SignatureError:
            self.refused["FORGED"] += 1
            self._forged_at = self._clock.monotonic()
            self._store.issues.raise_(FORGED, "", Severity.FAULT)
            raise

    def _why_not(self, envelope: bytes, payload: bytes, identity: Identity) -> str:
        """The code for which a job that the server signed is refused; empty: it is taken."""
        try:
            job = Job.model_validate(parse_strict(payload))
        except (ValidationError, ValueError):
            return "NOT_UNDERSTOOD"  # a newer server's
        if job.op in NOT_PERMITTED:
            return "NOT_PERMITTED"
        code = why_not_released(envelope, job, identity, self._clk(), self._clock.now())
        return code or self._untimely(job) or self._unfit(job)

    def _untimely(self, job: Job) -> str:
        if self._clk() == "none":
            is_mine = bool(job.nonce) and job.nonce == self._store.fleet.state("nonce")
            return "" if job.op in HARMLESS or is_mine else "NONCE"
        now = self._clock.now().timestamp() * 1000
        if now > job.exp:
            return "EXPIRED"
        return "NOT_YET" if now < job.nbf - _SKEW_MS else ""

    def _unfit(self, job: Job) -> str:
        if not args_fit(job):
            return "ARGS"
        is_full = len(self._store.fleet_jobs.open()) >= _MOST_OPEN
        return "TOO_MANY" if is_full and job.op not in _ALWAYS_ROOM else ""


def job_of(row: JobRow) -> Job:
    """The job of a row; its signature was checked when it came."""
    text = str(parse_strict(row.envelope)["payload"])
    return Job.unpack(base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"})))
