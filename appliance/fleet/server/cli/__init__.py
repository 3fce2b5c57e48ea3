"""The command line ``scanside-fleet``: one file per command group. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import click

from appliance import __version__
from appliance.commands import Group


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  scanside-fleet up                                    broker, enrolment and database on this machine
  scanside-fleet demo                                  the same with 320 boxes, and a roll-out that is stopped
  scanside-fleet device add --site site-0001 --serial 1234ABCD
  scanside-fleet job approve --key release.key         sign what waits, with a key that the server never has
""",
)
@click.version_option(__version__, prog_name="scanside-fleet")
def main() -> None:
    """The fleet server: thousands of boxes, their health, and what they are told."""


main.add_lazy(
    {
        "up": "appliance.fleet.server.cli.up:up",
        "demo": "appliance.fleet.server.cli.demo:demo",
        "config": "appliance.fleet.server.cli.config:config",
        "tenant": "appliance.fleet.server.cli.places:tenant",
        "site": "appliance.fleet.server.cli.places:site",
        "user": "appliance.fleet.server.cli.user:user",
        "device": "appliance.fleet.server.cli.device:device",
        "job": "appliance.fleet.server.cli.job:job",
        "key": "appliance.fleet.server.cli.key:key",
        "rollout": "appliance.fleet.server.cli.rollout:rollout",
        "hold": "appliance.fleet.server.cli.hold:hold",
        "stick": "appliance.fleet.server.cli.stick:stick",
        "model": "appliance.fleet.server.cli.model:model",
    }
)
