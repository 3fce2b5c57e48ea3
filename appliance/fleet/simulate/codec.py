"""As much of MQTT 5 (OASIS, 2019) as a box needs, in bytes and without a socket: pure functions and one reader.

A client library costs a thread for each connection; ten thousand boxes in one process need none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from appliance.errors import ApplianceError

#: A packet that says to be longer is none of ours.
MAX_PACKET_BYTES = 256 * 1024 + 8192
PING = b"\xc0\x00"
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PONG, _DISCONNECT = 1, 2, 3, 4, 8, 9, 13, 14

# Properties (§2.2.2.2): identifier -> kind of its value.
_BYTE, _SHORT, _LONG, _VARIABLE, _TEXT, _BINARY, _PAIR = range(7)
_KINDS: Mapping[int, int] = MappingProxyType(
    {
        **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), _BYTE),
        **dict.fromkeys((0x13, 0x21, 0x22, 0x23), _SHORT),
        **dict.fromkeys((0x02, 0x11, 0x18, 0x27), _LONG),
        **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), _TEXT),
        **dict.fromkeys((0x09, 0x16), _BINARY),
        0x0B: _VARIABLE,
        0x26: _PAIR,
    }
)
_EXPIRY, _CONTENT_TYPE, _SESSION_EXPIRY, _WILL_DELAY = 0x02, 0x03, 0x11, 0x18
_RECEIVE_MAX, _MAX_PACKET, _USER = 0x21, 0x27, 0x26


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
    properties = struct.pack(">BIBH", _SESSION_EXPIRY, session_expiry_s, _RECEIVE_MAX, receive_max)
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


class Reader:
    """What a broker sends, in pieces of any size, as packets."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._held = b""

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are whole now.

        Raises:
            CodecError: These bytes are none of MQTT 5, or more than a packet of ours may be.
        """
        held = self._held + data
        found: list[Packet] = []
        at = 0
        while (head := _head(held, at)) is not None:
            begin, length = head
            if len(held) < begin + length:
                break
            found.append(_decode(held[at], held[begin : begin + length]))
            at = begin + length
        self._held = held[at:]
        return found


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at ``at`` begins and how long it is; None while its head is cut off."""
    length, shift = 0, 0
    for place in range(at + 1, at + 5):
        if place >= len(data):
            return None
        length |= (data[place] & 0x7F) << shift
        if length > MAX_PACKET_BYTES:
            raise CodecError("a packet longer than any of this protocol")
        if data[place] < 0x80:
            return place + 1, length
        shift += 7
    raise CodecError("a length of more than four bytes")


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    cursor = _Cursor(body)
    if kind == _PUBLISH:
        return _publish(flags, cursor)
    if flags:
        raise CodecError(f"flags {flags:#x} on a packet of kind {kind}")
    if kind == _CONNACK:
        present, reason = cursor.byte(), cursor.byte()
        given = cursor.properties()
        return Connack(bool(present & 1), reason, int(given.get(_RECEIVE_MAX, 65_535)))
    if kind == _PUBACK:
        mid = cursor.short()
        return Puback(mid, 0 if cursor.is_empty else cursor.byte())
    if kind == _SUBACK:
        mid = cursor.short()
        cursor.properties()
        return Suback(mid, tuple(cursor.rest()))
    if kind == _PONG:
        return Pong()
    if kind == _DISCONNECT:
        return Disconnect(0 if cursor.is_empty else cursor.byte())
    raise CodecError(f"a packet of kind {kind}, which no broker sends to a box")


def _publish(flags: int, cursor: _Cursor) -> Publish:
    qos = flags >> 1 & 3
    if qos > 1:
        raise CodecError("QoS 2, which nobody asked for")
    topic = cursor.text()
    mid = cursor.short() if qos else 0
    given = cursor.properties()
    return Publish(
        topic=topic,
        payload=cursor.rest(),
        qos=qos,
        mid=mid,
        retain=bool(flags & 1),
        duplicate=bool(flags & 8),
        expiry_s=given.get(_EXPIRY),
        content_type=given.get(_CONTENT_TYPE, ""),
        user=dict(given.get(_USER, ())),
    )


class _Cursor:
    """Reads values off a body, and nothing beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, n: int) -> bytes:
        if self._at + n > len(self._data):
            raise CodecError("a packet that is cut off")
        taken = self._data[self._at : self._at + n]
        self._at += n
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def variable(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise CodecError("a number of more than four bytes")

    def text(self) -> str:
        try:
            return self.take(self.short()).decode("utf-8")
        except UnicodeDecodeError:
            raise CodecError("text that is no UTF-8") from None

    def properties(self) -> dict[int, Any]:
        inner = _Cursor(self.take(self.variable()))
        found: dict[int, Any] = {}
        while not inner.is_empty:
            name = inner.variable()
            value = inner.value(_KINDS.get(name))
            if name == _USER:
                found.setdefault(_USER, []).append(value)
            else:
                found[name] = value
        return found

    def value(self, kind: int | None) -> Any:
        if kind == _BYTE:
            return self.byte()
        if kind == _SHORT:
            return self.short()
        if kind == _LONG:
            return int.from_bytes(self.take(4), "big")
        if kind == _VARIABLE:
            return self.variable()
        if kind == _TEXT:
            return self.text()
        if kind == _BINARY:
            return self.take(self.short())
        if kind == _PAIR:
            return self.text(), self.text()
        raise CodecError("a property that MQTT 5 does not have")


def _properties_of(message: Publish) -> bytes:
    out = b""
    if message.expiry_s is not None:
        out += struct.pack(">BI", _EXPIRY, message.expiry_s)
    if message.content_type:
        out += bytes((_CONTENT_TYPE,)) + _text(message.content_type)
    return out + b"".join(bytes((_USER,)) + _text(name) + _text(value) for name, value in message.user.items())


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
