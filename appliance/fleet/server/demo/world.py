"""The demo's server and all that a service team sets up before boxes come: tenants, sites, people, keys, tokens."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from sqlalchemy import Engine

from appliance.clock import SystemClock
from appliance.errors import ConfigError
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server.acts import set_desired
from appliance.fleet.server.config import BrokerConfig, ConsoleConfig, HttpsConfig, ServerConfig
from appliance.fleet.server.console import people
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.db import write
from appliance.fleet.server.demo.cast import DEALER, HOSPITALS, VENDOR, Part
from appliance.fleet.server.demo.model import Model, make_model
from appliance.fleet.server.premises import KEYS, PLATFORM, authority_of, database_of, root_of
from appliance.fleet.server.registry import Scope, TenantKind, add_certificate, add_device, add_site, add_tenant
from appliance.fleet.server.server_keys import ServerKeys, add_key
from appliance.fleet.server.tokens import make_token
from appliance.fleet.server.up import FleetServer
from appliance.fleet.wire import Desired, Window
from appliance.web.passwords import Passwords, one_time
from engines.durable import write_private
from engines.signing import PrivateKey, generate

#: What serves from the beginning, what is bad on one kind of scanner, and what is good everywhere.
VERSIONS = ("1.0.0", "2.0.0", "2.0.1")
#: Who signs in, and as what; the first makes roll-outs, the second approves them.
PEOPLE = (
    ("demo-service", "Demo service engineer", VENDOR, FleetRole.SERVICE),
    ("demo-approver", "Demo second person", VENDOR, FleetRole.SERVICE),
    ("demo-operator", "Demo operator", PLATFORM, FleetRole.OPERATOR),
)
_READY_S, _END_S = 60.0, 30.0
_CERTIFICATE_DAYS = 90
#: Any time and as fast as it goes: a demo does not wait for the night.
_ANY_TIME = Desired(window=Window(begin="00:00", end="00:00"), bytes_per_s=20_000_000)


@dataclass(frozen=True, slots=True)
class World:
    """What stands.

    Attributes:
        release: The key of the release, which a real server never has.
        accounts: Numbers of ``PEOPLE``, by name.
        models: By version.
    """

    folder: Path
    config: ServerConfig
    server: FleetServer
    engine: Engine
    keys: ServerKeys
    release: PrivateKey
    models: dict[str, Model]
    accounts: dict[str, int]
    password: str

    @property
    def root(self) -> bytes:
        """Certificate of the CA."""
        return root_of(self.config)


@contextlib.contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Start the server and make what does not depend on boxes.

    Raises:
        ConfigError: It cannot start; without mosquitto, for one.
    """
    # Others may pass through to the broker's folder: started by root, the broker is another user.
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    config = ServerConfig(
        folder=folder / "server",
        broker=BrokerConfig(port=0),
        https=HttpsConfig(port=0),
        console=ConsoleConfig(port=0),
    )
    release = generate("demo")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_running(config))
        engine = stack.enter_context(database_of(config))
        archives = folder / "models"
        archives.mkdir()
        models = {version: make_model(archives, version, release) for version in VERSIONS}
        accounts, password = _let_people_in(engine, release)
        keys = ServerKeys.open(config.folder / KEYS)
        yield World(folder, config, server, engine, keys, release, models, accounts, password)


@contextlib.contextmanager
def _running(config: ServerConfig) -> Iterator[FleetServer]:
    server, faults = FleetServer(config), list[ConfigError]()
    stands, ended = threading.Event(), threading.Event()

    def run() -> None:
        try:
            server.run(stands.set)
        except ConfigError as error:
            faults.append(error)
        finally:
            ended.set()
            stands.set()

    thread = threading.Thread(target=run, name="demo-server", daemon=True)
    thread.start()
    try:
        if not stands.wait(_READY_S):
            raise ConfigError("the fleet server did not start within a minute")
        if ended.is_set():
            raise faults[0] if faults else ConfigError("the fleet server died at its start; its fault stands above")
        yield server
    finally:
        server.stop()
        thread.join(_END_S)


def _let_people_in(engine: Engine, release: PrivateKey) -> tuple[dict[str, int], str]:
    now, password, accounts = SystemClock().now(), one_time(), {}
    kept = Passwords().hashed(password)
    with write(engine) as connection:
        add_tenant(connection, VENDOR, "Demo service team", TenantKind.VENDOR, parent=PLATFORM, now=now)
        add_tenant(connection, DEALER, "Demo dealer", TenantKind.DEALER, parent=VENDOR, now=now)
        for one in HOSPITALS:
            add_tenant(connection, one.tenant, one.name, TenantKind.HOSPITAL, parent=one.parent, now=now)
            add_site(connection, one.site, one.tenant, one.name, now=now, country=one.country)
        add_key(connection, release.public, "release", "demo", now=now)
        for name, full_name, tenant, role in PEOPLE:
            accounts[name] = people.add_person(connection, name, full_name, tenant, role, kept, now=now, actor="demo")
            found = people.by_name(connection, name)
            if found is not None:  # a demo's password is everybody's and stays
                people.set_password(connection, found[0], kept, must_change=False, now=now, actor="demo")
    return accounts, password


def tokens(world: World, parts: list[Part]) -> dict[int, str]:
    """One-time tokens of real boxes, by number."""
    found, now = {}, SystemClock().now()
    with write(world.engine) as connection:
        for part in parts:
            found[part.number] = make_token(
                connection,
                Scope.everything(),
                serial=part.serial,
                site=part.hospital.site,
                root=world.root,
                now=now,
                minutes=world.config.enrol.token_minutes,
                actor="demo",
            ).text
    return found


def register(world: World, parts: list[Part], folder: Path) -> dict[int, str]:
    """Let simulated boxes in without asking: one key for all, a certificate for each. Device ids by number."""
    folder.mkdir()
    now, key, authority, found = SystemClock().now(), DeviceKey.generate(), authority_of(world.config), {}
    key.save(folder / "device.key")
    (folder / "ca.crt").write_bytes(world.root)
    with write(world.engine) as connection:
        for part in parts:
            device = found[part.number] = f"sim-{part.number:08d}"
            request = x509.load_pem_x509_csr(key.csr(device))
            chain = authority.issue(request, device, _CERTIFICATE_DAYS)
            write_private(folder / f"{device}.crt", chain)
            add_device(
                connection,
                device,
                part.hospital.site,
                part.serial,
                now=now,
                name="Simulated",
                hardware=part.hardware,
            )
            add_certificate(connection, device, chain.decode(), now=now)
    return found


def set_windows(world: World, devices: list[str], every_s: int) -> None:
    """These boxes may change what runs at any time, and say how they are so often; their desired documents say so."""
    desired = _ANY_TIME.model_copy(update={"health_every_s": every_s})
    now = SystemClock().now()
    with write(world.engine) as connection:
        for device in devices:
            set_desired(connection, world.keys, Scope.everything(), device, desired, now=now, actor="demo")
