"""A broker in foreign hands says ten thousand things to a box: none of them does anything (T37, the box's side).

The server's side, against a box in foreign hands: tests/unit/fleet/server/test_ingest.py and below.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import time

import pytest
from fleet_jobs_kit import DEVICE, JobBox, keys
from fleet_kit import SERVER, Mosquitto
from fleet_line_kit import Box
from fleet_link_kit import TENANT, ack_bytes
from package_rows_kit import NAME

from appliance.clock import SystemClock
from appliance.fleet.wire import JOB_TYPE, Address, Down, Op
from appliance.store.database import new_ulid
from engines import signing

pytestmark = [pytest.mark.fault("T37"), pytest.mark.req("R-FLEET-40", "R-FAULT-T37")]
N, FEW = 10_000, 400
#: What may stand afterwards, each once: somebody wrote in the server's name.
TOLD = {"FLEET_FORGED", "FLEET_FOREIGN"}


def deep(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


class Stranger:
    """Whoever has the broker, and with it every envelope that ever passed; but no key of the server."""

    def __init__(self, box, link, seed):
        self.box, self.link, self.chance = box, link, random.Random(seed)
        self.address = Address(TENANT, DEVICE)
        args = {"package": NAME, "version": "1.0.0"}
        self.good = box.job(Op.MODEL_WITHDRAW, ctr=7_000, exp=box.ms(-1), nbf=box.ms(-2), **args)
        self.foreign = box.job(Op.RESTART, ctr=8_000, aud="box-99999999")
        self.forged = box.job(Op.MODEL_WITHDRAW, ctr=9_000, sign=("stranger", "release"), **args)
        self.unreleased = box.job(Op.MODEL_WITHDRAW, ctr=9_001, sign=("stranger",), **args)
        self.twin = box.twin(9, sign="stranger", held=True)
        self.old_twin = box.twin(1)
        self.bomb = gzip.compress(b"[" + b" " * 4_000_000)
        self.foreign_twin = box.twin(3, aud="box-99999999")
        self.makers = (
            self.noise, self.broken, self.bent, self.of_others, self.acks, self.twins, self.packed, self.large,
        )  # fmt: skip

    def next(self):
        """Topic, payload, user properties, whether retained."""
        topic, payload, *more = self.chance.choice(self.makers)()
        properties, retain = [*more, {}, False][: len(more)] + [{}, False][len(more) :]
        return self.address.topic(topic) if isinstance(topic, Down) else topic, payload, properties, retain

    def down(self):
        return self.chance.choice(tuple(Down))

    def noise(self):
        return self.down(), self.chance.randbytes(self.chance.randrange(400)), {}, self.chance.random() < 0.05

    def broken(self):
        text = json.dumps({"payloadType": JOB_TYPE, "payload": "e30=", "signatures": [{"sig": "AA=="}]}).encode()
        return self.down(), self.chance.choice((
            b'{"a":NaN}', b'{"a":1,"a":2}', b'{"a":"\xff"}', deep(10_000), b"[]", b"null", b"", b"\xef\xbb\xbf{}",
            text, text.replace(b"e30=", b"!!"), text[:-9], text + b" ", text.replace(b"job", b"twin"),
        ))  # fmt: skip

    def bent(self):
        """A true envelope with one byte changed, or its payload under another signature."""
        envelope = bytearray(self.chance.choice((self.good, self.foreign, self.forged)))
        if self.chance.random() < 0.5:
            at = self.chance.randrange(len(envelope))
            envelope[at] ^= 1 << self.chance.randrange(7)
            return Down.JOB, bytes(envelope)
        document = json.loads(envelope)
        body = json.loads(base64.b64decode(document["payload"]))
        body |= {"ctr": self.chance.randrange(2**40), "exp": 2**42, "id": new_ulid(self.box.clock.now())}
        document["payload"] = base64.b64encode(json.dumps(body).encode()).decode()
        return Down.JOB, json.dumps(document).encode()

    def of_others(self):
        """True ones for another box, from another topic, over, played again, or under a stranger's key."""
        envelope = self.chance.choice((self.good, self.foreign, self.forged, self.unreleased))
        elsewhere = self.chance.choice(
            (f"scanside/v1/{TENANT}/{DEVICE}/dn/cmd", f"scanside/v1/{TENANT}/{DEVICE}/dn/JOB")
        )
        return self.chance.choice((Down.JOB, Down.TWIN, Down.ACK, elsewhere)), envelope

    def acks(self):
        stream = self.box.store.db.stream
        ids = [one.id for one in self.box.store.fleet.place().batches] or [new_ulid(self.box.clock.now())]
        return Down.ACK, self.chance.choice((
            ack_bytes(keys()["stranger"], stream, ids, device=DEVICE, hold_ms=3_600_000),
            ack_bytes(keys()["online"], stream, ids, device="box-99999999", resend_after=0),
            ack_bytes(keys()["online"], new_ulid(self.box.clock.now()), ids, device=DEVICE, st=1),
            signing.sign(JOB_TYPE, b'{"aud":"%s"}' % DEVICE.encode(), [keys()["online"]]),
        ))  # fmt: skip

    def twins(self):
        return Down.TWIN, self.chance.choice((self.twin, self.old_twin, self.foreign_twin))

    def packed(self):
        data = self.chance.choice((self.bomb, gzip.compress(self.forged)[:-9], self.noise()[1]))
        return self.down(), data, {"ce": "gzip"}

    def large(self):
        if self.chance.random() < 0.98:
            return self.noise()
        return self.down(), b" " * 200_000  # as much as the broker takes; larger: test_transport.py


def rows(box):
    """All that a message could have changed."""
    store = box.store
    tables = ("package", "operating_point", "cursor", "fleet_batch")
    state = {t: [tuple(row) for row in store.db.all(f"SELECT * FROM {t}")] for t in tables}  # noqa: S608 - names above
    marks = [tuple(row) for row in store.db.all("SELECT * FROM fleet_state WHERE name GLOB 'twin*'")]
    return state, marks, [job.ctr for job in store.fleet_jobs.all()], list(box.acts.calls)


def test_ten_thousand_messages_of_a_stranger_with_the_broker_do_nothing(tmp_path, wait_until, scale):
    broker = Mosquitto(more="max_queued_messages 0\nmax_inflight_messages 0\n").start()
    box = JobBox(tmp_path, clock=SystemClock())
    box.serve("1.0.0")
    box.inbox.take_twin(box.twin(2))
    box.give(Op.PING)
    box.run()
    link = Box(tmp_path / "line", broker, keys()["online"], device=DEVICE, store=box.store, inbox=box.inbox)
    client = None
    try:
        wait_until(lambda: link.link.is_connected)
        link.tell(5)
        wait_until(lambda: len(box.store.fleet.place().batches) >= 1)
        # One true job that came too late is told once; whoever plays it again adds nothing.
        client = broker.client(broker.server, SERVER)
        stranger = Stranger(box, link, 37)
        client.publish(stranger.address.topic(Down.JOB), stranger.good)
        wait_until(lambda: box.store.fleet_jobs.ctr == 7_000)
        before, journal = rows(box), box.store.journal.last_seq()
        for _ in range(N if scale == 1.0 else FEW):
            topic, payload, properties, retain = stranger.next()
            client.publish(topic, payload, properties, retain=retain, qos=1)
        # What comes after all of it still counts: the box lives, and obeys its server, which says it until it is taken.
        box.ctr = 7_000
        ping, said_at = box.job(Op.PING), [float("-inf")]

        def is_obeyed():
            if time.monotonic() - said_at[0] > 2:
                said_at[0] = time.monotonic()
                client.publish(stranger.address.topic(Down.JOB), ping)
            return 7_001 in [job.ctr for job in box.store.fleet_jobs.all()]

        wait_until(is_obeyed, 240)
        after = rows(box)
        assert (after[0], after[1], after[3]) == (before[0], before[1], before[3])
        assert [ctr for ctr in after[2] if ctr != 7_001] == before[2]
        assert box.packages() == {"1.0.0": "live"}
        assert {issue.code for issue in box.store.issues.open()} <= TOLD
        facts = box.store.journal.after(journal, 1000)
        assert [str(fact.kind) for fact in facts if fact.kind != "fleet_job_step"] <= ["issue_raised"] * 2
        box.quick.step()
        assert str(box.store.fleet_jobs.get("7001").state) == "SUCCEEDED"
        batches = [one.id for one in box.store.fleet.place().batches]
        ack = ack_bytes(keys()["online"], box.store.db.stream, batches, device=DEVICE)
        client.publish(stranger.address.topic(Down.ACK), ack)
        wait_until(lambda: link.cursor > 0)
    finally:
        if client is not None:
            client.close()
        link.stop(politely=False)
        broker.close()
