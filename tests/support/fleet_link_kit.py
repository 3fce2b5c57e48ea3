"""The fleet link's surroundings: an enrolled box, a network that a test plays, a proxy. Real brokers: ``fleet_kit``."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import itertools
import socket
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from types import SimpleNamespace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.fleet.device.identity import Broker, Enrolment, Identity, Trust
from appliance.fleet.device.transport import Arrived, Connected, Disconnected, Published
from appliance.fleet.keys import DeviceKey
from appliance.fleet.wire import ACK_TYPE, Ack, Batch, Desired, Down, Up, inflate, parse_topic
from appliance.fleet.wire_records import Health, Machine, Record
from appliance.store.database import Database
from appliance.store.facts import Kind
from appliance.store.fleet import FleetRows
from appliance.store.issues import Issues
from appliance.store.journal import Journal
from engines import signing

TENANT, DEVICE = "tenant-0001", "box-00000001"
_NOW = dt.datetime.now(dt.timezone.utc)
_DAY = dt.timedelta(days=1)
PEM = serialization.Encoding.PEM
BROKERS = (Broker(host="localhost"),)


class Authority:
    """A CA on P-256, in memory."""

    def __init__(self, name="fleet-test-ca"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._builder(self.name, self.key.public_key(), days=(-1, 30))
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = built.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    def _builder(self, subject, public, *, days):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW + days[0] * _DAY)
            .not_valid_after(_NOW + days[1] * _DAY)
        )

    def certify(self, csr_pem, days=(-1, 90)):
        """The chain for a request of a device."""
        csr = x509.load_pem_x509_csr(csr_pem)
        built = self._builder(csr.subject, csr.public_key(), days=days)
        return built.sign(self.key, hashes.SHA256()).public_bytes(PEM)


def enrol(folder, authority, online, brokers=BROKERS, *, device=DEVICE, tenant=TENANT):
    """An enrolled box whose server signs with ``online``."""
    key = DeviceKey.generate()
    chain = authority.certify(key.csr(device))
    return enrol_with(folder, key, chain, authority.pem, online, brokers, device=device, tenant=tenant)


def enrol_with(folder, key, chain, ca, online, brokers, *, device=DEVICE, tenant=TENANT):
    """An enrolled box of this key."""
    enrolment = Enrolment(tenant=tenant, device=device, server_url="https://localhost:8443", brokers=tuple(brokers))
    trust = Trust(online=(online.public.pem(),))
    return Identity.save(folder, enrolment, trust, key=key, chain=chain, ca=ca)


def rows_only(folder, clock):
    """The parts of a store that the link touches, without a spool: a property test makes hundreds."""
    db = Database(folder / "scanside.db", clock)
    return SimpleNamespace(db=db, journal=Journal(db), fleet=FleetRows(db), issues=Issues(db), close=db.close)


class FakeContents:
    """Roll-ups, issues and job steps leave; images do not."""

    kinds = (Kind.FLEET_TOLD, Kind.ISSUE_RAISED, Kind.ISSUE_CLEARED)

    def __init__(self, mode="evaluation"):
        self.mode = mode
        self.bad = set()

    def record(self, fact):
        if fact.seq in self.bad:
            raise ValueError("does not fit")
        if fact.kind is not Kind.FLEET_TOLD:
            return None
        at = dt.datetime.fromisoformat(fact.at.replace("Z", "+00:00"))
        ms = int(at.timestamp() * 1000)
        return Record(seq=fact.seq, ts=ms, boot="", mono=fact.mono_ms, clk="ntp", d=fact.body["record"])

    def health(self, sess):
        return Health(
            ts=0, boot="", mono=0, clk="ntp", sess=sess, agent="1", mode="evaluation", ai="ready", machine=Machine()
        )

    def clk(self):
        return "ntp"


class FakeInbox:
    """Keeps what came."""

    def __init__(self, **desired):
        self.dv = self.ctr = 0
        self.jobs, self.twins = [], []
        self.report = None
        self.document = Desired(**desired)

    def take_job(self, envelope):
        self.jobs.append(envelope)

    def take_twin(self, envelope):
        self.twins.append(envelope)

    def reported(self):
        return self.report

    def desired(self):
        return self.document


@dataclass
class Said:
    """One publication."""

    token: int
    topic: str
    payload: bytes
    retain: bool
    expiry_s: int | None
    properties: dict

    @property
    def name(self):
        return parse_topic(self.topic)[1]


class FakeTransport:
    """A connection of which a test decides everything."""

    def __init__(self, identity, broker, ring):
        self.identity, self.broker, self.ring = identity, broker, ring
        self.events = SimpleQueue()
        self.said, self.will, self.listen = [], None, None
        self.closed = None
        self._tokens = itertools.count(1)

    def connect(self, will, listen):
        self.will, self.listen = will, listen

    def publish(self, topic, payload, *, retain=False, expiry_s=None, properties=None):
        said = Said(next(self._tokens), topic, payload, retain, expiry_s, dict(properties or {}))
        self.said.append(said)
        return said.token

    def close(self, *, politely=True):
        if self.closed is None:
            self.closed = politely
            self.events.put(Disconnected("closed"))

    def join(self, timeout_s):
        pass

    def of(self, name):
        return [said for said in self.said if said.name is name]

    def batches(self):
        return [batch_of(said) for said in self.of(Up.REC)]

    def up(self, *, session_present=False, receive_max=20):
        self.events.put(Connected(session_present=session_present, receive_max=receive_max))

    def answer(self, *, failed=None):
        """PUBACK for all that was said and not yet answered."""
        for said in self.said:
            if said.token:
                self.events.put(Published(said.token, failed))
                said.token = 0


class FakeNet:
    """Opens fake connections."""

    def __init__(self):
        self.lines = []

    def __call__(self, identity, broker, ring):
        self.lines.append(FakeTransport(identity, broker, ring))
        return self.lines[-1]

    @property
    def line(self):
        return self.lines[-1]


def batch_of(said):
    payload = inflate(said.payload) if said.properties.get("ce") == "gzip" else said.payload
    return Batch.unpack(payload)


def ack_bytes(key, stream, batches, *, device=DEVICE, st=1, **more):
    """A signed acknowledgement."""
    ack = Ack(aud=device, stream=stream, b=tuple(batches), st=st, **more)
    return signing.sign(ACK_TYPE, ack.model_dump_json(exclude_none=True).encode(), [key])


def ack_event(identity, key, stream, batches, **more):
    return Arrived(identity.address.topic(Down.ACK), ack_bytes(key, stream, batches, **more), {})


# On the way to a real broker ------------------------------------------------------------------------------------------


class ConnectProxy:
    """A small HTTP proxy that tunnels (CONNECT), or says no."""

    def __init__(self, *, refuse="", credentials=None):
        self.asked = []
        self._refuse, self._credentials = refuse, credentials
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, line):
        with line, contextlib.suppress(OSError):
            line.settimeout(60)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += line.recv(4096)
            head = asked.decode().split("\r\n")
            self.asked.append(head)
            want = f"Basic {base64.b64encode((self._credentials or '').encode()).decode()}"
            if self._credentials and f"Proxy-Authorization: {want}" not in head:
                line.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if self._refuse:
                line.sendall(self._refuse.encode())
                return
            host, _, port = head[0].split(" ")[1].rpartition(":")
            with socket.create_connection((host, int(port)), 60) as out:
                line.sendall(b"HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n")
                back = threading.Thread(target=_pump, args=(out, line), daemon=True)
                back.start()
                _pump(line, out)
                back.join(20)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        source.shutdown(socket.SHUT_RDWR)
