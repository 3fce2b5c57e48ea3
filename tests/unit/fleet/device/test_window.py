"""Whatever comes late, twice, in another order or never: the server has every row once, and none is skipped."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from fleet_link_kit import FakeContents, FakeInbox, FakeNet, ack_event, batch_of, enrol, rows_only
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.clock import FakeClock
from appliance.config import Fleet
from appliance.fleet.device.link import LinkStage
from appliance.fleet.device.transport import Disconnected, Published
from appliance.fleet.wire import Up
from appliance.fleet.wire_records import DaemonChange, HealthRollup, Machine
from appliance.store.facts.box import WorkerEnded
from appliance.store.facts.fleet import FleetTold

#: What may happen, with a number that says which, how many or how long.
_DEEDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("told", "told", "work", "arrive", "arrive", "lose", "ack", "ack", "ack twice", "lose ack"),
                *("time", "time", "cut", "restart", "restore", "jump"),
            ]
        ),
        st.integers(0, 30),
    ),
    min_size=8,
    max_size=40,
)


class World:
    """A box, a line that does as the test says, and a server with a table."""

    def __init__(self, folder, identity, key):
        self.clock, self.key, self.identity = FakeClock(), key, identity
        self.store = rows_only(Path(folder), self.clock)
        self.net = FakeNet()
        self.expected = set()
        #: The server's table, and what it has committed and not yet said.
        self.rows, self.owed = {}, []
        self.taken = 0
        self.st = 0
        self.restart(0)

    def restart(self, _):
        self.link = LinkStage(
            self.store,
            Fleet(),
            self.clock,
            self.identity,
            self.net,
            FakeContents(),
            FakeInbox(bytes_per_s=100_000_000),
            first_within_s=0,
            rng=random.Random(1),
        )
        self.taken = 0
        self.step()

    def step(self):
        known = len(self.net.lines)
        while self.link.step():
            pass
        if len(self.net.lines) > known:
            self.taken = 0
            self.net.line.up(session_present=bool(known % 2))
            while self.link.step():
                pass

    def write(self, bodies):
        with self.store.db.write() as tx:
            return [tx.journal(body) for body in bodies]

    def told(self, n):
        record = DaemonChange(state="started").model_dump(mode="json", exclude_none=True)
        health = HealthRollup(minutes=5, machine=Machine()).model_dump(mode="json", exclude_none=True)
        self.expected |= set(self.write(FleetTold(record=health if i % 3 else record) for i in range(n * 7 + 1)))

    def work(self, n):
        self.write(WorkerEnded(pid=1, why="exit") for _ in range(n * 5 + 1))

    def arrive(self, _):
        self._pass(reaches=True)

    def lose(self, _):
        self._pass(reaches=False)

    def _pass(self, *, reaches):
        """The next thing that was said reaches the server, or only the broker."""
        said = self.net.line.said[self.taken : self.taken + 1]
        for one in said:
            self.taken += 1
            self.net.line.events.put(Published(one.token))
            if one.name is Up.REC and reaches:
                batch = batch_of(one)
                for record in batch.recs:
                    assert self.rows.setdefault((batch.stream, record.seq), record) == record
                self.owed.append(batch.batch)

    def ack(self, n):
        if self.owed:
            self._say([self.owed.pop(n % len(self.owed))])

    def ack_twice(self, n):
        if self.owed:
            self._say([self.owed[n % len(self.owed)]] * 2)

    def lose_ack(self, n):
        if self.owed:
            self.owed.pop(n % len(self.owed))

    def _say(self, ids, **more):
        self.st += 1
        event = ack_event(self.identity, self.key, self.store.db.stream, ids, st=self.st, **more)
        self.net.line.events.put(event)

    def time(self, n):
        self.clock.advance(n)

    def jump(self, n):
        self.clock.jump((n - 15) * 86_400)

    def cut(self, _):
        self.net.line.events.put(Disconnected("lost"))

    def restore(self, n):
        """The server comes back as it was: what came after a row it has not, and it says so."""
        before, rows = self.rows, sorted(self.rows)
        self.rows = {key: self.rows[key] for key in rows[: len(rows) * n // 30]}
        self.owed.clear()
        whole = self.store.fleet.place().cursor
        after = next((seq - 1 for seq in sorted(self.expected) if (self.store.db.stream, seq) not in self.rows), whole)
        self._say([], resend_after=min(after, whole))
        self.step()
        if self.store.fleet.place().cursor > min(after, whole):  # the line was down: nobody heard it, so it was not yet
            self.rows = before

    def check(self):
        place = self.store.fleet.place()
        assert place.cursor == self.store.journal.cursor("fleet") <= place.made
        have = {seq for _, seq in self.rows}
        assert {seq for seq in self.expected if seq <= place.cursor} <= have
        edges = [place.cursor, *(seq for one in place.batches for seq in (one.first_seq, one.last_seq)), place.made]
        assert edges == sorted(edges)
        assert len(place.batches) <= 20

    def drain(self):
        for _ in range(3000):
            self.clock.advance(7)
            self.step()
            while self.taken < len(self.net.line.said):
                self._pass(reaches=True)
            while self.owed:
                self.ack(0)
            self.step()
            self.check()
            if self.store.fleet.place().batches == () and {seq for _, seq in self.rows} >= self.expected:
                return
        pytest.fail("the server never has every row")

    def close(self):
        self.store.close()


@pytest.fixture(scope="module")
def known(tmp_path_factory, authority, server_key):
    return enrol(tmp_path_factory.mktemp("identity"), authority, server_key)


@pytest.mark.req("R-FLEET-03")
@given(deeds=_DEEDS)
@settings(max_examples=settings.default.max_examples // 3)
def test_the_server_has_every_row_once_and_the_cursor_never_passes_one_that_it_lacks(known, server_key, deeds):
    shared = Path("/dev/shm")  # what a test loses needs no disk
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        world = World(folder, known, server_key)
        try:
            for deed, n in deeds:
                getattr(world, deed.replace(" ", "_"))(n)
                world.step()
                world.check()
            world.drain()
            assert {seq for _, seq in world.rows} == world.expected
        finally:
            world.close()
