"""What people see of roll-outs and holds, within what they may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, true

from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.granting import signatures_of
from appliance.fleet.server.rollout.plan import BoxWord, Chosen, Plan, RollOutState, Verdict, WaveState
from appliance.fleet.server.rollout.watch import Box, boxes_of, tally


@dataclass(frozen=True, slots=True, kw_only=True)
class RollOut:
    """A row of the list.

    Attributes:
        wave: Number of the one that runs or ran last; 0 before the first.
        waves: How many there are.
        paused_why: ``plan.Pause``; "" where it does not stand still.
        counts: Boxes by how they fare.
        signatures: Of release keys under its grant.
    """

    id: str
    tenant: str
    package: str
    version: str
    digest: str
    target: str
    role: str
    state: RollOutState
    wave: int
    waves: int
    paused_why: str
    made_by: int
    maker: str
    made_at: datetime
    approved_by: int | None
    approver: str
    approved_at: datetime | None
    state_at: datetime
    counts: dict[BoxWord, int] = field(default_factory=dict)
    signatures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One wave, with what its gates found last."""

    number: int
    name: str
    state: WaveState
    began_at: datetime | None
    ended_at: datetime | None
    counts: dict[BoxWord, int]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollOutPage:
    """All of one roll-out but its boxes (``list_boxes``)."""

    row: RollOut
    chosen: Chosen
    plan: Plan
    waves: tuple[Wave, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollOutBox:
    """A box of a roll-out. ``wave`` 0: of none; ``left_out`` says why. ``before``: the version that served."""

    device: str
    number: int
    name: str
    site: str
    tenant: str
    wave: int
    word: BoxWord
    state: str
    code: str
    percent: float | None
    left_out: str
    before: str
    job: str | None
    revert_job: str | None
    revert_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A clinical freeze of a tenant, a site or a box; ``kind`` says which."""

    number: int
    kind: str
    subject: str
    tenant: str
    why: str
    made_by: int
    maker: str
    made_at: datetime
    until_at: datetime | None
    lifted_at: datetime | None


def list_roll_outs(
    connection: Connection,
    scope: Scope,
    now: datetime,
    *,
    state: RollOutState | None = None,
    package: str = "",
    most: int = 100,
) -> list[RollOut]:
    """The newest first.

    Args:
        connection: Of ``db.read``.
        scope: Of who asks.
        now: The server's clock.
        state: Those alone.
        package: Those of it alone; of all where it is empty.
        most: At most so many.
    """
    which = and_(
        true() if state is None else t.roll_out.c.state == str(state),
        t.roll_out.c.package == package if package else true(),
    )
    rows = connection.execute(_roll_outs(scope, which).limit(most)).all()
    return [_roll_out(connection, row, tally(connection, row, now)) for row in rows]


def get_roll_out(connection: Connection, scope: Scope, ident: str, now: datetime) -> RollOutPage:
    """One of them.

    Raises:
        NotFoundError: There is none, or it is another's; the text is the same.
    """
    row = connection.execute(_roll_outs(scope, t.roll_out.c.id == ident)).first()
    if row is None:
        raise NotFoundError(f"there is no roll-out {ident!r}; 'scanside-fleet rollout list' shows them")
    boxes = boxes_of(connection, row, now)
    waves = connection.execute(select(t.wave).where(t.wave.c.roll_out == ident).order_by(t.wave.c.number))
    return RollOutPage(
        row=_roll_out(connection, row, _counts(boxes)),
        chosen=Chosen.model_validate(row.chosen),
        plan=Plan.model_validate(row.plan),
        waves=tuple(_wave(one, boxes) for one in waves),
    )


def list_boxes(
    connection: Connection,
    scope: Scope,
    ident: str,
    now: datetime,
    *,
    wave: int | None = None,
    word: BoxWord | None = None,
    after: int = 0,
    most: int = 100,
) -> list[RollOutBox]:
    """Its boxes, by number.

    Args:
        connection: Of ``db.read``.
        scope: Of who asks.
        ident: Of the roll-out.
        now: The server's clock.
        wave: Of that wave alone.
        word: Those that fare so.
        after: Behind the box of that number.
        most: At most so many.

    Raises:
        NotFoundError: There is no such roll-out in the scope.
    """
    row = connection.execute(_roll_outs(scope, t.roll_out.c.id == ident)).first()
    if row is None:
        raise NotFoundError(f"there is no roll-out {ident!r}; 'scanside-fleet rollout list' shows them")
    found = [one for one in boxes_of(connection, row, now) if wave in (None, one.wave) and word in (None, one.word)]
    found = sorted((one for one in found if one.number > after), key=lambda one: one.number)[:most]
    return [_box(one) for one in found]


def list_holds(connection: Connection, scope: Scope, now: datetime, *, lifted: bool = False) -> list[Hold]:
    """Holds that stand, newest first; ``lifted``: those of before too."""
    h = t.hold.c
    stands = and_(h.lifted_at.is_(None), or_(h.until_at.is_(None), h.until_at > now))
    owner = func.coalesce(h.tenant, t.site.c.tenant, t.device.c.tenant)
    rows = connection.execute(
        select(t.hold, owner.label("owner"), t.account.c.name.label("maker"))
        .outerjoin(t.site, t.site.c.id == h.site)
        .outerjoin(t.device, t.device.c.id == h.device)
        .outerjoin(t.account, t.account.c.number == h.made_by)
        .where(scope.holds(owner), true() if lifted else stands)
        .order_by(h.number.desc())
    )
    return [
        Hold(
            number=row.number,
            kind="tenant" if row.tenant else "site" if row.site else "device",
            subject=row.tenant or row.site or row.device,
            tenant=row.owner,
            why=row.why,
            made_by=row.made_by,
            maker=row.maker or "",
            made_at=row.made_at,
            until_at=row.until_at,
            lifted_at=row.lifted_at,
        )
        for row in rows
    ]


def _roll_outs(scope: Scope, which: ColumnElement[bool]) -> Any:
    maker, approver = t.account.alias("maker"), t.account.alias("approver")
    c = t.roll_out.c
    return (
        select(t.roll_out, maker.c.name.label("maker"), approver.c.name.label("approver"))
        .outerjoin(maker, maker.c.number == c.made_by)
        .outerjoin(approver, approver.c.number == c.approved_by)
        .where(scope.holds(c.tenant), which)
        .order_by(c.made_at.desc(), c.id.desc())
    )


def _roll_out(connection: Connection, row: Row[Any], counts: dict[BoxWord, int]) -> RollOut:
    names = ("id", "tenant", "package", "version", "digest", "target", "role", "wave", "paused_why")
    return RollOut(
        **{name: getattr(row, name) for name in names},
        state=RollOutState(row.state),
        waves=len(row.plan.get("waves", ())),
        made_by=row.made_by,
        maker=row.maker or "",
        made_at=row.made_at,
        approved_by=row.approved_by,
        approver=row.approver or "",
        approved_at=row.approved_at,
        state_at=row.state_at,
        counts=counts,
        signatures=signatures_of(connection, row.grant_envelope),
    )


def _wave(row: Row[Any], boxes: list[Box]) -> Wave:
    verdicts = (row.verdict or {}).get("verdicts", ())
    return Wave(
        number=row.number,
        name=row.name,
        state=WaveState(row.state),
        began_at=row.began_at,
        ended_at=row.ended_at,
        counts=_counts([one for one in boxes if one.wave == row.number]),
        verdicts=tuple(Verdict.model_validate(one) for one in verdicts),
    )


def _counts(boxes: list[Box]) -> dict[BoxWord, int]:
    found: dict[BoxWord, int] = {}
    for one in boxes:
        found[one.word] = found.get(one.word, 0) + 1
    return found


def _box(one: Box) -> RollOutBox:
    names = ("device", "number", "name", "site", "tenant", "wave", "word", "state", "code", "percent", "left_out")
    return RollOutBox(
        **{name: getattr(one, name) for name in names},
        before=str((one.before or {}).get("version", "")),
        job=one.job,
        revert_job=one.revert_job,
        revert_state=one.revert_state,
    )
