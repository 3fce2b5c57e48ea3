"""The worker's Unix socket as a stream of message bodies: a length (4 bytes, big endian), then that many bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_MESSAGE_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")
_SOCKET_PATH_BYTES = 107


class ProtocolError(Exception):
    """The other side does not keep to the protocol; the connection ends."""


def frame(body: bytes) -> bytes:
    """A message body with its length before it.

    Raises:
        ProtocolError: It is longer than 1 MiB.
    """
    if len(body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message has {len(body)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    return _LENGTH.pack(len(body)) + body


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name by which to bind or connect to a Unix socket, however long its path is (the kernel takes 107 bytes)."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Frames:
    """Cuts a stream of bytes into message bodies; holds at most one unfinished message."""

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self._buffer = bytearray()

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and give the bodies that are now whole.

        Raises:
            ProtocolError: A length is zero or above 1 MiB; no memory is set aside for it.
        """
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not 0 < length <= MAX_MESSAGE_BYTES:
                raise ProtocolError(f"a message of {length} bytes is announced, 1 to {MAX_MESSAGE_BYTES} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return bodies
