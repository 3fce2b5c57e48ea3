"""The broker's list of those it takes no more, and who is thrown off the line."""

from __future__ import annotations

import datetime as dt

import pytest
from fleet_kit import NOW

from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.ca import AuthorityDown
from appliance.fleet.server.db import write
from appliance.fleet.server.revocation import Revocation

pytestmark = pytest.mark.req("R-FLEET-25")

EVERYTHING = registry.Scope.everything()
LATER = dt.timedelta(seconds=2)


class Neighbours:
    """The CA and the broker; what they were told."""

    class files:  # noqa: N801 - as the broker has them
        crl = "revoked.crl"

    def __init__(self):
        self.lists, self.reloads, self.out = [], 0, []
        self.is_away = self.is_deaf = False

    def crl(self, revoked, now):
        if self.is_away:
            raise AuthorityDown("away")
        return sorted(one.serial for one in revoked)

    def put(self, path, data):
        self.lists.append(data)

    def reload(self):
        self.reloads += 1

    def throw_out(self, device):
        if self.is_deaf:
            raise OSError("no answer")
        self.out.append(device)


@pytest.fixture
def around():
    return Neighbours()


@pytest.fixture
def look(engine, box, around):
    revocation = Revocation(engine, around, around)
    now = NOW

    def call(*, after=LATER, **more):
        nonlocal now
        now += after
        return revocation.look(now, **more)

    assert call(first=True)
    assert around.lists == [[]]
    return call


@pytest.fixture
def switch(engine, box):
    def call(*, on):
        with write(engine) as connection:
            if on:
                registry.enable_device(connection, EVERYTHING, box.device)
            else:
                registry.disable_device(connection, EVERYTHING, box.device, now=NOW)

    return call


def test_a_disabled_box_is_on_the_list_and_off_the_line_once_and_comes_off_the_list_again(around, look, switch, box):
    switch(on=False)
    assert look()
    assert (len(around.lists[-1]), around.reloads, around.out) == (1, 1, [box.device])
    assert not look()
    assert (around.reloads, around.out) == (1, [box.device])
    switch(on=True)
    assert look()
    assert (around.lists[-1], around.out) == ([], [box.device])
    switch(on=False)
    look()
    assert around.out == [box.device] * 2


def test_the_certificate_before_a_renewal_is_on_the_list_and_its_box_stays_on_the_line(engine, around, look, box, ca):
    with write(engine) as connection:
        (first,) = connection.scalars(t.certificate.select().with_only_columns(t.certificate.c.fingerprint))
        registry.see_certificate(connection, first, now=NOW)
        second = registry.add_certificate(connection, box.device, ca.issue(box.device).pem, now=NOW)
    assert not look()
    with write(engine) as connection:
        registry.see_certificate(connection, second, now=NOW)
    assert look()
    assert (len(around.lists[-1]), around.out) == (1, [])


def test_a_list_that_could_not_be_made_is_made_as_soon_as_it_can(around, look, switch, box):
    switch(on=False)
    around.is_away = True
    assert not look()
    assert (len(around.lists), around.out) == (1, [])
    around.is_away = False
    assert look()
    assert (len(around.lists[-1]), around.out) == (1, [box.device])


def test_who_could_not_be_thrown_out_is_tried_again(around, look, switch, box):
    switch(on=False)
    around.is_deaf = True
    look()
    look()
    around.is_deaf = False
    assert not look()
    assert around.out == [box.device]


def test_the_list_is_made_anew_each_day_and_where_the_clock_went_back(around, look):
    assert not look(after=dt.timedelta(hours=23))
    assert look(after=dt.timedelta(hours=1))
    assert look(after=dt.timedelta(days=-3))


def test_without_a_first_list_nothing_starts_and_who_was_disabled_before_is_on_no_line(engine, box, around, switch):
    around.is_away = True
    revocation = Revocation(engine, around, around)
    with pytest.raises(AuthorityDown):
        revocation.look(NOW, first=True)
    around.is_away = False
    switch(on=False)
    revocation.look(NOW, first=True)
    assert (around.reloads, around.out, len(around.lists[-1])) == (0, [], 1)
