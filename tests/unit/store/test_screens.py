"""Screens at scanners: a code pairs once and soon, a new one replaces the old, a revoked one shows nothing."""

from __future__ import annotations

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM
from appliance.store.facts import Kind
from appliance.store.screens import CODE_LIFE, TICKET_LIFE

pytestmark = pytest.mark.req("R-ACCESS-04")


@pytest.fixture
def screens(store):
    return store.screens


def test_a_code_pairs_one_browser_once(screens):
    screens.offer("ct-1", ("CT-1",), "123456", SYSTEM)
    paired = screens.pair("123456")
    assert (paired.name, paired.sources) == ("ct-1", ("CT-1",))
    with pytest.raises(ConflictError):
        screens.pair("123456")
    with pytest.raises(ConflictError):
        screens.pair("")


def test_a_code_holds_for_a_quarter_of_an_hour_and_a_link_for_a_day(screens, clock):
    screens.offer("ct-1", (), "123456", SYSTEM)
    screens.offer("ct-2", (), "a long ticket", SYSTEM, life=TICKET_LIFE)
    clock.advance(CODE_LIFE.total_seconds() + 1)
    with pytest.raises(ConflictError):
        screens.pair("123456")
    assert screens.pair("a long ticket").name == "ct-2"
    screens.offer("ct-3", (), "another ticket", SYSTEM, life=TICKET_LIFE)
    clock.advance(TICKET_LIFE.total_seconds() + 1)
    with pytest.raises(ConflictError):
        screens.pair("another ticket")


def test_a_newer_code_makes_the_older_one_worthless(screens):
    screens.offer("ct-1", (), "111111", SYSTEM)
    screens.offer("ct-1", (), "222222", SYSTEM)
    with pytest.raises(ConflictError):
        screens.pair("111111")
    assert screens.pair("222222").name == "ct-1"


def test_one_code_never_stands_for_two_screens(screens):
    screens.offer("ct-1", (), "123456", SYSTEM)
    with pytest.raises(ConflictError, match="again"):
        screens.offer("ct-2", (), "123456", SYSTEM)
    assert screens.pair("123456").name == "ct-1"


def test_a_panel_is_replaced_by_pairing_its_name_anew_and_goes_on_until_then(store, screens):
    screens.offer("ct-1", ("CT-1",), "111111", SYSTEM)
    first = screens.pair("111111")
    old = store.sessions.open(first, "pairing")
    screens.offer("ct-1", ("CT-1", "CT-2"), "222222", SYSTEM)
    assert store.sessions.find(old)
    second = screens.pair("222222")
    assert store.sessions.find(old) is None
    assert (second.id, second.sources) == (first.id, ("CT-1", "CT-2"))
    assert len(screens.all()) == 1


def test_a_revoked_screen_is_gone_and_its_name_is_free(screens):
    number = screens.offer("ct-1", (), "123456", SYSTEM)
    screens.revoke(number, SYSTEM)
    assert screens.all() == []
    with pytest.raises(ConflictError):
        screens.pair("123456")
    with pytest.raises(NotFoundError):
        screens.revoke(number, SYSTEM)
    assert screens.offer("ct-1", (), "654321", SYSTEM) != number


def test_no_code_stands_in_the_journal_or_the_table(store, screens):
    screens.offer("ct-1", (), "a long ticket", SYSTEM)
    screens.pair("a long ticket")
    facts = store.journal.after(0, 100, (Kind.SCREEN_CHANGED,))
    assert [fact.body["change"] for fact in facts] == ["code", "paired"]
    rows = [tuple(row) for row in store.db.all("SELECT * FROM screen")]
    assert "a long ticket" not in str(facts) + str(rows)
