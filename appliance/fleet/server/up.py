"""The composition: broker, database, ingest and enrolment on one machine, in order, and down again in reverse.

Everything that is kept lies in one folder: ``fleet.db``, ``keys`` (the server's signing key), ``ca`` (of development),
``tls``, ``broker``. All runs in the thread that calls ``run``, or in threads that it starts and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from appliance.clock import Clock, SystemClock
from appliance.errors import ApplianceError, ConfigError
from appliance.fleet.device.identity import Broker as BrokerTold
from appliance.fleet.server import heirs
from appliance.fleet.server import tables as t
from appliance.fleet.server.acks import Downlink
from appliance.fleet.server.acts import expire_jobs, lift_counters
from appliance.fleet.server.broker import Broker, Listen
from appliance.fleet.server.broker_line import BrokerAt
from appliance.fleet.server.ca import DevCa
from appliance.fleet.server.config import DevCaConfig, ServerConfig, StepCaConfig
from appliance.fleet.server.console import console_app
from appliance.fleet.server.db import migrate, read, write
from appliance.fleet.server.door import Door, device_app
from appliance.fleet.server.downloads import Downloads, Limits
from appliance.fleet.server.enrol import Enrolment, Welcome
from appliance.fleet.server.ingest import Asked
from appliance.fleet.server.ingest_watch import IngestWatch
from appliance.fleet.server.metrics import FleetCollector, IngestMetrics, text
from appliance.fleet.server.mqtt import IngestWorker
from appliance.fleet.server.post import Post
from appliance.fleet.server.premises import (
    ADDRESSES,
    KEYS,
    LOCK,
    PLATFORM,
    SERVER_DAYS,
    TLS,
    authority_of,
    database_of,
    holds_long,
    https_context,
    locked,
    server_url,
)
from appliance.fleet.server.prune import Pruner
from appliance.fleet.server.registry import TenantKind, add_tenant
from appliance.fleet.server.repository import TUF, Repository
from appliance.fleet.server.repository_watch import RepositoryCollector, RepositoryWatch
from appliance.fleet.server.revocation import Revocation
from appliance.fleet.server.rollout.drive import Driver
from appliance.fleet.server.rollout.holds import HoldTeller, end_holds
from appliance.fleet.server.server_keys import ServerKeys, add_key
from appliance.fleet.server.upload_door import Uploads
from appliance.ports import held_port
from appliance.web.pool import Pool
from appliance.web.server import WebServer
from engines.durable import write_private

log = logging.getLogger(__name__)

_TICK_S, _LOOK_S, _HOUR_S = 1.0, 2.0, 3600.0
#: Between two steps of roll-outs, so many times what one took.
_REST = 10.0


class FleetServer:
    """One machine's fleet server. ``run`` once."""

    def __init__(self, config: ServerConfig, clock: Clock | None = None) -> None:
        """Prepare; nothing is opened yet."""
        self._config = config
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._addresses: dict[str, Any] = {}
        self._next: dict[str, float] = {}
        #: Whether a round over what is too old goes on.
        self._prunes = False
        self.figures = CollectorRegistry()
        #: Of the parts that run, for whoever looks from outside (metrics, tests).
        self.broker: Broker | None = None
        self.worker: IngestWorker | None = None

    def addresses(self) -> dict[str, Any]:
        """Where boxes enrol and connect."""
        return dict(self._addresses)

    def stop(self) -> None:
        """End ``run``, from any thread or a signal."""
        self._stop.set()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Be the server until ``stop``, SIGTERM or Ctrl-C.

        Raises:
            ConfigError: It cannot start; everything that had started has ended.
            IngestDead: The ingest died again and again; everything has ended.
        """
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGTERM, signal.SIGINT):
                    stack.callback(signal.signal, number, signal.signal(number, lambda *_: self.stop()))
            self._start(stack)
            ready()
            while not self._stop.wait(_TICK_S):
                self._tick()
            log.info("fleet: going down")

    # In order --------------------------------------------------------------------------------------------------------

    def _start(self, stack: contextlib.ExitStack) -> None:
        config = self._config
        config.folder.mkdir(parents=True, exist_ok=True)
        # Others may pass through, to the broker's folder alone, where root starts a broker that is another user.
        config.folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        stack.enter_context(locked(config.folder / LOCK))
        self._keys = ServerKeys.open(config.folder / KEYS)
        self._authority = authority_of(config)
        engine = self._engine = stack.enter_context(database_of(config))
        self._prepare(engine)
        # The tick waits for no command that is at it: the next hour will do.
        self._repository = Repository(config.folder / TUF, wait_s=1.0)
        self._watch = RepositoryWatch(self._repository, config.folder / KEYS, self._clock)
        self._watch.look()
        broker = self.broker = Broker(config.folder, self._listen(stack), self._clock)
        self._tls = self._certificates(broker)
        self._revocation = Revocation(engine, self._authority, broker)
        self._revocation.look(self._clock.now(), first=True)
        self._post = Post(self._keys, config.release_threshold, hears_first=True)
        self._driver = Driver(self._keys, config.release_threshold)
        self._holds = HoldTeller(self._keys)
        self._pruner = Pruner(engine, config.keep, config.folder)
        stack.callback(broker.stop)
        broker.start()
        metrics = IngestMetrics(self.figures)
        self._ingest = IngestWatch(lambda: self._ingest_worker(broker, metrics), self._clock, self.figures)
        self._ingest.start()
        stack.callback(self._ingest.stop)
        self._serve(stack, broker)
        log.info("fleet: up; boxes enrol at %s and connect to %s", self._addresses["https"], self._addresses["mqtt"])

    def _ingest_worker(self, broker: Broker, metrics: IngestMetrics) -> IngestWorker:
        self.worker = IngestWorker(
            self._engine,
            BrokerAt(str(broker.files.socket), 1, "fleet.server", None),
            [self._keys.online],
            self._clock,
            metrics=metrics,
            answer=self._answer,
        )
        return self.worker

    def _listen(self, held: contextlib.ExitStack) -> Listen:
        given = self._config.broker
        web = given.websocket_port
        self._port, self._web_port = given.port or held_port(held), held_port(held) if web == 0 else web
        return Listen(given.host, self._port, self._web_port, given.max_connections)

    def _prepare(self, engine: Engine) -> None:
        migrate(engine)
        now = self._clock.now()
        with write(engine) as connection:
            if connection.execute(select(t.tenant.c.id).limit(1)).first() is None:
                add_tenant(connection, PLATFORM, "Platform", TenantKind.PLATFORM, parent=None, now=now)
            add_key(connection, self._keys.online.public, "online", "server", now=now)
            lift_counters(connection, now)

    def _certificates(self, broker: Broker) -> ssl.SSLContext:
        """The server's own, for HTTPS and the broker alike."""
        broker.put(broker.files.ca, self._authority.root())
        certificate, key = self._own_pair()
        self._hand_over(broker, certificate, key)
        return https_context(certificate, key)

    def _own_pair(self) -> tuple[Path, Path]:
        config = self._config
        if isinstance(config.ca, StepCaConfig):
            return config.ca.certificate_path, config.ca.key_path
        folder = config.folder / TLS
        folder.mkdir(exist_ok=True, mode=0o700)
        certificate, key = folder / "server.crt", folder / "server.key"
        assert isinstance(self._authority, DevCa)  # noqa: S101 - the other kind has returned
        if not holds_long(certificate, config.names, self._clock.now()):
            private, public = self._authority.issue_server(config.names, SERVER_DAYS)
            write_private(key, private)
            write_private(certificate, public)
        return certificate, key

    @staticmethod
    def _hand_over(broker: Broker, certificate: Path, key: Path) -> None:
        broker.put(broker.files.key, key.read_bytes())
        broker.put(broker.files.certificate, certificate.read_bytes())

    def _serve(self, stack: contextlib.ExitStack, broker: Broker) -> None:
        config = self._config
        pool = Pool(4, "fleet-door")
        stack.callback(pool.close)
        told: dict[str, Any] = {}
        enrolment = Enrolment(
            self._engine,
            self._authority,
            self._clock,
            lambda: Welcome(told["https"], self._brokers()),
            config.enrol,
            config.release_threshold,
        )
        door = Door(enrolment, pool, self._clock)
        uploads = Uploads(self._engine, config.folder, pool, self._clock)
        reading = pool.beside(4, "fleet-downloads")
        limits = Limits.of(config.models.max_downloads, config.models.max_mbit_s)
        downloads = Downloads(config.folder / TUF, reading, self._clock, limits)
        routes = [*door.routes(), *uploads.routes(), *downloads.routes()]
        try:
            web = WebServer(device_app(routes), config.https.host, config.https.port, tls=self._tls)
            port = web.start()
        except ConfigError as error:
            raise ConfigError(str(error).replace("screen.", "https.")) from error
        stack.callback(web.stop)
        console = self._serve_console(stack)
        metrics = self._serve_figures(stack)
        told["https"] = server_url(config.model_copy(update={"https": config.https.model_copy(update={"port": port})}))
        self._addresses = {
            "https": told["https"],
            "mqtt": f"mqtts://{config.names[0]}:{self._port}",
            "websocket": None if self._web_port is None else f"wss://{config.names[0]}:{self._web_port}/mqtt",
            "brokers": [one.model_dump(mode="json") for one in self._brokers()],
            "console": console,
            "metrics": metrics,
            "is_development_ca": isinstance(config.ca, DevCaConfig),
            "broker_pid": broker.pid,
        }
        write_private(config.folder / ADDRESSES, json.dumps(self._addresses).encode())

    def _serve_console(self, stack: contextlib.ExitStack) -> str:
        """The pages for people, at an address of their own."""
        given, name = self._config.console, self._config.names[0]
        folder, threshold = self._config.folder, self._config.release_threshold
        app = console_app(
            self._engine,
            self._keys,
            self._clock,
            self._config.names,
            folder=folder,
            threshold=threshold,
            secure=True,
        )
        try:
            web = WebServer(app, given.host, given.port, tls=self._tls)
            port = web.start()
        except ConfigError as error:
            raise ConfigError(str(error).replace("screen.", "console.")) from error
        stack.callback(web.stop)
        return f"https://[{name}]:{port}/" if ":" in name else f"https://{name}:{port}/"

    def _serve_figures(self, stack: contextlib.ExitStack) -> str | None:
        """For Prometheus: plain HTTP that this machine alone reaches."""
        if self._config.metrics_port is None:
            return None
        self.figures.register(FleetCollector(self._engine, self._clock))
        self.figures.register(RepositoryCollector(self._repository, self._clock))
        pool = Pool(1, "fleet-figures")
        stack.callback(pool.close)

        async def figures(_: Request) -> Response:
            return PlainTextResponse(await pool.run(text, self.figures), media_type="text/plain; version=0.0.4")

        web = WebServer(device_app([Route("/metrics", figures)]), "127.0.0.1", self._config.metrics_port)
        try:
            port = web.start()
        except ConfigError as error:
            raise ConfigError(str(error).replace("screen.port", "metrics_port")) from error
        stack.callback(web.stop)
        return f"http://127.0.0.1:{port}/metrics"

    def _brokers(self) -> tuple[BrokerTold, ...]:
        if self._config.brokers:
            return self._config.brokers
        name = self._config.names[0]
        found = [BrokerTold(kind="tls", host=name, port=self._port)]
        if self._web_port is not None:
            found.append(BrokerTold(kind="wss", host=name, port=self._web_port))
        return tuple(found)

    # Again and again -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        broker = self.broker
        assert broker is not None  # noqa: S101 - started
        broker.look()
        self._ingest.look()
        worker = self.worker
        assert worker is not None  # noqa: S101 - started
        now = self._clock.now()
        try:
            if worker.line.stands.is_set():
                self._send(worker, now)
            if self._is_time("revocation", _LOOK_S):
                self._revocation.look(now)
                self._inherit(now)
            if self._is_time("hour", _HOUR_S):
                self._prunes = True
                self._watch.look()
                self._renew_own(broker)
                with write(self._engine) as connection:
                    expire_jobs(connection, now)
            if self._prunes:
                self._prunes = self._pruner.step(now)
            if self._is_time("roll-outs", _LOOK_S):
                self._drive(now)
            self._tell_holds(now)
        except (ApplianceError, SQLAlchemyError, OSError) as error:
            log.warning("fleet: put off: %s", error)

    def _inherit(self, now: datetime) -> None:
        """Desired documents of boxes that took another's place."""
        with read(self._engine) as connection:
            waits = heirs.waits(connection)
        if waits:
            with write(self._engine) as connection:
                heirs.pass_documents(connection, self._keys, now)

    def _drive(self, now: datetime) -> None:
        """Holds that have run out, and one step of every roll-out."""
        with read(self._engine) as connection:
            waits = self._driver.waits(connection, now)
        if waits:
            began = self._clock.monotonic()
            with write(self._engine) as connection:
                end_holds(connection, self._keys, now)
                self._driver.step(connection, now)
            # Of thousands of boxes a step takes a second, in which SQLite takes nothing else in.
            ended = self._clock.monotonic()
            self._next["roll-outs"] = ended + max(_LOOK_S, _REST * (ended - began))

    def _tell_holds(self, now: datetime) -> None:
        """Some of the boxes whose hold came or went."""
        with read(self._engine) as connection:
            waits = self._holds.waits(connection, now)
        if waits:
            with write(self._engine) as connection:
                self._holds.step(connection, now)

    def _is_time(self, what: str, every_s: float) -> bool:
        now = self._clock.monotonic()
        if now < self._next.get(what, float("-inf")):
            return False
        self._next[what] = now + every_s
        return True

    def _send(self, worker: IngestWorker, now: datetime) -> None:
        with read(self._engine) as connection:
            waits = self._post.waits(connection)
        if waits:
            with write(self._engine) as connection:
                found = self._post.due(connection, now)
            worker.publish(found)

    def _answer(self, asked: Sequence[Asked]) -> Sequence[Downlink]:
        found: list[Downlink] = []
        with write(self._engine) as connection:
            for one in asked:
                found += self._post.answer(connection, one, self._clock.now())
        return found

    def _renew_own(self, broker: Broker) -> None:
        before = broker.files.certificate.read_bytes()
        certificate, key = self._own_pair()
        if certificate.read_bytes() != before:
            self._hand_over(broker, certificate, key)
            self._tls.load_cert_chain(certificate, key)
            broker.reload()
            log.info("fleet: the server has a new certificate")
