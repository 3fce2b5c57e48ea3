"""What boxes fetch over HTTPS: the TUF repository's metadata and its targets, whole or in part (RFC 9110 §14).

Nobody is asked who they are: everything here is signed, and says nothing of anybody. A file is read in a thread of a
pool, piece by piece. Only so many targets are sent at once, half of them to one address, and only so fast; whoever
comes then is told when to ask again. Metadata is small and always answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import IO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from appliance.clock import Clock
from appliance.fleet.server.repository_files import METADATA, TARGETS
from appliance.web.pool import Pool

#: A name whose bytes never change: boxes and proxies may keep it.
_FOR_EVER = "public, max-age=31536000, immutable"
_METADATA_NAME = re.compile(r"(?:([1-9][0-9]{0,11})\.(?:root|targets|snapshot)|root|timestamp)\.json")
_TARGET_NAME = re.compile(
    r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}/){0,3}([0-9a-f]{64})\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"
)
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_CHUNK = 128 * 1024
#: A box that takes nothing for so long is left: its place is another's.
_STALL_S = 60.0
_AGAIN_S = 60
#: A box hears of its download so often at least; it leaves a line that is silent for 30 s (``device.files``).
_TURN_S = 10.0
_MOST_METADATA_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, and half of that to one address. ``bytes_per_s`` is of all together; None: what goes."""

    downloads: int = 64
    bytes_per_s: float | None = None
    stall_s: float = _STALL_S

    @classmethod
    def of(cls, downloads: int, mbit_s: float | None) -> Limits:
        """From a configuration; of a narrow line so few have a part that each is written to before it hangs up."""
        if mbit_s is None:
            return cls(downloads)
        bytes_per_s = mbit_s * 1e6 / 8
        return cls(min(downloads, max(1, int(bytes_per_s * _TURN_S / _CHUNK))), bytes_per_s)


class Pace:
    """Spreads what all send over time: each piece is told how long to wait."""

    def __init__(self, bytes_per_s: float | None, clock: Clock) -> None:
        """Let at most a second's worth go at once."""
        self._rate = bytes_per_s
        self._clock = clock
        self._free_at = 0.0

    def wait_s(self, size: int) -> float:
        """Take a piece's turn; how long until it may go."""
        if self._rate is None:
            return 0.0
        now = self._clock.monotonic()
        self._free_at = max(self._free_at, now - 1.0) + size / self._rate
        return max(0.0, self._free_at - now)


class Downloads:
    """The addresses below ``/v1/tuf``. All state is of the event loop's thread."""

    def __init__(self, folder: Path, pool: Pool, clock: Clock, limits: Limits | None = None) -> None:
        """Serve a repository's folder; reading is done in ``pool``."""
        self._folder = folder
        self.pool = pool
        self.limits = limits or Limits()
        self.pace = Pace(self.limits.bytes_per_s, clock)
        #: How many targets are being sent.
        self.running = 0
        #: The same by address: nobody shuts all others out.
        self.by_address: Counter[str] = Counter()

    def routes(self) -> list[BaseRoute]:
        """GET and HEAD of all of them."""
        return [
            Route("/v1/tuf/metadata/{name}", self._of_metadata, methods=["GET"]),
            Route("/v1/tuf/targets/{path:path}", self._of_targets, methods=["GET"]),
        ]

    async def _of_metadata(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = _METADATA_NAME.fullmatch(name)
        data = await self.pool.run(_small, self._folder / METADATA / name) if found else None
        if found is None or data is None:
            return _no(404, "there is no such metadata")
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": _FOR_EVER if found[1] else "no-cache"}
        if _matches(request.headers.get("If-None-Match"), etag):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="application/json", headers=headers)

    async def _of_targets(self, request: Request) -> Response:
        path = request.path_params["path"]
        found = _TARGET_NAME.fullmatch(path)
        opened = await self.pool.run(_open, self._folder / TARGETS / path) if found else None
        if found is None or opened is None:
            return _no(404, "there is no such target")
        try:
            size = os.fstat(opened.fileno()).st_size
            etag = f'"{found[1]}"'
            headers = {"ETag": etag, "Cache-Control": _FOR_EVER, "Accept-Ranges": "bytes"}
            if _matches(request.headers.get("If-None-Match"), etag):
                return Response(status_code=304, headers=headers)
            asked = request.headers.get("Range") if request.headers.get("If-Range", etag) == etag else None
            try:
                part = part_of(asked, size)
            except ValueError:
                return _no(416, "no such part", {"Content-Range": f"bytes */{size}"})
            first, length = part or (0, size)
            if part is not None:
                headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{size}"
            headers |= {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
            status = 200 if part is None else 206
            if request.method == "HEAD":
                return Response(status_code=status, headers=headers)
            address = address_of(request)
            if self.running >= self.limits.downloads or self.by_address[address] >= max(1, self.limits.downloads // 2):
                return _no(503, "too many downloads; ask again later", {"Retry-After": str(_AGAIN_S)})
            sent, opened = _Sent(self, address, opened, (first, length), status, headers), None
            return sent
        finally:
            if opened is not None:
                opened.close()


class _Sent(StreamingResponse):
    """A part of an open file. It holds one of the places until it is sent, or until nobody takes it any more."""

    def __init__(
        self,
        owner: Downloads,
        address: str,
        file: IO[bytes],
        part: tuple[int, int],
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(iter(()), status, headers)
        self._owner, self._address, self._file, self._part = owner, address, file, part
        owner.running += 1
        owner.by_address[address] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; StreamingResponse ends ``stream_response`` where the box has gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._owner.running -= 1
            self._owner.by_address -= Counter([self._address])  # none left: forgotten
            self._file.close()

    async def stream_response(self, send: Send) -> None:
        """Send piece by piece, not faster than allowed."""
        owner = self._owner
        first, left = self._part
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while left:
            piece = await owner.pool.run(os.pread, self._file.fileno(), min(_CHUNK, left), first)
            if not piece:
                return  # shorter than it was: ended without its end, which the box sees
            await asyncio.sleep(owner.pace.wait_s(len(piece)))
            first, left = first + len(piece), left - len(piece)
            message = {"type": "http.response.body", "body": piece, "more_body": left > 0}
            try:
                await asyncio.wait_for(send(message), owner.limits.stall_s)
            except asyncio.TimeoutError:
                return
        if not self._part[1]:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def part_of(asked: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length of what a ``Range`` asks for; None = the whole: nothing, several, or not understood.

    Raises:
        ValueError: Nothing of it is there (416).
    """
    found = _RANGE.fullmatch((asked or "").strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        length = min(int(found[2]), size)
        if not length:
            raise ValueError("empty")
        return size - length, length
    first = int(found[1])
    last = min(int(found[2]) if found[2] else size - 1, size - 1)
    if found[2] and int(found[2]) < first:
        return None
    if first >= size:
        raise ValueError("beyond the end")
    return first, last - first + 1


def address_of(request: Request) -> str:
    """Who asks; of IPv6 the network, of which one machine has all addresses."""
    host = request.client.host if request.client is not None else ""
    return str(ip_network(f"{host.partition('%')[0]}/64", strict=False)) if ":" in host else host


def _matches(given: str | None, etag: str) -> bool:
    """``If-None-Match``: weak comparison."""
    return given is not None and (
        given.strip() == "*" or etag in {one.strip().removeprefix("W/") for one in given.split(",")}
    )


def _open(path: Path) -> IO[bytes] | None:
    """A plain file; None where there is none."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        return None
    return os.fdopen(opened, "rb")


def _small(path: Path) -> bytes | None:
    opened = _open(path)
    if opened is None:
        return None
    with opened:
        return opened.read(_MOST_METADATA_BYTES)


def _no(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})
