"""Where the fleet link stands in the journal: forward by the server's word, back on request, and nowhere by chance."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.clock import FakeClock
from appliance.store import Store
from appliance.store.database import Database
from appliance.store.facts import Kind
from appliance.store.facts.box import WorkerEnded
from appliance.store.facts.fleet import FleetTold
from appliance.store.fleet import FleetRows, Place
from appliance.store.rebuild import Reader, rebuild

HEALTH = {"k": "health", "minutes": 5, "machine": {}}
READER = Reader(
    header=lambda _: None,
    receipt=lambda _: ("CT1", "", 0),
    change=lambda *_: None,
    source=lambda _: "CT-1",
    originals=lambda _: (),
)


@pytest.fixture
def told(store):
    """So many rows; returns the number of the last."""

    def write(n=1, record=None):
        with store.db.write() as tx:
            return [tx.journal(FleetTold(record=record or {"k": "daemon", "state": "started"})) for _ in range(n)][-1]

    return write


def shape(place):
    return place.cursor, [(one.first_seq, one.last_seq) for one in place.batches], place.made


@pytest.mark.req("R-FLEET-03")
def test_the_cursor_is_the_end_of_what_is_whole(store, told):
    last = told(30)
    rows = store.fleet
    assert rows.place() == Place(0, 0, ())
    batches = [rows.add_batch(begin, begin + 10) for begin in (0, 10, 20)]
    assert shape(rows.place()) == (0, [(1, 10), (11, 20), (21, 30)], 30)
    assert rows.acknowledged([batches[1].id, "strange"]) == 1
    assert shape(rows.place()) == (0, [(1, 10), (21, 30)], 30)
    assert rows.acknowledged([batches[1].id]) == 0
    assert rows.acknowledged([batches[0].id]) == 1
    assert shape(rows.place()) == (20, [(21, 30)], 30)
    assert rows.pass_over(30, last)
    assert store.journal.cursor("fleet") == 20
    assert rows.acknowledged([batches[2].id]) == 1
    assert shape(rows.place()) == (last, [], last)


def test_who_looked_before_it_was_moved_back_makes_no_batch(store, told):
    told(30)
    rows = store.fleet
    batch = rows.add_batch(0, 20)
    rows.acknowledged([batch.id])
    assert rows.rewind(5) == 5
    assert rows.add_batch(20, 30) is None
    assert not rows.pass_over(20, 30)
    assert rows.add_batch(5, 5) is None
    assert shape(rows.place()) == (5, [], 5)


@pytest.mark.req("R-FLEET-03")
def test_rows_go_again_as_far_back_as_the_journal_still_has_them(store, told):
    told(40)
    rows = store.fleet
    first = rows.add_batch(0, 20)
    rows.acknowledged([first.id])
    rows.add_batch(20, 30)
    rows.add_batch(30, 40)
    assert rows.rewind(99) == 40
    assert rows.rewind(35) == 30  # the batch goes as a whole
    assert shape(rows.place()) == (20, [(21, 30)], 30)
    with store.db.write() as tx:
        tx.execute("DELETE FROM journal WHERE seq <= 8")
    assert rows.rewind(3) == 8
    assert shape(rows.place()) == (8, [], 8)


def test_the_journal_waits_for_the_link_and_for_nobody_where_there_is_none(store, told, clock):
    told(5)
    rows = store.fleet
    rows.add_batch(0, 5)
    clock.advance(400 * 86_400)
    told(1)
    assert store.journal.prune(clock.now()) == 0
    rows.leave()
    rows.leave()
    assert rows.place() == Place(0, 0, ())
    assert store.journal.prune(clock.now()) > 0


def test_sessions_are_counted_for_ever_and_each_has_its_nonce(store):
    assert [store.fleet.new_session(nonce) for nonce in ("a", "b")] == [1, 2]
    store.fleet.leave()
    assert store.fleet.new_session("c") == 3
    assert store.fleet.state("nonce") == "c"
    assert store.fleet.state("other", "none") == "none"


@pytest.mark.req("R-FLEET-04")
def test_only_roll_ups_of_health_are_skipped_and_only_once(store, told):
    told(3, HEALTH)
    told(2)
    last = told(1, HEALTH)
    rows = store.fleet
    waiting = rows.waiting_health(0, last)
    assert (waiting.n, waiting.last_seq) == (4, last)
    assert rows.waiting(0, (Kind.FLEET_TOLD,)).n == 6
    rows.skip_health(waiting, FleetTold(record={"k": "gap"}))
    assert store.journal.after(last)[0].body["record"] == {"k": "gap"}
    assert rows.waiting_health(0, last + 1).n == 0
    assert rows.skipped().holds(last)
    assert not rows.skipped().holds(last + 1)
    more = told(1, HEALTH)
    rows.skip_health(rows.waiting_health(last, more), FleetTold(record={"k": "gap"}))
    assert len(rows.skipped().ranges) == 2
    rows.acknowledged([rows.add_batch(0, more).id])
    last = told(1, HEALTH)
    rows.skip_health(rows.waiting_health(more, last), FleetTold(record={"k": "gap"}))
    assert rows.skipped().ranges == ((last, last),)  # of what was acknowledged, nothing need be known


@given(
    deeds=st.lists(
        st.tuples(st.sampled_from(["tell", "make", "pass", "ack", "rewind"]), st.integers(0, 20)), max_size=30
    )
)
@settings(max_examples=30)
def test_batches_never_overlap_and_lie_between_cursor_and_made(deeds, tmp_path_factory):
    db = Database(tmp_path_factory.mktemp("rows") / "scanside.db", FakeClock())
    rows, last, ids = FleetRows(db), 1, []
    try:
        for deed, n in deeds:
            made = rows.place().made
            if deed == "tell":
                with db.write() as tx:
                    last = [tx.journal(WorkerEnded(pid=1, why="exit")) for _ in range(n + 1)][-1]
            elif deed == "make" and made < last:
                ids.append(rows.add_batch(made, min(last, made + n + 1)).id)
            elif deed == "pass":
                rows.pass_over(made, min(last, made + n))
            elif deed == "ack" and ids:
                rows.acknowledged([ids.pop(n % len(ids))])
            elif deed == "rewind":
                rows.rewind(n)
            place = rows.place()
            edges = [place.cursor + 1]
            for batch in place.batches:
                edges += [batch.first_seq, batch.last_seq + 1]
            edges.append(place.made + 1)
            assert edges == sorted(edges)
            assert all(batch.first_seq <= batch.last_seq for batch in place.batches)
            assert place.cursor == (place.batches[0].first_seq - 1 if place.batches else place.made)
    finally:
        db.close()


@pytest.mark.req("R-FLEET-03", "R-STORE-08")
def test_a_rebuilt_database_tells_the_server_nothing_twice_and_keeps_its_jobs(tmp_path, store, told, clock):
    told(10)
    rows = store.fleet
    rows.acknowledged([rows.add_batch(0, 6).id])
    rows.add_batch(6, 9)
    rows.new_session("a")
    with store.db.write() as tx:
        tx.insert(
            "fleet_job",
            id="0" * 26,
            ctr=7,
            op="ping",
            envelope=b"x",
            state="SUCCEEDED",
            version=1,
            received_at=tx.at,
            state_at=tx.at,
        )
    acknowledged = store.journal.after(0, 6)
    waits = store.journal.after(6)
    store.close()
    made: Store = rebuild(tmp_path, clock, READER, "a test", reserve_bytes=0)
    try:
        place = made.fleet.place()
        assert (place.cursor, place.batches) == (place.made, ())
        rest = made.journal.after(place.cursor)
        assert [(fact.kind, fact.body) for fact in rest[: len(waits)]] == [(fact.kind, fact.body) for fact in waits]
        before = [fact.body for fact in made.journal.after(0, place.cursor)]
        assert before[1:] == [fact.body for fact in acknowledged]
        assert made.fleet.new_session("b") == 2
        assert made.db.one("SELECT ctr FROM fleet_job")["ctr"] == 7
    finally:
        made.close()
