"""Sessions: what is kept of a cookie, when they end, and that watching does not keep them alive."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.records import SYSTEM, UserRole
from appliance.store.facts import Kind
from appliance.store.sessions import IDLE, LONGEST

pytestmark = pytest.mark.req("R-ACCESS-02")


@pytest.fixture
def sessions(store):
    return store.sessions


@pytest.fixture
def person(store):
    def make(role=UserRole.ADMINISTRATOR):
        return store.accounts.get(store.accounts.add(str(role), f"A {role}", role, "hash", SYSTEM))

    return make


@pytest.fixture
def paired(store):
    store.screens.offer("ct-1", ("CT-1",), "123456", SYSTEM)
    return store.screens.pair("123456")


def test_the_cookie_is_random_and_only_its_digest_is_kept(store, sessions, person):
    one = person()
    first, second = sessions.open(one, "password"), sessions.open(one, "password")
    assert first != second
    assert len(first) == 43
    kept = [tuple(row) for row in store.db.all("SELECT * FROM session")]
    assert not any(first in str(row) for row in kept)
    assert sessions.find(first).account.name == "administrator"
    assert sessions.find(first + "x") is None
    assert sessions.find("") is None


def test_a_session_ends_when_nobody_used_it_and_the_journal_says_so(store, sessions, person, clock):
    cookie = sessions.open(person(), "password")
    clock.advance(IDLE[UserRole.ADMINISTRATOR].total_seconds() - 1)
    assert sessions.find(cookie)
    clock.advance(IDLE[UserRole.ADMINISTRATOR].total_seconds() + 1)
    assert sessions.find(cookie) is None
    clock.advance(-3600)
    assert sessions.find(cookie) is None
    facts = store.journal.after(0, 100, (Kind.SIGNED_IN, Kind.SIGNED_OUT))
    assert [(str(f.kind), f.actor["name"]) for f in facts] == [
        ("signed_in", "A administrator"),
        ("signed_out", "A administrator"),
    ]


def test_a_session_ends_after_a_day_of_work_however_busy(sessions, person, clock):
    cookie = sessions.open(person(UserRole.TECHNOLOGIST), "password")
    for _ in range(int(LONGEST / timedelta(hours=1))):
        assert sessions.find(cookie)
        clock.advance(3600)
    clock.advance(1)
    assert sessions.find(cookie) is None


def test_watching_does_not_keep_a_session_alive(sessions, person, clock):
    cookie = sessions.open(person(), "password")
    session = sessions.find(cookie)
    for _ in range(30):
        assert sessions.holds(session)
        clock.advance(60)
    clock.advance(1)
    assert not sessions.holds(session)
    assert sessions.find(cookie) is None


def test_a_screen_stays_paired_for_years_and_ends_when_it_is_revoked(store, sessions, paired, clock):
    cookie = sessions.open(paired, "pairing")
    clock.advance(3 * 365 * 86400)
    found = sessions.find(cookie)
    assert (found.role, found.screen.sources) == ("screen", ("CT-1",))
    store.screens.revoke(paired.id, SYSTEM)
    assert sessions.find(cookie) is None
    assert not sessions.holds(found)


def test_a_session_does_not_hold_once_the_account_has_another_role(store, sessions, person):
    person()
    one = person(UserRole.VIEWER)
    session = sessions.find(sessions.open(one, "password"))
    store.accounts.set_role(one.id, UserRole.RADIOLOGIST, SYSTEM)
    assert not sessions.holds(session)


def test_signing_out_ends_this_browser_alone(sessions, person):
    one = person()
    here, there = sessions.open(one, "password"), sessions.open(one, "password")
    sessions.end(sessions.find(here))
    assert sessions.find(here) is None
    assert sessions.find(there)


def test_rows_of_sessions_that_nobody_ended_do_not_pile_up(store, sessions, person, paired, clock):
    one = person()
    for _ in range(5):
        sessions.open(one, "password")
    screen = sessions.open(paired, "pairing")
    clock.advance(LONGEST.total_seconds() + 1)
    sessions.open(one, "password")
    assert store.db.one("SELECT count(*) AS n FROM session")["n"] == 2
    assert sessions.find(screen)


def test_a_rebuilt_database_knows_who_may_sign_in_and_which_screens_are_paired(tmp_path, store, paired, person, clock):
    from appliance.store.rebuild import Reader, rebuild

    cookies = [store.sessions.open(person(), "password"), store.sessions.open(paired, "pairing")]
    store.close()
    nothing = Reader(
        header=lambda _: None, receipt=lambda _: None, change=lambda *_: None, source=str, originals=lambda _: ()
    )
    made = rebuild(tmp_path, clock, nothing, "a test", reserve_bytes=0)
    try:
        assert [one.name for one in made.accounts.all()] == ["administrator"]
        assert [made.sessions.find(cookie).role for cookie in cookies] == ["administrator", "screen"]
    finally:
        made.close()
