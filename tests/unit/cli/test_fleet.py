"""``scanside fleet``: enter, look, leave."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from fleet_link_kit import BROKERS, DEVICE, Authority, enrol_with

from appliance.cli import fleet as module
from appliance.cli import main
from appliance.clock import SystemClock
from appliance.fleet.device.enrolment import EnrolError
from appliance.fleet.keys import DeviceKey
from appliance.store import Store
from appliance.store.fleet_jobs import NewJob
from engines import signing

pytestmark = pytest.mark.req("R-FLEET-21")


class Box:
    def __init__(self, folder):
        self.state = folder / "state"
        self.file = folder / "appliance.yaml"
        self.configure()
        self.open().close()

    def configure(self, more=""):
        self.file.write_text(f"state_path: {self.state}\n{more}")

    def open(self):
        return Store.open(self.state, SystemClock(), reserve_bytes=0)

    def call(self, *words, typed=None):
        return CliRunner().invoke(main, ["fleet", *words, "--config", str(self.file)], input=typed)

    def facts(self):
        store = self.open()
        try:
            return [fact.body.get("state") for fact in store.journal.after(0) if fact.kind == "fleet_link"]
        finally:
            store.close()


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


@pytest.fixture
def server(monkeypatch):
    """A server that takes the box in; what it was asked with."""
    asked = []
    authority, online = Authority(), signing.generate("online")

    def enter(folder, url, token, **more):
        asked.append((url, token, more))
        if token.startswith("used"):
            raise EnrolError("https://fleet refuses: the token has been used")
        key = DeviceKey.generate()
        return enrol_with(folder, key, authority.certify(key.csr(DEVICE)), authority.pem, online, BROKERS)

    monkeypatch.setattr(module, "enter", enter)
    return asked


def test_a_box_enters_looks_and_leaves_and_the_journal_knows(box, server):
    box.configure("fleet: {proxy_url: 'http://proxy:3128'}\n")
    done = box.call("enrol", "https://fleet", "token", "--serial", "SN1")
    assert done.exit_code == 0, done.output
    assert DEVICE in done.output
    assert server == [("https://fleet", "token", {"serial": "SN1", "proxy_url": "http://proxy:3128"})]
    told = json.loads(box.call("status", "--json").stdout)
    assert (told["enrolled"], told["device"], told["next"]) == (True, DEVICE, [])
    assert (told["connected_at"], told["acknowledged_at"]) == (None, None)
    assert "not connected" in box.call("status").output
    assert 88 < told["certificate_days"] < 91
    assert "PRIVATE KEY" not in box.call("status").output
    assert box.call("leave", typed="n\n").exit_code == 1
    assert box.call("leave", "--yes").exit_code == 0
    assert not (box.state / "fleet").exists()
    assert box.facts() == ["enrolled", "left"]
    assert json.loads(box.call("status", "--json").stdout)["enrolled"] is False
    assert box.call("leave", "--yes").exit_code == 78


def test_what_a_fleet_asked_for_and_did_not_begin_ends_with_it(box, server):
    box.call("enrol", "https://fleet", "token", "--serial", "SN1")
    store = box.open()
    for ctr, state in enumerate(("WAIT_APPROVAL", "ACCEPTED", "SOAKING"), 1):
        store.fleet_jobs.take(NewJob(id=f"{ctr:026}", ctr=ctr, op="model.install", envelope=b"{}"), state)
    store.close()
    assert box.call("leave", "--yes").exit_code == 0
    store = box.open()
    states = {job.ctr: (job.state, job.code) for job in store.fleet_jobs.all()}
    store.close()
    # What serves already is judged to its end: the box takes a worse version back by itself.
    assert states == {1: ("CANCELED", "LEFT"), 2: ("CANCELED", "LEFT"), 3: ("SOAKING", "")}


def test_without_the_section_the_box_says_that_it_reports_to_nobody(box, server):
    done = box.call("enrol", "https://fleet", "token", "--serial", "SN1")
    assert "fleet: {}" in done.output
    assert "fleet: {}" in box.call("status").output


def test_a_refusal_is_the_servers_own_sentence_and_nothing_is_written(box, server):
    done = box.call("enrol", "https://fleet", "used-before", "--serial", "SN1")
    assert (done.exit_code, "has been used" in done.output) == (1, True)
    assert box.facts() == []


def test_a_machine_that_does_not_tell_its_serial_number_is_asked_for_it(box, server, monkeypatch):
    monkeypatch.setattr(module, "serial_number", lambda: "FROM-THE-MACHINE")
    assert box.call("enrol", "https://fleet", "token").exit_code == 0
    assert server[0][2]["serial"] == "FROM-THE-MACHINE"
    assert CliRunner().invoke(main, ["fleet", "serial"]).stdout == "FROM-THE-MACHINE\n"
