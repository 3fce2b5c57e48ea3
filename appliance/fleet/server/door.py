"""HTTPS for boxes: enrolment, renewal, and the CA's certificate. No page, no cookie, nobody signed in.

What else boxes fetch from their server (models, uploads) is added as further routes by ``device_app``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from appliance.clock import Clock
from appliance.errors import ApplianceError, TransientError
from appliance.fleet.server.ca import RequestFault
from appliance.fleet.server.enrol import Enrolment, Refused
from appliance.web.pool import Pool
from appliance.web.throttle import Throttle, address_key

log = logging.getLogger(__name__)

SIGNATURE = "X-Scanside-Signature"
_MOST_BYTES = 64 * 1024
#: Of one address; a hospital's boxes share one.
_FREE = 20

Answer = Callable[[bytes, str], dict[str, Any]]


class Door:
    """The addresses of ``Enrolment``."""

    def __init__(self, enrolment: Enrolment, pool: Pool, clock: Clock) -> None:
        """Answer for ``enrolment``, which blocks, in ``pool``."""
        self._enrolment = enrolment
        self._pool = pool
        self._throttle = Throttle(clock, free=_FREE)

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        enrolment = self._enrolment
        return [
            Route("/v1/ca.crt", self._root, methods=["GET"]),
            Route("/v1/enrol", self._post(lambda body, _: enrolment.enrol(body)), methods=["POST"]),
            Route("/v1/renew", self._post(enrolment.renew), methods=["POST"]),
            Route("/v1/present", self._post(enrolment.present), methods=["POST"]),
        ]

    async def _root(self, _: Request) -> Response:
        return PlainTextResponse(self._enrolment.root(), media_type="application/x-pem-file")

    def _post(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def asked(request: Request) -> Response:
            body = b""
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BYTES:
                    return _refused(413, f"the body is larger than {_MOST_BYTES} bytes")
            caller = address_key(request.client.host if request.client else "")
            wait_s = self._throttle.attempt(caller)
            if wait_s:
                return _refused(429, "too many failed attempts", {"Retry-After": str(int(wait_s) + 1)})
            try:
                told = await self._pool.run(answer, body, request.headers.get(SIGNATURE, ""))
            except ApplianceError as error:
                return self._said_no(request, error)
            self._throttle.give_back(caller)
            return JSONResponse(told, headers={"Cache-Control": "no-store"})

        return asked

    @staticmethod
    def _said_no(request: Request, error: ApplianceError) -> Response:
        if isinstance(error, Refused):
            log.info("enrolment: %s refused: %s", request.url.path, error.status)
            return _refused(error.status, str(error))
        if isinstance(error, RequestFault):
            return _refused(422, str(error))
        log.warning("enrolment: %s: %s", request.url.path, error)
        if isinstance(error, TransientError):
            return _refused(503, "the CA does not answer; try again in some minutes", {"Retry-After": "60"})
        return _refused(500, "the server has made a mistake; its log says more")


def device_app(routes: Sequence[BaseRoute]) -> Starlette:
    """The application that boxes ask, for ``web.server.WebServer``."""
    app = Starlette(routes=list(routes))
    app.router.redirect_slashes = False
    app.state.on_stop = []
    return app


def _refused(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})
