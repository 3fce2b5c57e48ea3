"""Boxes that are not there: each with its topics, its signed batches, its birth and last will, and its jobs.

They share one thread (asyncio) and may share one key, of which a registry of simulated boxes has a certificate
for each. What they say is what a box says, but they have no journal on disk: they show the broker and the server, and
real boxes beside them the agent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from pydantic import ValidationError

from appliance.fleet.keys import DeviceKey
from appliance.fleet.simulate.codec import (
    PING,
    CodecError,
    Connack,
    Packet,
    Puback,
    Publish,
    Reader,
    connect,
    disconnect,
    puback,
    publish,
    subscribe,
)
from appliance.fleet.wire import Ack, Address, Batch, Down, Get, Job, Status, Up, WireError, pack, unpack
from appliance.fleet.wire_records import Health, JobChange, Machine, Record, Told

KEEPALIVE_S, SESSION_S, WILL_DELAY_S = 60, 86_400, 45
_WINDOW = 20
_SLOWEST_S, _STABLE_S = 300.0, 60.0
_RESEND_S, _SLOWEST_RESEND_S = 10.0, 300.0
_EPOCH_MS = 1_770_000_000_000
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: What a job goes through on a box that has nothing to do.
STEPS = ("ACCEPTED", "SUCCEEDED")


def ulid_of(number: int) -> str:
    """A ULID that stands for a number."""
    text = ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        text = _CROCKFORD[digit] + text
    return text


@dataclass(slots=True)
class Figures:
    """What all boxes of one run have counted."""

    connected: int = 0
    connects: int = 0
    lost_lines: int = 0
    refused: int = 0
    sent: int = 0
    resent: int = 0
    acked: int = 0
    jobs: int = 0
    nonsense: int = 0
    #: From a batch that was sent once to its acknowledgement, smoothed.
    rtt_s: float = 0.0


@dataclass(slots=True)
class Batched:
    """A batch that waits for the server's word."""

    message: Publish
    at: float = 0.0
    tries: int = 0
    sent_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker is, and how to reach it.

    Attributes:
        sources: Loopback addresses to come from, in turn: one has ports for 28,000 connections.
        tls: Of a box; None on a broker without.
    """

    host: str
    port: int
    sources: tuple[str, ...] = ("127.0.0.1",)
    tls: Callable[[str], ssl.SSLContext] | None = None


@dataclass(slots=True)
class SimulatedBox:
    """One box: what it has to say, and what of that was heard."""

    device: str
    tenant: str
    key: DeviceKey
    number: int
    figures: Figures
    sess: int = 0
    seq: int = 0
    batches: int = 0
    ctr: int = 0
    acked_seq: int = 0
    pending: OrderedDict[str, Batched] = field(default_factory=OrderedDict)

    @property
    def stream(self) -> str:
        """Of its database."""
        return ulid_of(1_000_000_000 + self.number)

    def topic(self, name: Up | Down) -> str:
        """One of its own."""
        return Address(self.tenant, self.device).topic(name)

    def record(self, *told: Told) -> str:
        """Put these into one signed batch, which is kept until the server has it; returns its id."""
        ident, batched = self.prepare(*told)
        self.pending[ident] = batched
        return ident

    def prepare(self, *told: Told) -> tuple[str, Batched]:
        """A signed batch that is not to be sent yet, and its id; ``pending`` takes it."""
        records = []
        for one in told:
            self.seq += 1
            records.append(Record(seq=self.seq, ts=_EPOCH_MS + self.seq, boot="b0", mono=self.seq, clk="ntp", d=one))
        self.batches += 1
        ident = ulid_of(self.number * 1_000_000 + self.batches)
        document = Batch(batch=ident, stream=self.stream, sess=max(1, self.sess), recs=tuple(records))
        payload, packed = document.pack()
        topic = self.topic(Up.REC)
        user = {"schema": "rec/1", "sig": self.key.sign(topic, payload), **({"ce": "gzip"} if packed else {})}
        return ident, Batched(Publish(topic, payload, content_type="application/json", user=user))

    def status(self, *, online: bool, why: str) -> Publish:
        """Birth, end or last will."""
        born = {"agent": "0.0.0-simulated", "boot": "b0", "stream": self.stream, "clk": "ntp"} if online else {}
        payload, _ = pack(Status.model_validate({"online": online, "sess": self.sess, "why": why, **born}))
        return Publish(
            self.topic(Up.STATUS), payload, retain=True, content_type="application/json", user={"schema": "status/1"}
        )

    def health(self) -> Publish:
        """The heartbeat: QoS 0, kept nowhere."""
        seen = Health(
            ts=_EPOCH_MS,
            boot="b0",
            mono=0,
            clk="ntp",
            sess=self.sess,
            agent="0.0.0-simulated",
            mode="evaluation",
            ai="ready",
            machine=Machine(cpu=4.0, memory=31.0, disk=12.0),
        )
        return self._say(Up.HEALTH, seen, qos=0, expiry_s=120)

    def get(self) -> Publish:
        """What it has, for what it lacks."""
        last = {"dv": 0, "ctr": self.ctr, "seq": self.acked_seq, "last_seq": self.seq}
        return self._say(Up.GET, Get(sess=self.sess, stream=self.stream, **last), expiry_s=60)

    def hear(self, message: Publish) -> None:
        """Take an acknowledgement or a job; it believes the broker, as it has nothing to lose.

        Raises:
            WireError: It is neither.
        """
        name = message.topic.rpartition("/dn/")[2]
        body = _payload(message.payload)
        if name == "ack":
            for ident in unpack(Ack, body).b:
                if (batched := self.pending.pop(ident, None)) is not None:
                    self.figures.acked += 1
                    if batched.tries == 1:
                        self.figures.rtt_s += (time.monotonic() - batched.sent_at - self.figures.rtt_s) / 8
            self.acked_seq = self.seq - len(self.pending)
        elif name == "job":
            job = unpack(Job, body)
            if job.ctr > self.ctr:
                self.ctr = job.ctr
                self.figures.jobs += 1
                for version, state in enumerate(STEPS, 1):
                    self.record(JobChange(job=job.id, ctr=job.ctr, state=state, version=version))

    def _say(self, name: Up, document: Health | Get, *, qos: int = 1, expiry_s: int) -> Publish:
        payload, packed = pack(document)
        user = {"schema": f"{name.split('/')[1]}/1", **({"ce": "gzip"} if packed else {})}
        return Publish(
            self.topic(name), payload, qos=qos, expiry_s=expiry_s, content_type="application/json", user=user
        )


def _payload(envelope: bytes) -> bytes:
    """What a DSSE envelope holds."""
    try:
        return base64.b64decode(json.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise WireError("no envelope") from None


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
            self._transport.write(subscribe(1, [box.topic(name) for name in (Down.ACK, Down.JOB)]))
            self._mid = 1
            self.say(box.status(online=True, why=self._why))
            self.say(box.get())
            self.send(asyncio.get_running_loop().time())
        elif isinstance(packet, Publish):
            if packet.qos and self._transport is not None:
                self._transport.write(puback(packet.mid))
            try:
                box.hear(packet)
            except (WireError, ValidationError):
                box.figures.nonsense += 1
            self.send(asyncio.get_running_loop().time())
        elif isinstance(packet, Puback):
            box.figures.refused += packet.reason >= 0x80


class Swarm:
    """Boxes that connect, stay, and come back by full jitter. ``run`` until ``stop``."""

    def __init__(
        self, boxes: list[SimulatedBox], place: Place, rng: random.Random, *, heartbeat_s: float = 60.0
    ) -> None:
        """Prepare."""
        self.boxes = boxes
        self.lines: dict[str, BoxLine] = {}
        self._place = place
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, within_s: float) -> None:
        """Connect all, spread over so many seconds."""
        self._tasks = [asyncio.ensure_future(self._live(box, self._rng.uniform(0, within_s))) for box in self.boxes]
        self._tasks.append(asyncio.ensure_future(self._beat()))

    async def stop(self) -> None:
        """Every box says goodbye."""
        for line in self.lines.values():
            line.bid_farewell()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, box: SimulatedBox) -> int:
        """Send what the box has; what cannot go now goes when it can."""
        line = self.lines.get(box.device)
        return line.send(asyncio.get_running_loop().time()) if line is not None else 0

    async def _live(self, box: SimulatedBox, first_s: float) -> None:
        await asyncio.sleep(first_s)
        loop, tries, why = asyncio.get_running_loop(), 0, "start"
        while True:
            ended = asyncio.Event()
            line = BoxLine(box, ended, why)
            begin = loop.time()
            if await self._dial(line, box):
                self.lines[box.device] = line
                why = "reconnect"
                await ended.wait()
                if loop.time() - begin > _STABLE_S:
                    tries = 0
            tries += 1
            await asyncio.sleep(self._rng.uniform(0, min(_SLOWEST_S, 2.0**tries)))

    async def _dial(self, line: BoxLine, box: SimulatedBox) -> bool:
        place = self._place
        source = place.sources[box.number % len(place.sources)]
        tls = place.tls(box.device) if place.tls is not None else None
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(
                lambda: line,
                place.host,
                place.port,
                local_addr=(source, 0),
                ssl=tls,
                server_hostname="localhost" if tls is not None else None,
            )
            return True
        return False

    async def _beat(self) -> None:
        """Heartbeats of all, spread evenly; and what was lost on the way goes again."""
        loop, at = asyncio.get_running_loop(), 0
        ticks = max(1, int(self._heartbeat_s))
        while True:
            await asyncio.sleep(self._heartbeat_s / ticks)
            now = loop.time()
            for box in self.boxes[at::ticks]:
                line = self.lines.get(box.device)
                if line is not None:
                    line.beat()
            for box in self.boxes:
                line = self.lines.get(box.device)
                if box.pending and line is not None:
                    line.send(now)
            at = (at + 1) % ticks
