"""The page of one box: how it fares, what it did, what it is told; and acts on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, BinaryIO

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from appliance.errors import NotFoundError
from appliance.fleet.server import query
from appliance.fleet.server.acts import make_job
from appliance.fleet.server.console import issue_acts, words
from appliance.fleet.server.console.boards import RESULTS, board_of
from appliance.fleet.server.console.callers import FleetCaller, caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import EVERYBODY, HANDS
from appliance.fleet.server.console.sentences import sentence, total
from appliance.fleet.server.console.sites import DAYS
from appliance.fleet.server.registry import write_audit
from appliance.fleet.server.uploads import list_uploads, open_upload
from appliance.fleet.wire import JobArgs, Op
from appliance.web.access import Guarded
from appliance.web.app import Form, read_form
from appliance.web.issue_words import ISSUES

_TIMELINE = 50
#: Kinds that come too often to be read one by one: plots and tables show them.
_OFTEN = frozenset({"health", "results", "study"})
_TOLD = ("issue", "daemon", "package", "engine", "job", "gap", "access", "anchor", "equipment")
RANGES: dict[str, timedelta] = {
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}
#: What is plotted: name in the answer, and where in a ``HealthRollup``.
SERIES: dict[str, tuple[str, ...]] = {
    "cpu": ("machine", "cpu"),
    "gpu": ("machine", "gpu"),
    "memory": ("machine", "memory"),
    "disk": ("machine", "disk"),
    "temperature": ("machine", "temperature_c"),
    "gpu_temperature": ("machine", "gpu_temperature_c"),
    "studies": ("studies",),
    "waiting": ("waiting",),
    "oldest": ("oldest_owed_s",),
    "p50": ("ms", "p50"),
    "p95": ("ms", "p95"),
}
_LONGEST_WHY = 200
_MOST_POINTS = 600
_PIECE = 64 * 1024
_FIVE_MINUTES = timedelta(minutes=5)
_SHELF_H = (1, 24, 168)


class DevicePages:
    """One box, of those that somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/devices/{device}", self.page, roles=EVERYBODY),
            Guarded("/devices/{device}/points", self.points, roles=EVERYBODY),
            Guarded("/devices/{device}/timeline", self.timeline, roles=EVERYBODY),
            Guarded("/devices/{device}/jobs", self.job, roles=HANDS, methods=["POST"]),
            Guarded("/devices/{device}/logs/{job}", self.logs, roles=HANDS),
            Guarded("/devices/{device}/issues/{ref}/seen", self.seen, roles=HANDS, methods=["POST"]),
            Guarded("/devices/{device}/issues/{ref}/later", self.later, roles=HANDS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """All of it but plots and timeline, which come by themselves."""
        return await self._page(request)

    async def points(self, request: Request) -> Response:
        """What the plots draw."""
        span = RANGES.get(request.query_params.get("range", ""), RANGES["day"])
        now = self._context.clock.now()
        # A point each five minutes: a month of them is 8,640.
        rows = await self._context.read(
            query.points, caller_of(request).scope, _device(request), since=now - span, until=now, most=10_000
        )
        step = max(1, -(-len(rows) // _MOST_POINTS))
        points = with_gaps(rows[::-1][::step][::-1], step * _FIVE_MINUTES)
        offset = datetime.now().astimezone().utcoffset() or timedelta()
        return JSONResponse(
            {
                "at": [int(at.timestamp()) for at, _ in points],
                "from": int((now - span).timestamp()),
                "to": int(now.timestamp()),
                "offset_min": int(offset.total_seconds() // 60),
                **{name: [_at(body, path) for _, body in points] for name, path in SERIES.items()},
            }
        )

    async def timeline(self, request: Request) -> Response:
        """What the box said, the latest first; further back on request."""
        asked = request.query_params
        kinds = (*_TOLD, *sorted(_OFTEN)) if asked.get("all") == "1" else _TOLD
        before = _before(asked.get("before", ""))
        rows = await self._context.read(
            query.timeline,
            caller_of(request).scope,
            _device(request),
            before=before,
            kinds=kinds,
            limit=_TIMELINE,
        )
        gettext = self._context.gettext(request)
        further = f"{rows[-1].number}.{rows[-1].seq}" if len(rows) == _TIMELINE else ""
        return self._context.pages.page(
            request,
            "timeline.html",
            rows=[(row, sentence(row.k, row.body, gettext)) for row in rows],
            further=further,
            all=asked.get("all", ""),
            device=_device(request),
            is_first=before is None,
        )

    async def job(self, request: Request) -> Response:
        """Give it a job; the reason stands in the audit."""
        form = await read_form(request)
        caller, why = caller_of(request), _why(form)
        op = next((one for one in words.ACTS if str(one) == form.get("op")), None)
        if op is None:
            raise HTTPException(400, "there is no such act")
        if not why:
            return await self._page(request, wrong=str(op), status=400)
        args = JobArgs()
        if op is Op.RESEND:
            number = form.get("after_seq", "")
            if not (number.isascii() and number.isdigit() and len(number) <= 15):
                return await self._page(request, wrong=str(op), status=400)
            args = JobArgs(after_seq=int(number))
        await self._context.write(self._make_job, caller, _device(request), op, args, why)
        return _back(request, "jobs")

    async def logs(self, request: Request) -> Response:
        """Logs that came for a job, as a file; who took them stands in the audit."""
        caller, now = caller_of(request), self._context.clock.now()
        job, device = str(request.path_params["job"]), _device(request)
        file = await self._context.write(self._open_logs, caller, device, job, now)
        name = f"logs_{device}_{job}.zip"
        held = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return StreamingResponse(_pieces(file), media_type="application/zip", headers=held)

    async def seen(self, request: Request) -> Response:
        """Somebody has seen an issue."""
        caller = caller_of(request)
        await self._context.write(
            issue_acts.acknowledge,
            caller.scope,
            _device(request),
            request.path_params["ref"],
            now=self._context.clock.now(),
            actor=caller.account.name,
            by=caller.account.number,
        )
        return _back(request, "issues")

    async def later(self, request: Request) -> Response:
        """Somebody wants to hear of an issue again in some hours."""
        form = await read_form(request)
        caller, why, now = caller_of(request), _why(form), self._context.clock.now()
        hours = next((one for one in _SHELF_H if str(one) == form.get("hours")), None)
        if hours is None or not why:
            return await self._page(request, wrong=request.path_params["ref"], status=400)
        await self._context.write(
            issue_acts.shelve,
            caller.scope,
            _device(request),
            request.path_params["ref"],
            now + timedelta(hours=hours),
            why=why,
            now=now,
            actor=caller.account.name,
            by=caller.account.number,
        )
        return _back(request, "issues")

    def _make_job(
        self, connection: Connection, caller: FleetCaller, device: str, op: Op, args: JobArgs, why: str
    ) -> None:
        now, who, number = self._context.clock.now(), caller.account.name, caller.account.number
        job = make_job(connection, self._context.keys, caller.scope, device, op, args, now=now, by=number, actor=who)
        tenant = query.device(connection, caller.scope, device, now=now).row.tenant
        told = {"device": device, "op": str(op), "why": why}
        write_audit(
            connection, act="job.why", subject=job.id, actor=who, account=number, tenant_id=tenant, now=now, detail=told
        )

    def _open_logs(self, connection: Connection, caller: FleetCaller, device: str, job: str, now: datetime) -> BinaryIO:
        number, name = caller.account.number, caller.account.name
        if all(one.job != job for one in list_uploads(connection, caller.scope, device)):
            raise NotFoundError(f"there are no logs of job {job!r}")
        folder = self._context.folder
        return open_upload(connection, caller.scope, folder, job, now=now, by=number, actor=name)[1]

    async def _page(self, request: Request, *, wrong: str = "", status: int = 200) -> Response:
        caller, now = caller_of(request), self._context.clock.now()
        board = await self._context.read(board_of, caller.scope, _device(request), now=now)
        asked = request.query_params.get("range", "day")
        return self._context.pages.page(
            request,
            "device.html",
            status=status,
            board=board,
            unit=board.line.row,
            now=now,
            wrong=wrong,
            range=asked if asked in RANGES else "day",
            days=RESULTS.days,
            total=total,
            may_act=caller.role in HANDS and board.line.row.state == "enrolled",
            w=words,
            issue_words=ISSUES,
            shelf=_SHELF_H,
            hold_days=DAYS,
            wrong_hold=request.query_params.get("wrong") == "hold",
        )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def with_gaps(rows: Sequence[Any], every: timedelta) -> list[tuple[datetime, Any]]:
    """Moments and bodies of ``points``, an empty one where more than two were missing: no line is drawn there."""
    found: list[tuple[datetime, Any]] = []
    for row in rows:
        lasts = max(every, timedelta(minutes=row.body.get("minutes", 0)))  # the mean of an hour is an hour
        if found and row.at - found[-1][0] > 3 * lasts:
            found.append((found[-1][0] + every, {}))
        found.append((row.at, row.body))
    return found


def _device(request: Request) -> str:
    return str(request.path_params["device"])


def _back(request: Request, part: str) -> Response:
    return RedirectResponse(f"/devices/{_device(request)}#{part}", 303)


def _why(form: Form) -> str:
    text = " ".join(form.get("why", "").split())
    return text[:_LONGEST_WHY] if text.isprintable() else ""


def _before(text: str) -> tuple[int, int] | None:
    number, _, seq = text.partition(".")
    is_ours = all(part.isascii() and part.isdigit() and len(part) <= 15 for part in (number, seq))
    return (int(number), int(seq)) if is_ours else None


def _at(body: Any, path: tuple[str, ...]) -> float | None:
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body if isinstance(body, (int, float)) else None
