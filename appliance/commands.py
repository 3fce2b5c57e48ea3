"""What every command line of this software shares: exit statuses, errors as lines, ``--json``, tables."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from pathlib import PurePath
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from appliance.errors import ApplianceError, ConfigError, ConflictError, NotFoundError

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    CONFLICT = 6
    CHECK_FAILED = 7
    #: A page asked for a restart; systemd starts the box again on any status but 0 and 78.
    RESTART = 75
    CONFIG = 78
    INTERRUPTED = 130


class NotRunning(ApplianceError):  # noqa: N818 - a state, not a fault
    """The daemon does not run, and the command needs it."""


class NotAllowed(ApplianceError):  # noqa: N818 - the same
    """The command was called by another user than the service's."""


_CODES: tuple[tuple[type[ApplianceError], Exit], ...] = (
    (ConfigError, Exit.CONFIG),
    (NotFoundError, Exit.NOT_FOUND),
    (ConflictError, Exit.CONFLICT),
    (NotRunning, Exit.NOT_RUNNING),
    (NotAllowed, Exit.NOT_ALLOWED),
    (ApplianceError, Exit.FAILED),
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
                print_json({"error": str(error), "exit": int(code)})
            else:
                click.echo(f"Error: {error}", err=True)
            ctx.exit(int(code))
        except KeyboardInterrupt:
            ctx.exit(int(Exit.INTERRUPTED))


def json_option(function: F) -> F:
    """``--json``: one document on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def print_json(document: Any) -> None:
    """Write one document to stdout. Moments and paths become text."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=_text))


def _text(value: object) -> str:
    if isinstance(value, datetime | PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def print_table(title: str, columns: list[str], rows: list[list[str]], empty: str) -> None:
    """Write a table for a person; ``empty`` stands instead of a table without rows. NO_COLOR is honoured by rich."""
    if not rows:
        click.echo(empty)
        return
    table = Table(title=title, title_justify="left", highlight=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text of the wire may look like markup.
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)
