"""The journal as an administrator reads it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from admin_kit import served

from appliance.records import Actor, ActorKind
from appliance.store.facts import Kind
from appliance.store.facts.admin import DestinationPaused
from appliance.store.facts.box import DaemonStopped

pytestmark = pytest.mark.req("R-ADMIN-03")


@pytest.fixture
def journal(store, write):
    """120 facts of the box, one of them of study 7, and two acts of people."""

    def fill(tx):
        for number in range(120):
            tx.journal(DaemonStopped(why=f"w{number}"), study_id=7 if number == 60 else None)
        for name in ("Ada", "=HYPERLINK(1)"):
            actor = Actor(kind=ActorKind.PERSON, name=name, role="administrator")
            tx.journal(DestinationPaused(destination="PACS", paused=True, why="<b>moved</b>"), actor=actor)

    write(fill)


@pytest.fixture
def ada(store, clock, scenes, journal):
    with served(store, clock, scenes.packages()) as somebody:
        yield somebody("administrator")


def test_people_are_shown_first_and_whoever_looks_is_in_the_journal_too(store, ada):
    page = ada.get("/audit").text
    assert "destination_paused" in page
    assert "daemon_stopped" not in page.split("<tbody>")[1]
    assert "&lt;b&gt;moved" in page
    (fact,) = store.journal.after(0, 10, (Kind.ACCESSED,))
    assert fact.body["what"] == "audit"
    assert fact.actor["name"] == "Ada Administrator"


def test_rows_are_paged_by_number_and_filtered_by_kind_study_name_and_day(ada, clock):
    first = ada.get("/audit?who=&kind=daemon_stopped").text
    assert first.count("<tr data-seq=") == 50
    older = first.split('data-testid="older"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    assert ada.get(older).text.count("<tr data-seq=") == 50
    assert ada.get("/audit?who=&study=7").text.count("<tr data-seq=") == 1
    assert ada.get("/audit?name=ada&kind=destination_paused").text.count("<tr data-seq=") == 1
    today = clock.now().astimezone().date().isoformat()
    assert "destination_paused" in ada.get(f"/audit?since={today}&until={today}").text
    assert "No row fits" in ada.get("/audit?since=2099-01-01").text
    for wrong in ("kind=nope", "study=x", "since=yesterday", "who=god"):
        assert ada.get(f"/audit?{wrong}").status_code == 400


def test_an_export_is_whole_ends_with_a_hash_and_no_cell_is_a_formula(store, ada):
    rows = [json.loads(line) for line in ada.get("/audit/export?who=&form=jsonl").text.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    last = store.db.one("SELECT hash FROM journal WHERE seq = ?", (rows[-1]["seq"],))
    assert rows[-1]["hash"] == last["hash"]
    table = list(csv.DictReader(io.StringIO(ada.get("/audit/export?who=person&form=csv").text)))
    assert "'=HYPERLINK(1)" in {row["actor_name"] for row in table}
    assert {fact.body["what"] for fact in store.journal.after(0, 10, (Kind.ACCESSED,))} == {"audit export"}


def test_the_badge_tells_how_far_the_chain_was_checked_and_where_it_breaks(store, ada, write):
    assert "Checking the chain" in ada.get("/audit").text
    while store.chain.advance():
        pass
    through = store.chain.state.through
    assert f"Chain intact to #{through}" in ada.get("/audit").text
    write(lambda tx: tx.execute("DELETE FROM journal WHERE seq = 30"))
    assert "Checking the chain" in ada.post("/audit/chain").text
    while store.chain.advance():
        pass
    page = ada.get("/audit").text
    assert "The chain breaks at #31" in page
    assert "call service" in page


def test_a_broken_chain_becomes_an_issue(store, write, journal):
    from appliance.health.checks import ChainCheck

    check = ChainCheck(store)
    check.run()
    assert store.issues.open() == []
    write(lambda tx: tx.execute("UPDATE journal SET body = '{}' WHERE seq = 30"))
    store.chain.restart()
    check.run()
    assert [issue.code for issue in store.issues.open()] == ["JOURNAL_BROKEN"]


def test_the_audit_is_the_administrators_alone(store, clock, scenes):
    with served(store, clock, scenes.packages()) as somebody:
        for role in ("service", "radiologist", "technologist", "viewer", "screen"):
            assert somebody(role).get("/audit").status_code == 403
            assert somebody(role).get("/audit/export").status_code == 403


def test_what_happened_and_what_was_looked_at_is_told_in_the_readers_words(ada):
    ada.get("/audit")
    page = ada.get("/audit?lang=zh_Hans_CN").text
    rows = page.split("<tbody>")[1]
    assert '查看<span class="sub mono">accessed</span>' in rows
    assert "审计记录" in rows
    assert "管理员" in rows
    assert '<option value="alert_raised" >已发出警示</option>' in page


def test_a_day_that_is_none_is_told_at_its_field_and_the_journal_is_shown_all_the_same(ada):
    answer = ada.get("/audit?since=22.11.2026&until=20260131")
    assert answer.status_code == 400
    assert answer.text.count("Not a day. Give it as 2026-01-31.") == 1
    assert 'value="22.11.2026"' in answer.text
    assert 'type="date"' not in answer.text
    assert ada.get("/audit/export?since=22.11.2026").status_code == 400
