"""The one state machine of a job: what the box goes through, and what the server believes of it.

QUEUED > ACCEPTED > (WAIT_APPROVAL >) DOWNLOADING > VERIFIED > STAGED > SELFTEST > WAIT_IDLE > ACTIVATING > SOAKING >
SUCCEEDED; a job without an artefact goes from ACCEPTED to SUCCEEDED or FAILED.
"""

from __future__ import annotations

from appliance.errors import ConflictError
from appliance.fleet.wire import Job, Op
from appliance.records import Word


class JobState(Word):
    """Where a job stands."""

    QUEUED = "QUEUED"
    ACCEPTED = "ACCEPTED"
    WAIT_APPROVAL = "WAIT_APPROVAL"
    DOWNLOADING = "DOWNLOADING"
    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    SELFTEST = "SELFTEST"
    WAIT_IDLE = "WAIT_IDLE"
    ACTIVATING = "ACTIVATING"
    SOAKING = "SOAKING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"
    REMOVED = "REMOVED"
    ALREADY_INSTALLED = "ALREADY_INSTALLED"


ENDED = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.ROLLED_BACK,
        JobState.REJECTED,
        JobState.CANCELED,
        JobState.TIMED_OUT,
        JobState.REMOVED,
        JobState.ALREADY_INSTALLED,
    }
)
#: Before anything is changed.
_BEFORE = frozenset({JobState.REJECTED, JobState.CANCELED, JobState.TIMED_OUT, JobState.FAILED})

#: From each state, where a job may go.
NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.ACCEPTED, JobState.REMOVED, *_BEFORE}),
    JobState.ACCEPTED: frozenset(
        {JobState.WAIT_APPROVAL, JobState.DOWNLOADING, JobState.ALREADY_INSTALLED, JobState.SUCCEEDED, *_BEFORE}
    ),
    # To itself: somebody of the site said yes.
    JobState.WAIT_APPROVAL: frozenset({JobState.WAIT_APPROVAL, JobState.DOWNLOADING, JobState.SUCCEEDED, *_BEFORE}),
    JobState.DOWNLOADING: frozenset({JobState.DOWNLOADING, JobState.VERIFIED, *_BEFORE}),
    JobState.VERIFIED: frozenset({JobState.STAGED, *_BEFORE}),
    JobState.STAGED: frozenset({JobState.SELFTEST, *_BEFORE}),
    JobState.SELFTEST: frozenset({JobState.WAIT_IDLE, JobState.FAILED, JobState.TIMED_OUT}),
    JobState.WAIT_IDLE: frozenset({JobState.ACTIVATING, JobState.REJECTED, JobState.FAILED}),
    JobState.ACTIVATING: frozenset({JobState.SOAKING, JobState.SUCCEEDED, JobState.ROLLED_BACK}),
    JobState.SOAKING: frozenset({JobState.SUCCEEDED, JobState.ROLLED_BACK}),
    **{state: frozenset() for state in ENDED},
}

#: Which arguments an op needs, and which others it may have; an op that is not here takes none.
_ARGS: dict[Op, tuple[frozenset[str], frozenset[str]]] = {
    Op.MODEL_INSTALL: (
        frozenset({"package", "version", "digest", "target"}),
        frozenset({"role", "soak_h", "soak_studies", "wait_h"}),
    ),
    Op.MODEL_ROLLBACK: (frozenset({"package"}), frozenset({"version"})),
    Op.MODEL_WITHDRAW: (frozenset({"package", "version"}), frozenset({"digest"})),
    Op.RESEND: (frozenset({"after_seq"}), frozenset()),
    Op.COLLECT_LOGS: (frozenset({"upload"}), frozenset()),
}


def check_step(before: JobState, after: JobState) -> None:
    """Refuse a step that the machine does not have.

    Raises:
        ConflictError: A job never goes that way.
    """
    if after not in NEXT[before]:
        raise ConflictError(f"a job that is {before} cannot become {after}")


def args_fit(job: Job) -> bool:
    """Whether a job has the arguments of its op and no others."""
    needed, allowed = _ARGS.get(job.op, (frozenset(), frozenset()))
    given = {name for name, value in job.args if value is not None}
    return needed <= given <= needed | allowed
