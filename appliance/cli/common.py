"""What all commands share: exit codes, ``--json``, errors that say the next step, the store as its own user."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import importlib
import json
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.errors import ApplianceError, ConfigError, ConflictError, NotFoundError
from appliance.records import Actor, ActorKind
from appliance.settings import load_box
from appliance.store import Store

DEFAULT_CONFIG = Path("/etc/scanside/appliance.yaml")
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


def config_option(function: F) -> F:
    """``--config`` and ``--site``: the configuration file and its overlay."""
    function = click.option(
        "--site", type=click.Path(path_type=Path), envvar="SCANSIDE_SITE", help="Overlay whose keys win."
    )(function)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=DEFAULT_CONFIG,
        envvar="SCANSIDE_CONFIG",
        show_default=True,
        show_envvar=True,
        help="The configuration file.",
    )(function)


def print_json(document: Any) -> None:
    """Write one document to stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


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


def me() -> Actor:
    """The person at the keyboard, for the journal."""
    return Actor(kind=ActorKind.PERSON, name=os.environ.get("SUDO_USER") or getpass.getuser(), role="service")


def read_config(config_path: Path, site: Path | None) -> Config:
    """The configuration of a command: as the box runs it from its next start, the settings of its pages included.

    Raises:
        ConfigError: As ``load_config``.
    """
    loaded = load_box(config_path, site)
    if loaded.broken:
        click.echo(f"the settings of the site do not fit and are left out: {loaded.broken}", err=True)
    return loaded.config


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Store]:
    """The store of a box, as the service's own user: files of another owner would lock the service out.

    Raises:
        NotFoundError: There is no store yet.
        NotAllowed: The caller is another user.
    """
    database = config.state_path / "scanside.db"
    try:
        owner = database.stat().st_uid
    except FileNotFoundError:
        msg = f"{database} does not exist; start the box once with 'scanside run', or name its file with --config"
        raise NotFoundError(msg) from None
    except PermissionError:
        owner = -1
    if owner != os.geteuid():
        name = pwd.getpwuid(owner).pw_name if owner >= 0 else "scanside"
        msg = f"the store belongs to user {name}; call it as 'sudo -u {name} scanside ...'"
        raise NotAllowed(msg)
    store = Store.open(config.state_path, SystemClock(), reserve_bytes=config.disk.reserve_bytes)
    try:
        yield store
    finally:
        store.close()


def is_running(config: Config) -> bool:
    """Whether a daemon holds the state folder."""
    try:
        with (config.state_path / "scanside.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def study_id_of(store: Store, text: str) -> int:
    """The study that a person means: a local id, a Study Instance UID or an accession number.

    Raises:
        NotFoundError: None is meant.
        ConflictError: Several are.
    """
    found = store.views.find(text)
    if not found:
        msg = f"no study is known as {text!r}; 'scanside study list' shows those that are"
        raise NotFoundError(msg)
    if len(found) > 1:
        msg = f"{text!r} names the studies {', '.join(map(str, found))}; give one of these numbers"
        raise ConflictError(msg)
    return found[0]
