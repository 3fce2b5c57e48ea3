"""``scanside-fleet up``: real mosquitto, real HTTPS, real SQLite; boxes enrol, connect, renew, and are thrown out."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from pathlib import Path

import package_kit
import pytest
from click.testing import CliRunner
from cryptography import x509
from fleet_kit import PaperBox, TestClient
from sqlalchemy import select
from tuf.ngclient import Updater
from tuf_kit import HttpsFetcher

from appliance.clock import SystemClock
from appliance.errors import ConfigError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.enrolment import EnrolError, RenewStage, enrol, present
from appliance.fleet.device.identity import Identity, Trust
from appliance.fleet.device.logs import LogTail, send_logs
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.broker import find_mosquitto
from appliance.fleet.server.ca import DevCa, read_request
from appliance.fleet.server.cli import main
from appliance.fleet.server.config import BrokerConfig, ConsoleConfig, HttpsConfig, ServerConfig
from appliance.fleet.server.db import open_engine, read, write
from appliance.fleet.server.repository_rules import tuf_key
from appliance.fleet.server.up import FleetServer
from appliance.fleet.wire import ACK_TYPE, JOB_TYPE, Ack, Down, Job, Op, Up
from engines.archive import unpack
from engines.package import load_package
from engines.signing import generate, verify

HOSPITAL, SITE = "hospital-01", "site-0001"


@pytest.fixture(scope="module", autouse=True)
def _mosquitto():
    try:
        find_mosquitto()
    except ConfigError as error:
        pytest.skip(str(error))


class Fleet:
    """A server in a thread, and a person at its command line."""

    def __init__(self, port, web_port):
        # Not below tmp_path: the broker is another user where the tester is root.
        self.folder = Path(tempfile.mkdtemp(prefix="scanside-fleet-"))
        self.config = ServerConfig(
            folder=self.folder,
            names=("localhost", "127.0.0.1"),
            # A port that the server finds by itself may be somebody else's before the broker listens there.
            broker=BrokerConfig(port=port, websocket_port=web_port),
            https=HttpsConfig(port=0),
            console=ConsoleConfig(port=0),
        )
        self.file = self.folder / "fleet.yaml"
        self.file.write_text(
            f"folder: {self.folder}\nbroker: {{port: 0}}\nhttps: {{port: 0}}\nconsole: {{port: 0}}\nmetrics_port: 0\n"
        )
        self.server = FleetServer(self.config)
        self.ready, self.failed = threading.Event(), []
        self.thread = threading.Thread(target=self._run, name="fleet-server")
        self.thread.start()
        assert self.ready.wait(60), self.failed
        assert not self.failed, self.failed
        self.engine = open_engine(self.config.database_url)
        self.serials = 0
        self.call("tenant", "add", HOSPITAL, "Hospital", "--kind", "hospital")
        self.call("site", "add", SITE, HOSPITAL, "Radiology")

    def _run(self):
        try:
            self.server.run(self.ready.set)
        except ConfigError as error:
            self.failed.append(error)
        finally:
            self.ready.set()

    def call(self, *words):
        done = CliRunner().invoke(main, [*words, "--config", str(self.file)])
        assert done.exit_code == 0, done.output
        return done.stdout

    def plain(self, *words):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output

    def token(self):
        self.serials += 1
        serial = f"SN-{self.serials}"
        return serial, json.loads(self.call("device", "add", "--site", SITE, "--serial", serial, "--json"))

    def enrol(self, tmp_path, **more):
        """A box that has enrolled over HTTPS."""
        serial, told = self.token()
        folder = tmp_path / told["device"] / "fleet"
        return enrol(folder, told["url"], told["token"], serial=serial, **more)

    @property
    def port(self):
        return self.server.addresses()["brokers"][0]["port"]

    @property
    def https(self):
        return int(self.server.addresses()["https"].rpartition(":")[2])

    def context(self, identity):
        made = ssl.create_default_context(cafile=str(identity.ca_path))
        made.load_cert_chain(identity.certificate_path, identity.key_path)
        return made

    def row(self, table, *where):
        with read(self.engine) as connection:
            return connection.execute(select(table).where(*where)).first()

    def close(self):
        self.server.stop()
        self.thread.join(120)
        assert not self.thread.is_alive()
        self.engine.dispose()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def fleet(free_port):
    made = Fleet(free_port(), free_port())
    yield made
    made.close()


def paper(identity):
    """What a box of this identity says."""
    where = identity.enrolment
    return PaperBox(where.device, tenant=where.tenant, key=identity.key)


@pytest.fixture
def connect(fleet):
    """``connect(identity)``: a plain client with that certificate; all are ended with the test."""
    made = []

    def call(identity, *, listen=(), name=None):
        made.append(TestClient(fleet, identity, name or identity.enrolment.device, listen=listen))
        return made[-1]

    yield call
    for one in made:
        one.close()


def hello(port, context, client_id="box-aaaaaaaaaaaaaaaa"):
    """CONNECT by hand: the broker's first bytes, b"" where it hangs up; TLS may refuse before."""
    body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + len(client_id).to_bytes(2, "big") + client_id.encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as line:
                line.sendall(bytes([0x10, len(body)]) + body)
                return line.recv(64)
        except (ssl.SSLError, ConnectionError):
            return b""


def is_taken(answer):
    return answer[:1] == b"\x20" and answer[3] == 0


# A box comes in ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-21", "R-FLEET-29")
def test_a_box_enrols_connects_and_what_it_says_is_acknowledged_by_a_key_that_it_was_told(
    fleet, connect, tmp_path, wait_until
):
    identity = fleet.enrol(tmp_path)
    box = paper(identity)
    client = connect(identity, listen=[box.ack_topic])
    client.say(box.birth(), retain=True)
    uplink, batch = box.batch()
    client.say(uplink)
    envelope = client.inbox.get(timeout=30).payload
    ack = Ack.unpack(verify(envelope, ACK_TYPE, identity.online).payload)
    assert (ack.b, ack.aud) == ((batch,), box.device)
    wait_until(lambda: (row := fleet.row(t.status, t.status.c.device == box.device)) and row.online)
    listed = json.loads(fleet.call("device", "list", "--json"))["devices"]
    assert [one["link"] for one in listed if one["id"] == box.device] == ["online"]


@pytest.mark.req("R-FLEET-21")
def test_a_token_of_another_server_or_used_or_for_another_machine_leaves_no_identity(fleet, tmp_path):
    serial, told = fleet.token()
    device, secret, _ = told["token"].split(".")
    folder = tmp_path / "fleet"
    with pytest.raises(ConfigError, match="not the server of this token"):
        enrol(folder, told["url"], f"{device}.{secret}.{'0' * 64}", serial=serial)
    assert fleet.row(t.enrol_token, t.enrol_token.c.device.is_(None), t.enrol_token.c.serial == serial).used_at is None
    with pytest.raises(EnrolError, match="another machine"):
        enrol(folder, told["url"], told["token"], serial="SN-other")
    assert not (folder / "identity.json").exists()
    assert enrol(folder, told["url"], told["token"], serial=serial).enrolment.device == device
    with pytest.raises(EnrolError, match="has been used"):
        enrol(tmp_path / "again", told["url"], told["token"], serial=serial)
    assert not list((tmp_path / "again").iterdir())


# Who may what --------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-29")
def test_a_box_neither_reads_nor_writes_what_is_anothers_whatever_the_broker_grants(
    fleet, connect, tmp_path, wait_until
):
    mine, theirs = fleet.enrol(tmp_path), fleet.enrol(tmp_path)
    box, other = paper(mine), paper(theirs)
    listener = connect(mine, listen=["scanside/v1/+/+/dn/#", "scanside/v1/+/+/up/#", "#", "$SYS/#"])
    # As the other box: signed by nobody it would be refused anyway, so what is said is what needs no signature.
    listener.say(other.birth())
    connect(theirs, listen=[other.ack_topic]).say(other.batch()[0])
    listener = connect(mine, listen=["scanside/v1/+/+/dn/#", "scanside/v1/+/+/up/#"])
    listener.say(box.batch()[0])
    wait_until(lambda: fleet.row(t.record, t.record.c.device == box.device))
    wait_until(lambda: fleet.row(t.record, t.record.c.device == other.device))
    got = [listener.inbox.get(timeout=30).topic]
    while not listener.inbox.empty():
        got.append(listener.inbox.get().topic)
    assert set(got) == {box.ack_topic}
    # Its own row came after the forged birth, on the same line: a birth that was let through would be here by now.
    row = fleet.row(t.status, t.status.c.device == other.device)
    assert row is None or not row.agent


@pytest.mark.req("R-FLEET-29")
@pytest.mark.fault("T43")
def test_the_client_id_of_another_box_is_not_taken_over(fleet, connect, tmp_path):
    mine, theirs = fleet.enrol(tmp_path), fleet.enrol(tmp_path)
    box = paper(mine)
    client = connect(mine, listen=[box.ack_topic])
    assert is_taken(hello(fleet.port, fleet.context(theirs), box.device))
    client.say(box.batch()[0])
    assert client.inbox.get(timeout=30).topic == box.ack_topic
    assert not client.ended


def certificate_of(fleet, tmp_path, ca, device, days):
    """A client's TLS with a certificate of ``ca``."""
    key = DeviceKey.generate()
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    key.save(folder / "key")
    (folder / "crt").write_bytes(ca.issue(read_request(key.csr(device), device), device, days))
    made = ssl.create_default_context(cafile=str(fleet.folder / "ca" / "ca.crt"))
    made.load_cert_chain(folder / "crt", folder / "key")
    return made


@pytest.mark.req("R-FLEET-29")
@pytest.mark.fault("T43")
def test_without_a_certificate_of_ours_that_holds_nobody_is_on_the_line(fleet, tmp_path):
    device = fleet.enrol(tmp_path).enrolment.device
    own = DevCa.open(fleet.folder / "ca")
    assert is_taken(hello(fleet.port, certificate_of(fleet, tmp_path, own, device, 1)))
    none = ssl.create_default_context(cafile=str(fleet.folder / "ca" / "ca.crt"))
    assert not is_taken(hello(fleet.port, none))
    stranger = DevCa.open(tmp_path / "stranger")
    assert not is_taken(hello(fleet.port, certificate_of(fleet, tmp_path, stranger, device, 1)))
    assert not is_taken(hello(fleet.port, certificate_of(fleet, tmp_path, own, device, 0)))


@pytest.mark.req("R-FLEET-29")
@pytest.mark.fault("T43")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused_by_the_broker_and_by_https(fleet, tmp_path, version):
    identity = fleet.enrol(tmp_path)
    for port in (fleet.port, fleet.https):
        context = fleet.context(identity)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.req("R-FLEET-29")
@pytest.mark.fault("T43")
@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-NULL-SHA"])
def test_a_suite_without_authenticated_encryption_is_refused_by_the_broker_and_by_https(fleet, tmp_path, suite):
    identity = fleet.enrol(tmp_path)
    for port in (fleet.port, fleet.https):
        context = fleet.context(identity)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.req("R-FLEET-29")
def test_a_box_comes_through_websocket_too(fleet, tmp_path):
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    identity = fleet.enrol(tmp_path)
    wss = next(one for one in identity.enrolment.brokers if one.kind == "wss")
    there = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, transport="websockets")
    client.tls_set_context(fleet.context(identity))
    client.on_connect = lambda _c, _u, _f, reason, _p: there.set() if not reason.is_failure else None
    client.connect(wss.host, wss.port)
    client.loop_start()
    assert there.wait(30)
    client.disconnect()
    client.loop_stop()


# Going out, coming back ----------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-25")
@pytest.mark.fault("T43")
def test_a_disabled_box_is_thrown_off_the_line_and_cannot_connect_until_it_is_enabled(
    fleet, connect, tmp_path, wait_until
):
    identity, bystander = fleet.enrol(tmp_path), fleet.enrol(tmp_path)
    device = identity.enrolment.device
    client, other = connect(identity), connect(bystander)
    fleet.call("device", "disable", device, "--why", "stolen")
    wait_until(lambda: client.ended, what="the box is off the line")
    assert not is_taken(hello(fleet.port, fleet.context(identity), device))
    assert is_taken(hello(fleet.port, fleet.context(bystander), bystander.enrolment.device)) or other.ended == []
    with pytest.raises(EnrolError, match="not in the fleet"):
        present(identity)
    fleet.call("device", "enable", device, "--why", "found")
    wait_until(lambda: is_taken(hello(fleet.port, fleet.context(identity), device)), what="the box is back")


@pytest.mark.req("R-FLEET-25")
def test_a_replaced_box_is_heard_no_more_and_its_history_stays(fleet, connect, tmp_path, wait_until):
    old, new = fleet.enrol(tmp_path), fleet.enrol(tmp_path)
    before, after = old.enrolment.device, new.enrolment.device
    client = connect(old)
    client.say(paper(old).batch()[0])
    wait_until(lambda: fleet.row(t.record, t.record.c.device == before))
    fleet.call("device", "replace", before, after)
    wait_until(lambda: client.ended, what="the old box is off the line")
    assert not is_taken(hello(fleet.port, fleet.context(old), before))
    assert is_taken(hello(fleet.port, fleet.context(new), after))
    assert fleet.row(t.device, t.device.c.id == before).replaced_by == after
    assert fleet.row(t.record, t.record.c.device == before) is not None


@pytest.mark.req("R-FLEET-22")
def test_a_renewed_certificate_is_on_trial_until_it_speaks_and_then_the_old_one_is_refused(
    fleet, connect, tmp_path, wait_until
):
    identity = fleet.enrol(tmp_path)
    box, folder = paper(identity), identity.folder
    client = connect(identity)
    client.say(box.batch()[0])
    wait_until(lambda: fleet.row(t.certificate, t.certificate.c.device == box.device).state == "current")
    keep = tmp_path / "keep"
    shutil.copytree(folder, keep)
    stage = RenewStage(folder, SystemClock())
    stage.step()
    assert not (folder / "next").exists()  # not due
    stage.ask()
    stage.step()
    renewed = Identity.load(folder)
    assert renewed.is_on_trial
    second = connect(renewed)
    renewed.prove()
    box.key = renewed.key
    second.say(box.batch()[0])
    wait_until(lambda: not is_taken(hello(fleet.port, fleet.context(Identity.load(keep)))), what="the old one refused")
    states = {row.state for row in rows(fleet, t.certificate.c.device == box.device)}
    assert states == {"current", "superseded"}
    assert is_taken(hello(fleet.port, fleet.context(Identity.load(folder)), "x"))


def rows(fleet, where):
    with read(fleet.engine) as connection:
        return list(connection.execute(select(t.certificate).where(where)))


@pytest.mark.req("R-FLEET-23")
def test_a_job_of_the_command_line_is_with_the_box_in_a_moment_and_in_its_name(fleet, connect, tmp_path, wait_until):
    identity = fleet.enrol(tmp_path)
    box = paper(identity)
    topic = identity.address.topic(Down.JOB)
    client = connect(identity, listen=[topic])
    client.say(box.birth(), retain=True)
    client.say(box.get())
    wait_until(lambda: fleet.row(t.status, t.status.c.device == box.device))
    made = json.loads(fleet.call("job", "make", box.device, "ping", "--json"))
    message = client.inbox.get(timeout=30)
    job = Job.unpack(verify(message.payload, JOB_TYPE, identity.online).payload)
    assert (job.id, job.aud, job.op, message.retain) == (made["id"], box.device, Op.PING, False)
    second = json.loads(fleet.call("job", "make", box.device, "self_test", "--json"))
    client.say(box.get(ctr=1))  # as on a connect: it has the first
    assert (
        Job.unpack(verify(client.inbox.get(timeout=30).payload, JOB_TYPE, identity.online).payload).id == second["id"]
    )


@pytest.mark.req("R-FLEET-83")
def test_logs_that_are_asked_for_come_up_by_https_and_are_taken_at_the_command_line(
    fleet, connect, tmp_path, wait_until
):
    identity = fleet.enrol(tmp_path)
    box = paper(identity)
    client = connect(identity, listen=[identity.address.topic(Down.JOB)])
    client.say(box.birth(), retain=True)
    client.say(box.get())
    wait_until(lambda: fleet.row(t.status, t.status.c.device == box.device))
    made = json.loads(fleet.call("job", "make", box.device, "collect_logs", "--json"))
    job = Job.unpack(verify(client.inbox.get(timeout=30).payload, JOB_TYPE, identity.online).payload)
    tail = LogTail()
    tail.emit(logging.LogRecord("appliance.test", logging.INFO, "x.py", 1, "an event of the box", (), None))
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as bundle:
        bundle.writestr("manifest.json", "{}")
    size = send_logs(identity.folder, empty.getvalue, tail, None, job.args.upload)
    assert job.args.upload not in fleet.call("job", "list", "--json")
    (listed,) = json.loads(fleet.call("job", "logs", box.device, "--json"))["logs"]
    assert (listed["job"], listed["size"]) == (made["id"], size)
    out = tmp_path / "logs.zip"
    fleet.call("job", "logs", box.device, "--out", str(out))
    with zipfile.ZipFile(out) as taken:
        assert b"an event of the box" in taken.read("log.jsonl")
    with pytest.raises(ActRefused, match="no such token"):
        send_logs(identity.folder, empty.getvalue, tail, None, "0" * 32)


@pytest.mark.req("R-FLEET-86")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_ingest_that_dies_is_begun_anew_and_what_boxes_send_again_is_kept(
    fleet, connect, tmp_path, wait_until, monkeypatch, caplog
):
    identity = fleet.enrol(tmp_path)
    box = paper(identity)
    client = connect(identity, listen=[box.ack_topic])
    dead = fleet.server.worker

    def die(*_):
        raise SystemExit  # as what no stage outlives; a thread ends by it without a word

    monkeypatch.setattr(dead, "_commit", die)
    batch, _ = box.batch()
    client.say(batch)
    wait_until(lambda: fleet.server.worker is not dead, what="another ingest")
    wait_until(fleet.server.worker.line.stands.is_set, what="it listens")
    assert client.inbox.empty()  # so a box sends it again
    client.say(batch)
    assert client.inbox.get(timeout=30).topic == box.ack_topic
    assert fleet.row(t.record, t.record.c.device == box.device)
    assert "the ingest is DEAD" in caplog.text
    assert fleet.server.figures.get_sample_value("scanside_fleet_ingest_alive") == 1
    assert fleet.server.figures.get_sample_value("scanside_fleet_ingest_restarts_total") == 1


@pytest.mark.req("R-TUF-01", "R-TUF-05")
def test_a_box_fetches_a_model_from_the_running_server_by_its_pinned_authority_and_the_keys_of_its_enrolment(
    fleet, tmp_path
):
    key, maker = tmp_path / "wang.key", generate("maker")
    fleet.plain("key", "new", str(key))
    fleet.call("key", "add", f"{key}.pub", "--name", "Wang")
    identity = fleet.enrol(tmp_path)
    fleet.call("model", "init", "--key", str(key))
    (tmp_path / "maker.pub").write_text(package_kit.make_signed_package(tmp_path / "package", maker).pem())
    words = ("model", "add", str(tmp_path / "package"), "--maker", str(tmp_path / "maker.pub"), "--key", str(key))
    told = json.loads(fleet.call(*words, "--json"))
    url, context = identity.enrolment.server_url, ssl.create_default_context(cafile=str(identity.ca_path))
    fetcher = HttpsFetcher(context)
    root = b"".join(fetcher.fetch(f"{url}/v1/tuf/metadata/root.json"))
    signers = {signature["keyid"] for signature in json.loads(root)["signatures"]}
    assert signers == {tuf_key(one).keyid for one in identity.release}
    (tmp_path / "targets").mkdir()
    updater = Updater(
        str(tmp_path / "metadata"),
        f"{url}/v1/tuf/metadata",
        str(tmp_path / "targets"),
        f"{url}/v1/tuf/targets",
        fetcher=fetcher,
        bootstrap=root,
    )
    got = Path(updater.download_target(updater.get_targetinfo(told["target"])))
    assert load_package(unpack(got, tmp_path / "got"), keys=[maker.public]).digest == told["digest"]
    trust = Path(updater.download_target(updater.get_targetinfo("trust.json")))
    assert Trust.model_validate_json(trust.read_bytes()) == identity.trust


@pytest.mark.req("R-FLEET-29")
def test_a_broker_that_is_killed_comes_back_and_nobody_is_forgotten(fleet, connect, tmp_path, wait_until):
    identity = fleet.enrol(tmp_path)
    gone = fleet.enrol(tmp_path)
    fleet.call("device", "disable", gone.enrolment.device, "--why", "test")
    wait_until(lambda: not is_taken(hello(fleet.port, fleet.context(gone))))
    before, line = fleet.server.broker.pid, fleet.server.worker.line
    connects = line.connects
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: fleet.server.broker.pid not in (None, before), what="mosquitto runs again")
    wait_until(lambda: is_up(fleet.port), what="it listens")
    # On another line: of the one that was lost it may not know yet.
    wait_until(lambda: line.connects > connects and line.stands.is_set(), what="the ingest is back")
    box = paper(identity)
    client = connect(identity, listen=[box.ack_topic])
    client.say(box.batch()[0])
    assert client.inbox.get(timeout=30).topic == box.ack_topic
    assert not is_taken(hello(fleet.port, fleet.context(gone)))


def is_up(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.req("R-FLEET-28")
def test_a_folder_has_one_server(fleet):
    with pytest.raises(ConfigError, match="runs in this folder already"):
        FleetServer(fleet.config).run()


# As a program --------------------------------------------------------------------------------------------------------


@pytest.fixture
def program():
    """``program(folder)``: ``scanside-fleet up`` as a process, and what it said when it was ready."""
    folders, processes = [], []

    def start(folder=None, broken=""):
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="scanside-fleet-"))
            folders.append(folder)
            text = f"folder: {folder}\nbroker: {{port: 0}}\nhttps: {{port: 0}}\nconsole: {{port: 0}}\nmetrics_port: 0\n"
            (folder / "fleet.yaml").write_text(text)
        code = f"{broken}\nfrom appliance.fleet.server.cli import main; main()"
        words = [sys.executable, "-c", code, "up", "--ready-json", "--config", str(folder / "fleet.yaml")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        return process, json.loads(process.stdout.readline()), folder

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
@pytest.mark.req("R-FLEET-86")
def test_a_server_whose_ingest_dies_again_and_again_ends_so_that_its_unit_starts_it(program):
    broken = """
import time
from appliance.fleet.server import ingest_watch, mqtt
ingest_watch._FIRST_S = 0.01
def die(self):
    raise SystemExit
mqtt.IngestWorker._gather = die
"""
    process, told, _ = program(broken=broken)
    assert process.wait(120) == 1  # the unit: Restart=on-failure, and 78 alone is left at that
    assert has_ended(told["broker_pid"])


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.long
@pytest.mark.req("R-FLEET-28")
def test_ctrl_c_ends_all_of_it_and_a_kill_leaves_no_broker_behind_and_the_next_start_finds_everything(
    program, wait_until
):
    process, told, folder = program()
    assert told["is_development_ca"]
    assert not has_ended(told["broker_pid"])
    with socket.create_connection(("127.0.0.1", int(told["metrics"].rpartition(":")[2].partition("/")[0]))) as line:
        line.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        figures = b"".join(iter(lambda: line.recv(65536), b""))
    assert b"scanside_fleet_records" in figures
    root = (folder / "ca" / "ca.crt").read_bytes()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    assert has_ended(told["broker_pid"])
    engine = open_engine(f"sqlite:///{folder / 'fleet.db'}")
    with write(engine) as connection:
        now = SystemClock().now()
        registry.add_tenant(connection, HOSPITAL, "Hospital", registry.TenantKind.HOSPITAL, parent=None, now=now)
        registry.add_site(connection, SITE, HOSPITAL, "Radiology", now=now)
        registry.add_device(connection, "box-0000001", SITE, "SN-1", now=now)
    process, told, _ = program(folder)
    assert (folder / "ca" / "ca.crt").read_bytes() == root
    with read(engine) as connection:
        counters = connection.execute(select(t.device_counter)).one()
    engine.dispose()
    assert min(counters.ctr, counters.dv) > 0, "else one that was restored gives boxes numbers that they have had"
    process.kill()
    process.wait()
    if shutil.which("setpriv"):
        wait_until(lambda: has_ended(told["broker_pid"]), what="the kernel ended the broker")
    process, told, _ = program(folder)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_private_files_are_their_owners_alone(fleet):
    for path in fleet.folder.rglob("*"):
        if path.is_file() and path.name not in {"up.lock", "fleet.yaml"}:
            assert path.stat().st_mode & 0o077 == 0, path
    found = x509.load_pem_x509_certificate((fleet.folder / "tls" / "server.crt").read_bytes())
    assert "DEVELOPMENT" in found.issuer.rfc4514_string()
    assert time.time() < found.not_valid_after_utc.timestamp()
    assert Up.REC
