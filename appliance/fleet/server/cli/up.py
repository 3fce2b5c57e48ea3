"""``scanside-fleet up``: everything on this machine."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from appliance.fleet.server.cli.common import config_option, read_config


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where all is kept; wins over the configuration.")
@click.option("--ready-json", is_flag=True, help="Print one line of JSON with the addresses once all is up.")
@config_option
def up(config_path: Path | None, folder: Path | None, ready_json: bool) -> None:  # noqa: FBT001
    """Start broker, enrolment, ingest and database, until SIGTERM or Ctrl-C.

    Without a configuration it is reached from this machine alone.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = read_config(config_path)
    if folder is not None:
        config = config.model_copy(update={"folder": folder})
    from appliance.fleet.server.up import FleetServer

    server = FleetServer(config)

    def ready() -> None:
        if ready_json:
            click.echo(json.dumps(server.addresses()))
            return
        told = server.addresses()
        click.echo(f"boxes enrol at     {told['https']}", err=True)
        click.echo(f"boxes connect to   {told['mqtt']}", err=True)
        click.echo(f"people look at     {told['console']}", err=True)
        click.echo(f"everything lies in {config.folder}", err=True)
        if told["is_development_ca"]:
            click.echo("certificates come from a DEVELOPMENT CA in that folder; see docs/fleet.md", err=True)

    server.run(ready)
