"""Release keys on the command line: files that a call reads and forgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from appliance.commands import F
from appliance.errors import ConfigError
from appliance.fleet.server.config import ServerConfig
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.repository import TUF, Repository
from appliance.fleet.server.server_keys import ServerKeys
from engines.errors import SignatureError
from engines.signing import PrivateKey, load_private

TAKE = (
    "boxes take it with a job: 'scanside-fleet job make-all root.update', then 'scanside-fleet job approve --key FILE'"
    " with a key that they know already; 'scanside-fleet key list' says which have not"
)


def keys_option(function: F) -> F:
    """``--key``: release keys that sign."""
    return click.option(
        "--key",
        "key_paths",
        type=click.Path(path_type=Path),
        multiple=True,
        help="A release key that signs; the server has none. Repeat it where several must sign.",
    )(function)


def release_keys(paths: Sequence[Path], *, needed: bool = True) -> list[PrivateKey]:
    """Read the files.

    Raises:
        ConfigError: One is no private key, or others may read it.
    """
    if needed and not paths:
        raise click.UsageError("release keys sign this; name one by --key FILE")
    try:
        return [load_private(path) for path in paths]
    except SignatureError as error:
        raise ConfigError(str(error)) from error


def repository_of(config: ServerConfig) -> Repository:
    """The server's."""
    return Repository(config.folder / TUF)


def server_keys_of(config: ServerConfig) -> ServerKeys:
    """The server's own key.

    Raises:
        ConfigError: As ``ServerKeys.open``.
    """
    return ServerKeys.open(config.folder / KEYS)
