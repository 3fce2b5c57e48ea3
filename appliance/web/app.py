"""Putting an application together: guard, errors, a small pool for blocking work, and bodies of bounded size."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from appliance.errors import ApplianceError, ConflictError, NotFoundError
from appliance.web.guard import Guard
from appliance.web.i18n import LOCALES

P = ParamSpec("P")
T = TypeVar("T")

#: No form of ours is larger.
MAX_BODY_BYTES = 16 * 1024
LANGUAGE_COOKIE = "scanside_lang"


class Pool:
    """Two threads for what blocks, off the event loop; more would only wait for one another at the database."""

    def __init__(self) -> None:
        """Make the threads when they are first needed."""
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="web-db")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Wait for running work and end the threads."""
        self._executor.shutdown()


def make_app(
    routes: Sequence[BaseRoute],
    pool: Pool,
    *,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
    on_end: Callable[[], None],
) -> Starlette:
    """An application with everything that all pages share.

    Args:
        routes: Pages, acts and assets.
        pool: Closed when the server has stopped.
        on_start: Called in the event loop before the first request.
        on_stop: Called in the event loop when the server begins to stop; must make endless streams end.
        on_end: Called off the event loop when the last request is done; may block.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        on_start()
        yield
        await pool.run(on_end)
        pool.close()

    app = Starlette(
        routes=list(routes),
        middleware=[Middleware(Guard)],
        lifespan=lifespan,
        exception_handlers={ApplianceError: _expected, HTTPException: _http},
    )
    app.state.on_stop = [on_stop]
    return app


def locale_of(request: Request, default: str) -> str:
    """The locale of this reader: ``?lang=``, else the cookie of an earlier choice, else the site's."""
    for name in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if name in LOCALES:
            return str(name)
    return default


def remember_locale(response: Response, locale: str) -> None:
    """Keep the reader's choice for a year."""
    response.set_cookie(LANGUAGE_COOKIE, locale, max_age=31_536_000, httponly=True, samesite="strict")


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        HTTPException: 413 over ``MAX_BODY_BYTES``, 415 for another type, 400 for something else than an object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return value


def _expected(_: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NotFoundError) else 409 if isinstance(error, ConflictError) else 503
    return JSONResponse({"error": str(error)}, status_code=status)


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)
