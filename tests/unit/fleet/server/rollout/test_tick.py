"""What the running server does for roll-outs and holds in its tick."""

from __future__ import annotations

import pytest
from rollout_kit import HOUR, PaperFleet
from sqlalchemy import select

from appliance.clock import FakeClock
from appliance.fleet.server import tables as t
from appliance.fleet.server import up
from appliance.fleet.server.config import ServerConfig
from appliance.fleet.server.db import read
from appliance.fleet.server.rollout import holds


class SlowDriver:
    """A step that takes a while."""

    def __init__(self, clock, takes_s):
        self.clock, self.takes_s, self.steps = clock, takes_s, 0

    def waits(self, _connection, _now):
        return True

    def step(self, _connection, _now):
        self.steps += 1
        self.clock.advance(self.takes_s)


@pytest.fixture
def fleet(engine, tmp_path):
    return PaperFleet(engine, tmp_path)


@pytest.fixture
def server(fleet, tmp_path):
    """As it is once it has started, without its neighbours."""
    made = up.FleetServer(ServerConfig(folder=tmp_path), FakeClock(fleet.now))
    made._engine, made._keys, made._driver = fleet.engine, fleet.keys, fleet.driver
    made._holds = holds.HoldTeller(fleet.keys)
    return made


def held(fleet):
    with read(fleet.engine) as connection:
        rows = connection.execute(select(t.twin.c.device, t.twin.c.desired)).all()
    return sorted(row.device for row in rows if row.desired["held"])


@pytest.mark.req("R-FLEET-72")
def test_a_roll_out_that_was_started_goes_to_its_canaries_by_itself(server, fleet):
    ident = fleet.running(soak_studies=0)
    for _ in range(2):
        server._drive(fleet.now)
    assert len(fleet.jobs(ident, "model.install")) == 2
    fleet.act("pause", ident)
    server._drive(fleet.now)
    assert len(fleet.jobs(ident, "model.install")) == 2


@pytest.mark.req("R-FLEET-77")
def test_a_hold_that_runs_out_ends_without_anybody_and_a_roll_out_goes_on(server, fleet):
    fleet.hold("site", "site-1000", until=fleet.now + HOUR)
    assert held(fleet) == fleet.devices[:2]
    server._drive(fleet.now)
    assert held(fleet) == fleet.devices[:2]
    server._drive(fleet.now + 2 * HOUR)
    assert held(fleet) == []


@pytest.mark.req("R-FLEET-77")
def test_a_hold_of_many_boxes_goes_on_after_the_act(server, fleet, monkeypatch):
    monkeypatch.setattr(holds, "PORTION", 5)
    fleet.hold("tenant", "vendor-001")
    for told in (10, 12, 12):
        server._tell_holds(fleet.now)
        assert len(held(fleet)) == told


@pytest.mark.req("R-FLEET-77")
def test_what_was_told_in_a_transaction_that_failed_is_told_again(server, fleet, monkeypatch):
    monkeypatch.setattr(holds, "PORTION", 5)
    fleet.hold("tenant", "vendor-001")
    with read(fleet.engine) as connection:
        assert server._holds.waits(connection, fleet.now)
    with fleet.engine.connect().execution_options(scanside_write=True) as connection:
        server._holds.step(connection, fleet.now)
        connection.rollback()
    for _ in range(3):
        server._tell_holds(fleet.now)
    assert held(fleet) == fleet.devices


def test_a_slow_step_leaves_the_database_to_others_ten_times_as_long(server):
    clock = server._clock
    server._driver = driver = SlowDriver(clock, 3.0)
    begun = clock.monotonic()
    while driver.steps < 2:
        if server._is_time("roll-outs", 2.0):
            server._drive(clock.now())
        clock.advance(1.0)
    assert clock.monotonic() - begun >= 3 + 30 + 3
