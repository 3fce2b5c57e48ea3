"""``scanside-fleet``: what a person of the service team does at the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from appliance.clock import SystemClock
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.ca import DevCa
from appliance.fleet.server.cli import main
from appliance.fleet.server.config import ServerConfig
from appliance.fleet.server.db import migrate, open_engine, read, write
from appliance.fleet.server.enrol import Enrolment, Welcome
from appliance.fleet.server.premises import CA, KEYS, PLATFORM, database_of
from appliance.fleet.server.rollout.holds import add_hold, lift_hold
from appliance.fleet.server.server_keys import ServerKeys, add_key
from engines.signing import load_private, load_public

pytestmark = pytest.mark.req("R-FLEET-28")

MODEL = ("package=ich-ct", "version=2.0.0", "digest=0123456789abcdef", "target=models/ich-ct-2.0.0.zip")


class Desk:
    """A server's folder without the server, and its command line."""

    def __init__(self, folder):
        self.folder = folder / "fleet"
        self.folder.mkdir()
        self.file = folder / "fleet.yaml"
        self.file.write_text(f"folder: {self.folder}\nhttps: {{port: 9443}}\nnames: [fleet.example.org]\n")
        self.config = ServerConfig(folder=self.folder)
        self.ca = DevCa.open(self.folder / CA)
        keys = ServerKeys.open(self.folder / KEYS)
        now = SystemClock().now()
        with database_of(self.config) as engine:
            migrate(engine)
            with write(engine) as connection:
                kind = registry.TenantKind.PLATFORM
                registry.add_tenant(connection, PLATFORM, "Platform", kind, parent=None, now=now)
                add_key(connection, keys.online.public, "online", "server", now=now)
        self.ok("tenant", "add", "hospital-01", "Hospital", "--kind", "hospital")
        self.ok("site", "add", "site-0001", "hospital-01", "Radiology", "--zone", "Asia/Shanghai", "--country", "CN")

    def call(self, *words, typed=None):
        return CliRunner().invoke(main, [*words, "--config", str(self.file)], input=typed)

    def ok(self, *words, **more):
        done = self.call(*words, **more)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def box(self, serial, *more):
        """A box that has enrolled."""
        told = self.ok("device", "add", "--site", "site-0001", "--serial", serial, "--json", *more)
        engine = open_engine(self.config.database_url)
        welcome = Welcome("https://fleet.example.org:9443", ())
        enrolment = Enrolment(engine, self.ca, SystemClock(), lambda: welcome, self.config.enrol)
        csr = DeviceKey.generate().csr(told["device"]).decode()
        body = {"token": told["token"], "serial": serial, "csr": csr}
        enrolment.enrol(json.dumps(body).encode())
        engine.dispose()
        return told["device"]

    def rows(self, table):
        with database_of(self.config) as engine, read(engine) as connection:
            return list(connection.execute(select(table)))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_token_comes_with_the_line_that_is_typed_on_the_machine(desk):
    line = desk.ok("device", "add", "--site", "site-0001", "--serial", "SN1").strip().splitlines()[-1]
    words = line.split()
    assert words[:4] == ["scanside", "fleet", "enrol", "https://fleet.example.org:9443"]
    assert words[4].startswith("box-")
    assert [row.serial for row in desk.rows(t.enrol_token)] == ["SN1"]


def test_boxes_are_listed_replaced_disabled_and_enabled_and_the_audit_tells_who(desk):
    first, second = desk.box("SN1"), desk.box("SN2")
    third = desk.box("SN3", "--replaces", second)
    listed = {one["id"]: one for one in desk.ok("device", "list", "--json")["devices"]}
    assert (listed[second]["state"], listed[second]["replaced_by"]) == ("replaced", third)
    assert listed[first]["link"] == "never"
    assert "89 d" in desk.ok("device", "list")
    desk.ok("device", "replace", first, third)
    desk.ok("device", "disable", third, "--why", "stolen")
    assert "disabled" in desk.ok("device", "list")
    desk.ok("device", "enable", third, "--why", "found")
    told = [(row.act, row.subject) for row in desk.rows(t.audit)]
    for act, subject in (("device.replace", first), ("device.disable", third), ("device.enable", third)):
        assert (act, subject) in told
    assert all("at the command line" in row.actor for row in desk.rows(t.audit) if row.act.startswith("device.dis"))


@pytest.mark.req("R-FLEET-87")
def test_a_desired_document_is_set_whole_or_by_values_with_a_version_and_who_in_the_audit(desk, tmp_path):
    box = desk.box("SN1")
    assert "Nothing is desired" in desk.ok("device", "desired", box)
    file = tmp_path / "desired.yaml"
    file.write_text("health_every_s: 30\npackages:\n  - {name: chest, role: silent}\n")
    first = desk.ok("device", "desired", box, "--file", str(file), "--json")
    second = desk.ok("device", "desired", box, "--set", "window.begin=02:00", "--set", "packages.chest.role=", "--json")
    assert (first["dv"], first["desired"]["health_every_s"], second["dv"]) == (1, 30, 2)
    assert (second["desired"]["health_every_s"], second["desired"]["window"]["begin"]) == (30, "02:00")
    assert second["desired"]["packages"] == [{"name": "chest", "role": None, "operating_points": {}}]
    third = desk.ok("device", "desired", box, "--file", str(file), "--json")
    assert third["desired"]["window"]["begin"] == "01:00"  # whole: what a file leaves out has its default
    told = [(row.subject, row.detail["dv"]) for row in desk.rows(t.audit) if row.act == "twin.set"]
    assert told == [(box, 1), (box, 2), (box, 3)]
    assert {"key": "health_every_s", "desired": "30", "reported": None} in third["differences"]
    again = desk.call("device", "desired", box, "--file", str(file))
    assert (again.exit_code, "already" in again.output, len(desk.rows(t.twin))) == (6, True, 1)
    file.write_text("health_every_s: 30\nhealth_evry_s: 5\nwindow: {begin: 25:00}\n")
    wrong = desk.call("device", "desired", box, "--file", str(file))
    assert wrong.exit_code == 78
    assert "line 2: health_evry_s: there is no such key" in wrong.output
    assert "line 3: window.begin" in wrong.output
    wrong = desk.call("device", "desired", box, "--set", "packages.chest.role=shadow")
    assert (wrong.exit_code, "packages.chest.role: " in wrong.output) == (78, True)
    assert desk.ok("device", "desired", box, "--json") == third


@pytest.mark.req("R-FLEET-87")
def test_a_document_neither_lifts_a_hold_nor_makes_one(desk, tmp_path):
    box = desk.box("SN1")
    with database_of(desk.config) as engine, write(engine) as connection:
        now = SystemClock().now()
        keys = ServerKeys.open(desk.folder / KEYS)
        add_hold(connection, keys, registry.Scope.everything(), "site", "site-0001", why="x", actor="test", now=now)
    file = tmp_path / "desired.yaml"
    file.write_text("health_every_s: 30\n")
    assert desk.ok("device", "desired", box, "--file", str(file), "--json")["desired"]["held"] is True
    done = desk.call("device", "desired", box, "--set", "held=false")
    assert (done.exit_code, "hold lift" in done.output) == (6, True)
    other = desk.box("SN2")
    file.write_text("held: true\n")
    with database_of(desk.config) as engine, write(engine) as connection:
        lift_hold(connection, keys, registry.Scope.everything(), 1, why="x", actor="test", now=SystemClock().now())
    assert desk.call("device", "desired", other, "--file", str(file)).exit_code == 6
    assert desk.ok("device", "desired", box, "--json")["desired"]["held"] is False


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("device", "disable", "box-aaaaaaaa", "--why", "x"), 4, "no device"),
        (("device", "add", "--site", "site-9999", "--serial", "S"), 4, "no site"),
        (("device", "add", "--site", "site-0001", "--serial", "a b"), 6, "serial number"),
        (("tenant", "add", "hospital-01", "x", "--kind", "hospital"), 6, "already"),
        (("job", "approve", "--key", "none.pem"), 78, "cannot be read"),
        (("job", "make", "box-aaaaaaaa", "agent.update"), 2, "agent.update"),
        (("key", "retire", "0000"), 4, "no release key"),
    ],
)
def test_what_does_not_go_ends_with_a_status_and_a_sentence(desk, words, status, told):
    done = desk.call(*words)
    assert (done.exit_code, told in done.output) == (status, True), done.output


def test_before_the_first_start_the_way_on_is_said(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(f"folder: {tmp_path / 'none'}\n")
    done = CliRunner().invoke(main, ["device", "list", "--config", str(path)])
    assert (done.exit_code, "scanside-fleet up" in done.output) == (4, True)
    done = CliRunner().invoke(main, ["config", "validate", str(tmp_path / "missing.yaml")])
    assert done.exit_code == 78


@pytest.mark.req("R-FLEET-24")
def test_a_change_of_models_is_signed_by_a_key_that_the_server_does_not_have(desk, tmp_path):
    box = desk.box("SN1")
    key = tmp_path / "release.key"
    desk_key = CliRunner().invoke(main, ["key", "new", str(key)])
    assert desk_key.exit_code == 0
    assert key.stat().st_mode & 0o077 == 0
    args = [word for pair in MODEL for word in ("--arg", pair)]
    made = desk.ok("job", "make", box, "model.install", *args, "--json")
    refused = desk.call("job", "approve", made["id"], "--key", str(key), "--yes")
    assert (refused.exit_code, "no box trusts" in refused.output) == (6, True)
    desk.ok("key", "add", f"{key}.pub", "--name", "Wang")
    assert [one["id"] for one in desk.ok("job", "list", "--waiting", "--json")["jobs"]] == [made["id"]]
    asked = desk.call("job", "approve", made["id"], "--key", str(key), typed="n\n")
    assert (asked.exit_code, "model.install digest=0123456789abcdef" in asked.output) == (1, True)
    assert desk.ok("job", "list", "--waiting", "--json")["jobs"]
    told = desk.ok("job", "approve", "--key", str(key), "--json")
    assert told == {"signed": [{"job": made["id"], "complete": True}]}
    assert desk.ok("job", "list", "--waiting", "--json")["jobs"] == []
    kept = b"".join(path.read_bytes() for path in desk.folder.rglob("*") if path.is_file())
    assert load_private(key).raw not in kept
    assert key.read_bytes().splitlines()[1] not in kept
    assert load_public(tmp_path / "release.key.pub").keyid in {row.keyid for row in desk.rows(t.server_key)}


def test_a_job_is_made_listed_and_taken_back(desk):
    box = desk.box("SN1")
    made = desk.ok("job", "make", box, "ping", "--json")
    assert desk.ok("job", "list", "--device", box, "--json")["jobs"][0]["id"] == made["id"]
    desk.ok("job", "cancel", made["id"])
    assert "CANCELED" in desk.ok("job", "list")
    done = desk.call("job", "make", box, "resend", "--arg", "after_seq=x")
    assert (done.exit_code, "after_seq" in done.output) == (2, True)
    assert desk.ok("job", "make", box, "resend", "--arg", "after_seq=0", "--json")["args"]["after_seq"] == 0


def test_a_public_key_alone_is_taken_and_a_private_one_refused(desk, tmp_path):
    key = tmp_path / "release.key"
    CliRunner().invoke(main, ["key", "new", str(key)])
    done = desk.call("key", "add", str(key), "--name", "x")
    assert (done.exit_code, "private" in done.output) == (78, True)
    again = CliRunner().invoke(main, ["key", "new", str(key)])
    assert again.exit_code == 6


def test_every_command_has_its_help(desk):
    for words in ((), ("device",), ("job", "approve"), ("key", "new"), ("up",), ("site",), ("tenant",), ("config",)):
        done = CliRunner().invoke(main, [*words, "--help"])
        assert done.exit_code == 0
        assert done.output.count("\n") > 3
