"""A real link on its own thread against a real broker, and the part of a server that acknowledges."""

from __future__ import annotations

import contextlib
import random
import threading
import time

from fleet_kit import SERVER
from fleet_link_kit import DEVICE, TENANT, FakeContents, FakeInbox, ack_bytes, enrol_with

from appliance.clock import SystemClock
from appliance.config import Fleet
from appliance.fleet.device.identity import Broker
from appliance.fleet.device.link import LinkStage
from appliance.fleet.device.transport import opener
from appliance.fleet.keys import DeviceKey, holds
from appliance.fleet.wire import Address, Batch, Down, Up, inflate
from appliance.fleet.wire_records import JobChange
from appliance.stage import Beat, run_stage
from appliance.store import Store
from appliance.store.facts.fleet import FleetTold


class Box:
    """A real link on its own thread, as the daemon runs it."""

    def __init__(
        self, folder, broker, server_key, *, device=DEVICE, ways=None, proxy_url=None, port=None, store=None,
        contents=None, inbox=None, **fleet,
    ):  # fmt: skip
        self.store = store or Store.open(folder / "state", SystemClock(), reserve_bytes=0)
        self.key = DeviceKey.generate()
        issued = broker.ca.issue(device, key=self.key)
        ways = ways or [Broker(host="localhost", port=port or broker.port)]
        given = (folder / "fleet", self.key, issued.pem.encode(), broker.ca.path.read_bytes(), server_key, ways)
        self.identity = enrol_with(*given, device=device)
        self.address = Address(TENANT, device)
        self.inbox = inbox or FakeInbox(bytes_per_s=10_000_000)
        self._bell, self._stop = threading.Event(), threading.Event()
        self.link = LinkStage(
            self.store,
            Fleet(proxy_url=proxy_url, **fleet),
            SystemClock(),
            self.identity,
            opener(proxy_url),
            contents or FakeContents(),
            self.inbox,
            ring=self._bell.set,
            first_within_s=0,
            rng=Hasty(),
            linger_s=0.1,
        )
        beat = Beat(self.link, SystemClock())
        self._thread = threading.Thread(target=run_stage, args=(self.link, beat, self._stop, self._bell, 0.05))
        self._thread.start()

    def tell(self, n):
        body = JobChange(job="0" * 26, ctr=1, state="ACCEPTED", version=1).model_dump(mode="json", exclude_none=True)
        with self.store.db.write() as tx:
            return [tx.journal(FleetTold(record=body)) for _ in range(n)]

    @property
    def cursor(self):
        return self.store.journal.cursor("fleet")

    def stop(self, *, politely=True):
        self._stop.set()
        self._bell.set()
        self._thread.join(30)
        if politely:
            self.link.close()
        elif self.link._transport is not None:
            self.link._transport.close(politely=False)
            self.link._transport.join(10)
        self.store.close()


class Hasty(random.Random):
    """No test waits for chance."""

    def uniform(self, low, high):
        return min(high, max(low, 0.05))


class ServerStandIn:
    """Keeps every row once by its key, and acknowledges where it is told to. Once it is there, it listens."""

    def __init__(self, broker, key, box, *, acks=True):
        self.broker, self.key, self.box, self.acks = broker, key, box, acks
        self.rows, self.batches, self.seen, self.forged = {}, [], [], 0
        self.records = []
        self.client = None
        self.listen()

    def listen(self):
        self.client = self.broker.client(self.broker.server, SERVER)
        self.client.client.on_message = self._take
        self.client.listen("scanside/v1/+/+/up/#")

    def _take(self, _client, _userdata, message):
        name = message.topic.split("/", 4)[4]
        properties = dict(getattr(message.properties, "UserProperty", ()))
        self.seen.append((name, message, properties))
        if name != Up.REC:
            return
        if not holds(self.box.key._key.public_key(), message.topic, message.payload, properties["sig"]):
            self.forged += 1
            return
        batch = Batch.unpack(inflate(message.payload) if properties.get("ce") else message.payload)
        self.batches.append(batch.batch)
        self.records += batch.recs
        for record in batch.recs:
            self.rows.setdefault((batch.stream, record.seq), []).append(batch.batch)
        if self.acks:
            self.ack([batch.batch], batch.stream)

    def ack(self, ids, stream, **more):
        payload = ack_bytes(self.key, stream, ids, device=self.box.address.device, st=int(time.time() * 1000), **more)
        self.client.publish(self.box.address.topic(Down.ACK), payload)

    def of(self, name):
        return [message for kind, message, _ in list(self.seen) if kind == name]

    def close(self):
        with contextlib.suppress(Exception):
            self.client.close()
