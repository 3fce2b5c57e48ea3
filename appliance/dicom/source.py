"""Bytes of a received object at absolute offsets, read in small pieces and never by an announced length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import RejectedInstance

#: C-STORE status "cannot understand" (PS3.4 Table B.2-1).
CANNOT_UNDERSTAND = 0xC000
#: Visits, and some objects are walked twice; an enhanced CT of 2,000 frames has some 100,000 elements.
MAX_ELEMENTS = 500_000
#: Bytes read at once from the start of a file: a CT header is 4-10 KB, an X-ray header with thumbnails 30 KB.
HEAD_BYTES = 65_536


class Source:
    """Bytes at absolute offsets, of a file or of memory; a file is read in small windows.

    ``pread`` instead of a mapping: a disk that fails while a page is read ends as an ``OSError`` here and not as a
    SIGBUS of the daemon.
    """

    __slots__ = ("_bytes", "_fd", "elements_left", "head", "size")

    def __init__(self, content: int | bytes) -> None:
        """Read from an open file descriptor or from bytes."""
        self.elements_left = MAX_ELEMENTS
        if isinstance(content, bytes):
            self._fd, self._bytes, self.head, self.size = -1, content, content, len(content)
        else:
            self._fd, self._bytes = content, b""
            self.head = os.pread(content, HEAD_BYTES, 0)
            self.size = os.fstat(content).st_size

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; fewer at the end."""
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        if self._fd < 0:
            return self._bytes[offset : offset + length]
        return os.pread(self._fd, min(length, max(self.size - offset, 0)), offset)

    def chunks(self, offset: int, length: int, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of a value, piece by piece."""
        end = offset + length
        while offset < end and (chunk := self.read(offset, min(size, end - offset))):
            yield chunk
            offset += len(chunk)

    def spend(self, elements: int) -> None:
        """Count elements that were visited.

        Raises:
            RejectedInstance: there are more than any real object has.
        """
        self.elements_left -= elements
        if self.elements_left < 0:
            raise RejectedInstance(CANNOT_UNDERSTAND, f"the data set has more than {MAX_ELEMENTS} elements")


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A ``Source`` over a file, closed at the end.

    Raises:
        OSError: the file cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Source(fd)
    finally:
        os.close(fd)
