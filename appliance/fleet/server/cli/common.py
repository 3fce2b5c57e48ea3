"""What all commands share: exit codes, ``--json``, errors that say the next step, the database."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from appliance.errors import ApplianceError, ConfigError, ConflictError, NotFoundError
from appliance.fleet.server.config import ServerConfig, load_server_config

DEFAULT_CONFIG = Path("/etc/scanside/fleet-server.yaml")
F = TypeVar("F", bound=Callable[..., Any])

#: As ``scanside`` has them (appliance.cli.common.Exit).
_FAILED, _NOT_FOUND, _NOT_ALLOWED, _CONFLICT, _CONFIG, _INTERRUPTED = 1, 4, 5, 6, 78, 130


class NotAllowed(ApplianceError):  # noqa: N818 - a state, not a fault
    """The command was called by another user than the server's."""


_CODES: tuple[tuple[type[ApplianceError], int], ...] = (
    (ConfigError, _CONFIG),
    (NotFoundError, _NOT_FOUND),
    (ConflictError, _CONFLICT),
    (NotAllowed, _NOT_ALLOWED),
    (ApplianceError, _FAILED),
)


class Group(click.Group):
    """A group whose commands are imported when called, and whose expected errors become lines and exit statuses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As ``click.Group``."""
        super().__init__(*args, **kwargs)
        self._lazy: dict[str, str] = {}

    def add_lazy(self, commands: dict[str, str]) -> None:
        """Name commands as ``module:attribute``."""
        self._lazy |= commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands by name."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if it is a lazy one."""
        target = self._lazy.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn an expected error into its exit status."""
        try:
            return super().invoke(ctx)
        except ApplianceError as error:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            if "--json" in sys.argv or ctx.params.get("as_json"):
                print_json({"error": str(error), "exit": code})
            else:
                click.echo(f"Error: {error}", err=True)
            ctx.exit(code)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


def json_option(function: F) -> F:
    """``--json``: one document on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


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


def print_json(document: Any) -> None:
    """Write one document to stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def print_table(title: str, columns: list[str], rows: list[list[str]], empty: str) -> None:
    """Write a table for a person; ``empty`` stands instead of a table without rows."""
    if not rows:
        click.echo(empty)
        return
    table = Table(title=title, title_justify="left", highlight=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
