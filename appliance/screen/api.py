"""``/api/v1``: for a scanner's console and for monitoring. Asked with a token or by who is signed in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance import __version__
from appliance.errors import NotFoundError
from appliance.records import Actor, ActorKind, Outcome, UserRole
from appliance.screen import api_models as models
from appliance.screen import words
from appliance.screen.alert import scope_of
from appliance.screen.alert_acts import WITHHELD
from appliance.screen.api_document import document
from appliance.screen.context import Context
from appliance.screen.feed import LOUD, Snapshot
from appliance.screen.live import news
from appliance.screen.packages import text_of
from appliance.store.facts import Kind
from appliance.store.journal import Fact
from appliance.store.readmodels import AlertView, StudyView
from appliance.web import sse
from appliance.web.access import ALERTED, ANYBODY, EVERYONE, WATCHING, Caller, Guarded, caller_of
from appliance.web.app import read_json
from appliance.web.i18n import N_

#: How far back alerts that are no longer open are told.
WINDOW = timedelta(hours=12)
_MOST = 200
_ALERTS = frozenset(
    {
        *(Kind.ALERT_RAISED, Kind.ALERT_UPDATED, Kind.ALERT_PRESENTED, Kind.ALERT_ACKNOWLEDGED),
        *(Kind.ALERT_DECIDED, Kind.ALERT_WITHDRAWN),
    }
)

#: An outcome in words.
OUTCOMES = {
    Outcome.FINDING: N_("Flagged for a person to look at"),
    Outcome.NOTHING_FLAGGED: N_("Nothing flagged. The images still need to be read."),
    Outcome.NOT_APPLICABLE: N_("No AI package is for these images"),
}
_OPEN = N_("Not analysed yet")


class ApiPages:
    """The addresses below ``/api/v1``."""

    def __init__(self, context: Context) -> None:
        """Answer from the store."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """Each with its roles."""
        return [
            Guarded("/api/v1/openapi.json", self.openapi, roles=ANYBODY),
            Guarded("/api/v1/health", self.health, roles=EVERYONE),
            Guarded("/api/v1/alerts", self.alerts, roles=WATCHING),
            Guarded("/api/v1/alerts/{alert_id:int}/acknowledge", self.acknowledge, roles=ALERTED, methods=["POST"]),
            Guarded("/api/v1/studies", self.studies, roles=WATCHING),
            Guarded("/api/v1/studies/{study_id:int}", self.study, roles=WATCHING),
            Guarded("/api/v1/events", self.events, roles=WATCHING),
        ]

    async def openapi(self, _: Request) -> Response:
        """The document that says all this."""
        return JSONResponse(document())

    async def health(self, request: Request) -> Response:
        """Whether studies are being checked."""
        return _json(await self._context.pool.run(self._health, caller_of(request)))

    async def alerts(self, request: Request) -> Response:
        """Open alerts and those of the last hours."""
        return _json(await self._context.pool.run(self._alerts, caller_of(request)))

    async def acknowledge(self, request: Request) -> Response:
        """A named person has seen the alert."""
        caller, alert_id = caller_of(request), request.path_params["alert_id"]
        actor = caller.actor
        if caller.role is UserRole.SCREEN:
            try:
                given = models.Acknowledge.model_validate(await read_json(request))
            except ValidationError as error:
                raise HTTPException(400, "name: give the person who has seen the alert, 1 to 64 characters") from error
            actor = Actor(kind=ActorKind.PERSON, name=given.name, role=str(UserRole.SCREEN))
        return _json(await self._context.pool.run(self._acknowledge, caller, alert_id, actor))

    async def studies(self, request: Request) -> Response:
        """Studies by Study Instance UID or accession number."""
        asked = [request.query_params.get(name, "") for name in ("study_instance_uid", "accession_number")]
        if not any(asked):
            raise HTTPException(400, "name the study: ?study_instance_uid= or ?accession_number=")
        found = await self._context.pool.run(self._find, caller_of(request), *asked)
        return _json(models.Studies(studies=tuple(found)))

    async def study(self, request: Request) -> Response:
        """One study."""
        caller, study_id = caller_of(request), request.path_params["study_id"]
        found = await self._context.pool.run(self._some, caller, [study_id])
        if not found:
            raise NotFoundError(f"study {study_id} does not exist")
        return _json(found[0])

    async def events(self, request: Request) -> Response:
        """Alerts and studies as they change."""
        feed, caller = self._context.feed, caller_of(request)

        def told(snapshot: Snapshot, after: int, _: bool) -> list[bytes]:  # noqa: FBT001 - as every ``Tell``
            return self._told(caller, feed.missed(after, snapshot.seq, LOUD))

        return sse.EventStream(news(self._context, sse.resume_after(request, feed.snapshot.seq), told))

    # Blocking ----------------------------------------------------------------------------------------------------

    def _health(self, caller: Caller) -> models.Health:
        box = self._store.views.box(caller.sources)
        has_package = any(package.live for package in list(self._context.packages.values()))
        return models.Health(
            version=__version__,
            mode=self._context.config.site.mode,
            ai="down" if box.ai_down_since else "ready" if has_package else "no_package",
            ai_down_since=box.ai_down_since,
            receiving=len(box.receiving),
            analysing=len(box.analysing),
            queued=box.queued,
            issues=tuple(
                models.Problem(code=one.code, severity=one.severity, since_at=one.since_at) for one in box.issues
            ),
        )

    def _alerts(self, caller: Caller) -> models.Alerts:
        seq = self._store.journal.last_seq()
        views, since = self._store.views, self._context.clock.now() - WINDOW
        found = [*views.open_alerts(), *views.closed_alerts(since)]
        sources = views.sources_of({alert.study_id for alert in found})
        own = [one for one in found if not caller.sources or sources.get(one.study_id) in caller.sources]
        # Never of the open ones: a list that ends early would look like silence.
        seen = [one for n, one in enumerate(own) if one.is_open or n < _MOST]
        studies = views.some({alert.study_id for alert in seen})
        told = [self._alert(caller, one, studies[one.study_id]) for one in seen]
        return models.Alerts(seq=seq, alerts=tuple(told))

    def _acknowledge(self, caller: Caller, alert_id: int, actor: Actor) -> models.Alert:
        self._own_alert(caller, alert_id)
        self._store.alerts.acknowledge(alert_id, actor)
        alert, study = self._own_alert(caller, alert_id)
        return self._alert(caller, alert, study)

    def _own_alert(self, caller: Caller, alert_id: int) -> tuple[AlertView, StudyView]:
        alert = self._store.views.alert(alert_id)
        study = self._store.views.some([alert.study_id])[alert.study_id]
        if not _sees(caller, study):
            raise NotFoundError(f"alert {alert_id} does not exist")
        return alert, study

    def _find(self, caller: Caller, study_instance_uid: str, accession_number: str) -> list[models.Study]:
        found = self._store.views.find(study_instance_uid or accession_number)
        views = self._store.views.some(found).values()
        ids = [
            view.id
            for view in views
            if view.study_instance_uid == study_instance_uid
            or (accession_number and view.identity.accession_number == accession_number)
        ]
        return self._some(caller, ids)

    def _some(self, caller: Caller, ids: Iterable[int]) -> list[models.Study]:
        views = [view for view in self._store.views.some(ids).values() if _sees(caller, view)]
        for view in views:
            self._store.audit.accessed("state", caller.actor, study_id=view.id)
        shown = [self._study(view) for view in views]
        return sorted(shown, key=lambda study: study.last_image_at, reverse=True)

    # Rows as answers -----------------------------------------------------------------------------------------------

    def _alert(self, caller: Caller, alert: AlertView, study: StudyView) -> models.Alert:
        versions = {analysis.package: analysis.package_version for analysis in study.live}
        findings = []
        for one in alert.findings:
            if self._context.feed.withholds(scope_of(self._context, caller), one.package):
                findings.append(models.AlertFinding(package=one.package, id="", title=self._both(WITHHELD)))
                continue
            package = text_of(self._context.packages, one.package, versions.get(one.package, ""))
            title, _ = package.words(one.finding)
            findings.append(models.AlertFinding(package=one.package, id=one.finding, title=_text(title)))
        return models.Alert(
            id=alert.id,
            study=study.id,
            study_instance_uid=study.study_instance_uid,
            accession_number=study.identity.accession_number,
            source=study.source,
            category=alert.category,
            is_active=alert.active,
            state=alert.state,
            findings=tuple(findings),
            raised_at=alert.raised_at,
            presented_at=alert.presented_at,
            acknowledged_at=alert.acknowledged_at,
            acknowledged_by=alert.acknowledged_by,
            decided_at=alert.decided_at,
            withdrawn_at=alert.withdrawn_at,
            withdrawn_why=alert.withdrawn_why,
        )

    def _study(self, study: StudyView) -> models.Study:
        if study.outcome is Outcome.NOT_ANALYSED and study.reason:
            said = words.reason(study.reason)[0]
        else:
            said = OUTCOMES.get(study.outcome, _OPEN) if study.outcome else _OPEN
        return models.Study(
            id=study.id,
            study_instance_uid=study.study_instance_uid,
            accession_number=study.identity.accession_number,
            source=study.source,
            images=study.images,
            first_image_at=study.first_at,
            last_image_at=study.last_at,
            state="ended" if study.outcome else "open",
            outcome=study.outcome,
            reason=study.reason,
            text=self._both(said),
            analyses=tuple(
                models.StudyAnalysis(package=a.package, version=a.package_version, outcome=a.outcome, reason=a.reason)
                for a in study.live
            ),
            alert=study.alert.id if study.alert else None,
        )

    def _both(self, said: str) -> models.Text:
        templates = self._context.templates
        return models.Text(en=templates.translated("en", said), zh_Hans=templates.translated("zh_Hans_CN", said))

    # Events --------------------------------------------------------------------------------------------------------

    def _told(self, caller: Caller, facts: list[Fact]) -> list[bytes]:
        """An event for each fact that a program can use, as things stand now."""
        studies = self._store.views.some({fact.study_id for fact in facts if fact.study_id is not None})
        out = []
        for fact in facts:
            study = studies.get(fact.study_id or 0)
            if study is None or not _sees(caller, study):
                continue
            if fact.kind in _ALERTS:
                view = self._alert(caller, self._store.views.alert(fact.body["alert"]), study)
                out.append(sse.event("alert", view.model_dump(mode="json"), seq=fact.seq))
            elif fact.kind is Kind.STUDY_OUTCOME:
                out.append(sse.event("study", self._study(study).model_dump(mode="json"), seq=fact.seq))
        return out


def _sees(caller: Caller, study: StudyView | None) -> bool:
    return study is not None and (not caller.sources or study.source in caller.sources)


def _text(both: Any) -> models.Text:
    english = both.get("en", "")
    return models.Text(en=english, zh_Hans=both.get("zh_Hans") or english)


def _json(answer: models.Answer) -> Response:
    return JSONResponse(answer.model_dump(mode="json"))
