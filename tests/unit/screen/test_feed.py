"""The feed: what makes a new board, what only moves the row on, and what a screen that was away is told."""

from __future__ import annotations

import asyncio

import pytest

from appliance.errors import StoreError
from appliance.records import Actor, ActorKind
from appliance.screen.feed import FRESH_S, POLL_S, Feed
from appliance.store.facts import Kind
from appliance.store.facts.intake import AssociationOpened

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")


@pytest.fixture
def feed(store, clock, scenes):
    return Feed(store, scenes.packages(), clock)


def test_a_loud_fact_makes_a_new_board_at_once(feed, write, scenes):
    before = feed.snapshot
    write(scenes.urgent)
    feed.step()
    assert feed.snapshot.version == before.version + 1
    assert feed.snapshot.board.open_alerts == 1


def test_images_arriving_make_a_new_board_only_some_times_a_second(feed, store, write, clock, scenes):
    study = write(scenes.add_study, is_open=True)
    with store.db.write() as tx:
        tx.journal(AssociationOpened(association=1, source="CT-1"))
    feed.step()
    assert feed.snapshot.version == 1
    clock.advance(0.5)
    feed.step()
    assert feed.snapshot.board.receiving[0].images == 32
    assert study


def test_a_board_that_looks_the_same_is_vouched_for_but_not_painted_again(feed, clock):
    clock.advance(POLL_S)
    feed.step()
    assert feed.snapshot.version == 1
    assert feed.is_fresh


def test_a_store_that_does_not_answer_leaves_the_board_stale(feed, clock, monkeypatch):
    def broken():
        raise StoreError("disk I/O error")

    clock.advance(FRESH_S)
    monkeypatch.setattr(feed._store.views, "open_alerts", broken)
    with pytest.raises(StoreError):
        feed.step()
    assert not feed.is_fresh


@pytest.mark.req("R-SCREEN-04")
def test_missed_facts_are_those_between_two_rows_in_order_and_only_those_that_are_told(feed, store, write, scenes):
    first = write(scenes.urgent)
    seen = store.journal.last_seq()
    with store.db.write() as tx:
        tx.journal(AssociationOpened(association=1, source="CT-1"))
    store.alerts.acknowledge(first, LI)
    write(scenes.urgent)
    upto = store.journal.last_seq()
    write(scenes.urgent)
    kinds = [fact.kind for fact in feed.missed(seen, upto)]
    assert kinds == [Kind.ALERT_ACKNOWLEDGED, Kind.STUDY_OUTCOME, Kind.ALERT_RAISED]


def test_more_missed_facts_than_one_reading_are_all_found(feed, store, write, scenes):
    alert = write(scenes.urgent)
    seen = store.journal.last_seq()
    with store.db.write() as tx:
        for _ in range(1100):
            tx.journal(scenes.AlertRaised(alert=alert, analysis=1, category=1, active=True, chime=True))
    assert len(feed.missed(seen, store.journal.last_seq())) == 1100


def test_those_who_wait_are_woken_by_a_new_board_and_by_the_end(feed, write, scenes):
    async def wait():
        feed.start()
        version = feed.snapshot.version
        waiting = asyncio.create_task(feed.changed(version, 30))
        await asyncio.sleep(0)
        await asyncio.to_thread(write, scenes.urgent)
        await waiting
        assert feed.snapshot.version > version
        last = asyncio.create_task(feed.changed(feed.snapshot.version, 30))
        await asyncio.sleep(0)
        assert feed.waiting == 1
        feed.stop()
        await last
        await asyncio.to_thread(feed.join)

    asyncio.run(asyncio.wait_for(wait(), 30))


def test_a_notice_of_an_earlier_run_is_found_at_start_and_ends_after_half_an_hour(store, clock, scenes):
    scenes.fill(store, "backlog")
    feed = Feed(store, scenes.packages(), clock)
    assert feed.snapshot.board.notice.studies == 100
    clock.advance(1801)
    feed.step()
    assert feed.snapshot.board.notice is None
