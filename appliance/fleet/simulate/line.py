"""One connection of a simulated box, from its CONNECT to its end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import islice

from pydantic import ValidationError

from appliance.fleet.simulate.boxes import SimulatedBox
from appliance.fleet.simulate.codec import (
    PING,
    CodecError,
    Connack,
    Packet,
    Puback,
    Publish,
    connect,
    disconnect,
    puback,
    publish,
    subscribe,
)
from appliance.fleet.simulate.conduct import Planned
from appliance.fleet.simulate.reader import Reader
from appliance.fleet.wire import Down, WireError

KEEPALIVE_S, SESSION_S, WILL_DELAY_S = 60, 86_400, 45
_WINDOW = 20
_RESEND_S, _SLOWEST_RESEND_S = 10.0, 300.0


class BoxLine(asyncio.Protocol):
    """One connection of a box, from its CONNECT to its end."""

    def __init__(self, box: SimulatedBox, ended: asyncio.Event, why: str) -> None:
        """Prepare."""
        self._box = box
        self._ended = ended
        self._why = why
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._mid = 0
        self._asked: dict[int, str] = {}
        self.is_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who it is."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream
        self._transport = transport
        box = self._box
        box.sess += 1
        transport.write(
            connect(
                box.device,
                keepalive_s=KEEPALIVE_S,
                session_expiry_s=SESSION_S,
                receive_max=_WINDOW,
                will=box.status(online=False, why="lwt"),
                will_delay_s=WILL_DELAY_S,
            )
        )

    def data_received(self, data: bytes) -> None:
        """Hear the broker."""
        try:
            for packet in self._reader.feed(data):
                self._take(packet)
        except CodecError:
            self._box.figures.nonsense += 1
            self.close()

    def connection_lost(self, _: Exception | None) -> None:
        """It is gone."""
        if self.is_up:
            self._box.figures.connected -= 1
            self._box.figures.lost_lines += 1
        self.is_up = False
        self._ended.set()

    def close(self) -> None:
        """Vanish, with a last will."""
        if self._transport is not None:
            self._transport.abort()

    def say(self, message: Publish) -> int:
        """Publish; returns the packet's id."""
        self._mid = self._mid % 65_535 + 1
        mid = self._mid if message.qos else 0
        if self._transport is not None:
            told = Publish(
                message.topic,
                message.payload,
                message.qos,
                mid,
                message.retain,
                expiry_s=message.expiry_s,
                content_type=message.content_type,
                user=message.user,
            )
            self._transport.write(publish(told))
        return mid

    def send(self, now: float) -> int:
        """Send what is due of the window: what was never sent on this line, or too long ago. Returns how many."""
        if not self.is_up:
            return 0
        box, sent = self._box, 0
        for batched in islice(box.pending.values(), _WINDOW):
            if batched.tries and now < batched.at:
                continue
            wait = min(_SLOWEST_RESEND_S, max(_RESEND_S, 4 * box.figures.rtt_s) * 2 ** min(batched.tries, 5))
            box.figures.resent += batched.tries > 0
            batched.tries, batched.at, batched.sent_at = batched.tries + 1, now + wait, time.monotonic()
            self.say(batched.message)
            box.figures.sent += 1
            sent += 1
        return sent

    def beat(self) -> None:
        """A heartbeat, and life on the line."""
        if self.is_up and self._transport is not None:
            self._transport.write(PING)
            self.say(self._box.health())

    def bid_farewell(self) -> None:
        """End in order."""
        if self.is_up and self._transport is not None:
            self.say(self._box.status(online=False, why="stop"))
            self._transport.write(disconnect())
            self._transport.close()

    def _take(self, packet: Packet) -> None:
        box = self._box
        if isinstance(packet, Connack):
            if packet.reason >= 0x80:
                box.figures.refused += 1
                self.close()
                return
            self.is_up = True
            box.figures.connected += 1
            box.figures.connects += 1
            for batched in box.pending.values():
                batched.tries = batched.tries and 1
                batched.at = 0.0
            assert self._transport is not None  # noqa: S101 - it came through it
            self._transport.write(subscribe(1, [box.topic(name) for name in (Down.ACK, Down.JOB, Down.TWIN)]))
            self._mid = 1
            self.say(box.status(online=True, why=self._why))
            self.say(box.get())
            self.say(box.health())
            self.send(asyncio.get_running_loop().time())
        elif isinstance(packet, Publish):
            if packet.qos and self._transport is not None:
                self._transport.write(puback(packet.mid))
            try:
                box.hear(packet)
            except (WireError, ValidationError):
                box.figures.nonsense += 1
            self._work()
            self.send(asyncio.get_running_loop().time())
        elif isinstance(packet, Puback):
            box.figures.refused += packet.reason >= 0x80

    def _work(self) -> None:
        """Begin what jobs ask, each step after its time; a line that falls meanwhile does not stop the box."""
        box, loop = self._box, asyncio.get_running_loop()
        while box.owed:
            self.say(box.owed.popleft())
        while box.agenda:
            chain = box.agenda.popleft()
            loop.call_later(chain[0].after_s, self._go_on, chain)

    def _go_on(self, chain: deque[Planned]) -> None:
        loop = asyncio.get_running_loop()
        self._box.do(chain)
        self.send(loop.time())
        if chain:
            loop.call_later(chain[0].after_s, self._go_on, chain)
        elif self.is_up:  # what serves may have changed
            self.say(self._box.health())
