"""``scanside setup-code``: what begins the set-up of a box in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, opened, read_config
from appliance.commands import json_option, print_json


@click.command("setup-code")
@config_option
@json_option
def setup_code(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Print a new one-time code for /setup, which makes the first administrator. The code before it holds no more."""
    config = read_config(config_path, site)
    with opened(config) as store:
        code = store.setup.new_code()
    if as_json:
        print_json({"code": code})
    else:
        click.echo(f"{code}\nOpen /setup in a browser of this box and enter it; it works once.")
