"""``scanside-fleet device``: which boxes there are; let one in, replace one, hear one no more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.fleet.server import tables as t
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.db import read, write
from appliance.fleet.server.premises import root_of, server_url
from appliance.fleet.server.registry import (
    CertificateState,
    Scope,
    disable_device,
    enable_device,
    find_device,
    presence,
    replace_device,
    write_audit,
)
from appliance.fleet.server.tokens import make_token


@click.group(cls=Group)
def device() -> None:
    """Boxes: let in, list, say how one should be, replace, disable."""


device.add_lazy({"desired": "appliance.fleet.server.cli.desired:desired"})


@device.command()
@click.option("--site", required=True, help="Where it will stand.")
@click.option("--serial", required=True, help="Of the machine: 'scanside fleet serial' there prints it.")
@click.option("--replaces", metavar="OLD", help="The device whose place it takes.")
@config_option
@json_option
def add(site: str, serial: str, replaces: str | None, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Make a one-time token for one machine. It is printed once and kept nowhere."""
    config = read_config(config_path)
    with opened(config) as engine, write(engine) as connection:
        made = make_token(
            connection,
            Scope.everything(),
            serial=serial,
            site=site,
            replaces=replaces,
            root=root_of(config),
            now=SystemClock().now(),
            minutes=config.enrol.token_minutes,
            actor=me(),
        )
    url = server_url(config)
    if as_json:
        print_json({"device": made.device, "token": made.text, "url": url, "expires_at": made.expires_at})
        return
    click.echo(f"on the machine, within {config.enrol.token_minutes} minutes, it becomes {made.device} by:", err=True)
    click.echo(f"scanside fleet enrol {url} {made.text}")


@device.command("list")
@click.option("--site", help="Of one site.")
@config_option
@json_option
def list_(site: str | None, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All boxes: whether they are there, and how long their certificates hold."""
    now = SystemClock().now()
    holds = [str(CertificateState.TRIAL), str(CertificateState.CURRENT)]
    c = t.certificate.c
    ends = select(func.max(c.not_after)).where(c.device == t.device.c.id, c.state.in_(holds)).scalar_subquery()
    s = t.status.c
    asked = select(t.device, s.online, s.last_seen_at, s.due_at, s.agent, ends.label("ends_at"))
    asked = asked.outerjoin(t.status, s.device == t.device.c.id).order_by(t.device.c.number)
    if site is not None:
        asked = asked.where(t.device.c.site == site)
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        rows = [(row, str(presence(row, now))) for row in connection.execute(asked)]
    if as_json:
        print_json({"devices": [_document(row, link) for row, link in rows]})
        return
    print_table(
        "Devices (times in UTC)",
        ["No", "Id", "Site", "Serial", "State", "Link", "Last seen", "Version", "Certificate"],
        [
            [
                str(row.number),
                row.id,
                row.site,
                row.serial,
                row.state if row.replaced_by is None else f"replaced by {row.replaced_by}",
                link,
                f"{row.last_seen_at:%Y-%m-%d %H:%M}" if row.last_seen_at else "",
                row.agent or "",
                _days(row.ends_at, now),
            ]
            for row, link in rows
        ],
        "No devices; 'scanside-fleet device add' lets one in.",
    )


@device.command()
@click.argument("old")
@click.argument("new")
@config_option
def replace(old: str, new: str, config_path: Path | None) -> None:
    """NEW stands where OLD stood: OLD is heard no more, its certificate is revoked, its history stays with NEW."""
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        tenant = find_device(connection, Scope.everything(), old).tenant
        replace_device(connection, Scope.everything(), old, new, now=now)
        told = {"by": new}
        write_audit(connection, act="device.replace", subject=old, actor=me(), tenant_id=tenant, now=now, detail=told)
    click.echo(f"{old} is replaced by {new}; the broker refuses {old} within seconds")


@device.command()
@click.argument("ident", metavar="ID")
@click.option("--why", required=True, help="For the audit.")
@config_option
def disable(ident: str, why: str, config_path: Path | None) -> None:
    """Hear a box no more: the broker refuses its certificate within seconds. 'enable' takes it back."""
    _switch(ident, why, config_path, on=False)
    click.echo(f"{ident} is disabled; the broker refuses it within seconds")


@device.command()
@click.argument("ident", metavar="ID")
@click.option("--why", required=True, help="For the audit.")
@config_option
def enable(ident: str, why: str, config_path: Path | None) -> None:
    """Hear a disabled box again."""
    _switch(ident, why, config_path, on=True)
    click.echo(f"{ident} is enabled")


def _switch(ident: str, why: str, config_path: Path | None, *, on: bool) -> None:
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        tenant = find_device(connection, Scope.everything(), ident).tenant
        if on:
            enable_device(connection, Scope.everything(), ident)
        else:
            disable_device(connection, Scope.everything(), ident, now=now)
        act, told = f"device.{'enable' if on else 'disable'}", {"why": why[:200]}
        write_audit(connection, act=act, subject=ident, actor=me(), tenant_id=tenant, now=now, detail=told)


def _document(row: Any, link: str) -> dict[str, Any]:
    names = ("number", "id", "tenant", "site", "serial", "hardware", "state", "replaced_by", "last_seen_at", "agent")
    return {**{name: getattr(row, name) for name in names}, "link": link, "certificate_ends_at": row.ends_at}


def _days(ends_at: datetime | str | None, now: datetime) -> str:
    if ends_at is None:
        return "none"
    end = datetime.fromisoformat(ends_at) if isinstance(ends_at, str) else ends_at
    days = (end - now).days
    return f"{days} d" if days >= 0 else f"ended {-days} d ago"
