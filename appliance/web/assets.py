"""Style, scripts and fonts: read once, served from memory under the digest of all of them.

One digest for all means that relative addresses inside CSS and ES modules need no rewriting, that browsers may keep
files for ever, and that a page can tell by ``build`` that the box was updated under it.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from appliance.web.access import ANYBODY, Guarded

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


class Assets:
    """The files of some folders as one."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        """Read every file. Two of the same name are a mistake of ours and raise ``ValueError``."""
        self._files: dict[str, bytes] = {}
        for folder in folders:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                if name in self._files:
                    raise ValueError(f"two assets are named {name}; rename {path}")
                self._files[name] = path.read_bytes()
        digest = hashlib.sha256()
        for name in sorted(self._files):
            digest.update(name.encode() + b"\0" + hashlib.sha256(self._files[name]).digest())
        self.build = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """The address of a file; ``KeyError`` for one that does not exist."""
        self._files[name]
        return f"/assets/{self.build}/{name}"

    def route(self) -> Guarded:
        """The route that serves them."""
        return Guarded("/assets/{build}/{name:path}", self._serve, roles=ANYBODY)

    async def _serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        data = self._files.get(name)
        if data is None or request.path_params["build"] != self.build:
            return PlainTextResponse("not found", status_code=404)
        suffix = name[name.rfind(".") :]
        media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(data, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})
