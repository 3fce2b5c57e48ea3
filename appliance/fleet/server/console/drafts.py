"""A new roll-out: which version, to which boxes, through which gates. As a draft it tells nobody anything."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import words
from appliance.fleet.server.console.callers import FleetCaller, caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import HANDS
from appliance.fleet.server.models import get_model, list_models
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.acts import make
from appliance.fleet.server.rollout.plan import Chosen, Gates, Plan
from appliance.web.access import Guarded
from appliance.web.app import Form, read_form

MODALITIES = ("CT", "CR", "DX")
ROLES = ("silent", "shadow", "live")
#: Fields of the form that are numbers: the part of the plan that each is of, and by how much it is more there.
NUMBERS: dict[str, tuple[str, float]] = {
    "canaries": ("chosen", 1),
    "max_failed": ("gates", 0.01),
    "failed_from": ("gates", 1),
    "min_ended": ("gates", 1),
    "alert_factor": ("gates", 1),
    "alpha": ("gates", 1),
    "power": ("gates", 1),
    "latency_factor": ("gates", 1),
    "soak_h": ("plan", 1),
    "soak_studies": ("plan", 1),
    "patience_h": ("plan", 1),
    "per_minute": ("plan", 1),
}
_LISTS = ("sites", "devices", "lab", "countries")
_MOST_TENANTS = 1000
#: A market that is a country (ISO 3166).
_CODE = 2
_LONGEST = 4000
_INTEGERS = frozenset({"canaries", "failed_from", "min_ended", "soak_studies", "per_minute"})


class DraftPages:
    """The form of a new roll-out."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/rollouts/new", self.page, roles=HANDS),
            Guarded("/rollouts", self.make, roles=HANDS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Empty, or for a package."""
        return await self._page(request, {"package": request.query_params.get("package", "")[:80]})

    async def make(self, request: Request) -> Response:
        """Draw it up; what does not fit is said at its field."""
        form = await read_form(request)
        given = {name: form.get(name, "") for name in (*NUMBERS, *_LISTS, "model", "role", "tenant")}
        given |= {name: "1" for name in MODALITIES if form.get(name)}
        documents, wrong = read_documents(form)
        if documents is None:
            return await self._page(request, given, wrong=wrong, status=400)
        try:
            ident = await self._context.write(_made, caller_of(request), form, documents, self._context.clock.now())
        except (ConflictError, NotFoundError) as error:
            return await self._page(request, given, refused=str(error), status=409)
        return RedirectResponse(f"/rollouts/{ident}", 303)

    async def _page(
        self,
        request: Request,
        given: dict[str, str],
        *,
        wrong: frozenset[str] = frozenset(),
        refused: str = "",
        status: int = 200,
    ) -> Response:
        read = await self._context.read(_choices, caller_of(request).scope)
        usual = {name: _usual(name) for name in NUMBERS}
        return self._context.pages.page(
            request,
            "rollout-new.html",
            status=status,
            given=given,
            usual=usual,
            wrong=wrong,
            refused=refused,
            modalities=MODALITIES,
            roles=ROLES,
            w=words,
            **read,
        )


def read_documents(form: Form) -> tuple[tuple[Chosen, Plan] | None, frozenset[str]]:
    """What a form chooses and plans, or which of its fields do not fit."""
    parts: dict[str, dict[str, Any]] = {"chosen": {}, "gates": {}, "plan": {}}
    wrong = {name for name in NUMBERS if not _put(parts, name, form.get(name, "").strip())}
    for name in _LISTS:
        parts["chosen"][name] = tuple(filter(None, re.split(r"[\s,;]+", form.get(name, "")[:_LONGEST])))
    parts["chosen"]["countries"] = tuple(one.upper() for one in parts["chosen"]["countries"])
    parts["chosen"]["modalities"] = tuple(name for name in MODALITIES if form.get(name))
    wrong |= {name for name, known in (("role", ROLES),) if form.get(name) not in known}
    wrong |= {"model"} if " " not in form.get("model", "") else set()
    if wrong:
        return None, frozenset(wrong)
    try:
        chosen = Chosen.model_validate(parts["chosen"])
        plan = Plan(gates=Gates.model_validate(parts["gates"]), **parts["plan"])
    except ValidationError as error:
        return None, frozenset(str(one["loc"][0]) for one in error.errors() if one["loc"])
    return (chosen, plan), frozenset()


def _put(parts: dict[str, dict[str, Any]], name: str, text: str) -> bool:
    part, unit = NUMBERS[name]
    if not text:
        return True
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,4})?", text) or (name in _INTEGERS and "." in text):
        return False
    parts[part][name] = int(text) if name in _INTEGERS else float(text) * unit
    return True


def _usual(name: str) -> str:
    part, unit = NUMBERS[name]
    kind: Any = {"chosen": Chosen, "gates": Gates, "plan": Plan}[part]
    return f"{kind.model_fields[name].default / unit:g}"


def _made(
    connection: Connection, caller: FleetCaller, form: Form, documents: tuple[Chosen, Plan], now: datetime
) -> str:
    package, _, version = form.get("model", "").partition(" ")
    model = get_model(connection, package, version)
    if model.withdrawn_at is not None:
        raise ConflictError(f"{package} {version} was withdrawn; no box can fetch it")
    role: Any = form.get("role")
    chosen, plan = documents
    if not chosen.countries:
        markets = tuple(one for one in model.markets or () if len(one) == _CODE)
        chosen = chosen.model_copy(update={"countries": markets})
    return make(
        connection,
        caller.scope,
        tenant=form.get("tenant", ""),
        package=package,
        version=version,
        digest=model.digest,
        target=model.target,
        role=role,
        chosen=chosen,
        plan=plan,
        account=caller.account.number,
        actor=caller.account.name,
        now=now,
    )


def _choices(connection: Connection, scope: Scope) -> dict[str, Any]:
    c = t.tenant.c
    tenants = connection.execute(select(t.tenant).where(scope.holds(c.id)).order_by(c.path).limit(_MOST_TENANTS)).all()
    return {"models": [row for row in list_models(connection) if row.withdrawn_at is None], "tenants": tenants}
