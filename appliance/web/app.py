"""Putting an application together: guard, errors, a small pool for blocking work, and bodies of bounded size.

Whatever goes wrong is answered: by a page where a person looks, by JSON where a script or a program asks. What nobody
expected is answered too, and neither answer nor log say more of it than what kind it was and where in the code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.errors import ApplianceError, ConflictError, NotFoundError, StoreError
from appliance.web.access import API, Access, Guarded, wants_page
from appliance.web.guard import Guard, Rules
from appliance.web.locale import KeepsLocale
from appliance.web.pages import Pages, in_english
from appliance.web.pool import Pool

log = logging.getLogger(__name__)

#: No form of ours is larger.
MAX_BODY_BYTES = 16 * 1024
#: Of a body that is too large so much is taken and forgotten: a browser looks at no answer before it has sent all.
_THROWN_AWAY_BYTES = 32 * 1024 * 1024


def make_app(
    routes: Sequence[BaseRoute],
    pool: Pool,
    *,
    access: Access[Any],
    pages: Pages,
    rules: Rules,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
    on_end: Callable[[], None],
) -> Starlette:
    """An application with everything that all pages share.

    Args:
        routes: Pages, acts and assets; each says who may.
        pool: Closed when the server has stopped.
        access: Knows who asks.
        pages: Draws the pages of errors.
        rules: What holds for every request and answer.
        on_start: Called in the event loop before the first request.
        on_stop: Called in the event loop when the server begins to stop; must make endless streams end.
        on_end: Called off the event loop when the last request is done; may block.

    Raises:
        ValueError: An address does not say who may: a mistake of ours.
    """
    open_to_all = [route for route in routes if not isinstance(route, Guarded)]
    if open_to_all:
        raise ValueError(f"{open_to_all[0]} does not say which roles have it; make it Guarded")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        on_start()
        yield
        await pool.run(on_end)
        pool.close()

    app = Starlette(
        routes=list(routes),
        middleware=[
            Middleware(Guard, rules=rules, refused=_refused),
            Middleware(KeepsLocale),
            Middleware(_LastResort),
        ],
        lifespan=lifespan,
        exception_handlers={ApplianceError: _expected, OverflowError: _too_large, HTTPException: _http},
    )
    # What is not an address is not there: no answer tells that another spelling would be.
    app.router.redirect_slashes = False
    app.state.on_stop = [on_stop]
    app.state.access = access
    app.state.pages = pages
    app.state.rules = rules
    return app


#: The fields of a form; ``getlist`` gives all of one name.
Form = ImmutableMultiDict[str, str]


async def read_form(request: Request, most: int = MAX_BODY_BYTES) -> Form:
    """The fields of a form, those left empty too.

    Raises:
        HTTPException: 413 over ``most`` bytes, 415 for another type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send a form")
    text = (await _body(request, most)).decode("utf-8", "replace")
    try:
        return Form(parse_qsl(text, keep_blank_values=True, max_num_fields=500))
    except ValueError as error:
        raise HTTPException(400, "the form has too many fields") from error


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        HTTPException: 413 over ``MAX_BODY_BYTES``, 415 for another type, 400 for something else than an object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        value = json.loads(await _body(request))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return value


async def _body(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    body, size = b"", 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            body += part
        elif size > _THROWN_AWAY_BYTES:
            break
    if size > most:
        raise HTTPException(413, f"the body is larger than {most} bytes")
    return body


def _expected(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreError):
        log.error("a page needs the store, which does not answer: %s", error)
        return _trouble(request, 503, "store")
    status = 404 if isinstance(error, NotFoundError) else 409 if isinstance(error, ConflictError) else 503
    return _trouble(request, status, detail=str(error))


def _too_large(request: Request, _: Exception) -> Response:
    return _trouble(request, 404, detail="a number is too large to be one of ours")


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    answer = _trouble(request, error.status_code, detail=error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _refused(request: Request, status: int, why: str) -> Response:
    """What the guard does not let through. 403: the form is not one of ours, or older than its token."""
    if status == 421:  # under a name that is not ours nothing of the box is shown
        return JSONResponse({"error": why}, status_code=status)
    is_read = status == 403 and wants_page(request)  # by a person, who is told in their language
    return _trouble(request, status, "stale" if status == 403 else "", detail="" if is_read else why)


def _trouble(request: Request, status: int, what: str = "", *, detail: str = "") -> Response:
    """A page, or JSON with the same words in English; ``what`` names one of ``pages.TROUBLES`` rather than a status."""
    if wants_page(request) and not request.url.path.startswith(API):
        pages: Pages = request.app.state.pages
        return pages.trouble(request, status, what, detail=detail)
    headers = {"X-Trouble": what} if what else {}
    if status == 500:
        return JSONResponse({"error": in_english(what), "mark": detail}, status_code=status, headers=headers)
    return JSONResponse({"error": detail or in_english(what)}, status_code=status, headers=headers)


class _LastResort:
    """ASGI middleware around everything of ours: what nobody expected becomes an answer, and one line of the log.

    An exception's own words, and the values in its traceback, may be a patient's, so neither is told to anybody; an
    answer names a mark by which its line is found.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            if scope["type"] != "http":
                raise
            mark = secrets.token_hex(4)
            log.error("a page failed with %s at %s; mark %s", type(error).__name__, _place(error), mark)  # noqa: TRY400
            if not begun:  # else the connection ends in the middle, and the browser knows it
                await self._answer(Request(scope), mark)(scope, receive, send)

    @staticmethod
    def _answer(request: Request, mark: str) -> Response:
        try:
            return _trouble(request, 500, detail=mark)
        except Exception as error:  # noqa: BLE001 - the page that tells of it may be what fails
            log.error("the page of that failed with %s at %s", type(error).__name__, _place(error))  # noqa: TRY400
            return PlainTextResponse(f"The box has made a mistake; mark {mark}. Read every study as usual.", 500)


def _place(error: BaseException) -> str:
    """Where in the code: our own frames, innermost first, and the very last one."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/appliance/" in frame.filename or "/engines/" in frame.filename]
    named = [*frames[-1:], *reversed([frame for frame in ours if frame is not frames[-1]])][:4]
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in named)
