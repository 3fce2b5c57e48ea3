"""The neighbours of the fleet in tests: a CA, a real mosquitto with TLS and ACL, a real PostgreSQL, and boxes of paper.

Sessions share them by the fixtures ``fleet_broker`` and ``fleet_postgres`` (tests/conftest.py).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import logging
import os
import pwd
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy.engine import make_url

from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import registry
from appliance.fleet.server.admit import Uplink
from appliance.fleet.wire import SIGNED, Address, Batch, Down, Get, Reported, Status, Up
from appliance.fleet.wire_records import DaemonChange, Health, Machine, Record
from appliance.ports import held_port

#: The server's name to the broker. No device is called so: its ids have no dot.
SERVER = "fleet.server"
PLATFORM, VENDOR, DEALER, HOSPITAL, SITE = "platform-01", "vendor-001", "dealer-001", "hospital-01", "site-0001"
NOW = dt.datetime(2026, 3, 2, 9, 30, tzinfo=dt.timezone.utc)
_DAY = dt.timedelta(days=1)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(number):
    """A ULID that stands for a number."""
    text = ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        text = _CROCKFORD[digit] + text
    return text


# Certificates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path
    pem: str


class FleetCa:
    """An EC authority; ``path`` is its certificate."""

    def __init__(self, folder, name="Fleet test CA"):
        self.folder = Path(folder)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = self.folder / f"{name.replace(' ', '-')}.pem"
        made = self._builder(self._name, self._key, (-1, 30)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, key, days):
        now = dt.datetime.now(dt.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
        )

    def issue(self, name, *, days=(-1, 5), server=False, key=None, names=("localhost",)):
        """A certificate for ``name``, valid from and to so many days from now. ``key``: a ``DeviceKey`` to certify."""
        private = key._key if key is not None else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, private, days)
        if server:
            here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if "localhost" in names else []
            said = [*map(x509.DNSName, names), *here]
            builder = builder.add_extension(x509.SubjectAlternativeName(said), critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        certificate = self.folder / f"{name}.crt"
        certificate.write_bytes(pem)
        path = self.folder / f"{name}.key"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private.private_bytes(*form))
        return Issued(certificate, path, pem.decode())

    def context(self, issued=None):
        """For a client of TLS; with a certificate of its own where one is given."""
        context = ssl.create_default_context(cafile=str(self.path))
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        return context


# Programs ------------------------------------------------------------------------------------------------------------


def _find(name, folders=()):
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *map(str, folders)))
    return shutil.which(name, path=path)


def _as_nobody(folder):
    """Keyword arguments for ``Popen``: these programs refuse root, or should."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _wait_for_port(port, process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"ended at once: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    pytest.fail(f"nobody listens on port {port}")


_ACL = f"""\
pattern write scanside/v1/+/%u/up/#
pattern read scanside/v1/+/%u/dn/#
pattern read scanside/v1/+/%u/up/status
user {SERVER}
topic read scanside/v1/+/+/up/#
topic write scanside/v1/+/+/dn/#
"""

_CONFIG = """\
listener {tls} 127.0.0.1
cafile {ca}
certfile {certificate}
keyfile {key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder}/acl
persistence true
persistence_location {folder}/
autosave_interval 60
max_inflight_messages 1000
max_queued_messages 100000
max_packet_size 270000
log_dest file {folder}/log
log_type error
log_type warning
log_type notice
"""

_PLAIN = """\
listener {plain} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 100000
log_dest file {folder}/log
"""


class Mosquitto:
    """A real broker on loopback: ``tls`` with certificates and ACL, or ``plain`` with neither, for figures."""

    def __init__(self, *, plain=False, more=""):
        """``more``: settings besides, of any listener or of the broker."""
        program = _find("mosquitto")
        if program is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        self._program = program
        # Not below tmp_path: pytest makes that unreachable for others.
        self.folder = Path(tempfile.mkdtemp(prefix="scanside-broker-"))
        self.ca = FleetCa(self.folder)
        self.is_plain = plain
        self._held = contextlib.ExitStack()
        self.port = held_port(self._held)  # also while it is killed
        mine = self.ca.issue("broker", server=True)
        given = {"folder": self.folder, "ca": self.ca.path, "certificate": mine.certificate, "key": mine.key}
        (self.folder / "acl").write_text(_ACL)
        text = (_PLAIN if plain else _CONFIG).format(tls=self.port, plain=self.port, **given)
        (self.folder / "mosquitto.conf").write_text(text + more.format(**given))
        for name in ("acl", "mosquitto.conf"):
            (self.folder / name).chmod(0o600)
        self.server = self.ca.issue(SERVER)
        self.process = None

    def start(self):
        """Start it, again after ``kill`` with what it had kept; returns itself."""
        who = _as_nobody(self.folder)
        command = [self._program, "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who)
        _wait_for_port(self.port, self.process, self.folder / "log")
        return self

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self):
        """End it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def close(self):
        """End it, and leave nothing."""
        self.stop()
        self._held.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def context(self, issued=None):
        """TLS for a client, None on the plain one."""
        return None if self.is_plain else self.ca.context(issued)

    def client(self, issued, name, **more):
        """A ``TestClient`` that has connected."""
        return TestClient(self, issued, name, **more)


class TestClient:
    """A plain MQTT 5 client: what came is in ``inbox``, answers to publications in ``answers``."""

    __test__ = False

    def __init__(self, broker, issued, name, *, listen=(), will=None, clean=True):
        self.inbox = queue.SimpleQueue()
        self.answers = {}
        self.ended = []
        up = self._up = queue.SimpleQueue()
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        context = broker.context(issued)
        if context is not None:
            self.client.tls_set_context(context)
        if will is not None:
            self.client.will_set(will[0], will[1], qos=1, retain=True)
        self.client.on_connect = lambda _c, _u, _f, reason, _p: up.put(reason)
        self.client.on_message = lambda _c, _u, message: self.inbox.put(message)
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self.answers.__setitem__(mid, reason)
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.ended.append(reason)
        self.client.on_subscribe = lambda *_: up.put("listens")
        self.client.connect("127.0.0.1", broker.port, clean_start=clean)
        self.client.loop_start()
        self.reason = up.get(timeout=30)
        for topic in listen:
            self.listen(topic)

    def listen(self, topic):
        """Subscribe; returns once the broker has taken it."""
        self.client.subscribe(topic, qos=1)
        self._up.get(timeout=30)

    def publish(self, topic, payload, properties=None, *, retain=False, qos=1):
        """Publish; returns the id of ``answers``."""
        told = Properties(PacketTypes.PUBLISH)
        for pair in (properties or {}).items():
            told.UserProperty = pair
        return self.client.publish(topic, payload, qos=qos, retain=retain, properties=told).mid

    def say(self, uplink, **more):
        """Publish what a ``PaperBox`` made."""
        return self.publish(uplink.topic, uplink.payload, uplink.properties, **more)

    def close(self):
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self):
        """Vanish, as a box that lost its power: the broker publishes the last will."""
        self.client._sock.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


#: How a database is made: its tables, indexes and sequences, and their columns.
_SHAPE = (
    "SELECT string_agg(concat(relname, relkind, relnatts), ' ' ORDER BY relname)"
    " FROM pg_class WHERE relnamespace = 'public'::regnamespace"
)
#: How many others have a connection to the database that is asked.
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND datname = current_database() AND pid <> pg_backend_pid()"
)
#: Takes all rows out of it but the number of its schema, whatever refers to them, and begins its sequences anew.
_EMPTY = """\
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', name);
    END LOOP;
END $$;
"""


class Postgres:
    """A real PostgreSQL in a folder of its own; ``fresh`` makes databases."""

    def __init__(self):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        initdb, server = (_find(name, found) for name in ("initdb", "postgres"))
        if initdb is None or server is None:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        self.folder = Path(tempfile.mkdtemp(prefix="scanside-postgres-"))
        who = {**_as_nobody(self.folder), "cwd": self.folder}
        data, log = self.folder / "data", self.folder / "log"
        made = subprocess.run(
            [initdb, "-D", data, "-U", "scanside", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            check=False,
            **who,
        )
        if made.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            pytest.skip(f"initdb: {made.stderr.decode(errors='replace')[-300:]}")
        # By a socket in its folder: a port that was free a moment ago may be somebody else's by now.
        command = [server, "-D", data, "-h", "", "-k", self.folder, "-F"]

        def begin():
            with log.open("ab") as stream:
                # In a session of its own: what is meant for a group of processes is not meant for it.
                return subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, **who)

        self._begin, self.process = begin, begin()
        self._made = 0
        self._free, self._shapes = [], {}
        with self.admin() as connection:
            connection.execute("SELECT 1")

    def admin(self, name="postgres"):
        """A connection that may make databases."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(f"postgresql://scanside@/{name}?host={self.folder}", autocommit=True)
            except psycopg.OperationalError:  # it listens before it is ready
                if time.monotonic() > deadline:
                    raise
                if self.process.poll() is not None:  # a machine without memory ends what is large; its files are whole
                    logging.getLogger(__name__).warning("PostgreSQL ended: %d; it begins anew", self.process.returncode)
                    self.process = self._begin()
                time.sleep(0.05)

    def fresh(self, template="template0"):
        """The URL of a new database."""
        self._made += 1
        name = f"fleet_{self._made}"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://scanside@/{name}?host={self.folder}"

    @contextlib.contextmanager
    def lent(self, template):
        """The URL of a database without a row, shaped as ``template`` is: where there is one, that of an earlier test.

        To make one takes thirty times as long as to empty one, and in the end each is 10 MB to remove.
        """
        url = next((url for url in self._free if self._empty(url, template)), None)
        if url is None:
            url = self.fresh(template)
            with self.admin(make_url(url).database) as connection:
                self._shapes[template] = connection.execute(_SHAPE).fetchone()
        else:
            self._free.remove(url)
        yield url
        self._free.append(url)

    def _empty(self, url, template):
        """Take all rows out of a database; False where a test left somebody who uses it, or another shape."""
        with self.admin(make_url(url).database) as connection:
            shape = connection.execute(_SHAPE).fetchone()
            if connection.execute(_OTHERS).fetchone() != (0,) or shape != self._shapes[template]:
                return False
            connection.execute(_EMPTY)
            return True

    def close(self):
        """End it, and leave nothing."""
        self.process.send_signal(signal.SIGINT)  # its fast shutdown: it still writes what all tests left in memory
        self.process.wait(120)
        shutil.rmtree(self.folder, ignore_errors=True)


# Boxes ---------------------------------------------------------------------------------------------------------------


@dataclass
class PaperBox:
    """What a box would say, signed by its key, without a box."""

    device: str
    tenant: str = HOSPITAL
    stream: str = ulid(1)
    sess: int = 1
    key: DeviceKey = field(default_factory=DeviceKey.generate)
    seq: int = 0
    batches: int = 0

    def topic(self, name):
        return Address(self.tenant, self.device).topic(name)

    @property
    def ack_topic(self):
        return self.topic(Down.ACK)

    def record(self, told=None, *, seq=None, at=NOW, clk="ntp"):
        """A row of its journal; the next one, unless told."""
        self.seq = self.seq + 1 if seq is None else seq
        told = told or DaemonChange(state="started")
        return Record(seq=self.seq, ts=int(at.timestamp() * 1000), boot="b0", mono=self.seq, clk=clk, d=told)

    def batch(self, *records, batch=None, **changes):
        """``up/rec``, and the id of the batch."""
        self.batches += 1
        ident = batch or ulid(self.batches)
        given = {"batch": ident, "stream": self.stream, "sess": self.sess, "recs": records or (self.record(),)}
        return self.say(Up.REC, Batch(**{**given, **changes})), ident

    def say(self, name, document, *, signed=None):
        """A document as it goes up; signed where that topic is, or as told."""
        payload, packed = (
            document.pack()
            if hasattr(document, "pack")
            else (document.model_dump_json(exclude_none=True).encode(), False)
        )
        return self.raw(name, payload, packed=packed, signed=name in SIGNED if signed is None else signed)

    def raw(self, name, payload, *, packed=False, signed=True, **properties):
        """Any bytes as it would send them."""
        told = {"schema": f"{name.split('/')[1]}/1", **({"ce": "gzip"} if packed else {})}
        if signed:
            told["sig"] = self.key.sign(self.topic(name), payload)
        return Uplink(self.topic(name), payload, {**told, **properties})

    def birth(self, **changes):
        given = {
            "online": True,
            "sess": self.sess,
            "why": "start",
            "agent": "0.1.0",
            "boot": "b0",
            "stream": self.stream,
        }
        return self.say(Up.STATUS, Status(**{**given, "clk": "ntp", **changes}))

    def will(self, **changes):
        return self.say(Up.STATUS, Status(**{"online": False, "sess": self.sess, "why": "lwt", **changes}))

    def get(self, **changes):
        given = {"sess": self.sess, "stream": self.stream, "dv": 0, "ctr": 0, "seq": 0, "last_seq": self.seq}
        return self.say(Up.GET, Get(**{**given, **changes}))

    def report(self, **changes):
        return self.say(Up.TWIN, Reported(**{"rv": 1, "applied_dv": 0, **changes}))

    def health(self, **changes):
        given = {"ts": 0, "boot": "b0", "mono": 0, "clk": "ntp", "sess": self.sess, "agent": "0.1.0"}
        given |= {"mode": "evaluation", "ai": "ready", "machine": Machine()}
        return self.say(Up.HEALTH, Health(**{**given, **changes}))


def add_tree(connection, now=NOW):
    """Platform, a vendor, a dealer, a hospital with a site: one of each."""
    kinds = registry.TenantKind
    above = None
    for ident, kind in (
        (PLATFORM, kinds.PLATFORM),
        (VENDOR, kinds.VENDOR),
        (DEALER, kinds.DEALER),
        (HOSPITAL, kinds.HOSPITAL),
    ):
        registry.add_tenant(connection, ident, ident.title(), kind, parent=above, now=now)
        above = ident
    registry.add_site(connection, SITE, HOSPITAL, "Radiology", now=now)


def add_box(connection, box, ca, *, site=SITE, now=NOW, **more):
    """Register a ``PaperBox`` with a certificate; returns that as ``Issued``."""
    registry.add_device(connection, box.device, site, f"SN-{box.device}", now=now, **more)
    issued = ca.issue(box.device, key=box.key)
    registry.add_certificate(connection, box.device, issued.pem, now=now)
    return issued
