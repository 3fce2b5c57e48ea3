"""The mark of the site or vendor beside its name: a file of the installer's, read once."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import ConfigError
from appliance.web.access import ANYBODY, Guarded

_MOST_BYTES = 100_000


def logo_route(path: Path) -> Guarded:
    """``/logo``. An SVG is shown as an image, where a browser runs nothing of it.

    Raises:
        ConfigError: The file cannot be read, is too large, or is neither PNG nor SVG.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"site.logo_path: {path} cannot be read: {error.strerror}; name a PNG or SVG file") from error
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        media_type = "image/png"
    elif b"<svg" in data[:1000]:
        media_type = "image/svg+xml"
    else:
        raise ConfigError(f"site.logo_path: {path} is neither PNG nor SVG")
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"site.logo_path: {path} has {len(data)} bytes; make it smaller than {_MOST_BYTES}")

    async def logo(_: Request) -> Response:
        return Response(data, media_type=media_type, headers={"Cache-Control": "public, max-age=3600"})

    return Guarded("/logo", logo, roles=ANYBODY)
