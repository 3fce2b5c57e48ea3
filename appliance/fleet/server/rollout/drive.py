"""Takes roll-outs a step on: judges the wave that runs, stops or begins the next one, and tells boxes.

What is known lies in the database alone, and a step is one transaction: killed anywhere, it goes on where it was. A box
is told once, by the job that its row names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from appliance.errors import ApplianceError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import make_job
from appliance.fleet.server.registry import Presence, Scope, write_audit
from appliance.fleet.server.rollout.gates import OPEN, Facts, Judged, Seen, is_settled, judge, verdict_of_wave
from appliance.fleet.server.rollout.granting import is_signed
from appliance.fleet.server.rollout.holding import held_devices
from appliance.fleet.server.rollout.plan import BoxWord, Gate, LeftOut, Pause, Plan, RollOutState, WaveState
from appliance.fleet.server.rollout.results import before_of, engines_of, strata_of, times_of
from appliance.fleet.server.rollout.watch import Box, boxes_of
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import JobArgs, Op
from appliance.fleet.wire_grant import payload_of, read_grant
from appliance.fleet.wire_jobs import ENDED, JobState

log = logging.getLogger(__name__)

_MINUTE = timedelta(minutes=1)
_ALL = frozenset(Gate)
#: Reading results takes at most one part in so many of the time.
_SHARE = 20
_EVERYTHING = Scope.everything()
_MOVES = (str(RollOutState.RUNNING), str(RollOutState.REVERTING))
#: What is taken back by going back or by withdrawing; before these nothing runs yet.
_IN_SERVICE = frozenset({JobState.ACTIVATING, JobState.SOAKING, JobState.SUCCEEDED})


class Driver:
    """One in a server. It remembers nothing but when it last read results."""

    def __init__(self, keys: ServerKeys, threshold: int = 1, *, look_s: float = 2.0) -> None:
        """Sign with ``keys``.

        Args:
            keys: The server's.
            threshold: How many release keys must have signed a grant.
            look_s: Results of a wave are read so often, and more rarely where that takes long; boxes in every step.
        """
        self._keys = keys
        self._threshold = threshold
        self._look = timedelta(seconds=look_s)
        #: By roll-out and wave: when results were read, what was found, and for how long it does.
        self._looked: dict[tuple[str, int], tuple[datetime, dict[str, Any], timedelta]] = {}

    def waits(self, connection: Connection, now: datetime) -> bool:
        """Whether ``step`` or ``end_holds`` may find anything; in a transaction of ``db.read``."""
        c = t.hold.c
        runs = select(t.roll_out.c.id).where(t.roll_out.c.state.in_(_MOVES))
        over = select(c.number).where(c.lifted_at.is_(None), c.until_at <= now)
        return any(connection.execute(one.limit(1)).first() is not None for one in (runs, over))

    def step(self, connection: Connection, now: datetime) -> bool:
        """Take every roll-out that runs or is taken back one step on; whether anything changed.

        One that cannot be taken on stays as it was, and keeps no other back.

        Args:
            connection: Of ``db.write``, one transaction for this step.
            now: The server's clock.
        """
        rows = connection.execute(
            select(t.roll_out).where(t.roll_out.c.state.in_(_MOVES)).order_by(t.roll_out.c.id).with_for_update()
        ).all()
        self._looked = {key: seen for key, seen in self._looked.items() if any(row.id == key[0] for row in rows)}
        changed = False
        for row in rows:
            step = self._run if row.state == RollOutState.RUNNING else self._take_back
            try:
                with connection.begin_nested():
                    changed |= step(connection, row, now)
            except (ApplianceError, ValueError) as error:  # its documents are of another version, for one
                log.warning("fleet: roll-out %s is put off: %s", row.id, error)
        return changed

    # Forward -----------------------------------------------------------------------------------------------------

    def _run(self, connection: Connection, row: Row[Any], now: datetime) -> bool:
        if not row.wave:
            self._begin(connection, row, 1, now)
            return True
        plan = Plan.model_validate(row.plan)
        if not self._is_granted(connection, row, now):
            return self._pause(connection, row, Pause.GRANT, now)
        boxes = boxes_of(connection, row, now)
        changed = self._see_holds(connection, row, boxes, now)
        boxes = boxes_of(connection, row, now) if changed else boxes
        wave = connection.execute(select(t.wave).where(t.wave.c.roll_out == row.id, t.wave.c.number == row.wave)).one()
        mine = [one for one in boxes if one.wave == row.wave]
        judged, settled = self._judge(connection, row, wave, boxes, plan, now)
        told_at = max([one.made_at for one in mine if one.made_at] + [_from(wave)])
        patient = now - told_at < timedelta(hours=plan.soak_h + plan.patience_h)
        follows = verdict_of_wave(judged.verdicts, settled=settled, patient=patient)
        if isinstance(follows, Pause):
            return self._pause(connection, row, follows, now)
        if follows:
            self._next(connection, row, plan, now)
            return True
        return self._tell_boxes(connection, row, mine, plan, now) or changed

    def _judge(
        self, connection: Connection, row: Row[Any], wave: Row[Any], boxes: Sequence[Box], plan: Plan, now: datetime
    ) -> tuple[Judged, bool]:
        """What the gates say of the wave, which its row keeps."""
        kept = dict(wave.verdict or {})
        since = {Gate(name): datetime.fromisoformat(at) for name, at in kept.get("since", {}).items()}
        mine = [one for one in boxes if one.wave == row.wave]
        late = [
            one
            for one in boxes
            if 0 < one.wave < row.wave and one.state_at is not None and one.state_at >= wave.began_at
        ]
        facts = Facts(
            boxes=[_seen(one, since) for one in mine],
            late=[_seen(one, since) for one in late],
            looks=kept.get("looks", {}),
            accepted=frozenset(Gate(one) for one in kept.get("accepted", ())),
            **self._results(connection, row, wave, mine, since, now),
        )
        judged = judge(facts, plan.gates)
        verdicts = [one.model_dump(mode="json") for one in judged.verdicts]
        found = {**kept, "verdicts": verdicts, "looks": judged.looks}
        if found != kept:
            which = (t.wave.c.roll_out == row.id, t.wave.c.number == row.wave)
            connection.execute(update(t.wave).where(*which).values(verdict=found))
        return judged, is_settled(facts.boxes, plan.gates)

    def _results(
        self,
        connection: Connection,
        row: Row[Any],
        wave: Row[Any],
        boxes: Sequence[Box],
        since: dict[Gate, datetime],
        now: datetime,
    ) -> dict[str, Any]:
        """What boxes have told of the version; they tell it by the hour, so a short memory of it does."""
        seen = self._looked.get((row.id, row.wave))
        if seen is not None and timedelta() <= now - seen[0] < seen[2] and seen[0] >= _from(wave):
            return seen[1]
        began = time.monotonic()
        told = [one for one in boxes if one.job]
        found = {
            "strata": strata_of(connection, row, told, wave.began_at, since.get(Gate.ALERTS)),
            "times": times_of(connection, row, told, wave.began_at, since.get(Gate.LATENCY)),
            **engines_of(connection, row, told, since.get(Gate.ACCEPTANCE) or wave.began_at),
        }
        took = timedelta(seconds=time.monotonic() - began)
        self._looked[row.id, row.wave] = (now, found, max(self._look, _SHARE * took) if self._look else self._look)
        return found

    def _see_holds(self, connection: Connection, row: Row[Any], boxes: Sequence[Box], now: datetime) -> bool:
        """Boxes of this wave that were not told yet: those that are held now wait, those that are free again do not."""
        mine = [one for one in boxes if one.wave == row.wave and not one.job]
        held = held_devices(connection, now, [one.device for one in mine]) if mine else set()
        changed = False
        for one in mine:
            why = _why_not(one, one.device in held)
            if why != one.left_out:
                which = (t.wave_device.c.roll_out == row.id, t.wave_device.c.device == one.device)
                connection.execute(update(t.wave_device).where(*which).values(left_out=why))
                changed = True
        return changed

    def _tell_boxes(
        self, connection: Connection, row: Row[Any], boxes: Sequence[Box], plan: Plan, now: datetime
    ) -> bool:
        """Make jobs, no faster than the plan says."""
        waiting = [one for one in boxes if one.word is BoxWord.WAITING]
        room = self._room(connection, row, plan, now, Op.MODEL_INSTALL) if waiting else 0
        args = JobArgs(
            package=row.package,
            version=row.version,
            digest=row.digest,
            target=row.target,
            role=row.role,
            soak_h=plan.soak_h,
            soak_studies=plan.soak_studies,
            wait_h=plan.wait_h,
        )
        for one in waiting[:room]:
            before = before_of(connection, one.device, row.package, row.version, now)
            job = make_job(
                connection,
                self._keys,
                _EVERYTHING,
                one.device,
                Op.MODEL_INSTALL,
                args,
                now=now,
                by=row.made_by,
                actor="roll-out",
                life=timedelta(hours=plan.timeout_h),
                roll_out=row.id,
                wave=row.wave,
                grant=row.grant_envelope,
            )
            which = (t.wave_device.c.roll_out == row.id, t.wave_device.c.device == one.device)
            connection.execute(update(t.wave_device).where(*which).values(job=job.id, before=before))
        return room > 0

    def _room(self, connection: Connection, row: Row[Any], plan: Plan, now: datetime, *ops: Op) -> int:
        c = t.job.c
        last = select(func.count()).where(
            c.roll_out == row.id, c.made_at > now - _MINUTE, c.op.in_([str(op) for op in ops])
        )
        return max(0, plan.per_minute - int(connection.execute(last).scalar_one()))

    def _begin(self, connection: Connection, row: Row[Any], number: int, now: datetime) -> None:
        which = (t.wave.c.roll_out == row.id, t.wave.c.number == number)
        connection.execute(update(t.wave).where(*which).values(state=str(WaveState.RUNNING), began_at=now))
        connection.execute(update(t.roll_out).where(t.roll_out.c.id == row.id).values(wave=number))
        self._say(connection, "rollout.wave", row, now, {"wave": number})

    def _next(self, connection: Connection, row: Row[Any], plan: Plan, now: datetime) -> None:
        which = (t.wave.c.roll_out == row.id, t.wave.c.number == row.wave)
        connection.execute(update(t.wave).where(*which).values(state=str(WaveState.DONE), ended_at=now))
        if row.wave < len(plan.waves):
            self._begin(connection, row, row.wave + 1, now)
        else:
            self._move(connection, row, RollOutState.FINISHED, now)
            self._say(connection, "rollout.finish", row, now, {"wave": row.wave})

    def _pause(self, connection: Connection, row: Row[Any], why: Pause, now: datetime) -> bool:
        self._move(connection, row, RollOutState.PAUSED, now, paused_why=str(why))
        self._say(connection, "rollout.stop", row, now, {"wave": row.wave, "gate": str(why)})
        log.warning("fleet: roll-out %s stands still in wave %d: %s", row.id, row.wave, why)
        return True

    def _is_granted(self, connection: Connection, row: Row[Any], now: datetime) -> bool:
        """Whether the grant still opens jobs: in time, and signed by keys that count."""
        if not is_signed(connection, row.grant_envelope, self._threshold):
            return False
        return read_grant(payload_of(row.grant_envelope)).exp > now.timestamp() * 1000

    # Back --------------------------------------------------------------------------------------------------------

    def _take_back(self, connection: Connection, row: Row[Any], now: datetime) -> bool:
        """The last wave first. Where the grant is over, release keys sign each job (``job approve --roll-out``)."""
        plan = Plan.model_validate(row.plan)
        boxes = sorted(boxes_of(connection, row, now), key=lambda one: (-one.wave, one.number))
        todo = [(one, op) for one in boxes if one.is_enrolled and (op := _way_back(one, row.role)) is not None]
        granted = self._is_granted(connection, row, now)
        room = self._room(connection, row, plan, now, Op.MODEL_ROLLBACK, Op.MODEL_WITHDRAW) if todo else 0
        for one, op in todo[:room]:
            self._send_back(connection, row, one, op, now, grant=row.grant_envelope if granted else None)
        if not todo and all(_is_back(one) for one in boxes):
            self._move(connection, row, RollOutState.REVERTED, now)
            states: dict[str, int] = {}
            for one in boxes:
                if one.revert_job:
                    states[one.revert_state] = states.get(one.revert_state, 0) + 1
            self._say(connection, "rollout.reverted", row, now, {"jobs": states})
            return True
        return room > 0

    def _send_back(
        self, connection: Connection, row: Row[Any], one: Box, op: Op, now: datetime, *, grant: bytes | None
    ) -> None:
        if op is Op.MODEL_ROLLBACK:
            args = JobArgs(package=row.package, version=str((one.before or {})["version"]))
        else:
            args = JobArgs(package=row.package, version=row.version, digest=row.digest)
        job = make_job(
            connection,
            self._keys,
            _EVERYTHING,
            one.device,
            op,
            args,
            now=now,
            by=row.made_by,
            actor="roll-out",
            roll_out=row.id,
            wave=one.wave,
            grant=grant,
        )
        which = (t.wave_device.c.roll_out == row.id, t.wave_device.c.device == one.device)
        connection.execute(update(t.wave_device).where(*which).values(revert_job=job.id))

    # Parts -------------------------------------------------------------------------------------------------------

    def _move(self, connection: Connection, row: Row[Any], to: RollOutState, now: datetime, **values: Any) -> None:
        which = t.roll_out.c.id == row.id
        connection.execute(update(t.roll_out).where(which).values(state=str(to), state_at=now, **values))

    def _say(self, connection: Connection, act: str, row: Row[Any], now: datetime, detail: dict[str, Any]) -> None:
        write_audit(connection, act=act, subject=row.id, actor="system", tenant_id=row.tenant, now=now, detail=detail)


def _from(wave: Row[Any]) -> datetime:
    """When patience began: with the wave, or with the person who went on."""
    began: datetime = wave.began_at
    resumed = (wave.verdict or {}).get("from")
    return began if resumed is None else max(began, datetime.fromisoformat(resumed))


def _seen(one: Box, since: dict[Gate, datetime]) -> Seen:
    counts = _ALL
    if since:
        counts = frozenset(
            gate for gate in Gate if gate not in since or (one.state_at is not None and one.state_at >= since[gate])
        )
    # Nobody hears a box that was disabled meanwhile; what it had ended with counts.
    word = BoxWord.LEFT_OUT if not one.is_enrolled and one.word in OPEN else one.word
    return Seen(word, one.code, one.presence is Presence.ONLINE, counts)


def _why_not(one: Box, held: bool) -> str:  # noqa: FBT001 - of a fact
    if not one.is_enrolled:
        return str(LeftOut.REPLACED if one.left_out == LeftOut.REPLACED else LeftOut.NOT_ENROLLED)
    return str(LeftOut.HELD) if held else ""


def _way_back(one: Box, role: str) -> Op | None:
    """What takes the version back where a box has it, or may still get it; None: nothing, or it was told."""
    if one.revert_job:
        if one.revert_state == JobState.TIMED_OUT:
            return Op(one.revert_op)  # it was away for longer than the job held: until it answers, or is disabled
        # It could not go back (nothing to go back to, another version serves): then out of service with it.
        is_stuck = one.revert_op == Op.MODEL_ROLLBACK and one.revert_state == JobState.FAILED
        return Op.MODEL_WITHDRAW if is_stuck else None
    if not one.job or not one.is_sent or not one.state:
        return None
    state = JobState(one.state)
    if state in _IN_SERVICE:
        return Op.MODEL_ROLLBACK if role == "live" and (one.before or {}).get("version") else Op.MODEL_WITHDRAW
    # Given up here, it may have begun and not have been able to tell.
    return Op.MODEL_WITHDRAW if state is JobState.TIMED_OUT or state not in ENDED else None


def _is_back(one: Box) -> bool:
    return not one.revert_job or not one.is_enrolled or JobState(one.revert_state) in ENDED
