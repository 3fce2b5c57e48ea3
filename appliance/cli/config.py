"""``scanside config``: check a configuration before a restart."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import Group, config_option, json_option, print_json, read_config


@click.group(cls=Group)
def config() -> None:
    """The configuration file."""


@config.command()
@config_option
@json_option
def validate(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check a configuration, and that the packages it names are there."""
    from appliance.triage.packages import load_packages

    checked = read_config(config_path, site)
    packages = sorted(load_packages(checked))
    if as_json:
        print_json({"valid": True, "mode": checked.site.mode, "packages": packages})
    else:
        click.echo(
            f"{config_path}: valid; mode {checked.site.mode}, {len(checked.sources)} sources,"
            f" {len(checked.destinations)} destinations, packages: {', '.join(packages) or 'none'}"
        )
