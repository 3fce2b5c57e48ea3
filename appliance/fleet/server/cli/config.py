"""``scanside-fleet config``: look at the configuration without a start."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.commands import Group
from appliance.fleet.server.config import load_server_config


@click.group(cls=Group)
def config() -> None:
    """The server's configuration."""


@config.command()
@click.argument("path", type=click.Path(path_type=Path))
def validate(path: Path) -> None:
    """Check a file; every fault is told with its line."""
    load_server_config(path)
    click.echo(f"{path}: no faults")
