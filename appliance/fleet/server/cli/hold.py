"""``scanside-fleet hold``: clinical freezes. Nothing new is installed where one stands."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import click

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.rollout_told import account_of, as_option, why_option
from appliance.fleet.server.db import read, write
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.holds import Kind, add_hold, lift_hold
from appliance.fleet.server.rollout.query import list_holds
from appliance.fleet.server.server_keys import ServerKeys

_EVERYTHING = Scope.everything()


@click.group(cls=Group)
def hold() -> None:
    """Where nothing new is installed: of a tenant, a site or a box. A withdrawal is never held."""


@hold.command()
@click.argument("kind", type=click.Choice(["tenant", "site", "device"]))
@click.argument("subject", metavar="ID")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="It ends by itself then.")
@why_option
@as_option(required=False)
@config_option
@json_option
def add(
    kind: str,
    subject: str,
    days: float | None,
    why: str,
    name: str | None,
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Hold it, until somebody lifts it or its days are over. Boxes hear of it and refuse by themselves."""
    config, now = read_config(config_path), SystemClock().now()
    keys = ServerKeys.open(config.folder / KEYS)
    until = None if days is None else now + timedelta(days=days)
    with opened(config) as engine, write(engine) as connection:
        account = None if name is None else account_of(connection, name)
        number = add_hold(
            connection,
            keys,
            _EVERYTHING,
            cast("Kind", kind),
            subject,
            why=why,
            actor=me(),
            now=now,
            account=account,
            until=until,
        )
    if as_json:
        print_json({"hold": number, "kind": kind, "subject": subject, "until": until})
    else:
        click.echo(f"hold {number} stands over {kind} {subject}")


@hold.command("list")
@click.option("--all", "every", is_flag=True, help="Those that were lifted too.")
@config_option
@json_option
def list_(every: bool, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Those that stand."""
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        found = list_holds(connection, _EVERYTHING, SystemClock().now(), lifted=every)
    if as_json:
        print_json({"holds": [asdict(one) for one in found]})
        return
    shown = [
        [str(one.number), one.kind, one.subject, one.why, one.maker, *map(_told, (one.made_at, one.until_at))]
        for one in found
    ]
    columns = ["Hold", "Of", "Which", "Why", "By", "Since", "Until"]
    print_table("Holds (times in UTC)", columns, shown, "No holds.")


@hold.command()
@click.argument("number", type=int)
@why_option
@as_option(required=False)
@config_option
def lift(number: int, why: str, name: str | None, config_path: Path | None) -> None:
    """Lift it; boxes over which another one stands stay held."""
    config = read_config(config_path)
    keys = ServerKeys.open(config.folder / KEYS)
    with opened(config) as engine, write(engine) as connection:
        account = None if name is None else account_of(connection, name)
        now = SystemClock().now()
        lift_hold(connection, keys, _EVERYTHING, number, why=why, actor=me(), now=now, account=account)
    click.echo(f"hold {number} is lifted")


def _told(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
