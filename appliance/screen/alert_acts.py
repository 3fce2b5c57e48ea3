"""What is done at the alert screen: acknowledge, say who was told, answer a quality warning, try whether alerts arrive.

Each is one act of the store, by a named person: whoever is signed in, or at a paired screen the name that was picked.
Of other sources than the reader's own, nothing can be done, and nothing is said to exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.errors import NotFoundError
from appliance.records import (
    Actor,
    ActorKind,
    AlertStep,
    CommunicationMethod,
    QualityChoice,
    QualityReason,
    UserRole,
)
from appliance.screen import people
from appliance.screen.alert import scope_of
from appliance.screen.context import Context
from appliance.screen.packages import text_of
from appliance.store.readmodels import AlertView
from appliance.web.access import ADMINISTRATORS, ALERTED, WATCHING, Caller, Guarded, caller_of
from appliance.web.app import read_json
from appliance.web.i18n import N_, language_of

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,64}")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
#: Who may try whether alerts arrive.
TESTERS = frozenset({UserRole.TECHNOLOGIST, UserRole.ADMINISTRATOR})
#: What is told of a finding that is not the technologist's to know.
WITHHELD = N_("Priority study")


class AlertActs:
    """The acts of the alert screen."""

    def __init__(self, context: Context) -> None:
        """Act on the store."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        one, test = "/alerts/{alert_id:int}", "/alerts/test/{test_id:int}"
        post = {"methods": ["POST"]}
        return [
            Guarded(f"{one}/acknowledge", self.acknowledge, roles=ALERTED, **post),
            Guarded(f"{one}/presented", self.presented, roles=ALERTED, **post),
            Guarded(f"{one}/communication", self.communication, roles=ALERTED),
            Guarded(f"{one}/communications", self.communicate, roles=ALERTED, **post),
            Guarded("/studies/{study_id:int}/quality", self.quality, roles=ALERTED, **post),
            Guarded("/alerts/test", self.begin_test, roles=TESTERS, **post),
            Guarded(f"{test}/acknowledge", self.acknowledge_test, roles=ALERTED | ADMINISTRATORS, **post),
            Guarded(f"{test}/presented", self.present_test, roles=WATCHING, **post),
        ]

    async def acknowledge(self, request: Request) -> Response:
        """Somebody has seen the alert."""
        caller = caller_of(request)
        actor = person(caller, await read_json(request))
        await self._run(self._acknowledge, caller, request.path_params["alert_id"], actor)
        return Response(status_code=204)

    async def presented(self, request: Request) -> Response:
        """A screen of somebody who may answer has painted the alert."""
        await read_json(request)
        await self._run(self._presented, caller_of(request), request.path_params["alert_id"])
        return Response(status_code=204)

    async def communication(self, request: Request) -> Response:
        """What the form about the communication begins with: whose study, which finding, since when, who was told."""
        language = language_of(self._context.locale(request))
        caller, alert_id = caller_of(request), request.path_params["alert_id"]
        return JSONResponse(await self._run(self._form, caller, alert_id, language))

    async def communicate(self, request: Request) -> Response:
        """Somebody was told of the alert."""
        caller, given = caller_of(request), await read_json(request)
        actor = person(caller, given)
        whom = named(given, "received_by", "give the name of the person who was told, 1 to 64 characters")
        try:
            method = CommunicationMethod(given.get("method"))
        except ValueError as error:
            raise HTTPException(400, f"say how they were told: {error}") from error
        read_back = given.get("read_back")
        if not isinstance(read_back, bool):
            raise HTTPException(400, "say whether it was read back: true or false")
        at = self._moment(given.get("at"))
        await self._run(self._communicate, caller, request.path_params["alert_id"], actor, whom, method, read_back, at)
        return Response(status_code=204)

    async def quality(self, request: Request) -> Response:
        """What a technologist did about the quality warnings that they were shown of a study."""
        caller, given = caller_of(request), await read_json(request)
        actor, seen = person(caller, given), given.get("analyses")
        try:
            choice, reason = QualityChoice(given.get("choice")), QualityReason(given.get("reason"))
        except ValueError as error:
            raise HTTPException(400, f"choice and reason come from closed lists: {error}") from error
        if not isinstance(seen, list) or not all(type(number) is int for number in seen):
            raise HTTPException(400, "name the analyses that warn, as a list of numbers")
        await self._run(self._quality, caller, request.path_params["study_id"], choice, reason, actor, seen)
        return Response(status_code=204)

    async def begin_test(self, request: Request) -> Response:
        """Raise a test alert, on the screens of a source or on all."""
        given = await read_json(request)
        source = given.get("source", "")
        if source and source not in {one.name for one in self._context.config.sources}:
            raise HTTPException(400, "name a source of the configuration, or none for all screens")
        sinks = self._context.config.sinks_of(AlertStep.TEST)
        test_id = await self._run(self._store.alert_tests.begin, source, caller_of(request).actor, sinks)
        return JSONResponse({"test": test_id}, status_code=201)

    async def acknowledge_test(self, request: Request) -> Response:
        """Somebody has seen the test alert."""
        caller = caller_of(request)
        actor = person(caller, await read_json(request))
        await self._run(self._acknowledge_test, caller, request.path_params["test_id"], actor)
        return Response(status_code=204)

    async def present_test(self, request: Request) -> Response:
        """A screen has painted the test alert."""
        await read_json(request)
        await self._run(self._present_test, caller_of(request), request.path_params["test_id"])
        return Response(status_code=204)

    # Blocking ----------------------------------------------------------------------------------------------------

    def _acknowledge(self, caller: Caller, alert_id: int, actor: Actor) -> None:
        self._own(caller, alert_id)
        self._store.alerts.acknowledge(alert_id, actor)

    def _presented(self, caller: Caller, alert_id: int) -> None:
        self._own(caller, alert_id)
        self._store.alerts.presented(alert_id, caller.screen.name if caller.screen else "")

    def _form(self, caller: Caller, alert_id: int, language: str) -> dict[str, Any]:
        alert = self._own(caller, alert_id)
        study = self._store.views.some([alert.study_id])[alert.study_id]
        self._store.audit.accessed("communication", caller.actor, study_id=study.id)
        lines = self._store.communications.of_alerts([alert_id]).get(alert_id, [])
        return {
            "identity": people.whole(study, language),
            "findings": [title.get(language) or title.get("en", "") for title in self._titles(caller, alert)],
            "found_at": _clock(alert.raised_at),
            "now": _clock(self._context.clock.now()),
            "recipients": self._store.communications.recipients(),
            "told": [
                {"received_by": line.received_by, "at": _clock(line.received_at), "method": str(line.method)}
                for line in lines
            ],
        }

    def _communicate(
        self,
        caller: Caller,
        alert_id: int,
        actor: Actor,
        whom: str,
        method: CommunicationMethod,
        read_back: bool,  # noqa: FBT001
        at: datetime | None,
    ) -> None:
        alert = self._own(caller, alert_id)
        self._store.communications.record(
            alert_id,
            actor,
            received_by=whom,
            method=method,
            read_back=read_back,
            titles=self._titles(caller, alert),
            evaluation=self._context.config.site.mode == "evaluation",
            received_at=at,
        )

    def _quality(
        self, caller: Caller, study_id: int, choice: QualityChoice, reason: QualityReason, actor: Actor, seen: list[int]
    ) -> None:
        if not self._context.feed.sees(scope_of(self._context, caller), study_id):
            raise NotFoundError(f"study {study_id} does not exist")
        self._store.quality.decide(study_id, choice, reason, actor, seen=seen)

    def _acknowledge_test(self, caller: Caller, test_id: int, actor: Actor) -> None:
        self._own_test(caller, test_id)
        self._store.alert_tests.acknowledge(test_id, actor)

    def _present_test(self, caller: Caller, test_id: int) -> None:
        self._own_test(caller, test_id)
        self._store.alert_tests.presented(test_id, caller.screen.name if caller.screen else "")

    def _own(self, caller: Caller, alert_id: int) -> AlertView:
        alert = self._store.views.alert(alert_id)
        if not self._context.feed.sees(scope_of(self._context, caller), alert.study_id):
            raise NotFoundError(f"alert {alert_id} does not exist; 'scanside alert list' shows those that do")
        return alert

    def _own_test(self, caller: Caller, test_id: int) -> None:
        found = next((test for test in self._store.alert_tests.open() if test.id == test_id), None)
        if found is not None and caller.sources and found.source not in {"", *caller.sources}:
            raise NotFoundError(f"test alert {test_id} does not exist")

    def _titles(self, caller: Caller, alert: AlertView) -> list[Mapping[str, str]]:
        """The findings in the words that the caller was shown."""
        scope = scope_of(self._context, caller)
        if any(self._context.feed.withholds(scope, told.package) for told in alert.findings):
            translated = self._context.templates.translated
            return [{"en": translated("en", WITHHELD), "zh_Hans": translated("zh_Hans_CN", WITHHELD)}]
        return [text_of(self._context.packages, told.package).words(told.finding)[0] for told in alert.findings]

    def _moment(self, given: Any) -> datetime | None:
        """HH:MM in the box's time zone as the last such moment; None for now."""
        if given in {None, ""}:
            return None
        match = _TIME.fullmatch(str(given))
        if match is None:
            raise HTTPException(400, "give the time as HH:MM")
        now = self._context.clock.now().astimezone()
        at = now.replace(hour=int(match.group(1)), minute=int(match.group(2)), second=0, microsecond=0)
        if (at.hour, at.minute) == (now.hour, now.minute):
            return None
        return at if at <= now else at - timedelta(days=1)

    async def _run(self, act: Any, *arguments: Any) -> Any:
        return await self._context.pool.run(act, *arguments)


def person(caller: Caller, given: Mapping[str, Any]) -> Actor:
    """Who does this: whoever is signed in; at a paired screen, the name that was picked or typed.

    Raises:
        HTTPException: 400 where a paired screen names nobody.
    """
    if caller.role is not UserRole.SCREEN:
        return caller.actor
    name = named(given, "name", "give the name of the person who does this, 1 to 64 characters")
    return Actor(kind=ActorKind.PERSON, name=name, role=str(caller.role))


def named(given: Mapping[str, Any], key: str, fault: str) -> str:
    """A person's name out of a request.

    Raises:
        HTTPException: 400 with ``fault`` where it is none.
    """
    name = str(given.get(key) or "").strip()
    if not _NAME.fullmatch(name):
        raise HTTPException(400, fault)
    return name


def _clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M")
