"""The wall clock against the monotonic one: a jump is journalled, because times in records are for people (T35)."""

from __future__ import annotations

from appliance.clock import Clock
from appliance.store import Store
from appliance.store.facts.box import ClockJumped
from appliance.store.retention import note_clock_jump

#: Smaller steps are the ordinary work of NTP.
_JUMP_S = 2.0


class ClockJumpCheck:
    """Writes CLOCK_JUMPED; nothing of the box measures by the wall clock."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Compare from now on."""
        self._store = store
        self._clock = clock
        self._offset = self._read()

    def run(self) -> None:
        """Look once."""
        offset = self._read()
        if abs(offset - self._offset) > _JUMP_S:
            with self._store.db.write() as tx:
                tx.journal(ClockJumped(by_s=round(offset - self._offset, 3)))
                note_clock_jump(tx, offset - self._offset)
        self._offset = offset

    def _read(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
