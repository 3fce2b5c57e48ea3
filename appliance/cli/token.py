"""``scanside token``: programs that may ask the API."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.records import UserRole
from appliance.store.readmodels import to_json
from appliance.store.tokens import ROLES


@click.group(cls=Group)
def token() -> None:
    """Programs that may ask the API: list, add, revoke."""


@token.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The tokens that hold."""
    with opened(read_config(config_path, site)) as store:
        views = store.tokens.all()
    if as_json:
        print_json({"tokens": to_json(views)})
        return
    print_table(
        "Tokens (times in UTC)",
        ["Name", "Role", "Sources", "Made", "Last used", "Ends"],
        [
            [
                view.name,
                str(view.role),
                ", ".join(view.sources) or "all",
                *(f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (view.made_at, view.used_at, view.ends_at)),
            ]
            for view in views
        ],
        "No tokens. 'scanside token add NAME' makes one.",
    )


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(sorted(map(str, ROLES))),
    default=str(UserRole.SCREEN),
    show_default=True,
    help="screen: alerts and study states of its sources, and acknowledge; viewer: no acts; service: health alone.",
)
@click.option("--source", "sources", multiple=True, help="A source whose studies it sees; repeat it. Default: all.")
@click.option("--days", type=click.IntRange(1), help="How long it holds. Default: until it is revoked.")
@config_option
@json_option
def add(
    name: str,
    role: str,
    sources: tuple[str, ...],
    days: int | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Make a token. It is printed once and kept nowhere."""
    config = read_config(config_path, site)
    unknown = set(sources) - {one.name for one in config.sources}
    if unknown:
        msg = f"no source is named {min(unknown)!r}; the configuration has the names"
        raise NotFoundError(msg)
    with opened(config) as store:
        made = store.tokens.add(name, UserRole(role), sources, me(), life=timedelta(days=days) if days else None)
    if as_json:
        print_json({"name": name, "token": made})
    else:
        click.echo(made)


@token.command()
@click.argument("name")
@config_option
@json_option
def revoke(name: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Refuse a program from now on."""
    with opened(read_config(config_path, site)) as store:
        store.tokens.revoke(name, me())
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        click.echo(f"token {name} is revoked")
