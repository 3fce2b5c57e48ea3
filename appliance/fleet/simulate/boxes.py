"""Boxes that are not there: each with its topics, its signed batches, its birth and last will, and its jobs.

They share one thread (asyncio) and may share one key, of which a registry of simulated boxes has a certificate
for each. What they say is what a box says, but they have no journal on disk and check no signature: they show the
broker and the server, and real boxes beside them the agent.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime

from appliance.fleet.keys import DeviceKey
from appliance.fleet.simulate.codec import Publish
from appliance.fleet.simulate.conduct import Conduct, Planned, Slots, machine, package_states, plan, results
from appliance.fleet.wire import (
    EXPIRY_S,
    Ack,
    Address,
    Batch,
    Down,
    Get,
    Job,
    Reported,
    Status,
    Twin,
    Up,
    WireError,
    pack,
    unpack,
)
from appliance.fleet.wire_records import Health, Machine, Record, Told

AGENT = "0.0.0-simulated"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


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
    dv: int = 0
    rv: int = 0
    conduct: Conduct = field(default_factory=Conduct)
    slots: dict[str, Slots] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - paces a simulation
    #: Of each job that is not done: what it does next, and so long after that the rest.
    agenda: deque[deque[Planned]] = field(default_factory=deque)
    #: What it says beside its batches: a report on its desired document.
    owed: deque[Publish] = field(default_factory=deque)
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
        at = int(time.time() * 1000)
        records = []
        for one in told:
            self.seq += 1
            records.append(Record(seq=self.seq, ts=at, boot="b0", mono=self.seq, clk="ntp", d=one))
        self.batches += 1
        ident = ulid_of(self.number * 1_000_000 + self.batches)
        document = Batch(batch=ident, stream=self.stream, sess=max(1, self.sess), recs=tuple(records))
        payload, packed = document.pack()
        topic = self.topic(Up.REC)
        user = {"schema": "rec/1", "sig": self.key.sign(topic, payload), **({"ce": "gzip"} if packed else {})}
        return ident, Batched(Publish(topic, payload, content_type="application/json", user=user))

    def status(self, *, online: bool, why: str) -> Publish:
        """Birth, end or last will."""
        born = {"agent": AGENT, "boot": "b0", "stream": self.stream, "clk": "ntp"} if online else {}
        payload, _ = pack(Status.model_validate({"online": online, "sess": self.sess, "why": why, **born}))
        return Publish(
            self.topic(Up.STATUS), payload, retain=True, content_type="application/json", user={"schema": "status/1"}
        )

    def health(self) -> Publish:
        """The heartbeat: QoS 0, kept nowhere."""
        seen = Health(
            ts=int(time.time() * 1000),
            boot="b0",
            mono=0,
            clk="ntp",
            sess=self.sess,
            agent=AGENT,
            mode="evaluation",
            ai="ready",
            machine=machine(self.rng) if self.slots else Machine(cpu=4.0, memory=31.0, disk=12.0),
            studies_24h=24 * self.conduct.studies if self.slots else 0,
            packages=package_states(self.slots),
        )
        return self._say(Up.HEALTH, seen, qos=0)

    def get(self) -> Publish:
        """What it has, for what it lacks."""
        last = {"dv": self.dv, "ctr": self.ctr, "seq": self.acked_seq, "last_seq": self.seq}
        return self._say(Up.GET, Get(sess=self.sess, stream=self.stream, **last))

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
        elif name == "twin":
            self._hear_twin(unpack(Twin, body))
        elif name == "job":
            self._hear_job(unpack(Job, body))

    def do(self, chain: deque[Planned]) -> None:
        """Take the next step of a job, and those that follow it at once."""
        while chain:
            planned = chain.popleft()
            for package, version in planned.serves.items():
                self.slots.setdefault(package, Slots()).take(version)
            self.record(*planned.told)
            if chain and chain[0].after_s > 0:
                return

    def tell_results(self, hour: datetime) -> None:
        """What each of its packages did in an hour."""
        for name, one in sorted(self.slots.items()):
            if one.live is not None:
                self.record(results(name, one.live[0], hour, self.conduct, self.rng))

    def _hear_twin(self, twin: Twin) -> None:
        if twin.dv > self.dv:
            self.dv, self.rv = twin.dv, self.rv + 1
            report = Reported(rv=self.rv, applied_dv=twin.dv, desired=twin.desired)
            self.owed.append(self._say(Up.TWIN, report))

    def _hear_job(self, job: Job) -> None:
        if job.ctr <= self.ctr:
            return
        self.ctr = job.ctr
        self.figures.jobs += 1
        chain = deque(plan(job, self.slots, self.conduct, self.rng))
        self.do(chain)
        if chain:
            self.agenda.append(chain)

    def _say(self, name: Up, document: Health | Get | Reported, *, qos: int = 1) -> Publish:
        payload, packed = pack(document)
        topic = self.topic(name)
        user = {"schema": f"{name.split('/')[1]}/1", **({"ce": "gzip"} if packed else {})}
        if name is not Up.HEALTH:
            user["sig"] = self.key.sign(topic, payload)
        return Publish(topic, payload, qos=qos, expiry_s=EXPIRY_S[name], content_type="application/json", user=user)


def _payload(envelope: bytes) -> bytes:
    """What a DSSE envelope holds."""
    try:
        return base64.b64decode(json.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise WireError("no envelope") from None
