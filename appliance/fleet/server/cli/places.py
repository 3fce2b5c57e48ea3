"""``scanside-fleet tenant`` and ``site``: whose boxes there are, and where they stand."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy import func, select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.fleet.server import tables as t
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.db import read, write
from appliance.fleet.server.premises import PLATFORM
from appliance.fleet.server.registry import TenantKind, add_site, add_tenant, write_audit


@click.group(cls=Group)
def tenant() -> None:
    """Whose boxes there are: platform, vendors, dealers, hospitals, each below another."""


@tenant.command("add")
@click.argument("ident", metavar="ID")
@click.argument("name")
@click.option("--kind", type=click.Choice([str(k) for k in TenantKind if k is not TenantKind.PLATFORM]), required=True)
@click.option("--below", "parent", default=PLATFORM, show_default=True, help="The tenant above it.")
@config_option
def add_tenant_(ident: str, name: str, kind: str, parent: str, config_path: Path | None) -> None:
    """Add one. ID: 8 to 40 of a-z, 0-9 and -; it stands in topics, so it names nobody."""
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        add_tenant(connection, ident, name, TenantKind(kind), parent=parent, now=now)
        write_audit(connection, act="tenant.add", subject=ident, actor=me(), tenant_id=ident, now=now)
    click.echo(f"tenant {ident} is added")


@tenant.command("list")
@config_option
@json_option
def list_tenants(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them."""
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        rows = [row._asdict() for row in connection.execute(select(t.tenant).order_by(t.tenant.c.path))]
    if as_json:
        print_json({"tenants": rows})
        return
    shown = [["  " * (row["path"].count("/") - 1) + row["id"], row["kind"], row["name"]] for row in rows]
    print_table("Tenants", ["Id", "Kind", "Name"], shown, "No tenants; 'scanside-fleet up' makes the first.")


@click.group(cls=Group)
def site() -> None:
    """Where boxes stand."""


@site.command("add")
@click.argument("ident", metavar="ID")
@click.argument("tenant_id", metavar="TENANT")
@click.argument("name")
@click.option("--zone", default="UTC", show_default=True, help="Its time zone, as Asia/Shanghai.")
@click.option("--country", default="", help="ISO 3166 code; what may be installed depends on it.")
@config_option
def add_site_(ident: str, tenant_id: str, name: str, zone: str, country: str, config_path: Path | None) -> None:
    """Add one of a tenant."""
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        add_site(connection, ident, tenant_id, name, now=now, zone=zone, country=country)
        write_audit(connection, act="site.add", subject=ident, actor=me(), tenant_id=tenant_id, now=now)
    click.echo(f"site {ident} is added")


@site.command("list")
@config_option
@json_option
def list_sites(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them, and how many boxes each has."""
    boxes = select(func.count()).where(t.device.c.site == t.site.c.id, t.device.c.state == "enrolled").scalar_subquery()
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        asked = select(t.site, boxes.label("boxes")).order_by(t.site.c.tenant, t.site.c.id)
        rows = [row._asdict() for row in connection.execute(asked)]
    if as_json:
        print_json({"sites": rows})
        return
    shown = [[row["id"], row["tenant"], row["name"], row["zone"], row["country"], str(row["boxes"])] for row in rows]
    columns = ["Id", "Tenant", "Name", "Zone", "Country", "Boxes"]
    print_table("Sites", columns, shown, "No sites; 'scanside-fleet site add' makes one.")
