"""The ingest against a real mosquitto with TLS and ACL, and a database that is slow, locked or gone."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import socket
import threading
import time

import pytest
from fleet_kit import FleetCa, Mosquitto, PaperBox, add_box, add_tree
from prometheus_client import CollectorRegistry
from sqlalchemy import event, func, select

from appliance.clock import SystemClock
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.acks import Downlink
from appliance.fleet.server.admit import Uplink
from appliance.fleet.server.broker_line import BrokerAt
from appliance.fleet.server.metrics import IngestMetrics
from appliance.fleet.server.mqtt import IngestWorker
from appliance.fleet.wire import ACK_TYPE, Ack, Down, Up
from appliance.fleet.wire_records import EngineChange, IssueChange
from engines.signing import generate, verify

CLK = SystemClock()


@pytest.fixture(scope="module")
def server_key():
    return generate("online")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    path = tmp_path_factory.mktemp("fleet") / "template.db"
    engine = db.open_engine(f"sqlite:///{path}")
    db.migrate(engine)
    with db.write(engine) as connection:
        add_tree(connection)
    engine.dispose()
    return path


@pytest.fixture
def engine(migrated, tmp_path):
    path = tmp_path / "fleet.db"
    shutil.copy(migrated, path)
    made = db.open_engine(f"sqlite:///{path}")
    yield made
    made.dispose()


@pytest.fixture
def enrol(engine, fleet_broker):
    """``enrol(device)``: a registered box, and its certificate."""

    def call(device, *, broker=fleet_broker, on=engine, **more):
        box = PaperBox(device, **more)
        with db.write(on) as connection:
            issued = add_box(connection, box, broker.ca)
        return box, issued

    return call


@pytest.fixture
def worker(engine, fleet_broker, server_key, wait_until):
    """``worker()``: an ingest that listens; ended with the test."""
    with contextlib.ExitStack() as started:
        count = 0

        def start(*, on=engine, broker=fleet_broker, answer=None):
            nonlocal count
            count += 1
            at = BrokerAt("127.0.0.1", broker.port, f"ingest-{count}", broker.context(broker.server))
            metrics = IngestMetrics(CollectorRegistry())
            made = IngestWorker(on, at, [server_key], CLK, metrics=metrics, answer=answer)
            made.start()
            started.callback(made.stop)
            wait_until(made.line.stands.is_set, what="the ingest listens")
            return made

        yield start


@pytest.fixture
def client(fleet_broker):
    """``client(issued, name)``: a connection to the broker; ended with the test."""
    with contextlib.ExitStack() as started:

        def connect(issued, name, *, broker=fleet_broker, **more):
            made = broker.client(issued, name, **more)
            started.callback(made.close)
            return made

        yield connect


@pytest.fixture
def ack_of(server_key):
    """``ack_of(client)``: the next acknowledgement that comes, its signature checked."""

    def call(listener, timeout=30):
        message = listener.inbox.get(timeout=timeout)
        assert not message.retain
        return Ack.unpack(verify(message.payload, ACK_TYPE, [server_key.public]).payload)

    return call


def count(engine, table):
    with db.read(engine) as connection:
        return connection.scalar(select(func.count()).select_from(table))


@pytest.fixture
def settle(wait_until):
    """``settle(client, mid)``: wait until the broker has answered for a publication."""
    return lambda speaker, mid: wait_until(lambda: mid in speaker.answers, what="the broker has it")


def until_acked(listener, ack_of, wanted):
    """Ids that were acknowledged, once all of ``wanted`` were."""
    got = []
    while not wanted <= set(got):
        got += ack_of(listener).b
    return got


@pytest.mark.req("R-FLEET-11")
def test_a_batch_is_acknowledged_to_its_box_alone_once_it_is_committed(worker, enrol, client, ack_of, engine):
    worker()
    box, issued = enrol("box-0000001")
    other, other_issued = enrol("box-0000002")
    mine = client(issued, box.device, listen=[box.topic(Down.ACK)])
    # A hostile box listens to everything: mosquitto grants it, and delivers nothing.
    spy = client(other_issued, other.device, listen=["scanside/#", box.topic(Down.ACK), box.topic(Up.REC)])
    uplink, batch = box.batch(*(box.record() for _ in range(3)))
    mine.say(uplink)
    ack = ack_of(mine)
    assert (ack.aud, ack.stream, ack.b) == (box.device, box.stream, (batch,))
    assert abs(ack.st - time.time() * 1000) < 60_000
    assert count(engine, t.record) == 3
    # What is spied on would have come before this.
    uplink, batch = other.batch()
    spy.say(uplink)
    assert ack_of(spy).b == (batch,)
    assert spy.inbox.empty()


@pytest.mark.req("R-FLEET-16")
@pytest.mark.fault("T43")
def test_the_broker_lets_a_box_speak_for_itself_alone_by_receipt(worker, enrol, client, ack_of, engine, fleet_broker):
    worker()
    box, issued = enrol("box-0000001")
    victim, _ = enrol("box-0000002")
    server_like = client(fleet_broker.server, "listener", listen=["scanside/v1/+/+/up/#"])
    thief = client(issued, "anything")
    for uplink in (
        victim.birth(),
        victim.batch()[0],
        Uplink(victim.topic(Down.ACK), b"{}"),
        Uplink(box.ack_topic, b"{}"),
    ):
        refused = thief.say(uplink)
        deadline = time.monotonic() + 30
        while refused not in thief.answers and not thief.ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if refused in thief.answers:
            assert thief.answers[refused].is_failure
        if thief.ended:  # mosquitto 2.0 may close the line after a publication that it denied
            thief = client(issued, "anything")
    uplink, batch = box.batch()
    mine = client(issued, box.device, listen=[box.ack_topic])
    mine.say(uplink)
    assert ack_of(mine).b == (batch,)
    assert server_like.inbox.get(timeout=30).topic == box.topic(Up.REC)
    assert server_like.inbox.empty()
    with db.read(engine) as connection:
        assert {row.device for row in connection.execute(select(t.record))} == {box.device}
        assert connection.execute(select(t.status).where(t.status.c.device == victim.device)).first() is None


@pytest.mark.fault("T43")
def test_nobody_connects_without_a_certificate_of_this_fleet(fleet_broker, tmp_path):
    stranger = FleetCa(tmp_path, "Another CA").issue("box-0000001")
    hello = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"

    def talk(context):
        with (
            socket.create_connection(("127.0.0.1", fleet_broker.port), timeout=30) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as line,
        ):
            line.sendall(hello)
            if not line.recv(4):
                raise ConnectionResetError

    for issued in (None, stranger, fleet_broker.ca.issue("box-0000009", days=(-9, -1))):
        context = fleet_broker.ca.context()
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        with pytest.raises(OSError, match=r"(?i)alert|reset|^$|eof|pipe"):
            talk(context)


@pytest.mark.req("R-FLEET-12")
@pytest.mark.fault("T37")
def test_retained_forged_and_replayed_batches_over_the_wire(worker, enrol, client, ack_of, engine, settle):
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    kept, _ = box.batch()
    settle(mine, mine.say(kept, retain=True))
    worker()
    uplink, batch = box.batch(box.record(IssueChange(code="DISK_FULL", state="raised", ref="ab" * 8)))
    forged = Uplink(uplink.topic, uplink.payload.replace(b"DISK_FULL", b"DISK_GONE"), uplink.properties)
    last, last_id = box.batch()
    for one in (forged, Uplink(uplink.topic, b"\xff" * 1000), uplink, uplink, last):
        mine.say(one)
    got = until_acked(mine, ack_of, {last_id})
    assert set(got) == {batch, last_id}
    with db.read(engine) as connection:
        codes = list(connection.scalars(select(t.issue_state.c.code)))
        refused = {row.reason: row.n for row in connection.execute(select(t.refusal))}
    # Mosquitto hands what it retains to shared subscriptions too.
    assert (codes, refused) == (["DISK_FULL"], {"signature": 2, "retained": 1})
    settle(mine, mine.publish(kept.topic, b"", retain=True))  # leaves nothing behind for others


@pytest.mark.req("R-FLEET-14")
def test_a_box_that_vanishes_is_offline_by_its_will_and_one_that_says_goodbye_too(
    worker, enrol, client, engine, wait_until, settle
):
    worker()
    box, issued = enrol("box-0000001")
    will = box.will()

    def state():
        with db.read(engine) as connection:
            row = connection.execute(select(t.status.c.online, t.status.c.why, t.status.c.sess)).first()
        return tuple(row) if row else None

    mine = client(issued, box.device, will=(will.topic, will.payload))
    mine.say(box.birth(), retain=True)
    wait_until(lambda: state() == (True, "start", 1))
    mine.cut()
    wait_until(lambda: state() == (False, "lwt", 1))
    box.sess = 2
    again = client(issued, box.device)
    again.say(box.birth(why="reconnect"), retain=True)
    wait_until(lambda: state() == (True, "reconnect", 2))
    # Retained: a server that starts later learns it too.
    with db.write(engine) as connection:
        connection.execute(t.status.delete())
    worker()
    wait_until(lambda: state() == (True, "reconnect", 2))
    again.say(box.will(why="stop"), retain=True)
    wait_until(lambda: state() == (False, "stop", 2))
    # Else the ingests of later tests hear of a box that is not enrolled yet, and count that as refused.
    settle(again, again.publish(will.topic, b"", retain=True))


@pytest.mark.req("R-FLEET-17")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_workers_share_the_batches_and_each_record_is_kept_once(
    worker, enrol, client, ack_of, engine, kind, request
):
    """Both write the same rows of states at once, in different orders."""
    if kind == "postgresql":
        url = request.getfixturevalue("fleet_postgres").fresh()
        here = db.open_engine(url)
        db.migrate(here)
        with db.write(here) as connection:
            add_tree(connection)
    else:
        here = engine
    first, second = worker(on=here), worker(on=here)
    boxes = []
    for n in range(1, 4):
        box, issued = enrol(f"box-000000{n}", on=here)
        boxes.append((box, client(issued, box.device, listen=[box.ack_topic]), {}))
    states = ("building", "ready")
    for n in range(30):
        for box, mine, sent in boxes:
            told = (EngineChange(package=name, state=states[n % 2]) for name in ("chest", "head", "spine"))
            uplink, batch = box.batch(*(box.record(one) for one in told))
            sent[batch] = uplink
            mine.say(uplink)
    for _, mine, sent in boxes:
        until_acked(mine, ack_of, set(sent))
    assert count(here, t.record) == 3 * 90
    taken = [one._metrics.records._value.get() for one in (first, second)]
    assert sum(taken) == 3 * 90
    assert min(taken) > 0
    with db.read(here) as connection:
        found = connection.execute(select(t.engine_state.c.state, t.engine_state.c.seq)).all()
    assert sorted(tuple(row) for row in found) == sorted([("ready", 88), ("ready", 89), ("ready", 90)] * 3)
    for one in (first, second):
        one.stop()
    if kind == "postgresql":
        here.dispose()


@pytest.mark.req("R-FLEET-17")
def test_nothing_is_acknowledged_while_the_database_is_locked_and_everything_after(
    worker, enrol, client, ack_of, engine
):
    busy = db.open_engine(engine.url.render_as_string(hide_password=False))

    @event.listens_for(busy, "connect")
    def hurry(connection, _record):
        connection.execute("PRAGMA busy_timeout=50")

    made = worker(on=busy)
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    batches = [box.batch() for _ in range(10)]
    with db.write(engine):
        for uplink, _ in batches:
            mine.say(uplink)
        deadline = time.monotonic() + 30
        while made._metrics.database_failures._value.get() < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(queue.Empty):
            mine.inbox.get(block=False)
        assert count(engine, t.record) == 0
    until_acked(mine, ack_of, {batch for _, batch in batches})
    assert count(engine, t.record) == 10
    made.stop()
    busy.dispose()


def settled(worker):
    """Until the broker, asked again and again on the worker's own line, has nothing more that it may hand out."""
    before = -1
    while worker._arrived.qsize() != before:
        before = worker._arrived.qsize()
        answered = threading.Event()
        worker.line._client.on_subscribe = lambda *_, answered=answered: answered.set()
        worker.line._client.subscribe("scanside/nothing")
        assert answered.wait(30)


@pytest.mark.req("R-FLEET-17")
@pytest.mark.fault("T36")
def test_a_slow_worker_loses_nothing_and_does_not_grow(worker, enrol, client, ack_of, engine):
    """The broker keeps what is beyond the window, or drops it: boxes send again what was not acknowledged."""
    gate = threading.Event()
    slow = db.open_engine(engine.url.render_as_string(hide_password=False))

    @event.listens_for(slow, "begin")
    def wait(_connection):
        gate.wait(60)

    made = worker(on=slow)
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    batches = {ident: uplink for uplink, ident in (box.batch() for _ in range(1600))}
    for uplink in batches.values():
        mine.say(uplink)
    deadline = time.monotonic() + 60
    while len(mine.answers) < 1600:  # the broker has answered for all of them
        assert time.monotonic() < deadline
        time.sleep(0.02)
    settled(made)
    assert made._arrived.qsize() <= 1000
    gate.set()
    got = until_acked(mine, ack_of, set(batches))
    assert set(got) == set(batches)
    assert count(engine, t.record) == 1600
    made.stop()
    slow.dispose()


@pytest.mark.req("R-FLEET-17")
def test_one_message_that_the_database_cannot_take_leaves_the_others_alone(
    worker, enrol, client, ack_of, engine, monkeypatch
):
    made = worker()
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    apply = made._ingest.apply
    poison = box.batch(box.record())[0]

    def explode(connection, messages, now):
        if any(one.payload == poison.payload for one in messages):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return apply(connection, messages, now)

    monkeypatch.setattr(made._ingest, "apply", explode)
    batches = [box.batch() for _ in range(6)]
    for uplink in (*(one for one, _ in batches[:3]), poison, *(one for one, _ in batches[3:])):
        mine.say(uplink)
    until_acked(mine, ack_of, {batch for _, batch in batches})
    with db.read(engine) as connection:
        assert [(row.reason, row.n) for row in connection.execute(select(t.refusal))] == [("database", 1)]


@pytest.mark.req("R-FLEET-15")
def test_a_box_that_asks_is_answered_after_the_commit(worker, enrol, client, engine):
    seen = []

    def answer(asked):
        (one,) = asked
        with db.read(engine) as connection:
            seen.append(connection.scalar(select(t.device_counter.c.ctr)))
        return [Downlink(one.address, Down.TWIN, json.dumps({"dv": one.get.dv + 1}).encode())]

    worker(answer=answer)
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.topic(Down.TWIN)])
    mine.say(box.get(dv=4, ctr=9))
    message = mine.inbox.get(timeout=30)
    assert (message.topic, json.loads(message.payload), message.retain) == (box.topic(Down.TWIN), {"dv": 5}, False)
    assert message.properties.MessageExpiryInterval <= 86_400
    assert seen == [9]


@pytest.mark.req("R-FLEET-15")
def test_a_restored_server_gets_back_what_it_had_acknowledged(worker, enrol, client, ack_of, engine, tmp_path):
    """The box stays with its broker all the while and asks nothing: the server finds out by itself."""
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    first = worker()
    journal = [box.batch() for _ in range(8)]

    def send(batches):
        for uplink, _ in batches:
            mine.say(uplink)
        wanted, got, asked = {batch for _, batch in batches}, set(), []
        while not wanted <= got:
            ack = ack_of(mine)
            got |= set(ack.b)
            asked += [] if ack.resend_after is None else [ack.resend_after]
        return asked

    assert send(journal[:4]) == []
    copy = engine.raw_connection()
    copy.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
    copy.close()
    assert send(journal[4:7]) == []
    first.stop()
    restored = db.open_engine(f"sqlite:///{tmp_path}/backup.db")
    second = worker(on=restored)
    assert send(journal[7:]) == [4]
    assert send(journal[4:]) == []
    with db.read(restored) as connection:
        assert list(connection.scalars(select(t.record.c.seq).order_by(t.record.c.seq))) == list(range(1, 9))
    second.stop()
    restored.dispose()


@pytest.mark.req("R-FLEET-17")
@pytest.mark.fault("T36")
def test_a_broker_that_is_killed_comes_back_and_nothing_that_was_acknowledged_is_missing(
    worker, engine, enrol, ack_of, wait_until, request
):
    broker = Mosquitto().start()
    request.addfinalizer(broker.close)
    made = worker(broker=broker)
    box, issued = enrol("box-0000001", broker=broker)
    batches = {ident: uplink for uplink, ident in (box.batch() for _ in range(60))}
    acked = set()
    for round_ in range(3):
        mine = broker.client(issued, box.device, listen=[box.ack_topic], clean=False)
        waiting = [ident for ident in batches if ident not in acked]
        for ident in waiting[: 20 * (round_ + 1)]:
            mine.say(batches[ident])
        if round_ < 2:
            acked |= set(ack_of(mine).b)
            assert count(engine, t.record) >= len(acked)
            broker.kill()
            mine.close()
            wait_until(lambda: not made.line.stands.is_set(), what="the ingest has noticed")
            broker.start()
            wait_until(made.line.stands.is_set, timeout_s=60, what="the ingest is back")
        else:
            for ident in waiting:
                mine.say(batches[ident])
            acked |= set(until_acked(mine, ack_of, set(waiting)))
            mine.close()
    assert acked == set(batches)
    assert count(engine, t.record) == 60


def test_a_topic_that_is_none_of_ours_is_counted_and_harmless(worker, enrol, client, ack_of, engine, fleet_broker):
    worker()
    box, issued = enrol("box-0000001")
    mine = client(issued, box.device, listen=[box.ack_topic])
    mine.publish(f"scanside/v1/UPPER/{box.device}/up/rec", b"{}")
    uplink, batch = box.batch()
    mine.say(uplink)
    assert ack_of(mine).b == (batch,)
    with db.read(engine) as connection:
        assert [(row.device, row.reason) for row in connection.execute(select(t.refusal))] == [("", "topic")]
