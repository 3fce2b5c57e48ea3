"""Messages become rows, once, in any order; what does not hold is refused, counted and never acknowledged."""

from __future__ import annotations

import datetime as dt
import gzip
import itertools
import json

import pytest
from fleet_kit import HOSPITAL, NOW, SITE, PaperBox, add_box, ulid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, insert, select

from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.admit import Refusal, Uplink
from appliance.fleet.server.ingest import Ingest
from appliance.fleet.server.registry import Presence, Scope
from appliance.fleet.wire import Address, Desired, Up
from appliance.fleet.wire_records import (
    EngineChange,
    Equipment,
    HealthRollup,
    IssueChange,
    JobChange,
    Machine,
    PackageChange,
    PackageState,
    Quantiles,
    ResultsHour,
)

LATER = NOW + dt.timedelta(minutes=10)
DIGEST = "ab" * 16


@pytest.fixture
def take(engine):
    """``take(uplink, ...)``: apply them as one group and commit."""
    ingest = Ingest()

    def call(*uplinks, at=NOW):
        with db.write(engine) as connection:
            return ingest.apply(connection, uplinks, at)

    return call


@pytest.fixture
def rows(engine):
    """``rows(table)``: what is in it, as dictionaries, in the order of its key."""

    def call(table):
        with db.read(engine) as connection:
            found = connection.execute(select(table).order_by(*table.primary_key)).all()
        return [row._asdict() for row in found]

    return call


def acked(outcome):
    return [batch for owed in outcome.owed.values() for batch in owed.batches]


def refusals(rows):
    return {(row["device"], row["reason"]): row["n"] for row in rows(t.refusal)}


# Records -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-11")
def test_a_batch_is_kept_and_owed_its_acknowledgement(take, rows, box):
    uplink, batch = box.batch(box.record(), box.record(seq=9))
    outcome = take(uplink)
    assert acked(outcome) == [batch]
    assert next(iter(outcome.owed)) == (Address(HOSPITAL, box.device), box.stream)
    assert (outcome.records, outcome.again) == (2, 0)
    kept = rows(t.record)
    assert [(row["device"], row["stream"], row["seq"], row["k"]) for row in kept] == [
        (box.device, box.stream, 1, "daemon"),
        (box.device, box.stream, 9, "daemon"),
    ]
    assert (kept[0]["rx_at"], kept[0]["body"]) == (NOW, {"state": "started"})


@pytest.mark.req("R-FLEET-11")
def test_what_is_sent_again_is_acknowledged_again_and_kept_once(take, rows, box):
    uplink, batch = box.batch(box.record(), box.record())
    repacked, other = box.batch(box.record(seq=2), box.record(seq=3))
    assert acked(take(uplink, uplink)) == [batch, batch]
    before = rows(t.record)
    outcome = take(uplink, repacked, at=LATER)
    assert acked(outcome) == [batch, other]
    assert (outcome.records, outcome.again) == (1, 2)
    assert rows(t.record)[:2] == before


@pytest.mark.req("R-FLEET-11")
def test_a_row_that_differs_under_its_number_changes_nothing_that_is_kept(take, rows, box):
    take(box.batch(box.record())[0])
    take(box.batch(box.record(IssueChange(code="DISK_FULL", state="raised", ref=DIGEST), seq=1))[0])
    assert [row["k"] for row in rows(t.record)] == ["daemon"]


def test_the_same_numbers_of_another_box_or_stream_are_other_rows(take, rows, box, engine, ca):
    other = PaperBox("box-0000002")
    with db.write(engine) as connection:
        add_box(connection, other, ca)
    take(box.batch(box.record(seq=1))[0], other.batch(other.record(seq=1))[0])
    box.stream, box.sess = ulid(77), 2
    take(box.batch(box.record(seq=1))[0])
    assert len(rows(t.record)) == 3


@pytest.mark.req("R-FLEET-11")
def test_a_large_batch_comes_packed(take, box):
    uplink, batch = box.batch(*(box.record() for _ in range(100)))
    assert uplink.properties["ce"] == "gzip"
    outcome = take(uplink)
    assert (acked(outcome), outcome.records) == ([batch], 100)


# What is refused -----------------------------------------------------------------------------------------------------


def deep(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


def hostile(box):
    """Name, message, reason."""
    good, _ = box.batch()
    plain = json.loads(gzip.decompress(good.payload) if "ce" in good.properties else good.payload)
    stranger = PaperBox(box.device, stream=box.stream)
    topic = box.topic(Up.REC)

    def signed(data, *, packed=False, **properties):
        return box.raw(Up.REC, data, packed=packed, **properties)

    def changed(**changes):
        return signed(json.dumps({**plain, **changes}).encode())

    def of_record(**changes):
        return changed(recs=[{**plain["recs"][0], **changes}])

    told = {"k": "results", "package": "p", "version": "1", "role": "live", "n": 1}
    yield "another key", Uplink(topic, good.payload, stranger.batch()[0].properties), Refusal.SIGNATURE
    yield "no signature", Uplink(topic, good.payload, {"schema": "rec/1"}), Refusal.SIGNATURE
    yield "no base64", Uplink(topic, good.payload, {"sig": "ä%"}), Refusal.SIGNATURE
    yield "changed on the way", Uplink(topic, good.payload + b" ", good.properties), Refusal.SIGNATURE
    moved = Uplink(box.topic(Up.TWIN), good.payload, {**good.properties, "schema": "twin/1"})
    yield "signed for another topic", moved, Refusal.SIGNATURE
    yield "retained", Uplink(topic, good.payload, good.properties, retained=True), Refusal.RETAINED
    yield "too large", signed(b" " * (256 * 1024 + 1)), Refusal.TOO_LARGE
    yield "bomb", signed(gzip.compress(b"[" + b" " * 20_000_000), packed=True), Refusal.CONTENT
    yield "cut gzip", signed(gzip.compress(good.payload)[:-9], packed=True), Refusal.CONTENT
    yield "gzip that is none", signed(good.payload, packed=True), Refusal.CONTENT
    yield "another packing", signed(good.payload, ce="br"), Refusal.SCHEMA
    yield "a later schema", signed(good.payload, schema="rec/2"), Refusal.SCHEMA
    yield "another schema", signed(good.payload, schema="health/1"), Refusal.SCHEMA
    yield "empty", signed(b""), Refusal.CONTENT
    yield "no UTF-8", signed(b'{"batch":"\xff"}'), Refusal.CONTENT
    yield "NaN", signed(b'{"sess":NaN}'), Refusal.CONTENT
    yield "a key twice", signed(good.payload.replace(b'"sess"', b'"sess":1,"sess"')), Refusal.CONTENT
    yield "too deep", signed(deep(10_000)), Refusal.CONTENT
    yield "an unknown kind", of_record(d={"k": "patient", "name": "x"}), Refusal.CONTENT
    yield "no records", changed(recs=[]), Refusal.CONTENT
    yield "too many", changed(recs=plain["recs"] * 101), Refusal.CONTENT
    yield "a number of no meaning", of_record(ts=10**30), Refusal.CONTENT
    yield "a negative one", of_record(ts=-(10**19)), Refusal.CONTENT
    yield "row 0", of_record(seq=0), Refusal.CONTENT
    yield "no such hour", of_record(d={**told, "hour": "2026-13-01T00Z"}), Refusal.CONTENT
    yield "a list", signed(b"[]"), Refusal.CONTENT
    yield "free text", of_record(d={"k": "issue", "code": "x y", "state": "raised", "ref": DIGEST}), Refusal.CONTENT


@pytest.mark.req("R-FLEET-12")
@pytest.mark.fault("T37")
def test_whatever_does_not_hold_is_refused_counted_and_not_acknowledged(take, rows, box):
    counted = {}
    for name, uplink, reason in hostile(box):
        outcome = take(uplink)
        assert (dict(outcome.refused), acked(outcome), outcome.asked) == ({reason: 1}, [], []), name
        counted[box.device, str(reason)] = counted.get((box.device, str(reason)), 0) + 1
    assert refusals(rows) == counted
    assert rows(t.record) == []
    assert rows(t.status) == []  # nor does it count as a sign of life


def hostile_words(box, name, good):
    """The same of ``up/get`` and ``up/twin``, which move counters, cursors and gates."""
    topic = box.topic(name)
    plain = json.loads(good.payload)
    stranger = PaperBox(box.device, stream=box.stream)

    def signed(data, **properties):
        return box.raw(name, data, **properties)

    def changed(**changes):
        return signed(json.dumps({**plain, **changes}).encode())

    bare = {key: value for key, value in good.properties.items() if key != "sig"}
    yield "no signature", Uplink(topic, good.payload, bare), Refusal.SIGNATURE
    yield "another key", Uplink(topic, good.payload, stranger.raw(name, good.payload).properties), Refusal.SIGNATURE
    yield "changed on the way", Uplink(topic, good.payload + b" ", good.properties), Refusal.SIGNATURE
    elsewhere = box.raw(Up.REC, good.payload).properties | bare
    yield "signed for another topic", Uplink(topic, good.payload, elsewhere), Refusal.SIGNATURE
    yield "retained", Uplink(topic, good.payload, good.properties, retained=True), Refusal.RETAINED
    yield "a later schema", signed(good.payload, schema=f"{name.split('/')[1]}/2"), Refusal.SCHEMA
    yield "empty", signed(b""), Refusal.CONTENT
    yield "too deep", signed(deep(10_000)), Refusal.CONTENT
    yield "a list", signed(b"[]"), Refusal.CONTENT
    for key in plain:
        yield f"{key}: a text", changed(**{key: "x y"}), Refusal.CONTENT
        yield f"{key}: no number", changed(**{key: {"$ne": 0}}), Refusal.CONTENT
        yield f"{key}: of no meaning", changed(**{key: 10**30}), Refusal.CONTENT


@pytest.mark.req("R-FLEET-87")
@pytest.mark.fault("T37")
@pytest.mark.parametrize("name", [Up.GET, Up.TWIN])
def test_what_a_box_has_or_made_of_a_document_counts_only_signed_and_whole(take, rows, box, name):
    good = {Up.GET: box.get(ctr=7, dv=5), Up.TWIN: box.report(rv=3, applied_dv=5)}[name]
    hostile_ones = list(hostile_words(box, name, good))
    for what, uplink, reason in hostile_ones:
        outcome = take(uplink)
        assert (dict(outcome.refused), outcome.asked) == ({reason: 1}, []), what
    assert sum(refusals(rows).values()) == len(hostile_ones)
    assert rows(t.device_counter) == rows(t.twin) == rows(t.stream) == rows(t.status) == []
    assert not take(good).refused
    (row,) = rows(t.device_counter if name is Up.GET else t.twin)
    assert (row.get("ctr"), row.get("applied_dv")) in {(7, None), (None, 5)}


@pytest.mark.req("R-FLEET-12")
def test_a_hostile_message_does_not_take_its_neighbours_with_it(take, rows, box):
    good = [box.batch() for _ in range(3)]
    bad = [uplink for _, uplink, _ in hostile(box)]
    outcome = take(*bad[:9], good[0][0], *bad[9:20], good[1][0], *bad[20:], good[2][0])
    assert acked(outcome) == [batch for _, batch in good]
    assert len(rows(t.record)) == 3
    assert sum(outcome.refused.values()) == len(bad)


@pytest.mark.req("R-FLEET-12")
def test_who_is_not_enrolled_here_is_not_heard(take, rows, box, engine):
    stranger = PaperBox("box-9999999")
    foreign = PaperBox(box.device, tenant="hospital-02", key=box.key)
    for uplink, reason in (
        (stranger.batch()[0], Refusal.UNKNOWN_DEVICE),
        (stranger.birth(), Refusal.UNKNOWN_DEVICE),
        (foreign.batch()[0], Refusal.WRONG_TENANT),
        (Uplink("scanside/v1/hospital-01/box-0000001/dn/ack", b"{}"), Refusal.TOPIC),
        (Uplink("scanside/v2/hospital-01/box-0000001/up/rec", b"{}"), Refusal.TOPIC),
        (Uplink("scanside/v1/hospital-01/box+/up/rec", b"{}"), Refusal.TOPIC),
    ):
        outcome = take(uplink)
        assert (dict(outcome.refused), acked(outcome)) == ({reason: 1}, [])
    with db.write(engine) as connection:
        registry.disable_device(connection, Scope.everything(), box.device, now=NOW)
    assert dict(take(box.batch()[0], box.birth(), box.get()).refused) == {Refusal.DISABLED: 3}
    # Names that nobody gave are not kept: anybody could fill the table with them.
    assert {device for device, _ in refusals(rows)} == {"", box.device}
    with db.write(engine) as connection:
        registry.enable_device(connection, Scope.everything(), box.device)
    assert len(acked(take(box.batch()[0]))) == 1


@pytest.mark.req("R-FLEET-12")
def test_a_revoked_certificate_signs_nothing_and_a_new_one_takes_over_at_its_first_use(take, rows, box, engine, ca):
    old = box.key
    box.key = DeviceKey.generate()
    with db.write(engine) as connection:
        renewed = registry.add_certificate(connection, box.device, ca.issue(box.device, key=box.key).pem, now=LATER)
    assert take(box.batch()[0]).records == 1
    states = {row["fingerprint"]: row["state"] for row in rows(t.certificate)}
    assert states.pop(renewed) == "current"
    # What was signed before the change may still come again.
    before = PaperBox(box.device, key=old, stream=box.stream, seq=50)
    assert take(before.batch()[0]).records == 1
    with db.write(engine) as connection:
        serials = registry.revoke_certificates(connection, box.device, now=LATER)
    assert len(serials) == 2
    assert dict(take(box.batch()[0], before.batch()[0]).refused) == {Refusal.SIGNATURE: 2}


@pytest.mark.req("R-FLEET-12")
def test_a_session_speaks_of_one_database_only(take, box):
    take(box.birth())
    foreign = PaperBox(box.device, key=box.key, stream=ulid(5), sess=box.sess)
    assert dict(take(foreign.batch()[0]).refused) == {Refusal.WRONG_STREAM: 1}
    foreign.sess += 1
    assert take(foreign.batch()[0]).records == 1


@pytest.mark.req("R-FLEET-12")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=settings.default.max_examples // 3,
)
@given(st.lists(st.tuples(st.sampled_from(list(Up)), st.binary(max_size=60), st.booleans()), max_size=4))
def test_no_bytes_end_a_group(take, box, messages):
    uplinks = [box.raw(name, data, packed=packed) for name, data, packed in messages]
    uplink, batch = box.batch(box.record(seq=1))
    outcome = take(*uplinks, uplink)
    assert acked(outcome) == [batch]
    assert sum(outcome.refused.values()) == len(uplinks)


# States --------------------------------------------------------------------------------------------------------------


def issue(state, code="DISK_FULL", **more):
    return IssueChange(code=code, state=state, ref=DIGEST, **more)


def hour(n, **more):
    return ResultsHour(
        package="chest", version="1.0", role="live", hour="2026-03-02T08Z", n=n, ms=Quantiles(p50=3.0), **more
    )


@pytest.mark.req("R-FLEET-13")
def test_an_issue_is_raised_seen_and_cleared(take, rows, box):
    take(box.batch(box.record(issue("raised", severity="loud")))[0])
    (row,) = rows(t.issue_state)
    assert (row["code"], row["severity"], row["box_state"], row["raised_at"]) == ("DISK_FULL", "loud", "raised", NOW)
    take(box.batch(box.record(issue("acknowledged"), at=LATER))[0], at=LATER)
    (row,) = rows(t.issue_state)
    assert (row["box_state"], row["raised_at"], row["cleared_at"], row["severity"]) == (
        "acknowledged",
        NOW,
        None,
        "loud",
    )
    take(box.batch(box.record(issue("cleared"), at=LATER))[0], at=LATER)
    (row,) = rows(t.issue_state)
    assert (row["box_state"], row["raised_at"], row["cleared_at"]) == ("cleared", NOW, LATER)


@pytest.mark.req("R-FLEET-13")
def test_what_people_did_about_an_issue_ends_when_it_is_raised_anew(take, rows, box, engine):
    take(box.batch(box.record(issue("raised")))[0])
    with db.write(engine) as connection:
        connection.execute(
            insert(t.account).values(name="ann", full_name="Ann", must_change=False, is_active=True, made_at=NOW)
        )
        connection.execute(t.issue_state.update().values(acknowledged_by=1, acknowledged_at=NOW, shelved_until=LATER))
    take(box.batch(box.record(issue("acknowledged")))[0])
    assert rows(t.issue_state)[0]["acknowledged_by"] == 1
    take(box.batch(box.record(issue("cleared")), box.record(issue("raised")))[0])
    (row,) = rows(t.issue_state)
    assert (row["acknowledged_by"], row["cleared_at"], row["shelved_until"]) == (None, None, LATER)


@pytest.mark.req("R-FLEET-13")
def test_figures_engines_packages_and_sources_are_where_the_console_reads_them(take, rows, box):
    job = JobChange(job=ulid(900), ctr=3, state="DOWNLOADING", version=2, percent=40.0, figures={"ms": 5.0})
    told = (
        hour(40, flagged={"nodule": 3}, not_analysed={"quality": 1}, psi={"nodule": 0.1}),
        HealthRollup(minutes=5, machine=Machine(cpu=12.5), studies=3),
        EngineChange(package="chest", state="ready", backend="tensorrt", precision="fp16", build_ms=900.0),
        PackageChange(package="chest", version="1.0", digest=DIGEST, state="installed"),
        Equipment(source=1, modality="CT", make="Siemens", model="Edge", kernels=("B30f",)),
        job,
    )
    take(box.batch(*(box.record(one) for one in told))[0])
    (results,) = rows(t.results_hour)
    assert (results["n"], results["flagged"], results["p50_ms"], results["p95_ms"]) == (40, {"nodule": 3}, 3.0, None)
    assert results["hour"] == dt.datetime(2026, 3, 2, 8, tzinfo=dt.timezone.utc)
    (point,) = rows(t.health_point)
    assert (point["at"], point["body"]["machine"]) == (NOW, {"cpu": 12.5})
    (engine,) = rows(t.engine_state)
    assert (engine["state"], engine["precision"]) == ("ready", "fp16")
    (package,) = rows(t.package_state)
    assert (package["state"], package["serves"], package["digest"]) == ("installed", False, DIGEST)
    (source,) = rows(t.equipment)
    assert (source["make"], source["model"], source["kernels"]) == ("Siemens", "Edge", ["B30f"])
    (job_row,) = rows(t.job)
    assert (job_row["op"], job_row["state"], job_row["percent"]) == ("", "DOWNLOADING", 40.0)
    assert [(row["ctr"], row["dv"]) for row in rows(t.device_counter)] == [(3, 0)]


@pytest.mark.req("R-FLEET-13")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=settings.default.max_examples // 8,
    deadline=None,
)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 6)), again=st.sets(st.integers(0, 5)))
def test_states_end_the_same_in_whatever_order_records_come(take, rows, box, engine, order, cuts, again):
    """In groups of any size, some of them twice."""
    told = [
        issue("raised"),
        issue("cleared"),
        EngineChange(package="chest", state="building"),
        EngineChange(package="chest", state="ready"),
        JobChange(job=ulid(901), ctr=4, state="ACCEPTED", version=1),
        JobChange(job=ulid(901), ctr=4, state="SUCCEEDED", version=2),
    ]
    uplinks = [box.batch(box.record(one, seq=n + 1))[0] for n, one in enumerate(told)]
    sent = [uplinks[n] for n in order] + [uplinks[n] for n in sorted(again)]
    bounds = [0, *sorted(cuts), len(sent)]
    for first, last in itertools.pairwise(bounds):
        take(*sent[first:last])
    assert [row["box_state"] for row in rows(t.issue_state)] == ["cleared"]
    assert [row["state"] for row in rows(t.engine_state)] == ["ready"]
    assert [(row["state"], row["state_version"]) for row in rows(t.job)] == [("SUCCEEDED", 2)]
    with db.write(engine) as connection:
        for table in (t.issue_state, t.engine_state, t.job, t.record):
            connection.execute(table.delete())


@pytest.mark.req("R-FLEET-13")
def test_a_new_database_of_a_box_outranks_the_old_one_though_its_rows_count_from_one(take, rows, box):
    take(box.batch(box.record(EngineChange(package="chest", state="ready"), seq=900))[0])
    old = PaperBox(box.device, key=box.key, stream=box.stream)
    box.stream, box.sess = ulid(2), 2
    take(box.batch(box.record(EngineChange(package="chest", state="rejected"), seq=1))[0])
    take(old.batch(old.record(EngineChange(package="chest", state="serves"), seq=901))[0])
    assert [row["state"] for row in rows(t.engine_state)] == ["rejected"]


def test_a_job_is_changed_by_its_own_box_alone(take, rows, box, engine, ca):
    other = PaperBox("box-0000002")
    row = {"id": ulid(7), "device": box.device, "ctr": 1, "op": "ping", "args": {}, "made_at": NOW, "figures": {}}
    with db.write(engine) as connection:
        add_box(connection, other, ca)
        connection.execute(insert(t.job).values(**row, state="QUEUED", state_at=NOW))
    take(other.batch(other.record(JobChange(job=ulid(7), ctr=1, state="SUCCEEDED", version=9)))[0])
    assert [(row["state"], row["op"]) for row in rows(t.job)] == [("QUEUED", "ping")]
    take(box.batch(box.record(JobChange(job=ulid(7), ctr=1, state="FAILED", version=1, code="NO_DISK")))[0], at=LATER)
    (row,) = rows(t.job)
    assert (row["state"], row["code"], row["state_at"], row["op"]) == ("FAILED", "NO_DISK", LATER, "ping")


@pytest.mark.req("R-FLEET-15")
def test_the_counter_of_an_old_job_lowers_nothing(take, rows, box):
    take(box.get(ctr=40, dv=7))
    take(box.batch(box.record(JobChange(job=ulid(8), ctr=12, state="SUCCEEDED", version=3)))[0])
    assert [(row["ctr"], row["dv"]) for row in rows(t.device_counter)] == [(40, 7)]


@pytest.mark.fault("T35")
def test_a_clock_that_cannot_be_right_moves_no_point_of_a_plot_away(take, rows, box):
    point = HealthRollup(minutes=5, machine=Machine())
    ahead, backlog = NOW + dt.timedelta(days=1), NOW - dt.timedelta(hours=20)
    take(
        box.batch(
            box.record(point, at=ahead),
            box.record(point, at=backlog),
            box.record(point, at=backlog, clk="none"),
            box.record(point, at=dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)),
            box.record(point, at=dt.datetime(2038, 1, 20, tzinfo=dt.timezone.utc)),
        )[0]
    )
    assert [row["at"] for row in rows(t.health_point)] == [NOW, backlog, NOW, NOW, NOW]


# The link ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(engine):
    """``seen(at)``: whether the box is there, as lists say it."""

    def call(at):
        with db.read(engine) as connection:
            asked = select(t.device.c.id, t.status).outerjoin(t.status, t.status.c.device == t.device.c.id)
            row = connection.execute(asked).one()
            told = registry.presence(row, at)
            listed = connection.execute(asked.where(registry.presence_is(told, at))).all()
        assert len(listed) == 1
        return told

    return call


@pytest.mark.req("R-FLEET-14")
def test_a_box_is_online_stale_after_three_missed_heartbeats_and_offline_by_its_will(take, seen, box):
    assert seen(NOW) == Presence.NEVER
    take(box.birth())
    assert seen(NOW + dt.timedelta(seconds=190)) == Presence.ONLINE
    assert seen(NOW + dt.timedelta(seconds=200)) == Presence.STALE
    take(box.health(), at=NOW + dt.timedelta(seconds=200))
    assert seen(NOW + dt.timedelta(seconds=390)) == Presence.ONLINE
    take(box.will(), at=NOW + dt.timedelta(seconds=391))
    assert seen(NOW + dt.timedelta(seconds=391)) == Presence.OFFLINE


@pytest.mark.req("R-FLEET-14")
def test_a_box_that_is_told_to_beat_slowly_is_given_that_time(take, seen, box, engine):
    with db.write(engine) as connection:
        desired = Desired(health_every_s=600).model_dump(mode="json")
        connection.execute(insert(t.twin).values(device=box.device, desired=desired, dv=1))
    take(box.birth())
    assert seen(NOW + dt.timedelta(seconds=1900)) == Presence.ONLINE
    assert seen(NOW + dt.timedelta(seconds=2000)) == Presence.STALE


@pytest.mark.req("R-FLEET-14")
def test_the_last_will_of_an_older_session_means_nothing(take, seen, rows, box):
    take(box.birth())
    old_will = box.will()
    box.sess = 2
    take(box.birth(why="reconnect", nonce="ab"))
    take(old_will, at=LATER)
    assert rows(t.status)[0]["online"] is True
    assert rows(t.status)[0]["since_at"] == NOW  # it was not away
    # In one group, and the wrong way round.
    box.sess = 3
    take(box.birth(why="reconnect"), PaperBox(box.device, key=box.key, sess=2).will())
    assert seen(NOW) == Presence.ONLINE


@pytest.mark.req("R-FLEET-14")
def test_a_replayed_birth_does_not_bring_a_box_back(take, seen, box):
    birth = box.birth()
    take(birth)
    take(box.will())
    take(birth, at=LATER)
    assert seen(LATER) == Presence.OFFLINE
    retained = Uplink(birth.topic, birth.payload, birth.properties, retained=True)
    take(retained, at=LATER)
    assert seen(LATER) == Presence.OFFLINE
    box.sess += 1
    take(box.birth(), at=LATER)
    assert seen(LATER) == Presence.ONLINE


@pytest.mark.req("R-FLEET-14")
def test_what_the_broker_retained_is_no_sign_of_life(take, seen, box):
    birth = box.birth()
    take(birth)
    take(Uplink(birth.topic, birth.payload, birth.properties, retained=True), at=LATER)
    assert seen(LATER) == Presence.STALE


@pytest.mark.req("R-FLEET-14")
def test_after_a_new_database_sessions_count_from_one_and_the_box_is_there(take, seen, rows, box):
    box.sess = 40
    take(box.birth())
    take(box.will())
    old = PaperBox(box.device, key=box.key, stream=box.stream, sess=41)
    box.stream, box.sess = ulid(2), 1
    take(box.birth(), at=LATER)
    assert (seen(LATER), rows(t.status)[0]["sess"]) == (Presence.ONLINE, 1)
    # A copy of the old disk still speaks: it is told apart, and counted.
    assert dict(take(old.birth(), at=LATER).refused) == {Refusal.OLD_STREAM: 1}
    assert rows(t.status)[0]["stream"] == ulid(2)


def test_who_speaks_before_its_birth_came_is_there_and_the_birth_says_the_rest(take, seen, rows, box):
    take(box.batch()[0])
    assert seen(NOW) == Presence.ONLINE
    take(box.birth(), at=LATER)
    (row,) = rows(t.status)
    assert (row["agent"], row["sess"], row["since_at"]) == ("0.1.0", 1, NOW)


def test_health_says_what_serves_and_what_no_longer_does(take, rows, box):
    def runs(*versions):
        return tuple(
            PackageState(package="chest", version=v, digest=DIGEST, role="live", points={"nodule": "sensitive"})
            for v in versions
        )

    take(box.batch(box.record(PackageChange(package="chest", version="1.0", state="installed")))[0])
    take(box.health(packages=runs("1.0"), backlog_s=7.5, cert_days=12))
    (now,) = rows(t.health_now)
    assert (now["backlog_s"], now["cert_days"], now["body"]["ai"]) == (7.5, 12, "ready")
    (row,) = rows(t.package_state)
    assert (row["state"], row["serves"], row["role"], row["points"]) == (
        "installed",
        True,
        "live",
        {"nodule": "sensitive"},
    )
    take(box.health(packages=runs("2.0")))
    assert [(row["version"], row["serves"]) for row in rows(t.package_state)] == [("1.0", False), ("2.0", True)]
    take(box.batch(box.record(PackageChange(package="chest", version="1.0", state="withdrawn")))[0])
    assert [(row["state"], row["serves"]) for row in rows(t.package_state)] == [("withdrawn", False), (None, True)]


def test_a_report_of_the_twin_counts_up_and_begins_anew_with_a_new_database(take, rows, box):
    take(box.birth(), box.report(rv=5, applied_dv=2))
    take(box.report(rv=4, applied_dv=1))
    (row,) = rows(t.twin)
    assert (row["rv"], row["applied_dv"], row["reported_at"]) == (5, 2, NOW)
    box.stream, box.sess = ulid(2), 2
    take(box.birth(), at=LATER)
    take(box.report(rv=1, applied_dv=0, refused_dv=3, errors=("TOO_NEW",)), at=LATER)
    (row,) = rows(t.twin)
    assert (row["rv"], row["refused_dv"], row["errors"], row["reported_at"]) == (1, 3, ["TOO_NEW"], LATER)


# A server that was restored ------------------------------------------------------------------------------------------


def resend(outcome):
    return [owed.resend_after for owed in outcome.owed.values()]


@pytest.mark.req("R-FLEET-15")
def test_a_box_that_connects_is_passed_on_with_what_it_has(take, box, rows):
    take(box.batch(box.record(), box.record())[0])
    outcome = take(box.get(seq=2, ctr=6, dv=3))
    (asked,) = outcome.asked
    assert (asked.address, asked.get.ctr) == (Address(HOSPITAL, box.device), 6)
    assert resend(outcome) == [None]
    assert [(row["ctr"], row["dv"]) for row in rows(t.device_counter)] == [(6, 3)]
    take(box.get(seq=2, ctr=2, dv=1))
    assert [(row["ctr"], row["dv"]) for row in rows(t.device_counter)] == [(6, 3)]


@pytest.mark.req("R-FLEET-15")
def test_rows_that_a_restored_server_lacks_are_asked_for_from_its_highest(take, box):
    take(box.batch(*(box.record() for _ in range(10)))[0])
    take(box.get(seq=10))
    # The backup ends here; the box has had 40 more acknowledged.
    outcome = take(box.get(seq=50, ctr=12))
    assert resend(outcome) == [10]


@pytest.mark.req("R-FLEET-15")
def test_holes_below_the_highest_are_found_when_the_first_lost_row_comes_again(take, box, rows):
    def send(*seqs):
        return take(box.batch(*(box.record(seq=seq) for seq in seqs))[0])

    send(*range(1, 11))
    take(box.get(seq=10))
    # Acknowledged out of order: of 11 to 40 only the last ten were here when the backup was made.
    send(*range(31, 41))
    assert resend(take(box.get(seq=60))) == [40]
    outcome = send(*range(41, 61))
    assert resend(outcome) == [10]
    # That is asked once; what then comes again fills the hole.
    assert resend(send(*range(11, 31))) == [None]
    assert resend(send(*range(31, 61))) == [None]
    assert [row["seq"] for row in rows(t.record)] == list(range(1, 61))
    assert resend(take(box.get(seq=60))) == [None]


def test_an_ordinary_reconnect_asks_for_nothing_that_is_here(take, box):
    take(box.batch(*(box.record() for _ in range(5)))[0])
    # Rows 6 to 8 stay on the box: it need only look at them again.
    assert resend(take(box.get(seq=8))) == [5]
    outcome = take(box.batch(box.record(seq=9))[0])
    assert resend(outcome) == [None]
    assert resend(take(box.batch(box.record(seq=3))[0])) == [None]  # sent again, and here


@pytest.mark.req("R-FLEET-15")
def test_a_counter_out_of_all_reason_is_refused(take, box, rows):
    outcome = take(box.get(ctr=2**40))
    assert (dict(outcome.refused), outcome.asked) == ({Refusal.COUNTER: 1}, [])
    assert rows(t.device_counter) == [] or rows(t.device_counter)[0]["ctr"] == 0


@pytest.mark.req("R-FLEET-15")
def test_a_step_of_a_job_with_a_counter_out_of_all_reason_uses_no_counter_up(take, box, rows):
    take(box.batch(box.record(JobChange(job=ulid(7), ctr=2**53, state="SUCCEEDED", version=1)))[0])
    assert [row["ctr"] for row in rows(t.device_counter)] in ([], [0])
    take(box.batch(box.record(JobChange(job=ulid(8), ctr=12, state="SUCCEEDED", version=1)))[0])
    assert [row["ctr"] for row in rows(t.device_counter)] == [12]


def test_a_get_that_somebody_else_signed_is_refused(take, box):
    stranger = PaperBox(box.device)
    forged = Uplink(box.topic(Up.GET), box.get().payload, {"sig": stranger.key.sign(box.topic(Up.GET), b"x")})
    assert dict(take(forged).refused) == {Refusal.SIGNATURE: 1}


@pytest.mark.req("R-FLEET-12")
def test_a_full_group_of_one_box_asks_the_database_in_parts_that_it_takes(take, box, engine, rows, monkeypatch):
    """SQLite's limit would look like a database that is away: nobody's messages would be taken any more."""
    monkeypatch.setattr(db, "_MOST_VALUES", 10)
    jobs = [box.record(JobChange(job=ulid(n), ctr=n, state="ACCEPTED", version=1)) for n in range(1, 41)]
    points = [box.record(HealthRollup(minutes=5, machine=Machine())) for _ in range(40)]
    take(box.batch(*jobs)[0], box.batch(*points)[0], box.get(seq=80))
    most = 0

    def count(_connection, _cursor, statement, parameters, *_):
        nonlocal most
        if statement.startswith("SELECT"):
            most = max(most, len(parameters))

    event.listen(engine, "before_cursor_execute", count)
    outcome = take(box.batch(*jobs)[0], box.batch(*points)[0])
    assert (outcome.again, resend(outcome)) == (80, [None])
    assert 10 < most < 20
    assert len(rows(t.job)) == 40


def test_messages_of_many_boxes_are_one_group(take, engine, ca, rows, box):
    boxes = [PaperBox(f"box-1{n:06}", key=box.key) for n in range(60)]
    issued = {}
    with db.write(engine) as connection:
        for one in boxes:
            number = registry.add_device(connection, one.device, SITE, "S", now=NOW)
            issued[one.device] = number
        pem = ca.issue(boxes[0].device, key=box.key).pem
        connection.execute(
            insert(t.certificate),
            [
                {
                    "fingerprint": f"{n:064x}",
                    "device": one.device,
                    "serial": "1",
                    "pem": pem,
                    "not_before": NOW,
                    "not_after": NOW,
                    "state": "current",
                    "made_at": NOW,
                }
                for n, one in enumerate(boxes)
            ],
        )
    outcome = take(*(uplink for one in boxes for uplink in (one.birth(), one.batch()[0], one.health(), one.get())))
    assert (outcome.records, len(acked(outcome)), len(outcome.asked)) == (60, 60, 60)
    with db.read(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(t.status)) == 60
