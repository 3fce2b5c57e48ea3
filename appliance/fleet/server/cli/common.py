"""What all commands share: exit codes, ``--json``, errors that say the next step, the database."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from appliance.commands import F, NotAllowed
from appliance.errors import NotFoundError
from appliance.fleet.server.config import ServerConfig, load_server_config

DEFAULT_CONFIG = Path("/etc/scanside/fleet-server.yaml")


def config_option(function: F) -> F:
    """``--config``: the server's file. Without it, and without the usual one, the defaults hold."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="SCANSIDE_FLEET_CONFIG",
        show_envvar=True,
        help=f"The server's configuration. Default: {DEFAULT_CONFIG} where it is, else what is built in.",
    )(function)


def read_config(path: Path | None) -> ServerConfig:
    """The configuration of a command.

    Raises:
        ConfigError: As ``load_server_config``.
    """
    if path is None and not DEFAULT_CONFIG.exists():
        return ServerConfig()
    return load_server_config(path or DEFAULT_CONFIG)


@contextlib.contextmanager
def opened(config: ServerConfig) -> Iterator[Any]:
    """The database's engine, as the server's own user.

    Raises:
        NotFoundError: The server was never started.
        NotAllowed: Another user's.
    """
    from appliance.fleet.server.db import open_engine

    if not config.database:
        path = config.folder / "fleet.db"
        try:
            owner = path.stat().st_uid
        except FileNotFoundError:
            raise NotFoundError(f"{path} is not there; start the server once with 'scanside-fleet up'") from None
        except PermissionError:
            owner = -1
        if owner not in {os.geteuid(), 0} or (owner == 0 and os.geteuid() != 0):
            raise NotAllowed(f"{path} belongs to another user; call this as the user of the service (sudo -u)")
    engine = open_engine(config.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def me() -> str:
    """The person at the keyboard, for the audit."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()} at the command line"
