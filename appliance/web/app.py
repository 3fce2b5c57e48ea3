"""Putting an application together: guard, errors, a small pool for blocking work, and bodies of bounded size."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from appliance.errors import ApplianceError, ConflictError, NotFoundError
from appliance.web.access import Access, Guarded, wants_page
from appliance.web.guard import Guard, Rules
from appliance.web.pages import Pages
from appliance.web.pool import Pool

#: No form of ours is larger.
MAX_BODY_BYTES = 16 * 1024


def make_app(
    routes: Sequence[BaseRoute],
    pool: Pool,
    *,
    access: Access,
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
        middleware=[Middleware(Guard, rules=rules)],
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


async def read_form(request: Request) -> Form:
    """The fields of a form, those left empty too.

    Raises:
        HTTPException: 413 over ``MAX_BODY_BYTES``, 415 for another type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send a form")
    text = (await _body(request)).decode("utf-8", "replace")
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


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return body


def _expected(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NotFoundError) else 409 if isinstance(error, ConflictError) else 503
    return _trouble(request, status, str(error))


def _too_large(request: Request, _: Exception) -> Response:
    return _trouble(request, 404, "a number is too large to be one of ours")


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    answer = _trouble(request, error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _trouble(request: Request, status: int, detail: str) -> Response:
    if wants_page(request):
        pages: Pages = request.app.state.pages
        return pages.trouble(request, status, detail)
    return JSONResponse({"error": detail}, status_code=status)
