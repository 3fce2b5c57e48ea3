"""Where files of the server's TUF repository come from: its HTTPS, or what a stick brought. Nothing is believed here.

A source gives streams by the names of the repository (``metadata/timestamp.json``, ``targets/models/...``). None hangs:
a line that stalls, trickles or breaks is a ``TransientError``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from appliance.clock import Clock
from appliance.errors import TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.enrolment import Server

_ROOT = "/v1/tuf"
_STALL_S = 30.0
#: To the end of the headers; a whole file where it is small.
_ANSWER_S = 60.0
#: A line that brings less in such a time is as good as none.
_WINDOW_S, _LEAST_BYTES = 60.0, 4096
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})")


class Missing(TransientError):  # noqa: N818 - an answer
    """The source has no such file, now."""


class Stream(Protocol):
    """A file from ``begin`` on.

    Attributes:
        begin: Where it begins; 0 where the source gives whole files only.
        total: How long the file is in all; None where that is not told.
    """

    begin: int
    total: int | None

    def read(self, most: int) -> bytes:
        """The next bytes; none at the end.

        Raises:
            TransientError: The line is gone, or as good as.
        """
        ...


class Source(Protocol):
    """One of several."""

    @property
    def is_far(self) -> bool:
        """Whether what it brings costs somebody's line."""
        ...

    def open(self, name: str, begin: int = 0, *, within_s: float | None = None) -> AbstractContextManager[Stream]:
        """A file, from ``begin`` on, if the source can do that.

        Args:
            name: In the repository.
            begin: How much is here already.
            within_s: All of it must have come by then; None: as long as it goes on.

        Raises:
            Missing: It is not there.
            TransientError: The source does not answer.
            ActRefused: The file there is shorter.
        """
        ...


@dataclass(frozen=True, slots=True)
class HttpsSource:
    """The server. ``stall_s``: silence that ends a line; ``window_s``: the time in which a few bytes must come."""

    server: Server
    clock: Clock
    stall_s: float = _STALL_S
    window_s: float = _WINDOW_S
    is_far: bool = field(default=True, init=False)

    @contextmanager
    def open(self, name: str, begin: int = 0, *, within_s: float | None = None) -> Iterator[Stream]:
        """See ``Source``."""
        path = f"{urlsplit(self.server.url).path.rstrip('/')}{_ROOT}/{name}"
        line = self.server.line(self.stall_s)
        try:
            with _deadline(line, within_s or _ANSWER_S) as ring_off:
                answer = self._ask(line, path, begin)
                if within_s is None:
                    ring_off.cancel()
                with answer:  # it holds the socket too
                    yield self._stream(answer, name, begin)
        finally:
            line.close()

    def _ask(self, line: http.client.HTTPSConnection, path: str, begin: int) -> http.client.HTTPResponse:
        try:
            line.request("GET", path, headers={"Range": f"bytes={begin}-"} if begin else {})
            return line.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"{self.server.url} does not answer: {error}") from error

    def _stream(self, answer: http.client.HTTPResponse, name: str, begin: int) -> Stream:
        told = answer.headers.get("Content-Length", "")
        length = int(told) if told.isdecimal() and len(told) < 16 else None
        if answer.status == http.HTTPStatus.OK:
            return _Answer(answer, self, 0, length, length)
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != begin:
                raise TransientError(f"{self.server.url} answers another part of {name} than was asked for")
            return _Answer(answer, self, begin, int(found[2]), length)
        if answer.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise ActRefused("TUF_DAMAGED", f"{name} is shorter at the server than its metadata says")
        if answer.status in {http.HTTPStatus.FORBIDDEN, http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE}:
            raise Missing(f"{self.server.url} has no {name}")
        raise TransientError(f"{self.server.url} answers {answer.status} for {name}")


class _Answer:
    def __init__(
        self,
        answer: http.client.HTTPResponse,
        source: HttpsSource,
        begin: int,
        total: int | None,
        left: int | None,
    ) -> None:
        self.begin = begin
        self.total = total
        self._answer = answer
        self._source = source
        self._left = left
        self._since = source.clock.monotonic()
        self._got = 0

    def read(self, most: int) -> bytes:
        try:
            data = self._answer.read1(most)  # what is there, and not until it is so many
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"the line to {self._source.server.url} is gone: {error}") from error
        if self._left is not None:
            if not data and self._left:
                raise TransientError(f"the line to {self._source.server.url} was cut off")
            self._left -= len(data)
        self._check_pace(len(data))
        return data

    def _check_pace(self, size: int) -> None:
        self._got += size
        now = self._source.clock.monotonic()
        if now - self._since < self._source.window_s:
            return
        if self._got < _LEAST_BYTES:
            raise TransientError(f"{self._source.server.url} trickles: {self._got} bytes in {now - self._since:.0f} s")
        self._since, self._got = now, 0


@contextmanager
def _deadline(line: http.client.HTTPSConnection, seconds: float) -> Iterator[threading.Timer]:
    """Break the line after so long: a peer that sends a byte now and then never meets a timeout."""

    def end() -> None:
        with contextlib.suppress(OSError, AttributeError):  # no socket yet, or none any more
            line.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class FolderSource:
    """What a stick brought."""

    folder: Path
    is_far: bool = field(default=False, init=False)

    @contextmanager
    def open(self, name: str, begin: int = 0, *, within_s: float | None = None) -> Iterator[Stream]:  # noqa: ARG002 - a disk
        """See ``Source``."""
        try:
            file = (self.folder / name).open("rb")
        except OSError as error:
            raise Missing(f"the stick has no {name}") from error
        with file:
            file.seek(begin)
            yield _File(file, begin, os.fstat(file.fileno()).st_size)


@dataclass
class _File:
    _file: IO[bytes]
    begin: int
    total: int | None

    def read(self, most: int) -> bytes:
        try:
            return self._file.read(most)
        except OSError as error:
            raise TransientError(f"what the stick brought cannot be read: {error.strerror}") from error


def small(source: Source, name: str, most: int) -> bytes:
    """A small file, whole.

    Raises:
        ActRefused: It is larger than ``most``.
        TransientError: As of ``Source.open``.
    """
    found = b""
    with source.open(name, within_s=_ANSWER_S) as stream:
        while chunk := stream.read(most + 1 - len(found)):
            found += chunk
            if len(found) > most:
                raise ActRefused("TUF_DAMAGED", f"{name} is larger than {most} bytes")
    return found
