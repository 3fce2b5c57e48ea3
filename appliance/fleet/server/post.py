"""Which jobs and desired documents go to which box, now or again.

Boxes that are away are not written to: each says what it has on every connect (``Post.answer``). What was published
and got lost goes again then. Whatever comes twice, a box knows by its id or its version.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from appliance.fleet.server import tables as t
from appliance.fleet.server.acks import Downlink
from appliance.fleet.server.acts import grant_of, is_complete, job_bytes, keys_for, renumber
from appliance.fleet.server.ingest import Asked
from appliance.fleet.server.registry import DeviceState
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import JOB_TYPE, TWIN_TYPE, TWO_SIGNATURES, Address, Down, Op
from appliance.fleet.wire_jobs import JobState

#: Sent so long ago and not heard of, though the box has taken later ones: it never came.
_LOST = timedelta(minutes=10)
#: Who was not heard for so long is not written to.
_THERE = timedelta(minutes=5)
_MOST_AT_ONCE = 500
#: So long what a box has is waited for.
_HEAR = timedelta(seconds=15)
#: Of a roll-out, while its installations go out.
_GOES_ON = ("RUNNING", "FINISHED")


class Post:
    """Finds what is to be sent. One in a server: it remembers which desired documents have gone."""

    def __init__(self, keys: ServerKeys, threshold: int = 1, *, hears_first: bool = False) -> None:
        """Send what ``keys`` signed and, where it must be, ``threshold`` release keys.

        Args:
            keys: The server's.
            threshold: How many release keys must have signed a change of models.
            hears_first: Let each box say what it has before it is written to, as all do when the broker starts with
                this server: one that was restored from a backup does not know their counters before. What a box said
                may get lost while the broker starts, so none is waited for long.
        """
        self._keys = keys
        self._threshold = threshold
        self._sent: dict[str, int] = {}
        self._hears_first = hears_first
        self._heard: set[str] = set()
        self._unheard_at: dict[str, datetime] = {}

    def waits(self, connection: Connection) -> bool:
        """Whether ``due`` may find anything; cheaper, and in a transaction of ``db.read``."""
        c, w = t.job.c, t.twin.c
        unsent = select(c.id).where(c.state == str(JobState.QUEUED), c.sent_at.is_(None), c.envelope.is_not(None))
        behind = select(w.device, w.dv).where(w.dv > w.applied_dv, or_(w.refused_dv.is_(None), w.refused_dv < w.dv))
        if connection.execute(unsent.limit(1)).first():
            return True
        return any(self._sent.get(row.device, 0) < row.dv for row in connection.execute(behind))

    def due(self, connection: Connection, now: datetime) -> list[Downlink]:
        """Of boxes that are there: jobs that have not gone, and newer documents. Marks them as sent.

        Args:
            connection: Of ``db.write``; commit before publishing: what is lost then goes again on the next connect.
            now: The server's clock.
        """
        is_there = and_(t.status.c.online.is_(True), t.status.c.last_seen_at > now - _THERE)
        found = self._jobs(connection, now, and_(is_there, t.job.c.sent_at.is_(None)))
        c = t.twin.c
        behind = and_(c.dv > c.applied_dv, or_(c.refused_dv.is_(None), c.refused_dv < c.dv))
        rows = connection.execute(
            select(c.device, c.dv, t.device.c.tenant)
            .join(t.device, t.device.c.id == c.device)
            .join(t.status, t.status.c.device == c.device)
            .where(behind, is_there, t.device.c.state == str(DeviceState.ENROLLED))
        )
        fresh = [row for row in rows if self._sent.get(row.device, 0) < row.dv and self._may(row.device, now)]
        fresh = fresh[:_MOST_AT_ONCE]
        return found + [self._twin(connection, Address(row.tenant, row.device)) for row in fresh]

    def answer(self, connection: Connection, asked: Asked, now: datetime) -> list[Downlink]:
        """A box has connected and says what it has: whatever is newer goes, again or for the first time.

        A job that it never took, though its counter has passed, is given another one: the server was restored from a
        backup, or the broker lost it.
        """
        address, get = asked.address, asked.get
        self._heard.add(address.device)
        c = t.job.c
        lost = and_(
            c.device == address.device,
            c.state == str(JobState.QUEUED),
            c.state_version == 0,
            c.ctr <= get.ctr,
            c.expires_at > now,
            or_(c.sent_at.is_(None), c.sent_at < now - _LOST),
            c.envelope.is_not(None),
        )
        for row in connection.execute(select(t.job).where(lost).order_by(c.ctr)).all():
            # A release signature is of one counter: who gave it is asked again. A grant is of a whole roll-out.
            again = None
            if row.op not in TWO_SIGNATURES or grant_of(row.envelope) is not None:
                again = self._keys.sign(JOB_TYPE, job_bytes(renumber(connection, row, now)))
            connection.execute(update(t.job).where(c.id == row.id).values(envelope=again, sent_at=None))
        found = self._jobs(connection, now, and_(c.device == address.device, c.ctr > get.ctr))
        twin = connection.execute(select(t.twin.c.dv).where(t.twin.c.device == address.device)).scalar_one_or_none()
        if twin is not None and twin > get.dv:
            found.append(self._twin(connection, address))
        return found

    def _jobs(self, connection: Connection, now: datetime, which: ColumnElement[bool]) -> list[Downlink]:
        c = t.job.c
        rows = connection.execute(
            select(c.id, c.device, c.op, c.envelope, t.device.c.tenant)
            .join(t.device, t.device.c.id == c.device)
            .outerjoin(t.status, t.status.c.device == c.device)
            .outerjoin(t.roll_out, t.roll_out.c.id == c.roll_out)
            .where(
                which,
                # What a roll-out that stands still had made for boxes that were away stays here.
                or_(c.roll_out.is_(None), c.op != str(Op.MODEL_INSTALL), t.roll_out.c.state.in_(_GOES_ON)),
                c.state == str(JobState.QUEUED),
                c.state_version == 0,
                c.envelope.is_not(None),
                c.expires_at > now,
                t.device.c.state == str(DeviceState.ENROLLED),
            )
            .order_by(c.device, c.ctr)
        ).all()
        trusted = {op: keys_for(connection, op) for op in {row.op for row in rows if row.op in TWO_SIGNATURES}}
        # Only then so many: those that may not go yet keep no other waiting.
        may_go = [row for row in rows if self._may(row.device, now)]
        ready = [row for row in may_go if is_complete(row.envelope, row.op, trusted.get(row.op, ()), self._threshold)]
        ready = ready[:_MOST_AT_ONCE]
        if ready:
            connection.execute(update(t.job).where(c.id.in_([row.id for row in ready])).values(sent_at=now))
        signed = [(row, self._keys.sign_too(JOB_TYPE, row.envelope)) for row in ready]
        return [Downlink(Address(row.tenant, row.device), Down.JOB, envelope) for row, envelope in signed]

    def _may(self, device: str, now: datetime) -> bool:
        if not self._hears_first or device in self._heard:
            return True
        return now - self._unheard_at.setdefault(device, now) >= _HEAR

    def _twin(self, connection: Connection, address: Address) -> Downlink:
        row = connection.execute(select(t.twin.c.dv, t.twin.c.envelope).where(t.twin.c.device == address.device)).one()
        self._sent[address.device] = row.dv
        return Downlink(address, Down.TWIN, self._keys.sign_too(TWIN_TYPE, row.envelope))
