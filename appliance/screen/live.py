"""The streams of events: proof of life for every page, and news for those that show studies.

Every stream is ``news``: a loop that waits on the feed and beats. What is told of a new board or of new rows is its
caller's. Whether the session still holds is asked in one place for all of them, ``web.access.Guarded``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from appliance.screen.context import Context
from appliance.screen.feed import LOUD, Snapshot
from appliance.screen.model import ALL, Scope
from appliance.screen.standing import DECIDING, refusing
from appliance.web import sse
from appliance.web.access import EVERYONE, WATCHING, Guarded, caller_of

BEAT_S = 2.0

#: The events to send of a board, the journal row up to which was told before, and whether the board is another one.
#: Called in the pool.
Tell = Callable[[Snapshot, int, bool], Sequence[bytes]]


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


async def news(
    context: Context,
    seq: int,
    tell: Tell,
    *,
    board: Scope = ALL,
    version: int = 0,
    more: Callable[[int], Mapping[str, Any]] = lambda _: {},
) -> AsyncIterator[bytes]:
    """What ``tell`` says whenever the board is another one or the journal went on, and a beat every two seconds.

    Nobody vouches for a board that could not be made for a while: then no beat comes, and the page says so itself.

    Args:
        context: With the feed to wait on.
        seq: The journal row up to which the client knows.
        tell: Makes the events.
        board: Whose board is waited for.
        version: Of the board that the client has; 0: none, so the first is sent at once.
        more: What a beat says besides, by the journal row that was told.
    """
    feed, next_beat = context.feed, time.monotonic()
    while not feed.is_stopping:
        snapshot = feed.shown(board)
        if snapshot is None:
            snapshot = await context.pool.run(feed.of, board)
        if snapshot.version != version or snapshot.seq > seq:
            for event in await context.pool.run(tell, snapshot, seq, snapshot.version != version):
                yield event
            version, seq = snapshot.version, snapshot.seq
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + BEAT_S
            if feed.is_fresh:
                yield sse.event("beat", {**beat(context), **more(seq)})
        await feed.changed(version, max(next_beat - time.monotonic(), 0.01), board)


class LivePages:
    """The event stream of pages in the shell: which studies changed, never what of them."""

    def __init__(self, context: Context) -> None:
        """Wait on the feed."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The address."""
        return [Guarded("/events/page", self.events, roles=EVERYONE)]

    async def events(self, request: Request) -> Response:
        """Facts of the caller's sources, and beats, which say too what the bar of every page shouts."""
        feed, caller = self._context.feed, caller_of(request)
        scope = Scope(sources=caller.sources)
        locale, translated = self._context.locale(request), self._context.templates.translated

        def told(snapshot: Snapshot, after: int, _: bool) -> list[bytes]:  # noqa: FBT001 - as every ``Tell``
            facts = feed.missed(after, snapshot.seq, LOUD, scope)
            studies = sorted({fact.study_id for fact in facts if fact.study_id is not None})
            return [sse.event("facts", {"seq": snapshot.seq, "studies": studies}, seq=snapshot.seq)]

        def more(seq: int) -> dict[str, Any]:
            refused = (translated(locale, text) for text in refusing(feed.snapshot.board.faults))
            overdue = feed.overdue(scope) if caller.role in WATCHING else None
            approvals = {"approvals": feed.snapshot.board.approvals} if caller.role in DECIDING else {}
            return {"seq": seq, "overdue": overdue, "fault": " ".join(refused), **approvals}

        seen = feed.snapshot
        return sse.EventStream(
            news(self._context, sse.resume_after(request, seen.seq), told, version=seen.version, more=more)
        )
