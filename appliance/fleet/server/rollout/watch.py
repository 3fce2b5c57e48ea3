"""How each box of a roll-out fares: one look at the rows, and one pure rule over what they say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, select

from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Presence, presence
from appliance.fleet.server.rollout.plan import BoxWord, Plan
from appliance.fleet.wire_jobs import ENDED, JobState

_BY_STATE = {
    JobState.SUCCEEDED: BoxWord.SUCCEEDED,
    JobState.ALREADY_INSTALLED: BoxWord.HAD_IT,
    JobState.FAILED: BoxWord.FAILED,
    JobState.ROLLED_BACK: BoxWord.ROLLED_BACK,
    JobState.CANCELED: BoxWord.CANCELED,
    JobState.TIMED_OUT: BoxWord.TIMED_OUT,
    JobState.REMOVED: BoxWord.FAILED,
    JobState.WAIT_APPROVAL: BoxWord.ASKED_SITE,
    JobState.SOAKING: BoxWord.SOAKING,
}
#: Codes with which a box refuses a job and nothing is wrong with the version.
_DECLINED = frozenset({"REFUSED_BY_SITE"})
_NOT_NOW = frozenset({"WINDOW", "HELD", "EXPIRED", "NOT_YET", "NONCE", "NO_CLOCK"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box of a roll-out, with its job. ``state`` "": it has none."""

    device: str
    number: int
    name: str
    site: str
    tenant: str
    is_enrolled: bool
    presence: Presence
    wave: int
    left_out: str
    before: dict[str, Any] | None
    job: str | None
    state: str
    code: str
    percent: float | None
    is_sent: bool
    made_at: datetime | None
    state_at: datetime | None
    expires_at: datetime | None
    revert_job: str | None
    revert_op: str
    revert_state: str
    word: BoxWord


def word_of(
    state: str, code: str, left_out: str, made_at: datetime | None, state_at: datetime | None, plan: Plan, now: datetime
) -> BoxWord:
    """How a box fares.

    Args:
        state: Of its job; "": it has none.
        code: With which that came there.
        left_out: ``LeftOut``, or "".
        made_at: When the job was made.
        state_at: When it came there.
        plan: With the time that a box is given, and patience.
        now: The server's clock.
    """
    if not state:
        return BoxWord.LEFT_OUT if left_out else BoxWord.WAITING
    if state == JobState.REJECTED:
        if code in _DECLINED:
            return BoxWord.DECLINED
        return BoxWord.TIMED_OUT if code in _NOT_NOW else BoxWord.FAILED
    word = _BY_STATE.get(JobState(state), BoxWord.PENDING if state == JobState.QUEUED else BoxWord.WORKING)
    if word is BoxWord.SOAKING:
        is_late = state_at is not None and now - state_at > timedelta(hours=plan.soak_h + plan.patience_h)
        return BoxWord.SOAK_NOT_JUDGED if is_late else word
    if JobState(state) not in ENDED and made_at is not None and now - made_at > timedelta(hours=plan.timeout_h):
        return BoxWord.TIMED_OUT
    return word


def boxes_of(connection: Connection, roll_out: Any, now: datetime) -> list[Box]:
    """All of a roll-out, by number.

    Args:
        connection: Any transaction.
        roll_out: Its row.
        now: The server's clock.
    """
    plan = Plan.model_validate(roll_out.plan)
    w, d, j = t.wave_device.c, t.device.c, t.job.c
    back = t.job.alias("back")
    rows = connection.execute(
        select(
            w.device,
            d.number,
            d.name,
            d.site,
            d.tenant,
            d.state.label("registry"),
            t.status.c.online,
            t.status.c.due_at,
            t.status.c.last_seen_at,
            w.wave,
            w.left_out,
            w.before,
            w.job,
            w.revert_job,
            j.state,
            j.code,
            j.percent,
            j.sent_at,
            j.made_at,
            j.state_at,
            j.expires_at,
            back.c.op.label("revert_op"),
            back.c.state.label("revert_state"),
        )
        .join(t.device, d.id == w.device)
        .outerjoin(t.status, t.status.c.device == w.device)
        .outerjoin(t.job, j.id == w.job)
        .outerjoin(back, back.c.id == w.revert_job)
        .where(w.roll_out == roll_out.id)
        .order_by(d.number)
    )
    return [_box(row, plan, now) for row in rows]


def tally(connection: Connection, roll_out: Any, now: datetime) -> dict[BoxWord, int]:
    """How many boxes of a roll-out fare how, counted by the database: lists have many roll-outs of many boxes."""
    plan = Plan.model_validate(roll_out.plan)
    given = timedelta(hours=plan.timeout_h)
    soak = timedelta(hours=plan.soak_h + plan.patience_h)
    w, j = t.wave_device.c, t.job.c
    is_late = case((j.made_at < now - given, 1), else_=0).label("is_late")
    is_slow = case((j.state_at < now - soak, 1), else_=0).label("is_slow")
    rows = connection.execute(
        select(j.state, j.code, w.left_out, is_late, is_slow, func.count().label("n"))
        .select_from(t.wave_device)
        .outerjoin(t.job, j.id == w.job)
        .where(w.roll_out == roll_out.id)
        .group_by(j.state, j.code, w.left_out, is_late, is_slow)
    )
    found: dict[BoxWord, int] = {}
    moment = timedelta(seconds=1)
    for row in rows:
        made = now - given - moment if row.is_late else now
        came = now - soak - moment if row.is_slow else now
        word = word_of(row.state or "", row.code or "", row.left_out, made, came, plan, now)
        found[word] = found.get(word, 0) + row.n
    return found


def _box(row: Any, plan: Plan, now: datetime) -> Box:
    names = ("device", "number", "name", "site", "tenant", "wave", "left_out", "before", "job", "percent", "made_at")
    state = row.state or ""
    return Box(
        **{name: getattr(row, name) for name in names},
        is_enrolled=row.registry == "enrolled",
        presence=presence(row, now),
        state=state,
        code=row.code or "",
        is_sent=row.sent_at is not None,
        state_at=row.state_at,
        expires_at=row.expires_at,
        revert_job=row.revert_job,
        revert_op=row.revert_op or "",
        revert_state=row.revert_state or "",
        word=word_of(state, row.code or "", row.left_out, row.made_at, row.state_at, plan, now),
    )
