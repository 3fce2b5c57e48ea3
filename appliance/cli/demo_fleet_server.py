"""The fleet server of a demo, as a process of its own: ``python -m appliance.cli.demo_fleet_server FOLDER SERIAL``.

It says one line of JSON once it is up ({url, token, device, console}) or cannot be ({why}); then one for each line that
it hears: what it knows of the demo's box. It ends with its input, so that no killed demo leaves a broker behind.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.errors import ConfigError

if TYPE_CHECKING:
    from appliance.fleet.server.up import FleetServer

_HOSPITAL, _SITE = "demo-hospital", "demo-site"
_MOST = 500


def main(folder: Path, serial: str) -> None:
    """Be the server until the input ends."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        from appliance.fleet.server.config import BrokerConfig, ConsoleConfig, HttpsConfig, ServerConfig
        from appliance.fleet.server.premises import database_of
        from appliance.fleet.server.up import FleetServer
    except ModuleNotFoundError as error:
        _say({"why": f"{error.name} is not installed; call: pip install 'scanside[server]'"})
        return
    config = ServerConfig(
        folder=folder, broker=BrokerConfig(port=0), https=HttpsConfig(port=0), console=ConsoleConfig(port=0)
    )
    server = FleetServer(config)

    def ready() -> None:
        threading.Thread(target=answer, name="demo-fleet", daemon=True).start()

    def answer() -> None:
        try:
            with database_of(config) as engine:
                device = _let_in(engine, config, server, serial)
                for _ in sys.stdin:
                    _say(_told(engine, device))
        finally:
            server.stop()

    try:
        server.run(ready)
    except ConfigError as error:
        _say({"why": str(error)})


def _let_in(engine: Any, config: Any, server: FleetServer, serial: str) -> str:
    """Make a hospital with a site, and a token for the demo's box."""
    from appliance.clock import SystemClock
    from appliance.fleet.server.db import write
    from appliance.fleet.server.premises import PLATFORM, root_of
    from appliance.fleet.server.registry import Scope, TenantKind, add_site, add_tenant
    from appliance.fleet.server.tokens import make_token

    now = SystemClock().now()
    with write(engine) as connection:
        add_tenant(connection, _HOSPITAL, "Demo hospital", TenantKind.HOSPITAL, parent=PLATFORM, now=now)
        add_site(connection, _SITE, _HOSPITAL, "Radiology", now=now)
        made = make_token(
            connection,
            Scope.everything(),
            serial=serial,
            site=_SITE,
            root=root_of(config),
            now=now,
            minutes=config.enrol.token_minutes,
            actor="demo",
        )
    told = server.addresses()
    _say({"url": told["https"], "token": made.text, "device": made.device, "console": told.get("console")})
    return made.device


def _told(engine: Any, device: str) -> dict[str, Any]:
    """What a person would read of the box on the server."""
    from appliance.clock import SystemClock
    from appliance.errors import NotFoundError
    from appliance.fleet.server import query
    from appliance.fleet.server.db import read
    from appliance.fleet.server.registry import Scope

    everything = Scope.everything()
    with read(engine) as connection:
        try:
            line = query.device(connection, everything, device, now=SystemClock().now())
        except NotFoundError:
            return {"state": "never", "records": 0, "results": 0, "health": None, "packages": []}
        records = query.timeline(connection, everything, device, limit=_MOST)
    health = None if line.row.health_at is None else {"mode": line.row.mode, "ai": line.row.ai}
    return {
        "state": str(line.presence),
        "records": len(records),
        "results": sum(row.k in {"results", "study"} for row in records),
        "health": health,
        "packages": [row.package for row in line.packages],
    }


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
