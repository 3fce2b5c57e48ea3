"""``scanside-fleet user``: who signs in at the console."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.console import people
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.db import read, write
from appliance.web.passwords import Passwords, one_time


@click.group(cls=Group)
def user() -> None:
    """People of the console: what they are, and in which tenant."""


@user.command()
@click.argument("name")
@click.option("--tenant", required=True, help="Where; they see its boxes and those of all tenants below it.")
@click.option("--role", type=click.Choice([str(role) for role in FleetRole]), required=True)
@click.option("--full-name", default="", help="As it stands on pages.  [default: NAME]")
@config_option
@json_option
def add(name: str, tenant: str, role: str, full_name: str, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Add a person, or give one that is there another role.

    A new person's password is printed once; it must be changed at the first sign-in.
    """
    password = one_time()
    kept = Passwords().hashed(password)
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        is_new = people.by_name(connection, name) is None
        people.add_person(connection, name, full_name, tenant, FleetRole(role), kept, now=now, actor=me())
    if as_json:
        print_json({"name": name, "tenant": tenant, "role": role, "password": password if is_new else None})
        return
    click.echo(f"{name} is {role} in {tenant}" + ("; the password, shown this once:" if is_new else ""), err=True)
    if is_new:
        click.echo(password)


@user.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them."""
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        found = people.everybody(connection)
    if as_json:
        print_json({"users": [_document(one) for one in found]})
        return
    shown = [
        [
            one.name,
            one.full_name,
            ", ".join(f"{member.role} in {member.tenant}" for member in one.members),
            "" if one.is_active else "switched off",
        ]
        for one in found
    ]
    print_table(
        "Users", ["Name", "Full name", "Roles", "State"], shown, "No users; 'scanside-fleet user add' makes one."
    )


@user.command()
@click.argument("name")
@config_option
@json_option
def password(name: str, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Give a person another password, printed once; their browsers are signed out."""
    made = one_time()
    kept = Passwords().hashed(made)
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        found = people.by_name(connection, name)
        if found is None:
            raise NotFoundError(f"there is no user {name!r}; 'scanside-fleet user list' shows them")
        people.set_password(connection, found[0], kept, must_change=True, now=now, actor=me())
    if as_json:
        print_json({"name": name, "password": made})
        return
    click.echo(made)


def _document(one: people.Person) -> dict[str, object]:
    return {
        "name": one.name,
        "full_name": one.full_name,
        "is_active": one.is_active,
        "roles": [{"tenant": member.tenant, "role": str(member.role)} for member in one.members],
    }
