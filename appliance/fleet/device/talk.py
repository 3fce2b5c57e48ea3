"""What the box says while a connection stands: birth, what it has, how it fares, and batches as fast as it may."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from appliance import __version__
from appliance.clock import Clock
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.outbox import Contents, Outbox, Parcel
from appliance.fleet.device.pace import Bucket, Held
from appliance.fleet.device.transport import Connected, Published, Transport
from appliance.fleet.wire import EXPIRY_S, MAX_PACKED_BYTES, SIGNED, Batch, Desired, Get, Reported, Status, Up, pack
from appliance.records import Severity
from appliance.store import Store

REFUSED = "FLEET_REFUSED"
#: Mark: the nonces of our last births, as JSON.
BORN = "born"
_BIRTHS = 8
_MOST_SENDS = 25
#: The broker is there (it answers pings) and leaves a publication without PUBACK for so long: another connection.
_STUCK_S = 120.0
#: What we have is said again after so long; so soon where something that came was lost here.
_GET_S, _SOON_S = (3000.0, 4200.0), 60.0


class Inbox(Protocol):
    """Where what comes down is checked and kept. Bytes of strangers raise WireError or SignatureError."""

    @property
    def dv(self) -> int:
        """Version of the desired document that the box has."""
        ...

    @property
    def ctr(self) -> int:
        """Highest counter of a job that it took."""
        ...

    def take_job(self, envelope: bytes) -> object:
        """A job came. What is returned is not for the link."""
        ...

    def take_twin(self, envelope: bytes) -> None:
        """A desired document came."""
        ...

    def reported(self) -> Reported | None:
        """What the box made of the last one."""
        ...

    def desired(self) -> Desired:
        """The document that holds."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A connection that stands."""

    transport: Transport
    identity: Identity
    sess: int
    receive_max: int


class Talk:
    """One link's."""

    def __init__(
        self, store: Store, contents: Contents, inbox: Inbox, outbox: Outbox, clock: Clock, rng: random.Random
    ) -> None:
        """Say nothing yet."""
        self._store = store
        self._contents = contents
        self._inbox = inbox
        self._outbox = outbox
        self._clock = clock
        self._rng = rng
        now = clock.monotonic()
        self._bucket = Bucket(now)
        self._held = Held()
        self._line: Line | None = None
        #: Publications that the broker has not answered for: of what topic, since when.
        self._open: dict[int, tuple[Up, float]] = {}
        self._hold_until = self._get_at = now
        #: When health was last said (never: None), and which part of its interval has to pass before it is again.
        self._health_told_at: float | None = None
        self._health_part = 1.0
        self._told_rv: int | None = None
        #: Seconds to the broker and back, of the last publication.
        self.line_s = 0.0

    def begin(self, line: Line, event: Connected, *, nonce: str, is_first: bool) -> None:
        """The broker has taken us: say that we are here and what we have."""
        self._line = line
        self._open.clear()
        self._told_rv = self._health_told_at = None
        self._outbox.reconnected(session_present=event.session_present)
        births = [*json.loads(self._store.fleet.state(BORN, "[]")), nonce]
        self._store.fleet.set_state(BORN, json.dumps(births[-_BIRTHS:]))
        birth = Status(
            online=True,
            sess=line.sess,
            why="start" if is_first else "reconnect",
            agent=__version__,
            boot=boot_of(self._store),
            stream=self._store.db.stream,
            nonce=nonce,
            ts=int(self._clock.now().timestamp() * 1000),
            clk=self._contents.clk(),
        )
        self._say(Up.STATUS, birth, retain=True)
        self._ask(line)

    def _ask(self, line: Line) -> None:
        """Say what we have. A server that did not know our certificate hears it the next time."""
        self._get_at = self._clock.monotonic() + self._rng.uniform(*_GET_S)
        self._say(
            Up.GET,
            Get(
                sess=line.sess,
                stream=self._store.db.stream,
                dv=self._inbox.dv,
                ctr=self._inbox.ctr,
                seq=self._store.fleet.place().cursor,
                last_seq=self._store.journal.last_seq(),
            ),
        )

    def ask_soon(self) -> None:
        """Something that came is gone, a job perhaps: the server sends again what we do not say that we have."""
        self._get_at = min(self._get_at, self._clock.monotonic() + _SOON_S)

    def end(self) -> None:
        """The connection is gone."""
        self._line = None
        self._open.clear()

    def farewell(self) -> int | None:
        """Say that we stop. Returns the token to wait for."""
        if self._line is None:
            return None
        return self._say(
            Up.STATUS,
            Status(online=False, sess=self._line.sess, why="stop", stream=self._store.db.stream),
            retain=True,
        )

    def go_on(self) -> bool:
        """Say what is due. Returns whether there may be more at once."""
        now = self._clock.monotonic()
        desired, reported = self._inbox.desired(), self._inbox.reported()
        if self._line is None:
            return False
        if reported is not None and reported.rv != self._told_rv and self._may(Up.TWIN, now):
            self._told_rv = reported.rv
            self._say(Up.TWIN, reported)
        if now >= self._get_at and self._may(Up.GET, now):
            self._ask(self._line)
        if self._is_health_due(now, desired.health_every_s) and self._may(Up.HEALTH, now):
            # Not all boxes of a fleet at one moment.
            self._health_told_at, self._health_part = now, self._rng.uniform(0.9, 1.1)
            self._say(Up.HEALTH, self._contents.health(self._line.sess))
        for _ in range(_MOST_SENDS):
            if not self._may_send(now, desired.bytes_per_s):
                return False
            parcel = self._outbox.next()
            if parcel is None:
                return False
            self._send(parcel, self._line.sess)
        return True

    def hold(self, seconds: float) -> None:
        """The server asks for rest."""
        self._hold_until = self._clock.monotonic() + seconds

    def is_stuck(self) -> bool:
        """Whether the broker has not answered a publication for so long that it never will."""
        now = self._clock.monotonic()
        return any(now - sent_at > _STUCK_S for _, sent_at in self._open.values())

    def answered(self, event: Published) -> None:
        """The broker took a publication, or refused it: then its topic rests, and a person must hear of it."""
        topic, sent_at = self._open.pop(event.token, (None, 0.0))
        if topic is None:
            return
        now = self._clock.monotonic()
        is_batch = topic is Up.REC
        about_topic = self._outbox.published(event.token, event.failed) if is_batch else event.failed is not None
        if event.failed is None:
            self.line_s = now - sent_at
            self._held.take(topic)
            if not (is_batch and self._outbox.has_set_aside):
                self._store.issues.clear(REFUSED, topic)
        elif about_topic:
            self._held.refuse(topic, now)
        if event.failed is not None:
            self._store.issues.raise_(REFUSED, topic, Severity.FAULT, {"code": event.failed})

    def _is_health_due(self, now: float, every_s: float) -> bool:
        """By the interval that holds now: the server expects it from the moment that it asks for it."""
        return self._health_told_at is None or now >= self._health_told_at + every_s * self._health_part

    def _may(self, topic: Up, now: float) -> bool:
        most = self._line.receive_max if self._line is not None else 0
        return not self._held.is_held(topic, now) and len(self._open) < most

    def _may_send(self, now: float, bytes_per_s: int) -> bool:
        """Whether a batch may go: the broker takes it, the server wants it, the line has room."""
        if not self._may(Up.REC, now) or now < self._hold_until or not self._bucket.is_open(now, bytes_per_s):
            return False
        # After a refusal one batch goes, and its answer is awaited.
        return not (self._held.is_suspect(Up.REC) and any(topic is Up.REC for topic, _ in self._open.values()))

    def _send(self, parcel: Parcel, sess: int) -> None:
        batch = Batch(batch=parcel.batch.id, stream=self._store.db.stream, sess=sess, recs=parcel.records)
        token = self._say(Up.REC, batch)
        if token is not None:
            self._outbox.sent(parcel.batch.id, token)
            return
        self._outbox.set_aside(parcel.batch.id)  # larger than anybody takes
        self._store.issues.raise_(REFUSED, Up.REC, Severity.FAULT, {"code": 0x95})

    def _say(self, topic: Up, message: BaseModel, *, retain: bool = False) -> int | None:
        """Publish. None where there is no connection, or it is larger than a broker takes."""
        data, packed = pack(message)
        if self._line is None or len(data) > MAX_PACKED_BYTES:
            return None
        identity = self._line.identity
        full = identity.address.topic(topic)
        properties = {"schema": f"{topic.rpartition('/')[2]}/1"}
        if packed:
            properties["ce"] = "gzip"
        if topic in SIGNED:
            properties["sig"] = identity.key.sign(full, data)
        token = self._line.transport.publish(full, data, retain=retain, expiry_s=EXPIRY_S[topic], properties=properties)
        self._open[token] = (topic, self._clock.monotonic())
        self._bucket.take(len(data))
        return token


def boot_of(store: Store) -> str:
    """The kernel's id of this boot as the wire has it; empty where the machine has none."""
    boot = store.db.boot
    return boot if all(letter in "0123456789abcdef-" for letter in boot) else ""
