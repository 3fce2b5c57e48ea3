"""Proof of life for every page, and news for those that show studies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from appliance.screen.context import Context
from appliance.screen.feed import LOUD
from appliance.screen.model import Scope
from appliance.web import sse
from appliance.web.access import EVERYONE, Guarded, caller_of

BEAT_S = 2.0


def beat(context: Context) -> dict[str, Any]:
    """What a page proves its life with: the server's wall clock, the AI's state, and which software and journal."""
    now = context.clock.now().astimezone()
    offset = now.utcoffset()
    return {
        "now": int(now.timestamp() * 1000),
        "offset_min": int(offset.total_seconds() // 60) if offset else 0,
        "ai": context.feed.snapshot.board.ai,
        "stream": context.store.db.stream,
        "build": context.assets.build,
    }


class LivePages:
    """The event stream of pages in the shell: which studies changed, never what of them."""

    def __init__(self, context: Context) -> None:
        """Wait on the feed."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The address."""
        return [Guarded("/events/page", self.events, roles=EVERYONE)]

    async def events(self, request: Request) -> Response:
        """Facts of the caller's sources, and beats."""
        scope = Scope(sources=caller_of(request).sources)
        return sse.EventStream(self._events(sse.resume_after(request, self._context.feed.snapshot.seq), scope))

    async def _events(self, seq: int, scope: Scope) -> AsyncIterator[bytes]:
        feed = self._context.feed
        version = feed.snapshot.version
        next_beat = time.monotonic()
        while not feed.is_stopping:
            snapshot = feed.snapshot
            if snapshot.version != version or snapshot.seq > seq:
                version = snapshot.version
                facts = await self._context.pool.run(feed.missed, seq, snapshot.seq, LOUD, scope)
                seq = snapshot.seq
                studies = sorted({fact.study_id for fact in facts if fact.study_id is not None})
                yield sse.event("facts", {"seq": seq, "studies": studies}, seq=seq)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_S
                if feed.is_fresh:
                    yield sse.event("beat", {**beat(self._context), "seq": seq})
            await feed.changed(version, max(next_beat - time.monotonic(), 0.01))
