"""Lights and webhooks that call people: told in order, tried again, never in anybody's way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from http_kit import http_stub

from appliance.config import Config, LightSink, Site, WebhookSink
from appliance.daemon import Daemon
from appliance.deliver.alert_sinks import GIVE_UP_S, AlertSinkStage, alert_sinks
from appliance.deliver.light import Light
from appliance.deliver.pager import Pager
from appliance.errors import ConfigError, TransientError
from appliance.records import Actor, ActorKind, AlertStep
from appliance.store.escalations import SINK_FAILING
from appliance.store.facts import Kind

KEY = bytes(range(32))
LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
ON, OFF = bytes.fromhex("a00101a2"), bytes.fromhex("a00100a1")
pytestmark = pytest.mark.req("R-ALERT-05")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("whsec_" + base64.b64encode(KEY).decode(), "utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def alert(store, scenes):
    """``alert()``: an urgent one; ``alert(step, sink)``: with a step that a sink is owed."""

    def make(step=None, sink="pager"):
        with store.db.write() as tx:
            made = scenes.urgent(tx)
        if step is not None:
            assert store.escalations.take(made, step, [sink])
        return made

    return make


@pytest.fixture
def stage(store, clock):
    """``stage(sink, choice)``: a stage over a driver."""

    def make(sink, choice=None):
        choice = choice or SimpleNamespace(name="pager", timeout_s=1.0)
        return AlertSinkStage(choice, sink, store.escalations, clock, rng=random.Random(1))

    return make


class Fake:
    """A sink that takes what it is told unless it is broken."""

    def __init__(self):
        self.got, self.broken = [], False

    def tell(self, notice):
        if self.broken:
            raise TransientError("nobody answers")
        self.got.append((str(notice.step), notice.alert_id, notice.calling))


def test_a_sink_is_told_in_order_and_of_the_end(store, alert, stage):
    fake = Fake()
    step = stage(fake).step
    made = alert(AlertStep.TELL)
    store.escalations.take(made, AlertStep.OVERDUE, ["pager"])
    assert (step(), step(), step()) == (True, True, False)
    store.alerts.acknowledge(made, LI)
    assert step()
    assert fake.got == [("tell", made, 1), ("overdue", made, 1), ("cleared", made, 0)]
    told = store.journal.after(0, 100, (Kind.ALERT_SINK_TOLD,))
    assert [(fact.subject, fact.body["step"]) for fact in told] == [
        ("pager", "tell"),
        ("pager", "overdue"),
        ("pager", "cleared"),
    ]


def test_a_sink_that_fails_is_tried_again_is_an_issue_and_overtakes_nothing(store, alert, stage, clock):
    fake = Fake()
    fake.broken = True
    step = stage(fake).step
    first = alert(AlertStep.TELL)
    assert not step()
    assert not store.issues.is_open(SINK_FAILING, "pager"), "once may happen"
    assert not step(), "it waits before it tries again"
    second = alert(AlertStep.TELL)
    for _ in range(4):
        clock.advance(31)
        step()
    (issue,) = [one for one in store.issues.open() if one.code == SINK_FAILING]
    assert (issue.subject, issue.detail) == ("pager", {"error": "nobody answers"})
    fake.broken = False
    clock.advance(31)
    step()
    step()
    assert [got[1] for got in fake.got] == [first, second]
    assert not store.issues.is_open(SINK_FAILING, "pager")


def test_news_that_are_too_old_are_given_up_and_the_issue_stands(store, alert, stage, clock):
    fake = Fake()
    fake.broken = True
    step = stage(fake).step
    made = alert(AlertStep.TELL)
    tries = 0
    while store.escalations.owed("pager", clock.now()) or tries < 3:
        step()
        tries += 1
        clock.advance(31)
        assert tries < 2 + GIVE_UP_S / 15
    (fact,) = store.journal.after(0, 1000, (Kind.ALERT_SINK_FAILED,))
    assert (fact.body["alert"], fact.body["step"]) == (made, "tell")
    assert fact.body["attempts"] > GIVE_UP_S / 31 - 2
    assert store.issues.is_open(SINK_FAILING, "pager")
    fake.broken = False
    alert(AlertStep.TELL)
    step()
    assert len(fake.got) == 1
    assert not store.issues.is_open(SINK_FAILING, "pager")


# Webhook ----------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_says_no_name_and_is_the_same_message_when_repeated(store, alert, secret, clock, scenes):
    answers = [503, 200, 200]
    with http_stub(lambda _: (answers.pop(0), {}, b"")) as stub:
        url = f"http://127.0.0.1:{stub.port}/hook"
        choice = WebhookSink(kind="webhook", name="pager", url=url, secret_path=secret, timeout_s=60)
        pager = Pager(choice, clock, site="Hospital", evaluation=False)
        made = alert(AlertStep.TELL)
        (notice,) = store.escalations.owed("pager", clock.now())
        with pytest.raises(TransientError, match="HTTP 503"):
            pager.tell(notice)
        clock.advance(5)
        pager.tell(notice)
        store.alert_tests.begin("CT-1", LI, ["pager"])
        pager.tell(store.escalations.owed("pager", clock.now())[1])
    first, again, test = stub.got
    assert first.headers["webhook-id"] == again.headers["webhook-id"] != test.headers["webhook-id"]
    signed = f"{again.headers['webhook-id']}.{again.headers['webhook-timestamp']}.".encode() + again.body
    wanted = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert again.headers["webhook-signature"] == f"v1,{wanted}"
    told = json.loads(again.body)
    assert told["type"] == "scanside.alert"
    assert told["data"] == {
        "schema": 1, "site": "Hospital", "step": "tell", "is_test": False, "is_evaluation": False, "alert": made,
        "test": None, "category": 1, "source": "CT-1", "accession_number": scenes.WANG.accession_number,
        "raised_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    for secret_text in ("WANG", "XIAOMING", "88172355", "王", "1959"):
        assert secret_text.encode() not in again.body
    assert json.loads(test.body)["data"] | {"raised_at": ""} == {
        "schema": 1, "site": "Hospital", "step": "test", "is_test": True, "is_evaluation": False, "alert": None,
        "test": 1, "category": 1, "source": "CT-1", "accession_number": "", "raised_at": "",
    }  # fmt: skip


def test_a_webhook_that_nobody_runs_is_told_in_plain_words(store, alert, secret, clock):
    choice = WebhookSink(kind="webhook", name="pager", url="http://127.0.0.1:1/x", secret_path=secret, timeout_s=1)
    alert(AlertStep.TELL)
    with pytest.raises(TransientError, match="nothing listens"):
        Pager(choice, clock, site="", evaluation=False).tell(store.escalations.owed("pager", clock.now())[0])


def test_a_secret_that_is_not_there_is_told_at_the_start(tmp_path, clock):
    choice = WebhookSink(kind="webhook", name="pager", url="http://127.0.0.1:1/x", secret_path=tmp_path / "none")
    with pytest.raises(ConfigError, match="alert sink 'pager': secret_path"):
        alert_sinks(Config(alert_sinks=(choice,)), clock)


# Light ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lamp(tmp_path):
    """A relay that a pipe stands for: what was written to it, and its configuration."""
    path = tmp_path / "relay"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def written():
        data = b""
        try:
            while part := os.read(reading, 4096):
                data += part
        except BlockingIOError:
            pass
        return data

    yield SimpleNamespace(
        choice=LightSink(kind="light", name="lamp", device_path=path, timeout_s=30), written=written, path=path
    )
    os.close(reading)


def test_a_light_is_on_while_any_alert_calls_and_off_when_none_does(store, alert, stage, lamp):
    step = stage(Light(lamp.choice), lamp.choice).step
    first, second = alert(AlertStep.RAISED, "lamp"), alert(AlertStep.RAISED, "lamp")
    step(), step()
    assert lamp.written() == ON + ON
    store.alerts.acknowledge(first, LI)
    step()
    assert lamp.written() == ON, "the other one still calls"
    store.alerts.acknowledge(second, LI)
    step()
    assert lamp.written() == OFF


def test_a_light_that_is_not_there_or_takes_nothing_fails_within_its_limit(store, alert, clock, lamp, tmp_path):
    alert(AlertStep.RAISED, "lamp")
    (notice,) = store.escalations.owed("lamp", clock.now())
    gone = lamp.choice.model_copy(update={"device_path": tmp_path / "none"})
    with pytest.raises(TransientError, match="No such file"):
        Light(gone).tell(notice)
    with pytest.raises(TransientError, match="took nothing within"):
        Light(lamp.choice.model_copy(update={"timeout_s": 0.2})).write(b"x" * 1_000_000)


def test_a_light_never_writes_over_a_file(lamp, tmp_path):
    database = tmp_path / "scanside.sqlite"
    database.write_bytes(b"SQLite format 3")
    for path in (database, Path("/sys/class/../..", *database.parts[1:])):
        with pytest.raises(TransientError, match="is no device, pipe or file below /sys/class/"):
            Light(lamp.choice.model_copy(update={"device_path": path})).write(ON)
    assert database.read_bytes() == b"SQLite format 3"
    Light(lamp.choice).write(ON)
    Light(lamp.choice.model_copy(update={"device_path": Path("/dev/null")})).write(ON)
    assert lamp.written() == ON


def test_the_value_file_of_a_gpio_line_is_written_and_nothing_that_leads_out_of_its_tree(
    store, alert, stage, tmp_path, monkeypatch
):
    """The kernel's own tree needs the hardware: a folder stands for ``/sys``, linked as the kernel links it."""
    monkeypatch.setattr("appliance.deliver.light.SYS", tmp_path / "sys")
    line, shown = tmp_path / "sys/devices/gpiochip0/gpio17", tmp_path / "sys/class/gpio"
    line.mkdir(parents=True)
    shown.mkdir(parents=True)
    value = line / "value"
    value.write_bytes(b"0")
    (shown / "gpio17").symlink_to("../../devices/gpiochip0/gpio17")
    choice = LightSink(
        kind="light", name="lamp", device_path=shown / "gpio17/value", timeout_s=30, on=b"1".hex(), off=b"0".hex()
    )
    step = stage(Light(choice), choice).step
    called = alert(AlertStep.RAISED, "lamp")
    step()
    assert value.read_bytes() == b"1"
    store.alerts.acknowledge(called, LI)
    step()
    assert value.read_bytes() == b"0"
    outside = tmp_path / "scanside.sqlite"
    outside.write_bytes(b"SQLite format 3")
    (shown / "gpio18").symlink_to(outside)
    with pytest.raises(TransientError, match="is no device"):
        Light(choice.model_copy(update={"device_path": shown / "gpio18"})).write(b"1")
    assert outside.read_bytes() == b"SQLite format 3"


def test_the_daemon_passes_a_test_on_and_switches_the_light_off_again(tmp_path, lamp, wait_until):
    config = Config(
        state_path=tmp_path / "box",
        site=Site(mode="evaluation"),
        dicom={"port": 0},
        screen={"port": 0},
        triage={"spawn_worker": False},
        disk={"reserve_bytes": 0, "reserve_fraction": 0},
        alert_sinks=(lamp.choice,),
    )
    daemon = Daemon(config)
    names = {runner.stage.name for runner in daemon.runners.values()}
    assert {"escalation", "alert sink lamp"} <= names
    daemon.start()
    try:
        test = daemon.store.alert_tests.begin("", LI, config.sinks_of(AlertStep.TEST))
        wait_until(lambda: lamp.written() == ON)
        daemon.store.alert_tests.acknowledge(test, LI)
        wait_until(lambda: lamp.written() == OFF)
    finally:
        daemon.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "alert sink lamp"]
