"""What people are told of the line: since when it stands, and when the server last said that it has rows."""

from __future__ import annotations

import pytest
from fleet_link_kit import batch_of

from appliance.fleet.device.transport import Disconnected
from appliance.fleet.wire import Up
from appliance.store.database import iso
from appliance.store.fleet import CONNECTED, TOLD

pytestmark = pytest.mark.req("R-FLEET-88")


def test_the_marks_say_how_the_line_stands_and_a_restart_claims_nothing(box):
    marks = box.store.fleet
    assert (marks.state(CONNECTED), marks.state(TOLD)) == ("", "")
    box.tell(1)
    line = box.connect()
    assert marks.state(CONNECTED) == iso(box.clock.now())
    box.flush()
    assert marks.state(TOLD) == "", "the broker's answer is not the server's"
    box.ack([batch_of(line.of(Up.REC)[0]).batch])
    assert marks.state(TOLD) == iso(box.clock.now())
    line.events.put(Disconnected("lost"))
    box.step()
    assert marks.state(CONNECTED) == ""
    box.connect()
    assert marks.state(CONNECTED) != ""
    box.restart()  # as after a kill: nothing was taken back
    known = len(box.net.lines)
    while len(box.net.lines) == known:
        box.step(5)
    assert marks.state(CONNECTED) == "", "it dials, and the broker has not taken it yet"
    box.line.up()
    box.step()
    box.link.close()
    assert marks.state(CONNECTED) == ""


def test_a_box_that_leaves_its_fleet_keeps_none_of_them(box):
    box.tell(1)
    line = box.connect()
    box.flush()
    box.ack([batch_of(line.of(Up.REC)[0]).batch])
    box.store.fleet.leave()
    assert (box.store.fleet.state(CONNECTED), box.store.fleet.state(TOLD)) == ("", "")
