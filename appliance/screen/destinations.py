"""Destinations and their queues: what each is owed, why it has not got it, what can be done. No patient, ids alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.config import Destination, DicomDestination, Hl7Destination
from appliance.errors import ApplianceError, NotFoundError
from appliance.records import DeliveryKind
from appliance.screen.context import Context
from appliance.screen.parts_of_admin import LONGEST_REASON, NO_REASON, span, stamp
from appliance.store.deliveries import Backlog
from appliance.store.destination_states import DestinationState, Waiting
from appliance.store.destinations import Left, forget, left_of_gone
from appliance.web.access import ADMINISTRATORS, KEEPERS, Guarded, caller_of
from appliance.web.app import read_form
from appliance.web.i18n import N_
from appliance.web.pool import Pool

KINDS = {"dicom": "DICOM", "stow": "DICOMweb (STOW)", "hl7": "HL7 (ORU)", "webhook": "Webhook"}
WRONG_NAME = N_("Type the destination's name as it stands there.")
#: What is sent, in words.
OBJECTS: dict[str, str] = {
    DeliveryKind.ORIGINAL: N_("images"),
    DeliveryKind.SR: N_("report (SR)"),
    DeliveryKind.SEG: N_("outlines (SEG)"),
    DeliveryKind.GSPS: N_("marks (GSPS)"),
    DeliveryKind.KO: N_("key images (KO)"),
    DeliveryKind.SC: N_("picture (SC)"),
    DeliveryKind.STATEMENT: N_("result message"),
    DeliveryKind.REJECTION_NOTE: N_("withdrawal note"),
}
#: What a peer's answer means and who can mend it. The first that fits is told; the answer itself stands below it.
HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"does not know our AE title"),
        N_("The PACS does not know this box. Ask its administrator to add this box's AE title and address."),
    ),
    (
        re.compile(r"HTTP 40[13]|authorise|right to store"),
        N_("It refuses this box. Check user, password or token, and the rights there."),
    ),
    (
        re.compile(r"does not answer to the AE title"),
        N_("The PACS has another AE title. Correct the AE title of this destination."),
    ),
    (re.compile(r"expect TLS|TLS|certificate"), N_("The encrypted connection fails. Check TLS and the certificates.")),
    (
        re.compile(r"is no DICOM|is no HTTP"),
        N_("Something else answers there. Check host and port of this destination."),
    ),
    (
        re.compile(r"refuse[ds]|cannot be reached|no route|not known|unreachable|[Tt]imed out|resolve"),
        N_("It cannot be reached. Check that it runs, its host and port, and the network."),
    ),
    (re.compile(r"gave no answer within"), N_("It is there and does not answer in time. Ask its administrator.")),
    (
        re.compile(r"0xA7|out of resources|lacks resources|congested"),
        N_("It has no room or is too busy. It is tried again; ask its administrator to look at its disk."),
    ),
    (
        re.compile(r"0xA8|0x0122|does not take|does not support"),
        N_("It does not take this kind of object. Let it accept the kind, or send it less."),
    ),
    (
        re.compile(r"0xA9|0xC|cannot understand|does not match"),
        N_("It took the object for faulty. Tell service; other objects go on."),
    ),
    (
        re.compile(r"evaluation mode"),
        N_("In evaluation mode results go only to destinations that are marked as a test."),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One destination as the page shows it."""

    destination: Destination
    where: str
    backlog: Backlog | None
    state: DestinationState
    parked: tuple[Waiting, ...]
    next_at: datetime | None
    age: tuple[int, int, int] | None
    status: int | None

    @property
    def owed(self) -> int:
        """Objects that wait to be sent."""
        return self.backlog.owed if self.backlog else 0

    @property
    def trouble(self) -> str:
        """Its last failure, of something that still waits."""
        return self.backlog.last_error if self.backlog else ""


class DestinationPages:
    """One page and its acts."""

    def __init__(self, context: Context) -> None:
        """Show the destinations of the configuration."""
        self._context = context
        self._store = context.store
        self._destinations: Mapping[str, Destination] = {one.name: one for one in context.config.destinations}

    def routes(self) -> list[Guarded]:
        """The addresses."""
        acts = (("test", self.test), ("pause", self.pause), ("resume", self.resume), ("retry", self.retry))
        return [
            Guarded("/destinations", self.page, roles=KEEPERS),
            *(Guarded(f"/destinations/{{name}}/{act}", call, roles=KEEPERS, methods=["POST"]) for act, call in acts),
            # Images may leave the box after it, so it is no act of the service role.
            Guarded("/destinations/{name}/forget", self.forget, roles=ADMINISTRATORS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """All of them."""
        return await self._page(request)

    async def test(self, request: Request) -> Response:
        """Ask one whether it answers; what it said stands on its card."""
        destination = self._named(request)
        actor = caller_of(request).actor

        def ask() -> None:
            found = self._context.tools.probe(destination)
            self._store.destinations.tested(destination.name, ok=found.ok, ms=found.ms, words=found.words, actor=actor)

        return await self._done(request, ask, self._context.probing)

    async def pause(self, request: Request) -> Response:
        """Keep back what it is owed."""
        reason = (await read_form(request)).get("reason", "").strip()[:LONGEST_REASON]
        if not reason:
            return await self._page(request, status=422, trouble=NO_REASON)
        name, actor = self._named(request).name, caller_of(request).actor
        return await self._done(request, partial(self._store.destinations.pause, name, reason, actor))

    async def resume(self, request: Request) -> Response:
        """Send again."""
        name, actor = self._named(request).name, caller_of(request).actor
        return await self._done(request, partial(self._store.destinations.resume, name, actor))

    async def retry(self, request: Request) -> Response:
        """Everything that is owed or parked, now."""
        name, actor = self._named(request).name, caller_of(request).actor
        return await self._done(request, partial(self._store.deliveries.retry, name, actor))

    async def forget(self, request: Request) -> Response:
        """Give up one that is no longer configured: it is owed nothing more."""
        name, actor = request.path_params["name"], caller_of(request).actor
        given = await read_form(request)
        reason = given.get("reason", "").strip()[:LONGEST_REASON]
        if not reason:
            return await self._page(request, status=422, trouble=NO_REASON)
        if given.get("typed", "").strip() != name:
            return await self._page(request, status=422, trouble=WRONG_NAME)
        act = partial(forget, self._store.db, name, tuple(self._destinations), reason, actor)
        return await self._done(request, act, back="/destinations")

    def _named(self, request: Request) -> Destination:
        name = request.path_params["name"]
        if name not in self._destinations:
            raise NotFoundError(f"no destination is named {name!r}")
        return self._destinations[name]

    async def _done(
        self, request: Request, act: Callable[[], Any], pool: Pool | None = None, *, back: str = ""
    ) -> Response:
        try:
            await (pool or self._context.pool).run(act)
        except ApplianceError as error:
            return await self._page(request, status=409, trouble=str(error))
        return RedirectResponse(back or f"/destinations#{self._named(request).name}", 303)

    async def _page(self, request: Request, *, status: int = 200, trouble: str = "") -> Response:
        cards, gone = await self._context.pool.run(self._cards)
        return self._context.pages.page(
            request,
            "destinations.html",
            status=status,
            cards=cards,
            gone=gone,
            trouble=trouble,
            now=self._context.clock.now(),
            kinds=KINDS,
            objects=OBJECTS,
            hint=hint,
            stamp=stamp,
        )

    def _cards(self) -> tuple[list[Card], dict[str, Left]]:
        backlog = {one.destination: one for one in self._store.deliveries.backlog()}
        cards = [self._card(one, backlog.get(one.name)) for one in self._destinations.values()]
        return cards, left_of_gone(self._store.db, tuple(self._destinations))

    def _card(self, destination: Destination, backlog: Backlog | None) -> Card:
        states, now = self._store.destinations, self._context.clock.now()
        parked = states.waiting(destination.name, "parked") if backlog and backlog.parked else []
        owed = states.waiting(destination.name, "owed", 1) if backlog and backlog.owed else []
        statuses = [one.status for one in (*parked, *owed) if one.status]
        since = backlog.oldest_at if backlog else None
        return Card(
            destination=destination,
            where=_where(destination),
            backlog=backlog,
            state=states.get(destination.name),
            parked=tuple(parked),
            next_at=owed[0].next_at if owed else None,
            age=span((now - since).total_seconds()) if since else None,
            status=statuses[0] if statuses else None,
        )


def hint(words: str) -> str:
    """What an answer means, as a message id; empty for one that speaks for itself."""
    return next((text for pattern, text in HINTS if words and pattern.search(words)), "")


def _where(destination: Destination) -> str:
    if isinstance(destination, DicomDestination):
        return f"{destination.ae_title} @ {destination.host}:{destination.port}"
    if isinstance(destination, Hl7Destination):
        return f"{destination.host}:{destination.port}"
    # A query may hold a token.
    return destination.url.partition("?")[0]
