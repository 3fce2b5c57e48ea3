"""``scanside dest``: destinations, what they are owed, whether they answer."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import (
    Exit,
    Group,
    config_option,
    json_option,
    me,
    opened,
    print_json,
    print_table,
    read_config,
)
from appliance.config import Config, DicomDestination
from appliance.deliver.echo import echo
from appliance.deliver.stage import peer_of
from appliance.errors import NotFoundError
from appliance.store.readmodels import to_json


@click.group(cls=Group)
def dest() -> None:
    """Destinations: list, test, retry."""


def _named(config: Config, name: str) -> DicomDestination:
    for destination in config.destinations:
        if destination.name == name:
            return destination
    names = ", ".join(one.name for one in config.destinations) or "none"
    raise NotFoundError(f"no destination is named {name!r}; configured are: {names}")


@dest.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What each destination is owed."""
    config = read_config(config_path, site)
    with opened(config) as store:
        backlog = {one.destination: one for one in store.deliveries.backlog()}
    if as_json:
        listed = [
            {"name": one.name, "purpose": one.purpose, "backlog": to_json(backlog.get(one.name))}
            for one in config.destinations
        ]
        print_json({"destinations": listed})
        return
    rows = []
    for one in config.destinations:
        state = backlog.get(one.name)
        rows.append(
            [
                one.name,
                f"{one.ae_title} {one.host}:{one.port}",
                one.purpose,
                str(state.owed if state else 0),
                str(state.parked if state else 0),
                state.last_error if state else "",
            ]
        )
    print_table(
        "Destinations",
        ["Name", "Peer", "Purpose", "Owed", "Parked", "Last error"],
        rows,
        "No destination is configured; results stay on this box.",
    )


@dest.command()
@click.argument("name")
@config_option
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Call a destination with C-ECHO and say in plain words what it answers."""
    config = read_config(config_path, site)
    result = echo(peer_of(_named(config, name), config.dicom.ae_title))
    if as_json:
        print_json({"destination": name, **to_json(result)})
    else:
        click.echo(f"{name}: {'answers' if result.ok else 'does not answer'}: {result.words}")
    if not result.ok:
        ctx.exit(int(Exit.FAILED))


@dest.command()
@click.argument("name", required=False)
@config_option
@json_option
def retry(name: str | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Send everything that is owed or parked now; of one destination or of all."""
    config = read_config(config_path, site)
    if name is not None:
        _named(config, name)
    with opened(config) as store:
        count = store.deliveries.retry(name, me())
    print_json({"retried": count}) if as_json else click.echo(f"{count} deliveries are tried again now")
