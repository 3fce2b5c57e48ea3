"""Server-sent events (WHATWG HTML §9.2): the wire format and the answer that carries them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

#: How many journal rows back a client may ask for.
REPLAYED = 5000
#: How soon a browser comes back after a connection broke.
RETRY_MS = 1000


def event(name: str, data: Any, *, seq: int | None = None) -> bytes:
    """One event with JSON data; ``seq`` becomes its id, which a browser sends back as ``Last-Event-ID``."""
    head = f"event: {name}\n" if seq is None else f"id: {seq}\nevent: {name}\n"
    # JSON without indentation has no raw line breaks, so one data line is enough.
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def resume_after(request: Request, newest: int) -> int:
    """The journal row after which a client wants events: ``Last-Event-ID``, else ``?after=``, else the newest.

    A number beyond the newest is of another journal (the database was rebuilt): then too, the newest. One that lies too
    far back is brought nearer: who slept for weeks looks at the present state instead of at all that was.
    """
    for text in (request.headers.get("last-event-id"), request.query_params.get("after")):
        if text is not None and text.isascii() and text.isdigit() and len(text) < 19:
            return max(min(int(text), newest), newest - REPLAYED)
    return newest


class EventStream(StreamingResponse):
    """An endless answer that no proxy may buffer and no cache may keep."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        """Send ``events`` as they come."""
        super().__init__(_with_retry(events), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _with_retry(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async for item in events:
        yield item
