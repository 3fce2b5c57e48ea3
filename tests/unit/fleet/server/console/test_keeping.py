"""What the overview says to who keeps the server: signatures that end, keys that boxes have not taken."""

from __future__ import annotations

import datetime as dt

import pytest
from console_kit import DAY, OURS
from fleet_kit import NOW
from sqlalchemy import update
from tuf_kit import TufKit

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.server_keys import add_key
from engines.signing import generate

pytestmark = pytest.mark.req("R-TUF-04")


@pytest.fixture
def kit(tmp_path, clock):
    return TufKit(tmp_path / "tuf", now=clock.now())


def told(page):
    return {
        name
        for name in ("repository-targets", "repository-timestamp", "repository-damaged", "keys-behind")
        if name in page
    }


def test_the_platform_s_overview_says_what_ends_before_it_ends(kit, visit, clock):
    who = visit("operator")
    assert told(who.get("/").text) == set()
    clock.advance(dt.timedelta(days=155).total_seconds())
    kit.refresh(clock.now())
    who = visit("operator")
    page = who.get("/").text
    assert told(page) == {"repository-targets"}
    assert "scanside-fleet key publish" in page
    assert told(visit("vendor").get("/").text) == set(), "nobody else can mend it"
    clock.advance(dt.timedelta(days=26).total_seconds())
    page = visit("operator").get("/").text
    assert told(page) == {"repository-targets", "repository-timestamp"}
    assert "boxes install nothing new" in page
    (kit.folder / "metadata/timestamp.json").write_text("{")
    assert told(visit("operator").get("/").text) == {"repository-damaged"}


def test_the_platform_s_overview_counts_boxes_that_have_not_taken_the_keys(kit, fleet, visit):
    with db.write(fleet) as connection:
        add_key(connection, generate("wang").public, "release", "Wang", now=NOW - DAY)
    assert told(visit("operator").get("/").text) == set(), "they enrolled with them"
    with db.write(fleet) as connection:
        add_key(connection, generate("li").public, "release", "Li", now=NOW + dt.timedelta(seconds=1))
    page = visit("operator").get("/").text
    assert told(page) == {"keys-behind"}
    assert "2 boxes have not taken the keys" in page
    assert told(visit("vendor").get("/").text) == set()
    with db.write(fleet) as connection:
        connection.execute(update(t.device).where(t.device.c.id == OURS).values(state="disabled"))
    assert "1 box has not taken the keys" in visit("operator").get("/").text
