"""The site's settings: sections as forms or as text, checked before they are written, with what changes and why."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from appliance.config import Config
from appliance.errors import ApplianceError, ConfigError, ConflictError, NotFoundError
from appliance.screen.context import Context
from appliance.screen.parts_of_admin import LONGEST_REASON, NO_REASON
from appliance.screen.tools import Unavailable
from appliance.settings import LONGEST, Proposal, Settings, from_yaml, known_sections, to_yaml
from appliance.web.access import ADMINISTRATORS, Guarded, caller_of
from appliance.web.app import Form, read_form
from appliance.web.guard import LOOPBACK_NAMES, without_port
from appliance.web.i18n import LOCALES, N_

TITLES: dict[str, tuple[str, str]] = {
    "site": (N_("Site"), N_("Name, language, evaluation or clinical.")),
    "dicom": (N_("Reception of images"), N_("AE title, port and limits of the receiver.")),
    "sources": (N_("Scanners"), N_("Who may send, from where, and how.")),
    "destinations": (N_("Destinations"), N_("Who gets images and results.")),
    "packages": (N_("Packages"), N_("Which models of this software run.")),
    "worklist": (N_("Worklist"), N_("The RIS's modality worklist.")),
    "completeness": (N_("Completeness"), N_("When a series is taken as whole without better evidence.")),
    "retention": (N_("Retention"), N_("How long images, results and journal are kept.")),
    "screen": (N_("Screens"), N_("Address, port and certificate of these pages; escalation of alerts (as text).")),
    "alert_sinks": (N_("Lights and messages"), N_("Who else is told of an alert: a light, a buzzer, a web service.")),
    "review": (N_("Review"), N_("What stands in reviewed reports.")),
}
LABELS = {
    "site.name": N_("Name on every page"),
    "site.mode": N_("Mode"),
    "site.language": N_("Language"),
    "site.profile": N_("Country profile"),
    "site.radiologist_phone": N_("Telephone of the radiologist"),
    "site.service_phone": N_("Telephone of service"),
    "review.organization": N_("Organisation in reviewed reports"),
    "dicom.ae_title": N_("AE title of this box"),
    "dicom.host": N_("Address it listens on (0.0.0.0: all of this machine's)"),
    "dicom.port": N_("Port"),
    "dicom.require_called_ae": N_("Refuse who calls another AE title than ours"),
    "dicom.unknown_sources": N_("Scanners that are not listed"),
    "dicom.max_associations": N_("Associations at once"),
    "dicom.max_associations_per_host": N_("Associations at once of one machine"),
    "dicom.max_object_bytes": N_("Largest image in bytes"),
    "dicom.pdu_deadline_s": N_("Seconds for a whole PDU"),
    "dicom.network_timeout_s": N_("Seconds until an idle association is ended"),
    "dicom.mpps": N_("Take performed procedure steps (MPPS)"),
    "completeness.quiet_min_s": N_("Quiet at least, in seconds"),
    "completeness.quiet_max_s": N_("Quiet at most, in seconds"),
    "retention.images_h": N_("Images, in hours after the last thing owed"),
    "retention.results_days": N_("Results, in days"),
    "retention.journal_days": N_("Journal, in days"),
    "screen.host": N_("Address it listens on (0.0.0.0: all of this machine's)"),
    "screen.port": N_("Port"),
}
#: Codes of choices in words; languages have names of their own.
OPTIONS: dict[str, dict[str, str]] = {
    "site.mode": {
        "evaluation": N_("Evaluation, not for patient care"),
        "clinical": N_("Clinical: cleared packages only"),
    },
    "site.language": {locale: own_name for locale, (_, own_name) in LOCALES.items()},
    "site.profile": {
        "none": N_("No country's rules"),
        "cn": N_("China"),
        "us": N_("United States"),
        "eu": N_("European Union"),
    },
    "dicom.unknown_sources": {"refuse": N_("Refuse"), "accept": N_("Take their images")},
}
LOCKED_OUT = (
    "with these settings the box would no longer answer at the address by which you opened this page; keep its name in"
    " screen.names and its address in screen.host, or open the page by the new address first"
)
#: screen.host of all addresses of this machine.
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on
TOO_LONG = f"settings have at most {LONGEST} characters; is this the right file? Give one that 'Export YAML' made"
OVERTAKEN = N_(
    "Somebody else has changed the settings since you opened this page. Look again at what is to change before you"
    " save."
)
NOT_HERE = N_(
    "This box was not started from files, so its settings cannot be changed here. Start it with 'scanside run"
    " --config FILE'."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One value of a section as a form shows it."""

    key: str
    label: str
    #: text | number | check | choice
    kind: str
    value: Any
    #: Code and word of each.
    options: tuple[tuple[str, str], ...] = ()


class SettingsPages:
    """Pages of the settings; nothing is written that was not shown as a difference before."""

    def __init__(self, context: Context) -> None:
        """Change the settings of the box behind ``context.tools``."""
        self._context = context
        #: Tells this run of the box from the next.
        self._run = secrets.token_hex(8)

    def routes(self) -> list[Guarded]:
        """The addresses."""
        act = {"roles": ADMINISTRATORS, "methods": ["POST"]}
        return [
            Guarded("/settings", self.begin, roles=ADMINISTRATORS),
            Guarded("/settings/export.yaml", self.export, roles=ADMINISTRATORS),
            Guarded("/settings/file", self.file, roles=ADMINISTRATORS),
            Guarded("/settings/file", self.check_file, **act),  # type: ignore[arg-type]
            Guarded("/settings/save", self.save, **act),  # type: ignore[arg-type]
            Guarded("/settings/restart", self.restart, **act),  # type: ignore[arg-type]
            Guarded("/settings/run", self.run, roles=ADMINISTRATORS),
            Guarded("/settings/{section}", self.page, roles=ADMINISTRATORS),
            Guarded("/settings/{section}", self.check, **act),  # type: ignore[arg-type]
        ]

    async def begin(self, _: Request) -> Response:
        """To the first section."""
        return RedirectResponse("/settings/site", 303)

    async def page(self, request: Request) -> Response:
        """One section, as a form where it is a list of plain values, else as text."""
        return await self._section(request)

    async def file(self, request: Request) -> Response:
        """The whole file as text: to import what was exported elsewhere."""
        text = await self._context.pool.run(self._settings().text)
        return await self._page(request, "file", text=text, fields=())

    async def export(self, request: Request) -> Response:
        """The file as it is; that it left the box stands in the journal."""
        text = await self._context.pool.run(self._settings().text)
        await self._context.pool.run(self._context.store.audit.accessed, "settings export", caller_of(request).actor)
        headers = {"Content-Disposition": 'attachment; filename="site.yaml"'}
        return Response(text, media_type="application/yaml", headers=headers)

    async def check(self, request: Request) -> Response:
        """Check other values of one section and show what would change."""
        name, given = self._name(request), await _form(request)
        text = given.get("text", "")
        if await self._is_overtaken(given):
            return await self._section(request, status=409, trouble=OVERTAKEN, text=text or None)
        try:
            if "text" in given:
                proposal = await self._context.pool.run(self._settings().propose_text, name, text)
            else:
                value = await self._context.pool.run(self._formed, name, given)
                proposal = await self._context.pool.run(self._settings().propose, {name: value})
        except ConfigError as error:
            return await self._section(request, status=422, trouble=str(error), text=text or None)
        return await self._diff(request, name, proposal)

    async def check_file(self, request: Request) -> Response:
        """The same of a whole file."""
        given = await _form(request)
        text = given.get("text", "")
        if await self._is_overtaken(given):
            return await self._page(request, "file", status=409, trouble=OVERTAKEN, text=text, fields=())
        try:
            proposal = await self._context.pool.run(self._settings().proposal_of, text)
        except ConfigError as error:
            return await self._page(request, "file", status=422, trouble=str(error), text=text, fields=())
        return await self._diff(request, "file", proposal)

    async def save(self, request: Request) -> Response:
        """Write what was shown, with its reason."""
        given = await _form(request)
        name, reason = given.get("section", "site"), given.get("reason", "").strip()[:LONGEST_REASON]
        try:
            proposal = await self._context.pool.run(self._settings().proposal_of, given.get("text", ""))
            if not reason:
                return await self._diff(request, name, proposal, status=422, trouble=NO_REASON)
            if given.get("before", "") != proposal.before:
                raise ConflictError(OVERTAKEN)
            await self._context.pool.run(keep, self._context, proposal, reason, request)
        except ApplianceError as error:
            return await self._page(
                request, "file", status=409, trouble=str(error), text=given.get("text", ""), fields=()
            )
        where = name if name in known_sections() else "site"
        return RedirectResponse(f"/settings/{where}", 303)

    async def restart(self, request: Request) -> Response:
        """End the box so that it starts with its new settings."""
        given = await read_form(request)
        if not self._context.tools.restarts:
            raise Unavailable("this box cannot be restarted from here")
        await self._context.pool.run(self._context.store.settings.restart_asked, caller_of(request).actor)
        answer = self._context.pages.page(
            request,
            "restarting.html",
            by=self._context.tools.restarts,
            run=self._run,
            onward="/setup" if given.get("onward") == "setup" else "/settings",
        )
        self._context.tools.restart()
        return answer

    async def run(self, _: Request) -> Response:
        """Which run of the box answers: one that ends does so for a while."""
        return PlainTextResponse(self._run)

    # Inside ----------------------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        settings = self._context.tools.settings
        if settings is None:
            raise Unavailable(NOT_HERE)
        return settings

    async def _is_overtaken(self, given: Form) -> bool:
        """Whether the settings were changed since the form was shown: what it did not touch would be set back."""
        return given.get("before") not in {None, await self._context.pool.run(lambda: self._settings().digest)}

    def _name(self, request: Request) -> str:
        name: str = request.path_params["section"]
        if name not in known_sections():
            raise NotFoundError(f"the settings have no section {name!r}")
        return name

    async def _section(
        self, request: Request, *, status: int = 200, trouble: str = "", text: str | None = None
    ) -> Response:
        name = self._name(request)
        value = await self._context.pool.run(self._settings().section, name)
        fields = await self._context.pool.run(form_of, self._settings().next_config(), name)
        as_text = not fields or request.query_params.get("as") == "text" or text is not None
        return await self._page(
            request,
            name,
            status=status,
            trouble=trouble,
            text=text if text is not None else to_yaml(value),
            fields=() if as_text else fields,
            has_form=bool(fields),
        )

    def _formed(self, name: str, given: Form) -> dict[str, Any]:
        """The section with what the form changed; what stands at its default is not written."""
        settings = self._settings()
        value = dict(settings.section(name) or {})
        for field in form_of(settings.next_config(), name):
            if field.kind != "check" and field.key not in given:
                continue
            new: Any = given.get(field.key, "")
            if field.kind == "check":
                new = field.key in given
            elif field.kind == "number":
                try:
                    new = from_yaml(new.strip()) if new.strip() else field.value
                except ConfigError:
                    new = new.strip()
            if new != field.value:
                value[field.key] = new
        return value

    async def _diff(
        self, request: Request, name: str, proposal: Proposal, *, status: int = 200, trouble: str = ""
    ) -> Response:
        return self._context.pages.page(
            request,
            "settings-diff.html",
            status=status,
            proposal=proposal,
            section=name,
            trouble=trouble,
            titles=TITLES,
        )

    async def _page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
        settings = self._settings()
        pending = await self._context.pool.run(lambda: settings.is_pending)
        shown: Mapping[str, Any] = {"trouble": "", "has_form": False} | values
        return self._context.pages.page(
            request,
            "settings.html",
            status=status,
            is_misfit=status == 422,
            section=name,
            sections=known_sections(),
            titles=TITLES,
            pending=pending,
            before=await self._context.pool.run(lambda: settings.digest),
            broken=settings.loaded.broken,
            files=[str(path) for path in (settings.loaded.base, settings.loaded.site) if path] + [str(settings.path)],
            restarts=self._context.tools.restarts,
            **shown,
        )


def keep(context: Context, proposal: Proposal, reason: str, request: Request) -> None:
    """Write a proposal and tell the journal; in the pool.

    Raises:
        ConflictError: Nothing changes, no reason is given, or the box would answer no more where this was asked.
        ConfigError: The file changed meanwhile.
    """
    settings = context.tools.settings
    if settings is None:
        raise Unavailable(NOT_HERE)
    if not _answers(context.config, proposal.config, request):
        raise ConflictError(LOCKED_OUT)
    context.store.settings.change(
        proposal.sections,
        reason,
        proposal.before,
        proposal.digest,
        partial(settings.write, proposal),
        caller_of(request).actor,
    )


def _answers(now: Config, new: Config, request: Request) -> bool:
    """Whether this very request would still be answered under the new settings."""
    name, host = without_port(request.headers.get("host", "")), new.screen.host
    if name in LOOPBACK_NAMES:
        return True
    if name not in {one.lower() for one in new.screen.names}:
        return False
    if host == now.screen.host or host in EVERYWHERE:
        return True
    # Where the connection of this request ends: behind a proxy of this machine that is loopback.
    return bool(host == (request.scope.get("server") or ("",))[0])


def form_of(config: Config, name: str) -> tuple[FormField, ...]:
    """The plain values of a section; empty where it is a list or may be left out whole."""
    section = getattr(config, name, None)
    if not isinstance(section, BaseModel):
        return ()
    fields = []
    for key, field in type(section).model_fields.items():
        value, kind = getattr(section, key), field.annotation
        label = LABELS.get(f"{name}.{key}", "")
        if get_origin(kind) is Literal:
            told = OPTIONS.get(f"{name}.{key}", {})
            options = tuple((str(code), told.get(str(code), "")) for code in get_args(kind))
            fields.append(FormField(key=key, label=label, kind="choice", value=value, options=options))
        elif isinstance(value, bool):
            fields.append(FormField(key=key, label=label, kind="check", value=value))
        elif isinstance(value, int | float):
            fields.append(FormField(key=key, label=label, kind="number", value=value))
        elif isinstance(value, str):
            fields.append(FormField(key=key, label=label, kind="text", value=str(value)))
    return tuple(fields)


async def _form(request: Request) -> Form:
    """The fields of a form that may hold a whole file, each of whose characters may take nine bytes on the way."""
    try:
        return await read_form(request, most=10 * LONGEST)
    except HTTPException as error:
        if error.status_code == 413:
            raise HTTPException(413, TOO_LONG) from error
        raise
