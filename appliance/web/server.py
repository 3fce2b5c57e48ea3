"""uvicorn in a thread of its own, so that the daemon keeps its main thread for signals."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.config import is_loopback
from appliance.errors import ConfigError

log = logging.getLogger(__name__)

_START_S = 15.0
#: A whole request head must have come within this.
_ASK_WITHIN_S = 10.0


class WebServer:
    """Serves one application. ``start`` and ``stop`` once each."""

    def __init__(
        self,
        app: Starlette,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        tls: ssl.SSLContext | None = None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to serve.

        Args:
            app: Made by ``make_app``; its life span starts and ends with the server.
            host: An address of this machine, or ``localhost``.
            port: 0 for any free one.
            tls: Made by ``web.tls``; without it the address must be a loopback one.
            pulse: Called several times a second while the event loop turns, for the watchdog.

        Raises:
            ConfigError: Others than this machine would reach it without TLS.
        """
        if tls is None and not is_loopback(host):
            raise ConfigError(f"screen.host: {host} is reached by others; add screen.tls, or use 127.0.0.1")
        self._address = "127.0.0.1" if host == "localhost" else host
        self._port = port
        self._server = _Server(
            app.state.on_stop,
            pulse,
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                http=_Protocol,
                ws="none",
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
                limit_concurrency=256,
            ),
            tls,
        )
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def start(self) -> int:
        """Listen and serve.

        Returns:
            The port.

        Raises:
            ConfigError: The port is taken, or the application did not start.
        """
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._address, self._port))
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"screen.port: {self._address} port {self._port} cannot be used: {error.strerror}; choose another"
            ) from error
        port = int(listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="web", daemon=True)
        self._thread.start()
        waited = 0.0
        while not self._server.started and not self._ended.is_set() and waited < _START_S:
            self._ended.wait(0.02)
            waited += 0.02
        if not self._server.started:
            raise ConfigError("the web server did not start; its log lines before this one say why")
        return port

    def stop(self, timeout_s: float = 5.0) -> None:
        """End open streams, finish running requests, and return when the thread is gone."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.warning("the web server did not stop within %s s", timeout_s)

    @property
    def is_serving(self) -> bool:
        """Whether the server's thread is doing its work; for the watchdog."""
        return bool(self._server.started) and not self._ended.is_set()

    def _serve(self, listener: socket.socket) -> None:
        with closing(listener):
            try:
                self._server.run(sockets=[listener])
            except SystemExit:  # uvicorn's way to say that the application did not start
                log.error("the web server could not start")  # noqa: TRY400 - uvicorn has logged the cause
            finally:
                self._ended.set()


class _Protocol(H11Protocol):
    """Hangs up on who connects and then asks nothing: silent connections must not keep the screens out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_ASK_WITHIN_S, self._end_unasked)

    def _end_unasked(self) -> None:
        asked: object = self.cycle  # None until a whole request head is here, whatever uvicorn's annotation says
        if asked is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """Tells endless streams to end before it waits for running requests."""

    def __init__(
        self,
        on_stop: list[Callable[[], None]],
        pulse: Callable[[], None],
        config: uvicorn.Config,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        if tls is not None:
            config.load()
            # uvicorn builds a context from file names, and not as strict as ours; it hands this one to the listener.
            config.ssl = tls
        self._on_stop = on_stop
        self._pulse = pulse

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, as long as the event loop turns."""
        self._pulse()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for call in self._on_stop:
            call()
        await super().shutdown(sockets)
