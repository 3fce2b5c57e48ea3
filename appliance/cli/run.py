"""``scanside run``: the daemon."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from appliance.cli.common import config_option, read_config


@click.command()
@config_option
def run(config_path: Path, site: Path | None) -> None:
    """Run the box until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = read_config(config_path, site)
    from appliance.daemon import Daemon

    Daemon(config).run()
