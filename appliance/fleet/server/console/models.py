"""Models: which versions there are, on how many boxes each runs and in which role, and in whose hospitals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from appliance.fleet.server import tables as t
from appliance.fleet.server.console import words
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.figures import newest_first
from appliance.fleet.server.console.roles import EVERYBODY, HANDS
from appliance.fleet.server.models import list_models
from appliance.fleet.server.registry import DeviceState, Scope
from appliance.web.access import Guarded

_MOST_TENANTS = 200


@dataclass(slots=True)
class Spread:
    """Where a version is.

    Attributes:
        roles: Boxes on which it serves, by role.
        kept: Boxes that have it and on which it does not serve.
        withdrawn: Boxes that took it out of service, or back.
        tenants: Boxes on which it serves, by tenant.
        published: Its row in the server's list; None where it never was in it, as what the box's software brings along.
    """

    package: str
    version: str
    roles: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    withdrawn: int = 0
    tenants: dict[str, int] = field(default_factory=dict)
    published: Any = None

    @property
    def serves(self) -> int:
        """Boxes on which it serves, in any role."""
        return sum(self.roles.values())


class ModelPages:
    """Models of the boxes that somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/models", self.list, roles=EVERYBODY),
            Guarded("/models/{package}", self.page, roles=EVERYBODY),
        ]

    async def list(self, request: Request) -> Response:
        """Each version with the boxes on which it serves."""
        scope = caller_of(request).scope
        found, boxes = await self._context.read(_spread, scope)
        return self._page(request, "models.html", found=found, boxes=sum(boxes.values()))

    async def page(self, request: Request) -> Response:
        """One model: its versions, tenant by tenant."""
        scope, package = caller_of(request).scope, str(request.path_params["package"])
        found, boxes = await self._context.read(_spread, scope, package)
        if not found:
            raise HTTPException(404, "there is no such model")
        names = await self._context.read(_tenants, scope)
        return self._page(request, "model.html", found=found, boxes=boxes, names=names, package=package)

    def _page(self, request: Request, template: str, **values: Any) -> Response:
        may_act = caller_of(request).role in HANDS
        return self._context.pages.page(request, template, w=words, may_act=may_act, **values)


def _spread(connection: Connection, scope: Scope, package: str = "") -> tuple[list[Spread], dict[str, int]]:
    """Versions in order, and how many boxes each tenant has. What boxes can fetch, everybody may know."""
    p, d = t.package_state.c, t.device.c
    ours = (d.state == str(DeviceState.ENROLLED), scope.holds(d.tenant))
    n = func.count().label("n")
    key = (p.package, p.version, p.serves, p.role, p.state, d.tenant)
    asked = select(*key, n).join(t.device, d.id == p.device).where(*ours).group_by(*key)
    found: dict[tuple[str, str], Spread] = {}
    for row in list_models(connection):
        if package in ("", row.package):
            found[row.package, row.version] = Spread(row.package, row.version, published=row)
    for row in connection.execute(asked.where(p.package == package) if package else asked):
        one = found.setdefault((row.package, row.version), Spread(row.package, row.version))
        if row.serves:
            one.roles[row.role] = one.roles.get(row.role, 0) + row.n
            one.tenants[row.tenant] = one.tenants.get(row.tenant, 0) + row.n
        elif row.state in {"withdrawn", "rolled_back"}:
            one.withdrawn += row.n
        else:
            one.kept += row.n
    counted = select(d.tenant, func.count()).where(*ours)
    boxes = {tenant: int(many) for tenant, many in connection.execute(counted.group_by(d.tenant))}
    return sorted(found.values(), key=lambda one: (one.package, newest_first(one.version))), boxes


def _tenants(connection: Connection, scope: Scope) -> dict[str, str]:
    c = t.tenant.c
    rows = connection.execute(select(c.id, c.name).where(scope.holds(c.id)).order_by(c.path).limit(_MOST_TENANTS))
    return {row.id: row.name for row in rows}
