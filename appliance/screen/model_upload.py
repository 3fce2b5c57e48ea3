"""A signed package comes over the page of models: kept on the disk, then installed as ``scanside model install`` does.

What a package says is read by the gate's limited child and run by the trial's, never by this process.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.errors import ConflictError
from appliance.records import Actor
from appliance.screen.context import Context
from appliance.screen.tools import Refused
from appliance.store.packages import NewPackage
from appliance.web.access import ADMINISTRATORS, Guarded, caller_of
from appliance.web.i18n import N_

#: As much as an archive may hold.
MOST_BYTES = 1024 * 1024 * 1024
#: A browser that sends nothing for so long has gone.
_SILENT_S = 60.0
NOT_SIGNED = N_("Refused: the file is not signed by the vendor.")
REFUSED = N_("Refused: this package cannot be used on this box.")


class ModelUpload:
    """One address; one file at a time."""

    def __init__(self, context: Context) -> None:
        """Install with the daemon's tools."""
        self._context = context
        self._store = context.store
        self._folder = context.store.db.path.parent / "uploads"
        self._busy = False

    def routes(self) -> list[Guarded]:
        """The address."""
        return [Guarded("/models/install", self.install, roles=ADMINISTRATORS, methods=["POST"])]

    async def install(self, request: Request) -> Response:
        """Take the file, check it, try it, keep it. It runs nowhere until somebody lets it."""
        size = _size(request)
        if self._busy:
            raise ConflictError("another package is being installed; try again when it is")
        self._busy = True
        try:
            path = await self._context.pool.run(self._place, size)
            await self._take(request, path, size)
            new = await self._context.probing.run(self._installed, path, caller_of(request).actor)
        except Refused as error:
            locale, translated = self._context.locale(request), self._context.templates.translated
            said = translated(locale, REFUSED if error.is_signed else NOT_SIGNED)
            return JSONResponse({"refused": said, "lines": str(error).splitlines()}, status_code=422)
        finally:
            await self._context.pool.run(shutil.rmtree, self._folder, True)  # noqa: FBT003 - ignore_errors
            self._busy = False
        return JSONResponse({"package": new.name, "version": new.version}, status_code=201)

    def _installed(self, path: Path, actor: Actor) -> NewPackage:
        return self._context.tools.install(path, actor)

    def _place(self, size: int) -> Path:
        """Where the file goes; what an interruption left there before is removed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        spool = self._store.spool
        # The file, and at least as much again once it is unpacked: images come first.
        if spool.free_bytes() - 2 * size < spool.reserve_bytes:
            raise ConflictError("the disk has no room for this package beside the images; free space first")
        self._folder.mkdir(mode=0o700)
        return self._folder / "package.zip"

    async def _take(self, request: Request, path: Path, size: int) -> None:
        run, parts, taken = self._context.pool.run, request.stream().__aiter__(), 0
        with await run(path.open, "wb") as file:
            while True:
                try:
                    part = await asyncio.wait_for(parts.__anext__(), _SILENT_S)
                except StopAsyncIteration:
                    break
                except asyncio.TimeoutError as error:
                    raise HTTPException(408, "the file stopped coming; send it again") from error
                taken += len(part)
                if taken > size:  # pragma: no cover - the server cuts it there
                    raise HTTPException(413, "the file is longer than was said")
                await run(file.write, part)
        if taken != size:
            raise HTTPException(400, "the file did not come whole; send it again")


def _size(request: Request) -> int:
    if request.headers.get("content-type", "") != "application/zip":
        raise HTTPException(415, "send the package's file as application/zip")
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(411, "say how large the file is")
    size = int(text)
    if not 0 < size <= MOST_BYTES:
        raise HTTPException(413, f"a package has at most {MOST_BYTES // 1024**2} MB")
    return size
