"""What all commands share: exit codes, ``--json``, errors that say the next step, the store as its own user."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import click

from appliance.clock import SystemClock
from appliance.commands import F, NotAllowed
from appliance.config import Config
from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, ActorKind
from appliance.settings import load_box
from appliance.store import Store

DEFAULT_CONFIG = Path("/etc/scanside/appliance.yaml")


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
