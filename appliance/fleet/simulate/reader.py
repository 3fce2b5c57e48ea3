"""What a broker sends, taken apart: bytes of any cut become packets, and foreign bytes an error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from appliance.fleet.simulate.codec import (
    CONTENT_TYPE,
    EXPIRY,
    MAX_PACKET_BYTES,
    RECEIVE_MAX,
    USER,
    CodecError,
    Connack,
    Disconnect,
    Packet,
    Pong,
    Puback,
    Publish,
    Suback,
)

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PONG, _DISCONNECT = 2, 3, 4, 9, 13, 14

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
        return Connack(bool(present & 1), reason, int(given.get(RECEIVE_MAX, 65_535)))
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
        expiry_s=given.get(EXPIRY),
        content_type=given.get(CONTENT_TYPE, ""),
        user=dict(given.get(USER, ())),
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
            if name == USER:
                found.setdefault(USER, []).append(value)
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
