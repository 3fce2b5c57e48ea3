"""``scanside fleet``: this box in its service team's fleet."""

from __future__ import annotations

import contextlib
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, is_running, opened, read_config
from appliance.commands import Group, json_option, print_json
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.fleet.device.enrolment import enrol as enter
from appliance.fleet.device.enrolment import serial_number
from appliance.fleet.device.identity import FOLDER, Identity, NotEnrolledError, days_left
from appliance.fleet.keys import KeyFault
from appliance.fleet.wire_jobs import NEXT, JobState
from appliance.store import Store
from appliance.store.facts.fleet import FleetLink
from appliance.store.fleet import CONNECTED, TOLD
from appliance.store.fleet_jobs import JobMoved


@click.group(cls=Group)
def fleet() -> None:
    """The fleet that this box reports to: enter, look, leave."""


fleet.add_lazy(
    {
        "export": "appliance.cli.fleet_stick:export",
        "import": "appliance.cli.fleet_stick:import_",
        **{name: f"appliance.cli.fleet_jobs:{name}" for name in ("jobs", "approve", "refuse")},
    }
)


@fleet.command()
def serial() -> None:
    """Print this machine's serial number, for which the service team makes a token."""
    click.echo(serial_number())


@fleet.command()
@click.argument("url")
@click.argument("token")
@click.option("--serial", "given", help="What stands on the machine's plate, where the machine does not tell it.")
@config_option
@json_option
def enrol(url: str, token: str, given: str | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Enter a fleet with a one-time token. URL and TOKEN are what the service team gives."""
    config = read_config(config_path, site)
    proxy_url = config.fleet.proxy_url if config.fleet else None
    number = given or serial_number()
    with opened(config) as store:
        identity = enter(config.state_path / FOLDER, url, token, serial=number, proxy_url=proxy_url)
        _tell(store, "enrolled")
    where = identity.enrolment
    if as_json:
        print_json({"device": where.device, "tenant": where.tenant, "serial": number, "next": _next(config)})
        return
    click.echo(f"this box is {where.device} of {where.tenant}, until {identity.ends_at:%Y-%m-%d} and on, as it renews")
    for line in _next(config):
        click.echo(line)


@fleet.command()
@config_option
@json_option
def status(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Which fleet, how long the certificate holds, and how much waits for the server."""
    config = read_config(config_path, site)
    with opened(config) as store:
        document = _document(config, store)
    if as_json:
        print_json(document)
        return
    if not document["enrolled"]:
        click.echo(document["why"])
        return
    click.echo(f"{document['device']} of {document['tenant']} at {document['server_url']}")
    at, told = document["connected_at"], document["acknowledged_at"]
    click.echo(f"connected since {at}" if at else "not connected: nothing is lost, what waits is told later")
    click.echo(f"rows that wait: {document['waiting']}; last acknowledged: {told or 'never yet'}")
    click.echo(f"the certificate holds {document['certificate_days']:.0f} days")
    for line in document["next"]:
        click.echo(line)


@fleet.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def leave(yes: bool, config_path: Path, site: Path | None) -> None:  # noqa: FBT001
    """Leave the fleet: key and certificate are deleted here. The service team disables the box on its side."""
    config = read_config(config_path, site)
    folder = config.state_path / FOLDER
    with opened(config) as store:
        if not (folder / "identity.json").exists():
            raise NotEnrolledError("this box is in no fleet")
        if not yes:
            click.confirm("Leave the fleet? A new token is needed to come back.", abort=True)
        # First, so that whatever is left of the folder is no identity.
        (folder / "identity.json").unlink()
        shutil.rmtree(folder)
        _end_jobs(store)
        store.fleet.leave()
        _tell(store, "left")
    click.echo("this box has left its fleet")
    if is_running(config):
        click.echo("restart it, so that the link ends: systemctl restart scanside")


def _end_jobs(store: Store) -> None:
    """What this fleet asked for and has not begun is nothing that the next one wants."""
    for row in store.fleet_jobs.open():
        if JobState.CANCELED in NEXT[JobState(row.state)]:
            with contextlib.suppress(JobMoved):
                store.fleet_jobs.step(row, JobState.CANCELED, code="LEFT")


def _tell(store: Store, state: str) -> None:
    with store.db.write() as tx:
        tx.journal(FleetLink(state=state))


def _next(config: Config) -> list[str]:
    lines = []
    if config.fleet is None:
        lines.append("write 'fleet: {}' into the configuration: without it the box reports to nobody")
    if is_running(config):
        lines.append("restart the box, so that the link begins: systemctl restart scanside")
    return lines


def _document(config: Config, store: Store) -> dict[str, Any]:
    try:
        identity = Identity.load(config.state_path / FOLDER)
    except (ConfigError, KeyFault) as error:
        return {"enrolled": False, "why": str(error)}
    where = identity.enrolment
    return {
        "enrolled": True,
        "device": where.device,
        "tenant": where.tenant,
        "server_url": where.server_url,
        "brokers": [broker.model_dump(mode="json") for broker in where.brokers],
        "certificate_ends_at": identity.ends_at.isoformat(),
        "certificate_days": days_left(identity, datetime.now(timezone.utc)),
        "on_trial": identity.is_on_trial,
        # What a box that was killed had noted is no connection.
        "connected_at": (store.fleet.state(CONNECTED) or None) if is_running(config) else None,
        "acknowledged_at": store.fleet.state(TOLD) or None,
        "waiting": max(0, store.journal.last_seq() - store.journal.cursor("fleet")),
        "next": [] if config.fleet is not None else _next(config)[:1],
    }
