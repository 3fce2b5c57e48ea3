"""Pages asked without a server around them: no thread to stop, so a test may ask many."""

from __future__ import annotations

import asyncio

import httpx

ORIGIN = "http://127.0.0.1"


class AsgiClient:
    """Asks an application as a browser would; cookies stay."""

    def __init__(self, app, cookies):
        self._transport = httpx.ASGITransport(app=app)
        self.cookies = httpx.Cookies(cookies)

    def get(self, path, **more):
        return asyncio.run(self._ask("GET", path, **more))

    def post(self, path, **more):
        return asyncio.run(self._ask("POST", path, **more))

    async def _ask(self, method, path, **more):
        async with httpx.AsyncClient(
            transport=self._transport, base_url=ORIGIN, headers={"Origin": ORIGIN}, cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, **more)
            self.cookies = client.cookies
            return answer
