"""Which messages are heard: of a box that is enrolled, under its own topic, signed by its key, and whole.

Nothing here changes a row. Whatever does not hold is a ``Refusal``, never an error: these are foreign bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import BaseModel
from sqlalchemy import Connection, select

from appliance.fleet.keys import KeyFault, holds, public_of
from appliance.fleet.server import tables as t
from appliance.fleet.server.materialise import hour_of
from appliance.fleet.server.registry import CertificateState, DeviceState
from appliance.fleet.wire import (
    MAX_PACKED_BYTES,
    SIGNED,
    Address,
    Batch,
    Get,
    Reported,
    Status,
    Up,
    WireError,
    inflate,
    parse_topic,
    unpack,
)
from appliance.fleet.wire_records import Health, ResultsHour
from appliance.records import Word

#: What this version reads: the user property ``schema``, up to its minor number.
_SCHEMAS = {Up.STATUS: "status/1", Up.HEALTH: "health/1", Up.REC: "rec/1", Up.TWIN: "twin/1", Up.GET: "get/1"}
_DOCUMENTS: dict[Up, type[BaseModel]] = {
    Up.STATUS: Status,
    Up.HEALTH: Health,
    Up.REC: Batch,
    Up.TWIN: Reported,
    Up.GET: Get,
}
#: A whole number of 19 digits and more stands in no column of 64 bits; nobody means one.
_HUGE = re.compile(rb"[:\[,]\s*-?\d{19}")
_MOST_KEYS = 50_000


class Refusal(Word):
    """Why something was not taken. ``old_stream``: a copy of the box, or of its disk, still speaks."""

    TOPIC = "topic"
    TOO_LARGE = "too_large"
    SCHEMA = "schema"
    CONTENT = "content"
    RETAINED = "retained"
    UNKNOWN_DEVICE = "unknown_device"
    DISABLED = "disabled"
    WRONG_TENANT = "wrong_tenant"
    WRONG_STREAM = "wrong_stream"
    OLD_STREAM = "old_stream"
    SIGNATURE = "signature"
    COUNTER = "counter"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Uplink:
    """An MQTT message from a box.

    Attributes:
        properties: MQTT's user properties: ``schema``, ``ce``, ``sig``.
        retained: The broker had kept it from before.
    """

    topic: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message that is heard.

    Attributes:
        document: Status, Health, Batch, Reported or Get, as ``name`` says.
        trial: Fingerprint of the certificate on trial that it proves to work.
    """

    address: Address
    name: Up
    message: Uplink
    document: Any
    trial: str | None = None


class RefusedError(Exception):
    """This message is not taken; ``device`` is who it says it is from."""

    def __init__(self, reason: Refusal, device: str = "") -> None:
        """Refuse."""
        super().__init__(reason)
        self.reason = reason
        self.device = device


class Admission:
    """The boxes of one group of messages, as the registry knows them.

    Attributes:
        devices: By id: tenant, state, sess and stream of its status, ``every_s`` of its heartbeats.
    """

    def __init__(
        self, connection: Connection, keys: dict[str, EllipticCurvePublicKey], messages: Sequence[Uplink]
    ) -> None:
        """Look up who they say they are from.

        Args:
            connection: Of ``db.write`` or ``db.read``.
            keys: Public keys by fingerprint, which are remembered from group to group.
            messages: Foreign.
        """
        self._connection = connection
        self._keys = keys
        self.devices: dict[str, Any] = {}
        self._certificates: dict[str, list[Any]] = {}
        ids = {device for message in messages if (device := _named(message.topic))}
        if ids:
            self._look_up(ids)

    def admit(self, message: Uplink) -> Admitted:
        """Hear it.

        Raises:
            RefusedError: Or not.
        """
        try:
            address, name = parse_topic(message.topic)
        except WireError:
            raise RefusedError(Refusal.TOPIC) from None
        if not isinstance(name, Up):
            raise RefusedError(Refusal.TOPIC)
        device = address.device
        known = self.devices.get(device)
        if known is None:
            raise RefusedError(Refusal.UNKNOWN_DEVICE)
        if known.state != DeviceState.ENROLLED:
            raise RefusedError(Refusal.DISABLED, device)
        if known.tenant != address.tenant:
            raise RefusedError(Refusal.WRONG_TENANT, device)
        if message.retained and name is not Up.STATUS:
            raise RefusedError(Refusal.RETAINED, device)
        if len(message.payload) > MAX_PACKED_BYTES:
            raise RefusedError(Refusal.TOO_LARGE, device)
        schema = message.properties.get("schema", _SCHEMAS[name])
        if schema.split(".", 1)[0] != _SCHEMAS[name] or message.properties.get("ce", "gzip") != "gzip":
            raise RefusedError(Refusal.SCHEMA, device)
        trial = self._check_signature(device, name, message)
        try:
            document = _document(name, message)
        except WireError:
            raise RefusedError(Refusal.CONTENT, device) from None
        # Of one session there is one database.
        if name is Up.REC and known.stream and document.sess == known.sess and document.stream != known.stream:
            raise RefusedError(Refusal.WRONG_STREAM, device)
        return Admitted(address, name, message, document, trial)

    def _check_signature(self, device: str, name: Up, message: Uplink) -> str | None:
        """What is ``SIGNED`` is; whatever else is signed must be so by the box."""
        signature = message.properties.get("sig")
        if signature is None and name not in SIGNED:
            return None
        for row in self._certificates.get(device, []):
            key = self._keys.get(row.fingerprint)
            if key is not None and holds(key, message.topic, message.payload, signature or ""):
                return row.fingerprint if row.state == CertificateState.TRIAL else None
        raise RefusedError(Refusal.SIGNATURE, device)

    def _look_up(self, ids: set[str]) -> None:
        every_s = t.twin.c.desired["health_every_s"].as_integer().label("every_s")
        asked = (
            select(t.device.c.id, t.device.c.tenant, t.device.c.state, t.status.c.sess, t.status.c.stream, every_s)
            .outerjoin(t.status, t.status.c.device == t.device.c.id)
            .outerjoin(t.twin, t.twin.c.device == t.device.c.id)
            .where(t.device.c.id.in_(ids))
        )
        self.devices = {row.id: row for row in self._connection.execute(asked)}
        c = t.certificate.c
        valid = select(c.fingerprint, c.device, c.state).where(
            c.device.in_(ids), c.state != str(CertificateState.REVOKED)
        )
        rows = self._connection.execute(valid.order_by(c.made_at.desc())).all()
        for row in rows:
            self._certificates.setdefault(row.device, []).append(row)
        self._learn({row.fingerprint for row in rows} - self._keys.keys())

    def _learn(self, fingerprints: set[str]) -> None:
        if not fingerprints:
            return
        if len(self._keys) + len(fingerprints) > _MOST_KEYS:
            self._keys.clear()
        c = t.certificate.c
        for row in self._connection.execute(select(c.fingerprint, c.pem).where(c.fingerprint.in_(fingerprints))):
            try:
                self._keys[row.fingerprint] = public_of(row.pem.encode())
            except KeyFault:  # it opens nothing
                continue


def _named(topic: str) -> str | None:
    try:
        return parse_topic(topic)[0].device
    except WireError:
        return None


def _document(name: Up, message: Uplink) -> Any:
    data = inflate(message.payload) if "ce" in message.properties else message.payload
    if _HUGE.search(data):
        raise WireError("a number that has no meaning")
    document = unpack(_DOCUMENTS[name], data)
    if isinstance(document, Batch):
        for record in document.recs:
            if isinstance(record.d, ResultsHour):
                hour_of(record.d)
    return document
