"""An enrolled box on a fake clock, with a link whose network a test plays."""

from __future__ import annotations

import random

import pytest
from fleet_link_kit import Authority, FakeContents, FakeInbox, FakeNet, ack_event, enrol

from appliance.clock import FakeClock
from appliance.config import Fleet
from appliance.fleet.device.link import LinkStage
from appliance.fleet.wire_records import HealthRollup, JobChange, Machine
from appliance.store import Store
from appliance.store.facts.box import WorkerEnded
from appliance.store.facts.fleet import FleetTold
from engines import signing


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(tmp_path, clock):
    opened = Store.open(tmp_path / "state", clock, reserve_bytes=0)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def server_key():
    return signing.generate("online")


@pytest.fixture
def identity(tmp_path, authority, server_key):
    return enrol(tmp_path / "fleet", authority, server_key)


class Box:
    """A link and everything around it."""

    def __init__(self, store, clock, identity, server_key, **settings):
        self.store, self.clock, self.identity, self.key = store, clock, identity, server_key
        self.net, self.contents, self.inbox = FakeNet(), FakeContents(), FakeInbox(bytes_per_s=10_000_000)
        self.settings = settings
        self.restart()

    def restart(self):
        self.link = LinkStage(
            self.store,
            Fleet(**self.settings),
            self.clock,
            self.identity,
            self.net,
            self.contents,
            self.inbox,
            first_within_s=0,
            rng=random.Random(7),
        )

    @property
    def line(self):
        return self.net.line

    def step(self, seconds=0.0):
        self.clock.advance(seconds)
        while self.link.step():
            pass

    def connect(self, **more):
        """Dial, wait as long as it takes, and be taken."""
        known = len(self.net.lines)
        self.step()
        while len(self.net.lines) == known:
            self.step(5)
        self.line.up(**more)
        self.step()
        return self.line

    def tell(self, n=1, kind="job"):
        """So many rows that leave the box."""
        if kind == "noise":  # what no compression makes small
            jobs = ["".join(random.Random(seed).choices("0123456789ABCDEF", k=26)) for seed in range(n)]
            records = [JobChange(job=job, ctr=1, state="ACCEPTED", version=1) for job in jobs]
            with self.store.db.write() as tx:
                return [tx.journal(FleetTold(record=r.model_dump(mode="json", exclude_none=True))) for r in records]
        body = {
            "job": JobChange(job="0" * 26, ctr=1, state="ACCEPTED", version=1),
            "health": HealthRollup(minutes=5, machine=Machine()),
        }[kind]
        with self.store.db.write() as tx:
            return [tx.journal(FleetTold(record=body.model_dump(mode="json", exclude_none=True))) for _ in range(n)]

    def work(self, n=1):
        """So many rows of which nothing leaves."""
        with self.store.db.write() as tx:
            return [tx.journal(WorkerEnded(pid=1, why="exit")) for _ in range(n)]

    def flush(self):
        """What waits to share a batch goes."""
        self.step()
        self.step(5)

    def ack(self, ids, **more):
        self.line.events.put(ack_event(self.identity, self.key, self.store.db.stream, ids, **more))
        self.step()

    @property
    def cursor(self):
        return self.store.journal.cursor("fleet")

    def issues(self):
        return {issue.code for issue in self.store.issues.open()}


@pytest.fixture
def box(store, clock, identity, server_key):
    return Box(store, clock, identity, server_key)


@pytest.fixture
def make_box(store, clock, identity, server_key):
    return lambda **settings: Box(store, clock, identity, server_key, **settings)
