"""Accounts of the console: signing in, sessions that end, passwords, waits."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from console_kit import COOKIE, OTHER, PASSWORD, add_somebody
from fleet_kit import DEALER, HOSPITAL, PLATFORM
from sqlalchemy import select

from appliance.errors import ConflictError
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import people
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.registry import broken_audit
from appliance.web.passwords import Passwords

pytestmark = pytest.mark.req("R-FLEET-51")


@pytest.fixture(scope="module")
def kept():
    return Passwords().hashed(PASSWORD)


@pytest.fixture
def sam(fleet, kept, clock):
    with db.write(fleet) as connection:
        return add_somebody(connection, "sam", "service", DEALER, password=kept, now=clock.now())


def sign_in(visitor, password=PASSWORD, name="sam", target="/issues"):
    return visitor.form("/sign-in", name=name, password=password, next=target)


def test_a_password_opens_the_page_that_was_asked_for_and_no_address_elsewhere(sam, visit, fleet):
    visitor = visit()
    assert visitor.get("/issues").headers["location"] == "/sign-in?next=%2Fissues"
    assert sign_in(visitor).headers["location"] == "/issues"
    assert visitor.get("/issues").status_code == 200
    assert sign_in(visit(), target="//elsewhere.example").headers["location"] == "/"
    with db.read(fleet) as connection:
        digests = connection.execute(select(t.session.c.digest)).scalars().all()
    assert visitor.cookies[COOKIE] not in digests


def test_a_wrong_name_and_a_wrong_password_look_the_same_and_then_one_waits(sam, visit, clock):
    visitor = visit()
    answers = [sign_in(visitor, "wrong"), sign_in(visitor, "wrong", "nobody")]
    assert [one.status_code for one in answers] == [401, 401]
    without_name = [re.sub(r'value="(sam|nobody)"', "", re.sub(r"[\w-]{32}", "", one.text)) for one in answers]
    assert without_name[0] == without_name[1]
    for _ in range(4):
        sign_in(visitor, "wrong")
    assert sign_in(visitor).status_code == 429
    clock.advance(60)
    assert sign_in(visitor).status_code == 303


def test_a_session_ends_when_unused_and_after_half_a_day_whatever_happens(sam, visit, clock):
    visitor = visit()
    sign_in(visitor)
    clock.advance(1500)
    assert visitor.get("/").status_code == 200
    clock.advance(1500)
    assert visitor.get("/", headers={"X-Background": "1"}).status_code == 200, "used a while ago"
    clock.advance(600)
    assert visitor.get("/").status_code == 303, "what a page asks by itself keeps nobody signed in"
    sign_in(visitor)
    for _ in range(30):
        clock.advance(1500)
        last = visitor.get("/").status_code
    assert last == 303


def test_a_password_of_somebody_else_is_changed_before_anything_else(fleet, kept, visit, clock):
    with db.write(fleet) as connection:
        add_somebody(connection, "sam", "service", DEALER, password=kept, now=clock.now(), must_change=True)
    visitor = visit()
    assert sign_in(visitor).headers["location"] == "/account"
    assert visitor.get("/").headers["location"] == "/account"
    change = {"old": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
    assert visitor.form("/account/password", **change | {"old": "wrong one here"}).status_code == 400
    assert visitor.form("/account/password", **change | {"new": "password12", "again": "password12"}).status_code == 400
    assert visitor.form("/account/password", **change).status_code == 303
    assert visitor.get("/").status_code == 200
    assert sign_in(visit()).status_code == 401


def test_who_is_switched_off_is_out_at_once_and_the_last_operator_never_is(sam, visit, fleet, clock):
    visitor, operator = visit(), visit("operator")
    sign_in(visitor)
    assert operator.form(f"/users/{sam.number}/switch", on="0").status_code == 303
    assert visitor.get("/").status_code == 303
    assert sign_in(visitor).status_code == 401
    with db.read(fleet) as connection:
        number = people.by_name(connection, "operator")[0].number
    with db.write(fleet) as connection, pytest.raises(ConflictError, match="last operator"):
        people.switch(connection, number, on=False, now=clock.now(), actor="test")


def test_a_role_fits_its_kind_of_tenant(fleet, clock):
    wrong = [("operator", HOSPITAL), ("operator", DEALER), ("administrator", DEALER), ("administrator", PLATFORM)]
    for role, tenant in wrong:
        with db.write(fleet) as connection, pytest.raises(ConflictError, match="nobody is"):
            people.add_person(connection, "x1", "", tenant, FleetRole(role), "", now=clock.now(), actor="test")


def test_somebody_of_two_tenants_looks_as_one_of_them_at_a_time(sam, visit, fleet, clock):
    with db.write(fleet) as connection:
        people.add_person(connection, "sam", "", OTHER, FleetRole.VIEWER, "", now=clock.now(), actor="test")
    visitor = visit()
    sign_in(visitor)
    assert "box-0000001" in visitor.get("/").text
    assert visitor.form("/account/tenant", tenant=OTHER).status_code == 303
    text = visitor.get("/").text
    assert ("box-0000001" in text, "box-0000002" in text) == (False, True)
    assert visitor.get("/audit").status_code == 403, "a viewer there"
    assert visitor.form("/account/tenant", tenant=PLATFORM).status_code == 404


def test_users_are_added_once_with_a_password_that_is_shown_once(visit, fleet):
    operator = visit("operator")
    given = {"name": "vera", "full_name": "Vera", "tenant": HOSPITAL, "role": "viewer"}
    answer = operator.form("/users", **given)
    password = re.search(r'data-testid="secret">([a-z0-9-]+)<', answer.text)[1]
    assert sign_in(visit(), password, "vera").headers["location"] == "/account"
    assert password not in operator.get("/users").text
    assert operator.form("/users", **given).status_code == 409
    with db.read(fleet) as connection:
        told = connection.execute(select(t.audit).where(t.audit.c.act == "user.add")).all()[-1]
        assert (told.actor, told.subject, told.tenant) == ("operator", "vera", HOSPITAL)
        assert broken_audit(connection) is None


def test_without_an_operator_the_first_page_says_how_to_make_one(visit):
    assert "scanside-fleet user add" in visit().get("/sign-in").text
    visit("operator")
    assert "scanside-fleet user add" not in visit().get("/sign-in").text


def test_failed_sign_ins_stand_in_the_audit_without_the_name_of_nobody(sam, visit, fleet, clock):
    sign_in(visit(), "wrong")
    clock.advance(timedelta(seconds=2).total_seconds())
    sign_in(visit(), "wrong", "hunter2")
    with db.read(fleet) as connection:
        rows = connection.execute(select(t.audit).where(t.audit.c.act == "sign-in.failed")).all()
    assert [row.subject for row in rows] == ["sam", ""]
