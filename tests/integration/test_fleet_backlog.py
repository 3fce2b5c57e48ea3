"""A day without the broker: what a real box wrote meanwhile is told in order and whole, at the rate of the line.

And a withdrawal that was signed meanwhile is done in the moment of contact.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from box_kit import box_config
from fleet_jobs_kit import keys
from fleet_kit import Mosquitto
from fleet_line_kit import Box, ServerStandIn
from fleet_link_kit import TENANT, FakeInbox
from toy_packages import make_toy_xray_package

from appliance.clock import FakeClock, SystemClock
from appliance.config import Config
from appliance.daemon import Daemon
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.identity import Broker, Enrolment, Identity, Trust
from appliance.fleet.device.rollups import RollupStage
from appliance.fleet.keys import DeviceKey
from appliance.fleet.wire import JOB_TYPE, Address, Down, Job, JobArgs, Op, Up
from appliance.records import Actor, ActorKind, AnalysisResult, Outcome, Severity
from appliance.store import Store
from appliance.store.database import new_ulid
from appliance.store.facts.access import SignedIn
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.fleet import FleetJobStep
from appliance.store.health_samples import Sample
from engines import signing

log = logging.getLogger(__name__)
#: What the issue allows from contact to "out of service".
CONTACT_S = 300
NAME = "toy-bright-blob"
WHO = Actor(kind=ActorKind.PERSON, name="Li Wei", role="radiologist")


@pytest.fixture
def broker():
    made = Mosquitto(more="autosave_on_changes false\nautosave_interval 1800\n")
    yield made
    made.close()


@pytest.fixture
def day(tmp_path, scenes):
    """``day(**fleet)``: a box that ran for 24 hours and reached nobody."""
    stores = []

    def live(**fleet):
        hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        clock = FakeClock(hour - timedelta(hours=25))
        store = Store.open(tmp_path / "state", clock, reserve_bytes=0)
        stores.append(store)
        config = Config.model_validate({"state_path": tmp_path / "state", "fleet": fleet})
        rollups = RollupStage(store, clock)
        rollups.step()
        for five in range(288):
            store.health.add(clock.now(), Sample(cpu_percent=float(five % 90), memory_percent=40.0))
            if five % 12 == 5:
                _an_hour(store, scenes, five)
            clock.advance(300)
            rollups.step()
        clock.advance(600)
        rollups.step()
        return store, Contents(store, config, clock, quality=lambda _: "ntp")

    yield live
    for store in stores:
        store.close()


def _an_hour(store, scenes, five):
    """What people and the AI do in one."""
    with store.db.write() as tx:
        study = scenes.add_study(tx, outcome=Outcome.NOTHING_FLAGGED)
        result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, hops_ms={"total": 900.0})
        for _ in range(8):
            analysis = scenes.add_analysis(tx, study, result)
            given = {"analysis": analysis, "package": scenes.HEAD, "version": "0.1.0", "role": "live"}
            tx.journal(AnalysisDone(**given, outcome="NOTHING_FLAGGED"), study_id=study)
        tx.journal(SignedIn(how="password"), actor=WHO)
        tx.journal(FleetJobStep(job="0" * 26, ctr=1, op="ping", state="ACCEPTED", version=five))
    store.issues.raise_("DESTINATION_UNREACHABLE", "PACS", Severity.WARNING)
    store.issues.clear("DESTINATION_UNREACHABLE", "PACS")


def owed(store, contents):
    """seq: kind of record, of everything that may leave."""
    facts = store.journal.after(0, 1_000_000)
    return {fact.seq: record.d.k for fact in facts if (record := contents.record(fact)) is not None}


def told(server):
    """seq: kind, as it came first."""
    return {record.seq: record.d.k for record in list(server.records)}


def count(kinds):
    return {k: list(kinds.values()).count(k) for k in set(kinds.values())}


@pytest.mark.req("R-FLEET-90", "R-FLEET-03")
@pytest.mark.fault("T36")
def test_a_day_without_the_broker_is_told_whole_in_order_and_as_fast_as_the_line_bears(
    day, broker, tmp_path, wait_until
):
    store, contents = day()
    key = signing.generate("online")
    rows = owed(store, contents)
    kinds = count(rows)
    assert kinds["health"] >= 286
    assert (kinds["results"], kinds["access"], kinds["job"], kinds["issue"]) == (24, 24, 24, 48)
    inbox = FakeInbox()  # 32 KiB a second, as where no document says otherwise
    box = Box(tmp_path, broker, key, device="box-day-0001", store=store, contents=contents, inbox=inbox)
    try:
        wait_until(lambda: int(store.fleet.state("sess", "0")) >= 2)  # it tries, and nobody is there
        assert store.journal.cursor("fleet") == 0
        # No row goes before somebody listens: it would be lost, and come again after those behind it.
        box.link._talk.hold(600)
        broker.start()
        server = ServerStandIn(broker, key, box)
        box.link._talk.hold(0)
        began = time.monotonic()
        wait_until(lambda: box.cursor >= max(rows), 120)
        took = time.monotonic() - began
        assert told(server) == rows
        first = list(dict.fromkeys(record.seq for record in server.records))
        assert first == sorted(rows), "the oldest first, and nothing overtakes"
        assert server.forged == 0
        messages = server.of(Up.REC)
        size = sum(len(message.payload) for message in messages)
        assert len(messages) <= len(rows) // 50 + 2, "a backlog is packed, a hundred rows to a message"
        log.info("a day: %d rows, %d messages, %d bytes, %.1f s", len(rows), len(messages), size, took)
        server.close()
    finally:
        box.stop(politely=False)


@pytest.mark.long
@pytest.mark.req("R-FLEET-90", "R-FLEET-04")
@pytest.mark.fault("T36")
def test_beyond_the_bound_roll_ups_of_health_alone_are_left_out_and_a_gap_says_which(day, broker, tmp_path, wait_until):
    store, contents = day(backlog_rows=100)
    key = signing.generate("online")
    rows = owed(store, contents)
    broker.start()
    box = Box(
        tmp_path, broker, key, device="box-day-0002", store=store, contents=contents, backlog_rows=100,
    )  # fmt: skip
    try:
        server = ServerStandIn(broker, key, box)
        wait_until(lambda: box.cursor >= max(rows), 120)
        wait_until(lambda: "gap" in told(server).values(), 60)
        got = told(server)
        gaps = [record.d for record in server.records if record.d.k == "gap"]
        missing = {seq: k for seq, k in rows.items() if seq not in got}
        assert set(missing.values()) == {"health"}
        assert sum(gap.n for gap in gaps) == len(missing) > 200
        assert all(any(gap.first_seq <= seq <= gap.last_seq for gap in gaps) for seq in missing)
        assert {seq for seq, k in rows.items() if k != "health"} <= got.keys()
        server.close()
    finally:
        box.stop(politely=False)


@pytest.mark.long
@pytest.mark.req("R-FLEET-90", "R-FLEET-03")
@pytest.mark.fault("T36")
def test_a_line_that_flaps_while_a_day_is_told_loses_and_reorders_nothing(
    day, broker, tmp_path, wait_until, monkeypatch
):
    """Ten kills, each with the loss of all sessions, some while a batch is on its way."""
    monkeypatch.setattr("appliance.fleet.device.outbox._RESEND_S", 0.5)
    store, contents = day()
    key = signing.generate("online")
    rows = owed(store, contents)
    broker.start()
    # So slow that the day outlasts the kills.
    box = Box(
        tmp_path, broker, key, device="box-day-0003", store=store, contents=contents, inbox=FakeInbox(bytes_per_s=1500)
    )
    seen, chance, away_s, killed_at = {}, random.Random(7), 0.0, None
    server = ServerStandIn(broker, key, box)
    try:
        for n in range(10):
            before = box.cursor
            wait_until(lambda: box.link.is_connected, 60)
            away_s += 0.0 if killed_at is None else time.monotonic() - killed_at
            wait_until(lambda b=before: box.cursor > b or box.cursor >= max(rows), 60)
            threading.Event().wait(chance.uniform(0, 0.2))
            broker.kill()
            killed_at = time.monotonic()
            for kept in broker.folder.glob("mosquitto.db*"):
                kept.unlink()
            seen.update(told(server))
            server.close()
            at = box.cursor
            assert all(seq in seen for seq in rows if seq <= at), f"kill {n}: the cursor passed what the server lacks"
            broker.start()
            server = ServerStandIn(broker, key, box)
        box.inbox.document = FakeInbox(bytes_per_s=10_000_000).document
        wait_until(lambda: box.cursor >= max(rows), 120)
        away_s += time.monotonic() - killed_at
        seen.update(told(server))
        assert seen.items() >= rows.items()
        sessions = int(store.fleet.state("sess"))
        assert 10 <= sessions < 50 + away_s / 0.05, "it waits between two attempts, here for the shortest time"
    finally:
        server.close()
        box.stop(politely=False)


@pytest.mark.req("R-FLEET-44", "R-FLEET-90")
def test_a_model_is_out_of_service_in_the_moment_of_contact_after_a_day_without_it(
    broker, tmp_path, wait_until, monkeypatch
):
    """The whole daemon; the issue allows five minutes from contact. By a file: test_fleet_stick_box.py."""
    monkeypatch.setattr("appliance.fleet.device.pace._MOST_S", 2.0)  # how long it takes to contact is not looked at
    device, key, state = "box-out-0001", DeviceKey.generate(), tmp_path / "state"
    make_toy_xray_package(tmp_path / "one")
    trust = Trust(online=(keys()["online"].public.pem(),), release=(keys()["release"].public.pem(),))
    where = (Broker(host="localhost", port=broker.port),)
    enrolment = Enrolment(tenant=TENANT, device=device, server_url="https://localhost:8443", brokers=where)
    chain = broker.ca.issue(device, key=key).pem.encode()
    Identity.save(state / "fleet", enrolment, trust, key=key, chain=chain, ca=broker.ca.path.read_bytes())
    config = box_config(state, packages=(NAME,), fleet={}, triage={"spawn_worker": False})
    daemon = Daemon(config, trusted_folders=[tmp_path / "one"], fleet_within_s=0)
    daemon.start()
    server = None
    try:
        wait_until(lambda: [row.version for row in daemon.store.packages.all() if row.runs] == ["1.0.0"], 90)
        wait_until(lambda: int(daemon.store.fleet.state("sess", "0")) >= 1)
        broker.start()
        server = ServerStandIn(broker, keys()["online"], SimpleNamespace(key=key, address=Address(TENANT, device)))
        wait_until(lambda: server.of(Up.STATUS), 90)  # retained: it may have come before anybody listened
        contact = time.monotonic()
        now = int(SystemClock().now().timestamp() * 1000)
        job = Job(
            id=new_ulid(SystemClock().now()), aud=device, ctr=1, nbf=now - 60_000, exp=now + 86_400_000,
            op=Op.MODEL_WITHDRAW, args=JobArgs(package=NAME, version="1.0.0"), nonce=daemon.store.fleet.state("nonce"),
        )  # fmt: skip
        data = job.model_dump_json(exclude_none=True).encode()
        envelope = signing.sign(JOB_TYPE, data, [keys()["online"], keys()["release"]])
        server.client.publish(Address(TENANT, device).topic(Down.JOB), envelope)
        wait_until(lambda: not any(row.runs for row in daemon.store.packages.all()), CONTACT_S)
        out_s = time.monotonic() - contact
        wait_until(lambda: "SUCCEEDED" in [record.d.state for record in server.records if record.d.k == "job"], 60)
        log.info("out of service %.2f s after contact", out_s)
        assert out_s < CONTACT_S
        (row,) = daemon.store.packages.all()
        assert (str(row.state), row.is_missed) == ("withdrawn", True)
    finally:
        daemon.stop()
        if server is not None:
            server.close()
