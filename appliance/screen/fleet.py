"""The fleet as the site sees it: what the service team wants to change here, the site's word on it, and the link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError, NotFoundError
from appliance.screen.context import Context
from appliance.screen.models import STATES as PACKAGE_STATES
from appliance.screen.models import STATUSES, USES
from appliance.screen.parts_of_admin import LONGEST_REASON, NO_REASON, stamp
from appliance.screen.tools import FleetJob, FleetLink
from appliance.store.fleet_jobs import ENDED
from appliance.store.package_rows import PackageRow, PackageState
from appliance.web.access import ADMINISTRATORS, KEEPERS, Guarded, caller_of
from appliance.web.app import read_form
from appliance.web.i18n import N_
from engines.errors import EngineError
from engines.manifest import Manifest
from engines.package import parse_manifest

FLEET = "/fleet"
#: What a job asks, as the fleet's server calls it too.
OPS = {
    "ping": N_("Ping"),
    "restart": N_("Restart"),
    "self_test": N_("Self-test"),
    "collect_logs": N_("Collect logs"),
    "resend": N_("Send again"),
    "drain": N_("Drain"),
    "model.install": N_("Install a model"),
    "model.rollback": N_("Go back to the model before"),
    "model.withdraw": N_("Take a model out of service"),
    "cert.renew": N_("Renew the certificate"),
    "root.update": N_("Change the trusted keys"),
    "agent.update": N_("Update the software"),
    "os.update": N_("Update the operating system"),
}
JOB_STATES = {
    "ACCEPTED": N_("Taken by the box"),
    "WAIT_APPROVAL": N_("Waits for approval"),
    "DOWNLOADING": N_("Downloading"),
    "VERIFIED": N_("Verified"),
    "STAGED": N_("Staged"),
    "SELFTEST": N_("In its self-test"),
    "WAIT_IDLE": N_("Waits until the box is idle"),
    "ACTIVATING": N_("Being activated"),
    "SOAKING": N_("Being watched"),
    "SUCCEEDED": N_("Succeeded"),
    "FAILED": N_("Failed"),
    "ROLLED_BACK": N_("Rolled back"),
    "REJECTED": N_("Refused by the box"),
    "CANCELED": N_("Taken back"),
    "TIMED_OUT": N_("Not done in time"),
    "REMOVED": N_("Removed"),
    "ALREADY_INSTALLED": N_("Installed already"),
}
APPROVALS = {
    "vendor": N_("The service team alone approves changes of the AI."),
    "site": N_("The administrator of this box approves changes of the AI."),
    "both": N_("The service team and the administrator of this box approve changes of the AI."),
}
ROLES = {
    "live": N_("Its findings raise alerts and are sent."),
    "silent": N_("It analyses, and nobody is told."),
    "shadow": N_("It runs beside the live version; only whether they agree is kept."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that waits, beside what is here now.

    Attributes:
        job: What was asked.
        now: The version that serves now, or runs, or was taken out of service last; None: none is here.
        to: The version that would serve; empty where nobody can say.
        manifest: Of the version that comes where it lies here already, else of the one of now; None: neither is known.
        is_of_new: Whether the manifest is that of the version that comes.
    """

    job: FleetJob
    now: PackageRow | None
    to: str
    manifest: Manifest | None
    is_of_new: bool


class FleetPages:
    """One page and two acts, which are those of ``scanside fleet``."""

    def __init__(self, context: Context) -> None:
        """Show what the box's tools know of its fleet."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        one = f"{FLEET}/jobs/{{number:int}}"
        return [
            Guarded(FLEET, self.page, roles=KEEPERS),
            Guarded(f"{one}/approve", self.approve, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded(f"{one}/refuse", self.refuse, roles=ADMINISTRATORS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """What waits, how the link stands, what was asked lately."""
        return await self._page(request)

    async def approve(self, request: Request) -> Response:
        """A person of the site says yes."""
        return await self._answer(request, self._store.fleet_jobs.approve)

    async def refuse(self, request: Request) -> Response:
        """A person of the site says no."""
        return await self._answer(request, self._store.fleet_jobs.refuse)

    async def _answer(self, request: Request, act: Any) -> Response:
        why = (await read_form(request)).get("reason", "").strip()[:LONGEST_REASON]
        if not why:
            return await self._page(request, status=422, trouble=NO_REASON)
        number, actor = request.path_params["number"], caller_of(request).actor
        try:
            await self._context.pool.run(partial(act, str(number), actor, why))
        except (ConflictError, NotFoundError) as error:
            return await self._page(request, status=409, trouble=str(error))
        return RedirectResponse(FLEET, 303)

    async def _page(self, request: Request, *, status: int = 200, trouble: str = "") -> Response:
        link, jobs, changes = await self._context.pool.run(self._state)
        fleet = self._context.config.fleet
        return self._context.pages.page(
            request,
            "fleet.html",
            status=status,
            trouble=trouble,
            is_configured=fleet is not None,
            approval=APPROVALS[fleet.approval] if fleet is not None else "",
            link=link,
            jobs=jobs,
            changes=changes,
            may_act=caller_of(request).role in ADMINISTRATORS,
            ops=OPS,
            states=JOB_STATES,
            ended=ENDED,
            roles=ROLES,
            uses=USES,
            statuses=STATUSES,
            package_states=PACKAGE_STATES,
            stamp=stamp,
            now=self._context.clock.now(),
        )

    def _state(self) -> tuple[FleetLink, list[FleetJob], list[Change]]:
        jobs = self._context.tools.fleet_jobs()
        rows = self._store.packages.all()
        # The oldest first: they wait for each other.
        waiting = sorted((job for job in jobs if job.waits), key=lambda job: job.number)
        return self._context.tools.fleet_link(), jobs, [self._change(job, rows) for job in waiting]

    def _change(self, job: FleetJob, rows: Sequence[PackageRow]) -> Change:
        mine = [row for row in rows if row.name == job.package and row.state is not PackageState.REMOVED]
        now = _serves(mine)
        new = next((row for row in reversed(mine) if row.version == job.version), None)
        to = job.version
        if job.op == "model.rollback" and not to:
            new = max((row for row in mine if row.state is PackageState.RETIRED), key=_state_at, default=None)
            to = new.version if new is not None else ""
        elif job.op == "model.withdraw":
            new, to = None, ""
        row = new or now
        return Change(job=job, now=now, to=to, manifest=self._manifest(row) if row else None, is_of_new=new is not None)

    def _manifest(self, row: PackageRow) -> Manifest | None:
        try:
            return parse_manifest(self._store.packages.manifest(row.id).encode(), f"{row.name} {row.version}")
        except EngineError:
            return None


def _state_at(row: PackageRow) -> datetime:
    return row.state_at


def _serves(rows: Sequence[PackageRow]) -> PackageRow | None:
    """Of the versions of one package the one to compare with."""
    for states in ((PackageState.LIVE,), (PackageState.SILENT, PackageState.SHADOW), (PackageState.WITHDRAWN,)):
        for row in reversed(rows):
            if row.state in states:
                return row
    return None
