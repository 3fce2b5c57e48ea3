"""Another machine in a box's place: holds, the desired document, and the places in roll-outs go with the place."""

from __future__ import annotations

import pytest
from rollout_kit import DAY, EVERYTHING, PaperFleet
from sqlalchemy import select

from appliance.fleet.server import heirs, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import make_job, set_desired
from appliance.fleet.server.db import read, write
from appliance.fleet.server.rollout.plan import LeftOut
from appliance.fleet.wire import TWIN_TYPE, Desired, DesiredPackage, Op, Twin
from engines.signing import verify

pytestmark = pytest.mark.req("R-FLEET-19", "R-FLEET-87")
POSTGRES_IS_LONG = True

FRESH = "box-9000001"


class Place:
    """Boxes of paper, and a machine that comes in place of another."""

    def __init__(self, engine, folder):
        self.fleet = PaperFleet(engine, folder)
        self.engine, self.keys = engine, self.fleet.keys
        self.old = self.fleet.devices[0]

    def desired(self, device, **values):
        with write(self.engine) as connection:
            return set_desired(connection, self.keys, EVERYTHING, device, Desired(**values), now=self.fleet.now)

    def replace(self, old=None, new=FRESH, *, enrol=True):
        old = old or self.old
        with write(self.engine) as connection:
            site = registry.find_device(connection, EVERYTHING, old).site
            if enrol:
                self.fleet.add_box(connection, new, site, serves=None)
            registry.replace_device(connection, EVERYTHING, old, new, now=self.fleet.now)

    def look(self):
        """As the running server does; how many documents were made."""
        with read(self.engine) as connection:
            if not heirs.waits(connection):
                return 0
        with write(self.engine) as connection:
            return heirs.pass_documents(connection, self.keys, self.fleet.now)

    def twin(self, device=FRESH):
        """As the box reads it."""
        with read(self.engine) as connection:
            row = connection.execute(select(t.twin.c.envelope).where(t.twin.c.device == device)).first()
        if row is None or row.envelope is None:
            return None
        return Twin.unpack(verify(row.envelope, TWIN_TYPE, [self.keys.online.public]).payload)

    def places(self, ident):
        with read(self.engine) as connection:
            w = t.wave_device.c
            rows = connection.execute(select(w.device, w.wave, w.left_out, w.job).where(w.roll_out == ident))
            return {row.device: (row.wave, row.left_out, row.job is not None) for row in rows}


@pytest.fixture
def place(engine, tmp_path):
    return Place(engine, tmp_path)


def test_the_desired_document_is_signed_for_the_new_one_once(place):
    point = DesiredPackage(name="ich-ct", operating_points={"bleeding": "sensitive"})
    place.desired(place.old, health_every_s=30, packages=(point,))
    assert place.look() == 0
    place.replace()
    assert (place.look(), place.look()) == (1, 0)
    twin = place.twin()
    assert (twin.aud, twin.dv, twin.desired) == (FRESH, 1, Desired(health_every_s=30, packages=(point,)))


def test_a_document_of_its_own_is_kept(place):
    place.desired(place.old, health_every_s=30)
    place.replace()
    place.desired(FRESH, health_every_s=45)
    assert place.look() == 0
    assert place.twin().desired.health_every_s == 45


def test_down_a_line_of_replacements_the_last_document_counts(place):
    place.desired(place.old, health_every_s=30)
    place.replace()
    place.look()
    place.desired(FRESH, health_every_s=40)
    place.replace(FRESH, "box-9000002")
    assert place.look() == 1
    assert place.twin("box-9000002").desired.health_every_s == 40


def test_a_hold_over_the_box_stands_over_the_one_in_its_place_and_is_lifted_there(place):
    number = place.fleet.hold("device", place.old)
    place.replace()
    assert place.look() == 1
    assert place.twin().desired.held
    place.fleet.lift(number)
    assert not place.twin().desired.held


def test_a_hold_that_was_lifted_does_not_come_back_with_the_document(place):
    number = place.fleet.hold("device", place.old)
    place.desired(place.old, health_every_s=30, held=True)
    place.fleet.lift(number)
    place.replace()
    place.look()
    assert (place.twin().desired.held, place.twin().desired.health_every_s) == (False, 30)


def test_what_the_old_one_was_asked_ends_and_is_no_failure(place):
    with write(place.engine) as connection:
        make_job(connection, place.keys, EVERYTHING, place.old, Op.PING, now=place.fleet.now)
    place.replace()
    with read(place.engine) as connection:
        (row,) = connection.execute(select(t.job.c.state, t.job.c.code)).all()
    assert tuple(row) == ("CANCELED", "REPLACED")


def test_in_a_roll_out_the_new_one_has_the_place_and_the_old_one_is_left_out(place):
    ident = place.fleet.ready()
    waves = {device: wave for device, (wave, _, _) in place.places(ident).items()}
    last = max(waves, key=lambda device: (waves[device], device))
    place.replace(last)
    found = place.places(ident)
    assert found[FRESH] == (waves[last], "", False)
    assert found[last] == (waves[last], str(LeftOut.REPLACED), False)
    place.fleet.act("start", ident)
    place.fleet.settle()
    place.fleet.now += DAY
    place.fleet.settle()
    assert place.places(ident)[last][1:] == (str(LeftOut.REPLACED), False)  # nobody is told, nor waited for


def test_where_the_wave_of_the_old_one_is_over_the_new_one_joins_the_one_that_runs(place):
    ident = place.fleet.running()
    place.fleet.settle()
    with write(place.engine) as connection:
        connection.execute(t.roll_out.update().where(t.roll_out.c.id == ident).values(wave=3))
    (first, *_) = [device for device, (wave, _, _) in place.places(ident).items() if wave == 1]
    was_told = place.places(ident)[first][2]
    place.replace(first)
    found = place.places(ident)
    assert found[FRESH] == (3, "", False)
    assert found[first] == (1, "" if was_told else "REPLACED", was_told)


def test_a_roll_out_that_is_over_takes_nobody_in(place):
    ident = place.fleet.ready()
    place.fleet.act("abort", ident)
    place.replace()
    assert FRESH not in place.places(ident)
