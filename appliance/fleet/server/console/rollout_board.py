"""What pages of roll-outs show beside ``rollout.query``: coverage, who did what, and what is on its way to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, distinct, func, select
from sqlalchemy.engine import Row

from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import query
from appliance.fleet.server.rollout.plan import BoxWord, RollOutState
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import ENDED

PAGE = 50
_ACTS = 100
_COMING = 100
_LISTED = 20
_CANARIES = "canaries"
_MODELS = (str(Op.MODEL_INSTALL), str(Op.MODEL_ROLLBACK), str(Op.MODEL_WITHDRAW))


@dataclass(frozen=True, slots=True)
class Covered:
    """A make and model of a source, or a kind of hardware: boxes of the roll-out that have it, and canaries of them."""

    kind: str
    name: str
    boxes: int
    canaries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One roll-out, as its page shows it."""

    page: query.RollOutPage
    covered: Sequence[Covered]
    boxes: Sequence[query.RollOutBox]
    after: int
    acts: Sequence[Row[Any]]
    tenant: str
    sites: Mapping[str, str]


def board_of(
    connection: Connection,
    scope: Scope,
    ident: str,
    *,
    wave: int | None,
    word: BoxWord | None,
    after: int,
    now: datetime,
) -> Board:
    """Read it.

    Raises:
        NotFoundError: There is none of that id in the scope.
    """
    page = query.get_roll_out(connection, scope, ident, now)
    found = query.list_boxes(connection, scope, ident, now, wave=wave, word=word, after=after, most=PAGE + 1)
    shown = found[:PAGE]
    s = t.site.c
    places = select(s.id, s.name).where(s.id.in_({one.site for one in shown}))
    return Board(
        page=page,
        covered=_covered(connection, ident, next((one.number for one in page.waves if one.name == _CANARIES), 0)),
        boxes=shown,
        after=shown[-1].number if len(found) > PAGE else 0,
        acts=_acts(connection, ident),
        tenant=connection.execute(select(t.tenant.c.name).where(t.tenant.c.id == page.row.tenant)).scalar() or "",
        sites={row.id: row.name for row in connection.execute(places)},
    )


def listed(
    connection: Connection, scope: Scope, *, state: RollOutState | None, package: str, now: datetime
) -> list[query.RollOut]:
    """The newest of a package, or of all; each is counted over all its boxes, so there are few."""
    return query.list_roll_outs(connection, scope, now, state=state, package=package, most=_LISTED)


def coming(connection: Connection, scope: Scope) -> list[Row[Any]]:
    """Changes of models that are on their way to boxes in the scope, by jobs that have not ended, the newest first."""
    j, d = t.job.c, t.device.c
    asked = (
        select(t.job, d.number, d.site, d.tenant, t.site.c.name.label("site_name"))
        .join(t.device, d.id == j.device)
        .join(t.site, t.site.c.id == d.site)
        .where(j.op.in_(_MODELS), j.state.not_in([str(one) for one in ENDED]), scope.holds(d.tenant))
    )
    return list(connection.execute(asked.order_by(j.made_at.desc(), j.id).limit(_COMING)))


def _covered(connection: Connection, ident: str, canaries: int) -> list[Covered]:
    w, e, d = t.wave_device.c, t.equipment.c, t.device.c
    boxes = func.count(distinct(w.device)).label("boxes")
    early = func.count(distinct(case((w.wave.between(1, canaries), w.device)))).label("canaries")
    whole = (w.roll_out == ident, w.wave > 0)
    sources = (
        select(e.modality, e.make, e.model, boxes, early)
        .join(t.equipment, e.device == w.device)
        .where(*whole)
        .group_by(e.modality, e.make, e.model)
        .order_by(e.modality, e.make, e.model)
    )
    found = [
        Covered(row.modality, f"{row.make} {row.model}".strip(), row.boxes, row.canaries)
        for row in connection.execute(sources)
    ]
    hardware = select(d.hardware, boxes, early).join(t.device, d.id == w.device).where(*whole, d.hardware != "")
    found += [
        Covered("", row.hardware, row.boxes, row.canaries)
        for row in connection.execute(hardware.group_by(d.hardware).order_by(d.hardware))
    ]
    return found


def _acts(connection: Connection, ident: str) -> list[Row[Any]]:
    c = t.audit.c
    asked = select(c.at, c.actor, c.act, c.detail).where(c.subject == ident).order_by(c.number.desc()).limit(_ACTS)
    return list(connection.execute(asked))
