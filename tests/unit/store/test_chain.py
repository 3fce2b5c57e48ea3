"""T47, the journal's part: whatever is done to its rows by who cannot write the whole chain anew is found."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from appliance.store.facts.box import DaemonStopped, JournalPruned
from appliance.store.hashing import row_hash
from appliance.store.journal import FIELDS

pytestmark = [pytest.mark.req("R-ADMIN-03"), pytest.mark.fault("T47")]


@pytest.fixture
def facts(store):
    """``facts(n)``: so many rows more."""

    def write(n):
        for number in range(n):
            with store.db.write() as tx:
                tx.journal(DaemonStopped(why=f"fact {number}"))

    return write


@pytest.fixture
def tamper(store):
    """``tamper(sql, ...)``: what somebody with the file does to it."""

    def do(sql, *values):
        with store.db.write() as tx:
            tx.execute(sql, values)

    return do


def checked(store):
    while store.chain.advance(7):
        pass
    return store.chain.state


def test_a_whole_chain_is_vouched_for_and_new_rows_join_it(store, facts):
    facts(30)
    state = checked(store)
    assert state.is_whole
    assert state.through == store.journal.last_seq()
    facts(3)
    assert checked(store).through == store.journal.last_seq()


def test_no_step_reads_more_rows_than_it_was_given(store, facts):
    facts(30)
    assert store.chain.advance(7)
    assert store.chain.state.through == 7
    assert not store.chain.state.is_whole


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("UPDATE journal SET body = json_set(body, '$.why', 'another') WHERE seq = 12", 12),
        ("UPDATE journal SET actor = replace(actor, 'system', 'person') WHERE seq = 12", 12),
        ("DELETE FROM journal WHERE seq = 12", 13),
        ("DELETE FROM journal WHERE seq <= 12", 13),
        ("UPDATE journal SET seq = CASE seq WHEN 12 THEN -13 ELSE 12 END WHERE seq IN (12, 13)", 12),
        ("DELETE FROM journal WHERE seq > 25", 26),
    ],
    ids=["edit", "other actor", "delete", "delete the oldest", "reorder", "truncate"],
)
def test_a_changed_journal_is_found_at_its_row(store, facts, tamper, sql, row):
    facts(30)
    tamper(sql)
    if "-13" in sql:
        tamper("UPDATE journal SET seq = 13 WHERE seq = -13")
    state = checked(store)
    assert not state.is_whole
    assert state.broken_at == row


def test_what_was_whole_and_is_changed_later_is_found_by_the_next_pass(store, facts, tamper, clock):
    facts(30)
    assert checked(store).is_whole
    tamper("UPDATE journal SET body = json_set(body, '$.why', 'x') WHERE seq = 5")
    assert checked(store).is_whole  # it looks at new rows only
    clock.advance(timedelta(hours=25).total_seconds())
    assert checked(store).broken_at == 5


def test_a_cut_end_is_found_even_if_the_counter_is_set_back_and_new_rows_follow(store, facts, tamper):
    facts(30)
    assert checked(store).is_whole
    tamper("DELETE FROM journal WHERE seq > 25")
    tamper("UPDATE sqlite_sequence SET seq = 25 WHERE name = 'journal'")
    assert checked(store).broken_at
    store.chain.restart()
    facts(10)  # rows 26 and on, chained to row 25: the chain fits again
    assert checked(store).broken_at == store.chain._witness[0]


def test_a_checkpoint_that_is_forged_in_place_does_not_fit_the_chain(store, facts, tamper):
    facts(30)
    (ten,) = store.db.all("SELECT hash FROM journal WHERE seq = 10")
    forged = JournalPruned(day="2020-01-01", rows=10, through=10, hash=ten["hash"]).model_dump_json()
    tamper("UPDATE journal SET kind = 'journal_pruned', body = ? WHERE seq = 20", forged)
    tamper("DELETE FROM journal WHERE seq <= 10")
    assert checked(store).broken_at


def test_a_checkpoint_that_is_chained_rightly_does_not_excuse_young_rows(store, facts, tamper):
    """The forger can compute every hash, but the rows that stay tell that those before were of this week."""
    facts(30)
    (ten,) = store.db.all("SELECT hash FROM journal WHERE seq = 10")
    with store.db.write() as tx:
        tx.journal(JournalPruned(day="2020-01-01", rows=10, through=10, hash=ten["hash"]))
    tamper("DELETE FROM journal WHERE seq <= 10")
    assert store.journal.verify() == 0  # the chain alone is content
    assert checked(store).broken_at == 11


def test_what_retention_took_is_no_break(store, facts, clock):
    for _ in range(3):
        facts(10)
        clock.advance(timedelta(days=1).total_seconds())
    clock.advance(timedelta(days=365).total_seconds())
    facts(5)
    assert store.chain.advance(4)
    store.journal.prune(clock.now() - timedelta(days=366))
    assert store.db.one("SELECT min(seq) AS seq FROM journal")["seq"] > 4
    assert checked(store).is_whole
    store.chain.restart()
    assert checked(store).is_whole


def test_a_chain_written_anew_passes_which_is_why_an_export_is_kept_elsewhere(store, facts, tamper):
    """What no local chain can show; stated on the page and in ADR 0037."""
    facts(10)
    tamper("UPDATE journal SET body = json_set(body, '$.why', 'x') WHERE seq = 5")
    (before,) = store.db.all("SELECT hash FROM journal WHERE seq = 4")
    previous = before["hash"]
    for row in store.db.all("SELECT * FROM journal WHERE seq >= 5 ORDER BY seq"):
        previous = row_hash(previous, {name: row[name] for name in FIELDS})
        tamper("UPDATE journal SET hash = ? WHERE seq = ?", previous, row["seq"])
    assert checked(store).is_whole
    newest = [one for batch in store.audit_log.export(_everything()) for one in batch][-1]
    assert newest[1] == previous  # the witness: an earlier export ends with another hash


def _everything():
    from appliance.store.audit_log import AuditFilter

    return AuditFilter()


def test_rows_can_be_found_by_time_though_most_of_the_journal_is_older(store, facts, clock):
    from appliance.store.audit_log import AuditFilter

    facts(40)
    clock.advance(3600)
    since = clock.now()
    facts(3)
    page = store.audit_log.page(AuditFilter(since=since))
    assert [json.loads(json.dumps(fact.body))["why"] for fact in page.facts] == ["fact 2", "fact 1", "fact 0"]
    assert page.before is None
