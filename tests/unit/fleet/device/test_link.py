"""The link as a state machine: what it says, when it says it again, and what moves its cursor."""

from __future__ import annotations

import itertools
import random

import pytest
from fleet_link_kit import DEVICE, ack_bytes, ack_event, batch_of, enrol

from appliance.fleet.device.identity import Broker
from appliance.fleet.device.pace import Backoff, Held
from appliance.fleet.device.transport import Arrived, Deaf, Disconnected, LeftOut, Published
from appliance.fleet.keys import DeviceKey, holds, public_of
from appliance.fleet.wire import Down, Get, Reported, Status, Up
from appliance.fleet.wire_records import Health
from appliance.records import Severity
from appliance.store.facts.box import IssueCleared
from engines import signing
from engines.errors import SignatureError

NOT_AUTHORIZED = 0x87


def seqs(batch):
    return [record.seq for record in batch.recs]


@pytest.mark.req("R-FLEET-01")
def test_a_connection_begins_with_a_birth_and_the_question_what_is_new(box):
    box.inbox.dv, box.inbox.ctr = 4, 9
    line = box.connect()
    will = Status.unpack(line.will)
    assert (will.online, will.why, will.sess) == (False, "lwt", 1)
    birth, get = line.of(Up.STATUS)[0], line.of(Up.GET)[0]
    assert line.said[:2] == [birth, get]
    assert birth.retain
    said = Status.unpack(birth.payload)
    assert (said.online, said.why, said.sess, said.stream) == (True, "start", 1, box.store.db.stream)
    assert len(said.nonce) == 32
    assert box.store.fleet.state("nonce") == said.nonce
    asked = Get.unpack(get.payload)
    assert (asked.dv, asked.ctr, asked.seq, asked.last_seq) == (4, 9, 0, box.store.journal.last_seq())
    assert [said.retain for said in line.said[1:]] == [False] * (len(line.said) - 1)
    assert line.listen == tuple(f"scanside/v1/tenant-0001/{DEVICE}/{name}" for name in ("dn/+", "up/status"))


@pytest.mark.req("R-FLEET-87")
def test_what_moves_counters_and_gates_of_the_server_is_signed_by_the_device(box):
    box.tell(1)
    box.inbox.report = Reported(rv=1, applied_dv=1)
    line = box.connect()
    box.flush()
    public = public_of(box.identity.certificate_path.read_bytes())
    for name in (Up.GET, Up.TWIN, Up.REC):
        (said,) = line.of(name)
        assert holds(public, said.topic, said.payload, said.properties["sig"]), name


@pytest.mark.req("R-FLEET-87")
def test_what_the_box_has_is_said_again_each_hour_so_that_a_server_that_could_not_read_it_hears_it(box):
    line = box.connect()
    box.inbox.ctr = 9
    for _ in range(8):
        line.answer()
        box.step(600)
    assert [Get.unpack(said.payload).ctr for said in line.of(Up.GET)] == [0, 9]


@pytest.mark.req("R-FLEET-44")
def test_where_something_that_came_was_lost_here_the_box_says_soon_what_it_has_and_not_again_and_again(box):
    """A withdrawal may have been among it: the promise is five minutes, not an hour."""
    line = box.connect()
    line.answer()
    for _ in range(10):
        line.events.put(LeftOut())
    box.step(1)
    assert len(line.of(Up.GET)) == 1
    box.step(60)
    assert len(line.of(Up.GET)) == 2
    line.answer()
    box.step(120)
    assert len(line.of(Up.GET)) == 2


@pytest.mark.req("R-FLEET-01")
def test_every_connection_is_a_session_of_its_own_also_after_a_restart(box):
    first = box.connect()
    first.events.put(Disconnected("lost"))
    second = box.connect()
    box.restart()
    third = box.connect()
    said = [Status.unpack(line.of(Up.STATUS)[0].payload) for line in (first, second, third)]
    assert [one.sess for one in said] == [1, 2, 3]
    assert [one.why for one in said] == ["start", "reconnect", "start"]
    assert len({one.nonce for one in said}) == 3
    assert all(line.of(Up.GET) for line in (first, second, third))


@pytest.mark.req("R-FLEET-01")
def test_a_graceful_stop_says_so_and_needs_no_last_will(box):
    line = box.connect()
    line.events.put(Published(line.said[-1].token + 1))  # the broker's answer to what comes next
    box.link.close()
    last = line.said[-1]
    assert (Status.unpack(last.payload).online, Status.unpack(last.payload).why, last.retain) == (False, "stop", True)
    assert line.closed is True
    box.link.close()


@pytest.mark.req("R-FLEET-02")
def test_rows_that_may_leave_go_in_order_signed_by_the_device_and_the_rest_stays(box):
    box.work(3)
    told = box.tell(2)
    box.work(2)
    told += box.tell(1)
    line = box.connect()
    box.flush()
    (said,) = line.of(Up.REC)
    batch = batch_of(said)
    assert seqs(batch) == told
    assert batch.stream == box.store.db.stream
    public = public_of(box.identity.certificate_path.read_bytes())
    assert holds(public, said.topic, said.payload, said.properties["sig"])
    assert said.properties["schema"] == "rec/1"
    assert (said.retain, said.expiry_s) == (False, None)


@pytest.mark.req("R-FLEET-02")
def test_many_rows_that_stay_here_hide_none_that_leaves(box):
    with box.store.db.write() as tx:
        for _ in range(700):
            tx.journal(IssueCleared(code="X"))
    told = box.tell(3)
    line = box.connect()
    box.flush()
    assert [seq for batch in line.batches() for seq in seqs(batch)] == told
    box.ack([batch.batch for batch in line.batches()])
    box.work(2500)
    box.step(1)
    assert box.cursor == box.store.journal.last_seq()  # the journal's pruning need not wait for them
    box.work(1)
    box.step(30)
    assert box.cursor < box.store.journal.last_seq()  # nor does each one cost a write
    line.answer()
    box.step(31)
    assert box.cursor == box.store.journal.last_seq()


@pytest.mark.req("R-FLEET-02")
def test_the_cursor_moves_only_on_the_servers_signed_word(box, identity):
    box.tell(1)
    line = box.connect()
    box.flush()
    (batch,) = line.batches()
    line.answer()
    box.step(1)
    assert box.cursor == 0  # the broker may die with what it took
    topic, stream = identity.address.topic(Down.ACK), box.store.db.stream
    stranger = signing.generate("stranger")
    strange = [
        Arrived(topic, ack_bytes(stranger, stream, [batch.batch])),
        Arrived(topic, ack_bytes(box.key, stream, [batch.batch], device="box-00000002")),
        Arrived(topic, ack_bytes(box.key, stream, [batch.batch])[:-9]),
        Arrived(topic, b'{"payload": 1}'),
        Arrived(topic, signing.sign("application/vnd.scanside.job.v1+json", b"{}", [box.key])),
        Arrived(topic, ack_bytes(box.key, stream, [batch.batch]), retained=True),
        Arrived(topic.replace(DEVICE, "box-00000002"), ack_bytes(box.key, stream, [batch.batch])),
        Arrived("other/topic", b"\xff"),
        Arrived("", b""),
        Arrived(topic, b"no gzip", {"ce": "gzip"}),
    ]
    for event in strange:
        line.events.put(event)
    box.step()
    assert box.cursor == 0
    assert box.issues() == {"FLEET_FOREIGN"}
    line.events.put(ack_event(identity, box.key, "0" * 26, [batch.batch]))  # of a database before this one
    box.step(61)
    assert box.cursor == 0
    assert box.store.fleet.state("foreign") == str(len(strange))
    box.ack([batch.batch])
    assert box.cursor == box.store.fleet.place().made > 0
    assert box.store.fleet.place().batches == ()


def test_strange_messages_are_an_issue_until_a_day_passes_without_one(box, identity):
    line = box.connect()

    def refuse(_):
        raise SignatureError("forged")

    box.inbox.take_job = refuse
    line.events.put(Arrived(identity.address.topic(Down.JOB), b"{}"))
    box.step()
    assert box.issues() == {"FLEET_FOREIGN"}
    box.step(86_000)
    assert "FLEET_FOREIGN" in box.issues()
    box.step(1_000)
    assert "FLEET_FOREIGN" not in box.issues()


@pytest.mark.req("R-FLEET-02")
def test_jobs_and_desired_documents_go_to_the_inbox_as_they_came(box, identity):
    line = box.connect()
    line.events.put(Arrived(identity.address.topic(Down.JOB), b"job"))
    line.events.put(Arrived(identity.address.topic(Down.TWIN), b"twin"))
    box.step()
    assert (box.inbox.jobs, box.inbox.twins) == ([b"job"], [b"twin"])
    assert box.issues() == set()


@pytest.mark.req("R-FLEET-03")
def test_what_nobody_acknowledges_goes_again_the_same_and_later_each_time(box):
    box.tell(3)
    line = box.connect()
    box.flush()
    times, begin = [], box.clock.monotonic()
    for _ in range(1700):
        count = len(line.of(Up.REC))
        line.answer()
        box.step(1)
        if len(line.of(Up.REC)) > count:
            times.append(round(box.clock.monotonic() - begin))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 10
    assert gaps == [20, 40, 80, 160] + [300] * (len(gaps) - 4)
    assert len(gaps) > 6
    assert len({said.payload for said in line.of(Up.REC)}) == 1
    assert box.cursor == 0


@pytest.mark.req("R-FLEET-03")
def test_a_slow_line_is_given_four_round_trips(box):
    box.tell()
    line = box.connect()
    box.flush()
    line.answer()
    box.step(9)
    box.ack([line.batches()[0].batch])
    box.tell()
    box.flush()
    line.answer()
    assert len(line.of(Up.REC)) == 2
    for _ in range(35):
        box.step(1)
    assert len(line.of(Up.REC)) == 2
    box.step(1)
    assert len(line.of(Up.REC)) == 3


@pytest.mark.req("R-FLEET-03")
def test_at_most_twenty_batches_of_a_hundred_rows_are_on_their_way(box):
    told = box.tell(2500)
    line = box.connect()
    while True:
        count = len(line.of(Up.REC))
        line.answer()
        box.step(1)
        if len(line.of(Up.REC)) == count:
            break
    batches = line.batches()
    assert [len(batch.recs) for batch in batches] == [100] * 20
    box.ack([batches[3].batch])
    assert box.cursor == 0  # the first is not committed
    line.answer()
    box.step()
    assert len(line.batches()) == 21
    box.ack([batch.batch for batch in batches[:3]])
    assert box.cursor == told[399]  # the fourth came before
    assert seqs(batches[0]) + seqs(batches[1]) == told[:200]


def test_a_broker_that_takes_fewer_at_once_gets_fewer(box):
    box.tell(1000)
    line = box.connect(receive_max=3)
    for _ in range(5):
        box.step(1)
    assert len(line.said) == 3
    line.answer()
    box.step()
    assert len(line.said) == 6


def test_a_broker_that_never_answers_is_left_for_another_connection(box):
    line = box.connect()
    box.step(100)
    assert line.closed is None
    box.step(30)
    assert line.closed is False
    box.step(1)
    assert len(box.net.lines) == 2


@pytest.mark.req("R-FLEET-03")
def test_after_a_reconnect_what_the_broker_lost_goes_at_once_and_what_it_has_does_not(box):
    box.tell()
    line = box.connect()
    box.flush()
    for seconds in (10, 20, 40):  # it goes again, and then not for another 80 s
        line.answer()
        box.step(seconds)
    line.answer()
    box.step()
    assert len(line.of(Up.REC)) == 4
    line.events.put(Disconnected("lost"))
    kept = box.connect(session_present=True)
    assert kept.of(Up.REC) == []
    kept.events.put(Disconnected("lost"))
    lost = box.connect(session_present=False)
    assert len(lost.of(Up.REC)) == 1
    assert lost.batches()[0].batch == line.batches()[0].batch
    lost.events.put(Disconnected("lost"))  # before the broker has answered
    again = box.connect(session_present=True)
    assert len(again.of(Up.REC)) == 1


@pytest.mark.req("R-FLEET-03")
def test_the_line_is_used_as_fast_as_the_desired_document_says(box):
    box.inbox.document = box.inbox.document.model_copy(update={"bytes_per_s": 1024})
    box.tell(2000, "noise")
    line = box.connect()
    begin = box.clock.monotonic()
    for _ in range(20):
        line.answer()
        box.step(1)
        took = box.clock.monotonic() - begin
        sent = sum(len(said.payload) for said in line.said)
        largest = max(len(said.payload) for said in line.said)
        assert sent <= 1024 * (took + 1) + largest + 1024
    assert sent >= 1024 * 15


@pytest.mark.req("R-FLEET-03")
def test_a_server_that_asks_for_rest_gets_it(box):
    line = box.connect()
    box.ack([], hold_ms=60_000)
    box.tell()
    box.flush()
    box.step(50)
    assert line.of(Up.REC) == []
    line.answer()
    box.step(5)
    box.flush()
    assert len(line.of(Up.REC)) == 1
    assert len(line.of(Up.HEALTH)) >= 1


@pytest.mark.req("R-FLEET-03")
def test_a_restored_server_gets_the_rows_again_as_far_back_as_it_asks(box):
    told = box.tell(250)
    line = box.connect()
    for _ in range(4):
        line.answer()
        box.flush()
    box.ack([batch.batch for batch in line.batches()])
    assert box.cursor == told[-1]
    before = len(line.batches())
    asked = ack_event(box.identity, box.key, box.store.db.stream, [], st=50, resend_after=told[99])
    line.events.put(asked)
    box.step()
    line.answer()
    box.flush()
    again = [seq for batch in line.batches()[before:] for seq in seqs(batch)]
    assert again == told[100:]
    assert box.cursor == told[99]
    box.ack([batch.batch for batch in line.batches()[before:]], st=51)
    assert box.cursor == told[-1]
    line.events.put(asked)  # the broker plays it again
    box.step()
    box.flush()
    assert box.cursor == told[-1]
    assert len(line.batches()) == before + 2


@pytest.mark.req("R-FLEET-04")
def test_a_backlog_costs_roll_ups_of_health_alone_and_one_gap_says_which(make_box):
    box = make_box(backlog_rows=200)
    jobs, health = [], []
    for _ in range(30):
        health += box.tell(2, "health")
        jobs += box.tell(8)
    line = box.connect()
    for _ in range(6):
        line.answer()
        box.flush()
    got = {record.seq: record for batch in line.batches() for record in batch.recs}
    assert set(jobs) <= set(got)
    assert not set(health) & set(got)
    gaps = [record.d for record in got.values() if record.d.k == "gap"]
    assert [(gap.first_seq, gap.last_seq, gap.n) for gap in gaps] == [(health[0], health[-1], 60)]
    box.ack([batch.batch for batch in line.batches()])
    assert box.store.fleet.place().batches == ()
    fresh = box.tell(1, "health")
    box.flush()
    assert seqs(line.batches()[-1]) == fresh


@pytest.mark.req("R-FLEET-04")
def test_below_its_bound_a_backlog_costs_nothing(make_box):
    box = make_box(backlog_rows=1000)
    told = box.tell(300, "health")
    box.work(2000)  # rows of which nothing leaves are no backlog
    line = box.connect()
    box.flush()
    assert [seq for batch in line.batches() for seq in seqs(batch)] == told


def test_what_was_skipped_stays_skipped_when_a_batch_goes_again_after_a_restart(make_box):
    box = make_box(backlog_rows=100)
    for _ in range(15):
        box.tell(1, "health")
        box.tell(10)
    line = box.connect()
    box.flush()
    first = line.of(Up.REC)[0]
    box.restart()
    line = box.connect()
    assert line.of(Up.REC)[0].payload != b""
    assert seqs(line.batches()[0]) == seqs(batch_of(first))
    assert line.batches()[0].batch == batch_of(first).batch


@pytest.mark.req("R-FLEET-05")
def test_attempts_are_spread_by_chance_up_to_five_minutes_and_begin_anew_after_a_good_minute():
    backoffs = [Backoff(random.Random(seed)) for seed in range(200)]
    waits = [[backoff.after(0.0) for backoff in backoffs] for _ in range(12)]
    for n, row in enumerate(waits, 1):
        most = min(300.0, 2.0**n)
        assert 0 <= min(row) < 0.1 * most
        assert 0.9 * most < max(row) <= most
    assert max(backoff.after(59.9) for backoff in backoffs) > 200
    assert max(backoff.after(60.0) for backoff in backoffs) <= 2.0


@pytest.mark.req("R-FLEET-05")
def test_the_first_connection_after_a_start_comes_within_half_a_minute_by_chance():
    first = [Backoff(random.Random(seed)).first() for seed in range(200)]
    assert 0 <= min(first) < 3
    assert 27 < max(first) <= 30


@pytest.mark.req("R-FLEET-05")
def test_two_boxes_with_one_identity_stop_fighting_and_somebody_is_told(box):
    for n in range(3):
        line = box.connect()
        assert ("FLEET_IDENTITY_TWICE" in box.issues()) is False, n
        line.events.put(Disconnected("lost", 0x8E))
        box.step()
    assert "FLEET_IDENTITY_TWICE" in box.issues()
    known = len(box.net.lines)
    for _ in range(59):
        box.step(10)
    assert len(box.net.lines) == known
    line = box.connect()
    line.answer()
    box.step(3000)
    assert "FLEET_IDENTITY_TWICE" in box.issues()
    for _ in range(10):
        line.answer()
        box.step(100)
    assert "FLEET_IDENTITY_TWICE" not in box.issues()


@pytest.mark.req("R-FLEET-05")
def test_a_birth_of_another_box_under_our_name_is_seen_where_the_broker_does_not_tell(box, identity):
    topic = identity.address.topic(Up.STATUS)
    line = box.connect()
    own = line.of(Up.STATUS)[0].payload
    box.restart()
    for retained in (own, Status(online=False, sess=9, why="lwt").pack()[0]):
        for _ in range(3):
            box.connect().events.put(Arrived(topic, retained, {}, retained=True))
            box.line.events.put(Disconnected("lost"))
            box.step()
    assert box.issues() == set()
    for n in range(3):
        assert box.issues() == set(), n
        other = Status(online=True, sess=9, why="start", nonce=f"{n:032x}").pack()[0]
        box.connect().events.put(Arrived(topic, other, {}, retained=True))
        box.line.events.put(Disconnected("lost"))
        box.step()
    assert box.issues() == {"FLEET_IDENTITY_TWICE"}
    known = len(box.net.lines)
    for _ in range(59):
        box.step(10)
    assert len(box.net.lines) == known


@pytest.mark.req("R-FLEET-05")
def test_no_connection_for_a_quarter_of_an_hour_is_an_issue_and_a_connection_ends_it(box):
    for _ in range(15):
        box.step(59)
        if box.net.lines:
            box.line.events.put(Disconnected("unreachable"))
    assert "FLEET_UNREACHABLE" not in box.issues()
    box.step(60)
    assert "FLEET_UNREACHABLE" in box.issues()
    box.line.events.put(Disconnected("unreachable"))
    box.connect()
    assert "FLEET_UNREACHABLE" not in box.issues()


@pytest.mark.req("R-FLEET-06")
def test_a_refused_batch_is_an_issue_and_not_a_loop_and_nothing_of_it_is_lost(box):
    box.tell(500)
    line = box.connect()
    box.step()
    assert len(line.of(Up.REC)) == 5
    for said in line.said:
        line.events.put(Published(said.token, NOT_AUTHORIZED if said.name is Up.REC else None))
        said.token = 0
    box.step()
    assert {(i.code, i.subject, i.severity) for i in box.store.issues.open()} >= {
        ("FLEET_REFUSED", "up/rec", Severity.FAULT)
    }
    for _ in range(280):
        line.answer()
        box.step(1)
    assert len(line.of(Up.REC)) == 5
    for _ in range(30):
        box.step(1)
    assert len(line.of(Up.REC)) == 6  # one, not five: its answer is awaited
    line.answer()
    box.step()
    box.step()
    assert "FLEET_REFUSED" not in box.issues()
    assert len(line.of(Up.REC)) == 10
    assert len({batch.batch for batch in line.batches()}) == 5


@pytest.mark.req("R-FLEET-06")
def test_what_is_refused_rests_longer_each_time():
    held, now, rests = Held(), 0.0, []
    for _ in range(6):
        held.refuse("up/rec", now)
        begin = now
        while held.is_held("up/rec", now):
            now += 1
        rests.append(now - begin)
    assert rests == [300, 600, 1200, 2400, 3600, 3600]
    assert held.take("up/rec")
    held.refuse("up/rec", now)
    assert not held.is_held("up/rec", now + 300)


@pytest.mark.req("R-FLEET-06")
def test_a_batch_that_the_broker_finds_too_large_waits_aside_while_others_go(box):
    box.tell(300)
    line = box.connect()
    box.step()
    poison, *others = line.of(Up.REC)
    line.events.put(Published(poison.token, 0x95))
    for said in others:
        line.events.put(Published(said.token))
    poison.token = 0
    bad = batch_of(poison).batch
    box.step()
    box.ack([batch_of(said).batch for said in others])
    box.tell(1)
    for _ in range(250):
        line.answer()
        box.step(1)
    later = line.batches()[3:]
    assert bad not in {batch.batch for batch in later}
    assert later
    assert box.cursor == 0  # nothing is given up
    assert "FLEET_REFUSED" in box.issues()
    for _ in range(60):
        box.step(1)
    assert line.batches()[-1].batch == bad
    line.answer()
    box.step()
    assert "FLEET_REFUSED" not in box.issues()


def test_a_broker_that_lets_us_hear_nothing_is_an_issue(box):
    line = box.connect()
    line.events.put(Deaf(NOT_AUTHORIZED))
    box.step()
    assert "FLEET_REFUSED" in box.issues()


def test_a_row_that_does_not_fit_what_may_leave_stays_here_and_is_told(box):
    bad, good = box.tell(2)
    box.contents.bad.add(bad)
    line = box.connect()
    box.flush()
    assert seqs(line.batches()[0]) == [good]
    assert "FLEET_ROW_UNFIT" in box.issues()


@pytest.mark.req("R-FLEET-07")
@pytest.mark.fault("T35")
@pytest.mark.parametrize("jump", [3600, -86_400, -56 * 365 * 86_400, 12 * 365 * 86_400])
def test_a_clock_that_jumps_changes_nothing_of_order_or_time_limits(box, jump):
    told = box.tell(2)
    line = box.connect()
    box.flush()
    line.answer()
    box.clock.jump(jump)
    told += box.tell(3)
    box.flush()
    assert [seq for batch in line.batches() for seq in seqs(batch)] == told
    line.answer()
    box.step(4)
    assert len(line.of(Up.REC)) == 2
    line.answer()
    box.step(1)  # ten seconds after it went
    assert len(line.of(Up.REC)) == 3
    box.ack([batch.batch for batch in line.batches()])
    assert box.cursor == box.store.fleet.place().made
    assert line.closed is None


def test_how_far_the_wall_clock_is_off_is_known_from_the_servers_word(box):
    for offset in (0, 300, 90_000):
        box.tell()
        line = box.line if box.net.lines else box.connect()
        box.flush()
        server = int(box.clock.now().timestamp() * 1000) - offset
        box.ack([line.batches()[-1].batch], st=server)
        expected = offset if offset != 300 else 0
        assert box.store.fleet.state("skew_ms") == str(expected)


def test_how_the_box_fares_is_said_at_once_and_then_as_often_as_desired(box):
    line = box.connect()
    assert len(line.of(Up.HEALTH)) == 1
    for _ in range(600):
        line.answer()
        box.step(1)
    assert 10 <= len(line.of(Up.HEALTH)) <= 13
    said = line.of(Up.HEALTH)[-1]
    assert (Health.model_validate_json(said.payload).sess, said.expiry_s) == (1, 120)


def test_a_shorter_interval_of_health_holds_from_the_moment_that_it_comes(box):
    box.inbox.document = box.inbox.document.model_copy(update={"health_every_s": 3600})
    line = box.connect()
    for _ in range(100):
        line.answer()
        box.step(1)
    assert len(line.of(Up.HEALTH)) == 1
    # The server counts from here: a box that kept to its old hour would be called stale.
    box.inbox.document = box.inbox.document.model_copy(update={"health_every_s": 30})
    box.step(1)
    line.answer()
    assert len(line.of(Up.HEALTH)) == 2


def test_what_the_box_made_of_the_desired_document_is_said_on_every_connection_and_change(box):
    box.inbox.report = Reported(rv=1, applied_dv=1)
    line = box.connect()
    box.step(1)
    box.inbox.report = Reported(rv=2, applied_dv=2)
    box.step(1)
    assert [Reported.unpack(said.payload).rv for said in line.of(Up.TWIN)] == [1, 2]
    line.events.put(Disconnected("lost"))
    again = box.connect()
    assert [Reported.unpack(said.payload).rv for said in again.of(Up.TWIN)] == [2]


@pytest.mark.req("R-FLEET-08")
def test_another_way_to_the_broker_is_tried_at_once_and_remembered(box, tmp_path, authority, server_key):
    ways = [
        Broker(kind=kind, host="localhost", port=port) for kind, port in (("tls", 8883), ("wss", 443), ("alpn", 443))
    ]
    box.identity = enrol(tmp_path / "ways", authority, server_key, ways)
    box.restart()
    box.step()
    box.line.events.put(Disconnected("unreachable"))
    box.step()
    box.step(1)
    box.line.events.put(Disconnected("tls"))
    box.step()
    box.step(1)
    assert [line.broker.kind for line in box.net.lines] == ["tls", "wss", "alpn"]
    box.line.up()
    box.step()
    box.line.events.put(Disconnected("lost"))
    box.connect()
    assert box.line.broker.kind == "alpn"


@pytest.mark.req("R-FLEET-08")
def test_a_step_never_waits_for_a_network_that_hangs(box):
    box.step()
    for _ in range(7):
        box.step(10)  # nothing ever happens on the line
    assert box.net.lines[0].closed is False
    for _ in range(40):
        box.step(10)
    assert len(box.net.lines) > 2


@pytest.mark.req("R-FLEET-09")
def test_a_renewed_certificate_is_taken_without_a_restart_and_kept_once_a_broker_took_it(box, authority):
    line = box.connect()
    fresh = DeviceKey.generate()
    box.identity.renew(fresh, authority.certify(fresh.csr(DEVICE)))
    box.step(5)
    assert line.closed is True
    new = box.connect()
    assert new.identity.key.fits(public_of(new.identity.certificate_path.read_bytes()))
    assert not new.identity.key.fits(public_of(authority.certify(DeviceKey.generate().csr(DEVICE))))
    box.tell()
    box.flush()
    (said,) = new.of(Up.REC)
    assert holds(
        public_of(new.identity.certificate_path.read_bytes()), said.topic, said.payload, said.properties["sig"]
    )
    assert not new.identity.is_on_trial


@pytest.mark.req("R-FLEET-09")
def test_a_certificate_that_no_broker_takes_does_not_cost_the_box_its_link(box, authority):
    old = box.identity.certificate_path.read_bytes()
    box.connect()
    fresh = DeviceKey.generate()
    box.identity.renew(fresh, authority.certify(fresh.csr(DEVICE)))
    box.step(5)
    for why in ("refused", "unreachable", "tls", "lost"):
        known = len(box.net.lines)
        while len(box.net.lines) == known:
            box.step(5)
        assert box.line.identity.certificate_path.read_bytes() != old
        box.line.events.put(Disconnected(why))
    line = box.connect()
    assert line.identity.certificate_path.read_bytes() == old
    assert not line.identity.is_on_trial


def test_files_that_hold_no_identity_any_more_are_an_issue_and_the_old_one_goes_on(box, identity):
    line = box.connect()
    good = (identity.folder / "trust.json").read_bytes()
    (identity.folder / "trust.json").write_bytes(b"{")
    box.step(5)
    assert "FLEET_IDENTITY_BROKEN" in box.issues()
    assert line.closed is None
    (identity.folder / "trust.json").write_bytes(good)
    box.step(5)
    assert "FLEET_IDENTITY_BROKEN" not in box.issues()
