"""Where boxes bring logs: ``PUT /v1/upload/{token}`` of their HTTPS."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, select, update
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from appliance.clock import Clock
from appliance.errors import ApplianceError
from appliance.fleet.keys import holds
from appliance.fleet.server import tables as t
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import DeviceState, public_keys, write_audit
from appliance.fleet.server.tokens import digest_of
from appliance.fleet.server.uploads import UPLOADS, path_of
from appliance.store.database import new_ulid
from appliance.web.pool import Pool
from appliance.web.throttle import Throttle, address_key
from engines.durable import sync_folder

log = logging.getLogger(__name__)

DEVICE, SIGNATURE = "X-Scanside-Device", "X-Scanside-Signature"
MOST_BYTES = 16 * 1024 * 1024
#: What a box signs is for: this, and the token.
_KIND = "scanside/upload/v1"
_CHUNK = 1024 * 1024
#: Failed attempts of one address; a hospital's boxes share one.
_FREE = 20


class Refused(ApplianceError):  # noqa: N818 - an answer, not a failure
    """The file is not taken; ``status`` is HTTP's, the text for the box's log."""

    def __init__(self, status: int, text: str) -> None:
        """Refuse."""
        super().__init__(text)
        self.status = status


class Uploads:
    """``PUT /v1/upload/{token}``."""

    def __init__(self, engine: Engine, folder: Path, pool: Pool, clock: Clock) -> None:
        """Keep files below ``folder``; what blocks runs in ``pool``."""
        self._engine = engine
        self._folder = folder
        self._pool = pool
        self._clock = clock
        self._throttle = Throttle(clock, free=_FREE)

    def routes(self) -> list[BaseRoute]:
        """The address, for ``door.device_app``."""
        return [Route("/v1/upload/{token}", self._put, methods=["PUT"])]

    async def _put(self, request: Request) -> Response:
        caller = address_key(request.client.host if request.client else "")
        wait_s = self._throttle.attempt(caller)
        if wait_s:
            return _no(429, "too many failed attempts", {"Retry-After": str(int(wait_s) + 1)})
        token = str(request.path_params["token"])
        part = self._folder / UPLOADS / f"{new_ulid(self._clock.now())}.part"
        try:
            # First who it is: a stranger writes nothing on this disk.
            await self._pool.run(self.claim, token, request.headers.get(DEVICE, ""))
            await self._receive(request, part)
            sha256 = await self._pool.run(self.keep, token, part, request.headers.get(SIGNATURE, ""))
        except Refused as error:
            log.info("fleet: an upload is refused: %s", error.status)
            return _no(error.status, str(error))
        except ClientDisconnect:
            return _no(400, "the file is cut off")
        except OSError as error:
            log.warning("fleet: an upload cannot be kept: %s", error.strerror)
            return _no(503, "the server cannot keep the file now", {"Retry-After": "60"})
        finally:
            await self._pool.run(lambda: part.unlink(missing_ok=True))
        self._throttle.give_back(caller)
        return JSONResponse({"sha256": sha256}, headers={"Cache-Control": "no-store"})

    async def _receive(self, request: Request, part: Path) -> None:
        """Write the body into a file, on disk for good."""

        def begin() -> BinaryIO:
            part.parent.mkdir(mode=0o700, exist_ok=True)
            return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

        def end(file: BinaryIO) -> None:
            file.flush()
            os.fsync(file.fileno())

        file = await self._pool.run(begin)
        try:
            size, waits = 0, b""
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    raise Refused(413, f"the file is larger than {MOST_BYTES} bytes")
                waits += chunk
                if len(waits) >= _CHUNK:
                    await self._pool.run(file.write, waits)
                    waits = b""
            await self._pool.run(file.write, waits)
            await self._pool.run(end, file)
        finally:
            file.close()

    def claim(self, token: str, device: str) -> None:
        """Look whether a token lets this device in.

        Raises:
            Refused: There is none, of another box, or it holds no more.
        """
        with read(self._engine) as connection:
            self._row(connection, token, device)

    def keep(self, token: str, part: Path, signature: str) -> str:
        """Take a file that has come; returns its SHA-256. The same file again is answered the same.

        Raises:
            Refused: It is not signed by the box, no zip file, or another one is here already.
        """
        data = part.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        now = self._clock.now()
        with write(self._engine) as connection:
            row = self._row(connection, token)
            if not any(holds(key, f"{_KIND}/{token}", data, signature) for key in public_keys(connection, row.device)):
                raise Refused(403, "the file is not signed by the box that was asked")
            if row.received_at is not None:
                if row.sha256 != sha256:
                    raise Refused(409, "another file was brought by this token")
                return sha256
            _check_zip(part)
            path = path_of(self._folder, row.job)
            part.replace(path)
            sync_folder(path.parent)
            values = {"received_at": now, "sha256": sha256, "size": len(data)}
            connection.execute(update(t.upload).where(t.upload.c.digest == row.digest).values(**values))
            told = {"job": row.job, "size": len(data), "sha256": sha256}
            write_audit(
                connection,
                act="upload.keep",
                subject=row.device,
                actor="system",
                tenant_id=row.tenant,
                now=now,
                detail=told,
            )
        return sha256

    def _row(self, connection: Connection, token: str, device: str | None = None) -> Any:
        row = connection.execute(
            select(t.upload, t.device.c.tenant, t.device.c.state)
            .join(t.device, t.device.c.id == t.upload.c.device)
            .where(t.upload.c.digest == digest_of(token))
        ).first()
        if row is None or (device is not None and row.device != device):
            raise Refused(404, "there is no such token for this box")
        if row.state != DeviceState.ENROLLED:
            raise Refused(403, "this box is heard no more")
        if row.expires_at <= self._clock.now() and row.received_at is None:
            raise Refused(410, "the token has expired with its job")
        return row


def _check_zip(path: Path) -> None:
    """Only its table of contents is read.

    Raises:
        Refused: There is none.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            packed.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, UnicodeError):
        raise Refused(422, "this is no zip file") from None


def _no(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})
