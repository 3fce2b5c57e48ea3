"""What boxes are still to be told: batches that are committed, gathered for each box and signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from appliance.fleet.server.ingest import Outcome
from appliance.fleet.wire import ACK_TYPE, Ack, Address, Down
from engines.signing import PrivateKey, sign

#: A box hears of its batches at once, and then at most so often.
_EVERY_S = 1.0
_MOST_IDS = 100


@dataclass(frozen=True, slots=True)
class Downlink:
    """A signed message for a box."""

    address: Address
    name: Down
    payload: bytes


@dataclass(slots=True)
class _Pending:
    ids: dict[str, None] = field(default_factory=dict)
    resend_after: int | None = None


class AckDesk:
    """Acknowledgements of one process. What it forgets when it dies is sent again by the box, and told then."""

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        """Sign with the server's online keys."""
        self._keys = keys
        self._pending: dict[tuple[Address, str], _Pending] = {}
        self._told_at: dict[Address, float] = {}
        self._greeted: set[tuple[str, str]] = set()

    def add(self, outcome: Outcome) -> None:
        """Take in what was committed, and nothing else."""
        for (address, stream), owed in outcome.owed.items():
            if (address.device, stream) not in self._greeted:
                self._greeted.add((address.device, stream))
                # This server may have been restored while the box stayed with its broker and said no more what it has.
                # Once is enough: what is missing comes, and what is here is not asked for.
                if owed.first is not None and owed.first > owed.top + 1:
                    owed.ask(owed.top)
            if not owed.batches and owed.resend_after is None:
                continue
            pending = self._pending.setdefault((address, stream), _Pending())
            pending.ids |= dict.fromkeys(owed.batches)
            if owed.resend_after is not None:
                before = pending.resend_after
                pending.resend_after = owed.resend_after if before is None else min(before, owed.resend_after)

    def due(self, mono: float, now: datetime, *, hold_ms: int = 0) -> list[Downlink]:
        """What is to be sent now.

        Args:
            mono: Of a clock that never goes back.
            now: The server's clock, which boxes measure theirs against.
            hold_ms: Ask for silence of so long.
        """
        ready = [key for key in self._pending if self._may(key[0], mono)]
        sent = []
        for address, stream in ready:
            pending = self._pending.pop((address, stream))
            ids = list(pending.ids)
            for first in range(0, max(1, len(ids)), _MOST_IDS):
                ack = Ack(
                    aud=address.device,
                    stream=stream,
                    b=tuple(ids[first : first + _MOST_IDS]),
                    st=int(now.timestamp() * 1000),
                    hold_ms=hold_ms,
                    resend_after=pending.resend_after,
                )
                payload = sign(ACK_TYPE, ack.model_dump_json(exclude_none=True).encode(), self._keys)
                sent.append(Downlink(address, Down.ACK, payload))
                pending.resend_after = None
            self._told_at[address] = mono
        if len(self._told_at) > 2 * len(ready) + 1000:
            self._told_at = {address: at for address, at in self._told_at.items() if mono - at < _EVERY_S}
        return sent

    def wait_s(self, mono: float) -> float | None:
        """Until the next is due; None where nothing waits."""
        if not self._pending:
            return None
        return max(0.0, min(self._told_at.get(key[0], 0.0) for key in self._pending) + _EVERY_S - mono)

    def _may(self, address: Address, mono: float) -> bool:
        at = self._told_at.get(address)
        return at is None or mono - at >= _EVERY_S
