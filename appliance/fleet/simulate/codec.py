"""As much of MQTT 5 (OASIS, 2019) as a box needs, without a socket: packets, and pure functions that write them.

A client library costs a thread for each connection; ten thousand boxes in one process need none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appliance.errors import ApplianceError

#: A packet that says to be longer is none of ours.
MAX_PACKET_BYTES = 256 * 1024 + 8192
PING = b"\xc0\x00"
_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _DISCONNECT = 1, 3, 4, 8, 14

# Properties (§2.2.2.2).
EXPIRY, CONTENT_TYPE, _SESSION_EXPIRY, _WILL_DELAY = 0x02, 0x03, 0x11, 0x18
RECEIVE_MAX, _MAX_PACKET, USER = 0x21, 0x27, 0x26


class CodecError(ApplianceError):
    """Bytes that are no packet a broker sends; the connection is to be closed."""


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH (§3.3), either way.

    Attributes:
        mid: 0 where QoS is 0.
        user: User properties.
        expiry_s: Message expiry; None = never.
    """

    topic: str
    payload: bytes
    qos: int = 1
    mid: int = 0
    retain: bool = False
    duplicate: bool = False
    expiry_s: int | None = None
    content_type: str = ""
    user: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connack:
    """CONNACK (§3.2). ``reason`` 0x80 and above is a refusal."""

    session_present: bool
    reason: int
    receive_max: int = 65_535


@dataclass(frozen=True, slots=True)
class Puback:
    """PUBACK (§3.4). ``reason`` 0x80 and above is a refusal."""

    mid: int
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Suback:
    """SUBACK (§3.9)."""

    mid: int
    reasons: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pong:
    """PINGRESP (§3.13)."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """DISCONNECT (§3.14), from the broker. 0x8E: another client has taken our name."""

    reason: int = 0


Packet = Publish | Connack | Puback | Suback | Pong | Disconnect


def connect(
    client_id: str, *, keepalive_s: int, session_expiry_s: int, receive_max: int, will: Publish, will_delay_s: int
) -> bytes:
    """CONNECT (§3.1) with a last will, on the session that there was."""
    properties = struct.pack(">BIBH", _SESSION_EXPIRY, session_expiry_s, RECEIVE_MAX, receive_max)
    properties += struct.pack(">BI", _MAX_PACKET, 256 * 1024)
    flags = 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    of_will = struct.pack(">BI", _WILL_DELAY, will_delay_s) + _properties_of(will)
    body = _text("MQTT") + struct.pack(">BBH", 5, flags, keepalive_s) + _sized(properties) + _text(client_id)
    body += _sized(of_will) + _text(will.topic) + _binary(will.payload)
    return _packet(_CONNECT << 4, body)


def publish(message: Publish) -> bytes:
    """PUBLISH."""
    first = _PUBLISH << 4 | message.duplicate << 3 | message.qos << 1 | message.retain
    mid = struct.pack(">H", message.mid) if message.qos else b""
    return _packet(first, _text(message.topic) + mid + _sized(_properties_of(message)) + message.payload)


def puback(mid: int) -> bytes:
    """PUBACK: taken."""
    return _packet(_PUBACK << 4, struct.pack(">H", mid))


def subscribe(mid: int, topics: Sequence[str]) -> bytes:
    """SUBSCRIBE (§3.8), QoS 1."""
    return _packet(_SUBSCRIBE << 4 | 2, struct.pack(">HB", mid, 0) + b"".join(_text(one) + b"\x01" for one in topics))


def disconnect(reason: int = 0) -> bytes:
    """DISCONNECT: without a last will, unless ``reason`` is 4."""
    return _packet(_DISCONNECT << 4, bytes((reason, 0)))


def _properties_of(message: Publish) -> bytes:
    out = b""
    if message.expiry_s is not None:
        out += struct.pack(">BI", EXPIRY, message.expiry_s)
    if message.content_type:
        out += bytes((CONTENT_TYPE,)) + _text(message.content_type)
    return out + b"".join(bytes((USER,)) + _text(name) + _text(value) for name, value in message.user.items())


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _variable(len(body)) + body


def _sized(data: bytes) -> bytes:
    return _variable(len(data)) + data


def _text(text: str) -> bytes:
    return _binary(text.encode("utf-8"))


def _binary(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _variable(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)
