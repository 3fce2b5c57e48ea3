"""Accounts: what may change, who hears of it, and that somebody can always administer the box."""

from __future__ import annotations

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM, Actor, ActorKind, UserRole
from appliance.store.facts import Kind

ADA = Actor(kind=ActorKind.PERSON, name="Ada", role="administrator")

pytestmark = pytest.mark.req("R-ACCESS-03")


@pytest.fixture
def accounts(store):
    return store.accounts


@pytest.fixture
def ada(accounts):
    return accounts.add("ada", "Ada", UserRole.ADMINISTRATOR, "hash", SYSTEM)


@pytest.fixture
def changes(store):
    """What the journal says of accounts: (account, change, role)."""
    kinds = (Kind.ACCOUNT_CHANGED,)
    return lambda: [(f.body["account"], f.body["change"], f.body["role"]) for f in store.journal.after(0, 100, kinds)]


def test_a_box_without_an_active_administrator_is_open_for_set_up_whoever_else_signed_in(store, accounts):
    viewer = accounts.know("https://idp 1", "li", "Li Wei", UserRole.VIEWER)
    assert not accounts.has_administrator()
    assert store.setup.is_open()
    # None of these takes an administrator away.
    accounts.set_active(viewer.id, SYSTEM, active=False, reason="left")
    accounts.set_active(viewer.id, SYSTEM, active=True, reason="back")
    accounts.set_role(viewer.id, UserRole.TECHNOLOGIST, SYSTEM, reason="learned")
    assert accounts.know("https://idp 1", "li", "Li Wei", UserRole.RADIOLOGIST).role is UserRole.RADIOLOGIST
    code = store.setup.new_code()
    with pytest.raises(ConflictError, match="another name"):
        store.setup.begin(code, "LI", "Ada", "hash")
    store.setup.begin(code, "ada", "Ada", "hash")
    assert accounts.has_administrator()
    assert not store.setup.is_open()


def test_names_are_unique_whatever_the_case_and_people_are_told_apart(accounts, ada):
    with pytest.raises(ConflictError, match="another name"):
        accounts.add("ADA", "Somebody", UserRole.VIEWER, None, ADA)
    with pytest.raises(ConflictError, match="tells the two apart"):
        accounts.add("ada2", "Ada", UserRole.VIEWER, None, ADA)
    assert [one.name for one in accounts.all()] == ["ada"]


def test_nobody_is_a_screen(accounts, ada):
    with pytest.raises(ConflictError, match="pair a screen"):
        accounts.add("kiosk", "Kiosk", UserRole.SCREEN, None, ADA)
    with pytest.raises(ConflictError, match="pair a screen"):
        accounts.set_role(ada, UserRole.SCREEN, ADA)


def test_the_last_administrator_cannot_go(accounts, ada, changes):
    second = accounts.add("bo", "Bo", UserRole.ADMINISTRATOR, None, ADA)
    accounts.set_active(second, ADA, active=False, reason="left")
    for act in (
        lambda: accounts.set_role(ada, UserRole.VIEWER, ADA, reason="why not"),
        lambda: accounts.set_active(ada, ADA, active=False, reason="why not"),
    ):
        with pytest.raises(ConflictError, match="last administrator"):
            act()
    assert accounts.get(ada).role is UserRole.ADMINISTRATOR
    assert accounts.get(ada).is_active
    assert changes()[-1] == ("bo", "disabled", "administrator")


def test_another_role_password_or_state_signs_every_browser_out(store, accounts, ada):
    acts = (
        lambda one: accounts.set_role(one, UserRole.RADIOLOGIST, ADA, reason="learned"),
        lambda one: accounts.set_password(one, "hash 2", ADA, must_change=True),
        lambda one: accounts.set_active(one, ADA, active=False, reason="left"),
    )
    for n, act in enumerate(acts):
        one = accounts.add(f"li{n}", f"Li {n}", UserRole.VIEWER, "hash", ADA)
        cookies = [store.sessions.open(accounts.get(one), "password") for _ in range(2)]
        assert all(store.sessions.find(cookie) for cookie in cookies)
        act(one)
        assert not any(store.sessions.find(cookie) for cookie in cookies)


def test_a_switched_off_account_keeps_its_row_and_may_come_back(accounts, ada, changes):
    one = accounts.add("li", "Li", UserRole.VIEWER, "hash", ADA)
    accounts.set_active(one, ADA, active=False, reason="leave")
    accounts.set_active(one, ADA, active=False, reason="again")
    accounts.set_active(one, ADA, active=True, reason="back")
    assert [change for _, change, _ in changes()] == ["added", "added", "disabled", "enabled"]
    with pytest.raises(NotFoundError):
        accounts.set_active(99, ADA, active=False)


def test_an_outdated_hash_is_replaced_only_if_the_password_is_still_that(accounts, ada):
    accounts.rehash(ada, "hash", "better")
    assert accounts.by_name("ADA")[1] == "better"
    accounts.rehash(ada, "hash", "worse")
    assert accounts.by_name("ada")[1] == "better"


@pytest.mark.req("R-ACCESS-05")
def test_an_identity_of_the_directory_gets_an_account_of_its_own_and_never_somebody_elses(accounts, ada, changes):
    first = accounts.know("https://idp 1", "ada", "Ada", UserRole.RADIOLOGIST)
    assert (first.name, first.full_name, first.role, first.has_password) == ("ada.2", "Ada 2", "radiologist", False)
    again = accounts.know("https://idp 1", "renamed", "Renamed", UserRole.TECHNOLOGIST)
    assert (again.id, again.name, again.role) == (first.id, "ada.2", "technologist")
    assert accounts.get(ada).role is UserRole.ADMINISTRATOR
    assert changes()[1:] == [("ada.2", "added", "radiologist"), ("ada.2", "role", "technologist")]
    accounts.set_active(first.id, ADA, active=False, reason="left")
    with pytest.raises(ConflictError, match="switched off"):
        accounts.know("https://idp 1", "ada", "Ada", UserRole.RADIOLOGIST)


@pytest.mark.req("R-ACCESS-05")
def test_the_directory_cannot_take_the_last_administrator_away(accounts):
    one = accounts.know("https://idp 1", "ada", "Ada", UserRole.ADMINISTRATOR)
    with pytest.raises(ConflictError, match="last administrator"):
        accounts.know("https://idp 1", "ada", "Ada", UserRole.VIEWER)
    assert accounts.get(one.id).role is UserRole.ADMINISTRATOR
