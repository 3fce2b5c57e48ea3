"""Another machine in a box's place: what stood over the old one stands over the new one, and nobody waits for the old.

A desired document is signed for one box, so that of the new one is made by who has the server's key (``heirs``).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, and_, select, update

from appliance.fleet.server import tables as t
from appliance.fleet.server.db import insert_new
from appliance.fleet.wire_jobs import ENDED, JobState

#: Of jobs that nobody will ever do, and of boxes in a roll-out.
REPLACED = "REPLACED"
#: Roll-outs that may still tell a box something.
_GO_ON = ("DRAFT", "WAITING_APPROVAL", "READY", "RUNNING", "PAUSED")


def inherit(connection: Connection, old: str, new: str, now: datetime) -> None:
    """Give ``new`` the holds and the places in roll-outs of ``old``, and end what ``old`` was asked to do."""
    j, h = t.job.c, t.hold.c
    goes_on = and_(j.device == old, j.state.not_in([str(state) for state in ENDED]))
    ended = {"state": str(JobState.CANCELED), "code": REPLACED, "state_at": now}
    connection.execute(update(t.job).where(goes_on).values(**ended))
    connection.execute(update(t.hold).where(h.device == old, h.lifted_at.is_(None)).values(device=new))
    _take_places(connection, old, new)


def _take_places(connection: Connection, old: str, new: str) -> None:
    """In the wave of the old box, or, where that is over, in the one that runs."""
    w, r = t.wave_device.c, t.roll_out.c
    rows = connection.execute(
        select(w.roll_out, w.wave, r.wave.label("runs"))
        .join(t.roll_out, r.id == w.roll_out)
        .where(w.device == old, r.state.in_(_GO_ON))
    ).all()
    for row in rows:
        mine = and_(w.roll_out == row.roll_out, w.device == old, w.job.is_(None))
        connection.execute(update(t.wave_device).where(mine).values(left_out=REPLACED))
        if row.wave:  # 0: it was chosen for none
            place = {"roll_out": row.roll_out, "device": new, "wave": max(row.wave, row.runs), "left_out": ""}
            insert_new(connection, t.wave_device, [place])
